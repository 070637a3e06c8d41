# Reads the bodies: requests that are accepted (bidders/requests, shipped with the package) and refused (malformed/).
#
# The refused ones keep their answers in one table, malformed/expected.txt, which explains its own columns. A body that
# would be large is kept as a recipe: `!repeat N` writes each <<<text>>> of the file N times, `#` in it counting from 0.

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REQUESTS = Path(__file__).parents[2] / "bidders" / "requests"
MALFORMED = Path(__file__).parent / "malformed"


@dataclass(frozen=True, slots=True)
class Refused:
    """A body and the whole answer to it; `path` is empty where the body itself is at fault."""

    name: str
    body: bytes
    path: str
    message: str


def accepted() -> dict[str, bytes]:
    """Read every shipped request by name; those called sloppy-* need `json: lenient`."""
    return {file.stem: file.read_bytes() for file in sorted(REQUESTS.glob("*.json"))}


def refused() -> list[Refused]:
    """Read the table of refusals in its order; ValueError where a line has another shape."""
    cases = []
    for line in (MALFORMED / "expected.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, path, message, *recipe = line.split("\t")
        body = (MALFORMED / f"{name}.json").read_bytes()
        cases.append(Refused(name, _cook(body, *recipe), path, message))
    return cases


def _cook(body: bytes, recipe: str = "") -> bytes:
    if not recipe:
        return body
    count = re.fullmatch(r"!repeat (\d+)", recipe)
    if count is None:
        raise ValueError(f"expected !repeat N, was {recipe!r}")
    copies = range(int(count[1]))
    return re.sub(rb"<<<(.*?)>>>", lambda part: b"".join(part[1].replace(b"#", b"%d" % n) for n in copies), body)

# Makes conformance/ from tests/scenarios: each scenario is one vector, a case with the answer that is expected.
#
# What a scenario claims was written by hand, and is less than an answer has. The rest is what the oracle says, once
# every claim has been found in it; the product is not asked. `make docs` writes the files, `make check` compares them.

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests import oracle, scenario

Json = dict[str, Any]

VECTORS = Path(__file__).parent.parent / "conformance"
# The width at which what is told of a bid stands on one line.
COLUMNS = 160

SOURCE = re.compile(
    r"OpenRTB 2\.6 (?:sections? |implementation guide )(?P<sections>[\d.]*\d(?: and [\d.]*\d)*)"
    r"|OpenRTB (?P<list>(?:loss|no-bid) reason)"
    r"|(?P<other>ISO 4217|Industry practice|Arithmetic|Policy)"
)


def documents() -> dict[Path, str]:
    """Give every vector, as its file should be; ValueError where the oracle is at odds with a scenario."""
    return {VECTORS / f"{path.stem}.json": written(vector(path)) for path in scenario.scenarios()}


def vector(path: Path) -> Json:
    """Make the vector of one scenario."""
    claimed = scenario.read(path)
    expected = oracle.decide(claimed.case)
    if faults := claimed.faults(expected):
        raise ValueError("\n".join(f"{path.name}: {fault}" for fault in faults))
    note = opening_comment(path)
    title = path.stem.replace("-", " ")
    return {"title": title, "source": sources(note), "note": note, **claimed.case, "expect": expected}


def opening_comment(path: Path) -> str:
    """Give the comment that a scenario opens with, as one line."""
    lines = path.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("# "))
    return " ".join(line[2:] for line in lines[:end])


def sources(note: str) -> list[str]:
    """Name what a claim rests on, in one spelling each: paragraphs of the standard, practice, arithmetic or policy."""
    found = []
    for match in SOURCE.finditer(note):
        if match["sections"]:
            found += [f"OpenRTB 2.6 section {number}" for number in match["sections"].split(" and ")]
        elif match["list"]:
            found.append(f"OpenRTB {match['list']}s")
        elif match["other"] == "ISO 4217":
            found.append("ISO 4217")
        else:
            found.append(match["other"].lower())
    return list(dict.fromkeys(found))


def written(value: Json) -> str:
    """Write a vector for people to read: what fits on a line stands on one."""
    return f"{_written(value, 0, 0)}\n"


def _written(value: object, indent: int, taken: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (indent and indent + taken + len(line) < COLUMNS):
        return line
    blanks = " " * (indent + 2)
    if isinstance(value, dict):
        heads = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        members = [
            f"{blanks}{head}{_written(member, indent + 2, len(head) + 1)}"
            for head, member in zip(heads, value.values(), strict=True)
        ]
    else:
        members = [f"{blanks}{_written(element, indent + 2, 1)}" for element in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    inner = ",\n".join(members)
    return f"{first}\n{inner}\n{' ' * indent}{last}"

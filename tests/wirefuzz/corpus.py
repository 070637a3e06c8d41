# What is kept of the inputs that reached something new: a file for each target, a line for each input, in hexadecimal.

from __future__ import annotations

from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"


def kept(target: str, where: Path = CORPUS) -> list[bytes]:
    """Read the inputs of a target."""
    file = where / f"{target}.txt"
    return [bytes.fromhex(line) for line in file.read_text("ascii").splitlines()] if file.exists() else []


def keep(target: str, inputs: list[bytes], where: Path = CORPUS) -> None:
    """Write the inputs of a target, short ones first, each once."""
    lines = [each.hex() for each in sorted(set(inputs), key=lambda each: (len(each), each))]
    (where / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")

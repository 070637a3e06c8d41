# What docs/rules.md promises, and by what: its statements, the vectors and tests they link to, its examples, its table
# of settings. tests/test_docs.py holds the page to them.

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from auction.config import every_setting
from tests import test_settings

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "docs" / "rules.md"

LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)(?: "([^"]*)")?\)')
CODE = re.compile(r"`(auction/[\w/]+\.py)(?:::([\w.]+))?`")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Give each numbered section of the page, its heading and its text."""
    for part in re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        yield heading, body


def blocks(text: str) -> Iterator[str]:
    """Give what can be pointed at: each paragraph, point of a list and row of a table; code blocks are left out."""
    text = re.sub(r"^```.*?^```\n", "\n", text, flags=re.MULTILINE | re.DOTALL)
    for part in re.split(r"\n\s*\n", re.sub(r"^<!--.*-->$", "", text, flags=re.MULTILINE)):
        lines = part.strip("\n").splitlines()
        if not lines:
            continue
        if lines[0].startswith("|"):
            yield from lines[2:]
        elif lines[0].startswith("- "):
            yield from re.split(r"\n(?=- )", "\n".join(lines))
        else:
            yield " ".join(lines)


def vectors(text: str) -> list[str]:
    """Name the vectors that a text links to."""
    return [Path(target).stem for target, _ in LINK.findall(text) if target.startswith("../conformance/")]


def evidence(text: str) -> list[str]:
    """Give the vectors and tests that a text links to."""
    return [target for target, _ in LINK.findall(text) if target.startswith(("../conformance/", "../tests/"))]


def tables(text: str) -> Iterator[list[dict[str, str]]]:
    """Give each table as its rows, cells by the name of their column."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        yield [dict(zip(head, row, strict=True)) for row in rows]


def settings_table() -> str:
    """Make the table of settings: each value that has a vector, the default in bold."""
    nodes = dict(every_setting())
    rows = ["| setting | value, shown by the file it links to |", "|---|---|"]
    for setting, values in {**test_settings.TABLE, **test_settings.TOLD}.items():
        default = None if setting.endswith(".floor") else test_settings.written(nodes[setting].get("default"))
        shown = []
        for value, name in values.items():
            words = value.replace(":", " ").replace(",", ", ") or "empty"
            link = f"[{words}](../conformance/{name}.json)"
            shown.append(f"**{link}**" if value == default else link)
        rows.append(f"| `{setting}` | {' · '.join(shown)} |")
    rows += [f"| `{setting}` | not in a case: {why} |" for setting, why in test_settings.ELSEWHERE.items()]
    return "\n".join(rows)

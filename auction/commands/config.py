"""Check a configuration, or print what can be set.

exit codes:
  0  right, and told
  2  wrong: one line for each fault

examples:
  auction config check auction.yaml
  auction config check --json auction.yaml
  AUCTION_SERVER__PORT=7500 auction config check
  auction config example > auction.yaml
"""

# Schema, example and tables are written from the types, so that none of them can say what the program does not do.

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auction.config import ConfigFaults, environment, every_setting, expected, loaded, schema, schema_at

_WIDTH = 110
_EXAMPLE_HEAD = """\
Every setting of `auction serve --config FILE`, with its default. Printed by `auction config example`.

A line that starts with # and a name, without a space between, is a setting that has no default: what follows is an
example. Amounts are CPM and exact decimals; the end of a name is its unit. Each setting can be given in the environment
instead, two underscores a level: AUCTION_SERVER__PORT=7500, AUCTION_BIDDERS__0__TIMEOUT_MS=80.
`auction config check FILE` says what counts, and what is wrong."""
_EXAMPLE_BIDDERS: list[dict[str, Any]] = [
    {"name": "dsp-a", "grpc": "127.0.0.1:7501"},
    {"name": "dsp-b", "http": "http://127.0.0.1:7502/openrtb2/bid"},
]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="tell what counts and where it comes from, or all that is wrong")
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="none: the defaults and the environment")
    check.add_argument("--json", action="store_true", help="the same as data")
    actions.add_parser("schema", help="print the JSON Schema of the file, for editors")
    actions.add_parser("example", help="print a file with everything in it, commented")
    actions.add_parser("settings", help="print every setting as Markdown tables")


def run(args: argparse.Namespace) -> int:
    """Do one action; exit code 2 for a configuration that is refused."""
    if args.action == "check":
        return _check(args.file, args.json)
    if args.action == "schema":
        print(json.dumps(schema(), indent=2))
    else:
        print(example() if args.action == "example" else settings(), end="")
    return 0


def _check(file: Path | None, as_json: bool) -> int:
    try:
        found = loaded(file, environment())
    except ConfigFaults as refused:
        if as_json:
            faults = [
                {"path": one.path, "message": one.message, "suggestion": one.suggestion, "from": one.origin}
                for one in refused.faults
            ]
            print(json.dumps({"faults": faults}, indent=2, ensure_ascii=False))
        else:
            print(refused, file=sys.stderr)
        return 2
    effective = found.effective()
    rules = found.config.rules().digest().hex()
    if as_json:
        listed = [{"path": one.path, "value": one.value, "from": one.origin} for one in effective]
        print(json.dumps({"settings": listed, "rules": rules}, indent=2, ensure_ascii=False))
        return 0
    rows = [(one.path, _shown(one.value), one.origin) for one in effective]
    paths, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for path, value, origin in rows:
        print(f"{path:{paths}}  {value:{values}}  {origin}")
    print(f"\nrules {rules}: what decides auctions, as records name it")
    return 0


def example() -> str:
    """Write a file with every setting, commented; it loads, and changes nothing but to add two bidders."""
    written = textwrap.indent(_EXAMPLE_HEAD, "# ", lambda _: True).replace("# \n", "#\n") + "\n"
    for section in _keys(()):
        written += f"\n{_comment(_described(section), '')}{section}:\n"
        if section != "bidders":
            written += "".join(_example_setting((section, key), "  ") for key in _keys((section,)))
            continue
        for bidder in _EXAMPLE_BIDDERS:
            # The first shows everything that can be said of a bidder, the others what has to be.
            first = bidder is _EXAMPLE_BIDDERS[0]
            for key in _keys(("bidders", 0)):
                if key in bidder or (first and key != "http"):
                    indent, dash = ("  ", "- ") if key == "name" else ("    ", "")
                    explained = first or key == "http"
                    written += _example_setting(("bidders", 0, key), indent, dash, bidder.get(key), explained)
    return written


def _example_setting(
    path: tuple[str | int, ...], indent: str, dash: str = "", value: Any = None, explained: bool = True
) -> str:
    described = schema_at(path) or {}
    default = described.get("default")
    unset = value is None and not default and "examples" in described
    value = described["examples"][0] if unset else default if value is None else value
    comment = _comment(f"{described['description']} {_values(described)}".rstrip(), indent) if explained else ""
    return f"{comment}{indent}{dash}{'#' if unset else ''}{path[-1]}: {_yaml(value)}\n"


def settings() -> str:
    """Write the settings as Markdown, one table a section."""
    written = ""
    section = ""
    for name, described in every_setting():
        head, _, key = name.partition(".")
        if head != section:
            section = head
            written += "\n" if written else ""
            written += f"### `{section}`\n\n{_described(section.removesuffix('[]'))}\n\n"
            written += "| setting | default | values | meaning |\n|---|---|---|---|\n"
        default = described.get("default", "required")
        shown = "none" if default in (None, "", [], {}) else default if default == "required" else f"`{_yaml(default)}`"
        written += f"| `{key}` | {shown} | {expected(described)} | {described['description']} |\n"
    return written


def _described(section: str) -> str:
    node = schema_at((section, 0)) or schema_at((section,)) or {}
    return str(node["description"])


def _keys(path: tuple[str | int, ...]) -> Iterator[str]:
    yield from (schema_at(path) or {})["properties"]


def _values(described: dict[str, Any]) -> str:
    """Say which values fit, where the description and the default leave it open."""
    return f"({expected(described)})" if "enum" in described or described.get("type") == "integer" else ""


def _comment(text: str, indent: str) -> str:
    lines = textwrap.wrap(text, _WIDTH - len(indent) - 2, break_long_words=False)
    return "".join(f"{indent}# {line}\n" for line in lines)


def _yaml(value: Any) -> str:
    """Write a value as YAML on one line, text without quotes where it needs none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9/][A-Za-z0-9_./:-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    return "none" if value is None else _yaml(value)

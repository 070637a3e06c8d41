# What the chart's values.yaml says of its values, as a table for people and as a JSON Schema for Helm. Both are made
# from the comments beside the values (`make docs`), so that a value is described once; a stale one fails `make check`.
#
# The lines above a key are its meaning. A line `@schema {...}` is JSON Schema beside what the default tells (its type),
# and a mapping with one that says what is in it is taken as a whole: it is a value, not a section.
#
# What may stand under `config` is the server's own schema, without what the chart sets. A setting that the server gains
# can be set through the chart when the two are generated again.

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from auction.config import schema as server_schema

CHART: Final = Path(__file__).resolve().parent / "charts" / "auction"
MARK: Final = "@schema "

# Of the server's settings, those that the chart sets: its ports and probes, the drain, and the volumes hang together.
OWN: Final = {
    "Server": (
        *("host", "port", "http_port", "workers", "notice_ms", "drain_s", "tls", "http_tls"),
        *("connection_age_s", "connection_grace_s", "keepalive_s", "keepalive_timeout_s", "connection_streams"),
    ),
    "Log": ("dir",),
}

# Of a network, where a word that is spelt wrong would let in or out whom nobody meant.
_SELECTOR: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
        "matchExpressions": {"type": "array", "items": {"type": "object", "required": ["key", "operator"]}},
    },
}
_PEERS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            "podSelector": _SELECTOR,
            "namespaceSelector": _SELECTOR,
            "ipBlock": {
                "type": "object",
                "additionalProperties": False,
                "required": ["cidr"],
                "properties": {
                    "cidr": {"type": "string", "pattern": "/[0-9]+$"},
                    "except": {"type": "array", "items": {"type": "string", "pattern": "/[0-9]+$"}},
                },
            },
        },
    },
}
_SERVICE_ACCOUNT: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["create", "name"],
    "properties": {
        "create": {"type": "boolean"},
        "name": {"type": "string", "minLength": 1, "maxLength": 253},
        "roleArn": {"type": "string", "pattern": "^(arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/.+)?$"},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
# IRSA is a role a service account; a role without IRSA means nothing, and is somebody's mistake.
_IDENTITY: Final = [
    {
        "if": {
            "required": ["aws"],
            "properties": {"aws": {"required": ["identity"], "properties": {"identity": {"const": "irsa"}}}},
        },
        "then": {
            "properties": {
                "serviceAccounts": {
                    "additionalProperties": {
                        "if": {"properties": {"create": {"const": True}}},
                        "then": {"required": ["roleArn"], "properties": {"roleArn": {"minLength": 1}}},
                    }
                }
            }
        },
    }
]


class Value(NamedTuple):
    """A value or a section of values: what its comment says of it, and what stands in the file."""

    path: tuple[str, ...]
    meaning: str
    default: Any
    schema: dict[str, Any]
    section: bool


def values(text: str) -> Iterator[Value]:
    """Read values.yaml, sections before what is in them. Raises ValueError where a value has no comment."""
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _within(root, yaml.safe_load(text), (), lines)


def _within(
    node: yaml.MappingNode, defaults: dict[str, Any], path: tuple[str, ...], lines: list[str]
) -> Iterator[Value]:
    for key, below in node.value:
        name = str(key.value)
        here = (*path, name)
        meaning, schema = _comment(lines, key.start_mark.line, ".".join(here))
        section = isinstance(below, yaml.MappingNode) and bool(below.value) and not schema
        yield Value(here, meaning, defaults[name], schema, section)
        if section:
            yield from _within(below, defaults[name], here, lines)


def _comment(lines: list[str], row: int, name: str) -> tuple[str, dict[str, Any]]:
    said: list[str] = []
    schema: dict[str, Any] = {}
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        line = lines[row].strip().removeprefix("#").strip()
        if line.startswith(MARK):
            schema |= json.loads(line.removeprefix(MARK))
        else:
            said.insert(0, line)
    if not said:
        raise ValueError(f"{name}: expected a comment above it, was none")
    return " ".join(said), schema


def schema() -> str:
    """Write values.schema.json: strict, and of draft 7, which every Helm since 3 reads."""
    tree: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart auction",
        "type": "object",
        "additionalProperties": False,
        # Helm hands it to every chart that is part of another.
        "properties": {"global": {"type": "object"}},
        "allOf": _IDENTITY,
        "definitions": {**_server(), "Peers": _PEERS, "ServiceAccount": _SERVICE_ACCOUNT},
    }
    for value in values((CHART / "values.yaml").read_text()):
        within = tree
        for name in value.path[:-1]:
            within = within["properties"][name]
        within["properties"][value.path[-1]] = found = _schema_of(value)
        # Helm lays values over the defaults first, so one that is missing was taken away by a null.
        if "null" not in found.get("type", ()):
            within.setdefault("required", []).append(value.path[-1])
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def _schema_of(value: Value) -> dict[str, Any]:
    if value.section:
        return {"description": value.meaning, "type": "object", "additionalProperties": False, "properties": {}}
    if "$ref" in value.schema:
        # Beside a $ref, draft 7 reads nothing.
        return {"description": value.meaning, "allOf": [value.schema]}
    told = {} if "type" in value.schema else {"type": _TYPES[type(value.default)]}
    return {"description": value.meaning, **told, **value.schema}


_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def _server() -> dict[str, Any]:
    """Give the server's schema as definitions: `Config` is the whole, less what the chart sets."""
    whole = copy.deepcopy(server_schema())
    definitions: dict[str, Any] = whole.pop("$defs")
    whole.pop("$schema")
    for name, settings in OWN.items():
        for setting in settings:
            del definitions[name]["properties"][setting]
    moved: dict[str, Any] = json.loads(
        json.dumps({**definitions, "Config": whole}).replace('"#/$defs/', '"#/definitions/')
    )
    plain: dict[str, Any] = _draft_7(moved)
    return plain


def _draft_7(node: Any) -> Any:
    """Put a $ref that has company into an allOf, where draft 7 reads both."""
    if isinstance(node, dict):
        plain = {key: _draft_7(below) for key, below in node.items()}
        if len(plain) > 1 and isinstance(plain.get("$ref"), str):
            plain["allOf"] = [{"$ref": plain.pop("$ref")}]
        return plain
    return [_draft_7(item) for item in node] if isinstance(node, list) else node


def table() -> str:
    """Write the table of values for the chart's README, a section a top-level value."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for value in values((CHART / "values.yaml").read_text()):
        name = ".".join(value.path)
        default = "" if value.section else f"`{json.dumps(value.default, ensure_ascii=False)}`"
        lines.append(f"| {f'**`{name}`**' if value.section else f'`{name}`'} | {default} | {_cell(value)} |")
    return "\n".join(lines) + "\n"


def _cell(value: Value) -> str:
    choices = value.schema.get("enum")
    among = f" ({', '.join(map(str, choices))})" if choices else ""
    return f"{value.meaning}{among}".replace("|", "\\|")

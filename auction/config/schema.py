# What can be set, described: as JSON Schema, setting by setting, and in the words of a fault.

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from auction.config.faults import Path
from auction.config.settings import Config


class _Untitled(GenerateJsonSchema):
    """Leave out titles: they only say a setting's name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@functools.cache
def schema() -> dict[str, Any]:
    """Describe the file as JSON Schema, draft 2020-12."""
    described = Config.model_json_schema(schema_generator=_Untitled)
    return {"$schema": GenerateJsonSchema.schema_dialect, **described}


def schema_at(path: Path) -> dict[str, Any] | None:
    """Find what the schema says of one setting, or of what may stand in its place; None where nothing may."""
    node: dict[str, Any] | None = _plain(schema())
    for part in path:
        if node is None:
            return None
        within = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        free = None if isinstance(part, int) else node.get("additionalProperties") or None
        found = within or free or next(iter(node.get("patternProperties", {}).values()), None)
        node = _plain(found) if found else None
    return node


def every_setting(path: Path = (), written: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Name every setting, `bidders[].timeout_ms`, in order, with what the schema says of it."""
    for key, node in (schema_at(path) or {})["properties"].items():
        below, item = schema_at((*path, key)) or node, schema_at((*path, key, 0)) or {}
        name = f"{written}.{key}" if written else key
        if "properties" in below:
            yield from every_setting((*path, key), name)
        elif "properties" in item:
            yield from every_setting((*path, key, 0), f"{name}[]")
        else:
            yield name, below


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and look past the null of a setting that may be absent."""
    if "anyOf" in node:
        return {**_plain(node["anyOf"][0]), **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        return {**schema()["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return node


def expected(node: dict[str, Any]) -> str:
    """Say in words which values a setting takes."""
    kind = node.get("type")
    if "enum" in node:
        *others, last = node["enum"]
        return f"{', '.join(others)} or {last}"
    if "$comment" in node:
        return str(node["$comment"])
    if kind == "integer":
        return f"{node['minimum']} to {node['maximum']}"
    if isinstance(kind, list):
        if "exclusiveMinimum" in node:
            return f"a decimal above {node['exclusiveMinimum']}, at most {node['maximum']}"
        return f"a decimal, {node['minimum']} to {node['maximum']}"
    if kind == "string":
        if "pattern" in node:
            return "an ISO 4217 code"
        if "minLength" in node:
            return f"text of {node['minLength']} to {node['maxLength']} characters"
        return f"text of at most {node['maxLength']} characters" if "maxLength" in node else "text"
    if kind == "array":
        most = f" of at most {node['maxItems']}" if "maxItems" in node else ""
        return f"a list of {expected(node['items'])}" if "enum" in node["items"] else f"a list{most}"
    if kind == "object":
        most = f" of at most {node['maxProperties']}" if "maxProperties" in node else ""
        return "a decimal per currency" if "patternProperties" in node else f"a mapping{most}"
    return "true or false"

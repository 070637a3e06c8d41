# Where values come from: a YAML file and the environment, each value with the place it stands in.
#
# PyYAML's own constructor is not used. It would make doubles of decimals, dates of times, `no` a boolean and 010 an
# eight, and of two equal keys keep the last; all of that is wrong for money and for people who look for their mistake.
# So we take the node tree and read scalars by YAML 1.2's core schema, with decimals kept exact. The tree is libyaml's:
# it is four times as quick, nests no deeper than a thousand levels, and its messages quote nothing of the text, which
# may be a secret. Secrets are not read from files of their own: the environment is where orchestrators put them.

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from auction.config.faults import ConfigFaults, Fault, Path, dotted, shown
from auction.config.schema import every_setting, schema_at

PREFIX = "AUCTION_"

# 4 MiB: twenty thousand floor rules with every key; all other settings come to a hundredth of it.
FILE_BYTES_MAX = 4 * 1024 * 1024
# Aliases may repeat a part of the file, and a part of a part: twice what twenty thousand floor rules come to.
VALUES_MAX = 400_000
# The deepest setting is bidders[0].headers.name, at four.
DEPTH_MAX = 8
# Longer than any amount; what is longer stays text and is refused as text.
NUMBER_CHARS_MAX = 40

_NULL, _BOOL, _INT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"
_FLOAT, _STR = "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_SCALARS = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", ["t", "T", "f", "F"]),
    (_INT, rf"(?=.{{1,{NUMBER_CHARS_MAX}}}\Z)[+-]?(0|[1-9][0-9]*)", list("+-0123456789")),
    (
        _FLOAT,
        rf"(?=.{{1,{NUMBER_CHARS_MAX}}}\Z)[+-]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][+-]?[0-9]{{1,3}})?",
        list("+-.0123456789"),
    ),
)


class _CoreSchema(yaml.CSafeLoader):
    """Reads scalars by the table above and nothing else."""


_CoreSchema.yaml_implicit_resolvers = {}


for _tag, _pattern, _first in _SCALARS:
    _CoreSchema.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


class Values:
    """Nested mappings and lists as read so far; `origins` says of each path where it stands, in the order read."""

    def __init__(self) -> None:
        self.tree: Any = {}
        self.origins: dict[Path, str] = {}
        self.faults: list[Fault] = []

    def origin(self, path: Path) -> str:
        """Say where a setting stands, or where it would: the nearest thing around it that stands somewhere."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "")

    def blame(self, path: Path, message: str, origin: str, suggestion: str = "") -> None:
        self.faults.append(Fault(dotted(path), message, suggestion, origin))


def read_file(values: Values, content: bytes, name: str) -> None:
    """Read a YAML file into empty values; what is wrong with it goes to their faults."""
    if len(content) > FILE_BYTES_MAX:
        values.blame((), f"expected a file of at most {FILE_BYTES_MAX} bytes, was larger", name)
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as refused:
        values.blame((), f"expected UTF-8, was not at byte {refused.start}", name)
        return
    tree = _Text(values, name, numbered=True).read(text, ())
    if isinstance(tree, dict):
        # A section with nothing under it, all commented out, says nothing.
        values.tree = {key: value for key, value in tree.items() if value is not None}
    elif tree is not None:
        values.blame((), f"expected sections, was {shown(tree)}", name)


def read_environment(values: Values, environ: Mapping[str, str]) -> None:
    """Lay AUCTION_SECTION__KEY over what was read: two underscores go one level down, a number names an item.

    A value is YAML, but for settings that are text. Names that Kubernetes makes for a service called `auction` are
    none of ours and passed over.
    """
    named = [(name.removeprefix(PREFIX).split("__"), name) for name in environ if name.startswith(PREFIX)]
    # Whole sections before their parts, and items in their order, so that a list can be given item by item.
    for parts, name in sorted(named, key=lambda one: [(_index(part) or 0, part) for part in one[0]]):
        path = _setting(parts)
        if path:
            _override(values, path, name, environ[name])
        elif not _FROM_KUBERNETES.fullmatch(f"{name}={environ[name]}"):
            close = difflib.get_close_matches(name.removeprefix(PREFIX), _names(parts), 1)
            values.faults.append(Fault(name, "unknown setting", PREFIX + close[0] if close else ""))


# AUCTION_SERVER_PORT=7400 is somebody's mistake, AUCTION_SERVER_PORT=tcp://10.0.0.7:7400 is a service's.
_FROM_KUBERNETES = re.compile(
    r"AUCTION_([A-Z0-9]+_)*?(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]+|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?=.*)"
)


def _index(part: str) -> int | None:
    return int(part) if re.fullmatch("[0-9]{1,4}", part) else None


def _setting(parts: Sequence[str]) -> Path | None:
    """Find the setting that a name in the environment means."""
    path: Path = ()
    for part in parts:
        node = schema_at(path) or {}
        key: str | int | None
        if "items" in node:
            key = _index(part)
        elif "properties" in node:
            key = next((known for known in node["properties"] if known.upper() == part), None)
        elif "patternProperties" in node:
            key = part
        elif node.get("additionalProperties"):
            key = _header(part)
        else:
            key = None
        if key is None:
            return None
        path = (*path, key)
    return path


def _header(part: str) -> str:
    return part.lower().replace("_", "-")


def _names(parts: Sequence[str]) -> list[str]:
    index = next((part for part in parts if _index(part) is not None), "0")
    return [
        setting.upper().replace("[].", f"__{index}__").replace(".", "__").removesuffix("[]")
        for setting, _ in every_setting()
    ]


def _override(values: Values, path: Path, name: str, text: str) -> None:
    parsed = _parsed(path, name, text)
    if parsed.faults:
        values.faults += parsed.faults
        return
    here: Any = values.tree
    for depth, key in enumerate(path):
        if isinstance(here, list) and isinstance(key, int):
            if key > len(here):
                values.blame(path[: depth + 1], f"expected an index of at most {len(here)}, was {key}", name)
                return
            if key == len(here):
                here.append(None)
        elif isinstance(here, dict) and isinstance(key, str):
            if depth and path[depth - 1] == "headers":
                # The file may spell the same header otherwise.
                key = next((known for known in here if _header(known) == key), key)
                path = (*path[:depth], key)
            here.setdefault(key, None)
        else:
            values.blame(path[:depth], f"expected something to set {dotted(path)} in, was {shown(here)}", name)
            return
        if depth < len(path) - 1:
            if here[key] is None:
                here[key] = [] if "items" in (schema_at(path[: depth + 1]) or {}) else {}
                values.origins.setdefault(path[: depth + 1], name)
            here = here[key]
    values.origins = {known: at for known, at in values.origins.items() if known[: len(path)] != path}
    values.origins |= {(*path, *known[len(path) :]): at for known, at in parsed.origins.items()}
    here[path[-1]] = parsed.tree


def setting_value(path: Path, name: str, text: str) -> Any:
    """Read one setting's value as the environment gives it; ConfigFaults where it is none, which name it `name`."""
    parsed = _parsed(path, name, text)
    if parsed.faults:
        raise ConfigFaults(parsed.faults)
    return parsed.tree


def _parsed(path: Path, name: str, text: str) -> Values:
    """Read the value of a setting from the environment; `tree` is that value."""
    parsed, node = Values(), schema_at(path) or {}
    if node.get("type") == "string":
        parsed.tree = None if text == "" and node.get("default", "") is None else text
    else:
        parsed.tree = _Text(parsed, name, numbered=False).read(text, path)
    parsed.origins[path] = name
    return parsed


class _Text:
    """One YAML text on its way to values."""

    def __init__(self, values: Values, name: str, numbered: bool) -> None:
        self.values = values
        self.name = name
        self.numbered = numbered
        self.count = 0

    def read(self, text: str, path: Path) -> Any:
        """Give the value of a text that stands at a path; None, and a fault, where it is not YAML."""
        try:
            root = yaml.compose(text, Loader=_CoreSchema)
        except yaml.MarkedYAMLError as refused:
            line = f":{refused.problem_mark.line + 1}" if refused.problem_mark and self.numbered else ""
            self.values.blame(path, f"not YAML: {refused.problem}", self.name + line)
        except (yaml.YAMLError, UnicodeEncodeError):
            self.values.blame(path, "not YAML: a character that no text has", self.name)
        else:
            return None if root is None else self.value(root, path)
        return None

    def at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if self.numbered else self.name

    def value(self, node: yaml.Node, path: Path) -> Any:
        # A name's own line is known before its value's.
        self.values.origins.setdefault(path, self.at(node))
        self.count += 1
        if self.count == VALUES_MAX:
            self.values.blame(path, f"expected at most {VALUES_MAX} values, was more", self.at(node))
        if self.count >= VALUES_MAX:
            return None
        if len(path) > DEPTH_MAX:
            self.values.blame(path, f"expected at most {DEPTH_MAX} levels, was deeper", self.at(node))
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, row)) for row, item in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.values.blame(path, "expected a name before the colon, was a mapping or a list", self.at(key))
            elif key.value in tree:
                first = f"set again, first on line {lines[key.value]}"
                self.values.blame((*path, key.value), first, self.at(key))
            else:
                lines[key.value] = key.start_mark.line + 1
                self.values.origins[*path, key.value] = self.at(key)
                tree[key.value] = self.value(item, (*path, key.value))
        return tree

    def scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        if node.tag == _STR:
            return text
        if node.tag == _NULL:
            return None
        try:
            if node.tag == _BOOL:
                return {"true": True, "false": False}[text.lower()]
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT:
                return Decimal(text)
        except (KeyError, ValueError, ArithmeticError):
            pass  # a tag written by hand, such as !!int x
        self.values.blame(path, "expected a plain value, was one with a tag", self.at(node))
        return None

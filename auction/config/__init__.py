"""What can be set, where it was set, and what is wrong with it."""

# A file, then the environment over it, then everything that is wrong at once. Nothing here is half accepted: whoever
# reloads keeps what it had. The environment is read here and nowhere else, by `environment`; what is in a Config is
# plain frozen data.

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from auction.config.changes import laid_over, settings_of
from auction.config.faults import ConfigFaults, Fault, Path, dotted, shown
from auction.config.floors import Floor
from auction.config.schema import every_setting, expected, schema, schema_at
from auction.config.settings import BIDDERS_MAX, Adjustment, Bidder, Config
from auction.config.sources import FILE_BYTES_MAX, Values, read_environment, read_file
from auction.edge.eventlog import PAYLOAD_BYTES_MAX
from auction.model.money import CpmMicros
from auction.model.rules import FloorRule, Rules

__all__ = [
    "FILE_BYTES_MAX",
    "Bidder",
    "Config",
    "ConfigFaults",
    "Effective",
    "Fault",
    "Loaded",
    "environment",
    "every_setting",
    "expected",
    "laid_over",
    "load",
    "loaded",
    "rules_of_case",
    "schema",
    "schema_at",
    "settings_of",
    "what_needs_restart",
]

# Sections that are read once, when the process starts: sockets are bound to them and a directory is locked.
_FIXED = ("server", "log")
# And limits that the open ports were made of.
_FIXED_LIMITS = {"request_bytes", "inflation_ratio"}
# What a case may say of the rules, in the words of the configuration; rates of `fx` stand directly under it.
_OF_A_CASE = ("exchange", "floors", "bidders", "limits")
# Half of what a frame of the log holds: rates of every currency and a later version's settings fit beside it.
RULES_BYTES_MAX = PAYLOAD_BYTES_MAX // 2


def load(path: FilePath | None, environ: Mapping[str, str]) -> Config:
    """Read a configuration: the defaults, a file over them (None: no file), the environment over both.

    Raises ConfigFaults with all that is wrong, a file that cannot be read included.
    """
    return loaded(path, environ).config


class Effective(NamedTuple):
    """One setting as it counts, as JSON values with secrets hidden, and where it comes from."""

    path: str
    value: Any
    origin: str


class Loaded(NamedTuple):
    """A configuration and the places its values come from."""

    config: Config
    origins: dict[Path, str]

    def effective(self) -> list[Effective]:
        """List every setting: its value, and `default`, file:line or the name in the environment."""
        return [
            Effective(dotted(path), value, self.origins.get(path, "default"))
            for path, value in _leaves(self.config.model_dump(mode="json", by_alias=True), ())
        ]


def loaded(path: FilePath | None, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration as `load` does, and keep where each value comes from."""
    values = Values()
    if path is not None:
        try:
            with path.open("rb") as file:
                read_file(values, file.read(FILE_BYTES_MAX + 1), str(path))
        except OSError as refused:
            values.blame((), f"expected a file to read: {refused.strerror}", str(path))
    read_environment(values, environ)
    config = _checked(values)
    return Loaded(config, {_as_kept(path, config): origin for path, origin in values.origins.items()})


def environment() -> Mapping[str, str]:
    """Give this process's environment, for `load`."""
    return os.environ


def what_needs_restart(old: Config, new: Config) -> list[str]:
    """Name the settings that differ and are read only when a process starts."""
    fixed: Any = {**dict.fromkeys(_FIXED, True), "limits": _FIXED_LIMITS}
    before, after = (dict(_leaves(config.model_dump(mode="json", include=fixed), ())) for config in (old, new))
    # What stands under a section that may be absent is in one of them only.
    return [dotted(path) for path in {**before, **after} if before.get(path) != after.get(path)]


def rules_of_case(case: Mapping[str, Any], bidder_names: Sequence[str]) -> Rules:
    """Read the rules that a case file states, by the same types and defaults as a configuration.

    `case` is JSON with decimals kept exact (Decimal, int or text, never float); of its members `exchange`, `floors`,
    `bidders`, `limits` and `fx` ({"JPY": "150"}, units per USD) are read. `bidder_names` are those that reply: one
    without an entry has the defaults. In a case every bidder speaks protobuf, and an entry needs no address. Raises
    ConfigFaults.
    """
    values = Values()
    values.tree = {section: case[section] for section in _OF_A_CASE if section in case}
    if "fx" in case:
        values.tree["fx"] = {"rates": case["fx"]}
    entries = values.tree.get("bidders", [])
    if isinstance(entries, list):
        listed = [entry.get("name") for entry in entries if isinstance(entry, dict)]
        unlisted = [{"name": name} for name in dict.fromkeys(bidder_names) if name not in listed]
        values.tree["bidders"] = entries + unlisted
    try:
        config = _checked(values, addresses=False)
    except ConfigFaults as refused:
        raise ConfigFaults(
            [msgspec.structs.replace(one, path=one.path.replace("fx.rates", "fx", 1)) for one in refused.faults]
        ) from None
    bidders = tuple(bidder.rules("protobuf") for bidder in config.bidders)
    return msgspec.structs.replace(config.rules(), bidders=bidders)


def _checked(values: Values, addresses: bool = True) -> Config:
    config, faults = None, [*values.faults, *_contradictions(values, addresses)]
    try:
        config = Config.model_validate(values.tree)
    except ValidationError as refused:
        # A default that depends on a setting which is wrong is not a second fault.
        errors = [error for error in refused.errors() if error["type"] != "default_factory_not_called"]
        faults += (_fault(error["type"], error["loc"], error.get("ctx", {}), values) for error in errors)
    if config is not None and (size := len(config.rules().canonical())) > RULES_BYTES_MAX:
        faults.append(Fault("", f"expected rules of at most {RULES_BYTES_MAX} bytes in a record, was {size}"))
    if config is None or faults:
        raise ConfigFaults(sorted(faults, key=_line))
    return config


def _line(fault: Fault) -> int:
    """Give the order of the file, however faults were found; what has no line there comes after."""
    line = fault.origin.rpartition(":")[2]
    return int(line) if line.isdecimal() else sys.maxsize


def _fault(kind: str, where: tuple[str | int, ...], context: Mapping[str, Any], values: Values) -> Fault:
    """Say in our words what pydantic found."""
    path = where[:-1] if where[-1] == "[key]" else where
    found = _at(values.tree, path)
    while found is _NOTHING and kind != "missing":  # one amount stands for a mapping of one
        path = path[:-1]
        found = _at(values.tree, path)
    suggestion = ""
    if kind == "extra_forbidden":
        message, suggestion = "unknown setting", _meant(path)
    elif kind == "missing":
        message = "expected a value, was nothing"
    elif kind == "value_error":
        message, suggestion = str(context["error"]), getattr(context["error"], "suggestion", "")
    else:
        node = schema_at(path) or {}
        message = f"expected {expected(node)}"
        if "headers" in path or path[-1] in ("http", "url"):
            message += ", was hidden"
        else:
            message += f", was one of {len(found)}" if kind == "too_long" else f", was {shown(found)}"
        if "enum" in node and isinstance(found, str):
            suggestion = _nearest(found, node["enum"])
    return Fault(dotted(path), message, suggestion, values.origin(path))


def _contradictions(values: Values, addresses: bool) -> Iterator[Fault]:
    """Find what no single setting shows, in values that may be wrong in themselves; that is said elsewhere."""

    def fault(path: Path, message: str) -> Fault:
        return Fault(dotted(path), message, origin=values.origin(path))

    def whole(*path: str) -> int | None:
        found = _at(values.tree, path)
        if found is _NOTHING:
            found = (schema_at(path) or {}).get("default")
        return found if type(found) is int else None

    given, most = whole("exchange", "tmax_ms"), whole("exchange", "tmax_max_ms")
    # In a case it is no contradiction but a question: what would the cap do to the default?
    if addresses and _at(values.tree, ("exchange", "tmax_ms")) is not _NOTHING and given and most and given > most:
        yield fault(("exchange", "tmax_ms"), f"expected at most tmax_max_ms ({most}), was {given}")
    port, http_port = whole("server", "port"), whole("server", "http_port")
    if port and port == http_port:
        yield fault(("server", "http_port"), f"expected another port than server.port, was {http_port} too")
    grace = whole("server", "connection_grace_s")
    if addresses and grace and most and 1000 * grace <= most:
        message = f"expected more than exchange.tmax_max_ms ({most}), was {grace} s"
        yield fault(("server", "connection_grace_s"), message)
    keep, segment = whole("log", "keep_bytes"), whole("log", "segment_bytes")
    workers = whole("server", "workers") or 1
    if keep and segment and keep < 2 * segment * workers:
        each = f" for each of {workers} workers" if workers > 1 else ""
        message = f"expected at least two files of segment_bytes ({segment}){each}, was {keep}"
        yield fault(("log", "keep_bytes"), message)
    fx = _at(values.tree, ("fx",))
    if isinstance(fx, dict):
        if fx.get("file") is not None and fx.get("url") is not None:
            yield fault(("fx", "url"), "expected file or url, was both")
        if fx.get("stale") == "drop" and fx.get("max_age_s") is None:
            yield fault(("fx", "stale"), "expected max_age_s beside drop, was none")
        if fx.get("max_age_s") is not None and fx.get("rates") and not fx.get("time"):
            yield fault(("fx", "max_age_s"), "expected the time of the rates beside it, was none")
    bidders = _at(values.tree, ("bidders",))
    first: dict[str, int] = {}
    for row, bidder in enumerate(bidders if isinstance(bidders, list) else ()):
        if not isinstance(bidder, dict):
            continue
        name = bidder.get("name")
        if isinstance(name, str) and first.setdefault(name, row) != row:
            yield fault(("bidders", row, "name"), f"expected a name of its own, was that of bidders[{first[name]}]")
        ways = [way for way in ("grpc", "http") if bidder.get(way) is not None]
        if addresses and len(ways) != 1:
            yield fault(("bidders", row), f"expected grpc or http, was {' and '.join(ways) or 'neither'}")
        tls = bidder.get("tls")
        if not isinstance(tls, dict):
            continue
        for one, other in (("certificate", "key"), ("key", "certificate")):
            if tls.get(one) is not None and tls.get(other) is None:
                yield fault(("bidders", row, "tls", one), f"expected {other} beside it, was none")
        if str(bidder.get("http")).startswith("http://"):
            yield fault(("bidders", row, "tls"), "expected an https URL beside it, was http")
    known = frozenset(first)
    for path, message in (*_adjustments_at_odds(values.tree, known), *_floors_at_odds(values.tree, known)):
        yield fault(path, message)


def _adjustments_at_odds(tree: Any, bidders: frozenset[str]) -> Iterator[tuple[Path, str]]:
    for at, adjustment in _rows(tree, ("exchange", "bid_adjustments"), Adjustment):
        if adjustment.multiplier is not None and adjustment.subtract is not None:
            yield at, "expected multiplier or subtract, was both"
        if adjustment.multiplier is None and adjustment.subtract is None:
            yield at, "expected multiplier or subtract, was neither"
        if adjustment.bidder is not None and adjustment.bidder not in bidders:
            yield (*at, "bidder"), _nobody(adjustment.bidder, bidders)


def _floors_at_odds(tree: Any, bidders: frozenset[str]) -> Iterator[tuple[Path, str]]:
    models = _at(tree, ("floors", "models"))
    models = models if isinstance(models, list) else []
    for other, nothing in (("rules", (_NOTHING, None, [])), ("default", (_NOTHING, None))):
        if models and _at(tree, ("floors", other)) not in nothing:
            yield ("floors", "models"), f"expected models or {other}, was both"
    lists: list[Path] = [("floors", "rules"), *(("floors", "models", row, "rules") for row in range(len(models)))]
    for path in lists:
        first: dict[FloorRule, Path] = {}
        for at, rule in _rows(tree, path, Floor):
            keys = msgspec.structs.replace(rule.rules(), floor=CpmMicros(0))
            if first.setdefault(keys, at) != at:
                yield at, f"expected keys of its own, has those of {dotted(first[keys])}"
            if rule.bidder is not None and rule.bidder not in bidders:
                yield (*at, "bidder"), _nobody(rule.bidder, bidders)


_Row = TypeVar("_Row", bound=BaseModel)


def _rows(tree: Any, path: Path, kind: type[_Row]) -> Iterator[tuple[Path, _Row]]:
    """Read each row of a list that is right in itself; what is wrong with the others is said elsewhere."""
    found = _at(tree, path)
    for row, given in enumerate(found if isinstance(found, list) else ()):
        with contextlib.suppress(ValidationError):
            yield (*path, row), kind.model_validate(given)


# Ten thousand floors for one bidder that left are looked at once.
@functools.lru_cache(maxsize=BIDDERS_MAX)
def _nobody(name: str, known: frozenset[str]) -> str:
    close = _nearest(name, sorted(known))
    return f"expected the name of a bidder, was {shown(name)}" + (f"; did you mean {close}?" if close else "")


def _meant(path: Path) -> str:
    """Guess which setting an unknown one was meant to be: a neighbour, or one of such a name elsewhere."""
    name = str(path[-1])
    neighbours = (schema_at(path[:-1]) or {}).get("properties", {})
    elsewhere: dict[str, str] = {}
    for known, _ in every_setting():
        elsewhere.setdefault(known.rpartition(".")[2], known)
    return _nearest(name, neighbours) or elsewhere.get(_nearest(name, elsewhere, 0.8), "")


def _nearest(word: str, words: Iterable[str], likeness: float = 0.6) -> str:
    close = difflib.get_close_matches(word.lower(), words, 1, likeness)
    return close[0] if close else ""


_NOTHING = object()


def _at(tree: Any, path: Path) -> Any:
    for part in path:
        known = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ()
        if part not in known:
            return _NOTHING
        tree = tree[part]
    return tree


def _as_kept(path: Path, config: Config) -> Path:
    """Find a value's place in the configuration, which is not always where it was written."""
    if path == ("exchange", "increment"):
        return (*path, config.exchange.currency)
    if path[:1] == ("bidders",) and "headers" in path:
        return tuple(part.lower() if isinstance(part, str) else part for part in path)
    return path


def _leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Walk values down to what is set as one: a scalar, a list of scalars, an empty mapping."""
    below: list[tuple[str | int, Any]] = []
    if isinstance(tree, dict):
        below = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        below = list(enumerate(tree))
    if not below:
        yield path, tree
    for key, value in below:
        yield from _leaves(value, (*path, key))

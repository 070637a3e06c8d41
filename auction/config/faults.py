# What is wrong with a configuration, as values: an operator gets all of it at once, one line each, not the first of it
# again and again.

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

import msgspec

Path = tuple[str | int, ...]

# Enough of a wrong value to recognise it, on one line of a terminal.
SHOWN_CHARS_MAX = 60


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong: which setting, what was expected, perhaps what was meant, and where it stands."""

    path: str
    message: str
    suggestion: str = ""
    origin: str = ""

    def __str__(self) -> str:
        line = f"{self.path}: {self.message}" if self.path else self.message
        if self.suggestion:
            line += f"; did you mean {self.suggestion}?"
        return f"{line} ({self.origin})" if self.origin else line


class ConfigFaults(Exception):
    """Refuse a configuration whole; `faults` has everything that is wrong with it, at least one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        assert faults
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class Unfit(ValueError):
    """A value that a setting cannot have; the whole message, and what may have been meant."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.suggestion = suggestion


def dotted(path: Path) -> str:
    """Write a path as people do.

    >>> dotted(("bidders", 1, "timeout_ms"))
    'bidders[1].timeout_ms'
    """
    written = ""
    for part in path:
        written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else part
    return written


def shown(value: object) -> str:
    """Write a wrong value for a message, cut where it is long."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "..."

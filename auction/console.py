# What a process says to whoever runs it: log lines, readable on a terminal, one JSON object a line anywhere else.
#
# Nothing personal is in them, and nothing that a request or a bidder wrote: whoever logs names ids, paths and counts,
# and of an exception only its kind and the way there is written, because its words may quote what it met.

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO


def set_up(stream: TextIO, level: int = logging.INFO) -> None:
    """Send the log lines of this process to `stream`, in the form that suits it; replaces what was set up before."""
    destination = logging.StreamHandler(stream)
    destination.setFormatter(Readable() if stream.isatty() else Structured())
    logging.basicConfig(level=level, handlers=[destination], force=True)
    logging.captureWarnings(True)


class Structured(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what `extra={"fields": {...}}` adds, and an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _instant(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["stack"] = _way(record)
        return json.dumps(line, ensure_ascii=False, default=str)


class Readable(logging.Formatter):
    """For people: the time of day, the level where it is more than information, the message, the fields."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f"  {name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{_instant(record).astimezone():%H:%M:%S}  {level}{record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[0]:
            line += f"\n{_way(record)}{record.exc_info[0].__name__}"
        return line


def _instant(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _way(record: logging.LogRecord) -> str:
    assert record.exc_info is not None
    return "".join(traceback.format_tb(record.exc_info[2]))


def legible(words: str) -> str:
    """Write out what a terminal would obey rather than show: words from outside are for reading."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in words)

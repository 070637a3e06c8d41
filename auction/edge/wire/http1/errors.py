"""What can be wrong with what came, on either side."""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec


class Fault(Enum):
    """How an exchange with a server failed."""

    UNREACHABLE = "unreachable"
    """No connection, or it was lost before a head came."""

    TRUNCATED = "truncated"
    """The connection was lost within an answer."""

    NO_HTTP = "no HTTP"
    """What came is nothing that HTTP/1.1 allows there."""

    TOO_LARGE = "too large"
    """More came than its limit."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why there is no answer, with a detail for people."""

    fault: Fault
    detail: str


# A request that was not sent, because the connection that it waited for agreed on another protocol.
MOVED: Final = Failure(Fault.UNREACHABLE, "the server has begun to speak another protocol")


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Why a request is no request: the status that says so, and a sentence. Nothing behind it is read."""

    status: int
    reason: str


class Broken(Exception):
    """Ends the reading of a message from within its parser."""

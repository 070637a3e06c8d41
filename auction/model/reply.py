# What comes back from a bidder: one Reply from the edge, and the bids that the core reads in it.

from __future__ import annotations

from enum import IntEnum

import msgspec


class ReplyStatus(IntEnum):
    """How a call to a bidder ended, before anybody read the body."""

    BID = 1  # a body arrived in time; whether it holds bids is for the core to say
    NO_BID = 2  # an empty answer: HTTP 204
    TIMED_OUT = 3
    UNREACHABLE = 4
    INVALID = 5


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One per invitation, always. `latency_us` counts from asking; `detail` (200 characters) is for people."""

    bidder: str
    status: ReplyStatus
    body: bytes = b""
    latency_us: int = 0
    detail: str = ""


class Bid(msgspec.Struct, frozen=True, gc=False):
    """An offer as sent. `price` None: absent. `wire` is the codec's own handle, given back to it for the checks."""

    id: str
    impid: str
    price: float | None
    dealid: str
    seat: str
    wire: object

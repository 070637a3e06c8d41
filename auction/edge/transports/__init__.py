"""How bytes reach bidders and come from callers: one seam, and behind it one module per way of doing it."""
# The seam, in both directions. Nothing in this room reads an auction message: a body is bytes with a destination.
#
# Everything completes by callback, exactly once, on the event loop. A coroutine would be nicer to read, but it would
# cost a task per bidder and auction in a transport that needs none, and asking many bidders before a deadline is what
# the exchange spends its time on. Whoever prefers to wait has `awaited`.
#
# What a bidder did is never an exception here: it is the status a call completes with. What a caller did wrong before
# its message could be handed over (too large, not gzip, wrong type) the transport refuses by itself.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Protocol

import msgspec

from auction.model.auction import Invitation
from auction.model.clock import Deadline
from auction.model.reply import ReplyStatus

Cancel = Callable[[], None]
"""Withdraw what was asked: `done` is not called afterwards. Once completed, or called twice, it does nothing."""

Done = Callable[[ReplyStatus, bytes, str], None]
"""How a call to a bidder ended: status, body (empty but for BID), and a detail for people. It must not raise."""


class BidderConnection(Protocol):
    """The way to one bidder. It knows neither the others nor what an auction is."""

    async def open(self) -> None:
        """Connect ahead of the first auction; return once connected, or once that has plainly failed.

        Never raises for the bidder's sake: one that is down now is tried again by the connection itself.
        """
        ...

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        """Send the invitation; call `done` exactly once, perhaps before this returns, unless cancelled first.

        The deadline is told to the bidder where the protocol has a place for it. Keeping it is the asker's business:
        a connection may give up at the deadline but need not. Nothing is sent twice.
        """
        ...

    async def close(self) -> None:
        """Drop every socket; calls still under way complete as UNREACHABLE or TIMED_OUT."""
        ...


class Status(IntEnum):
    """How a call to us ended: the part of gRPC's status codes that the exchange speaks, by gRPC's numbers."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A whole message from a caller.

    `method` is the gRPC method or the HTTP path, "/auction.v1.Exchange/Auction" or "/openrtb2/auction". `metadata` is
    asked in lower case; of a name given twice the first counts, binary ones are left out. `deadline` is the caller's.
    """

    method: str
    metadata: Mapping[str, str]
    body: bytes
    deadline: Deadline | None


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """What to tell the caller: `body` where the status is OK, else `message`, and `path` where a field is to blame.

    On the JSON edge OK with an empty body is 204. Headers travel as HTTP headers or trailing metadata.
    """

    body: bytes = b""
    status: Status = Status.OK
    message: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Connections(msgspec.Struct, frozen=True):
    """How connections to us live, and what one may carry.

    One older than `age_s` (None: never), give or take a tenth, is told to go (GOAWAY) and cut off `grace_s` later. One
    that is silent for `keepalive_s` is asked, and dropped where it does not answer for `keepalive_timeout_s`. `streams`
    are the calls it may have open.
    """

    age_s: int | None = 300
    grace_s: int = 75
    keepalive_s: int = 20
    keepalive_timeout_s: int = 5
    streams: int = 4096


class Endpoint(Protocol):
    """What a server hands every message to. It must not raise, and calls `done` exactly once unless cancelled first.

    A server cancels when its caller is gone.
    """

    def __call__(self, incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel: ...


class Server(Protocol):
    """A listening transport."""

    port: int
    """The port bound; what was asked for, or the one the system chose for 0."""

    async def start(self) -> None:
        """Bind and listen; OSError names the address where that is impossible."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let calls under way finish for `grace_s` seconds, then cancel what is left."""
        ...


def settled() -> None:
    """Cancel what has already completed: nothing to do."""


async def awaited(endpoint: Endpoint, incoming: Incoming) -> Outgoing:
    """Wait for an endpoint's answer. Cancellation is passed on to it and leaves nothing behind.

    An endpoint that raises all the same is one line in the log and an INTERNAL answer.
    """
    answer: asyncio.Future[Outgoing] = asyncio.get_running_loop().create_future()

    def done(outgoing: Outgoing) -> None:
        # Between our cancellation and the moment we hear of it the answer may still come.
        if not answer.done():
            answer.set_result(outgoing)

    try:
        cancel = endpoint(incoming, done)
    except Exception:
        return _failed(incoming)
    try:
        return await answer
    except asyncio.CancelledError:
        cancel()
        raise


def _failed(incoming: Incoming) -> Outgoing:
    """Write a fault of ours down where we can read it, and tell the caller no more than that there was one."""
    logging.getLogger(__name__).exception("a call to %s failed", incoming.method)
    return Outgoing(status=Status.INTERNAL, message="internal error")

# The exchange: three lines, wired once.
#
#     auction = open_auction(arrival, rules)
#     replies = await solicit(auction.invitations, deadline, connections, clock)
#     result  = close_auction(auction, replies)
#
# The core decides and never waits; the edge waits and never decides. This is the only place where they meet while an
# auction runs. Nothing here knows a socket, a message or a file: what those are was decided by whoever built it
# (server/), and a test builds it from memory. Replay is the same lines with the replies read from a log (replay.py).

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from auction.core.auction import CompiledRules, close_auction, open_auction
from auction.core.record import AUCTION, REFUSAL, encode_auction, encode_refusal
from auction.edge.admission import Admission
from auction.edge.fanout import solicit
from auction.edge.metrics import Metrics
from auction.edge.transports import BidderConnection, Cancel, Incoming, Outgoing, Status, settled
from auction.edge.turns import Turns
from auction.model.auction import Arrival, AuctionResult, Encoding
from auction.model.clock import Clock, Deadline
from auction.model.errors import InvalidRequest

# How callers reach an auction; what stands behind both is the same.
METHODS: Final = {"/auction.v1.Exchange/Auction": Encoding.PROTOBUF, "/openrtb2/auction": Encoding.JSON}

_log = logging.getLogger("auction.exchange")


class Market(msgspec.Struct, frozen=True):
    """One version of the rules, as compiled and as written down, and the ways to the bidders they name."""

    rules: CompiledRules
    written: bytes
    connections: Mapping[str, BidderConnection]


class Journal(Protocol):
    """Where auctions are written down after they are answered: an Outbox."""

    def put(self, kind: int, payload: bytes, rules: bytes) -> bool: ...


class Exchange:
    """Hold auctions, as the Endpoint of any number of servers on one event loop.

    `market` may be replaced at any time: the next auction takes the new one, an auction in flight keeps the one that it
    began with. A cancelled call leaves no task, asks nobody any longer and is not written down.
    """

    def __init__(
        self,
        market: Market,
        *,
        clock: Clock,
        admission: Admission,
        metrics: Metrics,
        journal: Journal | None,
    ) -> None:
        self.market = market
        self._clock = clock
        self._admission = admission
        self._metrics = metrics
        self._journal = journal
        self._turns = Turns(clock)
        self._running: set[asyncio.Task[None]] = set()

    def __call__(self, incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        """Hold one auction and call `done` with its answer; one too many is refused before this returns."""
        arrived = self._clock.monotonic()
        encoding = METHODS.get(incoming.method)
        if encoding is None:
            done(UNKNOWN)
            return settled
        if not self._admission.enter():
            self._metrics.outcomes["overload"] += 1
            done(OVERLOADED)
            return settled
        task = asyncio.get_running_loop().create_task(self._hold(incoming, encoding, arrived, done))
        self._running.add(task)
        task.add_done_callback(self._left)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _hold(
        self, incoming: Incoming, encoding: Encoding, arrived: float, done: Callable[[Outgoing], None]
    ) -> None:
        market, clock, turns = self.market, self._clock, self._turns
        arrival = self._arrival(incoming, encoding, arrived)
        try:
            if turns.over:
                await turns.another()
            auction = open_auction(arrival, market.rules)
            deadline = Deadline(arrived + auction.budget_us / 1e6)
            replies = await solicit(auction.invitations, deadline, market.connections, clock)
            if turns.over:
                await turns.another()
            result = close_auction(auction, replies)
        except InvalidRequest as refusal:
            done(refused(arrival, refusal))
            self._metrics.outcomes["refused"] += 1
            self._write(REFUSAL, encode_refusal(arrival, refusal), market)
        except Exception:  # a fault of ours costs its own auction, with an answer and a trace, and no other
            done(FAILED)
            self._metrics.outcomes["error"] += 1
            _log.exception("auction %s failed", arrival.id)
        else:
            done(answered(arrival, result))
            now = clock.monotonic()
            self._metrics.settled(
                len(auction.request.imps),
                replies,
                result,
                duration_us=round((now - arrived) * 1e6),
                overrun_us=round(-deadline.remaining(now) * 1e6),
            )
            self._write(AUCTION, encode_auction(auction, replies, result), market)

    def _arrival(self, incoming: Incoming, encoding: Encoding, arrived: float) -> Arrival:
        received_us = self._clock.wall_us()
        caller_has = incoming.deadline
        return Arrival(
            id=auction_id(received_us, os.urandom(RANDOM_BYTES)),
            received_us=received_us,
            encoding=encoding,
            body=incoming.body,
            timeout_ms=None if caller_has is None else max(0, int(caller_has.remaining(arrived) * 1000)),
            explain=incoming.metadata.get("x-auction-explain") == "1",
        )

    def _write(self, kind: int, payload: bytes, market: Market) -> None:
        if self._journal is not None:
            self._journal.put(kind, payload, market.written)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._admission.leave()
        if task.cancelled():
            self._metrics.outcomes["cancelled"] += 1
        elif (failure := task.exception()) is not None:
            # The auction was answered, or its own failure would have been caught: writing it down is what failed.
            _log.error("an auction was answered and not written down", exc_info=failure)


def answered(arrival: Arrival, result: AuctionResult) -> Outgoing:
    """Tell the caller how its auction ended: on the JSON edge nothing sold is no content, unless it asked why."""
    if result.nbr is None or result.explained or arrival.encoding is Encoding.PROTOBUF:
        return Outgoing(result.response)
    return Outgoing(headers=(("x-openrtb-nbr", str(result.nbr)), ("x-auction-id", arrival.id)))


def refused(arrival: Arrival, refusal: InvalidRequest) -> Outgoing:
    """Tell the caller what is wrong with its request, and where."""
    return Outgoing(
        status=Status.INVALID_ARGUMENT,
        message=refusal.message,
        path=refusal.path,
        headers=(("x-auction-id", arrival.id),),
    )


OVERLOADED: Final = Outgoing(status=Status.RESOURCE_EXHAUSTED, message="too many auctions in flight")
FAILED: Final = Outgoing(status=Status.INTERNAL, message="internal error")
UNKNOWN: Final = Outgoing(status=Status.UNIMPLEMENTED, message="no such method")

# 72 bits beside the microsecond: ten thousand servers could run for a century and two ids would hardly meet.
RANDOM_BYTES: Final = 9


def auction_id(received_us: int, random: bytes) -> str:
    """Name an auction: 32 hexadecimal digits that sort by time of arrival.

    >>> auction_id(1_750_000_000_000_000, bytes(9))
    '06379da05b6000000000000000000000'
    """
    return f"{received_us:014x}{random.hex()}"

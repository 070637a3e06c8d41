# Asking every bidder at once and waiting no longer than the deadline: the only waiting in an auction.
#
# One row per invitation, one timer for all of them, callbacks instead of tasks: beyond its transport a bidder costs a
# partial and a Reply. asyncio.TaskGroup and gather were considered and refused (docs/decisions/fan-out.md): they treat
# one bidder's failure as everybody's, and need a task and a timer per bidder to do it.
#
# Lateness is measured here and nowhere else, on the clock and not on the timer: loops fire timers late when they are
# busy, and uvloop's may fire a little early (docs/decisions/uvloop-timers.md).

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from auction.edge.transports import BidderConnection, Cancel, settled
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline, Timer
from auction.model.reply import Reply, ReplyStatus

# Enough for a sentence of a foreign program; details go into logs and records, a stack trace of a bidder's should not.
DETAIL_CHARS_MAX = 200

# What uvloop's timers count in. A timer that fired early is set again for no less, or it would spin until the deadline.
TICK_S = 0.001


async def solicit(
    invitations: Sequence[Invitation],
    deadline: Deadline,
    connections: Mapping[str, BidderConnection],
    clock: Clock,
) -> list[Reply]:
    """Ask every invited bidder at once; return one reply each, in the order invited, by the deadline.

    Never raises for what a bidder did: lateness, refusal and nonsense are statuses of a Reply. A bidder without a
    connection is UNREACHABLE. Cancellation withdraws every call and leaves neither a task nor a timer behind.
    """
    replies: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def done(complete: list[Reply]) -> None:
        # Between our cancellation and the moment we hear of it the last reply may still come.
        if not replies.done():
            replies.set_result(complete)

    cancel = ask(invitations, deadline, connections, clock, done)
    try:
        return await replies
    except asyncio.CancelledError:
        cancel()
        raise


def ask(
    invitations: Sequence[Invitation],
    deadline: Deadline,
    connections: Mapping[str, BidderConnection],
    clock: Clock,
    done: Callable[[list[Reply]], None],
) -> Cancel:
    """Do what `solicit` does without a task: call `done` with the replies exactly once, unless cancelled first.

    `done` may be called before this returns. It runs in the frame of the last bidder's transport and must not raise.
    """
    solicitation = _Solicitation(invitations, deadline, clock, done)
    solicitation.start(connections)
    return solicitation.cancel


class _Solicitation:
    """The bidders being asked in one auction."""

    __slots__ = (
        "_calls",
        "_clock",
        "_deadline",
        "_done",
        "_invitations",
        "_missing",
        "_open",
        "_replies",
        "_started",
        "_timer",
    )

    def __init__(
        self, invitations: Sequence[Invitation], deadline: Deadline, clock: Clock, done: Callable[[list[Reply]], None]
    ) -> None:
        self._invitations = invitations
        self._deadline = deadline
        self._clock = clock
        self._done = done
        self._replies: list[Reply | None] = [None] * len(invitations)
        self._calls: list[Cancel] = [settled] * len(invitations)
        self._missing = len(invitations)
        self._open = True
        self._timer: Timer | None = None
        self._started = clock.monotonic()

    def start(self, connections: Mapping[str, BidderConnection]) -> None:
        if not self._missing or self._started >= self._deadline.at:
            self._finish(self._started)
            return
        self._timer = self._clock.call_at(self._deadline.at, self._expired)
        for row, invitation in enumerate(self._invitations):
            connection = connections.get(invitation.bidder)
            if connection is None:
                self._replied(row, ReplyStatus.UNREACHABLE, b"", "no connection to this bidder")
            else:
                try:
                    self._calls[row] = connection.bid(invitation, self._deadline, partial(self._replied, row))
                except Exception as fault:  # a fault of ours in one transport must not take its bidder's rivals along
                    logging.getLogger(__name__).exception("asking %s failed", invitation.bidder)
                    self._replied(row, ReplyStatus.UNREACHABLE, b"", type(fault).__name__)
            if not self._open:  # the deadline passed while we were still asking
                self._calls[row]()
                return

    def cancel(self) -> None:
        if self._open:
            self._close()

    def _replied(self, row: int, status: ReplyStatus, body: bytes, detail: str) -> None:
        if not self._open or self._replies[row] is not None:
            return
        now = self._clock.monotonic()
        if now >= self._deadline.at:  # this one is late, so whoever is still missing is too
            self._finish(now)
            return
        latency_us = round((now - self._started) * 1e6)
        if detail:
            # A bidder's own words may be in it, and bytes that were no text (surrogates), which nobody can write down.
            detail = detail[:DETAIL_CHARS_MAX].encode(errors="replace").decode()
        self._replies[row] = Reply(self._invitations[row].bidder, status, body, latency_us, detail)
        self._missing -= 1
        if not self._missing:
            self._finish(now)

    def _expired(self) -> None:
        now = self._clock.monotonic()
        if now < self._deadline.at:
            self._timer = self._clock.call_at(max(self._deadline.at, now + TICK_S), self._expired)
        else:
            self._finish(now)

    def _finish(self, now: float) -> None:
        late_us = round((now - self._started) * 1e6)
        replies = [
            reply if reply is not None else Reply(invitation.bidder, ReplyStatus.TIMED_OUT, b"", late_us)
            for reply, invitation in zip(self._replies, self._invitations, strict=True)
        ]
        self._close()
        self._done(replies)

    def _close(self) -> None:
        """Let go of every call, and of what holds us: calls and rows refer to each other."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, [settled] * len(self._calls)
        for cancel, reply in zip(calls, self._replies, strict=True):
            if reply is None:
                cancel()

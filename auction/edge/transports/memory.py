# Bidders as plain functions and time as a number: auctions without sockets, tasks or waiting, for tests and simulation.
#
# Not a mock of the other transports but one of its own: fan-out cannot tell, and the same suite runs over all of them.
# A bidder here decides at once and its reply is delivered when the clock gets there, so a thousand auctions with slow
# bidders take as long as their arithmetic, and the same script always gives the same order of events.

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec

from auction.edge.transports import Cancel, Done, settled
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline, Timer
from auction.model.reply import ReplyStatus

# A callback that sets the next timer for the same instant would never let time pass. A million events within one step
# are a simulation of 10 000 auctions with 100 bidders each that all answer at once.
EVENTS_PER_ADVANCE_MAX = 1_000_000


class Play(msgspec.Struct, frozen=True, gc=False):
    """What a scripted bidder does with one invitation: how the call ends, `after_s` seconds from now."""

    body: bytes = b""
    after_s: float = 0.0
    status: ReplyStatus = ReplyStatus.BID
    detail: str = ""


NO_BID = Play()
HANG = None

Script = Callable[[Invitation, Deadline], Play | None]
"""A bidder. HANG never answers; an exception is a bidder that crashed while it was asked."""


class MemoryBidder:
    """A connection to a function. `under_way` counts the calls that neither ended nor were withdrawn."""

    def __init__(self, script: Script, clock: Clock, reply_bytes: int = 65_536) -> None:
        self._script = script
        self._clock = clock
        self._reply_bytes = reply_bytes
        self._calls: dict[int, _Scripted] = {}
        self._asked = 0
        self._connected = False

    @property
    def under_way(self) -> int:
        return len(self._calls)

    async def open(self) -> None:
        self._connected = True

    async def close(self) -> None:
        self._connected = False
        for call in list(self._calls.values()):
            call.end(ReplyStatus.UNREACHABLE, b"", "connection closed")

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        if not self._connected:
            done(ReplyStatus.UNREACHABLE, b"", "not connected")
            return settled
        try:
            play = self._script(invitation, deadline)
        except Exception as crash:
            done(ReplyStatus.UNREACHABLE, b"", f"crashed: {type(crash).__name__}")
            return settled
        if play is not None and play.after_s <= 0:
            done(*self._ending(play))
            return settled
        self._asked += 1
        call = self._calls[self._asked] = _Scripted(self._calls, self._asked, done)
        if play is not None:
            ending = self._ending(play)
            call.timer = self._clock.call_at(self._clock.monotonic() + play.after_s, lambda: call.end(*ending))
        return call.cancel

    def _ending(self, play: Play) -> tuple[ReplyStatus, bytes, str]:
        if play.status is not ReplyStatus.BID:
            return play.status, b"", play.detail
        if not play.body:
            return ReplyStatus.NO_BID, b"", play.detail
        if len(play.body) > self._reply_bytes:
            return ReplyStatus.INVALID, b"", f"expected at most {self._reply_bytes} bytes, was {len(play.body)}"
        return ReplyStatus.BID, play.body, play.detail


class _Scripted:
    """A call whose end is still to come."""

    __slots__ = ("_calls", "_done", "_number", "timer")

    def __init__(self, calls: dict[int, _Scripted], number: int, done: Done) -> None:
        self._calls = calls
        self._number = number
        self._done = done
        self.timer: Timer | None = None

    def end(self, status: ReplyStatus, body: bytes, detail: str) -> None:
        if self._forget():
            self._done(status, body, detail)

    def cancel(self) -> None:
        self._forget()

    def _forget(self) -> bool:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return self._calls.pop(self._number, None) is not None


class ManualClock:
    """A clock that moves when it is told to. What is due at the same instant runs in the order it was asked for."""

    def __init__(self, monotonic: float = 1000.0, wall_us: int = 1_750_000_000_000_000) -> None:
        self._now = monotonic
        self._wall_offset_us = wall_us - round(monotonic * 1e6)
        self._timers: list[_ManualTimer] = []
        self._asked = 0
        self._cancelled = 0

    @property
    def timers(self) -> int:
        """Count what is still to be called."""
        return len(self._timers) - self._cancelled

    def monotonic(self) -> float:
        return self._now

    def wall_us(self) -> int:
        return self._wall_offset_us + round(self._now * 1e6)

    def call_at(self, instant: float, callback: Callable[[], None]) -> Timer:
        self._asked += 1
        timer = _ManualTimer(instant, self._asked, callback, self._forget)
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, calling what becomes due on the way at its own instant; 0 calls what is due now."""
        assert seconds >= 0
        target = self._now + seconds
        for _ in range(EVENTS_PER_ADVANCE_MAX):
            if not self._timers or self._timers[0].instant > target:
                self._now = target
                return
            timer = heapq.heappop(self._timers)
            if timer.callback is None:
                self._cancelled -= 1
                continue
            self._now = max(self._now, timer.instant)
            callback, timer.callback = timer.callback, None
            callback()
        raise AssertionError(f"time stands still: {EVENTS_PER_ADVANCE_MAX} events in one step")

    def _forget(self) -> None:
        # Cancelled timers stay in the heap until their time comes; never more of them than of the living, plus a few.
        self._cancelled += 1
        if self._cancelled > 64 + len(self._timers) // 2:
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0


class _ManualTimer:
    __slots__ = ("_asked", "_forget", "callback", "instant")

    def __init__(self, instant: float, asked: int, callback: Callable[[], None], forget: Callable[[], None]) -> None:
        self.instant = instant
        self.callback: Callable[[], None] | None = callback
        self._asked = asked
        self._forget = forget

    def __lt__(self, other: _ManualTimer) -> bool:
        return (self.instant, self._asked) < (other.instant, other._asked)

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._forget()

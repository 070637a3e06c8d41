# The only file that reads a clock. The core has none; the edge is handed one, so that a simulation can hand in its own.
#
# Time is one absolute instant, made once when a request arrives and passed down. Durations are not passed on: whoever
# receives one starts counting again.

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import msgspec


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """An instant on the monotonic clock, in seconds. A reply counts if it is complete strictly before it."""

    at: float

    def remaining(self, now: float) -> float:
        """Give the seconds left at `now`; negative once it has passed."""
        return self.at - now


class Timer(Protocol):
    """A callback that will be called unless it is cancelled first."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time as the edge sees it."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never goes back."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def call_at(self, instant: float, callback: Callable[[], None]) -> Timer:
        """Call back once when monotonic() has reached `instant`, on the event loop."""
        ...


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def call_at(self, instant: float, callback: Callable[[], None]) -> Timer:
        # A duration here, because a loop may count from another origin than time.monotonic().
        return asyncio.get_running_loop().call_later(max(0.0, instant - time.monotonic()), callback)

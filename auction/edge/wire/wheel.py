# One timer for all deadlines: those of the same few milliseconds share a bucket, and only the next bucket is armed.
#
# A timer per call would cost a heap operation and a handle to make it, and again to cancel it, which is what becomes of
# nearly all of them.

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Protocol

# How late a deadline may be noticed. Whoever asked keeps it by itself; this only ends what nobody waits for.
GRAIN_S: Final = 0.005


class Expiring(Protocol):
    """What has a deadline."""

    def expire(self) -> None: ...


class Wheel:
    """Calls `expire` on what is still in its bucket when the time has come, never early."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: dict[int, set[Expiring]] = {}
        self._due: list[int] = []
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = 0

    def add(self, deadline: float, one: Expiring) -> set[Expiring]:
        """Put `one` into the bucket that is given back; `discard` takes it out again."""
        number = int(deadline / GRAIN_S) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            heapq.heappush(self._due, number)
            if self._armed is None or number < self._armed_for:
                self._arm(number)
        bucket.add(one)
        return bucket

    def stop(self) -> None:
        """Forget all deadlines."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._buckets.clear()
        self._due.clear()

    def _arm(self, number: int) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_for = number
        after = max(0.0, number * GRAIN_S - self._now())
        self._armed = asyncio.get_running_loop().call_later(after, self._turn)

    def _turn(self) -> None:
        self._armed = None
        now = self._now()
        due = self._due
        while due and (due[0] * GRAIN_S <= now or not self._buckets[due[0]]):
            for one in list(self._buckets.pop(heapq.heappop(due))):
                one.expire()
        if due and self._armed is None:
            self._arm(due[0])

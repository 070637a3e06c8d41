# Short turns of the event loop.
#
# In a turn a loop does what has become due and then sends what that gave, and only then looks at its sockets and timers
# again. A burst of twenty auctions in one turn would have the first answer wait for the last auction, requests lie
# unread, and deadlines pass unseen. So whoever is about to do a piece of work asks whether this turn has lasted long
# enough, and if so leaves the piece to the next one: its order is kept, and its cost is a look at a clock.

from __future__ import annotations

import asyncio
from typing import Final

from auction.model.clock import Clock

# Three auctions: of what is gained by doing many things at a time most is gained by then, and nobody waits longer.
TURN_S: Final = 0.001


class Turns:
    """Tells when a turn of the running loop has lasted `turn_s`, counted from who asked first in it."""

    __slots__ = ("_clock", "_turn_s", "_until")

    def __init__(self, clock: Clock, turn_s: float = TURN_S) -> None:
        self._clock = clock
        self._turn_s = turn_s
        self._until = 0.0

    @property
    def over(self) -> bool:
        """Whether the next piece of work should wait for `another`."""
        now = self._clock.monotonic()
        if self._until:
            return now >= self._until
        self._until = now + self._turn_s
        asyncio.get_running_loop().call_soon(self._next)
        return False

    async def another(self) -> None:
        """Wait for a turn with room in it; who waited first comes first."""
        while self.over:  # noqa: ASYNC110  turns are no event: those that wait take them one after the other
            await asyncio.sleep(0)

    def _next(self) -> None:
        self._until = 0.0

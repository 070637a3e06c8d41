# What both sides' sockets share: whatever is due leaves in one write, at the end of a read or of the loop's tick.

from __future__ import annotations

import asyncio


class Ticking(asyncio.Protocol):
    """A socket that sends by `flush`: once where a read was taken in, else once for all that a tick brought."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reading = False
        self._scheduled = False
        self._paused = False

    def due(self) -> None:
        """Send what is due at the end of this tick."""
        if not self._reading and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Send what is due, in one write."""
        raise NotImplementedError

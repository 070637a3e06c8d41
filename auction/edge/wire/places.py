# One address that a channel is connected to: its connections, opened ahead, replaced when lost, more where one is full.

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from auction.edge.wire.link import Link

if TYPE_CHECKING:
    from auction.edge.wire.channel import Channel

# A peer that comes back is asked again within seconds, and one that is gone for good costs an attempt every five.
RECONNECT_FIRST_S: Final = 0.1
RECONNECT_MAX_S: Final = 5.0

# How long one attempt may take. Two round trips to the far side of the world, TLS included.
CONNECT_S: Final = 1.0

# Connections to one address, where its peer allows fewer streams than are wanted: 4 x 100 is what a burst needs.
CONNECTIONS_PER_ADDRESS: Final = 4

Address = tuple[str, int]


class Place:
    """One address: its connections, and the attempt that is under way."""

    def __init__(self, channel: Channel, address: Address) -> None:
        self.links: list[Link] = []
        self.reason = ""
        self.tried = False
        self.replacing = False
        self._estranged = False  # it spoke another protocol, and is left to whoever speaks that
        self._channel = channel
        self._address = address
        self._failures = 0
        self._left = False
        self._attempt: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._start()

    def widen(self) -> None:
        """Open one more connection where those that are open are full."""
        live = [link for link in self.links if link.ready]
        if live and len(self.links) < CONNECTIONS_PER_ADDRESS and self._attempt is None and self._retry is None:
            self._start()

    def reconsider(self) -> None:
        """Try an address again that spoke another protocol."""
        if self._estranged and self._attempt is None:
            self._start()

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a connection to this address, or to one that is as good."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._estranged = False
        self.replacing = True
        link = Link(self._channel, self._changed)
        self.links.append(link)
        transport.set_protocol(link)
        link.connection_made(transport)

    def leave(self) -> None:
        """Part from the address once its calls have ended."""
        self._left = True
        self._stop()
        for link in list(self.links):
            link.retire()

    def close(self) -> asyncio.Task[None] | None:
        """Close everything; give the task that is still to end."""
        self._left = True
        self._stop()
        for link in list(self.links):
            link.reason = "connection closed"
            link.close()
            for stream in list(link.connection.streams.values()):
                if stream.context is not None:
                    stream.context.cut(False, "connection closed")
        return self._attempt

    async def closed(self) -> None:
        """Wait until the sockets are gone; one whose peer does not read is dropped."""
        try:
            async with asyncio.timeout(CONNECT_S):
                while self.links:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for link in list(self.links):
                link.abort("")

    def _stop(self) -> None:
        self.replacing = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._attempt is not None:
            self._attempt.cancel()

    def _start(self) -> None:
        self._retry = None
        self._estranged = False
        self._attempt = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        channel = self._channel
        loop = asyncio.get_running_loop()
        link = Link(channel, self._changed)
        try:
            context = None if channel.context is None else channel.context()
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: link, *self._address, ssl=context, server_hostname=channel.tls_name if context else None
                )
        except asyncio.CancelledError:
            link.abort("not wanted any more")
            raise
        except (OSError, ValueError, TimeoutError) as failure:  # ssl.SSLError is the first, or the second
            self.reason = str(failure) or "connecting took too long"
            self._again()
        else:
            if link.foreign and channel.other is not None:
                self.reason = link.reason
                self._estrange()
            elif link.lost:
                self.reason = link.reason
                self._again()
            elif link not in self.links:  # its settings may have come before we heard that it is connected
                self.links.append(link)
            if self._left:
                link.abort("not wanted any more")
        finally:
            self._attempt = None

    def _again(self) -> None:
        """Try again later, a little less regularly than others do, and less often each time."""
        self.tried = True
        self.replacing = False
        if not self._left and self._retry is None:
            wait_s = min(RECONNECT_MAX_S, RECONNECT_FIRST_S * 1.6 ** min(self._failures, 20))
            self._failures += 1
            jitter = 0.8 + 0.4 * os.urandom(1)[0] / 255
            self._retry = asyncio.get_running_loop().call_later(wait_s * jitter, self._start)
        self._channel.changed()

    def _estrange(self) -> None:
        self.tried = self._estranged = True
        self.replacing = False
        self._failures = 0
        self._channel.estranged()

    def _changed(self, link: Link) -> None:
        if link.ready:
            self.tried = True
            self.replacing = False
            self.reason = ""
            if link not in self.links:
                self.links.append(link)
            self._channel.changed()
            return
        self.reason = link.reason or self.reason
        if link.aged:
            self._failures = 0  # what breaks off sooner may do so each time
        if link.lost:
            if link in self.links:
                self.links.remove(link)
            self._empty.set()
            self._channel.lost()
        if self._left or any(one.ready for one in self.links):
            self._channel.changed()
        elif link.in_order and self._retry is None:
            self.replacing = True  # calls wait for the new one, which is a round trip away
            if self._attempt is None:
                self._start()
            self._channel.changed()
        elif self._attempt is not None:
            self._channel.changed()
        else:
            self._again()

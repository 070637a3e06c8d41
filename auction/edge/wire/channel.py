# A client over HTTP/2, of gRPC and of plain requests: connections to every address of a name, opened ahead, replaced
# when lost, asked in turn.
#
# There is one timer a second for all of a channel's connections, and one wheel for all of its deadlines.

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from auction.edge.wire.asks import Ask, Done, Method, message_of
from auction.edge.wire.limits import Limits
from auction.edge.wire.link import Link
from auction.edge.wire.messages import Bounds
from auction.edge.wire.places import CONNECT_S, Address, Place
from auction.edge.wire.queries import Done as Answered
from auction.edge.wire.queries import Query, Resource
from auction.edge.wire.sent import Sent
from auction.edge.wire.settings import Lives
from auction.edge.wire.statuses import Status
from auction.edge.wire.streams import State
from auction.edge.wire.talks import Ended, Talk
from auction.edge.wire.wheel import Wheel

# How often a name is asked for its addresses, and again when a connection was lost. Cloud names live for a minute.
RESOLVE_TICKS: Final = 30

# Addresses of one name that are connected to. A name with more is a load balancer's, and any of them do.
ADDRESSES_MAX: Final = 16

# Calls that wait for a stream. What is beyond would come too late.
QUEUE_MAX: Final = 1_024


class Channel:
    """Calls to whoever serves at `host`:`port`. `context` gives the TLS context of the next connection.

    `tls_name` is the name that is asked for and verified, where it is not the host's. `other` is given connections that
    agreed on another protocol, which are closed where there is none.

    A call is sent once. Only where the peer says that it never began it (REFUSED_STREAM, or above GOAWAY's last
    stream) is it sent once more, on another connection, while time remains; where GOAWAY came in order it may wait for
    one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: Callable[[], ssl.SSLContext] | None = None,
        tls_name: str | None = None,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        lives: Lives | None = None,
        resets_per_s: int = 5,
        other: Callable[[asyncio.Transport], None] | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.context = context
        self.tls_name = tls_name or host
        self.bounds = bounds or Bounds()
        self.limits = limits or Limits()
        self.lives = lives or Lives(age_s=None)
        self.resets_per_s = resets_per_s
        self.other = other
        self.queue: dict[Sent, None] = {}
        self.ready: list[Link] = []
        self._own_clock = now is None
        self.now: Callable[[], float] = now or _loop_time
        self._wheel = Wheel(self.now)
        self._places: dict[Address, Place] = {}
        self._leaving: list[Place] = []  # addresses that the name has no more, where calls still end
        self._turn = 0
        self._closed = True
        self._ticks = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    @property
    def authority(self) -> str:
        """The name by which the peer is asked."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def method(self, path: str, metadata: tuple[tuple[str, str | bytes], ...] = (), gzip: bool = False) -> Method:
        """Prepare calls of one method."""
        scheme = "http" if self.context is None else "https"
        return Method(path, self.authority, scheme=scheme, metadata=metadata, gzip=gzip)

    async def open(self, wait_s: float = CONNECT_S) -> None:
        """Connect; return once every address is connected or has plainly failed, or after `wait_s`."""
        self._closed = False
        if self._own_clock:
            self.now = asyncio.get_running_loop().time  # the same, sooner
        self._tick()
        try:
            async with asyncio.timeout(wait_s):
                await self._settled.wait()
        except TimeoutError:
            pass  # it goes on connecting without us

    async def close(self) -> None:
        """End every call as UNAVAILABLE and close every connection; return once they are."""
        self._closed = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._wheel.stop()
        places = [*self._places.values(), *self._leaving]
        tasks = [place.close() for place in places]
        if self._resolving is not None:
            self._resolving.cancel()
            tasks.append(self._resolving)
        for ask in list(self.queue):
            ask.cut(False, "connection closed")
        self.queue.clear()
        left = [task for task in tasks if task is not None]
        if left:
            await asyncio.wait(left)
        for place in places:
            await place.closed()
        self._places.clear()
        self._leaving.clear()

    def unary(
        self, method: Method, body: bytes, done: Done, deadline: float | None = None, enforce: bool = True
    ) -> Ask:
        """Ask once. The peer is told how long; where that is not to be enforced here, whoever asks cancels."""
        left = None if deadline is None else deadline - self.now()
        ask = Ask(self, done, deadline, method=method)
        if left is not None and left <= 0:
            ask.end(Status.DEADLINE_EXCEEDED, b"", "no time left to ask", True)
            return ask
        ask.block, ask.octets = method.block(left), message_of(body, method)
        if enforce and deadline is not None:
            ask.bucket = self._wheel.add(deadline, ask)
        link = self._pick(None)
        if link is not None:
            self._put(ask, link)
        else:
            self._wait(ask)
        return ask

    def query(self, resource: Resource, body: bytes, done: Answered) -> Query:
        """Ask in plain HTTP; whoever asks cancels when it is late."""
        query = Query(self, done, None, resource.block(len(body)), body, resource=resource)
        link = self._pick(None)
        if link is not None:
            self._put(query, link)
        else:
            self._wait(query)
        return query

    def dialogue(
        self,
        method: Method,
        on_message: Callable[[bytes], None],
        on_end: Ended,
        deadline: float | None = None,
    ) -> Talk | None:
        """Begin a dialogue; None where it has ended before it began, which `on_end` was told."""
        left = None if deadline is None else deadline - self.now()
        link = self._pick(None)
        if left is not None and left <= 0:
            on_end(Status.DEADLINE_EXCEEDED, "no time left to ask")
        elif link is None:
            on_end(Status.UNAVAILABLE, "no stream is free" if self.ready else self._reason())
        else:
            talk = Talk(self, link, method, left, on_message)
            talk.begin(on_end)
            if deadline is not None:
                talk.bucket = self._wheel.add(deadline, talk)
            return talk
        return None

    def again(self, ask: Sent, wait: bool) -> bool:
        """Send a call that was never begun once more, on another connection; False where that cannot be.

        Where there is none it may `wait` for the one that takes the place of its own.
        """
        if ask.deadline is not None and self.now() >= ask.deadline:
            return False
        tried = ask.link
        link = self._pick(tried)
        if link is None and not (wait and self._room):
            return False
        if tried is not None:
            tried.calls -= 1
        ask.retried = True
        ask.link = ask.stream = None
        if link is None:
            self._wait(ask)
        else:
            ask.waited()
            self._put(ask, link)
        return True

    def unqueue(self) -> None:
        """Send what waits, as far as there are streams."""
        while self.queue:
            link = self._pick(None)
            if link is None:
                return
            ask = self._first_queued()
            ask.waited()
            self._put(ask, link)

    def _first_queued(self) -> Sent:
        ask = next(iter(self.queue))
        del self.queue[ask]
        return ask

    def _wait(self, ask: Sent) -> None:
        """Keep a call until there is a stream for it, where there may soon be one."""
        if not self._room:
            ask.cut(False, "no stream is free" if self.ready or self._replacing else self._reason())
        else:
            self.queue[ask] = None
            for place in self._places.values():
                place.widen()

    def _put(self, ask: Sent, link: Link) -> None:
        stream = link.connection.request(ask.block, ask.octets)
        stream.context = ask
        ask.link, ask.stream = link, stream
        link.calls += 1
        link.due()
        if stream.state is State.CLOSED:
            ask.cut(False, "the peer does not read")

    def _pick(self, tried: Link | None) -> Link | None:
        """Give the next connection that has a stream to spare."""
        ready = self.ready
        count = len(ready)
        if count == 1:
            link = ready[0]
            return link if link is not tried and link.connection.may_open else None
        for _ in range(count):
            self._turn += 1
            if self._turn >= count:
                self._turn = 0
            link = ready[self._turn]
            if link is not tried and link.connection.may_open:
                return link
        return None

    @property
    def _room(self) -> bool:
        """Whether a call may wait for a stream."""
        return not self._closed and len(self.queue) < QUEUE_MAX and (bool(self.ready) or self._replacing)

    @property
    def _replacing(self) -> bool:
        return any(place.replacing for place in self._places.values())

    def _reason(self) -> str:
        if self._closed:
            return "not connected"
        return next((place.reason for place in self._places.values() if place.reason), "not connected yet")

    def changed(self) -> None:
        """Look again at which connections are ready."""
        places = self._places.values()
        self.ready = [link for place in places for link in place.links if link.ready]
        if places and all(place.tried for place in places):
            self._settled.set()
        if self.queue:
            if self.ready:
                self.unqueue()
            elif not self._replacing:
                while self.queue:  # whoever is told of an end may cancel or ask
                    self._first_queued().cut(False, self._reason())

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a connection that agreed on HTTP/2 although it was not ours; calls wait until it is ready."""
        peer = transport.get_extra_info("peername")
        place = self._places.get((peer[0], self.port)) if peer else None
        place = place or next(iter(self._places.values()), None)
        if place is None or self._closed:
            transport.abort()
        else:
            place.adopt(transport)

    def estranged(self) -> None:
        """Hear that an address speaks another protocol: what still waits for a stream may be better off elsewhere."""
        if not self.ready and not self._replacing:
            while self.queue:
                self._first_queued().move()
        self.changed()

    def lost(self) -> None:
        """Hear that a connection is gone: its address may be, too."""
        self._ticks = 0

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticking = loop.call_later(1.0, self._tick)
        if self._ticks % RESOLVE_TICKS == 0 and self._resolving is None:
            self._resolving = loop.create_task(self._resolve())
        self._ticks += 1
        self._leaving = [place for place in self._leaving if place.links]
        for place in [*self._places.values(), *self._leaving]:
            for link in list(place.links):
                link.tick()

    async def _resolve(self) -> None:
        """Ask for the addresses; connect to new ones, part from those that are gone."""
        try:
            addresses = await self._addresses()
        except (OSError, UnicodeError):
            self._settled.set()  # what we have stays; a name that does not resolve now may in a minute
            return
        finally:
            self._resolving = None
        for address in addresses:
            if address not in self._places:
                self._places[address] = Place(self, address)
        for address in [address for address in self._places if address not in addresses]:
            place = self._places.pop(address)
            place.leave()
            self._leaving.append(place)
        if self.ready:
            for place in self._places.values():
                place.reconsider()
        self.changed()

    async def _addresses(self) -> list[Address]:
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                socket.inet_pton(family, self.host)
                return [(self.host, self.port)]  # no name, and no thread to ask for it
        found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((str(where[4][0]), self.port) for where in found))[:ADDRESSES_MAX]


def _loop_time() -> float:
    return asyncio.get_running_loop().time()

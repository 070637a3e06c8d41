# What arbitrary octets of a server do to calls that are under way: over a channel's own connection, without a socket.
#
# Beside what holds of every target: each call ends at most once while the server speaks, exactly once when its
# connection is lost, unless it is sent again on another; and a connection counts the calls that are on it.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import msgspec

from auction.edge.wire import frames
from auction.edge.wire.channel import Channel
from auction.edge.wire.frames import Setting
from auction.edge.wire.http1.errors import Failure
from auction.edge.wire.http1.messages import Answer, Limits, address
from auction.edge.wire.limits import Limits as WireLimits
from auction.edge.wire.link import SETTLED_TICKS, Link
from auction.edge.wire.messages import Bounds
from auction.edge.wire.places import Place
from auction.edge.wire.queries import Resource
from auction.edge.wire.streams import State, Stream

SMALL: Final = WireLimits(streams=10, stream_window=1_000, connection_window=70_000, header_list_bytes=2_000)
BOUNDS: Final = Bounds(octets=5_000, ratio=10)
BODY_BYTES: Final = 3_000


class Told(msgspec.Struct):
    """What came of the calls of a connection; `taken_back`: those that we withdrew while the server went on.

    What it says on such a stream is forgiven once our reset has gone out, and may break a rule before; our reset goes
    out at the end of a read, so where reads end decides. Of these calls then is compared how they ended, and no more.
    """

    endings: dict[str, list[Any]]
    more: list[Any]
    taken_back: set[str]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Told)
        taken = self.taken_back | other.taken_back
        if not taken:
            return (self.endings, self.more) == (other.endings, other.more)
        return all(self.endings.get(name) == other.endings.get(name) for name in taken)


class Watched(Link):
    """A connection that knows which calls on it were taken back."""

    withdrawn: frozenset[int] = frozenset()

    def withdraw(self, stream: Stream) -> None:
        self.withdrawn = self.withdrawn | {stream.id}
        super().withdraw(stream)


class Transport(asyncio.Transport):
    """Nowhere to write to; closed as sockets are, which tell of it later."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.octets = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written behind the end"
        self.octets += len(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Here:
    """A place whose connections are made by hand, and not made again."""

    reason, tried, replacing = "", True, False

    def __init__(self) -> None:
        self.links: list[Link] = []

    def widen(self) -> None: ...


class Client:
    """A channel with calls under way, and how each of them ended."""

    def __init__(self) -> None:
        self.channel = Channel("peer", 1, limits=SMALL, bounds=BOUNDS, now=lambda: 1.0)
        self.place = Here()
        self.channel._places[("peer", 1)] = cast("Place", self.place)
        self.endings: dict[str, list[Any]] = {}
        self.heard: list[bytes] = []

    def connected(self, streams: int) -> Watched:
        """Add a connection to a peer that takes so many calls at a time."""
        link = Watched(self.channel, self._changed)
        self.place.links.append(link)
        link.connection_made(Transport())
        link.data_received(frames.settings({Setting.MAX_CONCURRENT_STREAMS: streams}))
        assert link.ready
        return link

    def _changed(self, link: Link) -> None:
        self.place.replacing = not link.ready and link.in_order
        self.channel.changed()

    def unary(self, name: str, body: bytes, gzip: bool = False) -> None:
        method = self.channel.method("/a", gzip=gzip)
        self.channel.unary(method, body, lambda *ending: self._ended(name, *ending))

    def query(self, name: str, wanted: Callable[[int], bool]) -> None:
        resource = Resource(address("http://peer/q"), [("a", "b")], Limits(BODY_BYTES, fields=20), wanted)
        self.channel.query(resource, b"{}", lambda ending: self._answered(name, ending))

    def dialogue(self, name: str) -> None:
        """Say back whatever is heard, and finish with the first message that is empty."""

        def hear(message: bytes) -> None:
            assert not self.endings[name], "a message behind the end"
            self.heard.append(message)
            talk.write(message)
            if not message:
                talk.finish()

        self.endings[name] = []
        begun = self.channel.dialogue(self.channel.method("/d"), hear, lambda *ending: self._ended(name, *ending))
        assert begun is not None
        talk = begun
        talk.write(b"hello")

    def _ended(self, name: str, *ending: Any) -> None:
        assert not any(isinstance(one, bytes) and len(one) > BOUNDS.octets for one in ending)
        self.endings.setdefault(name, []).append(ending)

    def _answered(self, name: str, ending: Answer | Failure) -> None:
        if isinstance(ending, Answer):
            assert len(ending.body) <= BODY_BYTES
            self._ended(name, ending.status, dict(ending.fields), ending.body)
        else:
            self._ended(name, ending.fault, ending.detail)

    async def hear(self, link: Watched, pieces: list[bytes]) -> list[Any]:
        """Take what a server says; give what came of it."""
        transport = link._transport
        assert isinstance(transport, Transport)
        for piece in pieces:
            if transport.closed:
                break
            link.data_received(piece)
            self.consistent()
            await asyncio.sleep(0)  # what is due at the end of a tick
        await asyncio.sleep(0)
        told: list[Any] = [{name: list(ends) for name, ends in self.endings.items()}, list(self.heard)]
        link.tick()
        await asyncio.sleep(0)
        link.connection_lost(None)
        assert not link.calls
        self.consistent()
        return [*told, self.endings]

    def consistent(self) -> None:
        """Look whether nothing ended twice, and whether each connection has the calls that it counts."""
        for name, endings in self.endings.items():
            assert len(endings) <= 1, f"{name} ended {len(endings)} times: {endings}"
        for link in self.place.links:
            waiting = [stream for stream in link.connection.streams.values() if stream.context is not None]
            if not link.connection.over:
                assert link.calls == len(waiting), f"{link.calls} calls, {len(waiting)} streams with one"
            assert all(stream.state is not State.CLOSED for stream in waiting)
            assert len(link.connection.streams) <= SMALL.streams


async def _asks(pieces: list[bytes]) -> tuple[list[Any], object]:
    client = Client()
    link = client.connected(5)
    client.unary("plain", b"question")
    client.unary("large", b"x" * 70_000)
    client.unary("packed", b"y" * 300, gzip=True)
    client.query("query", lambda status: True)
    client.query("wanted", lambda status: status == 200)
    another = client.connected(10)
    told = await client.hear(link, pieces)
    left = len(another.connection.streams)
    assert 5 == left + sum(map(len, client.endings.values())), "a call is open, or has ended"
    names = ("plain", "large", "packed", "query", "wanted")
    return [Told(client.endings, [told, left], {names[number // 2] for number in link.withdrawn})], client


async def _away(pieces: list[bytes]) -> tuple[list[Any], object]:
    client = Client()
    link = client.connected(2)
    for _ in range(SETTLED_TICKS):
        link.tick()
    client.unary("plain", b"question")
    client.query("query", lambda status: True)
    told = await client.hear(link, pieces)
    waited = len(client.channel.queue)
    again = client.connected(10)
    assert not client.channel.queue
    assert waited == len(again.connection.streams) == again.calls, "what waits is sent"
    assert 2 == waited + sum(map(len, client.endings.values())), "a call waits, or has ended"
    names = ("plain", "query")
    return [Told(client.endings, [told, waited], {names[number // 2] for number in link.withdrawn})], client


async def _talks(pieces: list[bytes], queued: bool) -> tuple[list[Any], object]:
    client = Client()
    link = client.connected(2)
    client.dialogue("talk")
    client.unary("plain", b"question")
    calls = 2
    if queued:
        calls = 4
        client.unary("first", b"waits")
        client.query("second", lambda status: True)
    told = await client.hear(link, pieces)
    assert calls == sum(map(len, client.endings.values())), "all end with the only connection"
    assert not client.channel.queue
    return told, client


def _run(made: Coroutine[Any, Any, tuple[Any, object]]) -> tuple[Any, object]:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(made)


def asks(pieces: list[bytes]) -> tuple[Any, object]:
    """Ask five times, and have another connection to ask again on."""
    return _run(_asks(pieces))


def away(pieces: list[bytes]) -> tuple[Any, object]:
    """Ask twice on the only connection, whose place is taken by another when it is sent away."""
    return _run(_away(pieces))


def talks(pieces: list[bytes], queued: bool = False) -> tuple[Any, object]:
    """Talk and ask; with `queued`, two more calls wait for a stream.

    Those are sent at the end of the read in which one ends, so what a server says to them sooner depends on the reads.
    """
    return _run(_talks(pieces, queued))

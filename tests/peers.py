# Bidders that misbehave on real sockets, byte by byte. A library would not let us.
#
# A peer is a script run for each request that reaches it; it says what to write, and tells the test what happened by
# events, so nothing here sleeps. HTTP/2 is written out by hand for the same reason: a few frames, header fields as
# literals (RFC 7541 section 6.2.2), no compression to get wrong.

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Exchange:
    """One request as a peer sees it: what came, and a socket to do harm with."""

    def __init__(
        self,
        peer: Peer,
        body: bytes,
        writer: asyncio.StreamWriter,
        turn: asyncio.Lock,
        *,
        head: bytes = b"",
        stream: int = 0,
    ) -> None:
        self.peer = peer
        self.body = body
        self.head = head
        self.stream = stream
        self._writer = writer
        self._turn = turn

    async def write(self, octets: bytes) -> None:
        async with self._turn:
            self._writer.write(octets)
            await self._writer.drain()

    async def trickle(self, octets: bytes) -> None:
        """Write one octet at a time, each on its way before the next."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with self._turn:  # HTTP/2 has more to say meanwhile, but not within a frame
            for at in range(len(octets)):
                self._writer.write(octets[at : at + 1])
                await self._writer.drain()
                await asyncio.sleep(0)

    def finish(self) -> None:
        """Close in good order."""
        self._writer.close()

    def reset(self) -> None:
        """Close with RST instead of FIN, as a process that crashed with data unread."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class Peer:
    """A listening socket on loopback and what happened on it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.asked = asyncio.Event()
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.streams: set[int] = set()
        self.cancelled = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def run(self, exchange: Exchange) -> None:
        # A script may wait for the test while the connection goes on.
        self.requests.append(exchange.body)
        self.asked.set()
        task = asyncio.ensure_future(self.script(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@asynccontextmanager
async def http_peer(script: Script, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Run a script for every HTTP/1.1 request with a content-length."""
    async with _listening(script, _serve_http1, port, tls) as peer:
        yield peer


@asynccontextmanager
async def grpc_peer(script: Script, port: int = 0) -> AsyncIterator[Peer]:
    """Run a script for every gRPC call that arrives over HTTP/2."""
    async with _listening(script, partial(_serve_h2, prefix=5), port) as peer:
        yield peer


@asynccontextmanager
async def h2_peer(script: Script, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Run a script for every plain request that arrives over HTTP/2."""
    async with _listening(script, partial(_serve_h2, prefix=0), port, tls) as peer:
        yield peer


@asynccontextmanager
async def tls_peer(script: Script, tls: ssl.SSLContext, port: int = 0) -> AsyncIterator[Peer]:
    """Run a script for every plain request, over HTTP/2 where a connection agreed on it; else its stream is 0."""

    async def serve(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            await _serve_h2(peer, reader, writer, 0)
        else:
            await _serve_http1(peer, reader, writer)

    async with _listening(script, serve, port, tls) as peer:
        yield peer


async def _serve_http1(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    turn = asyncio.Lock()
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        peer.run(Exchange(peer, await reader.readexactly(length), writer, turn, head=head))


async def _serve_h2(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prefix: int) -> None:
    assert await reader.readexactly(len(PREFACE)) == PREFACE
    writer.write(frame(SETTINGS))
    turn = asyncio.Lock()
    bodies: dict[int, bytes] = {}
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        payload = await reader.readexactly(length)
        if kind in (SETTINGS, PING) and not flags & ACK:
            async with turn:
                writer.write(frame(kind, b"" if kind == SETTINGS else payload, ACK))
        elif kind == HEADERS:
            peer.streams.add(stream)
            bodies[stream] = b""
        elif kind == RST_STREAM:
            peer.streams.discard(stream)
            peer.cancelled.set()
        elif kind == DATA:
            bodies[stream] += payload
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            peer.run(Exchange(peer, bodies.pop(stream)[prefix:], writer, turn, stream=stream))


@asynccontextmanager
async def _listening(
    script: Script,
    serve: Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    port: int,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Peer]:
    peer = Peer(script)
    served: set[asyncio.Task[None] | None] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        peer.connections += 1
        peer.open += 1
        try:
            await serve(peer, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side is gone, or the test is over
        finally:
            peer.open -= 1
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        left = [task for task in (*served, *peer.tasks) if task is not None]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def http(body: bytes, status: str = "200 OK", content_type: str = "application/json", more: str = "") -> bytes:
    """Write an HTTP/1.1 response; `more` is further header lines, each with its end."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """Write an HTTP/2 frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(**named: str) -> bytes:
    """Write header fields as literals; `_` in a name is `-`, and a leading one is `:`."""
    block = b""
    for name, text in named.items():
        written = (":" + name[1:] if name.startswith("_") else name).replace("_", "-").encode()
        block += b"\0" + bytes([len(written)]) + written + bytes([len(text)]) + text.encode()
    return block


def message(body: bytes, compressed: bool = False, claimed: int | None = None) -> bytes:
    """Frame a gRPC message: a flag and a length, which may lie."""
    return bytes([compressed]) + (len(body) if claimed is None else claimed).to_bytes(4, "big") + body


def grpc_reply(
    stream: int, octets: bytes | None, status: int = 0, content_type: str = "application/grpc", http_status: str = "200"
) -> bytes:
    """Write a whole gRPC response: headers, framed message, trailers; without a message, trailers only."""
    head = {"_status": http_status, "content_type": content_type}
    if octets is None:
        return frame(HEADERS, fields(**head, grpc_status=str(status)), END_HEADERS | END_STREAM, stream)
    return (
        frame(HEADERS, fields(**head), END_HEADERS, stream)
        + b"".join(frame(DATA, octets[at : at + 16_384], 0, stream) for at in range(0, len(octets), 16_384))
        + frame(HEADERS, fields(grpc_status=str(status)), END_HEADERS | END_STREAM, stream)
    )


def h2_reply(
    stream: int, body: bytes | None, status: str = "200", content_type: str = "application/json", **more: str
) -> bytes:
    """Write a whole plain answer over HTTP/2: headers and body; without a body, headers only."""
    block = fields(_status=status, content_type=content_type, **more)
    if body is None:
        return frame(HEADERS, block, END_HEADERS | END_STREAM, stream)
    parts = [body[at : at + 16_384] for at in range(0, len(body), 16_384)] or [b""]
    data = [frame(DATA, part, END_STREAM if at == len(parts) else 0, stream) for at, part in enumerate(parts, 1)]
    return frame(HEADERS, block, END_HEADERS, stream) + b"".join(data)


def descriptors() -> int:
    """Count this process's open files and sockets."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def eventually(condition: Callable[[], bool], turns: int = 10_000) -> bool:
    """Give the other side of a socket, and other threads, their turn until `condition` holds; False: never."""
    for _ in range(turns):
        if condition():
            return True
        await asyncio.sleep(0.001)
    return False

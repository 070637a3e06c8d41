# HTTP/2 and gRPC as bare as they may be, for counterparts that are to cost next to nothing.
#
# A bidder that gives the same octets to any question, and a caller that asks the same question: what either sends is
# made once, and only its stream's number is filled in; what either receives is read as far as the end of a stream.
# No header block is decoded, so a call counts as answered when its message is there. All that came in one read leaves
# in one write. Of the rest of the protocol there is what a peer insists on: settings, pings and windows.

from __future__ import annotations

import asyncio
import struct
from typing import Final, cast

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEAD_OCTETS: Final = 9
FRAME_MAX: Final = 16_384  # what a peer takes that has not said otherwise; a message is one frame here
PREFIX_OCTETS: Final = 5  # of a gRPC message: whether it is compressed, and its length

# What we may be sent before we say that we have read it: as much as there is, renewed when half of it is used.
WINDOW_MAX: Final = 2**31 - 1
WINDOW_FIRST: Final = 65_535

Template = tuple[bytes, ...]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write one frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def template(*frames: tuple[int, int, bytes]) -> Template:
    """Prepare frames of one stream (kind, flags, payload): `number.join(...)` writes them."""
    parts = [b""]
    for kind, flags, payload in frames:
        assert len(payload) <= FRAME_MAX, len(payload)
        parts[-1] += struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
        parts.append(payload)
    return tuple(parts)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Write header fields as literals that nobody is to remember."""
    return b"".join(b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)


def message(body: bytes) -> bytes:
    """Write a gRPC message."""
    return struct.pack(">BI", 0, len(body)) + body


OPENING: Final = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WINDOW_MAX)) + frame(
    WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_MAX - WINDOW_FIRST)
)


class _Connection(asyncio.Protocol):
    """What both roles have in common."""

    _greeting = 0  # octets to pass over before the first frame
    _opening = OPENING

    def __init__(self) -> None:
        self._buffer = b""
        self._out: list[bytes] = []
        self._read = 0
        self._window = WINDOW_FIRST
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        self._transport = transport
        transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end = self._greeting, len(buffer)
        if at > end:
            self._buffer = buffer
            return
        self._greeting = 0
        while end - at >= HEAD_OCTETS:
            length = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            body, after = at + HEAD_OCTETS, at + HEAD_OCTETS + length
            if after > end:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            if kind <= HEADERS:
                if kind == DATA:
                    self._read += length
                    self.said(buffer[at + 5 : body], buffer[body:after])
                if flags & END_STREAM:
                    self.ended(buffer[at + 5 : body])
            else:
                self._other(kind, flags, buffer[at + 5 : body], buffer[body:after])
            at = after
        self._buffer = buffer[at:]
        if self._read > WINDOW_MAX // 2:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._read)))
            self._read = 0
        if self._out:
            assert self._transport is not None
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _other(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream == b"\0\0\0\0":
            self._window += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._out.append(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            self.refused(f"{'RST_STREAM' if kind == RST_STREAM else 'GOAWAY'} {payload.hex()}")

    def said(self, stream: bytes, payload: bytes) -> None:
        """Hear a part of a message."""

    def ended(self, stream: bytes) -> None:
        """Hear that a stream has ended."""
        raise NotImplementedError

    def refused(self, reason: str) -> None:
        """Hear that the peer gives up a call, or all of them."""


class Bidder(_Connection):
    """One caller's connection to a bidder that answers everything with the same body."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._greeting = len(PREFACE)
        self._answer = answer(body)
        self._octets = PREFIX_OCTETS + len(body)
        self._waiting: list[bytes] = []

    def ended(self, stream: bytes) -> None:
        self._waiting.append(stream)
        self._answer_all()

    def _other(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        super()._other(kind, flags, stream, payload)
        if self._waiting:
            self._answer_all()

    def _answer_all(self) -> None:
        while self._waiting and self._window >= self._octets:
            self._window -= self._octets
            self._out.append(self._waiting.pop().join(self._answer))


def answer(body: bytes) -> Template:
    """Prepare a bidder's answer."""
    head = b"\x88" + block((b"content-type", b"application/grpc"))
    return template(
        (HEADERS, END_HEADERS, head),
        (DATA, 0, message(body)),
        (HEADERS, END_HEADERS | END_STREAM, block((b"grpc-status", b"0"))),
    )


class Caller(_Connection):
    """A connection that asks one question over and over."""

    _opening = PREFACE + OPENING

    def __init__(self, path: str, body: bytes, timeout_ms: int) -> None:
        super().__init__()
        self._question = question(path, body, timeout_ms)
        self._octets = PREFIX_OCTETS + len(body)
        self._due = 0
        self._next = 1
        self._left = self._under_way = 0
        self._least = 0.0
        self._bodies: dict[bytes, bytes] = {}
        self._ended: asyncio.Future[bytes] | None = None

    async def ask(self, calls: int, at_a_time: int, least: float) -> bytes:
        """Ask so many times; give the last answer. RuntimeError if one is shorter than `least`, or is none."""
        assert self._transport is not None
        self._ended = asyncio.get_running_loop().create_future()
        self._left, self._under_way, self._least = calls, 0, least
        for _ in range(min(at_a_time, calls)):
            self._more()
        self._transport.write(b"".join(self._out))
        self._out.clear()
        return await self._ended

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _more(self) -> None:
        self._left -= 1
        self._under_way += 1
        self._due += 1
        self._ask_all()

    def _other(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        super()._other(kind, flags, stream, payload)
        self._ask_all()

    def _ask_all(self) -> None:
        while self._due and self._window >= self._octets:
            self._window -= self._octets
            self._due -= 1
            self._out.append(struct.pack(">I", self._next).join(self._question))
            self._next += 2

    def said(self, stream: bytes, payload: bytes) -> None:
        earlier = self._bodies.get(stream)
        self._bodies[stream] = payload if earlier is None else earlier + payload

    def ended(self, stream: bytes) -> None:
        body = self._bodies.pop(stream, b"")
        self._under_way -= 1
        if len(body) <= PREFIX_OCTETS or len(body) - PREFIX_OCTETS < self._least:
            self.refused(f"expected an answer of at least {self._least:.0f} octets, had {len(body)}")
        elif self._left:
            self._more()
        elif not self._under_way and self._ended is not None and not self._ended.done():
            self._ended.set_result(body[PREFIX_OCTETS:])

    def refused(self, reason: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(RuntimeError(reason))

    def connection_lost(self, failure: Exception | None) -> None:
        self.refused(f"connection lost: {failure}")


def question(path: str, body: bytes, timeout_ms: int) -> Template:
    """Prepare what a caller asks."""
    head = b"\x83\x86" + block(
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"%dm" % timeout_ms),
    )
    return template((HEADERS, END_HEADERS, head), (DATA, END_STREAM, message(body)))

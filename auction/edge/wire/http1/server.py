"""The server's side of one connection, without I/O: bytes in, requests out, in order."""
# What is ambiguous is refused and ends the connection, because two readers that understand one message differently are
# how a request is smuggled past the first: two lengths, a length beside chunks, a line without CR, white space where
# none belongs, another transfer coding, no host or two. llhttp is strict about most of that; the rest is here.

from __future__ import annotations

from typing import Final

import httptools
import msgspec

from auction.edge.wire.http1.errors import Broken, Refused
from auction.edge.wire.http1.messages import STRETCHES_MAX, Fields, Limits, Request

# Requests whose answers have not left, on one connection. Nobody whom we know sends a second before the first is
# answered; what sends more than this in one go is a flood.
PIPELINED_MAX: Final = 64

_VERSIONS = ("1.1", "1.0")
_ONCE = (b"host", b"content-length", b"transfer-encoding")


class Begun(msgspec.Struct, frozen=True, gc=False):
    """The head of a request is there; its body may be yet to come, and goes into the same object."""

    request: Request


class Whole(msgspec.Struct, frozen=True, gc=False):
    """The request is complete."""

    request: Request


Event = Begun | Whole | Refused


class ServerConnection:
    """Requests as they come. `unanswered` is counted here and taken back by whoever answers.

    `partial` tells whether a request is under way, `number` which one it is. After Refused, or `close`, nothing more is
    read and the parser, which holds on to us, is gone.
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_events",
        "_fields",
        "_head_bytes",
        "_limits",
        "_parser",
        "_quiet",
        "_refused",
        "_request",
        "_room",
        "_size",
        "_target",
        "number",
        "partial",
        "unanswered",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._events: list[Event] = []
        self._refused: Refused | None = None
        self._quiet = 0
        self._room = limits.head_bytes
        self._request: Request | None = None
        self.number = -1
        self.unanswered = 0
        self.on_message_begin()
        self.partial = False

    def receive(self, data: bytes) -> list[Event]:
        """Take what came; give what it completes."""
        if self._parser is None:
            return []
        events: list[Event] = []
        self._events = events
        while len(data) >= self._room:
            piece, data = data[: self._room], data[self._room :]
            if not self._feed(piece):
                return events
            self._room = self._limits.head_bytes
            self._quiet += 1
            if self._quiet > STRETCHES_MAX:
                self._over(self._too_long())
                return events
        if data:
            self._room -= len(data)
            self._feed(data)
        return events

    def _feed(self, data: bytes) -> bool:
        """Parse; False where nothing more is to be."""
        assert self._parser is not None
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as at:
                # An upgrade is an offer, and is not taken up: what follows is the next request.
                data = data[at.args[0] :]
            except httptools.HttpParserCallbackError:
                assert self._refused is not None
                return self._over(self._refused)
            except httptools.HttpParserError as wrong:
                if self._request is not None and not self._request.keep and not self.partial:
                    return False  # whatever follows the last request of a connection is nobody's business
                return self._over(Refused(400, f"no HTTP/1.1: {wrong}"))
        return True

    def _over(self, refused: Refused) -> bool:
        self._events.append(refused)
        self.close()
        return False

    @property
    def closed(self) -> bool:
        """Tell whether nothing more is read."""
        return self._parser is None

    def close(self) -> None:
        """Let go of the parser; nothing more is read."""
        self._parser = None

    def _stop(self, refused: Refused) -> Broken:
        self._refused = refused
        return Broken()

    # What the parser calls. An exception from here ends its work. It calls on_url for what one read has of it, and
    # on_header when it sees the next field or only the end of a read, so nothing is refused before the head is whole.

    def on_message_begin(self) -> None:
        self.partial = True
        self.number += 1
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._size = 0
        self._chunks = 0

    def on_url(self, piece: bytes) -> None:
        self._head_bytes += len(piece)
        if self._head_bytes > self._limits.head_bytes:
            self._refused = self._too_long()
        else:
            self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or len(self._fields) >= self._limits.fields:
            self._refused = self._refused or self._too_long()
            return
        if self._request is not None and self._request.body is None:
            return  # a trailer: no field of the request, which its sender may have checked without it
        name = name.lower()
        if name in self._fields:
            if name in _ONCE:
                self._refused = self._refused or Refused(400, f"{name.decode()}: expected once, was there twice")
        else:
            self._fields[name] = value

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        assert parser is not None
        self._quiet = 0
        if self._refused is not None:
            raise Broken
        self.unanswered += 1
        if self.unanswered > PIPELINED_MAX:
            raise self._stop(Refused(400, f"expected at most {PIPELINED_MAX} requests before their answers"))
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise self._stop(Refused(505, f"expected HTTP/1.1, was HTTP/{version}"))
        old = version == "1.0"
        # RFC 9112 section 3.2.
        if not old and b"host" not in fields:
            raise self._stop(Refused(400, "host: expected one, was none"))
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if coding is not None:
            # RFC 9112 section 6.1: a coding that we do not know is 501, and HTTP/1.0 knows none.
            if coding.strip().lower() != b"chunked":
                shown = coding[:40].decode("latin-1")
                raise self._stop(Refused(501, f"transfer-encoding: expected chunked, was {shown}"))
            if old:
                raise self._stop(Refused(400, "transfer-encoding: expected none in HTTP/1.0"))
        method = parser.get_method().decode("latin-1")
        announced = int(length) if length is not None else None
        if parser.should_upgrade() and (coding is not None or announced or method == "CONNECT"):
            # The parser would take the body for the other protocol.
            raise self._stop(Refused(400, "expected no change of protocols"))
        request = Request(
            method,
            self._target.decode("latin-1"),
            Fields(fields),
            announced,
            parser.should_keep_alive(),
            old,
            fields.get(b"expect", b"").lower() == b"100-continue" and not old,
        )
        self._request = request
        self._events.append(Begun(request))
        if announced is not None and announced > self._limits.body_bytes:
            raise self._stop(self._too_large())

    def on_body(self, piece: bytes) -> None:
        self._quiet = 0
        self._size += len(piece)
        if self._size > self._limits.body_bytes:
            raise self._stop(self._too_large())
        self._body.append(piece)

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise self._stop(Refused(400, f"expected at most {self._limits.chunks} chunks"))

    def on_message_complete(self) -> None:
        if self._refused is not None:
            raise Broken
        request, body = self._request, self._body
        assert request is not None
        request.body = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        self.partial = False
        self._events.append(Whole(request))

    def _too_large(self) -> Refused:
        return Refused(400, f"expected at most {self._limits.body_bytes} bytes")

    def _too_long(self) -> Refused:
        return Refused(
            400, f"expected a head of at most {self._limits.head_bytes} bytes in {self._limits.fields} fields"
        )

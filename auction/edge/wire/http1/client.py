"""The client's side of one connection, without I/O: bytes in, an answer or a failure out."""
# A connection serves another exchange only after a whole answer and not a message more. Whatever was late, cut short,
# too large or followed by something unasked makes it unfit, so nobody reads what was meant for another.
#
# Parsing is llhttp's, strict as it comes. What it leaves to its user is here: bodies that end with the connection,
# informational answers, limits, and transfer codings but chunked, which nobody is asked for.

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools

from auction.edge.wire.http1.errors import Broken, Failure, Fault
from auction.edge.wire.http1.messages import STRETCHES_MAX, Answer, Fields, Limits

# Informational answers before the one that counts: 100 and 103 once each are sensible, a stream of them is not.
INFORMATIONAL_MAX: Final = 8

_BODILESS = (204, 304)


def every(status: int) -> bool:
    """Want the body of an answer whatever its status is."""
    return True


class ClientConnection:
    """One exchange at a time: `ask`, then `receive` until it gives something.

    A body whose status is not `wanted` is not waited for. `fit` tells whether another exchange may follow; where it is
    False the connection is to be closed. `close` lets go of the parser, which holds on to us.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_chunks",
        "_detail",
        "_endless",
        "_fault",
        "_fields",
        "_head_bytes",
        "_informational",
        "_keep",
        "_limits",
        "_long",
        "_parser",
        "_quiet",
        "_room",
        "_size",
        "_status",
        "_wanted",
        "_whole",
        "fit",
        "waiting",
    )

    def __init__(self, limits: Limits, wanted: Callable[[int], bool] = every) -> None:
        self._limits = limits
        self._wanted = wanted
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.fit = True
        self.waiting = False
        # These change in an exchange that no other follows, and the last two with each answer.
        self._endless = False
        self._fault: Fault | None = None
        self._detail = ""
        self._keep = False
        self._begin()

    def _begin(self) -> None:
        self._status = 0
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._long = False
        self._quiet = 0
        self._room = self._limits.head_bytes
        self._body: list[bytes] = []
        self._size = 0
        self._chunks = 0
        self._informational = 0
        self._whole = False

    def ask(self) -> None:
        """Begin an exchange; whoever calls sends the bytes of the request."""
        assert self.fit
        assert not self.waiting
        self._begin()
        self.waiting = True

    def receive(self, data: bytes) -> Answer | Failure | None:
        """Take what came; give how the exchange ended, or None while it goes on."""
        if not self.waiting or self._parser is None:
            self.fit = False  # spoken unasked
            return None
        while len(data) >= self._room and self._fault is None:
            piece, data = data[: self._room], data[self._room :]
            self._feed(piece)
            self._room = self._limits.head_bytes
            self._quiet += 1
            if self._quiet > STRETCHES_MAX:
                self._break(Fault.TOO_LARGE, self._too_long)
        if data and self._fault is None:
            self._feed(data)
            self._room -= len(data)
        return self._ending()

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(Fault.NO_HTTP, "expected no change of protocols")
        except httptools.HttpParserError as wrong:
            # Behind a whole answer it is only one thing more that came unasked.
            self.fit = False
            if not self._whole and self._fault is None:
                self._fault, self._detail = Fault.NO_HTTP, str(wrong)

    def eof(self, cut: bool = False) -> Answer | Failure | None:
        """Take the end of what comes, `cut` if by force; give how the exchange ended, or None if there was none."""
        self.fit = False
        if not self.waiting:
            return None
        if self._endless and not cut:
            self._whole = True
        elif self._status:
            self._break(Fault.TRUNCATED, f"{self._size} bytes of a body and no end")
        else:
            self._break(Fault.UNREACHABLE, "disconnected without an answer")
        return self._ending()

    def close(self) -> None:
        """Let go of the parser; nothing can be asked or received any more."""
        self._parser = None
        self.fit = False

    def _ending(self) -> Answer | Failure | None:
        """Give how the exchange ended, if it did, and be ready for the next."""
        if self._whole:
            self.waiting = False
            self.fit = self.fit and self._keep
            body = self._body if self._wanted(self._status) else ()
            return Answer(self._status, Fields(self._fields), body[0] if len(body) == 1 else b"".join(body))
        if self._status and not self._wanted(self._status):
            self.waiting = self.fit = False
            return Answer(self._status, Fields(self._fields))
        if self._fault is not None:
            self.waiting = self.fit = False
            return Failure(self._fault, self._detail)
        return None

    def _break(self, fault: Fault, detail: str) -> None:
        self.fit = False
        if self._fault is None:
            self._fault, self._detail = fault, detail

    def _stop(self, fault: Fault, detail: str) -> Broken:
        self._break(fault, detail)
        return Broken()

    # What the parser calls. An exception from here ends its work. It calls on_header for a field when it sees the next
    # one, or only the end of a read, so nothing is found wrong before the head is whole.

    def on_message_begin(self) -> None:
        if self._whole:
            raise Broken  # spoken unasked

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or len(self._fields) >= self._limits.fields:
            self._long = True
            return
        if not self._status:  # behind the head it is a trailer, and nobody asked for one
            self._fields.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        self._quiet = 0
        if self._long:
            raise self._stop(Fault.TOO_LARGE, self._too_long)
        if status < 200:
            self._informational += 1
            if status == 101 or self._informational > INFORMATIONAL_MAX:
                raise self._stop(Fault.NO_HTTP, f"expected an answer, was one more {status}")
            self._fields = {}
            self._head_bytes = 0
            return
        self._status = status
        coding = self._fields.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise self._stop(Fault.NO_HTTP, f"transfer-encoding: expected chunked, was {coding[:40].decode('latin-1')}")
        length = self._fields.get(b"content-length")
        if length is not None and self._wanted(status) and int(length) > self._limits.body_bytes:
            raise self._too_large()
        self._endless = coding is None and length is None and status not in _BODILESS

    def on_body(self, piece: bytes) -> None:
        self._quiet = 0
        self._size += len(piece)
        if self._size > self._limits.body_bytes:
            raise self._too_large()
        self._body.append(piece)

    def on_chunk_header(self) -> None:
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise self._stop(Fault.TOO_LARGE, f"expected at most {self._limits.chunks} chunks")

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._long:
            raise self._stop(Fault.TOO_LARGE, self._too_long)
        if self._status:
            self._whole = True
            self._keep = self._parser.should_keep_alive()

    @property
    def _too_long(self) -> str:
        return f"expected a head of at most {self._limits.head_bytes} bytes in {self._limits.fields} fields"

    def _too_large(self) -> Broken:
        return self._stop(Fault.TOO_LARGE, f"expected at most {self._limits.body_bytes} bytes")

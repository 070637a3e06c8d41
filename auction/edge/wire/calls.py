# A call as a server has it: from its first header fields to the trailers that end it.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from auction.edge.wire.frames import Code
from auction.edge.wire.h2 import Connection
from auction.edge.wire.heads import RequestHead
from auction.edge.wire.messages import Bounds, Reader, Unreadable, packed, whole
from auction.edge.wire.statuses import HEAD, Status, trailers, trailers_only
from auction.edge.wire.streams import Arrival, State, Stream
from auction.edge.wire.wheel import Expiring

Metadata = tuple[tuple[str, str], ...]

_OK = trailers(0)

Handler = Callable[["Call"], None]
"""What a call is handed to. It must not wait."""


class Owner(Protocol):
    """Whoever sends what a call has put on its connection."""

    def due(self) -> None: ...

    def holds(self, octets: int) -> bool:
        """Hear that so many more octets (fewer, below 0) of messages that are not whole are kept; False: too many."""
        ...

    def whole(self, call: Call) -> None:
        """Hear that the message of a unary call is whole, which was waited for."""
        ...


class Call(msgspec.Struct, eq=False):
    """One call, unary or a dialogue. Once it has ended, answering does nothing.

    A unary handler finds the message in `body` and answers with `answer` or `refuse`, once. A dialogue's handler sets
    `on_message` and `on_end` (the caller has said all), sends with `write` and ends with `finish`. Both may set
    `on_cancel`, which is called when nobody waits any more, and `on_drain`, when the connection is about to go.
    `deadline` is on the server's clock; None is for ever.
    """

    _owner: Owner
    _connection: Connection
    _stream: Stream | None
    head: RequestHead
    _bounds: Bounds
    body: bytes = b""
    deadline: float | None = None
    bucket: set[Expiring] | None = None
    on_cancel: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    on_message: Callable[[bytes], None] | None = None
    on_end: Callable[[], None] | None = None
    _held: int = 0
    _reader: Reader | None = None
    _headed: bool = False

    @property
    def method(self) -> str:
        """The path that was called."""
        return self.head.method

    @property
    def metadata(self) -> Mapping[str, str]:
        """What came with the call as text; `head.binary` has the rest."""
        return self.head.text

    @property
    def waiting(self) -> bool:
        """Whether the message of a unary call is still to come."""
        return self._stream is not None and self._reader is not None and self.head.unary

    @property
    def open(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._stream is not None

    # What arrives.

    def begin(self, arrival: Arrival) -> None:
        """Take in the first of it; call the handler if that is enough."""
        head = self.head
        if head.unary:
            body = whole(arrival.data) if arrival.ended else None
            if body is not None and len(body) <= self._bounds.octets:
                self.body = body
                self._hand_over()
                return
        self._reader = Reader(self._bounds, head.encoding)
        if not head.unary:
            self._hand_over()
        if arrival.data or arrival.ended:
            self.more(arrival)

    def more(self, arrival: Arrival) -> None:
        """Take in what came after."""
        if arrival.reset is not None:
            self.abandon()
            return
        reader = self._reader
        if reader is None:
            return  # handed over and ended: nothing more counts
        try:
            for message in reader.feed(arrival.data):
                self._heard(message)
            more = reader.rest - self._held
            self._held += more
            if not self._owner.holds(more):
                raise Unreadable(Status.RESOURCE_EXHAUSTED, "too much of messages that are not whole")
            if arrival.ended:
                self._ended(reader)
        except Unreadable as fault:
            self.break_off(fault.status, str(fault))
        except Exception:  # ours, whatever it is: this call ends with it, and no other does
            self._failed()

    def _heard(self, message: bytes) -> None:
        if not self.head.unary:
            if self._stream is not None and self.on_message is not None:
                self.on_message(message)
        elif self.on_message is not None:
            raise Unreadable(Status.INTERNAL, "expected one message, were more")
        else:
            self.body = message
            self.on_message = _had  # an empty message is one too

    def _ended(self, reader: Reader) -> None:
        if reader.rest:
            raise Unreadable(Status.INTERNAL, "a message cut short")
        if not self.head.unary:
            if self._stream is not None and self.on_end is not None:
                self.on_end()
            return
        if self.on_message is None:
            raise Unreadable(Status.INTERNAL, "expected one message, was none")
        self._reader = None
        self._owner.whole(self)
        self._hand_over()

    def _hand_over(self) -> None:
        assert self.head.handler is not None
        try:
            self.head.handler(self)
        except Exception:  # ours, whatever it is: this call ends with it, and no other does
            self._failed()

    def _failed(self) -> None:
        """Write a fault of the handler's down where we can read it, and tell the caller only that there was one."""
        logging.getLogger(__name__).exception("a call to %s failed", self.method)
        self.refuse(Status.INTERNAL, "internal error")

    def abandon(self) -> None:
        """Hear that nobody waits any more."""
        if self._stream is not None:
            on_cancel = self.on_cancel
            self._take()
            if on_cancel is not None:
                on_cancel()

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.break_off(Status.DEADLINE_EXCEEDED, "the deadline has passed")

    def break_off(self, status: Status, message: str) -> None:
        """End the call for the caller and for the handler."""
        if self._stream is not None:
            on_cancel = self.on_cancel
            self.refuse(status, message)
            if on_cancel is not None:
                on_cancel()

    # What is answered.

    def answer(self, body: bytes, metadata: Metadata = ()) -> None:
        """End a unary call with its message."""
        stream = self._take()
        if stream is not None:
            ending = trailers(0, "", metadata) if metadata else _OK
            self._connection.send(stream, HEAD, packed(body), ending)
            self._owner.due()

    def refuse(self, status: int, message: str, metadata: Metadata = ()) -> None:
        """End a call with a status and a sentence."""
        stream = self._take()
        if stream is None:
            return
        if self._headed:
            self._connection.end(stream, trailers(status, message, metadata))
        else:
            self._connection.end(stream, trailers_only(status, message, metadata))
        if stream.state is State.HALF_CLOSED_LOCAL:
            self._connection.reset(stream, Code.NO_ERROR)  # answered early: it need not go on sending
        self._owner.due()

    def write(self, body: bytes) -> None:
        """Send one message of a dialogue."""
        stream = self._stream
        if stream is None or stream.state is State.CLOSED:
            return
        if not self._headed:
            self._headed = True
            self._connection.send(stream, HEAD)
        self._owner.due()
        if not self._connection.send_data(stream, packed(body)):
            self.abandon()  # it does not read

    def finish(self, status: int = Status.OK, message: str = "", metadata: Metadata = ()) -> None:
        """End a dialogue behind what was written."""
        self.refuse(status, message, metadata)

    def _take(self) -> Stream | None:
        """Part with the stream; None where the call has ended."""
        stream, self._stream = self._stream, None
        if stream is None:
            return None
        stream.context = None
        self.on_cancel = self.on_drain = self.on_end = self.on_message = None  # they may refer to us
        if self.bucket is not None:
            self.bucket.discard(self)
        if self._held:
            self._owner.holds(-self._held)
            self._held = 0
        return None if stream.state is State.CLOSED else stream


def _had(body: bytes) -> None:
    """Mark a unary call whose message has come; never called."""

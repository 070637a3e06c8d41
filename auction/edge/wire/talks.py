# A dialogue as a client has it: messages both ways on one stream, until one side ends it. Nothing of it is sent twice.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from auction.edge.wire.asks import Method, ending_of, head_of, message_of
from auction.edge.wire.heads import ResponseHead
from auction.edge.wire.messages import Reader, Unreadable
from auction.edge.wire.statuses import Status, of_reset
from auction.edge.wire.streams import Arrival, State

if TYPE_CHECKING:
    from auction.edge.wire.channel import Channel
    from auction.edge.wire.link import Link
    from auction.edge.wire.wheel import Expiring

Ended = Callable[[Status, str], None]
"""How a dialogue ended, once, unless it was cancelled first."""


class Talk:
    """One dialogue. Once it has ended, writing does nothing."""

    __slots__ = ("_channel", "_ended", "_head", "_method", "_on_message", "_reader", "bucket", "link", "stream")

    def __init__(
        self, channel: Channel, link: Link, method: Method, timeout_s: float | None, on_message: Callable[[bytes], None]
    ) -> None:
        self._channel = channel
        self._method = method
        self._on_message = on_message
        self._ended: Ended | None = None
        self._head: ResponseHead | None = None
        self._reader: Reader | None = None
        self.bucket: set[Expiring] | None = None
        self.link: Link | None = link
        self.stream = link.connection.request(method.block(timeout_s))
        self.stream.context = self
        link.calls += 1
        link.due()

    def begin(self, ended: Ended) -> None:
        """Say what is to be called at the end."""
        self._ended = ended

    def write(self, body: bytes) -> None:
        """Send one message."""
        link = self.link
        if link is not None and self.stream.state in (State.OPEN, State.HALF_CLOSED_REMOTE):
            link.due()
            if not link.connection.send_data(self.stream, message_of(body, self._method)):
                self.end(Status.UNAVAILABLE, "the peer does not read")

    def finish(self) -> None:
        """Say that no message follows; what the peer still has to say is heard."""
        link = self.link
        if link is not None and self.stream.state in (State.OPEN, State.HALF_CLOSED_REMOTE):
            link.connection.send_data(self.stream, b"", True)
            link.due()

    def cancel(self) -> None:
        """Withdraw; nothing more is heard."""
        self._ended = None
        link = self._part()
        if link is not None:
            link.withdraw(self.stream)

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self._break_off(Status.DEADLINE_EXCEEDED, "the deadline has passed")

    def arrived(self, arrival: Arrival) -> None:
        """Take in what came on the stream."""
        if arrival.fields is not None:
            self._head = head_of(arrival.fields)
        head = self._head
        if arrival.data and head is not None and head.fault is None:
            self._reader = self._reader or Reader(self._channel.bounds, head.encoding)
            try:
                for message in self._reader.feed(arrival.data):
                    if self.link is not None:
                        self._on_message(message)
            except Unreadable as fault:
                self._break_off(fault.status, str(fault))
                return
        if arrival.ended:
            self._end(arrival)
        elif arrival.reset is not None:
            self.end(of_reset(arrival.reset), "stream reset")

    def _end(self, arrival: Arrival) -> None:
        head = self._head
        if head is None:
            self.end(Status.INTERNAL, "an end without header fields")
            return
        ending = head.ending if arrival.trailers is None else ending_of(arrival.trailers)
        if head.fault is not None and not head.ending.said:
            self.end(head.fault, head.message)
        elif not ending.said:
            self.end(Status.INTERNAL, "no grpc-status")
        elif not ending.status and self._reader is not None and self._reader.rest:
            self.end(Status.INTERNAL, "truncated: no whole message")
        else:
            self.end(ending.status, ending.message)

    def cut(self, broken: bool, reason: str) -> None:
        """Hear that the connection is gone, or that the peer broke its rules."""
        self.end(Status.INTERNAL if broken else Status.UNAVAILABLE, reason)

    def end(self, status: Status, message: str) -> None:
        """End the dialogue, once."""
        ended, self._ended = self._ended, None
        link = self._part()
        if link is not None and self.stream.state is not State.CLOSED:
            link.withdraw(self.stream)  # the peer has ended; we have no more to say either
        if ended is not None:
            ended(status, message)

    def _break_off(self, status: Status, message: str) -> None:
        ended = self._ended
        self.cancel()
        if ended is not None:
            ended(status, message)

    def _part(self) -> Link | None:
        link, self.link = self.link, None
        if link is not None:
            link.calls -= 1
            self.stream.context = None
        if self.bucket is not None:
            self.bucket.discard(self)
        return link

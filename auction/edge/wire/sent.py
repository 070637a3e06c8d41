# What every kind of call has in common that a client sends and waits for: where it is, and how it is let go of.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from auction.edge.wire.frames import Code
from auction.edge.wire.streams import Arrival, Stream
from auction.edge.wire.wheel import Expiring

if TYPE_CHECKING:
    from auction.edge.wire.channel import Channel
    from auction.edge.wire.link import Link


class Sent(msgspec.Struct, eq=False):
    """A call of a channel, waiting for a stream or on one. `done` is called once, unless it was cancelled first."""

    channel: Channel
    done: Callable[..., None] | None
    deadline: float | None = None
    block: bytes = b""
    octets: bytes = b""
    bucket: set[Expiring] | None = None
    link: Link | None = None
    stream: Stream | None = None
    retried: bool = False

    def cancel(self) -> None:
        """Withdraw the call; `done` is not called afterwards."""
        if self.done is None:
            return
        self.done = None
        if self.bucket is not None:
            self.bucket.discard(self)
        link, stream = self.link, self.stream
        if link is None or stream is None:
            self.channel.queue.pop(self, None)
            return
        self.link = self.stream = None
        link.calls -= 1
        link.withdraw(stream)

    def let_go(self) -> Callable[..., None] | None:
        """Leave a stream that has ended; give whom to tell, or None where nobody waits."""
        link, stream, done = self.link, self.stream, self.done
        if done is None:
            return None
        self.done = None
        if link is not None:
            link.calls -= 1
            self.link = None
        if stream is not None:
            stream.context = self.stream = None
        if self.bucket is not None:
            self.bucket.discard(self)
        return done

    def once_more(self, arrival: Arrival) -> bool:
        """Have it sent again where the peer never began it; False where it may have, or there is no other way."""
        never_begun = arrival.reset == Code.REFUSED_STREAM and not self.retried
        return never_begun and self.channel.again(self, wait=arrival.sent_away)

    def waited(self) -> None:
        """Hear that it is sent only now, or once more: what it says of the time left is of another moment."""

    def arrived(self, arrival: Arrival) -> None:
        """Take in what came on the stream."""
        raise NotImplementedError

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        raise NotImplementedError

    def cut(self, broken: bool, reason: str) -> None:
        """Hear that the connection is gone, or never was, or that the peer broke its rules."""
        raise NotImplementedError

    def move(self) -> None:
        """Hear that no connection speaks HTTP/2, while the call still waits for one."""
        raise NotImplementedError

# One connection of a channel, and the calls on it.
#
# A call that nobody waits for any more is reset, but only so often a second: peers take fast resets for an attack and
# answer with GOAWAY. Beyond that its stream is left to end by itself, what comes on it is dropped, and it is reset in a
# later second if it has not ended by then. A connection with too many of those is replaced.

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from auction.edge.wire import frames
from auction.edge.wire.control import Event, GoneAway, Over, Settled
from auction.edge.wire.frames import Code
from auction.edge.wire.h2 import Connection
from auction.edge.wire.streams import Arrival, State, Stream
from auction.edge.wire.ticks import Ticking

if TYPE_CHECKING:
    from auction.edge.wire.channel import Channel
    from auction.edge.wire.sent import Sent

# Streams on which nobody waits, still open at a peer that does not answer. A bidder that hangs makes hundreds a second;
# closing its connection ends all of them at once.
MUTED_MAX: Final = 1_000

# How long a peer may take to say its settings, once connected.
GREETING_TICKS: Final = 5

# A connection that was sent away after this long is replaced at once, and calls wait for it; one sent away sooner may
# be sent away again.
SETTLED_TICKS: Final = 2

# A connection with no more stream numbers than this is replaced. A second, until it is looked at again, uses fewer; all
# of them last a day at 10 000 calls a second.
STREAMS_LAST: Final = frames.STREAM_MAX - 1_000_000

# How long a closed connection may take to hand over what was written, until it is dropped.
CLOSING_TICKS: Final = 5

_PING: Final = b"anybody?"


class Link(Ticking):
    """A client's connection. `changed` is called when it becomes ready, is to be replaced, or is lost."""

    def __init__(self, channel: Channel, changed: Callable[[Link], None]) -> None:
        super().__init__(asyncio.get_running_loop())
        self.connection = Connection(True, channel.limits)
        self.ready = False
        self.lost = False
        self.reason = ""
        self.calls = 0
        self._channel = channel
        self._changed = changed
        self.in_order = False
        self.foreign = False
        self._retired = False
        self._resets_left = channel.resets_per_s
        self._muted: dict[int, Stream] = {}
        self._age_ticks = 0
        self._quiet_ticks = 0
        self._asked = False
        self._closing_ticks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        secured = transport.get_extra_info("ssl_object")
        spoken = "h2" if secured is None else secured.selected_alpn_protocol()
        if spoken == "h2":
            self._transport = transport
            transport.write(self.connection.take())
            return
        # RFC 9113 section 3.3: behind TLS HTTP/2 has to be agreed on; who agrees on nothing speaks HTTP/1.1.
        self.reason = f"speaks {spoken or 'no protocol that was offered'}, not h2"
        self.foreign = self.lost = self.connection.over = True
        if self._channel.other is None:
            transport.abort()
        else:
            self._channel.other(transport)

    def data_received(self, data: bytes) -> None:
        self._reading = True
        self._quiet_ticks = 0
        self._asked = False
        events = self.connection.receive(data)
        if self.connection.goaway_last is not None and not self._retired:
            for event in events:  # ahead of what it leaves undone, which may wait for the next connection
                if event.__class__ is GoneAway:
                    self._hear(event)
        for event in events:
            if event.__class__ is Arrival:
                ask = event.stream.context
                if ask is not None:
                    ask.arrived(event)
                    stream = event.stream
                    if event.ended and stream.state is State.HALF_CLOSED_REMOTE and not stream.muted:
                        self.withdraw(stream)  # answered early: what was not sent by now is of no use
            else:
                self._hear(event)
        self._reading = False
        if self._channel.queue:
            self._channel.unqueue()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.ready = False
        self.lost = True
        self.connection.over = True
        self.reason = self.reason or (str(exc) if exc else "connection closed")
        self._changed(self)
        self._fail_all(False, self.reason)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    @property
    def aged(self) -> bool:
        """Whether it lived long enough to think that the next one will, too."""
        return self._age_ticks >= SETTLED_TICKS

    def flush(self) -> None:
        """Send what is due, in one write."""
        transport, connection = self._transport, self.connection
        if transport is None:
            return
        if connection.out and not self._paused:
            transport.write(connection.take())
        if connection.over or (self._retired and not self.calls):
            transport.close()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Settled):
            if not self.ready and not self._retired:
                self.ready = True
                self._changed(self)
        elif isinstance(event, GoneAway):
            if self._retired:
                return  # the first one counts
            self.reason = event.message or f"GOAWAY {event.code.name}"
            self.in_order = event.code is Code.NO_ERROR and self.aged
            self.retire()
        elif isinstance(event, Over):
            self.reason = event.message
            self.ready = False
            self._changed(self)
            self._fail_all(True, event.message)

    def _fail_all(self, broken: bool, reason: str) -> None:
        for stream in list(self.connection.streams.values()):
            ask: Sent | None = stream.context
            if ask is not None:
                ask.cut(broken, reason)

    def retire(self) -> None:
        """Take no further calls; close when those under way have ended."""
        if not self._retired:
            self._retired = True
            self.ready = False
            self._changed(self)
            self.due()

    def withdraw(self, stream: Stream) -> None:
        """Hear no more of a call; reset its stream now, later, or not at all."""
        if self._resets_left > 0:
            self._resets_left -= 1
            stream.context = None
            self.connection.reset(stream, Code.CANCEL)
            self.due()
            if self._channel.queue:
                self._channel.unqueue()  # a stream is free, and the peer may say nothing more
            return
        self.connection.mute(stream)
        self._muted[stream.id] = stream
        if len(self._muted) > MUTED_MAX:
            open_ = self.connection.streams
            self._muted = {number: muted for number, muted in self._muted.items() if number in open_}
            if len(self._muted) > MUTED_MAX // 2:
                self.reason = "too many calls that never end"
                self.retire()
        if self._retired:
            self.due()

    def abort(self, reason: str) -> None:
        """Drop the socket."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say that we go, and close."""
        if self._transport is not None:
            if not self.connection.over:
                self.connection.goaway()
                if not self._paused:
                    self._transport.write(self.connection.take())
                self.connection.over = True
            self._transport.close()

    def tick(self) -> None:
        """Count a second: of silence, and of resets."""
        connection = self.connection
        if self._transport is not None and self._transport.is_closing():
            self._closing_ticks += 1
            if self._closing_ticks > CLOSING_TICKS:
                self.abort("a peer that does not read")
            return
        for event in connection.tick():
            self._hear(event)
        self._resets_left = self._channel.resets_per_s
        for number in list(self._muted)[: 2 * MUTED_MAX]:
            stream = connection.streams.get(number)
            if stream is not None:
                if not self._resets_left:
                    break
                self._resets_left -= 1
                connection.reset(stream, Code.CANCEL)
            del self._muted[number]
        if self._channel.queue:
            self._channel.unqueue()
        self._age_ticks += 1
        self._quiet_ticks += 1
        if connection.last_id > STREAMS_LAST and not self._retired:
            self.reason = "its stream numbers run out"
            self.in_order = True
            self.retire()
        if not connection.settled and self._age_ticks > GREETING_TICKS:
            self.abort("no settings came")
        lives = self._channel.lives
        if self._asked and self._quiet_ticks >= lives.keepalive_timeout_s:
            self.abort("no sign of life")
        elif self.calls and not self._asked and self._quiet_ticks >= lives.keepalive_s:
            self._asked, self._quiet_ticks = True, 0
            connection.ping(_PING)
        self.flush()

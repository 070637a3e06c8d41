# HTTP/2 without a socket (RFC 9113), for both roles: octets in, events out; calls in, octets out. In the manner of h11.
#
# What decides the cost of a call is how often Python is asked to do something, so there is one pass over what was read,
# one event for all that a stream brought in it, and one list of octets for all that is due. Frames that every call has
# are taken in here; the others are in control.py.
#
# Refused: push, in both roles; priorities, which RFC 9113 took back, are checked and then ignored; HTTP/1 and upgrades.

from __future__ import annotations

from typing import Final

from auction.edge.wire import control, frames
from auction.edge.wire.control import Event, Over
from auction.edge.wire.fields import Blocks, Fields, Parts
from auction.edge.wire.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITISED,
    RST_STREAM,
    Code,
    ConnectionFault,
    StreamFault,
)
from auction.edge.wire.limits import Limits
from auction.edge.wire.outbound import Outbound
from auction.edge.wire.spending import Spending
from auction.edge.wire.streams import TABLE, Arrival, Scope, State, Step, Stream

_unpack: Final = frames.HEAD.unpack_from
_pack: Final = frames.HEAD.pack
# Members of enumerations are looked up slowly; these are asked for in every frame.
_IDLE, _OPEN, _LOCAL = State.IDLE, State.OPEN, State.HALF_CLOSED_LOCAL
_HEADERS, _HEADERS_END, _DATA_END = Step.RECV_HEADERS, Step.RECV_HEADERS_END, Step.RECV_DATA_END
_DRAIN: Final = b"drained?"


class Connection:
    """One connection, as client or server. It ends by an `Over` among its events, after which nothing is taken in.

    `streams` are those that are open in some direction. Whoever owns the socket sends what `take` gives, feeds
    `receive`, and calls `tick` once a second.
    """

    def __init__(self, client: bool, limits: Limits | None = None) -> None:
        self.outbound = outbound = Outbound()
        self.send, self.send_data, self.end = outbound.send, outbound.send_data, outbound.end
        self.reset, self.take = outbound.reset, outbound.take
        self.out, self.streams = outbound.out, outbound.streams
        self.client = client
        self.limits = limits or Limits()
        self.over = False
        self.last_id = 0  # the highest stream opened: by us as a client, by the peer as a server
        self.settled = False  # the peer's first SETTINGS have come
        self.goaway_last: int | None = None  # the last stream that the peer of a client promised to answer
        self.draining = False
        self.events: list[Event] = []
        self.recv_window = max(self.limits.connection_window, frames.WINDOW_DEFAULT)
        self.recv_initial = frames.WINDOW_DEFAULT  # until the peer has acknowledged ours
        self._greeting = b"" if client else PREFACE
        self._rest = b""
        self._blocks = Blocks(self.limits.header_list_bytes)
        self._known = self._blocks.known
        self._parts: Parts | None = None  # a header block whose end has not come
        self._skipped: list[tuple[int, int]] = []
        self._last_served: int | None = None
        self._spending = Spending(outbound)
        self.idle_frame = self._spending.idle_frame
        self.out.append(control.greeting(client, self.limits))

    # Octets in.

    def receive(self, data: bytes) -> list[Event]:
        """Take in what was read; give what happened, each stream once."""
        if self.over:
            return []
        events = self.events
        try:
            if self._greeting:
                data = self._greeted(data)
            self._frames(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self.fail(fault.code, str(fault))
        for event in events:
            if event.__class__ is Arrival:
                event.stream.arrival = None
        self.events = []
        return events

    def _greeted(self, data: bytes) -> bytes:
        expected = self._greeting
        if not data.startswith(expected[: len(data)]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected the preface of HTTP/2")
        self._greeting = expected[len(data) :]
        return data[len(expected) :]

    def _frames(self, data: bytes) -> None:
        at, size = 0, len(data)
        streams = self.streams
        while size - at >= 9:
            high, low, kind, flags, stream_id = _unpack(data, at)
            length = high << 16 | low
            if length > frames.FRAME_DEFAULT:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {length} octets, {frames.FRAME_DEFAULT} max")
            start = at + 9
            stop = start + length
            if stop > size:
                break
            at = stop
            if stream_id > frames.STREAM_MAX:
                stream_id -= 0x80000000  # the reserved bit
            if not self.settled and kind != frames.SETTINGS:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "expected SETTINGS first")
            try:
                if self._parts is not None:
                    self._continuation(self._parts, kind, flags, stream_id, data[start:stop])
                elif kind == DATA:
                    stream = streams.get(stream_id)
                    if stream is None or flags & PADDED or not stream.headed or not length:
                        self._rare_data(stream, flags, stream_id, data[start:stop])
                    else:
                        self._data(stream, flags & END_STREAM, data[start:stop], length)
                elif kind == HEADERS:
                    octets = data[start:stop]
                    if flags & (PADDED | PRIORITISED):
                        octets = control.unpadded(flags, stream_id, octets)
                    if flags & END_HEADERS:
                        self._fields(stream_id, flags & END_STREAM, octets)
                    else:
                        self._parts = Parts(stream_id, flags, octets)
                elif kind == CONTINUATION:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
                else:
                    if kind != RST_STREAM or stream_id not in streams:
                        self.idle_frame()  # one that ends a stream is counted as that
                    control.take(self, kind, flags, stream_id, data[start:stop])
            except StreamFault as fault:
                self._refuse(fault.stream_id, fault.code)
        self._rest = data[at:] if at else data

    def _data(self, stream: Stream, end: int, payload: bytes, length: int) -> None:
        """Take in one DATA frame; `length` is what it counts for in the windows, padding and all."""
        self._took(length)
        if stream.state is not _OPEN and stream.state is not _LOCAL:
            raise StreamFault(stream.id, Code.STREAM_CLOSED, "DATA after the end")
        if length > stream.recv_window:
            raise StreamFault(stream.id, Code.FLOW_CONTROL_ERROR, "more than the stream's window")
        stream.recv_window -= length
        if payload:
            self._spending.useful += 1
        if stream.expected >= 0:
            stream.expected -= len(payload)
            if stream.expected < 0 or (end and stream.expected):
                raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "content-length is not what came")
        if not stream.muted:
            arrival = stream.arrival
            if arrival is None:
                arrival = stream.arrival = Arrival(stream)
                self.events.append(arrival)
            if not arrival.data:
                arrival.data = payload
            else:
                if arrival.data.__class__ is bytes:
                    arrival.data = bytearray(arrival.data)
                arrival.data += payload
            if end:
                arrival.ended = True
        if end:
            self.outbound.step(stream, _DATA_END)
        elif stream.recv_window < self.recv_initial >> 1 and not stream.muted:
            more = self.recv_initial - stream.recv_window
            stream.recv_window += more
            self.out.append(frames.window_update(stream.id, more))

    def _took(self, length: int) -> None:
        """Count octets in the connection's window, and open it again at half."""
        if length > self.recv_window:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more than the connection's window")
        self.recv_window -= length
        if self.recv_window < self.limits.connection_window >> 1:
            more = self.limits.connection_window - self.recv_window
            self.recv_window += more
            self.out.append(frames.window_update(0, more))

    def _rare_data(self, stream: Stream | None, flags: int, stream_id: int, payload: bytes) -> None:
        """Take in DATA that is padded or empty, or on a stream that should not have it."""
        length = len(payload)
        if stream_id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on stream 0")
        if flags & PADDED:
            payload = control.unpadded(PADDED, stream_id, payload)
        if not payload and not flags & END_STREAM:
            self.idle_frame()
        if stream is not None and stream.headed:
            self._data(stream, flags & END_STREAM, payload, length)
            return
        self._took(length)
        if stream is not None:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "DATA before HEADERS")
        self.unknown(stream_id, Step.RECV_DATA)

    def _continuation(self, parts: Parts, kind: int, flags: int, stream_id: int, octets: bytes) -> None:
        if kind != CONTINUATION or stream_id != parts.stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected CONTINUATION")
        parts.add(octets)
        if flags & END_HEADERS:
            self._parts = None
            self._fields(stream_id, parts.flags & END_STREAM, bytes(parts.block))

    def _fields(self, stream_id: int, end: int, octets: bytes) -> None:
        """Take in a whole header block."""
        fields = self._known.get(octets)
        if fields is None:
            fields = self._blocks.read(octets)  # whatever becomes of the stream: the table is the connection's
        stream = self.streams.get(stream_id)
        if stream is None:
            self._open(stream_id, end, fields)
            return
        after = TABLE[stream.state][_HEADERS_END if end else _HEADERS]
        if after.__class__ is tuple:
            raise StreamFault(stream_id, Code.STREAM_CLOSED, "HEADERS after the end")
        trailers = stream.headed
        if trailers and not end:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "trailers that do not end the stream")
        if fields.size > self.limits.header_list_bytes:
            raise StreamFault(stream_id, Code.ENHANCE_YOUR_CALM, "a header list over the limit")
        kind = "trailers" if trailers else "response"
        fault = fields.faults.get(kind)
        if fault is None:
            fault = fields.fault(kind)
        if fault:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, fault)
        if not trailers:
            if fields.pairs[0][1][:1] == b"1" and not end:
                self.idle_frame()  # an interim response says nothing to us
                return
            stream.headed = True
            stream.expected = fields.length
        if end and stream.expected > 0:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "content-length is not what came")
        if not stream.muted:
            arrival = stream.arrival
            if arrival is None:
                arrival = stream.arrival = Arrival(stream)
                self.events.append(arrival)
            if trailers:
                arrival.trailers = fields
            else:
                arrival.fields = fields
            if end:
                arrival.ended = True
        if end:
            self.outbound.step(stream, _HEADERS_END)

    def _open(self, stream_id: int, end: int, fields: Fields) -> None:
        """Open a stream for the peer, or say why not."""
        if self.client or not stream_id & 1:
            self.unknown(stream_id, Step.RECV_HEADERS)
            return
        if stream_id <= self.last_id:
            if any(low <= stream_id <= high for low, high in self._skipped):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream below the last one opened")
            self.unknown(stream_id, Step.RECV_HEADERS)
            return
        if stream_id > self.last_id + 2:
            self._skipped = [*self._skipped[-15:], (self.last_id + 1, stream_id - 1)]
        self.last_id = stream_id
        if self._last_served is not None:
            self.outbound.remember(stream_id, True)  # it came too late, and whoever sent it knows from our GOAWAY
            return
        if len(self.streams) >= self.limits.streams:
            raise StreamFault(stream_id, Code.REFUSED_STREAM, "too many streams")
        if fields.size > self.limits.header_list_bytes:
            raise StreamFault(stream_id, Code.ENHANCE_YOUR_CALM, "a header list over the limit")
        fault = fields.faults.get("request")
        if fault is None:
            fault = fields.fault("request")
        if fault:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, fault)
        if end and fields.length > 0:
            raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "content-length is not what came")
        state = TABLE[_IDLE][_HEADERS_END if end else _HEADERS]
        assert isinstance(state, State)
        stream = Stream(stream_id, state, self.outbound.peer_window, self.recv_initial, True, fields.length)
        self.streams[stream_id] = stream
        arrival = stream.arrival = Arrival(stream, fields, b"", None, bool(end))
        self.events.append(arrival)

    # What both rooms of this connection need.

    def unknown(self, stream_id: int, step: Step) -> None:
        """Judge a frame on a stream that is not open: idle, or ended in one way or another."""
        ours = bool(stream_id & 1) is self.client
        opened = self.last_id if ours == self.client else 0
        if stream_id > opened or (not self.client and ours):
            verdict = TABLE[State.IDLE][step]
            if verdict.__class__ is not tuple:
                verdict = (Scope.CONNECTION, Code.PROTOCOL_ERROR)  # only a server is sent HEADERS out of nothing
        else:
            verdict = TABLE[State.CLOSED][step]
            by_us = self.outbound.reset_by_us(stream_id)
            if by_us:
                self.idle_frame()
                return
            if by_us is False and verdict.__class__ is tuple:
                raise StreamFault(stream_id, Code.STREAM_CLOSED, "a frame after RST_STREAM")
        if isinstance(verdict, tuple):
            raise ConnectionFault(verdict[1], f"stream {stream_id} is not open")

    def reset_by_peer(self, stream: Stream, code: int) -> None:
        """End a stream that the peer took back."""
        if not self.client:
            self._spending.reset()
        self.outbound.remember(stream.id, False)
        self.end_stream(stream, code)

    def end_stream(self, stream: Stream, code: int) -> None:
        """Forget a stream, and say that it was reset."""
        self.outbound.drop(stream)
        if stream.muted:
            return
        arrival = stream.arrival
        if arrival is None:
            arrival = stream.arrival = Arrival(stream)
            self.events.append(arrival)
        arrival.reset = code

    def _refuse(self, stream_id: int, code: Code) -> None:
        """Reset a stream for the peer's fault."""
        self.idle_frame()
        self.out.append(frames.rst_stream(stream_id, code))
        self.outbound.remember(stream_id, True)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.end_stream(stream, code)

    def fail(self, code: Code, message: str) -> None:
        """End the connection for the peer's fault: say so, and take nothing in any more."""
        self.over = True
        self.out.append(frames.goaway(self.last_id if not self.client else 0, code, message))
        self.events.append(Over(code, message))

    # Calls, beside those of the outbound half.

    def request(self, block: bytes, data: bytes | None = None) -> Stream:
        """Open a stream; with `data` that is the whole request. `may_open` must hold."""
        assert len(self.streams) < self.outbound.peer_streams
        assert self.goaway_last is None
        stream_id = self.last_id + 2 if self.last_id else 1
        self.last_id = stream_id
        outbound = self.outbound
        window = outbound.peer_window
        if data is not None and outbound.fits(len(data), window, len(block)):
            # All of it at once, as nearly always: OPEN and left again.
            size = len(data)
            outbound.send_window -= size
            outbound.useful += 1
            stream = self.streams[stream_id] = Stream(stream_id, _LOCAL, window - size, self.recv_initial)
            self.out += (
                _pack(0, len(block), HEADERS, END_HEADERS, stream_id),
                block,
                _pack(0, size, DATA, END_STREAM, stream_id),
                data,
            )
            return stream
        stream = self.streams[stream_id] = Stream(stream_id, _OPEN, window, self.recv_initial)
        self.send(stream, block, data)
        return stream

    @property
    def may_open(self) -> bool:
        """Whether the peer lets us open one more stream now."""
        return (
            len(self.streams) < self.outbound.peer_streams
            and self.goaway_last is None
            and not self.over
            and self.last_id < frames.STREAM_MAX - 2
        )

    def mute(self, stream: Stream) -> None:
        """Hear nothing more of a stream, which ends when the peer ends it."""
        stream.muted = True
        stream.context = None

    def ping(self, payload: bytes) -> None:
        """Ask the peer for a sign of life, eight octets; a `Pong` brings them back."""
        self.out.append(frames.ping(payload))

    def goaway(self, code: Code = Code.NO_ERROR, message: str = "") -> None:
        """Say that no further stream is taken, and which was the last."""
        self._last_served = self.last_id
        self.out.append(frames.goaway(self.last_id if not self.client else 0, code, message))

    def drain(self) -> None:
        """Say that we will go; once the peer is known to have heard it, say which stream was the last."""
        if not self.draining:
            self.draining = True
            self.out.append(frames.goaway(frames.STREAM_MAX, Code.NO_ERROR))
            self.ping(_DRAIN)

    def ponged(self, payload: bytes) -> None:
        """Take in an answer to `ping`."""
        if payload == _DRAIN and self.draining and self._last_served is None:
            self.goaway()
        self.events.append(control.Pong(payload))

    @property
    def drained(self) -> bool:
        """Whether the last stream that will be served has ended."""
        return self._last_served is not None and not self.streams

    def tick(self) -> list[Event]:
        """Count a second: give an end of the connection where its peer asks and never reads."""
        if self.over:
            return []
        try:
            self._spending.tick()
        except ConnectionFault as fault:
            self.fail(fault.code, str(fault))
        events, self.events = self.events, []
        return events

# The frames that steer a connection (RFC 9113 sections 6.3 to 6.9), and what a connection tells whoever owns it.

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from auction.edge.wire import frames
from auction.edge.wire.frames import ACK, PADDED, PRIORITISED, Code, ConnectionFault, Setting, StreamFault
from auction.edge.wire.streams import Arrival, Step

if TYPE_CHECKING:
    from auction.edge.wire.h2 import Connection
    from auction.edge.wire.limits import Limits


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The peer has told its settings: the first time, the connection is ready; later, more streams may be allowed."""


class Pong(msgspec.Struct, frozen=True, gc=False):
    """The peer answered a PING."""

    payload: bytes


class GoneAway(msgspec.Struct, frozen=True, gc=False):
    """The peer takes no further streams. Those above the last one it knows have been reset as REFUSED_STREAM."""

    code: Code
    message: str


class Over(msgspec.Struct, frozen=True, gc=False):
    """The peer broke a rule; the connection is over once what is due has been sent."""

    code: Code
    message: str


Event = Arrival | Settled | Pong | GoneAway | Over


def greeting(client: bool, limits: Limits) -> bytes:
    """Write what either side says first: our settings, and the connection's window where it is not the default."""
    ours = {
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
        Setting.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
    }
    ours |= {Setting.ENABLE_PUSH: 0} if client else {Setting.MAX_CONCURRENT_STREAMS: limits.streams}
    octets = (frames.PREFACE if client else b"") + frames.settings(ours)
    more = limits.connection_window - frames.WINDOW_DEFAULT
    return octets + frames.window_update(0, more) if more > 0 else octets


def take(connection: Connection, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    """Take in one frame that is neither DATA nor part of a header block. What is unknown is ignored."""
    frame = _FRAMES.get(kind)
    if frame is not None:
        frame(connection, flags, stream_id, payload)


def depend(stream_id: int, on: bytes) -> None:
    """Refuse a stream that would depend on itself, as RFC 7540 did; nothing else of priorities is heard.

    The connection ends, because its header block will not be read, and the next could not be.
    """
    if int.from_bytes(on, "big") & frames.STREAM_MAX == stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream that depends on itself")


def unpadded(flags: int, stream_id: int, octets: bytes) -> bytes:
    """Take the padding and the priority off a payload (sections 6.1 and 6.2)."""
    start, stop = 0, len(octets)
    if flags & PADDED:
        if not octets:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "padding without a length")
        start, stop = 1, stop - octets[0]
    if flags & PRIORITISED:
        if stop - start < 5:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a priority cut short")
        depend(stream_id, octets[start : start + 4])
        start += 5
    if stop < start:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
    return octets[start:stop]


def _priority(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if stream_id == 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
    if len(payload) != 5:
        raise StreamFault(stream_id, Code.FRAME_SIZE_ERROR, "PRIORITY that is not 5 octets")
    depend(stream_id, payload[:4])


def _rst_stream(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if stream_id == 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on stream 0")
    code = _long(payload, "RST_STREAM")
    stream = connection.streams.get(stream_id)
    if stream is None:
        connection.unknown(stream_id, Step.RECV_RST)
    else:
        connection.reset_by_peer(stream, code)


def _settings(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if stream_id != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
    if flags & ACK:
        if payload:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an acknowledgement with settings in it")
        if not connection.settled:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected SETTINGS first")
        _acknowledged(connection)
        return
    if len(payload) % 6:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS cut short")
    for at in range(0, len(payload), 6):
        number, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
        _set(connection, number, value)
    connection.out.append(frames.head(0, frames.SETTINGS, ACK, 0))
    # Only now: what a wider window lets through may not come before the peer hears that we know of it (section 6.5.3).
    for stream in list(connection.streams.values()):
        if stream.queue and stream.send_window > 0:
            connection.outbound.opened(stream)
    connection.settled = True
    connection.events.append(Settled())


def _acknowledged(connection: Connection) -> None:
    """Our settings count from here on: streams opened before them move by the difference (section 6.9.2)."""
    change = connection.limits.stream_window - connection.recv_initial
    if change:
        connection.recv_initial += change
        initial = connection.recv_initial
        for stream in connection.streams.values():
            stream.recv_window += change
            if stream.recv_window < initial >> 1 and not stream.muted:
                # A smaller window than the default is used up already; no DATA will come to open it again.
                connection.out.append(frames.window_update(stream.id, initial - stream.recv_window))
                stream.recv_window = initial


def _set(connection: Connection, number: int, value: int) -> None:
    if number == Setting.INITIAL_WINDOW_SIZE:
        if value > frames.WINDOW_MAX:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
        _widen(connection, value - connection.outbound.peer_window)
        connection.outbound.peer_window = value
    elif number == Setting.MAX_FRAME_SIZE:
        if not frames.FRAME_DEFAULT <= value <= frames.FRAME_MAX:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
        # A frame longer than the default saves nothing, and holds up the others on its connection.
    elif number == Setting.ENABLE_PUSH:
        if value > 1 or (value and connection.client):
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
    elif number == Setting.MAX_CONCURRENT_STREAMS and connection.client:
        connection.outbound.peer_streams = value
    # HEADER_TABLE_SIZE: we use no table. MAX_HEADER_LIST_SIZE: what we send is known and small. The rest: unknown.


def _widen(connection: Connection, change: int) -> None:
    """Move the windows of open streams with the peer's new initial one; they may become negative."""
    for stream in connection.streams.values():
        if stream.send_window + change > frames.WINDOW_MAX:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window over 2^31-1")
        stream.send_window += change


def _push_promise(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody wanted")


def _ping(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if stream_id != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream")
    if len(payload) != 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING that is not 8 octets")
    if flags & ACK:
        connection.ponged(payload)
    else:
        connection.out.append(frames.ping(payload, ack=True))


def _goaway(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    if stream_id != 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
    if len(payload) < 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY cut short")
    last = int.from_bytes(payload[:4], "big") & frames.STREAM_MAX
    code = frames.code_of(int.from_bytes(payload[4:8], "big"))
    if connection.client:
        connection.goaway_last = last
        for stream in [stream for stream in connection.streams.values() if stream.id > last]:
            connection.end_stream(stream, Code.REFUSED_STREAM)
            if stream.arrival is not None:
                stream.arrival.sent_away = True
    connection.events.append(GoneAway(code, payload[8:264].decode(errors="replace")))


def _window_update(connection: Connection, flags: int, stream_id: int, payload: bytes) -> None:
    increment = _long(payload, "WINDOW_UPDATE") & frames.WINDOW_MAX
    if stream_id == 0:
        if not increment:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        if connection.outbound.send_window + increment > frames.WINDOW_MAX:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window over 2^31-1")
        connection.outbound.send_window += increment
        connection.outbound.opened(None)
        return
    stream = connection.streams.get(stream_id)
    if stream is None:
        connection.unknown(stream_id, Step.RECV_WINDOW_UPDATE)
        return
    if not increment:
        raise StreamFault(stream_id, Code.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
    if stream.send_window + increment > frames.WINDOW_MAX:
        raise StreamFault(stream_id, Code.FLOW_CONTROL_ERROR, "a window over 2^31-1")
    stream.send_window += increment
    connection.outbound.opened(stream)


def _long(payload: bytes, name: str) -> int:
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{name} that is not 4 octets")
    return int.from_bytes(payload, "big")


_FRAMES = {
    frames.PRIORITY: _priority,
    frames.RST_STREAM: _rst_stream,
    frames.SETTINGS: _settings,
    frames.PUSH_PROMISE: _push_promise,
    frames.PING: _ping,
    frames.GOAWAY: _goaway,
    frames.WINDOW_UPDATE: _window_update,
}

# The connection without I/O: what it says and hears, frame by frame, and against another implementation.

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.edge.wire import frames
from auction.edge.wire.control import Event, GoneAway, Over, Pong, Settled
from auction.edge.wire.fields import Blocks, block
from auction.edge.wire.frames import ACK, END_HEADERS, END_STREAM, Code, ConnectionFault, Setting
from auction.edge.wire.h2 import Connection
from auction.edge.wire.limits import Limits
from auction.edge.wire.streams import TABLE, Arrival, State, Step

ASK = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"here")]
REQUEST = block([*ASK, (b"content-type", b"application/grpc"), (b"te", b"trailers")])
ANSWER = block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = block([(b"grpc-status", b"0")])
SMALL = Limits(streams=10, stream_window=1_000, connection_window=3_000)


class Heard:
    """What came on one stream, whatever the reads it came in."""

    def __init__(self) -> None:
        self.fields: Any = None
        self.data = b""
        self.trailers: Any = None
        self.ended = False
        self.reset: int | None = None

    def seen(self) -> tuple[Any, ...]:
        return self.fields, self.data, self.trailers, self.ended, self.reset


def heard(events: list[Event], into: dict[int, Heard] | None = None) -> dict[int, Heard]:
    """Join arrivals by stream."""
    streams = {} if into is None else into
    for event in events:
        if isinstance(event, Arrival):
            one = streams.setdefault(event.stream.id, Heard())
            if event.fields is not None:
                assert one.fields is None
                one.fields = event.fields.pairs
            one.data += event.data
            if event.trailers is not None:
                one.trailers = event.trailers.pairs
            one.ended |= event.ended
            one.reset = event.reset if event.reset is not None else one.reset
    return streams


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


def headers(stream: int, octets: bytes = REQUEST, flags: int = END_HEADERS) -> bytes:
    return frame(frames.HEADERS, octets, flags, stream)


def greeted(limits: Limits | None = None) -> Connection:
    """A server whose client has said its first words."""
    server = Connection(False, limits)
    server.receive(frames.PREFACE + frame(frames.SETTINGS) + frame(frames.SETTINGS, flags=ACK))
    server.take()
    return server


def pair(client: Limits | None = None, server: Limits | None = None) -> tuple[Connection, Connection]:
    one, other = Connection(True, client), Connection(False, server)
    exchange(one, other)
    return one, other


def exchange(one: Connection, other: Connection) -> tuple[dict[int, Heard], dict[int, Heard]]:
    """Carry octets both ways until nothing is due; give what each side heard. Every turn is a second."""
    at_one: dict[int, Heard] = {}
    at_other: dict[int, Heard] = {}
    while one.out or other.out:
        heard(other.receive(one.take()), at_other)
        heard(one.receive(other.take()), at_one)
        one.tick()
        other.tick()
    return at_one, at_other


def over(events: list[Event]) -> Over:
    (end,) = [event for event in events if isinstance(event, Over)]
    return end


def test_a_unary_call_is_one_arrival_on_either_side() -> None:
    client, server = pair()
    client.request(REQUEST, b"question")
    (asked,) = server.receive(client.take())
    assert isinstance(asked, Arrival)
    assert (b"question", True) == (asked.data, asked.ended)
    server.send(asked.stream, ANSWER, b"answer", TRAILERS)
    (answered,) = client.receive(server.take())
    assert isinstance(answered, Arrival)
    assert answered.fields is not None
    assert answered.trailers is not None
    assert (b"answer", True, ((b"grpc-status", b"0"),)) == (answered.data, answered.ended, answered.trailers.pairs)
    assert {} == client.streams == server.streams


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 16_384, 16_385, 70_000, 1_000_000])
def test_bodies_larger_than_any_window_arrive_both_ways(size: int) -> None:
    client, server = pair(SMALL, SMALL)
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    stream = client.request(REQUEST, body)
    _, asked = exchange(client, server)
    assert (body, True) == (asked[stream.id].data, asked[stream.id].ended)
    server.send(server.streams[stream.id], ANSWER, body, TRAILERS)
    answered, _ = exchange(client, server)
    assert (body, True) == (answered[stream.id].data, answered[stream.id].ended)
    assert 0 == client.outbound.queued == server.outbound.queued
    assert {} == client.streams == server.streams


STATES = {state: row for state, row in zip(State, TABLE, strict=True)}


def test_the_table_of_states_has_a_cell_for_every_step() -> None:
    assert {len(Step)} == {len(row) for row in TABLE}
    assert len(State) == len(TABLE)

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


def test_the_table_of_states_has_a_cell_for_every_step() -> None:
    assert {len(Step)} == {len(row) for row in TABLE}
    assert len(State) == len(TABLE)


# Each state as RFC 9113 section 5.1 has it: what may come, what may be said, and what the rest is.
LIFE = {
    State.IDLE: {
        Step.RECV_HEADERS: State.OPEN,
        Step.RECV_HEADERS_END: State.HALF_CLOSED_REMOTE,
        Step.SEND_HEADERS: State.OPEN,
        Step.SEND_HEADERS_END: State.HALF_CLOSED_LOCAL,
    },
    State.OPEN: {
        Step.RECV_HEADERS: State.OPEN,
        Step.RECV_HEADERS_END: State.HALF_CLOSED_REMOTE,
        Step.RECV_DATA: State.OPEN,
        Step.RECV_DATA_END: State.HALF_CLOSED_REMOTE,
        Step.RECV_WINDOW_UPDATE: State.OPEN,
        Step.RECV_RST: State.CLOSED,
        Step.SEND_HEADERS: State.OPEN,
        Step.SEND_HEADERS_END: State.HALF_CLOSED_LOCAL,
        Step.SEND_DATA: State.OPEN,
        Step.SEND_DATA_END: State.HALF_CLOSED_LOCAL,
        Step.SEND_RST: State.CLOSED,
    },
    State.HALF_CLOSED_LOCAL: {
        Step.RECV_HEADERS: State.HALF_CLOSED_LOCAL,
        Step.RECV_HEADERS_END: State.CLOSED,
        Step.RECV_DATA: State.HALF_CLOSED_LOCAL,
        Step.RECV_DATA_END: State.CLOSED,
        Step.RECV_WINDOW_UPDATE: State.HALF_CLOSED_LOCAL,
        Step.RECV_RST: State.CLOSED,
        Step.SEND_RST: State.CLOSED,
    },
    State.HALF_CLOSED_REMOTE: {
        Step.RECV_WINDOW_UPDATE: State.HALF_CLOSED_REMOTE,
        Step.RECV_RST: State.CLOSED,
        Step.SEND_HEADERS: State.HALF_CLOSED_REMOTE,
        Step.SEND_HEADERS_END: State.CLOSED,
        Step.SEND_DATA: State.HALF_CLOSED_REMOTE,
        Step.SEND_DATA_END: State.CLOSED,
        Step.SEND_RST: State.CLOSED,
    },
    State.CLOSED: {
        Step.RECV_WINDOW_UPDATE: State.CLOSED,
        Step.RECV_RST: State.CLOSED,
        Step.SEND_RST: State.CLOSED,
    },
}
FAULTS = {
    State.IDLE: Code.PROTOCOL_ERROR,
    State.HALF_CLOSED_REMOTE: Code.STREAM_CLOSED,
    State.CLOSED: Code.STREAM_CLOSED,
}


@pytest.mark.parametrize("state", State)
def test_the_life_of_a_stream_is_the_table_of_the_standard(state: State) -> None:
    for step, after in zip(Step, TABLE[state], strict=True):
        allowed = LIFE[state].get(step)
        if allowed is not None:
            assert allowed is after, step
        elif step.name.startswith("SEND"):
            assert after is None, step
        else:
            assert isinstance(after, tuple), step
            assert FAULTS[state] is after[1], step


def test_what_is_read_octet_by_octet_or_cut_anywhere_is_heard_alike() -> None:
    client = Connection(True)
    peer = Connection(False)
    client.receive(peer.take())
    for size in (0, 10, 300):
        client.request(REQUEST, b"x" * size)
    client.ping(b"12345678")
    client.reset(next(iter(client.streams.values())))
    octets = client.take()
    octets += frame(frames.HEADERS, b"\3" + REQUEST[:10] + b"\0" * 3, frames.PADDED, 7)
    octets += frame(frames.CONTINUATION, REQUEST[10:], END_HEADERS, 7)
    octets += frame(frames.DATA, b"\2ab\0\0", frames.PADDED | END_STREAM, 7)
    whole = Connection(False)
    expected = {number: one.seen() for number, one in heard(whole.receive(octets)).items()}
    said = whole.take()
    assert {1, 3, 5, 7} == expected.keys()
    for at in range(1, len(octets)):
        cut = Connection(False)
        streams = heard(cut.receive(octets[:at]))
        heard(cut.receive(octets[at:]), streams)
        assert expected == {number: one.seen() for number, one in streams.items()}, at
        assert said == cut.take()
    slow = Connection(False)
    streams = {}
    for octet in octets:
        heard(slow.receive(bytes((octet,))), streams)
    assert expected == {number: one.seen() for number, one in streams.items()}


# What a server is sent once greeted, and the code it ends with; the connection's, or a stream's.
def opened(stream: int = 1) -> bytes:
    return headers(stream)


WINDOW = (10).to_bytes(4, "big")
CONNECTION_FAULTS = {
    "a_frame_over_the_limit": (frame(frames.DATA, b"\0" * 16_385, 0, 1), Code.FRAME_SIZE_ERROR),
    "data_on_stream_0": (frame(frames.DATA, b"x"), Code.PROTOCOL_ERROR),
    "data_on_an_idle_stream": (frame(frames.DATA, b"x", 0, 1), Code.PROTOCOL_ERROR),
    "headers_on_stream_0": (headers(0), Code.PROTOCOL_ERROR),
    "headers_on_an_even_stream": (headers(2), Code.PROTOCOL_ERROR),
    "headers_below_the_last": (opened(5) + headers(3), Code.PROTOCOL_ERROR),
    "headers_after_both_ended": (headers(1, REQUEST, END_HEADERS | END_STREAM), Code.STREAM_CLOSED),
    "a_continuation_of_nothing": (frame(frames.CONTINUATION, b"", END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "a_frame_inside_a_block": (headers(1, REQUEST, 0) + frame(frames.PING, b"\0" * 8), Code.PROTOCOL_ERROR),
    "a_continuation_of_another": (
        headers(1, REQUEST, 0) + frame(frames.CONTINUATION, b"", END_HEADERS, 3),
        Code.PROTOCOL_ERROR,
    ),
    "a_block_that_is_none": (headers(1, b"\xff" * 20), Code.COMPRESSION_ERROR),
    "an_index_beyond_the_table": (headers(1, b"\xbf"), Code.COMPRESSION_ERROR),
    "a_table_over_the_limit": (headers(1, b"\x3f\xe2\x1f" + REQUEST), Code.COMPRESSION_ERROR),
    "padding_over_the_payload": (frame(frames.DATA, b"\5abc", frames.PADDED, 1), Code.PROTOCOL_ERROR),
    "padding_without_a_length": (opened() + frame(frames.DATA, b"", frames.PADDED, 1), Code.FRAME_SIZE_ERROR),
    "headers_with_too_much_padding": (headers(1, b"\xff", END_HEADERS | frames.PADDED), Code.PROTOCOL_ERROR),
    "headers_with_half_a_priority": (headers(1, b"\0", END_HEADERS | frames.PRIORITISED), Code.FRAME_SIZE_ERROR),
    "headers_that_depend_on_themselves": (
        headers(1, b"\0\0\0\1\0" + REQUEST, END_HEADERS | frames.PRIORITISED),
        Code.PROTOCOL_ERROR,
    ),
    "priority_on_stream_0": (frame(frames.PRIORITY, b"\0" * 5), Code.PROTOCOL_ERROR),
    "reset_on_stream_0": (frame(frames.RST_STREAM, WINDOW), Code.PROTOCOL_ERROR),
    "reset_of_an_idle_stream": (frame(frames.RST_STREAM, WINDOW, 0, 1), Code.PROTOCOL_ERROR),
    "reset_cut_short": (opened() + frame(frames.RST_STREAM, b"\0", 0, 1), Code.FRAME_SIZE_ERROR),
    "settings_on_a_stream": (frame(frames.SETTINGS, b"", 0, 1), Code.PROTOCOL_ERROR),
    "settings_cut_short": (frame(frames.SETTINGS, b"\0"), Code.FRAME_SIZE_ERROR),
    "an_acknowledgement_with_settings": (frame(frames.SETTINGS, b"\0" * 6, ACK), Code.FRAME_SIZE_ERROR),
    "a_window_over_the_largest": (
        frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
        Code.FLOW_CONTROL_ERROR,
    ),
    "a_frame_size_below_the_least": (frames.settings({Setting.MAX_FRAME_SIZE: 16_383}), Code.PROTOCOL_ERROR),
    "a_frame_size_over_the_largest": (frames.settings({Setting.MAX_FRAME_SIZE: 2**24}), Code.PROTOCOL_ERROR),
    "push_that_is_neither": (frames.settings({Setting.ENABLE_PUSH: 2}), Code.PROTOCOL_ERROR),
    "a_promise": (opened() + frame(frames.PUSH_PROMISE, b"\0" * 4, END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "a_ping_on_a_stream": (frame(frames.PING, b"\0" * 8, 0, 1), Code.PROTOCOL_ERROR),
    "a_ping_cut_short": (frame(frames.PING, b"\0"), Code.FRAME_SIZE_ERROR),
    "goaway_on_a_stream": (frame(frames.GOAWAY, b"\0" * 8, 0, 1), Code.PROTOCOL_ERROR),
    "goaway_cut_short": (frame(frames.GOAWAY, b"\0" * 7), Code.FRAME_SIZE_ERROR),
    "a_window_that_opens_by_nothing": (frames.window_update(0, 0), Code.PROTOCOL_ERROR),
    "a_window_that_opens_too_far": (frames.window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "a_window_of_an_idle_stream": (frames.window_update(1, 1), Code.PROTOCOL_ERROR),
    "a_window_cut_short": (frame(frames.WINDOW_UPDATE, b"\0"), Code.FRAME_SIZE_ERROR),
    "a_setting_that_opens_windows_too_far": (
        opened() + frames.window_update(1, 2**31 - 65_536) + frames.settings({Setting.INITIAL_WINDOW_SIZE: 65_536}),
        Code.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("name", CONNECTION_FAULTS)
def test_a_broken_rule_of_the_connection_ends_it_with_the_code_of_the_standard(name: str) -> None:
    octets, code = CONNECTION_FAULTS[name]
    server = greeted()
    if name == "headers_after_both_ended":
        (asked,) = server.receive(headers(1, REQUEST, END_HEADERS | END_STREAM))
        assert isinstance(asked, Arrival)
        server.send(asked.stream, ANSWER, b"", TRAILERS)
    end = over(server.receive(octets))
    assert code is end.code
    assert server.take().endswith(frames.goaway(server.last_id, code, end.message))
    assert [] == server.receive(opened(9))
    assert b"" == server.take()


def field(*pairs: tuple[bytes, bytes], without: bytes = b"") -> bytes:
    return headers(1, block([pair for pair in ASK if pair[0] != without] + list(pairs)))


STREAM_FAULTS = {
    "data_after_the_end": (
        headers(1, REQUEST, END_HEADERS | END_STREAM) + frame(frames.DATA, b"x", 0, 1),
        Code.STREAM_CLOSED,
    ),
    "headers_after_the_end": (headers(1, REQUEST, END_HEADERS | END_STREAM) + headers(1), Code.STREAM_CLOSED),
    "data_after_a_reset": (
        opened() + frames.rst_stream(1, Code.CANCEL) + frame(frames.DATA, b"x", 0, 1),
        Code.STREAM_CLOSED,
    ),
    "headers_after_a_reset": (opened() + frames.rst_stream(1, Code.CANCEL) + headers(1), Code.STREAM_CLOSED),
    "trailers_that_do_not_end": (opened() + headers(1, TRAILERS), Code.PROTOCOL_ERROR),
    "trailers_with_a_path": (opened() + headers(1, REQUEST, END_HEADERS | END_STREAM), Code.PROTOCOL_ERROR),
    "a_window_that_opens_by_nothing": (opened() + frames.window_update(1, 0), Code.PROTOCOL_ERROR),
    "a_window_that_opens_too_far": (opened() + frames.window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "a_priority_of_another_size": (opened() + frame(frames.PRIORITY, b"\0", 0, 1), Code.FRAME_SIZE_ERROR),
    "more_than_its_length": (
        field((b"content-length", b"1")) + frame(frames.DATA, b"xy", END_STREAM, 1),
        Code.PROTOCOL_ERROR,
    ),
    "less_than_its_length": (
        field((b"content-length", b"3")) + frame(frames.DATA, b"xy", END_STREAM, 1),
        Code.PROTOCOL_ERROR,
    ),
    "less_than_its_length_by_trailers": (
        field((b"content-length", b"3")) + headers(1, TRAILERS, END_HEADERS | END_STREAM),
        Code.PROTOCOL_ERROR,
    ),
    "nothing_of_its_length": (
        headers(1, block([*ASK, (b"content-length", b"3")]), END_HEADERS | END_STREAM),
        Code.PROTOCOL_ERROR,
    ),
    "two_lengths": (field((b"content-length", b"1"), (b"content-length", b"2")), Code.PROTOCOL_ERROR),
    "no_number_for_a_length": (field((b"content-length", b"-1")), Code.PROTOCOL_ERROR),
    "upper_case": (field((b"X-Key", b"v")), Code.PROTOCOL_ERROR),
    "an_empty_name": (field((b"", b"v")), Code.PROTOCOL_ERROR),
    "a_line_in_a_value": (field((b"x-key", b"a\r\nb: c")), Code.PROTOCOL_ERROR),
    "a_value_with_an_edge": (field((b"x-key", b" v")), Code.PROTOCOL_ERROR),
    "connection": (field((b"connection", b"close")), Code.PROTOCOL_ERROR),
    "another_te": (field((b"te", b"gzip")), Code.PROTOCOL_ERROR),
    "a_pseudo_header_behind": (field((b"x", b"y"), (b":path", b"/")), Code.PROTOCOL_ERROR),
    "a_pseudo_header_twice": (field((b":path", b"/")), Code.PROTOCOL_ERROR),
    "a_pseudo_header_of_answers": (field((b":status", b"200")), Code.PROTOCOL_ERROR),
    "an_unknown_pseudo_header": (field((b":secret", b"1")), Code.PROTOCOL_ERROR),
    "no_method": (field(without=b":method"), Code.PROTOCOL_ERROR),
    "no_path": (field(without=b":path"), Code.PROTOCOL_ERROR),
    "an_empty_path": (field((b":path", b""), without=b":path"), Code.PROTOCOL_ERROR),
    "connect_with_a_path": (field((b":method", b"CONNECT"), without=b":method"), Code.PROTOCOL_ERROR),
    "a_list_over_the_limit": (field(*[(b"x", b"y" * 100)] * 150), Code.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_a_broken_rule_of_a_stream_ends_it_alone(name: str) -> None:
    octets, code = STREAM_FAULTS[name]
    server = greeted()
    events = server.receive(octets)
    assert not server.over, events
    assert frames.rst_stream(1, code) in server.take()
    assert {} == server.streams
    assert [] == [event for event in events if isinstance(event, Arrival) and event.reset is None]
    (other,) = server.receive(headers(3, REQUEST, END_HEADERS | END_STREAM))
    assert isinstance(other, Arrival)
    assert other.ended


def test_more_than_a_window_ends_the_stream_or_the_connection() -> None:
    server = greeted(SMALL)
    server.receive(opened(1) + frame(frames.DATA, b"x" * 1_001, 0, 1))
    assert frames.rst_stream(1, Code.FLOW_CONTROL_ERROR) in server.take()
    server = greeted(Limits(stream_window=100_000, connection_window=frames.WINDOW_DEFAULT))
    server.recv_window = 999
    octets = opened(1) + frame(frames.DATA, b"x" * 1_000, 0, 1)
    assert Code.FLOW_CONTROL_ERROR is over(server.receive(octets)).code


def test_windows_open_again_at_half() -> None:
    server = greeted(Limits(stream_window=10_000, connection_window=100_000))
    server.receive(opened(1) + frame(frames.DATA, b"x" * 5_000, 0, 1))
    assert b"" == server.take()
    server.receive(frame(frames.DATA, b"x", 0, 1))
    assert frames.window_update(1, 5_001) == server.take()
    for stream in range(3, 21, 2):
        server.receive(opened(stream) + frame(frames.DATA, b"x" * 5_000, END_STREAM, stream))
    assert frames.window_update(0, 50_001) == server.take()


IGNORED = {
    "an_unknown_frame": frame(0xFA, b"whatever", 0xFF, 9),
    "an_unknown_setting": frame(frames.SETTINGS, b"\xfa\0" + WINDOW),
    "an_answer_to_no_ping": frame(frames.PING, b"\0" * 8, ACK),
    "priority_of_an_idle_stream": frame(frames.PRIORITY, b"\0\0\0\1\0", 0, 9),
    "goaway": frames.goaway(0, Code.NO_ERROR, "bye"),
    "a_reserved_bit": frame(frames.PING, b"\0" * 8, 0, 0x80000000),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_means_nothing_changes_nothing(name: str) -> None:
    server = greeted()
    assert not [event for event in server.receive(IGNORED[name]) if isinstance(event, Over | Arrival)]
    (asked,) = server.receive(headers(1, REQUEST, END_HEADERS | END_STREAM))
    assert isinstance(asked, Arrival)


def test_late_frames_of_a_stream_that_we_reset_are_no_fault() -> None:
    server = greeted()
    (asked,) = server.receive(opened())
    assert isinstance(asked, Arrival)
    server.reset(asked.stream)
    server.take()
    late = frame(frames.DATA, b"x" * 100, 0, 1) + headers(1, TRAILERS, END_HEADERS | END_STREAM)
    assert [] == server.receive(late + frames.window_update(1, 1) + frames.rst_stream(1, Code.CANCEL))
    assert b"" == server.take()


def test_a_peer_that_greets_wrongly_is_told_so() -> None:
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", frames.PREFACE[:10] + b"x", frames.PREFACE + headers(1)):
        server = Connection(False)
        assert Code.PROTOCOL_ERROR is over(server.receive(words)).code
    client = Connection(True)
    assert Code.PROTOCOL_ERROR is over(client.receive(frame(frames.PING, b"\0" * 8))).code
    assert Code.FRAME_SIZE_ERROR is over(Connection(True).receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")).code


def test_a_new_initial_window_moves_open_streams_below_zero_and_back() -> None:
    client, server = pair()
    client.request(REQUEST, b"q")
    (asked,) = server.receive(client.take())
    assert isinstance(asked, Arrival)
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    server.send(asked.stream, ANSWER, b"x" * 30, TRAILERS)
    assert 20 == server.outbound.queued
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    assert -10 == asked.stream.send_window
    server.receive(frames.window_update(1, 10))
    assert 20 == server.outbound.queued
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}))
    assert 15 == server.outbound.queued
    server.receive(frames.window_update(1, 15))
    assert 0 == server.outbound.queued
    answered, _ = exchange(client, server)
    assert (b"x" * 30, True) == (answered[1].data, answered[1].ended)


@pytest.mark.parametrize("role", ["client", "server"])
def test_what_a_wider_window_lets_out_comes_behind_the_acknowledgement_of_it(role: str) -> None:
    client, server = pair()
    one = client if role == "client" else server
    one.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    client.request(REQUEST, b"q" * 30 if role == "client" else b"q")
    if role == "server":
        (asked,) = server.receive(client.take())
        assert isinstance(asked, Arrival)
        server.send(asked.stream, ANSWER, b"x" * 30, TRAILERS)
    one.take()
    one.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    acknowledged = frame(frames.SETTINGS, b"", ACK)
    let_out = one.take()
    assert let_out.startswith(acknowledged + b"\0\0\x14" + bytes((frames.DATA,)))


def test_a_peer_of_another_make_may_widen_its_windows_in_the_middle_of_a_body() -> None:
    theirs = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    theirs.initiate_connection()
    theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1_000})
    ours = Connection(True)
    ours.receive(theirs.data_to_send())
    theirs.receive_data(ours.take())
    ours.request(REQUEST, b"q" * 1_005)
    theirs.receive_data(ours.take())
    theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2_000})
    ours.receive(theirs.data_to_send())
    events = theirs.receive_data(ours.take())  # raises where there is more than it knows that we may send
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)


def test_an_empty_message_needs_no_window() -> None:
    client, server = pair()
    client.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    client.request(REQUEST, b"")
    _, asked = exchange(client, server)
    assert (b"", True) == (asked[1].data, asked[1].ended)


def test_a_long_answer_does_not_hold_up_a_short_one() -> None:
    client, server = pair()
    client.receive(server.take())
    long, short = client.request(REQUEST, b"l" * 60_000), client.request(REQUEST, b"s")
    _, asked = exchange(client, server)
    assert (60_000, 1) == (len(asked[long.id].data), len(asked[short.id].data))
    server.send(server.streams[long.id], ANSWER, b"l" * 500_000, TRAILERS)
    server.send(server.streams[short.id], ANSWER, b"s", TRAILERS)
    answered: dict[int, Heard] = {}
    while not (short.id in answered and answered[short.id].ended):
        octets = server.take()
        assert octets
        heard(client.receive(octets), answered)
        server.receive(client.take())
    assert not answered[long.id].ended


def test_header_blocks_longer_than_a_frame_are_cut_and_joined() -> None:
    client, server = pair(server=Limits(header_list_bytes=30_000))
    client.request(block([*ASK, *[(b"x-%d" % at, b"y" * 9_000) for at in range(3)]]), b"body")
    octets = client.take()
    assert frame(frames.CONTINUATION, b"", END_HEADERS, 1)[3:] in octets
    (asked,) = server.receive(octets)
    assert isinstance(asked, Arrival)
    assert (b"body", True) == (asked.data, asked.ended)
    server.end(asked.stream, block([(b":status", b"200"), (b"x", b"y" * 20_000)]))
    assert len(server.take()) > 20_000


def test_the_peers_limit_of_streams_is_never_exceeded() -> None:
    client, _ = pair(server=Limits(streams=2))
    client.request(REQUEST, b"1")
    client.request(REQUEST, b"2")
    assert not client.may_open
    with pytest.raises(AssertionError):
        client.request(REQUEST, b"3")


def test_a_stream_above_our_limit_is_refused_and_the_others_go_on() -> None:
    server = greeted(Limits(streams=2))
    events = server.receive(opened(1) + opened(3) + opened(5) + frame(frames.DATA, b"x", END_STREAM, 3))
    assert [1, 3] == [event.stream.id for event in events if isinstance(event, Arrival)]
    assert frames.rst_stream(5, Code.REFUSED_STREAM) in server.take()


def test_stream_numbers_run_out() -> None:
    client, _ = pair()
    client.last_id = frames.STREAM_MAX - 4
    client.request(REQUEST, b"")
    assert not client.may_open


def test_draining_says_all_streams_first_and_the_last_one_after_a_round_trip() -> None:
    client, server = pair()
    client.request(REQUEST)
    server.receive(client.take())
    server.drain()
    server.drain()
    first = server.take()
    assert first.startswith(frames.goaway(frames.STREAM_MAX, Code.NO_ERROR))
    under_way = headers(3, REQUEST, END_HEADERS | END_STREAM)  # it crossed our GOAWAY
    assert isinstance(server.receive(under_way)[0], Arrival)
    client.receive(first)
    assert not client.may_open
    server.receive(client.take())
    assert frames.goaway(3, Code.NO_ERROR) == server.take()
    assert [] == server.receive(headers(5, REQUEST, END_HEADERS | END_STREAM))
    assert not server.drained
    for stream in list(server.streams.values()):
        server.reset(stream)
    assert server.drained


def test_goaway_gives_back_what_the_peer_never_began() -> None:
    client, _ = pair()
    streams = [client.request(REQUEST, b"") for _ in range(3)]
    events = client.receive(frames.goaway(streams[0].id, Code.ENHANCE_YOUR_CALM, "calm"))
    given_back = {event.stream.id: event.reset for event in events if isinstance(event, Arrival)}
    assert {stream.id: Code.REFUSED_STREAM for stream in streams[1:]} == given_back
    assert GoneAway(Code.ENHANCE_YOUR_CALM, "calm") in events
    assert [streams[0].id] == list(client.streams)


def test_an_interim_response_is_not_the_response() -> None:
    client, _ = pair()
    stream = client.request(REQUEST, b"")
    interim = headers(stream.id, block([(b":status", b"103"), (b"link", b"x")]))
    assert [] == client.receive(interim)
    heard_ = heard(client.receive(headers(stream.id, ANSWER) + headers(stream.id, TRAILERS, END_HEADERS | END_STREAM)))
    assert heard_[stream.id].ended


def test_a_client_is_pushed_nothing_and_asked_nothing() -> None:
    for octets in (frame(frames.PUSH_PROMISE, b"\0" * 4, END_HEADERS, 1), headers(2, ANSWER), headers(1, ANSWER)):
        client, _ = pair()
        assert Code.PROTOCOL_ERROR is over(client.receive(octets)).code
    client, _ = pair()
    pushing = frames.settings({Setting.ENABLE_PUSH: 1})
    assert Code.PROTOCOL_ERROR is over(client.receive(pushing)).code


def test_a_muted_stream_is_counted_and_dropped_until_it_ends() -> None:
    client, server = pair(client=SMALL)
    stream = client.request(REQUEST, b"q")
    _, asked = exchange(client, server)
    assert asked[1].ended
    client.mute(stream)
    server.send(server.streams[1], ANSWER, b"x" * 900, TRAILERS)
    answered, _ = exchange(client, server)
    assert {} == answered
    assert {} == client.streams
    other = client.request(REQUEST, b"q")
    exchange(client, server)
    server.send(server.streams[other.id], ANSWER, b"y" * 5_000, TRAILERS)
    answered, _ = exchange(client, server)
    assert b"y" * 5_000 == answered[other.id].data


def test_a_repeated_block_is_decoded_once_until_the_table_changes() -> None:
    blocks = Blocks(16_384)
    first = blocks.read(REQUEST)
    assert first is blocks.read(REQUEST)
    indexing = b"\x40\x01a\x01b"
    assert ((b"a", b"b"),) == blocks.read(indexing).pairs
    assert first is not blocks.read(REQUEST)
    by_index = blocks.read(b"\xbe")
    assert ((b"a", b"b"),) == by_index.pairs
    blocks.read(b"\x40\x01c\x01d")
    assert ((b"c", b"d"),) == blocks.read(b"\xbe").pairs


def test_table_size_updates_without_end_are_refused() -> None:
    blocks = Blocks(16_384)
    assert blocks.read(b"\x20\x3f\xe1\x1f" + REQUEST).pairs
    with pytest.raises(ConnectionFault, match="size updates"):
        blocks.read(b"\x20" * 3 + REQUEST)


def test_settings_come_before_their_acknowledgement() -> None:
    server = Connection(False)
    assert Code.PROTOCOL_ERROR is over(server.receive(frames.PREFACE + frame(frames.SETTINGS, flags=ACK))).code
    assert [] == server.tick()


ANSWER_FAULTS = {
    "data_before_headers": (frame(frames.DATA, b"x", 0, 1), Code.PROTOCOL_ERROR),
    "a_list_over_the_limit": (
        headers(1, block([(b":status", b"200"), *[(b"x", b"y" * 100)] * 150])),
        Code.ENHANCE_YOUR_CALM,
    ),
    "no_status": (headers(1, block([(b"x", b"y")])), Code.PROTOCOL_ERROR),
    "a_status_of_words": (headers(1, block([(b":status", b"two")])), Code.PROTOCOL_ERROR),
    "a_path": (headers(1, block([(b":status", b"200"), (b":path", b"/")])), Code.PROTOCOL_ERROR),
    "an_end_before_its_length": (
        headers(1, block([(b":status", b"200"), (b"content-length", b"3")]), END_HEADERS | END_STREAM),
        Code.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("name", ANSWER_FAULTS)
def test_a_broken_rule_of_an_answer_ends_its_stream_alone(name: str) -> None:
    octets, code = ANSWER_FAULTS[name]
    client, _ = pair()
    stream = client.request(REQUEST, b"")
    other = client.request(REQUEST, b"")
    client.take()
    (arrival,) = client.receive(octets)
    assert isinstance(arrival, Arrival)
    assert code == arrival.reset
    assert frames.rst_stream(stream.id, code) in client.take()
    assert [other.id] == list(client.streams)


def test_a_length_that_holds_is_no_fault() -> None:
    server = greeted()
    octets = field((b"content-length", b"3")) + frame(frames.DATA, b"x", 0, 1)
    (asked,) = server.receive(octets + frame(frames.DATA, b"yz", END_STREAM, 1))
    assert isinstance(asked, Arrival)
    assert (b"xyz", True, None) == (asked.data, asked.ended, asked.reset)


def test_a_muted_stream_may_end_with_its_headers_or_be_reset() -> None:
    client, _ = pair()
    for end in (
        headers(1, ANSWER, END_HEADERS | END_STREAM),
        headers(3, ANSWER) + headers(3, TRAILERS, END_HEADERS | END_STREAM),
        frames.rst_stream(5, Code.CANCEL),
    ):
        client.mute(client.request(REQUEST, b""))
        client.take()
        assert [] == client.receive(end)
        assert {} == client.streams


def test_what_waits_ends_in_order_or_goes_with_its_stream() -> None:
    client, server = pair()
    for body in (b"q", b"r"):
        client.request(REQUEST, body)
    first, second = [event.stream for event in server.receive(client.take()) if isinstance(event, Arrival)]
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1}))
    server.take()
    for stream in (first, second):
        server.send(stream, ANSWER)
        server.send_data(stream, b"abc")
        server.send_data(stream, b"def")
        server.send_data(stream, b"")
    server.end(first, TRAILERS)
    server.reset(second)
    server.reset(second)
    assert 5 == server.outbound.queued
    server.receive(frames.window_update(1, 100))
    assert 0 == server.outbound.queued
    answered = heard(client.receive(server.take()))
    assert (b"abcdef", True) == (answered[1].data, answered[1].ended)
    assert answered[3].reset == Code.CANCEL


def test_a_stream_that_waits_for_the_connection_may_lose_its_own_window() -> None:
    client, server = pair()
    client.request(REQUEST, b"q")
    (asked,) = server.receive(client.take())
    assert isinstance(asked, Arrival)
    server.outbound.send_window = 10
    server.send(asked.stream, ANSWER, b"x" * 30, TRAILERS)
    assert 20 == server.outbound.queued
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    server.receive(frames.window_update(0, 100))
    assert 20 == server.outbound.queued
    server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    assert 0 == server.outbound.queued


def test_trailers_longer_than_a_frame_are_cut_too() -> None:
    client, server = pair(client=Limits(header_list_bytes=30_000))
    client.request(REQUEST, b"q")
    (asked,) = server.receive(client.take())
    assert isinstance(asked, Arrival)
    server.send(asked.stream, ANSWER, b"x", block([(b"grpc-status", b"0"), (b"x", b"y" * 20_000)]))
    answered = heard(client.receive(server.take()))
    assert 20_000 == len(answered[1].trailers[1][1])


# Against another implementation.


class Hyper:
    """python-hyper's h2 at the far end, with what it heard."""

    def __init__(self, client: bool) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()

    def take(self) -> bytes:
        return bytes(self.connection.data_to_send())

    def receive(self, octets: bytes) -> None:
        for event in self.connection.receive_data(octets) if octets else ():
            assert not isinstance(event, h2.events.ConnectionTerminated), event
            if isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                if event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.reset.add(event.stream_id)

    def write(self, stream: int, body: bytes, end: bool) -> bytes:
        """Send as much as the windows allow; give the rest."""
        while body:
            size = min(len(body), self.connection.local_flow_control_window(stream), 16_384)
            if size <= 0:
                return body
            self.connection.send_data(stream, body[:size], end_stream=end and size == len(body))
            body = body[size:]
        return body


def cuts(octets: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(octets[:size])
        octets = octets[size:]
    return [*parts, octets]


calls = st.lists(
    st.tuples(
        st.integers(0, 200_000),  # octets asked
        st.integers(0, 200_000),  # and answered
        st.sampled_from(["answer", "answer", "answer", "cancel", "refuse"]),
    ),
    min_size=1,
    max_size=6,
)
pieces = st.lists(st.integers(0, 5_000), max_size=5)
windows = st.sampled_from([1_000, 65_535, 300_000])


@settings(deadline=None, max_examples=60)
@given(calls, pieces, windows, windows)
def test_a_client_of_another_make_is_served(
    wanted: list[tuple[int, int, str]], sizes: list[int], ours: int, theirs: int
) -> None:
    server = Connection(False, Limits(stream_window=ours, connection_window=4 * ours))
    peer = Hyper(client=True)
    peer.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: theirs})
    asked: dict[int, Heard] = {}

    def turn() -> None:
        for part in cuts(peer.take(), sizes):
            heard(server.receive(part), asked)
        for part in cuts(server.take(), sizes):
            peer.receive(part)
        server.tick()

    turn()
    expected: dict[int, tuple[int, int, str]] = {}
    unsent: dict[int, bytes] = {}
    for request, answer, how in wanted:
        stream = peer.connection.get_next_available_stream_id()
        peer.connection.send_headers(stream, [*ASK, (b"x-%d" % stream, b"v")], end_stream=not request)
        unsent[stream] = b"q" * request
        expected[stream] = (request, answer, how)
    for _ in range(2_000):
        for stream, body in list(unsent.items()):
            unsent[stream] = peer.write(stream, body, True)
        turn()
        if not any(unsent.values()) and not peer.take() and not server.out:
            break
    answered = set()
    for stream, (request, answer, how) in expected.items():
        assert request == len(asked[stream].data)
        assert asked[stream].ended
        if how == "cancel":
            peer.connection.reset_stream(stream)
        elif how == "refuse":
            server.reset(server.streams[stream])
        else:
            server.send(server.streams[stream], ANSWER, b"a" * answer, TRAILERS)
            answered.add(stream)
    for _ in range(2_000):
        turn()
        if not server.streams and not server.out:
            break
    turn()
    assert {} == server.streams
    assert not server.over
    assert answered == peer.ended
    for stream in answered:
        assert expected[stream][1] == len(peer.bodies[stream])
        assert [(b"grpc-status", b"0")] == peer.trailers[stream]


@settings(deadline=None, max_examples=60)
@given(calls, pieces, windows, windows)
def test_a_server_of_another_make_is_asked(
    wanted: list[tuple[int, int, str]], sizes: list[int], ours: int, theirs: int
) -> None:
    client = Connection(True, Limits(stream_window=ours, connection_window=4 * ours))
    peer = Hyper(client=False)
    peer.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: theirs})
    answered: dict[int, Heard] = {}

    def turn() -> None:
        for part in cuts(client.take(), sizes):
            peer.receive(part)
        for part in cuts(peer.take(), sizes):
            heard(client.receive(part), answered)
        client.tick()

    turn()
    expected = {client.request(REQUEST, b"q" * asked).id: (asked, answer, how) for asked, answer, how in wanted}
    for _ in range(2_000):
        turn()
        if len(peer.ended) == len(expected):
            break
    unsent: dict[int, bytes] = {}
    for stream, (asked_, answer, how) in expected.items():
        assert asked_ == len(peer.bodies[stream])
        if how == "cancel":
            client.reset(client.streams[stream])
        elif how == "refuse":
            peer.connection.reset_stream(stream)
        else:
            peer.connection.send_headers(stream, [(b":status", b"200")])
            unsent[stream] = b"a" * answer
    for _ in range(2_000):
        for stream, body in list(unsent.items()):
            unsent[stream] = peer.write(stream, body, False)
            if not unsent[stream]:
                peer.connection.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)
                del unsent[stream]
        turn()
        if not unsent and not client.streams:
            break
    assert {} == client.streams
    assert not client.over
    for stream, (_, answer, how) in expected.items():
        if how == "answer":
            assert (answer, True) == (len(answered[stream].data), answered[stream].ended)
        elif how == "refuse":
            assert answered[stream].reset is not None
        else:
            assert stream not in answered


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.builds(
                frame,
                st.integers(0, 10),
                st.one_of(st.binary(max_size=60), st.just(REQUEST), st.just(TRAILERS)),
                st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]),
                st.integers(0, 9),
            ),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_whatever_is_said_ends_in_events_and_never_in_an_exception(parts: list[bytes], client: bool) -> None:
    connection = Connection(True, SMALL) if client else greeted(SMALL)
    if client:
        connection.receive(frame(frames.SETTINGS))
        connection.request(REQUEST, b"x" * 5_000)
        connection.request(REQUEST)
    events: list[Event] = []
    for part in parts:
        events += connection.receive(part)
        assert len(connection.streams) <= SMALL.streams
        for event in events:
            if isinstance(event, Arrival) and event.ended and event.stream.state is State.HALF_CLOSED_REMOTE:
                connection.send(event.stream, ANSWER, b"y" * 100, TRAILERS)
    for event in events:
        assert isinstance(event, Arrival | Settled | Pong | GoneAway | Over)
    assert len(connection.take()) < 200_000

# What a peer may do to hurt, and what it costs at most. docs/wire.md has a row for each, which names the test here.

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from peers import eventually

from auction.edge.wire import frames, limits, portions, server
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.control import Event, Over
from auction.edge.wire.fields import block
from auction.edge.wire.frames import ACK, END_HEADERS, END_STREAM, Code, Setting
from auction.edge.wire.h2 import Connection
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds, packed
from auction.edge.wire.server import Server
from auction.edge.wire.settings import Lives
from auction.edge.wire.statuses import Status
from auction.edge.wire.streams import Arrival

PATH = "/a.B/C"
ASK = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH.encode()), (b":authority", b"here")]
GRPC = (b"content-type", b"application/grpc")
REQUEST = block([*ASK, GRPC])
GREETING = frames.PREFACE + frames.settings({}) + frames.head(0, frames.SETTINGS, ACK, 0)


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


def headers(stream: int, octets: bytes = REQUEST, flags: int = END_HEADERS) -> bytes:
    return frame(frames.HEADERS, octets, flags, stream)


def greeted(bounds: Limits | None = None) -> Connection:
    connection = Connection(False, bounds)
    connection.receive(GREETING)
    connection.take()
    return connection


def over(events: list[Event]) -> Over | None:
    return next((event for event in events if isinstance(event, Over)), None)


def until_over(connection: Connection, octets: Callable[[int], bytes], times: int) -> tuple[int, Over]:
    """Say something again and again; give how often until the connection was ended."""
    for number in range(times):
        end = over(connection.receive(octets(number)))
        if end is not None:
            return number, end
        connection.take()
    raise AssertionError(f"still there after {times} times")


FLOODS = {
    "ping": lambda number: frame(frames.PING, b"12345678"),
    "settings": lambda number: frames.settings({Setting.INITIAL_WINDOW_SIZE: number % 100}),
    "empty_data": lambda number: frame(frames.DATA, b"", 0, 1),
    "padded_nothing": lambda number: frame(frames.DATA, b"\xff" + b"\0" * 255, frames.PADDED, 1),
    "priority": lambda number: frame(frames.PRIORITY, b"\0\0\0\3\0", 0, 1),
    "window_update": lambda number: frames.window_update(0, 1),
    "unknown": lambda number: frame(0xFA, b"x" * 100, 0, 1),
    "reset_of_the_ended": lambda number: frames.rst_stream(1, 8),
    "faulty_streams": lambda number: headers(2 * number + 3, block([(b":method", b"GET")])),
}


@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_carry_nothing_end_the_connection(name: str) -> None:
    connection = greeted()
    connection.receive(headers(1))
    number, end = until_over(connection, FLOODS[name], 100_000)
    assert Code.ENHANCE_YOUR_CALM is end.code
    assert number <= limits.IDLE_FRAMES_PER_S
    again = greeted()
    again.receive(headers(1))
    for turn in range(5):  # as many in five seconds harm nobody
        for part in range(limits.IDLE_FRAMES_PER_S // 10):
            assert over(again.receive(FLOODS[name](turn * 1_000 + part))) is None
        assert over(again.tick()) is None


def test_a_peer_with_much_to_say_may_steer_more() -> None:
    connection = greeted()
    connection.receive(headers(1))
    for _ in range(5 * limits.IDLE_FRAMES_PER_S):
        assert over(connection.receive(frame(frames.DATA, b"x", 0, 1) + frame(frames.PING, b"12345678"))) is None


def test_rapid_reset_costs_no_call_and_ends_the_connection() -> None:
    connection = greeted(Limits(streams=100))
    begun = 0

    def turn(number: int) -> bytes:
        return headers(2 * number + 1) + frames.rst_stream(2 * number + 1, Code.CANCEL)

    for number in range(limits.RESETS_PER_S):
        events = connection.receive(turn(number))
        begun += sum(1 for event in events if isinstance(event, Arrival) and event.reset is None)
        assert over(events) is None
        assert {} == connection.streams
    assert 0 == begun
    end = over(connection.receive(turn(limits.RESETS_PER_S)))
    assert end is not None
    assert Code.ENHANCE_YOUR_CALM is end.code


def test_a_header_block_without_end_is_ended_by_count_and_by_size() -> None:
    connection = greeted()
    connection.receive(headers(1, b"", 0))
    number, end = until_over(connection, lambda _: frame(frames.CONTINUATION, b"", 0, 1), 1_000)
    assert (limits.CONTINUATIONS_MAX, Code.ENHANCE_YOUR_CALM) == (number, end.code)
    connection = greeted()
    connection.receive(headers(1, b"\0" * 16_384, 0))
    number, end = until_over(connection, lambda _: frame(frames.CONTINUATION, b"\0" * 16_384, 0, 1), 1_000)
    assert (1, Code.ENHANCE_YOUR_CALM) == (number, end.code)


def test_a_header_list_that_unpacks_without_end_is_not_unpacked() -> None:
    # One long field into the table, then a thousand references to it of one octet each: 4 MB from 5 KB.
    bomb = b"\x40\x01a\x7f\x81\x1e" + b"b" * 4_000 + b"\xbe" * 1_000
    connection = greeted()
    end = over(connection.receive(headers(1, REQUEST + bomb)))
    assert end is not None
    assert Code.COMPRESSION_ERROR is end.code


def test_a_table_does_not_grow_over_its_limit() -> None:
    connection = greeted()
    for number in range(500):
        pairs = b"".join(b"\x40\x04%04d\x64" % (number * 10 + at) + b"v" * 100 for at in range(10))
        connection.receive(headers(2 * number + 1, REQUEST + pairs, END_HEADERS | END_STREAM))
        connection.reset(next(iter(connection.streams.values())))
        connection.take()
    table = connection._blocks._table
    assert table._current_size <= frames.TABLE_DEFAULT
    assert len(connection._known) <= limits.BLOCKS_CACHED


def test_decoded_blocks_are_kept_within_bounds() -> None:
    connection = greeted()
    for number in range(2_000):
        octets = block([*ASK, (b"x", b"%d" % number)])
        connection.receive(headers(2 * number + 1, octets, END_HEADERS | END_STREAM))
        connection.reset(next(iter(connection.streams.values())))
        connection.take()
    assert len(connection._known) <= limits.BLOCKS_CACHED


def test_who_never_opens_its_window_is_cut_off_by_size_and_by_time() -> None:
    connection = greeted()
    connection.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    for number in range(200):
        (asked,) = connection.receive(headers(2 * number + 1, REQUEST, END_HEADERS | END_STREAM))
        assert isinstance(asked, Arrival)
        connection.send(asked.stream, REQUEST, b"x" * 100_000, REQUEST)
        assert connection.outbound.queued <= limits.QUEUED_BYTES_MAX
    assert frames.rst_stream(399, Code.ENHANCE_YOUR_CALM) in connection.take()
    seconds = 0
    while over(connection.tick()) is None:
        seconds += 1
    assert limits.STALLED_TICKS_MAX == seconds


def test_windows_opened_octet_by_octet_are_not_worth_their_frames() -> None:
    connection = greeted()
    connection.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    (asked,) = connection.receive(headers(1, REQUEST, END_HEADERS | END_STREAM))
    assert isinstance(asked, Arrival)
    connection.send(asked.stream, REQUEST, b"x" * 100_000, REQUEST)
    number, end = until_over(connection, lambda _: frames.window_update(1, 1), 100_000)
    assert Code.ENHANCE_YOUR_CALM is end.code
    assert number <= limits.IDLE_FRAMES_PER_S + 10


def test_streams_over_the_limit_cost_no_memory() -> None:
    connection = greeted(Limits(streams=10))
    for number in range(500):
        connection.receive(headers(2 * number + 1))
    assert 10 == len(connection.streams)
    assert len(connection.outbound._ended) <= limits.ENDED_REMEMBERED


# On sockets: the bounds that need a server, and the neighbour who notices nothing.


@asynccontextmanager
async def serving(
    handler: Callable[[Call], None] | None = None, lives: Lives | None = None, bounds: Bounds | None = None
) -> AsyncIterator[Server]:
    one = Server({PATH: handler or (lambda call: call.answer(call.body))}, lives=lives, bounds=bounds)
    await one.start()
    try:
        yield one
    finally:
        await one.stop(0)


@asynccontextmanager
async def neighbour(port: int) -> AsyncIterator[Callable[[], object]]:
    """A caller in good standing; calling it makes a call and asserts that it succeeds."""
    channel = Channel("127.0.0.1", port)
    await channel.open()
    method = channel.method(PATH)

    async def call() -> None:
        ended: asyncio.Future[tuple[Status, bytes]] = asyncio.get_running_loop().create_future()
        channel.unary(method, b"hello", lambda status, body, *_: ended.set_result((status, body)))
        assert (Status.OK, b"hello") == await ended

    try:
        await call()
        yield call
        await call()
    finally:
        await channel.close()


async def said(port: int, *parts: bytes) -> bytes:
    """Say all that, and hear the other side until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


HARM = {
    "http_1": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", Code.PROTOCOL_ERROR),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Code.PROTOCOL_ERROR),
    "a_ping_flood": (GREETING + frame(frames.PING, b"12345678") * 2_000, Code.ENHANCE_YOUR_CALM),
    "a_settings_flood": (GREETING + frames.settings({}) * 2_000, Code.ENHANCE_YOUR_CALM),
    "a_continuation_flood": (
        GREETING + headers(1, b"", 0) + frame(frames.CONTINUATION, b"", 0, 1) * 2_000,
        Code.ENHANCE_YOUR_CALM,
    ),
    "rapid_reset": (
        GREETING + b"".join(headers(n) + frames.rst_stream(n, 8) for n in range(1, 4_001, 2)),
        Code.ENHANCE_YOUR_CALM,
    ),
    "a_frame_without_end": (GREETING + frames.head(2**24 - 1, frames.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", HARM)
async def test_harm_ends_the_connection_that_does_it_and_no_other(name: str) -> None:
    octets, code = HARM[name]
    async with serving() as one, neighbour(one.port) as call:
        for _ in range(3):
            heard = await said(one.port, octets)
            assert code.to_bytes(4, "big") in heard[-300:] or not heard
            await call()  # type: ignore[misc]
        assert await eventually(lambda: 1 == len(one.connections))


async def test_a_caller_that_does_not_read_is_not_read_either_and_holds_bounded_memory() -> None:
    async with serving() as one, neighbour(one.port) as call:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1)
        writer.write(GREETING + frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}))
        writer.write(frames.window_update(0, 2**31 - 1 - frames.WINDOW_DEFAULT))
        question = packed(b"x" * 16_000)
        pushed = 0
        stalled = False
        for number in range(1, 20_001, 2):
            octets = headers(number) + frame(frames.DATA, question, END_STREAM, number)
            writer.write(octets)
            pushed += len(octets)
            try:
                async with asyncio.timeout(0.2):
                    await writer.drain()
            except TimeoutError:
                stalled = True
                break
        assert stalled, pushed  # it stopped reading from us, long before all was said
        (served,) = [served for served in one.connections if served._paused]
        held = sum(map(len, served._connection.out)) + served._connection.outbound.queued
        assert held <= server.HELD_BYTES_MAX + limits.QUEUED_BYTES_MAX
        await call()  # type: ignore[misc]
        writer.transport.abort()
        del reader


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GREETING_TICKS", 0)
    async with serving() as one, neighbour(one.port) as call:
        heard = await said(one.port)
        assert heard  # our settings, then the end
        heard = await said(one.port, frames.PREFACE[:20])
        await call()  # type: ignore[misc]


async def test_a_half_open_connection_is_asked_and_dropped() -> None:
    lives = Lives(keepalive_s=1, keepalive_timeout_s=1)
    async with serving(lives=lives) as one, neighbour(one.port) as call:
        heard = await said(one.port, GREETING)  # it answers no PING
        assert frame(frames.PING, b"anybody?") in heard
        await call()  # type: ignore[misc]


async def test_connections_over_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    async with serving() as one, neighbour(one.port) as call:
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GREETING)
        assert await eventually(lambda: 2 == len(one.connections))
        assert b"" == await said(one.port, GREETING)
        await call()  # type: ignore[misc]
        writer.close()


async def test_messages_over_the_limit_are_refused_by_status_before_they_are_read() -> None:
    bounds = Bounds(octets=100_000, ratio=20)
    heard: list[int] = []

    def handler(call: Call) -> None:
        heard.append(len(call.body))
        call.answer(b"hello")

    async with serving(handler, bounds=bounds) as one:
        channel = Channel("127.0.0.1", one.port)
        await channel.open()
        squeezed = channel.method(PATH, gzip=True)
        ended: asyncio.Queue[tuple[Status, str]] = asyncio.Queue()
        for method, body in ((channel.method(PATH), b"x" * 100_001), (squeezed, b"\0" * 5_000_000)):
            channel.unary(method, body, lambda status, body, message, ours: ended.put_nowait((status, message)))
            status, message = await ended.get()
            assert Status.RESOURCE_EXHAUSTED is status
            assert "larger than max" in message
        assert [] == heard
        channel.unary(squeezed, b"fair" * 100, lambda status, body, message, ours: ended.put_nowait((status, message)))
        assert (Status.OK, "") == await ended.get()
        assert [400] == heard
        await channel.close()
    assert len(gzip.compress(b"\0" * 5_000_000)) < 100_000


async def test_large_messages_that_never_end_are_bounded_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNFINISHED_BYTES_MAX", 300_000)
    async with serving() as one, neighbour(one.port) as call:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GREETING)
        begun = packed(b"x" * 100_000)[:16_384]
        for number in range(1, 101, 2):
            writer.write(headers(number) + frame(frames.DATA, begun, 0, number))
        refused = block([(b":status", b"200"), GRPC, (b"grpc-status", b"8")])
        heard = await reader.readuntil(refused)
        assert one.unfinished <= 300_000
        await call()  # type: ignore[misc]
        assert one.unfinished <= 300_000
        assert heard.count(refused) == 1
        writer.close()
        assert await eventually(lambda: 0 == one.unfinished)


async def test_a_message_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MESSAGE_S", 0.05)
    async with serving() as one, neighbour(one.port) as call:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(GREETING + headers(1) + frame(frames.DATA, b"\0\0", 0, 1))
        await reader.readuntil(b"the deadline has passed")
        assert 0 == one.unfinished
        await call()  # type: ignore[misc]
        writer.write(headers(3) + frame(frames.DATA, packed(b"whole")[:3], 0, 3))
        writer.write(frame(frames.DATA, packed(b"whole")[3:], END_STREAM, 3))
        await reader.readuntil(b"whole")
        writer.close()


async def test_a_watcher_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()

    def talk(call: Call) -> None:
        def more(body: bytes) -> None:
            for _ in range(100):
                call.write(b"x" * 100_000)

        call.on_message, call.on_cancel = more, gone.set

    one = Server({PATH: lambda call: call.answer(call.body)}, dialogues={"/a.B/Talk": talk})
    await one.start()
    async with neighbour(one.port):
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        path = block([*ASK[:2], (b":path", b"/a.B/Talk"), GRPC])
        writer.write(GREETING + headers(1, path) + frame(frames.DATA, packed(b"go"), 0, 1))
        await gone.wait()
        writer.close()
    await one.stop(0)


async def test_old_connections_are_drained_and_their_calls_answered() -> None:
    waiting: list[Call] = []
    lives = Lives(age_s=1, grace_s=30)
    async with serving(waiting.append, lives=lives) as one:
        channel = Channel("127.0.0.1", one.port)
        await channel.open()
        first = channel.ready[0]
        ended: asyncio.Queue[Status] = asyncio.Queue()
        channel.unary(channel.method(PATH), b"x", lambda status, *_: ended.put_nowait(status))
        assert await eventually(lambda: bool(channel.ready) and channel.ready[0] is not first)
        waiting.pop(0).answer(b"late")
        assert Status.OK is await ended.get()
        assert await eventually(lambda: first.lost)
        await channel.close()


class Unread(asyncio.Transport):
    """A transport that says whether it is read from."""

    reading, closing = True, False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def flood(calls: int) -> bytes:
    message = packed(b"")
    return GREETING + b"".join(
        headers(number) + frame(frames.DATA, message, END_STREAM, number) for number in range(1, 2 * calls, 2)
    )


async def test_a_caller_of_thousands_in_one_read_is_taken_in_by_portions_and_others_have_their_turn() -> None:
    answered: list[str] = []
    serving = Server({PATH: lambda call: call.answer(b"")})
    many = Server({PATH: lambda call: (answered.append("flood"), call.answer(b""))[1]})
    one, wire = server.Served(many, asyncio.get_running_loop()), Unread()
    another = server.Served(serving, asyncio.get_running_loop())
    serving.methods[PATH] = lambda call: (answered.append("neighbour"), call.answer(b""))[1]
    one.connection_made(wire)
    another.connection_made(Unread())
    octets = flood(3_000)
    assert len(octets) > 2 * portions.PORTION_BYTES_MAX
    one.data_received(octets)
    assert 0 < len(answered) <= portions.PORTION_BYTES_FIRST // 40
    assert not wire.reading
    another.data_received(flood(1))
    assert "neighbour" == answered[-1]
    turns = 0
    while len(answered) < 3_001:
        before = len(answered)
        await asyncio.sleep(0)
        turns += 1
        assert len(answered) - before <= portions.PORTION_BYTES_MAX // 40
        assert turns <= len(octets) // portions.PORTION_BYTES_MIN
    assert wire.reading


async def test_calls_that_cost_more_are_taken_in_fewer_at_a_time() -> None:
    # The clock moves by what its calls cost, and by nothing else.
    clock, cost_s, answered = [0.0], 0.0, []

    def handler(call: Call) -> None:
        clock[0] += cost_s
        answered.append(call)
        call.answer(b"")

    async def most_at_once() -> int:
        one = server.Served(Server({PATH: handler}, now=lambda: clock[0]), asyncio.get_running_loop())
        one.connection_made(Unread())
        answered.clear()
        one.data_received(flood(3_000))
        most = at = 0
        while len(answered) < 3_000:
            at = len(answered)
            await asyncio.sleep(0)
            most = max(most, len(answered) - at)
        return most

    cost_s = portions.PORTION_S / 100
    assert 100 == pytest.approx(await most_at_once(), rel=0.05)
    cost_s = portions.PORTION_S / 40
    assert 40 == pytest.approx(await most_at_once(), rel=0.05)


def test_a_portion_is_as_long_in_time_whatever_is_in_it_between_a_least_and_a_most() -> None:
    made = portions.Portions()
    assert portions.PORTION_BYTES_FIRST == made.size
    made.took(4_096, 2 * portions.PORTION_S)
    assert 2_048 == made.size
    made.took(2_048, 0.0)
    made.took(4_096, portions.PORTION_S / 100)
    assert 8_192 == made.size  # doubled, whatever would fit
    made.took(100, portions.PORTION_S / 2)
    assert 8_192 == made.size  # a short one says nothing
    made.took(4_000, 2 * portions.PORTION_S)
    assert 2_000 == made.size  # unless it was dear
    made.took(2_000, portions.PORTION_S / 9)
    made.took(4_000, portions.PORTION_S / 9)
    made.took(8_000, 8_000 / 8_192 * portions.PORTION_S)
    assert 8_192 == made.size
    made.took(8_192, portions.PORTION_S)
    assert 8_192 == made.size
    made.took(8_192, 2 * portions.PORTION_S)
    assert 4_096 == made.size
    made.took(4_096, 1.0)
    assert portions.PORTION_BYTES_MIN == made.size
    for _ in range(9):
        made.took(made.size, 0.0)
    assert portions.PORTION_BYTES_MAX == made.size


async def test_a_caller_that_reads_a_little_and_stops_again_is_not_read_from() -> None:
    class Full(Unread):
        """A transport that is full again with the first octet."""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            one.pause_writing()

    one, wire = server.Served(Server({PATH: lambda call: None}), asyncio.get_running_loop()), Full()
    one.connection_made(wire)
    assert not wire.reading
    one._connection.out.append(b"due")
    one.resume_writing()
    assert not wire.reading
    one.resume_writing()
    assert wire.reading


async def test_what_was_read_of_a_caller_that_is_gone_is_not_taken_in() -> None:
    answered: list[Call] = []
    wire, one = Unread(), server.Served(Server({PATH: answered.append}), asyncio.get_running_loop())
    one.connection_made(wire)
    one.data_received(flood(3_000))
    before = len(answered)
    wire.closing = True
    for _ in range(5):
        await asyncio.sleep(0)
    assert 0 < before == len(answered)


async def test_octets_behind_a_large_read_are_taken_in_behind_it() -> None:
    answered: list[Call] = []
    wire, one = Unread(), server.Served(Server({PATH: answered.append}), asyncio.get_running_loop())
    one.connection_made(wire)
    octets = flood(3_000)
    one.data_received(octets[:-50])
    one.data_received(octets[-50:])
    for _ in range(len(octets) // portions.PORTION_BYTES_MIN):
        await asyncio.sleep(0)
    assert [*range(1, 6_000, 2)] == [call._stream.id for call in answered if call._stream is not None]

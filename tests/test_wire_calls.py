# gRPC over the wire: statuses, messages, metadata, deadlines, cancellation, connections; and grpcio at the other end.

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import struct
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st
from peers import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    Exchange,
    Peer,
    Script,
    eventually,
    fields,
    frame,
    grpc_peer,
    grpc_reply,
    message,
)

from auction.edge.tls import ClientContexts, Files, ServerContexts
from auction.edge.wire import frames, link, statuses
from auction.edge.wire.asks import Ask
from auction.edge.wire.calls import Call, Handler
from auction.edge.wire.channel import Channel
from auction.edge.wire.frames import Code
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds, Reader, Unreadable, packed, whole
from auction.edge.wire.server import Server
from auction.edge.wire.settings import Lives
from auction.edge.wire.statuses import Status
from auction.edge.wire.wheel import Wheel

PATH, TALK = "/a.B/C", "/a.B/Talk"
TLS = Path(__file__).parent / "data" / "tls"


def echo(call: Call) -> None:
    call.answer(call.body)


def echo_all(call: Call) -> None:
    call.on_message, call.on_end = call.write, call.finish


@asynccontextmanager
async def serving(handler: Handler = echo, **named: Any) -> AsyncIterator[Server]:
    start = {name: named.pop(name) for name in ("context", "port") if name in named}
    server = Server({PATH: handler}, dialogues={TALK: echo_all}, **named)
    await server.start(**start)
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def channel(port: int, host: str = "127.0.0.1", **named: Any) -> AsyncIterator[Channel]:
    one = Channel(host, port, **named)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


Told = tuple[Status, bytes, str, bool]


class Asked:
    """One call and how it ended."""

    def __init__(self, one: Channel, body: bytes = b"hello", timeout_s: float | None = None, **named: Any) -> None:
        self.ended: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        deadline = None if timeout_s is None else one.now() + timeout_s
        method = named.pop("method", None) or one.method(PATH, **named)
        self.ask: Ask = one.unary(method, body, self._end, deadline)

    def _end(self, *told: Any) -> None:
        self.ended.set_result(told)  # raises where it ends twice


async def ask(one: Channel, body: bytes = b"hello", timeout_s: float | None = None, **named: Any) -> Told:
    return await Asked(one, body, timeout_s, **named).ended


# Words.


@pytest.mark.parametrize(
    ("text", "octets"),
    [("plain", b"plain"), ("50 %", b"50 %25"), ("für\n", b"f%C3%BCr%0A"), ("~ ", b"~ "), ("", b"")],
)
def test_messages_for_people_are_percent_encoded_and_read_back(text: str, octets: bytes) -> None:
    assert octets == statuses.quoted(text)
    assert text == statuses.unquoted(octets)


def test_a_message_that_escapes_badly_is_read_as_far_as_it_can_be() -> None:
    assert "100%" == statuses.unquoted(b"100%")
    assert "%zz and \ufffd" == statuses.unquoted(b"%zz and %ff")


@given(st.text(max_size=200))
def test_any_message_for_people_survives(text: str) -> None:
    assert text.encode(errors="replace").decode() == statuses.unquoted(statuses.quoted(text))


@given(st.floats(1e-5, 1e8))
def test_a_timeout_is_told_rounded_down_and_read_back(seconds: float) -> None:
    text = statuses.timeout_text(seconds)
    read = statuses.timeout_s(text)
    assert len(text) <= 9
    assert read is not None
    assert read <= max(seconds, 0.000_1) * (1 + 1e-9)
    assert read >= 0.9 * min(seconds, 99_999_999) or seconds < 0.01


@pytest.mark.parametrize("text", [b"", b"5", b"m", b"-1m", b"1.5S", b"123456789m", b"5x", b" 5m"])
def test_a_timeout_that_is_none_is_not_read(text: bytes) -> None:
    assert statuses.timeout_s(text) is None


def test_every_unit_of_a_timeout_is_read() -> None:
    read = [statuses.timeout_s(text) for text in (b"1H", b"1M", b"1S", b"1m", b"1u", b"1n")]
    assert [3600, 60, 1, 1e-3, 1e-6, 1e-9] == read


@given(st.lists(st.binary(max_size=300), max_size=5), st.lists(st.integers(1, 50), max_size=40), st.booleans())
def test_messages_are_read_however_they_are_packed_and_split(
    bodies: list[bytes], sizes: list[int], squeezed: bool
) -> None:
    octets = b"".join(packed(body, squeezed) for body in bodies)
    reader, read = Reader(Bounds(), b"gzip" if squeezed else b"identity"), []
    for size in sizes:
        read += reader.feed(octets[:size])
        octets = octets[size:]
    read += reader.feed(octets)
    assert bodies == read
    assert 0 == reader.rest


def test_one_whole_message_is_seen_without_a_reader() -> None:
    assert b"body" == whole(packed(b"body")) == whole(bytearray(packed(b"body")))
    assert b"" == whole(packed(b""))
    for other in (b"", packed(b"body")[:-1], packed(b"body") + b"x", packed(b"body", gzip=True)):
        assert whole(other) is None


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\2\0\0\0\1x", Status.INTERNAL),
        (b"\1\0\0\0\1x", Status.INTERNAL),
        (b"\0\0\1\x86\xa1", Status.RESOURCE_EXHAUSTED),
        (packed(gzip.compress(b"\0" * 200_000, mtime=0)).replace(b"\0", b"\1", 1), Status.RESOURCE_EXHAUSTED),
        (packed(gzip.compress(b"x", mtime=0)[:-1]).replace(b"\0", b"\1", 1), Status.INTERNAL),
        (packed(gzip.compress(b"x", mtime=0) + b"more").replace(b"\0", b"\1", 1), Status.INTERNAL),
    ],
)
def test_what_is_no_message_is_refused(octets: bytes, status: Status) -> None:
    with pytest.raises(Unreadable) as refused:
        list(Reader(Bounds(100_000), b"gzip").feed(octets))
    assert status is refused.value.status
    with pytest.raises(Unreadable, match="under grpc-encoding identity"):
        list(Reader(Bounds(), b"identity").feed(packed(b"x", gzip=True)))


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("400", "INTERNAL"),
        ("401", "UNAUTHENTICATED"),
        ("403", "PERMISSION_DENIED"),
        ("404", "UNIMPLEMENTED"),
        ("429", "UNAVAILABLE"),
        ("502", "UNAVAILABLE"),
        ("503", "UNAVAILABLE"),
        ("504", "UNAVAILABLE"),
        ("500", "UNKNOWN"),
        ("302", "UNKNOWN"),
    ],
)
async def test_a_proxys_status_counts_where_there_is_no_other(status: str, word: str) -> None:
    async def page(exchange: Exchange) -> None:
        head = fields(_status=status, content_type="text/html")
        await exchange.write(frame(HEADERS, head, END_HEADERS, exchange.stream))
        await exchange.write(frame(DATA, b"<html>", END_STREAM, exchange.stream))

    async with grpc_peer(page) as peer, channel(peer.port) as one:
        told = await ask(one)
    assert (Status[word], f"HTTP {status}") == (told[0], told[2])


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (Code.NO_ERROR, "INTERNAL"),
        (Code.PROTOCOL_ERROR, "INTERNAL"),
        (Code.REFUSED_STREAM, "UNAVAILABLE"),
        (Code.CANCEL, "CANCELLED"),
        (Code.ENHANCE_YOUR_CALM, "RESOURCE_EXHAUSTED"),
        (Code.INADEQUATE_SECURITY, "PERMISSION_DENIED"),
        (0xFF, "INTERNAL"),
    ],
)
async def test_a_reset_counts_as_the_standard_says(code: int, word: str) -> None:
    async def resets(exchange: Exchange) -> None:
        await exchange.write(frame(RST_STREAM, code.to_bytes(4, "big"), 0, exchange.stream))

    async with grpc_peer(resets) as peer, channel(peer.port) as one:
        assert Status[word] is (await ask(one))[0]


def status_page(**named: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(frame(HEADERS, fields(**named), END_HEADERS | END_STREAM, exchange.stream))

    return script


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            status_page(_status="200", content_type="application/grpc", grpc_status="7", grpc_message="no%21"),
            (7, "no!"),
        ),
        (status_page(_status="200", content_type="application/grpc+proto", grpc_status="0"), (13, "truncated")),
        (status_page(_status="200", content_type="application/grpc"), (13, "no grpc-status")),
        (status_page(_status="200", content_type="application/grpcweb", grpc_status="0"), (13, "truncated")),
        (status_page(_status="200", content_type="text/html"), (2, "expected content-type application/grpc")),
        (status_page(_status="404", content_type="application/grpc", grpc_status="5"), (5, "")),
        (status_page(_status="200", content_type="application/grpc", grpc_status="99"), (2, "")),
        (status_page(_status="200", content_type="application/grpc", grpc_status="x"), (2, "")),
    ],
)
async def test_answers_that_are_nothing_but_a_status(script: Script, expected: tuple[int, str]) -> None:
    async with grpc_peer(script) as peer, channel(peer.port) as one:
        status, body, words, _ = await ask(one)
    assert (expected[0], b"") == (status, body)
    assert words.startswith(expected[1])


async def test_two_messages_are_not_one() -> None:
    async def twice(exchange: Exchange) -> None:
        await exchange.write(grpc_reply(exchange.stream, message(b"a") + message(b"b")))

    async with grpc_peer(twice) as peer, channel(peer.port) as one:
        status, _, words, ours = await ask(one)
        assert (Status.INTERNAL, "expected one message, were more", True) == (status, words, ours)


# Deadlines, cancellation, retries.


async def test_a_deadline_ends_a_call_on_both_sides() -> None:
    cancelled = asyncio.Event()
    left: list[float] = []

    def hang(call: Call) -> None:
        assert call.deadline is not None
        left.append(call.deadline - asyncio.get_running_loop().time())
        call.on_cancel = cancelled.set

    async with serving(hang) as server, channel(server.port) as one:
        status, _, _, ours = await ask(one, timeout_s=0.5)
        assert (Status.DEADLINE_EXCEEDED, True) == (status, ours)
        await cancelled.wait()
        assert await eventually(lambda: not one.ready[0].connection.streams)
    assert 0 < left[0] < 0.501


async def test_a_server_ends_a_call_whose_deadline_passed() -> None:
    def hang(call: Call) -> None: ...

    async with serving(hang) as server, aio.insecure_channel(f"127.0.0.1:{server.port}") as one:
        call = one.unary_unary(PATH)(b"x", metadata=[("grpc-timeout", "20m")])
        with pytest.raises(aio.AioRpcError) as refused:
            await call
    assert grpc.StatusCode.DEADLINE_EXCEEDED is refused.value.code()


async def test_no_time_left_is_not_asked() -> None:
    async with grpc_peer(status_page(_status="200")) as peer, channel(peer.port) as one:
        assert Status.DEADLINE_EXCEEDED is (await ask(one, timeout_s=-1))[0]
        assert [] == peer.requests


async def silent(exchange: Exchange) -> None: ...


async def test_calls_are_taken_back_no_faster_than_peers_bear_and_leave_no_stream() -> None:
    async with grpc_peer(silent) as peer, channel(peer.port, resets_per_s=3) as one:
        asked = [Asked(one) for _ in range(10)]
        assert await eventually(lambda: 10 == len(peer.requests))
        for each in asked:
            each.ask.cancel()
            each.ask.cancel()
        only = one.ready[0]
        assert await eventually(lambda: 7 == len(peer.streams))
        assert 7 == len(only.connection.streams)
        assert 0 == only.calls
        only.tick()
        assert await eventually(lambda: 4 == len(peer.streams))
        only.tick()
        only.tick()
        assert await eventually(lambda: not peer.streams)
        assert {} == only.connection.streams == only._muted
        assert not any(each.ended.done() for each in asked)


async def test_a_late_answer_to_a_muted_call_is_dropped() -> None:
    async def late(exchange: Exchange) -> None:
        if exchange.body == b"first":
            await go.wait()
        await exchange.write(grpc_reply(exchange.stream, message(exchange.body)))

    go = asyncio.Event()
    async with grpc_peer(late) as peer, channel(peer.port, resets_per_s=0) as one:
        first = Asked(one, b"first")
        await peer.asked.wait()
        first.ask.cancel()
        go.set()
        assert b"second" == (await ask(one, b"second"))[1]
        assert await eventually(lambda: not one.ready[0].connection.streams)
        assert not first.ended.done()


async def test_a_connection_full_of_calls_that_never_end_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MUTED_MAX", 20)
    async with grpc_peer(silent) as peer, channel(peer.port, resets_per_s=0) as one:
        first = one.ready[0]
        for _ in range(21):
            asked = Asked(one)
            asked.ask.cancel()
        assert await eventually(lambda: first.lost)
        assert await eventually(lambda: bool(one.ready) and one.ready[0] is not first)
        assert 2 == peer.connections


@asynccontextmanager
async def two_places(first: Script, second: Script) -> AsyncIterator[tuple[Peer, Peer, Channel]]:
    """Two peers behind one name."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(grpc_peer(script)) for script in (first, second)]
        one = Channel("127.0.0.1", 1)

        async def addresses() -> list[tuple[str, int]]:
            return [("127.0.0.1", peer.port) for peer in peers]

        one._addresses = addresses  # type: ignore[method-assign]
        await one.open()
        stack.push_async_callback(one.close)
        yield peers[0], peers[1], one


async def answers(exchange: Exchange) -> None:
    await exchange.write(grpc_reply(exchange.stream, message(exchange.body)))


async def refuses(exchange: Exchange) -> None:
    await exchange.write(frame(RST_STREAM, int(Code.REFUSED_STREAM).to_bytes(4, "big"), 0, exchange.stream))


async def goes_away(exchange: Exchange) -> None:
    await exchange.write(frame(GOAWAY, b"\0" * 8))


async def cancels(exchange: Exchange) -> None:
    await exchange.write(frame(RST_STREAM, int(Code.CANCEL).to_bytes(4, "big"), 0, exchange.stream))


async def test_addresses_of_a_name_are_asked_in_turn() -> None:
    async with two_places(answers, answers) as (first, second, one):
        for _ in range(10):
            assert Status.OK is (await ask(one))[0]
        assert 5 == len(first.requests) == len(second.requests)


@pytest.mark.parametrize("script", [refuses, goes_away])
async def test_what_was_never_begun_is_asked_once_more_elsewhere(script: Script) -> None:
    async with two_places(script, answers) as (first, second, one):
        assert [Status.OK] * 2 == [(await ask(one))[0] for _ in range(2)]
        assert 1 == len(first.requests)
        assert 2 == len(second.requests)
    async with two_places(refuses, refuses) as (first, second, one):
        assert Status.UNAVAILABLE is (await ask(one))[0]
        assert 2 == len(first.requests) + len(second.requests)


def settle(one: Channel) -> None:
    """Let a channel's only connection live so long that it is replaced at once."""
    for _ in range(link.SETTLED_TICKS):
        one.ready[0].tick()


@pytest.mark.parametrize("refuses_first", [False, True])
async def test_what_a_bidder_with_one_connection_never_began_is_asked_on_the_next(refuses_first: bool) -> None:
    async def once(exchange: Exchange) -> None:
        if peer.connections > 1:
            await answers(exchange)
        elif exchange.body == b"b":
            await (refuses(exchange) if refuses_first else asyncio.sleep(0))
            await goes_away(exchange)

    async with grpc_peer(once) as peer, channel(peer.port) as one:
        settle(one)
        asked = [Asked(one, body) for body in (b"a", b"b")]
        told = [(await each.ended)[:2] for each in asked]
        # Of a call that was refused before nobody knows yet that there will be a next connection.
        assert [(Status.OK, b"a"), (Status.UNAVAILABLE, b"") if refuses_first else (Status.OK, b"b")] == told
        assert 2 == peer.connections
        assert 0 == sum(each.calls for each in one.ready)


@pytest.mark.parametrize("listens", [False, True])
async def test_what_waits_for_the_next_connection_ends_when_there_is_none_or_by_its_deadline(listens: bool) -> None:
    with socket.socket() as dumb:
        dumb.bind(("127.0.0.1", 0))
        if listens:
            dumb.listen()  # connected to by the system, and never heard of
        async with grpc_peer(goes_away) as peer, channel(peer.port) as one:
            settle(one)
            (place,) = one._places.values()
            place._address = dumb.getsockname()
            status, _, _, ours = await ask(one, timeout_s=0.1 if listens else None)
            assert (Status.DEADLINE_EXCEEDED if listens else Status.UNAVAILABLE, True) == (status, ours)
            assert not one.queue


async def test_a_bidder_that_goes_away_while_one_more_connection_is_opened_is_asked_on_that() -> None:
    async def script(exchange: Exchange) -> None:
        await (goes_away if peer.connections == 1 else answers)(exchange)

    async with grpc_peer(script) as peer, channel(peer.port) as one:
        settle(one)
        (place,) = one._places.values()
        first = one.ready[0]
        first.connection.outbound.peer_streams = 1
        asked = [Asked(one, body) for body in (b"a", b"b")]
        assert place._attempt is not None  # the second waits, so one more is opened
        first.data_received(frame(GOAWAY, b"\0" * 8))
        assert [(Status.OK, b"a"), (Status.OK, b"b")] == [(await each.ended)[:2] for each in asked]


async def test_whoever_is_told_of_an_end_may_cancel_and_ask() -> None:
    async with grpc_peer(silent) as peer:
        one = Channel("127.0.0.1", peer.port)
        await one.open()
        one.ready[0].connection.outbound.peer_streams = 1
        told: list[str] = []
        method = one.method(PATH)

        def ended(*_: Any) -> None:
            told.append("waited")
            last.cancel()
            one.unary(method, b"", lambda *_: told.append("asked again"))

        one.unary(method, b"", lambda *_: told.append("under way"))
        one.unary(method, b"", ended)
        last = one.unary(method, b"", lambda *_: told.append("cancelled"))
        await one.close()
        assert ["asked again", "under way", "waited"] == sorted(told)


async def test_what_was_begun_is_not_asked_again() -> None:
    async with two_places(cancels, cancels) as (first, second, one):
        assert Status.CANCELLED is (await ask(one))[0]
        assert 1 == len(first.requests) + len(second.requests)


async def test_one_address_that_is_gone_takes_no_calls_with_it() -> None:
    async with two_places(answers, answers) as (first, _, one):
        place = one._places["127.0.0.1", first.port]
        place.links[0].abort("gone")
        assert await eventually(lambda: not place.links)
        assert [Status.OK] * 4 == [(await ask(one))[0] for _ in range(4)]
        assert await eventually(lambda: 2 == len(one.ready))


async def test_addresses_that_leave_a_name_are_left_and_new_ones_are_asked() -> None:
    async with two_places(answers, answers) as (first, second, one):

        async def addresses() -> list[tuple[str, int]]:
            return [("127.0.0.1", second.port)]

        one._addresses = addresses  # type: ignore[method-assign]
        await one._resolve()
        assert await eventually(lambda: 0 == first.open)
        assert 1 == len(one.ready)
        assert Status.OK is (await ask(one))[0]


async def test_calls_at_an_address_that_has_left_its_name_are_reset_in_time_and_end_with_the_channel() -> None:
    async with two_places(silent, silent) as (first, second, one):
        asked = [Asked(one) for _ in range(14)]
        assert await eventually(lambda: 7 == len(first.requests) == len(second.requests))
        left = one._places["127.0.0.1", first.port].links[0]

        async def addresses() -> list[tuple[str, int]]:
            return [("127.0.0.1", second.port)]

        one._addresses = addresses  # type: ignore[method-assign]
        await one._resolve()
        there = [each for each in asked if each.ask.link is left]
        for each in there[1:]:  # more than are reset at once
            each.ask.cancel()
        assert 2 == len(left.connection.streams)
        assert one._ticking is not None
        one._ticking.cancel()
        one._tick()  # a second later
        assert 1 == len(left.connection.streams)
        await one.close()
        assert left.lost
        assert Status.UNAVAILABLE is (await there[0].ended)[0]


async def test_more_calls_than_streams_wait_or_take_a_second_connection() -> None:
    held: list[Call] = []
    async with serving(held.append, limits=Limits(streams=2)) as server, channel(server.port) as one:
        asked = [Asked(one) for _ in range(5)]
        assert await eventually(lambda: 4 == len(held))
        assert 2 == len(server.connections)
        for call in held:  # grows meanwhile
            call.answer(b"done")
            assert await eventually(lambda: 5 == len(held))
        assert {Status.OK} == {(await each.ended)[0] for each in asked}


async def test_a_queued_call_may_be_withdrawn_and_ends_with_its_channel() -> None:
    held: list[Call] = []
    async with serving(held.append, limits=Limits(streams=0)) as server:
        one = Channel("127.0.0.1", server.port)
        await one.open()
        first, second = Asked(one), Asked(one)
        assert 2 == len(one.queue)
        first.ask.cancel()
        assert 1 == len(one.queue)
        await one.close()
        assert Status.UNAVAILABLE is (await second.ended)[0]
        assert not first.ended.done()
        assert Status.UNAVAILABLE is (await ask(one))[0]


async def test_a_connection_whose_stream_numbers_run_out_is_replaced_and_no_call_is_lost() -> None:
    held: list[Call] = []
    async with serving(held.append) as server, channel(server.port) as one:
        first = one.ready[0]
        first.connection.last_id = frames.STREAM_MAX - 10
        before = Asked(one)
        assert await eventually(lambda: 1 == len(held))
        first.tick()
        after = Asked(one)
        assert await eventually(lambda: 2 == len(held))
        assert one.ready[0] is not first
        for call in held:
            call.answer(b"done")
        assert [Status.OK] * 2 == [(await each.ended)[0] for each in (before, after)]
        assert await eventually(lambda: first.lost)


async def test_a_peer_that_gives_no_sign_of_life_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = Lives(keepalive_s=0, keepalive_timeout_s=1)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(frames.SETTINGS))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with channel(server.sockets[0].getsockname()[1], lives=lives) as one:
        asked = Asked(one)
        told = await asked.ended
        assert (Status.UNAVAILABLE, "no sign of life") == (told[0], told[2])
    server.close()


# Deadlines on the wheel.


async def test_the_wheel_calls_what_is_left_never_early() -> None:
    class One:
        def __init__(self, deadline: float) -> None:
            self.deadline = deadline
            self.at: float | None = None

        def expire(self) -> None:
            self.at = loop.time()

    loop = asyncio.get_running_loop()
    wheel = Wheel(loop.time)
    ones = [One(loop.time() + after) for after in (0.03, 0.01, 0.02, 0.01)]
    buckets = [wheel.add(one.deadline, one) for one in ones]
    buckets[2].discard(ones[2])
    assert await eventually(lambda: all(ones[at].at for at in (0, 1, 3)))
    assert ones[2].at is None
    assert all((one.at or one.deadline) >= one.deadline - 0.001 for one in ones)  # the loop's own grain
    wheel.stop()


# grpcio at the other end.


BODIES = [b"", b"x", b"y" * 16_384, b"z" * 70_000, bytes(range(256)) * 15_000]


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_clients_of_grpcio_are_served(compression: grpc.Compression | None) -> None:
    async with serving(bounds=Bounds(ratio=2_000)) as server:
        target = f"127.0.0.1:{server.port}"
        options = [("grpc.max_receive_message_length", -1)]
        async with aio.insecure_channel(target, options=options) as one:
            call = one.unary_unary(PATH)
            for body in BODIES:
                assert body == await call(body, compression=compression, timeout=10)
            talk = one.stream_stream(TALK)(timeout=10)
            for body in BODIES:
                await talk.write(body)
                assert body == await talk.read()
            await talk.done_writing()
            assert aio.EOF is await talk.read()

        def sync() -> list[bytes]:
            with grpc.insecure_channel(target, options=options) as other:
                unary = other.unary_unary(PATH)
                return [unary(body, compression=compression, timeout=10) for body in BODIES]

        assert BODIES == await asyncio.get_running_loop().run_in_executor(None, sync)


class Hosted(grpc.GenericRpcHandler):
    """grpcio's server side of the same two methods."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if details.method == PATH:
            return grpc.unary_unary_rpc_method_handler(self.unary)
        if details.method == TALK:
            return grpc.stream_stream_rpc_method_handler(self.talk)
        return None

    def unary(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if body == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "für %")
        context.set_trailing_metadata(context.invocation_metadata())
        return body

    def talk(self, bodies: Any, context: grpc.ServicerContext) -> Any:
        yield from bodies


@pytest.mark.parametrize("squeezed", [False, True])
async def test_servers_of_grpcio_are_asked(squeezed: bool) -> None:
    compression = grpc.Compression.Gzip if squeezed else None
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(
            pool, [Hosted()], options=[("grpc.max_receive_message_length", -1)], compression=compression
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        async with channel(port, bounds=Bounds(ratio=2_000)) as one:
            for body in BODIES:
                status, heard, words, _ = await ask(one, body, 10, gzip=squeezed)
                assert (Status.OK, body) == (status, heard), words
            status, _, words, _ = await ask(one, b"fail", 10)
            assert (Status.FAILED_PRECONDITION, "für %") == (status, words)
            unknown = one.method("/a.B/Unknown")
            assert Status.UNIMPLEMENTED is (await ask(one, method=unknown))[0]
            heard_: asyncio.Queue[Any] = asyncio.Queue()
            talk = one.dialogue(
                one.method(TALK, gzip=squeezed),
                heard_.put_nowait,
                lambda status, words: heard_.put_nowait(status),
                one.now() + 10,
            )
            assert talk is not None
            for body in BODIES:
                talk.write(body)
                assert body == await heard_.get()
            talk.finish()
            assert Status.OK is await heard_.get()
        server.stop(0).wait()


async def test_metadata_arrives_text_and_binary() -> None:
    calls: list[Call] = []

    def keep(call: Call) -> None:
        calls.append(call)
        call.answer(b"", (("x-told", "für"), ("y-bin", "\0z")))

    sent = (("x-key", "v"), ("x-key", "w"), ("raw-bin", b"\0\xff"))
    async with serving(keep) as server:
        async with channel(server.port) as one:
            asked = Asked(one, metadata=sent)
            await asked.ended
            assert asked.ask.ending is not None
            assert "fÃ¼r" == asked.ask.ending.text["x-told"]  # octets as they came: HTTP names no encoding
            assert b"\0z" == asked.ask.ending.binary["y-bin"]
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as other:
            call = other.unary_unary(PATH)(b"", metadata=sent)
            await call
            trailing = dict(await call.trailing_metadata())
    for call_ in calls:
        assert "v" == call_.metadata["x-key"]
        assert b"\0\xff" == call_.head.binary["raw-bin"]
        assert "raw-bin" not in call_.metadata
    assert b"\0z" == trailing["y-bin"]


async def test_wire_talks_to_wire() -> None:
    async with serving() as server, channel(server.port) as one:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        talk = one.dialogue(one.method(TALK), heard.put_nowait, lambda status, words: heard.put_nowait(status))
        assert talk is not None
        talk.write(b"a")
        talk.write(b"b")
        assert [b"a", b"b"] == [await heard.get(), await heard.get()]
        talk.finish()
        assert Status.OK is await heard.get()
        talk.write(b"too late")
        late = one.dialogue(one.method(TALK), heard.put_nowait, lambda status, words: heard.put_nowait(status), 0)
        assert late is None
        assert Status.DEADLINE_EXCEEDED is await heard.get()
        hung = one.dialogue(one.method(TALK), heard.put_nowait, lambda status, words: heard.put_nowait(status))
        assert hung is not None
        hung.cancel()
        assert 0 == one.ready[0].calls


@pytest.mark.parametrize("ours", ["client", "server", "both"])
async def test_tls_with_certificates_on_both_sides(ours: str) -> None:
    files = Files(TLS / "first.pem", TLS / "first.key", TLS / "authority.pem")
    contexts = ServerContexts(["h2"], files)
    chain, key = (TLS / "first.pem").read_bytes(), (TLS / "first.key").read_bytes()
    trusted = (TLS / "authority.pem").read_bytes()
    async with AsyncExitStack() as stack:
        if ours == "client":
            pool = stack.enter_context(ThreadPoolExecutor(2))
            hosted = grpc.server(pool, [Hosted()])
            credentials = grpc.ssl_server_credentials([(key, chain)], trusted, require_client_auth=True)
            port = hosted.add_secure_port("127.0.0.1:0", credentials)
            hosted.start()
            stack.callback(lambda: hosted.stop(0).wait())
        else:
            port = (await stack.enter_async_context(serving(context=contexts()))).port
        if ours == "server":
            credentials = grpc.ssl_channel_credentials(trusted, key, chain)
            other = await stack.enter_async_context(aio.secure_channel(f"localhost:{port}", credentials))
            assert b"hello" == await other.unary_unary(PATH)(b"hello", timeout=10)
            return
        client = ClientContexts(["h2"], files)
        one = await stack.enter_async_context(channel(port, "localhost", context=client))
        assert (Status.OK, b"hello") == (await ask(one, timeout_s=10))[:2]
        large = b"x" * 1_000_000
        assert large == (await ask(one, large, timeout_s=10))[1]
        bare = ClientContexts(["h2"], Files(authorities=TLS / "authority.pem"))
        stranger = await stack.enter_async_context(channel(port, "localhost", context=bare))
        assert Status.UNAVAILABLE is (await ask(stranger))[0]


async def test_the_name_of_a_certificate_may_be_another_than_the_host() -> None:
    context = ServerContexts(["h2"], Files(TLS / "first.pem", TLS / "first.key"))()
    asked_for: list[str | None] = []
    context.sni_callback = lambda handshake, name, context: asked_for.append(name)
    client = ClientContexts(["h2"], Files(authorities=TLS / "authority.pem"))
    async with serving(context=context) as server:
        async with channel(server.port, context=client, tls_name="localhost") as one:
            assert (Status.OK, b"hello") == (await ask(one, timeout_s=10))[:2]
        async with channel(server.port, context=client, tls_name="another.example") as one:
            status, _, words, _ = await ask(one)
            assert Status.UNAVAILABLE is status
            assert "another.example" in words
    assert ["localhost", "another.example"] == asked_for


async def test_a_peer_that_speaks_another_protocol_behind_tls_is_not_asked() -> None:
    contexts = ServerContexts(["http/1.1"], Files(TLS / "first.pem", TLS / "first.key"))
    async with serving(context=contexts()) as server:
        client = ClientContexts(["h2", "http/1.1"], Files(authorities=TLS / "authority.pem"))
        async with channel(server.port, "localhost", context=client) as one:
            status, _, words, _ = await ask(one)
            assert (Status.UNAVAILABLE, "speaks http/1.1, not h2") == (status, words)


# A server in use.


async def test_what_is_no_grpc_is_told_so_in_http() -> None:
    asked = {
        "GET /page": "200",
        "GET /other": "404",
        "POST /a.B/C": "415",
        "PUT /a.B/C": "405",
    }
    async with serving(pages={"/page": b"a page"}) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(frames.PREFACE + frame(frames.SETTINGS))
        for number, line in enumerate(asked):
            verb, path = line.split(" ")
            head = fields(_method=verb, _scheme="http", _path=path, content_type="text/html")
            writer.write(frame(HEADERS, head, END_HEADERS | END_STREAM, 2 * number + 1))
        client = frames.HEAD
        found: list[str] = []
        while len(found) < len(asked):
            high, low, kind, _, _ = client.unpack(await reader.readexactly(9))
            payload = await reader.readexactly(high << 16 | low)
            if kind == HEADERS:
                found.append({0x88: "200", 0x8D: "404"}.get(payload.lstrip(b"\x20")[0]) or payload[-3:].decode())
        assert list(asked.values()) == found
        writer.close()


async def test_a_method_that_is_not_there_or_an_encoding_that_we_have_not_is_unimplemented() -> None:
    async with serving() as server, channel(server.port) as one:
        status, _, words, _ = await ask(one, method=one.method("/a.B/D"))
        assert (Status.UNIMPLEMENTED, "no method /a.B/D") == (status, words)
        status, _, words, _ = await ask(one, metadata=(("grpc-encoding", "br"),))
        assert Status.UNIMPLEMENTED is status
        assert "was br" in words
        status, _, words, _ = await ask(one, metadata=(("grpc-timeout", "soon"),))
        assert (Status.INTERNAL, "expected grpc-timeout of digits and a unit") == (status, words)


async def test_a_call_without_or_with_two_messages_is_refused() -> None:
    async with serving() as server, channel(server.port) as one:
        method = one.method(PATH)
        for octets, words in (
            (b"", "expected one message, was none"),
            (packed(b"a") + packed(b"b"), "expected one message, were more"),
            (packed(b"abc")[:-1], "a message cut short"),
        ):
            asked = Asked(one, method=method)
            asked.ask.cancel()
            ended: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
            again = Ask(one, lambda *told: ended.set_result(told))  # noqa: B023
            again.block, again.octets = method.block(None), octets
            one._put(again, one.ready[0])
            status, _, told, _ = await ended
            assert (Status.INTERNAL, words) == (status, told)


async def test_stopping_lets_calls_finish_and_cancels_what_outlasts_it() -> None:
    held: list[Call] = []
    server = Server({PATH: held.append})
    await server.start()
    async with channel(server.port) as one:
        first, second = Asked(one), Asked(one)
        assert await eventually(lambda: 2 == len(held))
        cancelled = asyncio.Event()
        held[1].on_cancel = cancelled.set
        stopping = asyncio.create_task(server.stop(0.1))
        assert await eventually(lambda: not one.ready)
        held[0].answer(b"done")
        assert Status.OK is (await first.ended)[0]
        assert Status.UNAVAILABLE is (await second.ended)[0]
        assert cancelled.is_set()
        await stopping
        assert set() == server.connections


async def test_a_call_ends_once_whatever_its_handler_does() -> None:
    def twice(call: Call) -> None:
        call.answer(b"first")
        call.answer(b"second")
        call.refuse(Status.INTERNAL, "third")
        call.write(b"fourth")

    async with serving(twice) as server, channel(server.port) as one:
        assert b"first" == (await ask(one))[1]
        assert b"first" == (await ask(one))[1]


def test_the_prefix_of_a_message_is_a_flag_and_a_length() -> None:
    assert struct.pack(">BI", 0, 3) + b"abc" == packed(b"abc")


async def test_calls_leave_no_cycle_no_stream_and_no_timer() -> None:
    def handler(call: Call) -> None:
        if call.body == b"hang":
            call.on_cancel = lambda: call.metadata  # a cycle that ending the call must break
        else:
            call.answer(call.body)

    async with serving(handler) as server, channel(server.port) as one, two_places(cancels, answers) as (_, _, other):
        method, elsewhere = one.method(PATH), other.method(PATH)

        async def round_of(calls: int) -> None:
            asked = [Asked(one, b"hello", 5, method=method) for _ in range(calls)]
            hung = [Asked(one, b"hang", 0.02, method=method) for _ in range(calls // 5)]
            broken = [Asked(other, b"x", 5, method=elsewhere) for _ in range(calls // 5)]
            withdrawn = [Asked(one, b"hang", 5, method=method) for _ in range(calls // 5)]
            for each in withdrawn:
                each.ask.cancel()
            for each in [*asked, *hung, *broken]:
                await each.ended
            for link_ in one.ready:
                while link_._muted:
                    link_.tick()
            assert await eventually(lambda: not any(served._connection.streams for served in server.connections))

        await round_of(20)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for _ in range(5):
                await round_of(100)
            grown = len(gc.get_objects()) - before
            assert 0 == gc.collect()
        finally:
            gc.enable()
        assert grown < 500
        assert all(not link_.connection.streams for link_ in [*one.ready, *other.ready])
        assert {} == server.wheel._buckets or not any(server.wheel._buckets.values())

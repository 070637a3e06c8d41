# What the wire owes and no other file holds; docs/wire-tests.md has every duty with its test.

from __future__ import annotations

import asyncio
import gc
import re
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from peers import (
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
    http,
    message,
)
from processes import a_request, bidder, bids, exchange
from test_transports import CASES, ON_SOCKETS, carried, connect, listening
from test_wire_calls import PATH, Asked, answers, channel, refuses, serving, silent, two_places
from test_wire_h2 import ASK, REQUEST, SMALL, greeted, headers, pair
from test_wire_h2 import exchange as carry

from auction.core.auction import compile_rules
from auction.core.record import encode_rules
from auction.edge.admission import Admission
from auction.edge.metrics import Metrics
from auction.edge.transports import Done
from auction.edge.transports.memory import ManualClock
from auction.edge.transports.wire import BID_METHOD, WireBidder, WireServer
from auction.edge.wire import channel as channel_module
from auction.edge.wire import frames, places, statuses
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.fields import Blocks, block
from auction.edge.wire.frames import ACK, END_HEADERS, END_STREAM, Code, ConnectionFault, Setting
from auction.edge.wire.h2 import Connection
from auction.edge.wire.limits import Limits
from auction.edge.wire.link import Link
from auction.edge.wire.messages import packed
from auction.edge.wire.server import Served, Server
from auction.edge.wire.statuses import Status
from auction.edge.wire.streams import Arrival
from auction.exchange import Exchange as Auctioneer
from auction.exchange import Market
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from auction.model.rules import BidderRules, Rules
from auction.v1.openrtb_pb2 import BidRequest

ROOT = Path(__file__).resolve().parent.parent


# HTTP/2: what both sides may change while streams are open.


def test_what_a_client_still_sends_follows_a_window_below_zero_and_back() -> None:
    client, server = pair()
    client.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    stream = client.request(REQUEST, b"x" * 30)
    client.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 4}))
    assert -6 == stream.send_window
    client.receive(frames.window_update(stream.id, 6))
    assert 20 == client.outbound.queued
    client.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 24}))
    assert 0 == client.outbound.queued
    _, asked = carry(client, server)
    assert (b"x" * 30, True) == (asked[stream.id].data, asked[stream.id].ended)


@pytest.mark.parametrize(("ours", "within"), [(1_000, 900), (200_000, 199_900)])
def test_our_own_window_counts_for_streams_that_were_opened_before_it_was_acknowledged(ours: int, within: int) -> None:
    server = Connection(False, Limits(stream_window=ours, connection_window=1_000_000))
    server.receive(frames.PREFACE + frame(frames.SETTINGS) + headers(1) + frame(frames.DATA, b"x" * 100, 0, 1))
    server.receive(frame(frames.SETTINGS, flags=ACK))
    assert ours - 100 == within == server.streams[1].recv_window
    server.take()
    cut = [frame(frames.DATA, b"x" * min(16_384, within - at), 0, 1) for at in range(0, within, 16_384)]
    server.streams[1].muted = True  # so that the window is not opened again meanwhile
    assert [] == server.receive(b"".join(cut))
    assert 1 in server.streams
    server.receive(frame(frames.DATA, b"x", 0, 1))
    assert frames.rst_stream(1, Code.FLOW_CONTROL_ERROR) in server.take()


def test_padding_and_a_priority_are_taken_off_and_padding_counts_in_both_windows() -> None:
    server = greeted(SMALL)
    before = server.recv_window
    padded = b"\3" + b"\0\0\0\0\x10" + REQUEST + b"\0" * 3
    octets = headers(1, padded, END_HEADERS | frames.PADDED | frames.PRIORITISED)
    (asked,) = server.receive(octets + frame(frames.DATA, b"\4body" + b"\0" * 4, frames.PADDED, 1))
    assert isinstance(asked, Arrival)
    assert asked.fields is not None
    assert (*ASK, (b"content-type", b"application/grpc"), (b"te", b"trailers")) == asked.fields.pairs
    assert b"body" == asked.data
    assert 9 == before - server.recv_window == SMALL.stream_window - asked.stream.recv_window


def test_a_ping_is_answered_with_its_octets() -> None:
    for connection in (greeted(), pair()[0]):
        connection.receive(frame(frames.PING, b"12345678"))
        assert frame(frames.PING, b"12345678", ACK) == connection.take()


def test_settings_are_acknowledged_each_time() -> None:
    for connection in (greeted(), pair()[0]):
        connection.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 7}) + frames.settings({}))
        assert frame(frames.SETTINGS, b"", ACK) * 2 == connection.take()


def test_a_smaller_table_makes_what_was_remembered_of_a_block_void() -> None:
    blocks = Blocks(16_384)
    blocks.read(b"\x40\x01a\x01b")
    assert ((b"a", b"b"),) == blocks.read(b"\xbe").pairs
    blocks.read(b"\x20" + REQUEST)
    with pytest.raises(ConnectionFault):
        blocks.read(b"\xbe")


async def test_fewer_streams_than_are_open_are_kept_to_as_calls_end() -> None:
    held: list[Call] = []
    async with serving(held.append, limits=Limits(streams=3)) as server, channel(server.port) as one:
        first = one.ready[0]
        asked = [Asked(one) for _ in range(3)]
        assert await eventually(lambda: 3 == len(held))
        first.data_received(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
        asked += [Asked(one) for _ in range(2)]
        assert [] == [each for each in asked if each.ended.done()]
        assert len(first.connection.streams) == 3
        held[0].answer(b"")
        await asked[0].ended
        held[1].answer(b"")
        await asked[1].ended
        assert len(first.connection.streams) == 1  # the third alone: none of those that wait came in its place
        for call in held:  # grows meanwhile
            call.answer(b"")
            assert await eventually(lambda: 5 == len(held))
        assert [Status.OK] * 5 == [(await each.ended)[0] for each in asked]


async def test_a_client_that_says_goaway_is_answered_to_the_end() -> None:
    held: list[Call] = []
    async with serving(held.append) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        path = block([*ASK[:2], (b":path", PATH.encode()), (b"content-type", b"application/grpc")])
        asked = headers(1, path) + frame(frames.DATA, packed(b"q"), END_STREAM, 1)
        writer.write(frames.PREFACE + frame(frames.SETTINGS) + asked + frames.goaway(0, Code.NO_ERROR))
        assert await eventually(lambda: 1 == len(held))
        held[0].answer(b"the answer")
        await reader.readuntil(b"the answer")
        writer.close()


# gRPC.


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", ""),
        (b"%", "%"),
        (b"%4", "%4"),
        (b"%%41", "%A"),
        (b"%4\xc3\xbc", "%4ü"),
        (b"%C3", "\ufffd"),
        (b"\xff", "\ufffd"),
        (b"a%00b", "a\0b"),
        (b"%2541", "%41"),
    ],
)
def test_a_message_with_any_octets_in_it_is_read(octets: bytes, text: str) -> None:
    assert text == statuses.unquoted(octets)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (b"AP8", b"\0\xff"),
        (b"AP8=", b"\0\xff"),
        (b"", b""),
        (b"AP8,eA==", b"\0\xff"),
        (b"AP8=,eA", b"\0\xff"),
        (b"AP8==", None),
        (b"A", None),
        (b"A\xff8=", None),
        (b"AP 8", None),
    ],
)
def test_binary_metadata_is_read_padded_or_not_the_first_of_several_and_else_left_out(
    value: bytes, octets: bytes | None
) -> None:
    listed = Blocks(16_384).read(block([(b"x-bin", value), (b"y", b"z")]))
    text, binary = statuses.read(listed)
    assert {"y": "z"} == text
    assert octets == binary.get("x-bin")


@pytest.mark.parametrize("text", ["99999999H", "99999999M", "00000001H", "99999999S", "99999999999n"])
async def test_a_timeout_of_any_length_is_kept_or_refused_and_breaks_nothing(text: str) -> None:
    held: list[Call] = []
    async with serving(held.append) as server, channel(server.port) as one:
        asked = Asked(one, metadata=(("grpc-timeout", text),))
        if len(text) > 9:
            assert Status.INTERNAL is (await asked.ended)[0]
            return
        assert await eventually(lambda: 1 == len(held))
        deadline, now = held[0].deadline, asyncio.get_running_loop().time()
        assert deadline is not None
        assert deadline > now + 3_599
        brief = Asked(one, metadata=(("grpc-timeout", "1n"),))
        assert Status.DEADLINE_EXCEEDED is (await brief.ended)[0]  # the timer was not left set for the far one
        held[0].answer(b"")
        assert Status.OK is (await asked.ended)[0]


async def test_five_calls_a_second_are_taken_back_unless_told() -> None:
    async with grpc_peer(silent) as peer, channel(peer.port) as one:
        asked = [Asked(one) for _ in range(12)]
        assert await eventually(lambda: 12 == len(peer.requests))
        for each in asked:
            each.ask.cancel()
        assert await eventually(lambda: 7 == len(peer.streams))
        one.ready[0].tick()
        assert await eventually(lambda: 2 == len(peer.streams))


def test_a_method_writes_its_header_block_once_for_every_timeout() -> None:
    method = Channel("127.0.0.1", 1).method(PATH, (("x", "y"),))
    assert method.block(0.2504) is method.block(0.2509)
    assert method.block(None) is method.block(None)
    assert method.block(0.250) != method.block(0.251)


# One read is one pass, one tick is one write, and nothing is made for a call.


class Writes(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


def calls(count: int, body: bytes = b"hello") -> bytes:
    """Write a greeting and calls, each in two frames."""
    path = block([*ASK[:2], (b":path", PATH.encode()), (b"content-type", b"application/grpc")])
    said = frames.PREFACE + frame(frames.SETTINGS)
    for number in range(1, 2 * count, 2):
        said += headers(number, path) + frame(frames.DATA, packed(body), END_STREAM, number)
    return said


async def test_calls_of_one_read_are_answered_in_one_write_and_make_no_task_and_no_timer() -> None:
    server, wire = Server({PATH: lambda call: call.answer(call.body)}), Writes()
    served = Served(server, asyncio.get_running_loop())
    served.connection_made(wire)
    wire.written.clear()
    tasks = asyncio.all_tasks()
    served.data_received(calls(50))
    (octets,) = wire.written
    assert 50 == octets.count(packed(b"hello"))
    assert tasks == asyncio.all_tasks()
    assert server.wheel._armed is None


async def test_answers_of_one_tick_leave_in_one_write() -> None:
    held: list[Call] = []
    wire = Writes()
    served = Served(Server({PATH: held.append}), asyncio.get_running_loop())
    served.connection_made(wire)
    served.data_received(calls(50))
    wire.written.clear()
    for call in held:
        call.answer(call.body)
    assert [] == wire.written
    await asyncio.sleep(0)
    (octets,) = wire.written
    assert 50 == octets.count(packed(b"hello"))


async def test_calls_to_a_bidder_in_one_tick_leave_in_one_write_and_share_one_timer() -> None:
    one = Channel("127.0.0.1", 1)
    link, wire = Link(one, lambda link: None), Writes()
    link.connection_made(wire)
    link.data_received(frame(frames.SETTINGS))
    one.ready, one._closed = [link], False
    wire.written.clear()
    method, ended = one.method(PATH), []
    tasks = asyncio.all_tasks()
    for at in range(50):  # all within five milliseconds
        one.unary(method, b"hello", lambda *told: ended.append(told[0]), one.now() + 3600 + at / 10_000)
    assert [] == wire.written
    await asyncio.sleep(0)
    (octets,) = wire.written
    assert 50 == octets.count(packed(b"hello"))
    assert tasks == asyncio.all_tasks()
    assert len(one._wheel._due) <= 2  # buckets; a timer is armed for the next of them alone
    link.data_received(b"".join(grpc_reply(number, message(b"")) for number in range(1, 100, 2)))
    assert [Status.OK] * 50 == ended
    await one.close()


# Connections to bidders.


async def test_who_is_gone_is_tried_less_often_each_time_and_never_in_step_with_others() -> None:
    async with grpc_peer(silent) as gone:
        port = gone.port
    async with channel(port) as one:
        (place,) = one._places.values()
        loop = asyncio.get_running_loop()

        def wait(failures: int) -> float:
            assert place._retry is not None
            place._retry.cancel()
            place._retry, place._failures = None, failures
            place._again()
            assert place._retry is not None
            return place._retry.when() - loop.time()

        for failures in range(30):
            expected = min(places.RECONNECT_MAX_S, places.RECONNECT_FIRST_S * 1.6**failures)
            assert 0.79 * expected < wait(failures) < 1.21 * expected
        assert len({round(wait(20), 2) for _ in range(50)}) > 5


async def test_a_name_is_asked_for_again_in_time_and_when_a_connection_was_lost() -> None:
    asked = 0

    def tick(one: Channel) -> None:
        assert one._ticking is not None
        one._ticking.cancel()
        one._tick()

    async with two_places(answers, answers) as (_, _, one):
        listed = one._addresses

        async def addresses() -> list[tuple[str, int]]:
            nonlocal asked
            asked += 1
            return await listed()

        one._addresses = addresses  # type: ignore[method-assign]
        one._ticks = 1
        for _ in range(channel_module.RESOLVE_TICKS - 1):
            tick(one)
        assert one._resolving is None
        tick(one)
        assert await eventually(lambda: 1 == asked and one._resolving is None)
        tick(one)
        assert one._resolving is None
        one.ready[0].abort("gone")
        assert await eventually(lambda: 1 == len(one.ready))
        tick(one)
        assert await eventually(lambda: 2 == asked)


async def test_what_was_never_begun_is_not_asked_again_when_no_time_is_left() -> None:
    late, ended = asyncio.Event(), asyncio.Queue[Status]()

    async def refuses_late(exchange: Exchange) -> None:
        await late.wait()
        await refuses(exchange)

    for moved, expected, asked in ((0.0, Status.OK, 2), (10.0, Status.UNAVAILABLE, 1)):
        late.clear()
        async with two_places(refuses_late, answers) as (first, second, one):
            now = 0.0
            one.now = lambda: now  # noqa: B023
            while not first.requests:
                one.unary(one.method(PATH), b"x", lambda status, *_: ended.put_nowait(status), 5.0, enforce=False)
                assert await eventually(lambda: bool(first.requests or second.requests))
                if second.requests:
                    assert Status.OK is await ended.get()
                    second.requests.clear()
            now = moved
            late.set()
            assert expected is await ended.get()
            assert asked == len(first.requests) + len(second.requests)


# A reply comes exactly once.


def both(*octets: Callable[[Exchange], bytes]) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(b"".join(each(exchange) for each in octets))

    return script


def good(exchange: Exchange) -> bytes:
    return grpc_reply(exchange.stream, message(b"reply"))


def taken_back(exchange: Exchange) -> bytes:
    return frame(RST_STREAM, b"\0\0\0\x08", 0, exchange.stream)


def refused(exchange: Exchange) -> bytes:
    return frame(RST_STREAM, b"\0\0\0\x07", 0, exchange.stream)


def gone_away(exchange: Exchange) -> bytes:
    return frame(GOAWAY, b"\0" * 8)


def broken(exchange: Exchange) -> bytes:
    return frame(HEADERS, b"\xff" * 20, END_HEADERS, exchange.stream)


def begun(exchange: Exchange) -> bytes:
    return frame(HEADERS, fields(_status="200", content_type="application/grpc"), END_HEADERS, exchange.stream)


def plain(exchange: Exchange) -> bytes:
    return http(b"reply")


OURS = ("wire", "http", "h2")  # https is http again, behind the same choice as h2
TWICE = {
    **{f"{name} over {on}": (on, carried(on, case)) for on in OURS for name, case in CASES.items()},
    "answers and answers again": ("wire", both(good, good)),
    "answers and takes it back": ("wire", both(good, taken_back)),
    "answers and breaks off": ("wire", both(good, broken)),
    "takes back and goes away": ("wire", both(taken_back, gone_away)),
    "refuses and goes away": ("wire", both(refused, gone_away, refused)),
    "goes away and refuses": ("wire", both(gone_away, refused, broken)),
    "begins and goes away": ("wire", both(begun, gone_away)),
    "begins and breaks off": ("wire", both(begun, broken)),
    "answers twice over http": ("http", both(plain, plain)),
}


@pytest.mark.parametrize("name", [name for name, (_, script) in TWICE.items() if script is not None])
async def test_a_bidder_is_heard_exactly_once_whatever_it_does_and_whatever_comes_after(name: str) -> None:
    transport, script = TWICE[name]
    told: list[ReplyStatus] = []
    async with bidding(transport, script) as (peer, bid):
        cancel = bid(lambda status, body, detail: told.append(status))
        if name.startswith("hangs"):
            await peer.asked.wait()
        else:
            assert await eventually(lambda: bool(told))
            cancel()
            cancel()
    assert 1 == len(told)  # what hung was told when its connection closed


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_bidder_that_was_withdrawn_is_not_heard_at_all(transport: str) -> None:
    told: list[ReplyStatus] = []
    async with bidding(transport, carried(transport, CASES["hangs"])) as (peer, bid):
        cancel = bid(lambda status, body, detail: told.append(status))
        await peer.asked.wait()
        cancel()
        cancel()
    assert [] == told


@asynccontextmanager
async def bidding(transport: str, script: Script) -> AsyncIterator[tuple[Peer, Callable[[Done], Callable[[], None]]]]:
    clock = ManualClock()
    async with listening(transport, script) as peer:
        connection = connect(transport, peer.port, clock)
        await connection.open()
        invitation = Invitation("bidder", Encoding.PROTOBUF, b"request", (0,))
        try:
            yield peer, lambda done: connection.bid(invitation, Deadline(clock.monotonic() + 1000), done)
        finally:
            await connection.close()


# Memory.


def asked_for() -> BidRequest:
    made = BidRequest(id="r1", tmax=40)
    made.imp.add(id="1").banner.format.add(w=300, h=250)
    return made


async def test_auctions_over_the_wire_leave_no_cycle_for_the_collector() -> None:
    def hang(call: Call) -> None: ...

    rules = Rules(bidders=tuple(BidderRules(name) for name in ("sound", "silent", "refusing", "hung")))
    handlers: list[Callable[[Call], None]] = [
        lambda call: call.answer(b""),
        lambda call: call.answer(b"\xff"),
        lambda call: call.refuse(Status.UNAVAILABLE, "no"),
        hang,
    ]
    clock, ways = SystemClock(), {}
    async with AsyncExitStack() as stack:
        for rule, handler in zip(rules.bidders, handlers, strict=True):
            bidder_ = Server({BID_METHOD: handler})
            await bidder_.start()
            stack.push_async_callback(bidder_.stop, 0)
            ways[rule.name] = WireBidder(f"127.0.0.1:{bidder_.port}", clock)
            await ways[rule.name].open()
            stack.push_async_callback(ways[rule.name].close)
        market = Market(compile_rules(rules), encode_rules(rules, "test"), dict(ways))
        auctioneer = Auctioneer(
            market, clock=clock, admission=Admission(100), metrics=Metrics(list(ways)), journal=None
        )
        path = "/auction.v1.Exchange/Auction"
        server = WireServer(auctioneer, [path], clock)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        one = await stack.enter_async_context(channel(server.port))
        method = one.method(path)
        body = asked_for().SerializeToString()

        async def hold(auctions: int) -> None:
            ended: list[Status] = []
            for _ in range(auctions):
                one.unary(method, body, lambda status, *told: ended.append(status), one.now() + 20)
            assert await eventually(lambda: auctions == len(ended))
            assert {Status.OK} == set(ended)

        await hold(10)
        gc.collect()
        gc.disable()
        try:
            for _ in range(4):
                await hold(50)
            assert 0 == gc.collect()
        finally:
            gc.enable()


@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_serves_has_frozen_what_starting_left(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, gc, os, pathlib\n"
        f"tell = lambda: pathlib.Path({str(seen)!r}, str(os.getpid())).write_text(str(gc.get_freeze_count()))\n"
        "atexit.register(tell)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with bidder(bids(2.0)) as dsp:
        settings: dict[str, Any] = {"bidders": [{"name": "dsp-a", "http": dsp.url}], "log": {}}
        with exchange(tmp_path, {**settings, "server": {"workers": workers, "notice_ms": 0}}) as served:
            assert 200 == served.post(a_request()).status
            assert 0 == served.end()
    frozen = [int(file.read_text()) for file in seen.iterdir()]
    assert workers == len([count for count in frozen if count > 10_000]), frozen


# What is no longer needed.


def test_nothing_that_runs_needs_aiohttp() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    assert "httptools" in named
    assert "aiohttp" not in named
    assert "aiohttp==" not in (ROOT / "requirements.lock").read_text()
    imported = [
        str(file)
        for folder in ("auction", "bidders")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) aiohttp", file.read_text(), re.MULTILINE)
    ]
    assert [] == imported


# What can be read.


def test_no_file_of_the_wire_is_much_longer_than_400_lines() -> None:
    # "Much" is an eighth: a connection without I/O is one subject, and no number of lines is worth tearing it apart.
    lengths = {str(file): len(file.read_text().splitlines()) for file in (ROOT / "auction/edge/wire").rglob("*.py")}
    assert len(lengths) > 20
    assert {} == {name: length for name, length in lengths.items() if length > 450}

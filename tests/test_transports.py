# Bidders over every transport: one table of what a bidder may do, one status for each, whatever carries the bytes.
#
# Peers are real sockets on loopback that misbehave on cue (peers.py). Lateness is told by a manual clock that is moved
# once the peer has the request, so nothing here depends on how fast the machine is.

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
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
    descriptors,
    eventually,
    fields,
    frame,
    grpc_peer,
    grpc_reply,
    h2_peer,
    h2_reply,
    http,
    http_peer,
    message,
)

from auction.edge.fanout import solicit
from auction.edge.tls import ClientContexts, Files, ServerContexts
from auction.edge.transports import BidderConnection, Cancel, Done, Incoming, Outgoing, settled
from auction.edge.transports.grpcio import BID_METHOD, GrpcBidder, GrpcServer
from auction.edge.transports.http import CONNECTIONS_WARM, HttpBidder
from auction.edge.transports.memory import HANG, ManualClock, MemoryBidder, Play
from auction.edge.transports.wire import WireBidder, WireServer
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline
from auction.model.reply import Reply, ReplyStatus

BID, NO_BID, TIMED_OUT = ReplyStatus.BID, ReplyStatus.NO_BID, ReplyStatus.TIMED_OUT
UNREACHABLE, INVALID = ReplyStatus.UNREACHABLE, ReplyStatus.INVALID

REPLY_BYTES = 20_000
AUCTION_S = 1000.0  # on the manual clock: nothing is late before it is moved
TLS = Path(__file__).parent / "data" / "tls"
TRUSTING = ClientContexts(["h2", "http/1.1"], Files(authorities=TLS / "authority.pem"))
SPEAKING = {
    protocol: ServerContexts([protocol], Files(TLS / "first.pem", TLS / "first.key"))()
    for protocol in ("h2", "http/1.1")
}
BOMB = gzip.compress(b"\0" * 5_000_000)


class Act(msgspec.Struct, frozen=True):
    """A play in memory; HANG is one."""

    play: Play | None


class Case(msgspec.Struct, frozen=True):
    """What a bidder does, per transport that can carry it, and what that counts as."""

    status: ReplyStatus
    http: Script | None = None
    grpc: Script | None = None
    memory: Act | None = None
    h2: Script | None = None


def writes(octets: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(octets)

    return script


def replies(octets: bytes | None, **named: Any) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(grpc_reply(exchange.stream, octets, **named))

    return script


def says(body: bytes | None, cut: int = 0, **named: str) -> Script:
    """Answer in plain HTTP/2, but for the last `cut` octets."""

    async def script(exchange: Exchange) -> None:
        octets = h2_reply(exchange.stream, body, **named)
        await exchange.write(octets[: len(octets) - cut])

    return script


def breaks_off(code: int, head: bool = False) -> Script:
    async def script(exchange: Exchange) -> None:
        if head:
            block = fields(_status="200", content_type="application/json")
            await exchange.write(frame(HEADERS, block, END_HEADERS, exchange.stream))
        await exchange.write(frame(RST_STREAM, code.to_bytes(4, "big"), 0, exchange.stream))

    return script


def then(script: Script, end: Callable[[Exchange], None]) -> Script:
    async def both(exchange: Exchange) -> None:
        await script(exchange)
        end(exchange)

    return both


async def silence(exchange: Exchange) -> None: ...
async def finishes(exchange: Exchange) -> None:
    exchange.finish()


async def resets(exchange: Exchange) -> None:
    exchange.reset()


async def trickles_http(exchange: Exchange) -> None:
    await exchange.trickle(http(b"reply"))


async def trickles_grpc(exchange: Exchange) -> None:
    await exchange.trickle(grpc_reply(exchange.stream, message(b"reply")))


async def trickles_h2(exchange: Exchange) -> None:
    head = frame(HEADERS, fields(_status="200", content_type="application/json"), END_HEADERS, exchange.stream)
    pieces = [frame(DATA, b"re", 0, exchange.stream), frame(DATA, b"p", 0, exchange.stream)]
    await exchange.trickle(head + b"".join(pieces) + frame(DATA, b"ly", END_STREAM, exchange.stream))


async def announces(exchange: Exchange) -> None:
    hint = frame(HEADERS, fields(_status="103", link="</a>"), END_HEADERS, exchange.stream)
    await exchange.write(hint + h2_reply(exchange.stream, b"reply"))


async def dies_in_a_word(exchange: Exchange) -> None:
    await exchange.write(grpc_reply(exchange.stream, message(b"reply"))[:-60])
    exchange.reset()


SSH = b"SSH-2.0-nobody\r\n\r\n"
GZIP = "content-encoding: gzip\r\n"
CASES = {
    "answers": Case(BID, writes(http(b"reply")), replies(message(b"reply")), Act(Play(b"reply")), h2=says(b"reply")),
    "answers_octet_by_octet": Case(BID, trickles_http, trickles_grpc, h2=trickles_h2),
    "answers_compressed": Case(
        BID,
        writes(http(gzip.compress(b"reply"), more=GZIP)),
        None,
        h2=says(gzip.compress(b"reply"), content_encoding="gzip"),
    ),
    "answers_in_chunks": Case(
        BID,
        writes(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2\r\nre\r\n3\r\nply\r\n0\r\n\r\n"
        ),
    ),
    "names_a_charset": Case(
        BID,
        writes(http(b"reply", content_type="Application/JSON; charset=utf-8")),
        h2=says(b"reply", content_type="Application/JSON; charset=utf-8"),
    ),
    "has_nothing_to_offer": Case(
        NO_BID,
        writes(b"HTTP/1.1 204 No Content\r\n\r\n"),
        replies(message(b"")),
        Act(Play()),
        h2=says(None, status="204"),
    ),
    "answers_an_empty_body": Case(NO_BID, writes(http(b"")), replies(message(b"")), h2=says(b"")),
    "hangs": Case(TIMED_OUT, silence, silence, Act(HANG), h2=silence),
    "answers_half": Case(
        INVALID,
        then(writes(http(b"reply", more="")[:-2]), Exchange.finish),
        replies(message(b"reply", claimed=100)),
        Act(Play(status=INVALID, detail="truncated")),
        h2=then(says(b"reply", cut=2), Exchange.finish),
    ),
    "closes_without_an_answer": Case(UNREACHABLE, finishes, finishes, Act(Play(status=UNREACHABLE)), h2=finishes),
    "crashes_while_we_ask": Case(UNREACHABLE, resets, resets, h2=resets),
    "answers_enormously": Case(
        INVALID,
        writes(http(b"x" * (REPLY_BYTES + 1))),
        replies(message(b"x" * (REPLY_BYTES + 1))),
        Act(Play(b"x" * (REPLY_BYTES + 1))),
        h2=says(b"x" * (REPLY_BYTES + 1)),
    ),
    "answers_enormously_in_chunks": Case(
        INVALID,
        writes(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 5
        ),
    ),
    "answers_a_bomb": Case(INVALID, writes(http(BOMB, more=GZIP)), h2=says(BOMB, content_encoding="gzip")),
    "claims_gzip": Case(INVALID, writes(http(b"reply", more=GZIP)), h2=says(b"reply", content_encoding="gzip")),
    "cuts_its_gzip": Case(
        INVALID,
        writes(http(gzip.compress(b"reply")[:-4], more=GZIP)),
        h2=says(gzip.compress(b"reply")[:-4], content_encoding="gzip"),
    ),
    "speaks_brotli": Case(
        INVALID, writes(http(b"reply", more="content-encoding: br\r\n")), h2=says(b"reply", content_encoding="br")
    ),
    "sends_another_type": Case(
        INVALID, writes(http(b"<html>", content_type="text/html")), h2=says(b"<html>", content_type="text/html")
    ),
    "speaks_another_protocol": Case(INVALID, writes(SSH), writes(SSH), h2=writes(SSH)),
    "answers_without_a_message": Case(INVALID, None, replies(b"")),
    "breaks_its_chunks": Case(
        INVALID,
        writes(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"),
    ),
    "refuses_a_frame": Case(UNREACHABLE, None, writes(frame(GOAWAY, b"\0" * 8)), h2=writes(frame(GOAWAY, b"\0" * 8))),
    "is_overloaded": Case(
        UNREACHABLE, writes(http(b"{}", "429 Too Many Requests")), replies(None, status=8), h2=says(b"{}", status="429")
    ),
    "is_down": Case(
        UNREACHABLE, writes(http(b"", "503 Service Unavailable")), replies(None, status=14), h2=says(b"", status="503")
    ),
    "hides_behind_a_broken_proxy": Case(
        UNREACHABLE,
        writes(http(b"<html>", "502 Bad Gateway", "text/html")),
        replies(message(b"<html>"), content_type="text/html", http_status="502"),
        h2=says(b"<html>", status="502", content_type="text/html"),
    ),
    "is_down_at_length": Case(
        UNREACHABLE,
        writes(http(b"<html>" * 100, "503 Service Unavailable")[:-300]),
        h2=says(b"<html>" * 100, cut=300, status="503"),
    ),
    "dies_in_a_word_over_http": Case(INVALID, then(writes(http(b"reply")[:-2]), Exchange.reset)),
    "dies_in_a_word_over_grpc": Case(UNREACHABLE, None, dies_in_a_word),
    "fails": Case(UNREACHABLE, writes(http(b"", "500 Internal Server Error")), h2=says(None, status="500")),
    "does_not_know_us": Case(
        INVALID, writes(http(b"", "404 Not Found")), replies(None, status=12), h2=says(b"", status="404")
    ),
    "redirects": Case(
        INVALID,
        writes(http(b"", "302 Found", more="location: http://127.0.0.1:1/\r\n")),
        h2=says(b"", status="302", location="https://127.0.0.1:1/"),
    ),
    "creates_something": Case(INVALID, writes(http(b"reply", "201 Created")), h2=says(b"reply", status="201")),
    "says_it_was_too_slow": Case(TIMED_OUT, None, replies(None, status=4)),
    "says_it_was_cancelled": Case(TIMED_OUT, None, replies(None, status=1)),
    "lies_about_its_length": Case(INVALID, None, None, None, says(b"reply", content_length="100")),
    "promises_something_enormous": Case(
        INVALID,
        writes(http(b"x" * (REPLY_BYTES + 1))[:200]),
        None,
        None,
        says(b"x" * 100, cut=60, content_length=str(REPLY_BYTES + 1)),
    ),
    "announces_its_answer": Case(
        BID, writes(b"HTTP/1.1 103 Early Hints\r\n\r\n" + http(b"reply")), None, None, announces
    ),
    "only_announces": Case(INVALID, None, None, None, says(None, status="103")),
    "sends_a_field_that_is_none": Case(INVALID, None, None, None, says(b"reply", X_BAD="1")),
    "sends_too_many_fields": Case(
        INVALID,
        writes(b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(101)) + b"\r\n"),
        None,
        None,
        says(b"reply", **{f"a{n}": "b" for n in range(101)}),
    ),
    "takes_its_stream_back": Case(UNREACHABLE, None, None, None, breaks_off(2)),
    "refuses_its_stream": Case(UNREACHABLE, None, None, None, breaks_off(7)),
    "takes_its_answer_back": Case(INVALID, None, None, None, breaks_off(2, head=True)),
    "fails_within": Case(INVALID, None, replies(None, status=13)),
}


class Heard:
    """A connection that tells the test when a call has ended."""

    def __init__(self, connection: BidderConnection) -> None:
        self.connection = connection
        self.ended = asyncio.Event()

    async def open(self) -> None:
        await self.connection.open()

    async def close(self) -> None:
        await self.connection.close()

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        def end(status: ReplyStatus, body: bytes, detail: str) -> None:
            done(status, body, detail)
            self.ended.set()

        return self.connection.bid(invitation, deadline, end)


class Bidder(msgspec.Struct):
    """One bidder ready to be asked, and the socket it hides behind."""

    connection: Heard
    clock: ManualClock
    peer: Peer | None
    asked: Callable[[], Awaitable[object]]

    async def reply(self, body: bytes = b"request", late: bool = False) -> Reply:
        """Hold an auction of one; when `late`, its deadline passes as soon as the bidder has the request."""
        deadline = Deadline(self.clock.monotonic() + AUCTION_S)
        invitation = Invitation("bidder", Encoding.PROTOBUF, body, (0,))
        auction = asyncio.create_task(solicit([invitation], deadline, {"bidder": self.connection}, self.clock))
        if late:
            await self.asked()
            self.clock.advance(AUCTION_S)
        (reply,) = await auction
        return reply


@asynccontextmanager
async def bidder(
    transport: str, script: Script | Act | None, clock: ManualClock | None = None
) -> AsyncIterator[Bidder]:
    clock = clock or ManualClock()
    async with AsyncExitStack() as stack:
        peer = None
        connection: BidderConnection
        if transport == "memory":
            asked = asyncio.Event()

            def play(invitation: Invitation, deadline: Deadline) -> Play | None:
                asked.set()
                assert isinstance(script, Act)
                return script.play

            connection = MemoryBidder(play, clock, REPLY_BYTES)
        else:
            assert callable(script)
            peer = await stack.enter_async_context(listening(transport, script))
            asked = peer.asked
            connection = connect(transport, peer.port, clock)
        heard = Heard(connection)
        await heard.open()
        stack.push_async_callback(heard.close)
        yield Bidder(heard, clock, peer, asked.wait)


def listening(transport: str, script: Script, port: int = 0) -> AbstractAsyncContextManager[Peer]:
    if transport in ("http", "https"):
        return http_peer(script, port, SPEAKING["http/1.1"] if transport == "https" else None)
    return h2_peer(script, port, SPEAKING["h2"]) if transport == "h2" else grpc_peer(script, port)


def connect(transport: str, port: int, clock: ManualClock) -> BidderConnection:
    if transport in ("https", "h2"):
        return HttpBidder(f"https://127.0.0.1:{port}/bid", reply_bytes=REPLY_BYTES, tls=TRUSTING)
    if transport == "http":
        return HttpBidder(f"http://127.0.0.1:{port}/bid", reply_bytes=REPLY_BYTES)
    return (GrpcBidder if transport == "grpcio" else WireBidder)(f"127.0.0.1:{port}", clock, reply_bytes=REPLY_BYTES)


def carried(transport: str, case: Case) -> Any:
    return {
        "http": case.http,
        "https": case.http,
        "h2": case.h2,
        "grpcio": case.grpc,
        "wire": case.grpc,
        "memory": case.memory,
    }[transport]


ON_SOCKETS = ("http", "https", "h2", "grpcio", "wire")
OPENED = {"http": CONNECTIONS_WARM, "https": CONNECTIONS_WARM}
EVERYWHERE = [(t, name) for t in (*ON_SOCKETS, "memory") for name, case in CASES.items() if carried(t, case)]


@pytest.mark.parametrize(("transport", "name"), EVERYWHERE)
async def test_whatever_a_bidder_does_is_a_status(transport: str, name: str) -> None:
    case = CASES[name]
    async with bidder(transport, carried(transport, case)) as one:
        reply = await one.reply(late=name == "hangs")
        assert case.status == reply.status, reply.detail
        assert (b"reply" if case.status is BID else b"") == reply.body
        assert case.status in (BID, NO_BID, TIMED_OUT) or transport == "memory" or reply.detail


async def test_nobody_costs_anybody_else_anything() -> None:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        market = {
            f"{name} over {transport}": await stack.enter_async_context(
                bidder(transport, carried(transport, CASES[name]), clock)
            )
            for transport, name in EVERYWHERE
        }
        connections = {name: one.connection for name, one in market.items()}
        invitations = [Invitation(name, Encoding.PROTOBUF, b"request", (0,)) for name in market]
        auction = asyncio.create_task(solicit(invitations, Deadline(clock.monotonic() + AUCTION_S), connections, clock))
        for name, one in market.items():
            await (one.asked() if name.startswith("hangs") else one.connection.ended.wait())
        clock.advance(AUCTION_S)
        assert {name: CASES[name.split(" ")[0]].status.name for name in market} == {
            reply.bidder: reply.status.name for reply in await auction
        }


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_bidder_that_is_not_there_is_unreachable(transport: str) -> None:
    async with bidder(transport, silence) as gone:
        assert gone.peer is not None
        port = gone.peer.port
    connection = connect(transport, port, gone.clock)
    await connection.open()
    one = Bidder(Heard(connection), gone.clock, None, gone.asked)
    assert UNREACHABLE == (await one.reply()).status
    await connection.close()
    assert UNREACHABLE == (await one.reply()).status


@pytest.mark.parametrize("transport", ON_SOCKETS)
@pytest.mark.parametrize("name", ["answers", "has_nothing_to_offer", "is_overloaded", "does_not_know_us"])
async def test_connections_are_opened_before_the_first_auction_and_reused(transport: str, name: str) -> None:
    async with bidder(transport, carried(transport, CASES[name])) as one:
        peer, opened = one.peer, OPENED.get(transport, 1)
        assert peer is not None
        assert await eventually(lambda: peer.connections == opened)
        for _ in range(20):
            assert CASES[name].status == (await one.reply()).status
        assert opened == peer.connections


@pytest.mark.parametrize("transport", ON_SOCKETS)
@pytest.mark.parametrize("name", ["crashes_while_we_ask", "closes_without_an_answer", "is_down"])
async def test_nothing_is_asked_twice(transport: str, name: str) -> None:
    answer = carried(transport, CASES["answers"])
    async with bidder(transport, answer) as one:
        assert one.peer is not None
        assert BID == (await one.reply(b"first")).status  # so that the connection is one that has worked
        one.peer.script = carried(transport, CASES[name])
        assert UNREACHABLE == (await one.reply(b"second")).status
        one.peer.script = answer
        third = await one.reply(b"third")
        while third.status is not BID:  # gRPC takes a moment to connect again
            third = await one.reply(b"third")
        assert 1 == one.peer.requests.count(b"second")


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_bidder_that_comes_back_is_asked_again(transport: str) -> None:
    answer = carried(transport, CASES["answers"])
    async with listening(transport, answer) as first:
        connection = connect(transport, first.port, ManualClock())
        await connection.open()
        one = Bidder(Heard(connection), ManualClock(), None, first.asked.wait)
        assert BID == (await one.reply()).status
    statuses = {(await one.reply()).status}
    async with listening(transport, answer, first.port):
        while (await one.reply()).status is not BID:
            pass
        await connection.close()
    assert statuses == {UNREACHABLE}


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_late_reply_serves_no_other_auction(transport: str) -> None:
    async def echo(exchange: Exchange) -> None:
        if exchange.body == b"first":
            await late.wait()
        if transport in OPENED:
            octets = http(exchange.body)
        elif transport == "h2":
            octets = h2_reply(exchange.stream, exchange.body)
        else:
            octets = grpc_reply(exchange.stream, message(exchange.body))
        with suppress(ConnectionError):  # closed on it, as it should be
            await exchange.write(octets)
        written.set()

    late, written = asyncio.Event(), asyncio.Event()
    async with bidder(transport, echo) as one:
        assert one.peer is not None
        assert TIMED_OUT == (await one.reply(b"first", late=True)).status
        late.set()
        await written.wait()
        for body in (b"second", b"third"):
            assert body == (await one.reply(body)).body


async def test_what_a_bidder_says_unasked_is_not_heard() -> None:
    async def twice(exchange: Exchange) -> None:
        await exchange.write(http(exchange.body) + http(b"more"))

    async with bidder("http", twice) as one:
        for body in (b"first", b"second", b"third"):
            assert body == (await one.reply(body)).body


async def test_what_a_bidder_says_between_auctions_is_not_heard() -> None:
    async def afterwards(exchange: Exchange) -> None:
        await exchange.write(http(exchange.body))
        await quiet.wait()
        await exchange.write(http(b"more"))

    quiet = asyncio.Event()
    async with bidder("http", afterwards) as one:
        assert b"first" == (await one.reply(b"first")).body
        quiet.set()
        peer = one.peer
        assert peer is not None
        assert await eventually(lambda: peer.open == CONNECTIONS_WARM - 1)
        for body in (b"second", b"third", b"fourth", b"fifth"):
            assert body == (await one.reply(body)).body


async def test_a_bidder_that_always_speaks_first_is_unreachable_not_endless() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = HttpBidder(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", connections=3)
    await connection.open()
    clock = ManualClock()
    one = Bidder(Heard(connection), clock, None, asyncio.Event().wait)
    assert (await one.reply()).status in (UNREACHABLE, INVALID)
    await connection.close()
    server.close()


async def test_a_bidder_gets_no_cookie_back_and_the_headers_of_openrtb() -> None:
    heads: list[bytes] = []

    async def cookie(exchange: Exchange) -> None:
        heads.append(exchange.head.lower())
        await exchange.write(http(b"reply", more="set-cookie: id=1; path=/\r\n"))

    async with http_peer(cookie) as peer:
        # By name, because a cookie jar takes nothing from an address.
        connection = HttpBidder(f"http://localhost:{peer.port}/bid?seat=1", headers=[("X-Key", "v")])
        await connection.open()
        one = Bidder(Heard(connection), ManualClock(), peer, peer.asked.wait)
        await one.reply()
        await one.reply()
        await connection.close()
    assert b"cookie" not in heads[1]
    assert heads[0].startswith(b"post /bid?seat=1 http/1.1\r\n")
    for line in (b"content-type: application/json", b"x-openrtb-version: 2.6", b"accept-encoding: gzip", b"x-key: v"):
        assert line in heads[0].split(b"\r\n")


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_withdrawn_call_gives_its_stream_or_socket_back(transport: str) -> None:
    async with bidder(transport, silence) as one:
        peer = one.peer
        assert peer is not None
        opened = OPENED.get(transport, 1)
        assert await eventually(lambda: peer.open == opened)
        deadline = Deadline(one.clock.monotonic() + AUCTION_S)
        invitation = Invitation("bidder", Encoding.PROTOBUF, b"request", (0,))
        auction = asyncio.create_task(solicit([invitation], deadline, {"bidder": one.connection}, one.clock))
        await one.asked()
        auction.cancel()
        if transport not in OPENED:
            assert await eventually(lambda: not peer.streams)
            assert opened == peer.open
        else:
            assert await eventually(lambda: peer.open == opened - 1)
        assert 0 == one.clock.timers
        assert not one.connection.ended.is_set()


@pytest.mark.parametrize("transport", [*ON_SOCKETS, "memory"])
async def test_closing_ends_what_is_under_way(transport: str) -> None:
    async with bidder(transport, Act(HANG) if transport == "memory" else silence) as one:
        auction = asyncio.create_task(one.reply())
        await one.asked()
        await one.connection.close()
        assert UNREACHABLE == (await auction).status


@pytest.mark.parametrize("transport", ON_SOCKETS)
async def test_a_call_of_which_no_byte_has_left_is_ended_by_closing(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[ReplyStatus] = []
    async with bidder(transport, silence) as one:
        deadline = Deadline(one.clock.monotonic() + AUCTION_S)
        invitation = Invitation("bidder", Encoding.PROTOBUF, b"request", (0,))
        one.connection.bid(invitation, deadline, lambda status, body, detail: ended.append(status))
        await one.connection.close()
    assert [UNREACHABLE] == ended
    assert [] == [record for record in caplog.records if record.name.startswith("auction")]


@pytest.mark.parametrize("client", [GrpcBidder, WireBidder])
@pytest.mark.parametrize("listen", [GrpcServer, WireServer])
async def test_a_bidder_over_grpc_is_told_the_deadline_and_the_headers(
    client: type[GrpcBidder | WireBidder], listen: type[GrpcServer | WireServer]
) -> None:
    heard: list[Incoming] = []

    def endpoint(incoming: Incoming, done: Callable[[Outgoing], None]) -> Cancel:
        heard.append(incoming)
        done(Outgoing(b"reply"))
        return settled

    clock = ManualClock()
    server = listen(endpoint, [BID_METHOD], clock)
    await server.start()
    connection = client(f"127.0.0.1:{server.port}", clock, headers=[("X-Key", "v")])
    await connection.open()
    assert b"reply" == (await Bidder(Heard(connection), clock, None, asyncio.Event().wait).reply()).body
    await connection.close()
    await server.stop(0.1)
    (incoming,) = heard
    assert "v" == incoming.metadata["x-key"]
    assert BID_METHOD == incoming.method
    assert incoming.deadline is not None
    assert AUCTION_S * 0.9 < incoming.deadline.remaining(clock.monotonic()) < AUCTION_S * 1.1


@pytest.mark.parametrize("client", [GrpcBidder, WireBidder])
async def test_a_reply_that_grpc_inflates_too_far_is_invalid_and_a_small_one_is_read(
    client: type[GrpcBidder | WireBidder],
) -> None:
    def endpoint(incoming: Incoming, done: Callable[[Outgoing], None]) -> Cancel:
        done(Outgoing(b"\0" * 5_000_000 if incoming.body == b"bomb" else b"reply" * 100))
        return settled

    # grpcio compresses for us here: the same server, told to.
    clock = ManualClock()
    server = GrpcServer(endpoint, [BID_METHOD], clock)
    server._options = (*server._options, ("grpc.default_compression_algorithm", 2))
    await server.start()
    connection = client(f"127.0.0.1:{server.port}", clock, reply_bytes=REPLY_BYTES)
    await connection.open()
    one = Bidder(Heard(connection), clock, None, asyncio.Event().wait)
    assert (BID, b"reply" * 100) == ((fair := await one.reply(b"fair")).status, fair.body)
    bomb = await one.reply(b"bomb")
    assert INVALID == bomb.status
    assert "ecompressed" in bomb.detail or "inflated" in bomb.detail
    await connection.close()
    await server.stop(0.1)


async def test_auctions_over_sockets_leave_nothing_behind() -> None:
    async def round_of(auctions: int) -> int:
        clock = ManualClock()
        async with AsyncExitStack() as stack:
            market = {
                f"{name} over {transport}": await stack.enter_async_context(
                    bidder(transport, carried(transport, CASES[name]), clock)
                )
                for transport, name in EVERYWHERE
                if name in ("answers", "hangs", "crashes_while_we_ask", "answers_half", "is_down", "answers_enormously")
            }
            connections = {name: one.connection for name, one in market.items()}
            invitations = [Invitation(name, Encoding.PROTOBUF, b"request", (0,)) for name in market]
            for number in range(auctions):
                for one in market.values():
                    one.connection.ended.clear()
                deadline = Deadline(clock.monotonic() + AUCTION_S)
                auction = asyncio.create_task(solicit(invitations, deadline, connections, clock))
                if number % 5 == 0:
                    await asyncio.sleep(0)
                    auction.cancel()
                    await asyncio.wait([auction])
                    continue
                for name, one in market.items():
                    await (one.asked() if name.startswith("hangs") else one.connection.ended.wait())
                clock.advance(AUCTION_S)
                await auction
            streams = [
                one.peer.streams
                for name, one in market.items()
                if one.peer and name in ("hangs over grpcio", "hangs over wire")
            ]
            assert await eventually(lambda: not streams[0])
            assert 0 == clock.timers
        return descriptors()

    await round_of(5)  # what grpcio keeps for good it has now
    tasks, before = len(asyncio.all_tasks()), descriptors()
    await round_of(200)
    assert await eventually(lambda: descriptors() <= before)
    assert await eventually(lambda: len(asyncio.all_tasks()) == tasks)

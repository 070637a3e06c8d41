# Plain requests behind TLS: which protocol is spoken, what happens when a server changes its mind, and that over HTTP/2
# nothing is lost that HTTP/1.1 has. What a bidder may do is in test_transports.py, over either.

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from peers import (
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    Exchange,
    Script,
    eventually,
    fields,
    frame,
    h2_reply,
    http,
    tls_peer,
)

from auction.edge.tls import ClientContexts, Files, ServerContexts
from auction.edge.wire.frames import Code
from auction.edge.wire.http1 import Answer, Failure, Fault, Limits, address
from auction.edge.wire.link import SETTLED_TICKS
from auction.edge.wire.origin import Origin
from auction.edge.wire.server import Server

TLS = Path(__file__).parent / "data" / "tls"
TRUSTING = ClientContexts(["h2", "http/1.1"], Files(authorities=TLS / "authority.pem"))
FIELDS = (("content-type", "application/json"), ("X-Key", " v "), ("connection", "keep-alive"), ("host", "other"))


def speaking(*protocols: str) -> ssl.SSLContext:
    return ServerContexts(protocols, Files(TLS / "first.pem", TLS / "first.key"))()


def in_turn(*protocols: str) -> ssl.SSLContext:
    """A server of which every handshake meets the next of several kinds."""
    kinds, turn = [speaking(protocol) for protocol in protocols], iter(range(1_000_000))
    first = speaking("h2")

    def choose(handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = kinds[next(turn) % len(kinds)]

    first.sni_callback = choose
    return first


@asynccontextmanager
async def origin(*ports: int, warm: int = 1, **named: Any) -> AsyncIterator[Origin]:
    """One origin; with several ports, each is an address of its name."""
    limits = named.pop("limits", Limits(1_000_000))
    named = {"connections_max": 4, "tls": TRUSTING, **named}
    one = Origin(address(f"https://127.0.0.1:{ports[0]}/bid?a=b"), FIELDS, limits, **named)

    async def addresses() -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for port in ports]

    one._channel._addresses = addresses  # type: ignore[method-assign]
    try:
        await one.open(warm)
        yield one
    finally:
        await one.close()


class Asked:
    """One request and how it ended."""

    def __init__(self, one: Origin, body: bytes = b"hello") -> None:
        self.ended: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self.cancel = one.ask(body, self.ended.set_result)  # raises where it ends twice


async def ask(one: Origin, body: bytes = b"hello") -> Answer | Failure:
    return await Asked(one, body).ended


async def echo(exchange: Exchange) -> None:
    await exchange.write(h2_reply(exchange.stream, exchange.body) if exchange.stream else http(exchange.body))


async def silent(exchange: Exchange) -> None: ...


def body_of(ending: Answer | Failure) -> bytes | str:
    return ending.body if isinstance(ending, Answer) else ending.detail


# What is spoken.


@pytest.mark.parametrize(
    ("server", "over_h2"),
    [(["h2", "http/1.1"], True), (["h2"], True), (["http/1.1"], False), (["unheard-of"], False)],
    ids=["either", "h2", "http1", "nothing"],
)
async def test_a_server_is_asked_over_what_it_agrees_on(server: list[str], over_h2: bool) -> None:
    streams: list[int] = []

    async def noting(exchange: Exchange) -> None:
        streams.append(exchange.stream)
        await echo(exchange)

    async with tls_peer(noting, speaking(*server)) as peer, origin(peer.port, warm=2) as one:
        assert b"hello" == body_of(await ask(one))
        assert b"" == body_of(await ask(one, b""))
        assert [over_h2] * 2 == [stream > 0 for stream in streams]
        assert (1 if over_h2 else 2) == peer.connections  # the one that found it out is used


async def test_who_offers_only_http1_is_not_asked_over_h2() -> None:
    older = ClientContexts(["http/1.1"], Files(authorities=TLS / "authority.pem"))
    async with tls_peer(echo, speaking("h2", "http/1.1")) as peer, origin(peer.port, tls=older) as one:
        assert b"hello" == body_of(await ask(one))
        assert set() == peer.streams


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_the_name_of_a_certificate_may_be_another_than_the_host(protocol: str) -> None:
    names: list[str | None] = []
    context = speaking(protocol)
    context.sni_callback = lambda handshake, name, context: names.append(name)
    async with tls_peer(echo, context) as peer:
        async with origin(peer.port, warm=2, tls_name="localhost") as one:
            assert b"hello" == body_of(await ask(one))
            assert ["localhost"] * peer.connections == names
        async with origin(peer.port, tls_name="another.example") as one:
            ending = await ask(one)
            assert isinstance(ending, Failure)
            assert Fault.UNREACHABLE is ending.fault
            assert "another.example" in ending.detail


@pytest.mark.parametrize("offered", [["http/1.1"], None], ids=["http1", "nothing"])
async def test_on_the_port_of_grpc_http2_is_agreed_on_or_nothing_is_served(offered: list[str] | None) -> None:
    context = ssl.create_default_context(cafile=TLS / "authority.pem")
    if offered is not None:
        context.set_alpn_protocols(offered)
    async with AsyncExitStack() as stack:
        server = Server({}, pages={"/": b"page"})
        await server.start(context=speaking("h2"))
        stack.push_async_callback(server.stop, 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        stack.callback(writer.close)
        assert None is writer.get_extra_info("ssl_object").selected_alpn_protocol()
        with suppress(ConnectionError):  # as good
            assert b"" == await reader.read(9)
        assert not server.connections


# Minds that change.


@pytest.mark.parametrize(("before", "after"), [("h2", "http/1.1"), ("http/1.1", "h2")])
async def test_a_server_that_comes_back_with_another_protocol_is_asked_over_that(before: str, after: str) -> None:
    async with AsyncExitStack() as first, AsyncExitStack() as stack:
        port = (await first.enter_async_context(tls_peer(echo, speaking(before)))).port
        one = await stack.enter_async_context(origin(port, warm=3))
        assert b"hello" == body_of(await ask(one))
        await first.aclose()
        endings = [await ask(one)]
        second = await stack.enter_async_context(tls_peer(echo, speaking(after), port))
        while not isinstance(endings[-1], Answer):
            endings.append(await ask(one))
            await asyncio.sleep(0)
        for _ in range(5):
            assert b"hello" == body_of(await ask(one))
        assert {Fault.UNREACHABLE} == {each.fault for each in endings if isinstance(each, Failure)}
        assert 1 == second.connections  # whoever connected, it is used
        await stack.aclose()


async def test_a_request_that_waits_for_http1_is_sent_over_h2_where_the_connection_agrees_on_that() -> None:
    held = asyncio.Event()
    streams: dict[bytes, int] = {}

    async def noting(exchange: Exchange) -> None:
        streams[exchange.body] = exchange.stream
        if exchange.body == b"held":
            await held.wait()
        await echo(exchange)

    async with tls_peer(noting, in_turn("http/1.1", "h2")) as peer, origin(peer.port) as one:
        first = Asked(one, b"held")
        waits = [Asked(one, b"waits %d" % number) for number in range(3)]
        withdrawn = Asked(one, b"withdrawn")
        withdrawn.cancel()
        assert [b"waits 0", b"waits 1", b"waits 2"] == [body_of(await each.ended) for each in waits]
        held.set()
        assert b"held" == body_of(await first.ended)  # where it was asked
        assert b"later" == body_of(await ask(one, b"later"))
        assert not withdrawn.ended.done()
        assert {b"held"} == {body for body, stream in streams.items() if not stream}
        assert {b"waits 0", b"waits 1", b"waits 2", b"later"} == {body for body, stream in streams.items() if stream}


async def test_a_request_that_waits_for_h2_is_sent_over_http1_where_the_connection_agrees_on_that() -> None:
    streams: dict[bytes, int] = {}

    async def leaves(exchange: Exchange) -> None:
        streams[exchange.body] = exchange.stream
        if exchange.body == b"last":
            await exchange.write(frame(GOAWAY, exchange.stream.to_bytes(4, "big") + b"\0" * 4))
        await echo(exchange)

    async with tls_peer(leaves, in_turn("h2", "http/1.1")) as peer, origin(peer.port) as one:
        (link,) = one._channel.ready
        for _ in range(SETTLED_TICKS):
            link.tick()
        assert b"last" == body_of(await ask(one, b"last"))  # begun before GOAWAY, and so answered
        assert await eventually(lambda: not one._channel.ready)
        waits = [Asked(one, b"waits %d" % number) for number in range(2)]
        withdrawn = Asked(one, b"withdrawn")
        withdrawn.cancel()
        assert [b"waits 0", b"waits 1"] == [body_of(await each.ended) for each in waits]
        assert not withdrawn.ended.done()
        assert {b"last": 1, b"waits 0": 0, b"waits 1": 0} == streams


async def test_servers_of_both_kinds_behind_one_address_lose_no_request() -> None:
    held = asyncio.Event()

    async def holding(exchange: Exchange) -> None:
        await held.wait()
        await echo(exchange)

    async with tls_peer(holding, in_turn("http/1.1", "http/1.1", "h2")) as peer, origin(peer.port) as one:
        asked = [Asked(one, b"%d" % number) for number in range(20)]
        assert await eventually(lambda: 20 == len(peer.requests))
        held.set()
        assert [b"%d" % number for number in range(20)] == [body_of(await each.ended) for each in asked]


async def test_an_address_that_spoke_http1_is_tried_again_while_another_speaks_h2() -> None:
    async with (
        tls_peer(echo, speaking("h2")) as newer,
        tls_peer(echo, in_turn("http/1.1", "h2")) as older,
        origin(newer.port, older.port) as one,
    ):
        assert 1 == len(one._channel.ready)
        await one._channel._resolve()
        assert await eventually(lambda: 2 == len(one._channel.ready))


# HTTP/2, plainly.


async def test_a_request_over_h2_says_what_one_over_http1_does() -> None:
    heard: list[tuple[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await converse(reader, writer)
        finally:
            writer.close()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        other.initiate_connection()
        waiting: dict[int, bytearray] = {}
        ended: set[int] = set()
        while True:
            for stream in list(ended):  # as far as there is a window
                while waiting[stream] and other.local_flow_control_window(stream):
                    size = min(other.local_flow_control_window(stream), 16_384)
                    other.send_data(stream, bytes(waiting[stream][:size]))
                    del waiting[stream][:size]
                if not waiting[stream]:
                    other.end_stream(stream)
                    ended.discard(stream)
            writer.write(other.data_to_send())
            octets = await reader.read(65_536)
            if not octets:
                return
            for event in other.receive_data(octets):
                if isinstance(event, h2.events.RequestReceived):
                    heard[:] = [(str(name), str(value)) for name, value in event.headers]
                    waiting[event.stream_id] = bytearray()
                elif isinstance(event, h2.events.DataReceived):
                    waiting[event.stream_id] += event.data
                    other.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    other.send_headers(event.stream_id, [(":status", "200"), ("a", "b"), ("a", "c")])
                    ended.add(event.stream_id)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=speaking("h2"))
    port = server.sockets[0].getsockname()[1]
    async with server, origin(port) as one:
        answer = await ask(one)
        large = b"x" * 900_000  # more than any window
        assert large == body_of(await ask(one, large))
        assert heard[-1] == ("content-length", "900000")
        assert b"hello" == body_of(await ask(one))
    assert isinstance(answer, Answer)
    assert (200, {"a": "b"}) == (answer.status, dict(answer.fields))
    assert heard == [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/bid?a=b"),
        (":authority", f"127.0.0.1:{port}"),
        ("content-type", "application/json"),
        ("x-key", "v"),
        ("content-length", "5"),
    ]


async def test_what_is_withdrawn_is_reset_within_a_budget_and_never_heard_of() -> None:
    async with tls_peer(silent, speaking("h2")) as peer, origin(peer.port) as one:
        asked = [Asked(one) for _ in range(12)]
        assert await eventually(lambda: 12 == len(peer.requests))
        for each in asked:
            each.cancel()
            each.cancel()
        (link,) = one._channel.ready
        assert await eventually(lambda: 7 == len(peer.streams))
        assert 0 == link.calls
        peer.script = echo
        assert b"hello" == body_of(await ask(one))
        for _ in range(2):
            link.tick()
        assert await eventually(lambda: peer.streams <= {25})
        assert not any(each.ended.done() for each in asked)


async def refuses(exchange: Exchange) -> None:
    await exchange.write(frame(RST_STREAM, int(Code.REFUSED_STREAM).to_bytes(4, "big"), 0, exchange.stream))


async def refuses_by_goaway(exchange: Exchange) -> None:
    await exchange.write(frame(GOAWAY, b"\0" * 8))


async def begins_and_refuses(exchange: Exchange) -> None:
    await exchange.write(frame(HEADERS, fields(_status="200"), END_HEADERS, exchange.stream))
    await refuses(exchange)


async def takes_back(exchange: Exchange) -> None:
    await exchange.write(frame(RST_STREAM, int(Code.CANCEL).to_bytes(4, "big"), 0, exchange.stream))


@pytest.mark.parametrize(
    ("script", "ended", "asked"),
    [
        (refuses, b"hello", 1),
        (refuses_by_goaway, b"hello", 1),
        (begins_and_refuses, "0 bytes of a body, then stream reset: REFUSED_STREAM", 0),
        (takes_back, "stream reset: CANCEL", 0),
    ],
)
async def test_what_was_never_begun_is_asked_once_more_elsewhere_and_nothing_else_is(
    script: Script, ended: bytes | str, asked: int
) -> None:
    tls = speaking("h2")
    async with (
        tls_peer(script, tls) as first,
        tls_peer(echo, tls) as second,
        origin(second.port, first.port) as one,
    ):
        assert ended == body_of(await ask(one))
        assert (1, asked) == (len(first.requests), len(second.requests))


def says(octets: Callable[[int], bytes]) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.write(octets(exchange.stream))

    return script


ILL: dict[str, tuple[Script, Fault]] = {
    "takes_its_stream_back": (takes_back, Fault.UNREACHABLE),
    "refuses": (refuses, Fault.UNREACHABLE),
    "begins_and_refuses": (begins_and_refuses, Fault.TRUNCATED),
    "is_enormous": (says(lambda stream: h2_reply(stream, b"x" * 1_001)), Fault.TOO_LARGE),
    "promises_too_much": (says(lambda stream: h2_reply(stream, b"x", content_length="1001")[:-10]), Fault.TOO_LARGE),
    "promises_more": (says(lambda stream: h2_reply(stream, b"x", content_length="9")), Fault.TRUNCATED),
    "has_too_many_fields": (
        says(lambda stream: h2_reply(stream, b"x", **{f"a{number}": "b" for number in range(101)})),
        Fault.TOO_LARGE,
    ),
    "has_too_long_a_head": (
        says(lambda stream: h2_reply(stream, b"x", **{f"a{number:028}": "b" * 126 for number in range(98)})),
        Fault.NO_HTTP,
    ),
    "has_a_field_that_is_none": (says(lambda stream: h2_reply(stream, b"x", A="b")), Fault.NO_HTTP),
    "begins_with_data": (says(lambda stream: frame(DATA, b"x", 0, stream)), Fault.NO_HTTP),
    "only_announces": (says(lambda stream: h2_reply(stream, None, status="103")), Fault.NO_HTTP),
}


@pytest.mark.parametrize("name", ILL)
async def test_a_fault_ends_its_own_request_and_none_beside_it(name: str) -> None:
    script, fault = ILL[name]

    async def either(exchange: Exchange) -> None:
        await (echo if exchange.body == b"well" else script)(exchange)

    async with tls_peer(either, speaking("h2")) as peer, origin(peer.port, limits=Limits(1_000)) as one:
        for _ in range(3):
            asked = [Asked(one, body) for body in (b"well", b"ill", b"well")]
            endings = [await each.ended for each in asked]
            assert [b"well"] * 2 == [body_of(endings[0]), body_of(endings[2])]
            assert isinstance(endings[1], Failure)
            assert fault is endings[1].fault, endings[1]
        (link,) = one._channel.ready
        assert 0 == link.calls
        assert 1 == peer.connections


async def test_a_body_that_nobody_wants_is_not_waited_for() -> None:
    async def lengthy(exchange: Exchange) -> None:
        if exchange.body == b"well":
            await echo(exchange)
        else:
            await exchange.write(h2_reply(exchange.stream, b"<html>", status="503")[:-15])

    async with tls_peer(lengthy, speaking("h2")) as peer, origin(peer.port, wanted=lambda status: status == 200) as one:
        answer = await ask(one)
        assert isinstance(answer, Answer)
        assert (503, b"") == (answer.status, answer.body)
        assert await eventually(lambda: not peer.streams)  # it was reset
        assert b"well" == body_of(await ask(one, b"well"))


async def test_requests_leave_no_cycle_no_stream_and_no_call() -> None:
    async def either(exchange: Exchange) -> None:
        if exchange.body == b"ill":
            await takes_back(exchange)
        elif exchange.body != b"hang":
            await echo(exchange)

    async with tls_peer(either, speaking("h2")) as peer, origin(peer.port) as one:
        (link,) = one._channel.ready

        async def round_of(count: int) -> None:
            asked = [Asked(one, body) for body in (b"hello", b"ill") for _ in range(count)]
            withdrawn = [Asked(one, b"hang") for _ in range(count)]
            for each in withdrawn:
                each.cancel()
            for each in asked:
                await each.ended
            while link._muted:
                link.tick()

        await round_of(5)
        assert await eventually(lambda: not peer.tasks)
        gc.collect()
        gc.disable()
        try:
            await round_of(20)
            found = [type(each).__name__ for each in gc.get_objects() if type(each).__name__ in ("Query", "_Asked")]
        finally:
            gc.enable()
        assert [] == found
        assert (0, {}, {}) == (link.calls, link.connection.streams, one._channel.queue)


async def test_closing_ends_what_is_under_way_and_what_waits() -> None:
    for protocol in ("h2", "http/1.1"):
        async with tls_peer(silent, speaking(protocol)) as peer, origin(peer.port, connections_max=1) as one:
            asked = [Asked(one) for _ in range(3)]
            assert await eventually(lambda: bool(peer.requests))
            await one.close()
            endings = [await each.ended for each in asked]
            assert {Fault.UNREACHABLE} == {each.fault for each in endings if isinstance(each, Failure)}
            assert 3 == len(endings)
            late = await ask(one)
            assert isinstance(late, Failure)
            assert Fault.UNREACHABLE is late.fault

# HTTP/1.1 on sockets: what callers may do to a listener, what servers may do to a pool, and what neither leaves behind.

from __future__ import annotations

import asyncio
import gc
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
from peers import Exchange, Peer, Script, descriptors, eventually, http, http_peer

from auction.edge.tls import ClientContexts
from auction.edge.wire.http1 import (
    Answer,
    Failure,
    Fault,
    Limits,
    Listener,
    Patience,
    Pool,
    Refused,
    Request,
    Response,
    address,
    fetch,
    request_head,
)
from auction.edge.wire.http1 import pool as pool_module
from auction.edge.wire.http1.server import PIPELINED_MAX

LIMITS = Limits(body_bytes=50_000)
TLS = ClientContexts(["http/1.1"])
LONG = 3600.0
PATIENT = Patience(LONG, LONG, LONG, LONG)
Done = Callable[[Response | None], None]


class Echo:
    """Answers what it was asked; "/later" when told to, "/large" with much, "/gone" not at all."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.later: list[Done] = []
        self.cancelled = 0

    def accept(self, request: Request) -> Response | None:
        return Response(404) if request.path == "/nowhere" else None

    def answer(self, request: Request, done: Done) -> Callable[[], None]:
        self.heard.append(request.target)
        if request.path == "/later":
            self.later.append(done)
            return self._cancel
        if request.path == "/gone":
            done(None)
        elif request.path == "/large":
            done(Response(200, (), b"x" * 4_000_000))
        else:
            done(Response(200, (), request.target.encode() + (request.body or b"")))
        return self._cancel

    def refuse(self, refused: Refused) -> Response:
        return Response(refused.status, (), refused.reason.encode())

    def _cancel(self) -> None:
        self.cancelled += 1


@asynccontextmanager
async def serving(echo: Echo, patience: Patience = PATIENT, connections_max: int = 100) -> AsyncIterator[Listener]:
    listener = Listener(echo, LIMITS, lambda: 0.0, patience=patience, connections_max=connections_max)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(0.0)


async def said(port: int, octets: bytes) -> bytes:
    """Say something, and hear all that comes back before the other side closes."""
    async with dialled(port) as (reader, writer):
        writer.write(octets)
        with suppress(ConnectionError):
            return await reader.read()
        return b"reset"


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def get(target: str = "/", more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nhost: x\r\n{more}\r\n".encode()


class Healthy:
    """A caller that behaves, beside one that does not."""

    def __init__(self, port: int) -> None:
        self._pool = Pool(address(f"http://127.0.0.1:{port}/well"), LIMITS, connections_max=1)
        self._head = request_head("POST", address("http://127.0.0.1/well"), ())

    async def calls(self, count: int = 5) -> None:
        for _ in range(count):
            assert (200, b"/wellbody") == ((answer := await asked(self._pool, self._head, b"body"))[0], answer[1])

    async def close(self) -> None:
        await self._pool.close()


async def asked(pool: Pool, head: bytes, body: bytes = b"") -> tuple[int | Fault, bytes | str]:
    ended: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
    pool.ask(head, body, ended.set_result)
    ending = await ended
    return (ending.status, ending.body) if isinstance(ending, Answer) else (ending.fault, ending.detail)


# ----------------------------------------------------------------------------------------------- misbehaving callers

SHORT = 0.02
ABUSE: dict[str, tuple[bytes, Patience, list[bytes]]] = {
    "a_head_that_never_ends": (b"GET / HTTP/1.1\r\nhost: x\r\na: ", Patience(LONG, SHORT, LONG, SHORT), [b"408"]),
    "a_body_that_never_ends": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc", Patience(LONG, SHORT, LONG, SHORT), [b"408"],
    ),
    "one_request_whole_and_one_that_never_is": (
        get() + b"GET", Patience(LONG, SHORT, LONG, SHORT), [b"200", b"408"],
    ),
    "blank_lines_for_ever": (b"\r\n" * 30_000, Patience(LONG, LONG, LONG, SHORT), [b"400"]),
    "a_head_too_long": (
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 10_000, Patience(LONG, LONG, LONG, SHORT), [b"400"],
    ),
    "a_body_too_large": (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        + (b"4000\r\n" + bytes(0x4000) + b"\r\n") * 9,
        Patience(LONG, LONG, LONG, SHORT),
        [b"400"],
    ),
    "two_lengths": (
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        Patience(LONG, LONG, LONG, SHORT),
        [b"400"],
    ),
    "http_2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), Patience(LONG, LONG, LONG, SHORT), [b"400"]),
    "tls": (b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 500, Patience(LONG, LONG, LONG, SHORT), [b"400"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ABUSE)
async def test_abuse_is_answered_once_closed_and_felt_by_nobody_else(name: str) -> None:
    octets, patience, statuses = ABUSE[name]
    echo = Echo()
    async with serving(echo, patience) as listener:
        healthy = Healthy(listener.port)
        abuse = [asyncio.create_task(said(listener.port, octets)) for _ in range(10)]
        await healthy.calls()
        for answer in await asyncio.gather(*abuse):
            assert statuses == re.findall(rb"HTTP/1.1 (\d+) ", answer)
        await healthy.calls()
        await healthy.close()
        assert await eventually(lambda: not listener.open)


@pytest.mark.parametrize(("octets", "answers"), [(b"", 0), (get(), 1)])
async def test_a_caller_that_asks_nothing_more_is_sent_away(octets: bytes, answers: int) -> None:
    async with serving(Echo(), Patience(0.2, LONG, LONG, LONG)) as listener:
        assert answers == (await said(listener.port, octets)).count(b" 200 OK")


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    echo = Echo()
    async with serving(echo) as listener, dialled(listener.port) as (reader, writer):
        writer.write(get("/1") + get("/later") + get("/3") + get("/nowhere") + get("/5", "connection: close\r\n"))
        assert b"/1" == (await reader.readuntil(b"/1"))[-2:]
        assert ["/1", "/later"] == echo.heard
        echo.later.pop()(Response(200, (), b"later"))
        rest = await reader.read()
    assert [b"200", b"200", b"404", b"200"] == [part[:3] for part in rest.split(b"HTTP/1.1 ")[1:]]
    assert rest.index(b"later") < rest.index(b"/3") < rest.index(b"/5")
    assert 1 == rest.count(b"connection: close")


async def test_a_flood_of_requests_is_answered_up_to_its_bound_and_sent_away() -> None:
    echo = Echo()
    async with serving(echo, Patience(LONG, LONG, LONG, SHORT)) as listener:
        answer = await said(listener.port, get() * 1000)
    assert PIPELINED_MAX == answer.count(b" 200 OK") == len(echo.heard)
    assert answer.endswith(b"expected at most 64 requests before their answers")


async def test_a_caller_that_does_not_read_costs_one_answer_and_is_dropped() -> None:
    echo = Echo()
    async with serving(echo, Patience(LONG, LONG, SHORT, LONG)) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as silent:
            silent.sendall(get("/large") * 30)
            assert await eventually(lambda: not listener.open and bool(echo.heard))
            assert len(echo.heard) < 5  # what the system's buffers took, and one more


async def test_a_caller_that_reads_slowly_gets_everything() -> None:
    echo = Echo()
    async with serving(echo) as listener, dialled(listener.port) as (reader, writer):
        writer.write(get("/large") * 3 + get("/", "connection: close\r\n"))
        size = 0
        while piece := await reader.read(10_000):
            size += len(piece)
        assert size > 12_000_000
        assert 4 == len(echo.heard)


async def test_connections_beyond_the_bound_are_closed_and_the_others_served() -> None:
    async with serving(Echo(), connections_max=3) as listener, AsyncExitStack() as stack:
        healthy = Healthy(listener.port)
        await healthy.calls()
        held = [(await stack.enter_async_context(dialled(listener.port)))[0] for _ in range(10)]
        assert await eventually(lambda: 8 == sum(bool(each.at_eof() or each.exception()) for each in held))
        assert 3 == len(listener.open)
        await healthy.calls()
        await healthy.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_caller_that_is_gone_is_not_answered(reset: bool) -> None:
    echo = Echo()
    async with serving(echo) as listener:
        async with dialled(listener.port) as (_, writer):
            writer.write(get("/later"))
            assert await eventually(lambda: bool(echo.later))
            if reset:
                writer.transport.abort()
        assert await eventually(lambda: echo.cancelled == 1)
        echo.later.pop()(Response(200))  # against the contract, and without harm
        assert not listener.open


async def test_a_caller_that_is_hung_up_on_hears_nothing() -> None:
    async with serving(Echo()) as listener:
        assert await said(listener.port, get("/gone") + get("/")) in (b"", b"reset")


async def test_a_date_and_the_connection_are_told() -> None:
    async with serving(Echo()) as listener:
        old = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        answer = await said(listener.port, old + b"GET / HTTP/1.0\r\n\r\n")
    first, second = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in first
    assert b"connection: keep-alive\r\n" in first
    assert b"connection: close\r\n" in second


async def test_a_stopping_listener_lets_a_request_on_its_way_arrive() -> None:
    async with serving(Echo()) as listener, dialled(listener.port) as (reader, writer):
        writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
        assert await eventually(lambda: any(each._connection.partial for each in listener.open))
        stop = asyncio.create_task(listener.stop(LONG))
        await asyncio.sleep(0)
        writer.write(b"cd")
        answer = await reader.read()
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"/aabcd")
        await stop


# ----------------------------------------------------------------------------------------------------------- a pool


@asynccontextmanager
async def pooled(script: Script, connections_max: int = 4, idle_s: float = LONG) -> AsyncIterator[tuple[Pool, Peer]]:
    async with http_peer(script) as peer:
        to = address(f"http://127.0.0.1:{peer.port}/")
        pool = Pool(to, LIMITS, connections_max=connections_max, idle_s=idle_s)
        yield pool, peer
        await pool.close()


HEAD = request_head("POST", address("http://x/"), ())


async def echoes(exchange: Exchange) -> None:
    await exchange.write(http(exchange.body))


async def test_no_more_connections_than_allowed_and_who_waits_longest_is_next() -> None:
    async def held(exchange: Exchange) -> None:
        await go.wait()
        await echoes(exchange)

    go = asyncio.Event()
    order: list[bytes] = []
    async with pooled(held, connections_max=3) as (pool, peer):
        for number in range(20):
            pool.ask(HEAD, b"%d" % number, lambda ending: order.append(getattr(ending, "body", b"")))
        assert await eventually(lambda: len(peer.requests) == 3)
        go.set()
        assert await eventually(lambda: len(order) == 20)
        assert 3 == peer.connections
        assert [b"%d" % number for number in range(3, 20)] == peer.requests[3:]


async def test_a_request_withdrawn_before_it_left_is_never_sent() -> None:
    async def silent(exchange: Exchange) -> None: ...

    ended: list[object] = []
    async with pooled(silent, connections_max=1) as (pool, peer):
        first = pool.ask(HEAD, b"first", ended.append)
        second = pool.ask(HEAD, b"second", ended.append)
        third = pool.ask(HEAD, b"third", ended.append)
        assert await eventually(lambda: peer.requests == [b"first"])
        second()
        second()
        first()  # its connection is closed, and another opened for who waits
        assert await eventually(lambda: peer.requests == [b"first", b"third"])
        third()
        assert await eventually(lambda: peer.open == 0)
    assert [] == ended


async def test_requests_beyond_the_queue_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WAITING_MAX", 5)

    async def silent(exchange: Exchange) -> None: ...

    ended: list[Answer | Failure] = []
    async with pooled(silent, connections_max=1) as (pool, peer):
        pool.ask(HEAD, b"", ended.append)
        assert await eventually(lambda: len(peer.requests) == 1)
        for _ in range(8):
            pool.ask(HEAD, b"", ended.append)
        assert [Failure(Fault.UNREACHABLE, "expected at most 5 requests to wait for a connection")] * 3 == ended
    assert 9 == len(ended)


async def test_a_server_that_refuses_is_tried_by_few_attempts_however_many_ask() -> None:
    async with http_peer(echoes) as gone:
        port = gone.port
    pool = Pool(address(f"http://127.0.0.1:{port}/"), LIMITS, connections_max=8)
    attempts = 0
    connect = pool._connect

    async def counted() -> None:
        nonlocal attempts
        attempts += 1
        await connect()

    pool._connect = counted  # type: ignore[method-assign]
    for _ in range(300):
        fault, detail = await asked(pool, HEAD)
        assert Fault.UNREACHABLE is fault
        assert f"Cannot connect to 127.0.0.1:{port}" in str(detail)
    assert 1 <= attempts < 20
    # All who ask when its time has come share one.
    pool._retry_at, attempts = 0.0, 0
    assert {Fault.UNREACHABLE} == {fault for fault, _ in await asyncio.gather(*(asked(pool, HEAD) for _ in range(50)))}
    assert 1 == attempts
    async with http_peer(echoes, port):
        while (await asked(pool, HEAD, b"back"))[0] != 200:
            pass
        # What was learnt is forgotten: requests have connections of their own again.
        assert [(200, b"x")] * 8 == await asyncio.gather(*(asked(pool, HEAD, b"x") for _ in range(8)))
    await pool.close()


async def test_a_server_that_takes_no_more_connections_is_asked_over_those_that_it_has() -> None:
    async def held(exchange: Exchange) -> None:
        await go.wait()
        await echoes(exchange)

    go, attempts = asyncio.Event(), 0

    async def refused() -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError("full")

    async with pooled(held) as (pool, peer):
        await pool.warm(1)
        pool._connect = refused  # type: ignore[method-assign]
        pool._backoff_s = LONG
        calls = []
        for number in range(20):
            calls.append(asyncio.create_task(asked(pool, HEAD, b"%d" % number)))
            for _ in range(3):  # turns in which attempts fail
                await asyncio.sleep(0)
        assert await eventually(lambda: bool(attempts) and len(peer.requests) == 1)
        go.set()
        assert [(200, b"%d" % number) for number in range(20)] == await asyncio.gather(*calls)
        assert attempts <= 4


async def test_a_connection_that_is_unfit_is_given_to_nobody_not_even_at_once() -> None:
    async with pooled(echoes) as (pool, _):
        await pool.warm(2)
        assert await eventually(lambda: len(pool._kept) == 2)
        pool._kept[-1].data_received(b"unasked")
        assert (200, b"x") == await asked(pool, HEAD, b"x")


async def test_a_name_whose_addresses_do_not_answer_is_asked_for_again() -> None:
    async with pooled(echoes) as (pool, _):
        pool._resolved, pool._resolved_at = ["127.0.0.3"], float("inf")
        assert Fault.UNREACHABLE is (await asked(pool, HEAD))[0]
        pool._retry_at = 0.0
        assert (200, b"x") == await asked(pool, HEAD, b"x")


async def test_a_server_that_was_not_there_ahead_of_time_is_tried_by_who_asks_first() -> None:
    async with http_peer(echoes) as gone:
        port = gone.port
    pool = Pool(address(f"http://127.0.0.1:{port}/"), LIMITS, connections_max=2)
    pool._backoff_s = LONG
    await pool.warm(2)
    async with http_peer(echoes, port):
        ending = await asked(pool, HEAD)
        assert not isinstance(ending[0], Fault), ending
        await pool.close()


async def test_requests_that_wait_for_a_server_that_refuses_all_fail() -> None:
    async with http_peer(echoes) as gone:
        port = gone.port
    pool = Pool(address(f"http://127.0.0.1:{port}/"), LIMITS, connections_max=2)
    endings = await asyncio.gather(*(asked(pool, HEAD) for _ in range(50)))
    assert {Fault.UNREACHABLE} == {fault for fault, _ in endings}
    await pool.close()


async def test_every_address_of_a_name_is_used_and_a_dead_one_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fresh(exchange: Exchange) -> None:
        await exchange.write(http(exchange.body, more="connection: close\r\n"))

    async with http_peer(fresh) as one:
        second = await asyncio.start_server(lambda r, w: served(r, w), "127.0.0.2", one.port)
        others = 0

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal others
            others += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(http(b"", more="connection: close\r\n"))
            writer.close()

        pool = Pool(address(f"http://127.0.0.1:{one.port}/"), LIMITS, connections_max=1)
        pool._resolved, pool._resolved_at = ["127.0.0.1", "127.0.0.2", "127.0.0.3"], float("inf")
        for _ in range(12):
            assert 200 == (await asked(pool, HEAD))[0]
            assert await eventually(lambda: not pool._open)
        assert one.connections >= 4
        assert others >= 4
        await pool.close()
        second.close()


async def test_connections_that_nobody_uses_are_closed_and_used_ones_kept() -> None:
    async with pooled(echoes, idle_s=0.05) as (pool, peer):
        await pool.warm(4)
        assert await eventually(lambda: peer.open == 4)
        assert await eventually(lambda: peer.open == 0)
        assert (200, b"again") == await asked(pool, HEAD, b"again")


async def test_a_warm_pool_writes_at_once_and_takes_no_task_for_a_request() -> None:
    async with pooled(echoes) as (pool, peer):
        await pool.warm(1)
        tasks = asyncio.all_tasks()
        ended: list[object] = []
        pool.ask(HEAD, b"now", ended.append)
        assert tasks == asyncio.all_tasks()
        assert await eventually(lambda: bool(ended))
        assert 1 == peer.connections


async def test_a_body_that_a_reset_ended_is_truncated() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\n\r\nwhole?")
        await read.wait()
        exchange.reset()

    read = asyncio.Event()
    async with pooled(endless) as (pool, _):
        ending = asyncio.create_task(asked(pool, HEAD))
        assert await eventually(lambda: any(each._connection._size for each in pool._open))
        read.set()
        assert Fault.TRUNCATED is (await ending)[0]


async def test_an_answer_without_length_ends_with_its_connection() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.write(b"HTTP/1.1 200 OK\r\n\r\nwhole")
        exchange.finish()

    async with pooled(endless) as (pool, peer):
        assert (200, b"whole") == await asked(pool, HEAD)
        assert (200, b"whole") == await asked(pool, HEAD)
        assert 2 == peer.connections


async def test_a_name_that_is_none_and_a_host_that_does_not_answer_are_unreachable() -> None:
    assert isinstance(ending := await fetch("http://no-such-host.invalid/", (), LIMITS, tls=TLS), Failure)
    assert Fault.UNREACHABLE is ending.fault
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]  # who knocks now waits in vain, as behind a firewall that drops
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        ending = await fetch(f"http://127.0.0.1:{port}/", (), LIMITS, tls=TLS, connect_s=0.05)
        for each in crowd:
            each.close()
    assert isinstance(ending, Failure)
    assert "expected a connection within 0.05 s" in ending.detail


async def test_fetch_gets_one_url_and_leaves_no_connection() -> None:
    heads: list[bytes] = []

    async def origin(exchange: Exchange) -> None:
        heads.append(exchange.head)
        await exchange.write(http(b"rates", more="etag: 1\r\n"))

    async with http_peer(origin) as peer:
        ending = await fetch(f"http://127.0.0.1:{peer.port}/a?b=c", (("x-key", "v"),), LIMITS, tls=TLS)
        assert isinstance(ending, Answer)
        assert (200, b"rates", "1") == (ending.status, ending.body, ending.fields["etag"])
        assert await eventually(lambda: peer.open == 0)
    assert heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-key: v\r\n" in heads[0]


# ------------------------------------------------------------------------------------------------- what is left behind


async def test_exchanges_leave_no_cycle_for_the_collector() -> None:
    async with serving(Echo()) as listener:
        pool = Pool(address(f"http://127.0.0.1:{listener.port}/"), LIMITS, connections_max=2)
        await asked(pool, HEAD)
        gc.collect()
        gc.disable()
        try:
            for _ in range(300):
                await asked(pool, HEAD, b"body")
            # Futures and tasks of this test have cycles of their own; none of ours grow with the exchanges.
            found = gc.collect()
        finally:
            gc.enable()
        await pool.close()
    assert found < 50


async def test_whatever_happened_nothing_is_left() -> None:
    async def moody(exchange: Exchange) -> None:
        mood = int(exchange.body) % 5
        if mood == 0:
            exchange.reset()
        elif mood == 1:
            await exchange.write(http(b"x")[:-1])
            exchange.finish()
        elif mood == 2:
            await exchange.write(http(b"x") + http(b"y"))
        elif mood == 3:
            await echoes(exchange)
        # and otherwise nothing, until it is withdrawn

    async def round_of(batches: int) -> None:
        ended: list[object] = []
        async with pooled(moody, connections_max=16) as (pool, _):
            for batch in range(batches):
                cancels = [pool.ask(HEAD, b"%d" % number, ended.append) for number in range(50)]
                for cancel in cancels[4::5]:
                    cancel()
                due = 40 * (batch + 1)
                assert await eventually(lambda due=due: len(ended) == due)  # type: ignore[misc]
            assert not pool._waiting
            assert len(pool._open) <= 16

    await round_of(1)  # what the loop keeps for good it has now
    before, tasks = descriptors(), len(asyncio.all_tasks())
    await round_of(10)
    assert await eventually(lambda: descriptors() <= before)
    assert await eventually(lambda: len(asyncio.all_tasks()) == tasks)


class Writes(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def test_what_came_in_one_read_is_answered_in_one_write() -> None:
    async with serving(Echo()) as listener:
        wire, conversation = Writes(), listener.conversation()
        conversation.connection_made(wire)
        conversation.data_received(get("/1") + get("/2") + get("/3"))
        conversation.connection_lost(None)
    (octets,) = wire.written
    assert 3 == octets.count(b" 200 OK")

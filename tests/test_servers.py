# Callers over every transport: the same endpoint behind gRPC and behind HTTP, and what reaches it, or does not.

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import grpc
import msgspec
import pytest
from google.protobuf import struct_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from auction.edge.transports import Cancel, Incoming, Outgoing, Status, settled
from auction.edge.transports import http as http_transport
from auction.edge.transports.grpcio import GrpcServer
from auction.edge.transports.http import TIMEOUT_HEADER, HttpServer, Page
from auction.edge.transports.wire import WireServer
from auction.model.clock import SystemClock
from auction.v1 import bidder_pb2, exchange_pb2, json_rest_pb2, openrtb_pb2

METHOD, PATH = "/auction.v1.Exchange/Auction", "/openrtb2/auction"
REQUEST_BYTES = 50_000
CLOCK = SystemClock()
JSON = {"content-type": "application/json"}
BOMB = gzip.compress(b"\0" * 5_000_000)


class Echo:
    """An endpoint that answers what it was asked, unless told otherwise, and remembers."""

    def __init__(self, answer: Outgoing | None = None) -> None:
        self.answer = answer
        self.heard: list[Incoming] = []
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    def __call__(self, incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        self.heard.append(incoming)
        self.asked.set()
        if incoming.body == b"hang":
            return self.cancelled.set
        if incoming.body == b"wait":
            asyncio.get_running_loop().call_later(0.02, done, Outgoing(b"waited"))
            return self.cancelled.set
        if incoming.body == b"raise":
            raise ZeroDivisionError("a secret")
        done(self.answer or Outgoing(incoming.body))
        return settled


class Told(msgspec.Struct):
    """What a caller hears, on either transport: gRPC's word for the status."""

    status: Status
    body: bytes = b""
    message: str = ""
    headers: dict[str, str] = {}


class Caller:
    """One ad server, on one transport."""

    def __init__(self, transport: str, port: int) -> None:
        self.transport = transport
        self._channel = aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._unary = cast("aio.UnaryUnaryMultiCallable[bytes, bytes]", self._channel.unary_unary(METHOD))
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    async def call(
        self, body: bytes, headers: dict[str, str] | None = None, timeout_ms: int | None = None, packed: bool = False
    ) -> Told:
        headers = dict(headers or {})
        if self.transport != "http":
            call = self._unary(
                body,
                timeout=None if timeout_ms is None else timeout_ms / 1000,
                metadata=tuple((name.lower(), text) for name, text in headers.items()),
                compression=grpc.Compression.Gzip if packed else None,
            )
            try:
                answer = await call
            except aio.AioRpcError as refusal:
                trailers = {name: str(text) for name, text in refusal.trailing_metadata() or ()}
                return Told(Status(refusal.code().value[0]), b"", refusal.details() or "", trailers)
            return Told(Status.OK, answer, "", {name: str(text) for name, text in await call.trailing_metadata()})
        if timeout_ms is not None:
            headers[TIMEOUT_HEADER] = str(timeout_ms)
        if packed:
            headers["content-encoding"] = "gzip"
            body = gzip.compress(body)
        async with self._session.post(PATH, data=body, headers={**JSON, **headers}) as answered:
            content = await answered.read()
            told = {name.lower(): text for name, text in answered.headers.items()}
            if answered.status in (200, 204):
                assert (answered.status == 204) == (not content)
                return Told(Status.OK, content, "", told)
            error = json.loads(content)["error"]
            message = f"{error['path']}: {error['message']}" if error["path"] else error["message"]
            return Told(Status[error["code"]], b"", message, {**told, "status": str(answered.status)})

    async def close(self) -> None:
        await self._channel.close()
        await self._session.close()


Server = GrpcServer | WireServer | HttpServer


SERVERS: dict[str, type[GrpcServer | WireServer]] = {"grpcio": GrpcServer, "wire": WireServer}


def listening(transport: str, endpoint: Echo, port: int = 0) -> Server:
    if transport != "http":
        return SERVERS[transport](endpoint, [METHOD], CLOCK, port=port, request_bytes=REQUEST_BYTES)
    pages = {"/healthz": lambda: Page(b"ok\n"), "/readyz": lambda: Page(b"not ready\n", status=503)}
    return HttpServer(endpoint, [PATH], CLOCK, port=port, pages=pages, request_bytes=REQUEST_BYTES)


@asynccontextmanager
async def serving(transport: str, endpoint: Echo) -> AsyncIterator[tuple[Server, Caller]]:
    server = listening(transport, endpoint)
    await server.start()
    caller = Caller(transport, server.port)
    try:
        yield server, caller
    finally:
        await caller.close()
        await server.stop(0.05)


every = pytest.mark.parametrize("transport", ["grpcio", "wire", "http"])
both = pytest.mark.parametrize("transport", ["grpcio", "wire"])


@every
async def test_bytes_arrive_and_return_as_they_are(transport: str) -> None:
    async with serving(transport, Echo()) as (_, caller):
        for body in (b"\x00\xff\n", b"x" * REQUEST_BYTES, b""):
            assert Told(Status.OK, body) == msgspec.structs.replace(await caller.call(body), headers={})


@every
async def test_an_endpoint_hears_where_from_and_how_long(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        await caller.call(b"{}", {"X-Auction-Explain": "1"}, timeout_ms=100_000)
        await caller.call(b"{}")
    first, second = echo.heard
    assert (PATH if transport == "http" else METHOD) == first.method
    assert "1" == first.metadata["x-auction-explain"]
    assert first.deadline is not None
    assert 50 < first.deadline.remaining(CLOCK.monotonic()) < 102
    assert second.deadline is None


@every
@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
async def test_a_refusal_is_its_status_and_one_sentence(transport: str, status: Status) -> None:
    refusal = Outgoing(status=status, message="expected >= 0, was -0.5", path="imp[2].bidfloor")
    async with serving(transport, Echo(refusal)) as (_, caller):
        told = await caller.call(b"{}")
    assert (status, "imp[2].bidfloor: expected >= 0, was -0.5") == (told.status, told.message)


@every
async def test_headers_of_an_answer_reach_the_caller(transport: str) -> None:
    async with serving(transport, Echo(Outgoing(headers=(("x-openrtb-nbr", "0"),)))) as (_, caller):
        told = await caller.call(b"{}")
    assert (Status.OK, b"", "0") == (told.status, told.body, told.headers["x-openrtb-nbr"])


@every
async def test_an_endpoint_that_fails_tells_nobody_why_but_the_log(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(transport, Echo()) as (_, caller):
        told = await caller.call(b"raise")
        assert (Status.INTERNAL, "internal error") == (told.status, told.message)
        assert Status.OK == (await caller.call(b"{}")).status
    assert 1 == caplog.text.count("ZeroDivisionError: a secret")


@every
async def test_what_is_too_large_never_reaches_the_endpoint(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        told = await caller.call(b"x" * (REQUEST_BYTES + 1))
        assert Status.INVALID_ARGUMENT == told.status
        assert f"expected at most {REQUEST_BYTES} bytes" in told.message
        assert Status.OK == (await caller.call(b"{}")).status
    assert [b"{}"] == [incoming.body for incoming in echo.heard]


@every
async def test_gzip_is_undone_within_limits(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        assert b"fair" * 1000 == (await caller.call(b"fair" * 1000, packed=True)).body
        bomb = await caller.call(b"\0" * 5_000_000, packed=True)
        assert (Status.INVALID_ARGUMENT if transport == "http" else Status.RESOURCE_EXHAUSTED) == bomb.status
    assert 1 == len(echo.heard)


@every
async def test_a_caller_that_hangs_up_cancels_its_call(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        call = asyncio.create_task(caller.call(b"hang"))
        await echo.asked.wait()
        call.cancel()
        await echo.cancelled.wait()


@both
async def test_a_call_whose_grpc_deadline_passes_is_cancelled(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        assert Status.DEADLINE_EXCEEDED == (await caller.call(b"hang", timeout_ms=200)).status
        await echo.cancelled.wait()


@every
async def test_stopping_lets_calls_finish_and_takes_no_more(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (server, caller):
        call = asyncio.create_task(caller.call(b"wait"))
        await echo.asked.wait()
        await server.stop(30)
        assert b"waited" == (await call).body
        assert not echo.cancelled.is_set()
        with pytest.raises(OSError, match=r"."):
            socket.create_connection(("127.0.0.1", server.port))


async def test_stopping_sends_idle_callers_away_while_a_call_goes_on() -> None:
    echo = Echo()
    async with serving("http", echo) as (server, caller):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"ok"))
        await reader.readuntil(b"\r\n\r\nok")
        echo.asked.clear()
        call = asyncio.create_task(caller.call(b"hang"))
        await echo.asked.wait()
        stop = asyncio.create_task(server.stop(3600))
        assert b"" == await reader.read()
        assert not stop.done()
        writer.close()
        call.cancel()
        await stop


@every
async def test_stopping_cancels_what_outlasts_the_grace(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (server, caller):
        call = asyncio.create_task(caller.call(b"hang"))
        await echo.asked.wait()
        await server.stop(0.01)
        await echo.cancelled.wait()
        if transport != "http":
            assert Status.UNAVAILABLE == (await call).status
        else:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await call


@every
async def test_a_port_in_use_is_an_error_that_names_it(transport: str) -> None:
    async with serving(transport, Echo()) as (server, _):
        with pytest.raises(OSError, match=str(server.port)):
            await listening(transport, Echo(), server.port).start()


@every
async def test_a_server_listens_on_loopback_unless_told(transport: str) -> None:
    async with serving(transport, Echo()) as (server, _):
        socket.create_connection(("127.0.0.1", server.port)).close()
        with pytest.raises(ConnectionRefusedError):  # as on any address of this machine but the one
            socket.create_connection(("127.0.0.2", server.port))


@both
async def test_health_is_not_serving_until_told_and_when_stopping(transport: str) -> None:
    serving_status = health_pb2.HealthCheckResponse.ServingStatus
    async with serving(transport, Echo()) as (server, caller):
        assert not isinstance(server, HttpServer)
        health = health_pb2_grpc.HealthStub(caller._channel)

        async def check(service: str) -> object:
            return (await health.Check(health_pb2.HealthCheckRequest(service=service))).status

        assert [serving_status.NOT_SERVING] * 2 == [await check(""), await check("auction")]
        await server.serving(True)
        assert [serving_status.SERVING] * 2 == [await check(""), await check("auction")]
        with pytest.raises(aio.AioRpcError) as unknown:
            await check("nobody")
        assert grpc.StatusCode.NOT_FOUND is unknown.value.code()
        watch = health.Watch(health_pb2.HealthCheckRequest(service="auction"))
        assert serving_status.SERVING == (await watch.read()).status
        await server.stop(3600)  # a watcher does not hold it


@both
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_what_is_served(version: str, transport: str) -> None:
    modules = (struct_pb2, openrtb_pb2, json_rest_pb2, exchange_pb2, bidder_pb2)
    files = [module.DESCRIPTOR.serialized_pb for module in modules]
    server = SERVERS[transport](Echo(), [METHOD], CLOCK, descriptors=files)
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        info = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services="*"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="auction.v1.Exchange"),
        ]
        listed, described = [answer async for answer in info(iter(asked))]
    await server.stop(0.05)
    assert {"auction.v1.Exchange", "grpc.health.v1.Health"} <= {
        service.name for service in listed.list_services_response.service
    }
    assert exchange_pb2.DESCRIPTOR.serialized_pb in described.file_descriptor_response.file_descriptor_proto


@both
async def test_an_unknown_grpc_method_is_unimplemented(transport: str) -> None:
    async with serving(transport, Echo()) as (_, caller):
        caller._unary = cast("aio.UnaryUnaryMultiCallable[bytes, bytes]", caller._channel.unary_unary(METHOD + "s"))
        assert Status.UNIMPLEMENTED == (await caller.call(b"{}")).status


@both
async def test_a_grpc_message_far_too_large_is_cut_off(transport: str) -> None:
    echo = Echo()
    async with serving(transport, echo) as (_, caller):
        assert Status.RESOURCE_EXHAUSTED == (await caller.call(b"x" * 1_000_000)).status
    assert echo.heard == []


async def raw(port: int, octets: bytes) -> bytes:
    """Say something on a socket and hear all that comes back before the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    head = [f"POST {PATH} HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *lines]
    if not any(line.startswith("content-type") for line in lines):
        head.append("content-type: application/json")
    return "\r\n".join([*head, "", ""]).encode() + body


# What is sent (with connection: close), the status line's number, and words of the answer.
BAD = {
    "another_type": (post(b"x", "content-type: text/xml"), 415, b"expected application/json, was text/xml"),
    "another_encoding": (post(b"x", "content-encoding: br"), 415, b"expected gzip or no encoding, was br"),
    "no_gzip": (post(b"nonsense" * 3, "content-encoding: gzip"), 400, b"no gzip"),
    "half_a_gzip": (post(gzip.compress(b"x")[:-3], "content-encoding: gzip"), 400, b"truncated gzip"),
    "more_behind_the_gzip": (post(gzip.compress(b"x") + b"nonsense" * 3, "content-encoding: gzip"), 400, b"no gzip"),
    "a_bomb": (post(BOMB, "content-encoding: gzip"), 400, b"expected at most 50000 bytes and 100 times"),
    "an_announced_excess": (post(b"", length=REQUEST_BYTES + 1), 400, b"expected at most 50000 bytes"),
    "a_chunked_excess": (
        post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        + b"ffff\r\n"
        + b"x" * 0xFFFF
        + b"\r\n0\r\n\r\n",
        400,
        b"expected at most 50000 bytes",
    ),
    "a_broken_chunk": (
        post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked") + b"nonsense\r\n",
        400,
        b"",
    ),
    "no_number": (post(b"x", f"{TIMEOUT_HEADER}: soon"), 400, b"expected whole milliseconds, was soon"),
    "a_negative_timeout": (post(b"x", f"{TIMEOUT_HEADER}: -1"), 400, b"expected whole milliseconds, was -1"),
    "a_huge_timeout": (post(b"x", f"{TIMEOUT_HEADER}: {'9' * 400}"), 400, b"expected whole milliseconds"),
    "another_method": (post(b"x").replace(b"POST", b"PUT"), 405, b"expected POST, was PUT"),
    "another_path": (post(b"x").replace(b"openrtb2", b"openrtb3"), 404, b"nothing is served here"),
    "a_page_posted_to": (post(b"x").replace(PATH.encode(), b"/healthz"), 405, b"expected GET, was POST"),
    "no_http": (b"\x05\x01\x00\r\n\r\n", 400, b""),
    "endless_headers": (post(b"x", *[f"x-{n}: {'y' * 100}" for n in range(1000)]), 400, b""),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_http_is_refused_by_name_and_reaches_no_endpoint(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_transport, "LINGER_S", 0.05)
    sent, status, words = BAD[name]
    echo = Echo()
    async with serving("http", echo) as (server, caller):
        answer = await raw(server.port, sent.replace(b"host: x", b"host: x\r\nconnection: close"))
        assert status == int(answer.split(b" ")[1])
        assert words in answer
        assert b"Traceback" not in answer
        assert b"aiohttp" not in answer or not words
        assert Status.OK == (await caller.call(b"{}")).status
    assert 1 == len(echo.heard)
    assert [] == [record for record in caplog.records if record.name.startswith(("auction", "aiohttp"))]


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "BODY_S", 0.02)
    monkeypatch.setattr(http_transport, "LINGER_S", 0.02)
    async with serving("http", Echo()) as (server, _):
        answer = await raw(server.port, post(b"begun", length=100))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"expected the body within 0.02 s" in answer


async def test_a_body_cut_short_reaches_no_endpoint() -> None:
    echo = Echo()
    async with serving("http", echo) as (server, caller):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"begun", length=100))
        writer.close()
        await writer.wait_closed()
        await caller.call(b"{}")
    assert [b"{}"] == [incoming.body for incoming in echo.heard]


async def test_overload_tells_when_to_come_back() -> None:
    async with serving("http", Echo(Outgoing(status=Status.RESOURCE_EXHAUSTED))) as (_, caller):
        told = await caller.call(b"{}")
    assert ("503", "1") == (told.headers["status"], told.headers["retry-after"])


async def test_a_caller_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async with serving("http", Echo()) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head, body = post(b"body", "expect: 100-continue").split(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"body" == await reader.readexactly(4)
        writer.close()
        await writer.wait_closed()


async def test_refusals_keep_the_connection() -> None:
    async with serving("http", Echo()) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for sent, status in ((post(b"x", "content-type: text/xml"), b"415"), (post(b"ok"), b"200")):
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            assert status == head.split(b" ")[1]
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()


async def test_pages_show_what_they_are_told() -> None:
    async with serving("http", Echo()) as (server, _):
        get = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        shown = await raw(server.port, get)
        assert shown.startswith(b"HTTP/1.1 200 OK\r\n")
        assert shown.endswith(b"\r\n\r\nok\n")
        assert (await raw(server.port, get.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
        not_ready = await raw(server.port, get.replace(b"healthz", b"readyz"))
        assert not_ready.startswith(b"HTTP/1.1 503 ")
        assert not_ready.endswith(b"\r\n\r\nnot ready\n")

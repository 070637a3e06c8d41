# Settings that reach a transport act alike on `grpcio` and on `wire`: at the port of gRPC (`server`, `limits`) and on
# the way to a bidder (`bidders[]`, `limits`). Each is made from a configuration, as a process makes it, and looked at
# from the other end of a socket. A table says for every setting which test shows it over both, or why no transport has
# it. One difference is known, and shown as well: the ratio of inflation.

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import a_request, bidder, bids, exchange, read_response

from auction.config import Config, every_setting, load
from auction.edge import tls
from auction.edge.transports import Cancel, Incoming, Outgoing, settled
from auction.edge.transports.grpcio import BID_METHOD, GrpcServer
from auction.edge.transports.wire import WireServer
from auction.exchange import METHODS, Exchange
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from auction.server.ports import Ports, Unstartable
from auction.server.ways import ways_to

TLS = Path(__file__).parent / "data" / "tls"
CLOCK = SystemClock()
# Inflated some nine hundred times, and more than what may inflate by any ratio.
ZEROES = bytes(200_000)
METHOD = next(method for method, encoding in METHODS.items() if encoding is Encoding.PROTOBUF)
BOTH = pytest.mark.parametrize("transport", ["grpcio", "wire"])

# Where each setting is seen over both transports: a test here, or in the file named.
SHOWN = {
    "server.host": "test_a_port_listens_on_its_host_alone",
    "server.port": "test_a_port_that_is_taken_is_named_and_zero_is_a_free_one",
    "server.workers": "test_workers_share_a_port_and_nobody_else_does",
    "server.transport": "test_servers.py::test_bytes_arrive_and_return_as_they_are",
    "server.tls.certificate": "test_a_port_shows_its_certificate_and_speaks_nothing_else",
    "server.tls.key": "test_a_port_shows_its_certificate_and_speaks_nothing_else",
    "server.tls.authorities": "test_with_authorities_a_caller_needs_a_certificate_of_theirs",
    "server.in_flight": "test_one_auction_too_many_is_refused_and_the_one_before_is_answered_through_a_stop",
    "server.notice_ms": "test_under_notice_health_says_so_and_calls_go_on_as_before",
    "server.drain_s": "test_servers.py::test_stopping_cancels_what_outlasts_the_grace",
    "server.connection_age_s": "test_server.py::test_a_connection_that_is_too_old_is_told_to_go",
    "server.connection_grace_s": "test_server.py::test_a_connection_is_cut_off_after_its_grace",
    "server.keepalive_s": "test_server.py::test_a_silent_connection_is_asked_and_dropped",
    "server.keepalive_timeout_s": "test_server.py::test_a_silent_connection_is_asked_and_dropped",
    "server.connection_streams": "test_server.py::test_calls_that_one_connection_may_have_open_are_told",
    "limits.request_bytes": "test_a_request_over_the_limit_is_refused_by_name",
    "limits.reply_bytes": "test_a_reply_over_the_limit_is_invalid",
    "limits.inflation_ratio": "test_the_ratio_of_inflation_is_kept_by_the_wire_alone",
    "bidders[].grpc": "test_a_bidder_is_asked_with_its_headers_at_its_address",
    "bidders[].transport": "test_transports.py::test_a_bidder_that_comes_back_is_asked_again",
    "bidders[].headers": "test_a_bidder_is_asked_with_its_headers_at_its_address",
    "bidders[].tls.authorities": "test_a_bidder_is_believed_by_its_authority_and_name",
    "bidders[].tls.name": "test_a_bidder_is_believed_by_its_authority_and_name",
    "bidders[].tls.certificate": "test_a_bidder_that_asks_for_a_certificate_is_shown_ours",
    "bidders[].tls.key": "test_a_bidder_that_asks_for_a_certificate_is_shown_ours",
}

_JSON = "of the JSON port, which has one transport"
_CORE = "of the core, which is handed the same octets"
_TIME = "of the core, which tells a transport a deadline"

# Why no transport of gRPC has a setting.
ELSEWHERE = {
    "server.http_port": _JSON,
    "server.http_tls.certificate": _JSON,
    "server.http_tls.key": _JSON,
    "server.http_tls.authorities": _JSON,
    "limits.imps": _CORE,
    "limits.deals_per_imp": _CORE,
    "limits.depth": _CORE,
    "limits.bids_per_reply": _CORE,
    "bidders[].name": _CORE,
    "bidders[].http": "a way without gRPC",
    "bidders[].currency": _CORE,
    "bidders[].seats": _CORE,
    "bidders[].blocked_creatives": _CORE,
    "bidders[].media": _CORE,
    "bidders[].min_ms": _TIME,
    "bidders[].network_ms": _TIME,
    "bidders[].timeout_ms": _TIME,
}


def test_every_setting_is_shown_over_both_transports_or_has_a_reason() -> None:
    settings = {name for name, _ in every_setting() if name.startswith(("server.", "limits.", "bidders[]."))}
    assert settings == SHOWN.keys() | ELSEWHERE.keys()
    assert not SHOWN.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("test", sorted(set(SHOWN.values())))
def test_each_test_of_the_table_is_run_over_both_transports(test: str) -> None:
    file, _, name = test.rpartition("::")
    found = getattr(importlib.import_module(file.removesuffix(".py")), name) if file else globals()[name]
    rows = [row for mark in found.pytestmark if mark.name == "parametrize" for row in mark.args[1]]
    values = {value for row in rows for value in (row if isinstance(row, tuple) else (row,)) if isinstance(value, str)}
    assert {"grpcio", "wire"} <= values


# Both ends.


class Heard:
    """An endpoint that answers what it was asked; `wait` waits until `release` is set."""

    def __init__(self) -> None:
        self.all: list[Incoming] = []
        self.asked, self.release = asyncio.Event(), asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()

    def __call__(self, incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        self.all.append(incoming)
        self.asked.set()
        if incoming.body != b"wait":
            done(Outgoing(incoming.body))
            return settled
        task = asyncio.create_task(self._later(partial(done, Outgoing(b"waited"))))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return settled

    async def _later(self, answer: Callable[[], None]) -> None:
        await self.release.wait()
        answer()


def configured(folder: Path, transport: str, *bidders: dict[str, Any], **sections: dict[str, Any]) -> Config:
    file = folder / f"{transport}.yaml"
    server = {"port": 0, "http_port": 0, "transport": transport, **sections.pop("server", {})}
    of_bidders = [{"name": f"dsp-{row}", "transport": transport, **given} for row, given in enumerate(bidders)]
    file.write_text(json.dumps({"server": server, "bidders": of_bidders, **sections}))
    return load(file, {})


def ports_of(config: Config, endpoint: Heard, shared: bool = False) -> Ports:
    return Ports(cast("Exchange", endpoint), config, CLOCK, {}, shared)


@asynccontextmanager
async def ports(config: Config, endpoint: Heard, shared: bool = False) -> AsyncIterator[Ports]:
    opened = ports_of(config, endpoint, shared)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close(0)


@asynccontextmanager
async def calling(port: int, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    where = f"127.0.0.1:{port}"
    if credentials is None:
        channel = aio.insecure_channel(where, options=options)
    else:
        channel = aio.secure_channel(where, credentials, options=options)
    async with channel:
        yield channel


async def told(channel: aio.Channel, body: bytes, compression: grpc.Compression | None = None) -> tuple[str, object]:
    """Call, and give the status with the answer, or with what was said in its place."""
    try:
        call = cast("aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary(METHOD))
        answer = await call(body, compression=compression)
    except aio.AioRpcError as refusal:
        return refusal.code().name, refusal.details()
    return "OK", answer


# Ports.


@BOTH
async def test_a_port_listens_on_its_host_alone(transport: str, tmp_path: Path) -> None:
    async with ports(configured(tmp_path, transport, server={"host": "127.0.0.2"}), Heard()) as opened:
        _, writer = await asyncio.open_connection("127.0.0.2", opened.grpc.port)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", opened.grpc.port)


@BOTH
async def test_a_port_that_is_taken_is_named_and_zero_is_a_free_one(transport: str, tmp_path: Path) -> None:
    async with ports(configured(tmp_path, transport), Heard()) as opened:
        port = opened.grpc.port
        assert port > 0
        second = ports_of(configured(tmp_path, transport, server={"port": port}), Heard())
        with pytest.raises(Unstartable, match=f"^server.port: cannot listen on 127.0.0.1:{port}, "):
            await second.open()
        await second.close(0)


@BOTH
async def test_workers_share_a_port_and_nobody_else_does(transport: str, tmp_path: Path) -> None:
    async with ports(configured(tmp_path, transport), Heard(), shared=True) as first:
        server = {"port": first.grpc.port}
        async with ports(configured(tmp_path, transport, server=server), Heard(), shared=True) as second:
            assert first.grpc.port == second.grpc.port
        alone = ports_of(configured(tmp_path, transport, server=server), Heard())
        with pytest.raises(Unstartable, match=r"^server.port: "):
            await alone.open()
        await alone.close(0)


@BOTH
async def test_under_notice_health_says_so_and_calls_go_on_as_before(transport: str, tmp_path: Path) -> None:
    heard = Heard()
    async with ports(configured(tmp_path, transport), heard) as opened, calling(opened.grpc.port) as channel:
        await opened.grpc.serving(True)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="auction"))
        serving = health_pb2.HealthCheckResponse.ServingStatus
        assert serving.SERVING == (await watch.read()).status
        before = asyncio.create_task(told(channel, b"wait"))
        await heard.asked.wait()
        await opened.leave()
        assert serving.NOT_SERVING == (await watch.read()).status
        assert ("OK", b"after") == await told(channel, b"after")
        heard.release.set()
        assert ("OK", b"waited") == await before
        watch.cancel()


@BOTH
async def test_a_request_over_the_limit_is_refused_by_name(transport: str, tmp_path: Path) -> None:
    heard = Heard()
    config = configured(tmp_path, transport, limits={"request_bytes": 1000})
    async with ports(config, heard) as opened, calling(opened.grpc.port) as channel:
        for compression in (None, grpc.Compression.Gzip):
            assert ("OK", b"x" * 1000) == await told(channel, b"x" * 1000, compression)
            refused = await told(channel, b"x" * 1001, compression)
            assert ("INVALID_ARGUMENT", "expected at most 1000 bytes, were 1001") == refused
    assert 2 == len(heard.all)


@pytest.mark.parametrize(
    ("transport", "ratio", "status"),
    [("grpcio", 10, "OK"), ("wire", 10, "RESOURCE_EXHAUSTED"), ("wire", 1000, "OK")],
)
async def test_the_ratio_of_inflation_is_kept_by_the_wire_alone(
    transport: str, ratio: int, status: str, tmp_path: Path
) -> None:
    # grpcio does not tell how small a message was; there the size limits alone bound what it becomes.
    config = configured(tmp_path, transport, limits={"request_bytes": len(ZEROES), "inflation_ratio": ratio})
    async with ports(config, Heard()) as opened, calling(opened.grpc.port) as channel:
        assert "OK" == (await told(channel, ZEROES))[0]
        assert status == (await told(channel, ZEROES, grpc.Compression.Gzip))[0]


def pem(name: str) -> bytes:
    return (TLS / name).read_bytes()


def identity(name: str, **more: str) -> dict[str, str]:
    return {"certificate": str(TLS / f"{name}.pem"), "key": str(TLS / f"{name}.key"), **more}


@BOTH
async def test_a_port_shows_its_certificate_and_speaks_nothing_else(transport: str, tmp_path: Path) -> None:
    config = configured(tmp_path, transport, server={"tls": identity("first")})
    async with ports(config, Heard()) as opened:
        async with calling(opened.grpc.port, grpc.ssl_channel_credentials(pem("authority.pem"))) as channel:
            assert ("OK", b"hello") == await told(channel, b"hello")
        async with calling(opened.grpc.port, grpc.ssl_channel_credentials(pem("other.pem"))) as channel:
            assert "UNAVAILABLE" == (await told(channel, b"hello"))[0]
        async with calling(opened.grpc.port) as channel:
            assert "UNAVAILABLE" == (await told(channel, b"hello"))[0]


@BOTH
@pytest.mark.parametrize(("name", "status"), [("second", "OK"), ("stranger", "UNAVAILABLE"), (None, "UNAVAILABLE")])
async def test_with_authorities_a_caller_needs_a_certificate_of_theirs(
    name: str | None, status: str, transport: str, tmp_path: Path
) -> None:
    server = {"tls": identity("first", authorities=str(TLS / "authority.pem"))}
    shown = (pem(f"{name}.key"), pem(f"{name}.pem")) if name else (None, None)
    credentials = grpc.ssl_channel_credentials(pem("authority.pem"), *shown)
    async with (
        ports(configured(tmp_path, transport, server=server), Heard()) as opened,
        calling(opened.grpc.port, credentials) as channel,
    ):
        assert status == (await told(channel, b"hello"))[0]


# A process, because what takes auctions on and stops in order is one.


@BOTH
def test_one_auction_too_many_is_refused_and_the_one_before_is_answered_through_a_stop(
    transport: str, tmp_path: Path
) -> None:
    # The bidder is held for as long as the test likes: no deadline comes before.
    patient = {"tmax_ms": 60_000, "tmax_max_ms": 60_000}
    with bidder(bids(2.0)) as dsp_a:
        server = {"transport": transport, "in_flight": 1}
        given = {"bidders": [{"name": "dsp-a", "http": dsp_a.url}], "exchange": patient, "server": server}
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            first = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            second = served.ask(a_request())
            with pytest.raises(grpc.RpcError):
                second.result()
            refusal = (second.code().name, second.details(), [tuple(each) for each in second.trailing_metadata()])
            assert ("RESOURCE_EXHAUSTED", "too many auctions in flight", []) == refusal
            served.process.terminate()
            served.until("draining")
            dsp_a.release()
            assert "seatbid" in read_response(first.result())
            assert 0 == served.wait()


# Ways to bidders.


@asynccontextmanager
async def dsp(endpoint: Callable[..., Cancel], contexts: tls.ServerContexts | None = None) -> AsyncIterator[WireServer]:
    server = WireServer(endpoint, [BID_METHOD], CLOCK, tls=contexts)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def asked(config: Config, body: bytes = b"reply") -> tuple[str, bytes, str]:
    """Ask the only bidder of a configuration; give the status, the reply and what went wrong."""
    (way,) = ways_to(config, CLOCK, {}).values()
    ended: asyncio.Future[tuple[str, bytes, str]] = asyncio.get_running_loop().create_future()

    def done(status: ReplyStatus, body: bytes, detail: str) -> None:
        ended.set_result((status.name, body, detail))

    await way.connection.open()
    try:
        # Longer than a connection may take to fail.
        way.connection.bid(Invitation("dsp-0", Encoding.PROTOBUF, body, (0,)), Deadline(CLOCK.monotonic() + 20), done)
        return await ended
    finally:
        await way.connection.close()


@BOTH
async def test_a_bidder_is_asked_with_its_headers_at_its_address(transport: str, tmp_path: Path) -> None:
    heard = Heard()
    async with dsp(heard) as server:
        given = {"grpc": f"localhost:{server.port}", "headers": {"x-api-key": "k", "x-partner": "auction"}}
        assert ("BID", b"reply", "") == await asked(configured(tmp_path, transport, given))
    (incoming,) = heard.all
    assert {"x-api-key": "k", "x-partner": "auction"}.items() <= incoming.metadata.items()


@BOTH
async def test_a_reply_over_the_limit_is_invalid(transport: str, tmp_path: Path) -> None:
    async with dsp(Heard()) as server:
        config = configured(tmp_path, transport, {"grpc": f"127.0.0.1:{server.port}"}, limits={"reply_bytes": 1000})
        assert ("BID", b"x" * 1000, "") == await asked(config, b"x" * 1000)
        status, _, detail = await asked(config, b"x" * 1001)
        assert ("INVALID", "RESOURCE_EXHAUSTED") == (status, detail.partition(":")[0])


@pytest.mark.parametrize(
    ("transport", "ratio", "status"), [("grpcio", 10, "BID"), ("wire", 10, "INVALID"), ("wire", 1000, "BID")]
)
async def test_the_ratio_of_a_replys_inflation_is_kept_by_the_wire_alone(
    transport: str, ratio: int, status: str, tmp_path: Path
) -> None:
    def squeezable(incoming: Incoming, done: Callable[[Outgoing], None]) -> Cancel:
        done(Outgoing(ZEROES))
        return settled

    server = GrpcServer(squeezable, [BID_METHOD], CLOCK)
    server._options = (*server._options, ("grpc.default_compression_algorithm", 2))
    await server.start()
    limits = {"reply_bytes": len(ZEROES), "inflation_ratio": ratio}
    try:
        config = configured(tmp_path, transport, {"grpc": f"127.0.0.1:{server.port}"}, limits=limits)
        assert status == (await asked(config))[0]
    finally:
        await server.stop(0)


def contexts(name: str, authorities: str | None = None) -> tls.ServerContexts:
    believed = TLS / f"{authorities}.pem" if authorities else None
    return tls.ServerContexts(["h2"], tls.Files(TLS / f"{name}.pem", TLS / f"{name}.key", believed))


@BOTH
@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"authorities": str(TLS / "authority.pem")}, "BID"),
        ({"authorities": str(TLS / "authority.pem"), "name": "localhost"}, "BID"),
        ({"authorities": str(TLS / "authority.pem"), "name": "another.example"}, "UNREACHABLE"),
        ({"authorities": str(TLS / "other.pem")}, "UNREACHABLE"),
        ({}, "UNREACHABLE"),  # the system believes none of these
        (None, "UNREACHABLE"),  # plaintext
    ],
    ids=["believed", "named", "named wrongly", "another authority", "the system's", "plaintext"],
)
async def test_a_bidder_is_believed_by_its_authority_and_name(
    given: dict[str, str] | None, status: str, transport: str, tmp_path: Path
) -> None:
    async with dsp(Heard(), contexts("first")) as server:
        way: dict[str, Any] = {"grpc": f"127.0.0.1:{server.port}"}
        if given is not None:
            way["tls"] = given
        found, _, detail = await asked(configured(tmp_path, transport, way))
    assert (status, status != "BID") == (found, bool(detail))


@BOTH
@pytest.mark.parametrize(
    ("name", "status"), [("second", "BID"), ("stranger", "UNREACHABLE"), (None, "UNREACHABLE")], ids=str
)
async def test_a_bidder_that_asks_for_a_certificate_is_shown_ours(
    name: str | None, status: str, transport: str, tmp_path: Path
) -> None:
    believed = {"authorities": str(TLS / "authority.pem")}
    given = identity(name, **believed) if name else believed
    async with dsp(Heard(), contexts("first", "authority")) as server:
        config = configured(tmp_path, transport, {"grpc": f"127.0.0.1:{server.port}", "tls": given})
        assert status == (await asked(config))[0]

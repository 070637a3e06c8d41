# TLS as it is configured: both ports, bidders over every transport, files that are renewed or cannot be used.
#
# Certificates: tests/test_tls.py. A bidder here is grpcio's own server, so that neither side of a call is only ours.

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from processes import (
    METHOD,
    PATIENCE_S,
    ExchangeProcess,
    a_request,
    command,
    configure,
    exchange,
    message_of,
    read_response,
)

from auction import replay
from auction.config import ConfigFaults, load, what_needs_restart
from auction.edge import eventlog, tls
from auction.edge.tls import Files
from auction.edge.transports.grpcio import GrpcBidder
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from auction.v1 import openrtb_pb2

DATA = Path(__file__).parent / "data" / "tls"
UNHURRIED = {"tmax_ms": 60_000, "tmax_max_ms": 60_000, "reply_reserve_ms": 60_000}

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "wire"])


def content(name: str) -> bytes:
    return (DATA / name).read_bytes()


def shows(name: str, folder: Path = DATA, authorities: str | None = None) -> dict[str, str]:
    """Settings of who shows a certificate, and believes these authorities."""
    shown = {"certificate": str(folder / f"{name}.pem"), "key": str(folder / f"{name}.key")}
    return {**shown, "authorities": str(DATA / f"{authorities}.pem")} if authorities else shown


BELIEVES = {"authorities": str(DATA / "authority.pem")}


@contextmanager
def bidder(name: str = "first", mutual: bool = False) -> Iterator[str]:
    """A bidder over gRPC and TLS that bids 2 for the first impression; gives where it is."""

    def bid(body: bytes, context: Any) -> bytes:
        request = openrtb_pb2.BidRequest.FromString(body)
        response = openrtb_pb2.BidResponse(id=request.id, cur="USD")
        response.seatbid.add(seat="s").bid.add(id="b1", impid=request.imp[0].id, price=2, adm="<b>")
        return response.SerializeToString()

    server = grpc.server(ThreadPoolExecutor(2))
    calls = {"Bid": grpc.unary_unary_rpc_method_handler(bid)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("auction.v1.Bidder", calls),))
    pair = ((content(f"{name}.key"), content(f"{name}.pem")),)
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials(pair, content("authority.pem"), require_client_auth=mutual)
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(PATIENCE_S)


@contextmanager
def serving(folder: Path, transport: str = "wire", **sections: Any) -> Iterator[ExchangeProcess]:
    server = {"transport": transport, **sections.pop("server", {})}
    given = {"server": server, "exchange": UNHURRIED, "log": {"dir": str(folder / "log")}, **sections}
    with exchange(folder, given) as served:
        yield served


def called(served: ExchangeProcess, showing: str | None = None) -> Any:
    """Call over TLS on a connection of its own; the answer, or the name of the status."""
    key, chain = (content(f"{showing}.key"), content(f"{showing}.pem")) if showing else (None, None)
    credentials = grpc.ssl_channel_credentials(content("authority.pem"), key, chain)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    with grpc.secure_channel(served.ready["grpc"], credentials, options) as channel:
        return ended(channel)


def ended(channel: grpc.Channel) -> Any:
    call = channel.unary_unary(METHOD)
    try:
        return read_response(call(message_of(a_request()), timeout=PATIENCE_S))
    except grpc.RpcError as failed:
        return failed.code().name


def shown_at(served: ExchangeProcess, door: str, protocol: str) -> str:
    """Connect, and tell whose certificate is shown."""
    where = urlsplit(served.ready[door]).netloc or served.ready[door]
    host, _, port = where.rpartition(":")
    context = ssl.create_default_context(cafile=DATA / "authority.pem")
    context.set_alpn_protocols([protocol])
    plain = socket.create_connection((host, int(port)), PATIENCE_S)
    with context.wrap_socket(plain, server_hostname=host) as secured:
        der = secured.getpeercert(binary_form=True)
        assert protocol == secured.selected_alpn_protocol()
    assert der is not None
    return next(
        name for name in ("first", "second") if ssl.PEM_cert_to_DER_cert(content(f"{name}.pem").decode()) == der
    )


def replies(served: ExchangeProcess, log: Path) -> list[tuple[str, str]]:
    """What the log has of each reply, once the exchange has ended."""
    assert 0 == served.end()
    auctions = list(replay.auctions(eventlog.read([log], lambda fault: pytest.fail(str(fault)))))
    return [(reply.status.name, reply.detail) for auction in auctions for reply in auction.recorded.replies]


# Callers.


@TRANSPORTS
def test_callers_over_tls_are_answered_and_others_refused(transport: str, tmp_path: Path) -> None:
    with serving(tmp_path, transport, server={"tls": shows("first")}) as served:
        assert "r1" == called(served)["id"]
        assert "UNAVAILABLE" == ended(served.channel)  # it speaks plaintext
        with grpc.secure_channel(served.ready["grpc"], grpc.ssl_channel_credentials(content("other.pem"))) as other:
            assert "UNAVAILABLE" == ended(other)


@TRANSPORTS
def test_with_authorities_only_callers_that_one_of_them_signed_are_answered(transport: str, tmp_path: Path) -> None:
    with serving(tmp_path, transport, server={"tls": shows("first", authorities="authority")}) as served:
        assert "r1" == called(served, showing="second")["id"]
        assert ["UNAVAILABLE", "UNAVAILABLE"] == [called(served), called(served, showing="stranger")]


def test_the_json_port_has_tls_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path, server={"http_tls": shows("second")}) as served:
        url = urlsplit(served.ready["http"])
        assert "https" == url.scheme
        context = ssl.create_default_context(cafile=DATA / "authority.pem")
        connection = http.client.HTTPSConnection(url.netloc, timeout=PATIENCE_S, context=context)
        connection.request("POST", "/openrtb2/auction", json.dumps(a_request()), {"content-type": "application/json"})
        assert 204 == connection.getresponse().status
        connection.close()
        assert "r1" == served.grpc(a_request())["id"]  # the other stays as it is


@TRANSPORTS
def test_workers_share_ports_over_tls(transport: str, tmp_path: Path) -> None:
    with serving(tmp_path, transport, server={"tls": shows("first"), "workers": 2}) as served:
        assert ["r1"] * 8 == [called(served)["id"] for _ in range(8)]


# Bidders.


@TRANSPORTS
@pytest.mark.parametrize(
    ("tls", "mutual", "status", "detail"),
    [
        (BELIEVES, False, "BID", ""),
        ({**BELIEVES, **shows("second")}, True, "BID", ""),
        ({**BELIEVES, "name": "localhost"}, False, "BID", ""),
        ({**BELIEVES, "name": "bid.dsp.example"}, False, "UNREACHABLE", "certificate|handshake|hostname"),
        ({"authorities": str(DATA / "other.pem")}, False, "UNREACHABLE", "certificate|handshake|hostname"),
        ({}, False, "UNREACHABLE", "certificate|handshake|hostname"),
        (BELIEVES, True, "UNREACHABLE", ""),
        (None, False, "UNREACHABLE", ""),
    ],
    ids=[
        "believed",
        "mutual",
        "named",
        "another_name",
        "another_authority",
        "the_systems",
        "no_certificate",
        "plaintext",
    ],
)
def test_a_bidder_is_asked_where_its_tls_is_as_set(
    transport: str, tls: dict[str, str] | None, mutual: bool, status: str, detail: str, tmp_path: Path
) -> None:
    with bidder(mutual=mutual) as where:
        asked = {"name": "dsp-a", "grpc": where, "transport": transport, "tls": tls}
        with serving(tmp_path, transport, bidders=[asked]) as served:
            served.grpc(a_request())
            ((found, told),) = replies(served, tmp_path / "log")
    assert status == found
    assert re.search(detail, told, re.IGNORECASE)


# Renewal.


def renew(folder: Path, name: str, key: str | None = None) -> None:
    """Put another certificate in place, in the steps of somebody who does not think of readers."""
    for source, suffix in ((name, ".pem"), (key or name, ".key")):
        beside = folder / f"new{suffix}"
        shutil.copy(DATA / f"{source}{suffix}", beside)
        beside.replace(folder / f"used{suffix}")


@TRANSPORTS
def test_renewed_files_are_shown_to_the_next_caller_and_no_call_is_lost(transport: str, tmp_path: Path) -> None:
    renew(tmp_path, "first")
    secured = {"tls": shows("used", tmp_path), "http_tls": shows("used", tmp_path)}
    with serving(tmp_path, transport, server=secured) as served:
        before = grpc.secure_channel(served.ready["grpc"], grpc.ssl_channel_credentials(content("authority.pem")))
        assert "r1" == ended(before)["id"]
        assert ["first", "first"] == [shown_at(served, "grpc", "h2"), shown_at(served, "http", "http/1.1")]
        renew(tmp_path, "second")
        assert ["second", "second"] == [shown_at(served, "grpc", "h2"), shown_at(served, "http", "http/1.1")]
        assert "r1" == ended(before)["id"]
        before.close()


@TRANSPORTS
def test_files_that_do_not_fit_each_other_leave_the_ones_before_in_use_and_are_counted(
    transport: str, tmp_path: Path
) -> None:
    renew(tmp_path, "first")
    with serving(tmp_path, transport, server={"tls": shows("used", tmp_path)}) as served:
        refused = 'auction_tls_refused_renewals_total{of="server.tls"}'
        assert 0 == served.metric(refused)
        renew(tmp_path, "second", key="first")
        assert ["first", "first"] == [shown_at(served, "grpc", "h2") for _ in range(2)]
        assert 1 == served.metric(refused)
        assert str(tmp_path / "used.key") in served.until("certificates cannot be used, the old ones stay")["why"]
        renew(tmp_path, "second")
        assert "second" == shown_at(served, "grpc", "h2")
        ends = served.metric('auction_tls_certificate_expiry_timestamp_seconds{of="server.tls"}')
    assert 4_949_465_498 == ends


async def test_a_bidder_over_grpcio_is_shown_renewed_files(tmp_path: Path) -> None:
    renew(tmp_path, "stranger")
    contents = tls.contents(Files.of(*(shows("used", tmp_path, "authority").values())))
    with bidder(mutual=True) as where:
        clock = SystemClock()
        connection = GrpcBidder(where, clock, secured=contents, renew_s=0.001)
        await connection.open()
        try:
            before = await ask(connection, clock)
            renew(tmp_path, "second")
            async with asyncio.timeout(PATIENCE_S):
                while (status := await ask(connection, clock)) is not ReplyStatus.BID:
                    pass
        finally:
            await connection.close()
    assert (ReplyStatus.UNREACHABLE, ReplyStatus.BID) == (before, status)


async def ask(connection: GrpcBidder, clock: SystemClock) -> ReplyStatus:
    ended: asyncio.Future[ReplyStatus] = asyncio.get_running_loop().create_future()
    invitation = Invitation("dsp-a", Encoding.PROTOBUF, message_of(a_request()), (0,))
    deadline = Deadline(clock.monotonic() + PATIENCE_S)
    connection.bid(invitation, deadline, lambda status, body, detail: ended.set_result(status))
    return await ended


# What is wrong with it.


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"server": {"tls": {"certificate": "a"}}}, "server.tls.key: expected a value, was nothing"),
        ({"server": {"http_tls": {"key": "a"}}}, "server.http_tls.certificate: expected a value, was nothing"),
        (
            {"bidders": [{"name": "a", "grpc": "a:1", "tls": {"key": "k"}}]},
            "bidders[0].tls.key: expected certificate beside it, was none",
        ),
        (
            {"bidders": [{"name": "a", "grpc": "a:1", "tls": {"certificate": "c"}}]},
            "bidders[0].tls.certificate: expected key beside it, was none",
        ),
        (
            {"bidders": [{"name": "a", "http": "http://a/", "tls": {}}]},
            "bidders[0].tls: expected an https URL beside it, was http",
        ),
        ({"server": {"tls": {"certificate": "a", "key": "a", "ca": "b"}}}, "server.tls.ca: unknown setting"),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_name(settings: dict[str, Any], fault: str, tmp_path: Path) -> None:
    configure(tmp_path / "config.yaml", settings)
    with pytest.raises(ConfigFaults) as refused:
        load(tmp_path / "config.yaml", {})
    assert [fault] == [str(one).partition(" (")[0] for one in refused.value.faults]


@TRANSPORTS
def test_a_start_with_files_that_cannot_be_used_ends_with_one_line(transport: str, tmp_path: Path) -> None:
    absent = {"certificate": str(tmp_path / "none.pem"), "key": str(DATA / "first.key")}
    unlike = {"certificate": str(DATA / "first.pem"), "key": str(DATA / "second.key")}
    for settings, code, words in (
        ({"server": {"tls": absent}}, 1, f"server.tls.certificate: expected a file to read, was {tmp_path}/none.pem"),
        ({"server": {"http_tls": unlike}}, 1, "server.http_tls.key: expected the key of"),
        (
            {"bidders": [{"name": "a", "grpc": "127.0.0.1:1", "transport": transport, "tls": unlike}]},
            2,
            "bidders[0].tls.key: expected the key of",
        ),
    ):
        server = {"port": 0, "http_port": 0, "transport": transport, **settings.get("server", {})}
        configure(tmp_path / "config.yaml", {**settings, "server": server})
        ended = command("serve", "--config", tmp_path / "config.yaml")
        (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
        assert (code, "") == (ended.returncode, ended.stdout)
        assert words in line


def test_a_reload_with_files_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    with bidder() as where:
        asked = {"name": "dsp-a", "grpc": where, "tls": BELIEVES}
        with serving(tmp_path, bidders=[asked]) as served:
            assert served.grpc(a_request())["seatbid"]
            settings = json.loads(served.config.read_text())
            settings["bidders"][0]["tls"] = {"authorities": str(tmp_path / "none.pem")}
            configure(served.config, settings)
            reloaded = served.command("reload")
            assert 0 != reloaded.returncode
            assert "bidders[0].tls.authorities: expected a file to read" in reloaded.stdout + reloaded.stderr
            assert served.grpc(a_request())["seatbid"]


def test_tls_of_a_port_needs_a_restart_and_that_of_a_bidder_none(tmp_path: Path) -> None:
    configure(tmp_path / "a.yaml", {})
    configure(tmp_path / "b.yaml", {"server": {"tls": shows("first")}, "bidders": [
        {"name": "a", "grpc": "a:1", "tls": {}}]})  # fmt: skip
    before, after = (load(tmp_path / name, {}) for name in ("a.yaml", "b.yaml"))
    changed = {"server.tls.certificate", "server.tls.key"}
    assert changed == set(what_needs_restart(before, after)) == set(what_needs_restart(after, before))


def test_tls_is_set_in_the_environment_too() -> None:
    environ = {"AUCTION_SERVER__TLS__CERTIFICATE": "/c", "AUCTION_SERVER__TLS__KEY": "/k"}
    found = load(None, environ).server.tls
    assert found is not None
    assert ("/c", "/k", None) == (found.certificate, found.key, found.authorities)

# TLS at the edge: who is believed, what is spoken, and certificates that change while we run.
#
# tests/data/tls has two authorities, whose keys were thrown away, `first` and `second` by the one and `stranger` by the
# other, each for localhost and 127.0.0.1, for a hundred years. Nobody trusts them but these tests.

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from auction.edge.tls import ClientContexts, Files, ServerContexts, Unusable, expiry
from auction.edge.transports import Cancel, Incoming, Outgoing, settled
from auction.edge.transports.http import HttpBidder, HttpServer
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus

DATA = Path(__file__).parent / "data" / "tls"
CLOCK = SystemClock()


def identity(name: str, authorities: str | None = None) -> Files:
    believed = DATA / f"{authorities}.pem" if authorities else None
    return Files(DATA / f"{name}.pem", DATA / f"{name}.key", believed)


def believing(authorities: str, name: str | None = None) -> ClientContexts:
    files = identity(name, authorities) if name else Files(authorities=DATA / f"{authorities}.pem")
    return ClientContexts(["http/1.1"], files)


def answer(incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
    done(Outgoing(b"reply" + incoming.body))
    return settled


@asynccontextmanager
async def serving(files: Files, host: str = "127.0.0.1") -> AsyncIterator[HttpServer]:
    tls = ServerContexts(["http/1.1"], files)
    server = HttpServer(answer, ["/bid"], CLOCK, host=host, request_bytes=1000, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.0)


async def asked(port: int, tls: ClientContexts | None, host: str = "localhost", body: bytes = b"") -> tuple[str, str]:
    """Ask over a connection of its own; give the status, and the body or what went wrong."""
    bidder = HttpBidder(f"https://{host}:{port}/bid", tls=tls, connections=1)
    await bidder.open()
    ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def done(status: ReplyStatus, body: bytes, detail: str) -> None:
        ended.set_result((status.name, body.decode() or detail))

    bidder.bid(Invitation("bidder", Encoding.JSON, body, (0,)), Deadline(CLOCK.monotonic() + 10), done)
    try:
        return await ended
    finally:
        await bidder.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_bidder_over_tls_is_asked_when_its_authority_is_believed(host: str) -> None:
    async with serving(identity("first")) as server:
        assert ("BID", "reply") == await asked(server.port, believing("authority"), host)


@pytest.mark.parametrize("tls", [None, believing("other")], ids=["the_systems_authorities", "another_authority"])
async def test_a_bidder_whose_authority_is_not_believed_is_unreachable(tls: ClientContexts | None) -> None:
    async with serving(identity("first")) as server:
        status, detail = await asked(server.port, tls)
    assert "UNREACHABLE" == status
    assert "CERTIFICATE_VERIFY_FAILED" in detail


async def test_a_bidder_under_another_name_is_unreachable() -> None:
    async with serving(identity("first"), "127.0.0.2") as server:
        # An address of this machine that the certificate does not name.
        status, detail = await asked(server.port, believing("authority"), "127.0.0.2")
    assert "UNREACHABLE" == status
    assert "IP address mismatch" in detail


async def test_http_1_1_is_agreed_on() -> None:
    async with serving(identity("first")) as server:
        context = ssl.create_default_context(cafile=DATA / "authority.pem")
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        agreed: ssl.SSLObject = writer.get_extra_info("ssl_object")
        assert "http/1.1" == agreed.selected_alpn_protocol()
        writer.write(b"GET /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404 ")
        writer.close()


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    contexts = (ServerContexts(["http/1.1"], identity("first"))(), believing("authority")())
    assert [ssl.TLSVersion.TLSv1_2] * 2 == [context.minimum_version for context in contexts]


async def test_a_body_larger_than_a_record_goes_both_ways() -> None:
    large = b"x" * 40_000
    server = HttpServer(answer, ["/bid"], CLOCK, tls=ServerContexts(["http/1.1"], identity("first")))
    await server.start()
    assert ("BID", "reply" + large.decode()) == await asked(server.port, believing("authority"), body=large)
    await server.stop(0.0)


async def test_what_is_refused_over_tls_is_heard() -> None:
    async with serving(identity("first")) as server:
        assert ("INVALID", "HTTP 400") == await asked(server.port, believing("authority"), body=b"x" * 100_000)


@pytest.mark.parametrize(
    ("name", "status"), [("first", "BID"), ("second", "BID"), ("stranger", "UNREACHABLE"), (None, "UNREACHABLE")]
)
async def test_with_authorities_a_caller_needs_a_certificate_of_theirs(name: str | None, status: str) -> None:
    async with serving(identity("first", authorities="authority")) as server:
        assert status == (await asked(server.port, believing("authority", name)))[0]


def put(name: str, folder: Path) -> None:
    for kind in ("pem", "key"):
        shutil.copy(DATA / f"{name}.{kind}", folder / f"server.{kind}")


async def shown(port: int, authorities: str) -> str:
    """Give the common name that a server shows to whoever believes its authority."""
    context = ssl.create_default_context(cafile=DATA / f"{authorities}.pem")
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return str(subject[0][0][1])


async def test_a_certificate_that_is_replaced_is_shown_to_the_next_and_the_others_stay(tmp_path: Path) -> None:
    put("first", tmp_path)
    async with serving(Files(tmp_path / "server.pem", tmp_path / "server.key")) as server:
        assert "first" == await shown(server.port, "authority")
        context = ssl.create_default_context(cafile=DATA / "authority.pem")
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=context)
        put("stranger", tmp_path)
        assert "stranger" == await shown(server.port, "other")
        writer.write(b"POST /bid HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\nx")
        assert (await reader.readuntil(b"replyx")).startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_files_that_cannot_be_used_leave_what_was_in_force_and_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put("first", tmp_path)
    async with serving(Files(tmp_path / "server.pem", tmp_path / "server.key")) as server:
        assert "first" == await shown(server.port, "authority")
        shutil.copy(DATA / "second.pem", tmp_path / "server.pem")  # and its key is not there yet
        for _ in range(3):
            assert "first" == await shown(server.port, "authority")
        assert 1 == len(caplog.records)
        (tmp_path / "server.pem").unlink()
        assert "first" == await shown(server.port, "authority")
        put("second", tmp_path)
        assert "second" == await shown(server.port, "authority")
    assert 2 == len(caplog.records)


async def test_authorities_that_are_replaced_count_for_the_next_caller(tmp_path: Path) -> None:
    believed = tmp_path / "authorities.pem"
    shutil.copy(DATA / "authority.pem", believed)
    files = Files(DATA / "first.pem", DATA / "first.key", believed)
    async with serving(files) as server:
        assert "BID" == (await asked(server.port, believing("authority", "second")))[0]
        shutil.copy(DATA / "other.pem", believed)
        assert "UNREACHABLE" == (await asked(server.port, believing("authority", "second")))[0]
        assert "BID" == (await asked(server.port, ClientContexts(["http/1.1"], _of("stranger"))))[0]


def _of(name: str) -> Files:
    return Files(DATA / f"{name}.pem", DATA / f"{name}.key", DATA / "authority.pem")


async def test_a_bidders_authority_that_is_replaced_counts_for_the_next_connection(tmp_path: Path) -> None:
    believed = tmp_path / "authorities.pem"
    shutil.copy(DATA / "other.pem", believed)
    tls = ClientContexts(["http/1.1"], Files(authorities=believed))
    async with serving(identity("first")) as server:
        assert "UNREACHABLE" == (await asked(server.port, tls))[0]
        shutil.copy(DATA / "authority.pem", believed)
        assert "BID" == (await asked(server.port, tls))[0]


def test_files_that_cannot_be_used_to_begin_with_are_an_error(tmp_path: Path) -> None:
    unreadable, unlike, untold = tmp_path / "none.pem", DATA / "second.key", DATA / "first.key"
    for files, which, words in (
        (Files(unreadable, untold), "certificate", f"expected a file to read, was {unreadable}: No such file"),
        (Files(untold, untold), "certificate", f"expected certificates in PEM, was {untold}"),
        (Files(DATA / "first.pem", unlike), "key", f"the key of {DATA / 'first.pem'} in PEM, was another's: {unlike}"),
        (Files(DATA / "first.pem", DATA / "first.pem"), "key", "was none, or needs a passphrase"),
        (Files(DATA / "first.pem", untold, untold), "authorities", f"expected certificates in PEM, was {untold}"),
    ):
        with pytest.raises(Unusable, match=re.escape(words)) as refused:
            ServerContexts(["http/1.1"], files)
        assert which == refused.value.which


def test_a_certificate_says_when_it_ends() -> None:
    # As `openssl x509 -enddate` has it: Nov  4 11:31:38 2126 GMT, which only the longer form of a time can say.
    assert 4_949_465_498 == expiry((DATA / "first.pem").read_bytes())
    times = b"\x30\x1e" + b"\x17\x0d250101000000Z" + b"\x17\x0d260203040506Z"
    signed = b"\xa0\x03\x02\x01\x02" + b"\x02\x01\x07" + b"\x30\x00" * 2 + times
    for within in (signed, signed[5:]):  # the first version of a certificate does not say that it is
        content = b"\x30\x81" + bytes((len(within),)) + within
        der = b"\x30" + bytes((len(content),)) + content
        assert 1_770_091_506 == expiry(ssl.DER_cert_to_PEM_cert(der).encode())
    for none in ((DATA / "first.key").read_bytes(), ssl.DER_cert_to_PEM_cert(der[:-20]).encode(), b""):
        with pytest.raises(ValueError, match=r"PEM|cut off|does not match"):
            expiry(none)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_caller_whose_authority_has_gone_does_not_come_in_by_an_older_session(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    believed = tmp_path / "believed.pem"
    shutil.copy(DATA / "authority.pem", believed)
    async with serving(Files(DATA / "first.pem", DATA / "first.key", believed)) as server:
        context = believing("authority", "second")()
        context.maximum_version = version
        connected = await asyncio.to_thread(handshake, server.port, context, None)
        assert connected is not None
        shutil.copy(DATA / "other.pem", tmp_path / "new.pem")
        (tmp_path / "new.pem").replace(believed)
        for session in (None, *connected):
            assert await asyncio.to_thread(handshake, server.port, context, session) is None


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> list[ssl.SSLSession] | None:
    """Connect, and ask; give the session to resume, or None where the server did not let us."""
    with socket.create_connection(("localhost", port), 20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as secured:
                secured.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                if not secured.recv(1):
                    return None
                return [secured.session] if secured.session is not None else []
        except (ssl.SSLError, ConnectionError):
            return None

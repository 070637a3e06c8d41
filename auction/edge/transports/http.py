# HTTP/1.1 by aiohttp: bidders that speak OpenRTB JSON, and the JSON edge for ad servers.
#
# aiohttp is told to leave bodies alone. It would inflate them without asking how large they become, follow redirects to
# wherever a bidder points, and keep cookies; a bidder's reply is a body with a status, and nothing else in it counts.
#
# A connection serves another auction only after a whole reply and not a byte more. Whatever was late, cut short, too
# large or followed by something unasked closes its connection, so no auction can read what was meant for another.

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.http import HttpProcessingError
from yarl import URL

from auction.edge.transports import Cancel, Done, Endpoint, Incoming, Outgoing, Status, awaited, settled
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline
from auction.model.reply import ReplyStatus

OPENRTB_VERSION = "2.6"

# The header that tells us how long the caller will wait, in milliseconds: HTTP has no deadline of its own.
TIMEOUT_HEADER = "x-auction-timeout-ms"

# Connections to one bidder. At 100 ms a call this many still carry 1 280 auctions a second to a bidder that hangs; what
# is beyond waits for a free one, and times out waiting.
CONNECTIONS_MAX = 128

# Opened before the first auction: enough for the first burst, the rest follow as load grows.
CONNECTIONS_WARM = 4

# Unused connections are dropped before most servers do it to us (Node 5 s is the exception, nginx and Go take minutes):
# a request that meets a closing connection is lost, and nothing is retried inside an auction.
IDLE_S = 15.0

# How long opening waits for a bidder; as in grpcio.py.
OPEN_S = 1.0

# A body that a caller started must be there by then. Ten auctions' time: whoever is slower than that has no use for the
# answer, and must not hold a request open.
BODY_S = 5.0

# What is left of a refused body is read for this long, so that the caller sees the refusal instead of a reset.
LINGER_S = 2.0

# Callers' connections without a request on them, and heads that never end: longer than a load balancer keeps its own.
KEEPALIVE_S = 75.0

# What a refused caller is told to wait. One second is many auctions: by then the crowd has passed or is a condition.
RETRY_AFTER_S = 1

# How long a stopping server waits for the last answers to reach their sockets.
FLUSH_S = 0.25

_JSON = "application/json"
_SERVER = "auction"  # whoever looks for a version to break in with need not be told ours, nor aiohttp's
_log = logging.getLogger(__name__)


class HttpBidder:
    """A bidder that answers OpenRTB JSON at `url`, over a pool of kept connections of its own.

    One task per call, owned here.
    """

    def __init__(
        self,
        url: str,
        *,
        reply_bytes: int = 65_536,
        inflation_ratio: int = 100,
        headers: Iterable[tuple[str, str]] = (),
        connections: int = CONNECTIONS_MAX,
    ) -> None:
        self._url = URL(url)
        self._reply_bytes = reply_bytes
        self._inflation_ratio = inflation_ratio
        self._headers = {
            "content-type": _JSON,
            "accept": _JSON,
            "accept-encoding": "gzip",
            "user-agent": _SERVER,
            "x-openrtb-version": OPENRTB_VERSION,
            **{name.lower(): text for name, text in headers},
        }
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        pool = _Pool(limit=self._connections, keepalive_timeout=IDLE_S)
        self._session = aiohttp.ClientSession(
            connector=pool,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            auto_decompress=False,
            trust_env=False,
        )
        await pool.warm(self._url, min(CONNECTIONS_WARM, self._connections))

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        if self._session is None:
            done(ReplyStatus.UNREACHABLE, b"", "not connected")
            return settled
        task = asyncio.get_running_loop().create_task(self._ask(self._session, invitation.body, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _ask(self, session: aiohttp.ClientSession, body: bytes, done: Done) -> None:
        try:
            response = await session.post(self._url, data=body, headers=self._headers, allow_redirects=False)
            try:
                ending = await self._read(response)
            finally:
                response.close()  # does nothing once the whole reply was read: the connection is back in the pool
        except aiohttp.ClientPayloadError as cut:
            ending = (ReplyStatus.INVALID, b"", f"truncated: {cut}")
        except aiohttp.ClientConnectionError as failure:
            ending = (ReplyStatus.UNREACHABLE, b"", str(failure) or type(failure).__name__)
        except aiohttp.ClientError as nonsense:
            ending = (ReplyStatus.INVALID, b"", f"no HTTP: {nonsense}")
        except Exception as fault:  # ours, not the bidder's; its rivals still wait for exactly one ending
            if not session.closed:  # otherwise we were closed before we could begin
                _log.exception("asking %s failed", self._url.host)
            ending = (ReplyStatus.UNREACHABLE, b"", type(fault).__name__)
        done(*ending)

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[ReplyStatus, bytes, str]:
        # Nobody waits for a body that nobody will read. One that came with its head does not cost the connection.
        status = response.status
        if status == 204:
            return ReplyStatus.NO_BID, b"", ""
        if status == 429 or status >= 500:
            return ReplyStatus.UNREACHABLE, b"", f"HTTP {status}"
        if status != 200:
            return ReplyStatus.INVALID, b"", f"HTTP {status}"
        body = await _read_up_to(response.content, self._reply_bytes)
        if body is None:
            return ReplyStatus.INVALID, b"", f"expected at most {self._reply_bytes} bytes"
        if not body:
            return ReplyStatus.NO_BID, b"", ""
        if _media_type(response.headers) != _JSON:
            return ReplyStatus.INVALID, b"", f"expected {_JSON}, was {response.headers.get('content-type', 'nothing')}"
        try:
            body = _decoded(body, response.headers, self._reply_bytes, self._inflation_ratio)
        except _Unreadable as fault:
            return ReplyStatus.INVALID, b"", str(fault)
        return (ReplyStatus.BID, body, "") if body else (ReplyStatus.NO_BID, b"", "")


class _Pool(aiohttp.TCPConnector):
    """aiohttp's pool, which hands out any connection that is still up, less those on which something came unasked."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        # Each turn takes one out of the pool for good; one beyond its size is a new connection, which nobody wrote on.
        for _ in range(self.limit + 1):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise aiohttp.ClientConnectionError("the peer speaks before it is asked")

    async def warm(self, url: URL, count: int) -> None:
        """Open `count` connections and put them in the pool; what fails to open is left to the first call."""
        request = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
        attempts = [
            super(_Pool, self).connect(request, [], aiohttp.ClientTimeout(connect=OPEN_S)) for _ in range(count)
        ]
        for connection in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(connection, aiohttp.connector.Connection):
                connection.release()


class Page(msgspec.Struct, frozen=True):
    """What a GET of one path shows right now."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serve `POST` of JSON at `paths` with one endpoint, and `GET` of `pages`.

    The endpoint's OK is 200, or 204 without a body; anything else is a JSON error `{"error": {"code", "path",
    "message"}}` under the HTTP status that says the same. gzip is accepted, within `request_bytes` and the ratio.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        paths: Sequence[str],
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pages: Mapping[str, Callable[[], Page]] | None = None,
        request_bytes: int = 262_144,
        inflation_ratio: int = 100,
        reuse_port: bool = False,
    ) -> None:
        self.port = port
        self._endpoint = endpoint
        self._paths = frozenset(paths)
        self._clock = clock
        self._host = host
        self._pages = dict(pages or {})
        self._request_bytes = request_bytes
        self._inflation_ratio = inflation_ratio
        self._reuse_port = reuse_port
        self._calls: set[asyncio.Task[Any]] = set()
        self._protocols: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        self._protocols = web.Server(
            self._serve,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            logger=_aiohttp_log,
        )
        self._listener = await asyncio.get_running_loop().create_server(
            self._protocols, self._host, self.port, reuse_port=self._reuse_port or None
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        if self._listener is None or self._protocols is None:
            return
        self._listener.close()
        # Closes idle connections now and the others with their next answer; left alone it would wait twice its time.
        self._protocols.pre_shutdown()
        closing = asyncio.get_running_loop().create_task(self._protocols.shutdown(max(grace_s, FLUSH_S)))
        await asyncio.wait([closing], timeout=grace_s)
        for call in self._calls:
            call.cancel()
        await closing
        await self._listener.wait_closed()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await self._answer(request)
        finally:
            self._calls.discard(task)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        arrived = self._clock.monotonic()
        page = self._pages.get(request.path)
        if page is not None:
            if request.method not in ("GET", "HEAD"):
                return _refusal(405, "UNIMPLEMENTED", f"expected GET, was {request.method}", {"allow": "GET, HEAD"})
            shown = page()
            headers = {"content-type": shown.content_type, "server": _SERVER}
            return web.Response(body=shown.body, status=shown.status, headers=headers)
        if request.path not in self._paths:
            return _refusal(404, "NOT_FOUND", "nothing is served here")
        if request.method != "POST":
            return _refusal(405, "UNIMPLEMENTED", f"expected POST, was {request.method}", {"allow": "POST"})
        try:
            deadline = _deadline(request.headers, arrived)
            body = await self._body(request)
        except _Unreadable as fault:
            refusal = _refusal(fault.status, "INVALID_ARGUMENT", str(fault))
            if not request.content.is_eof():
                refusal.force_close()
            return refusal
        outgoing = await awaited(self._endpoint, Incoming(request.path, request.headers, body, deadline))
        return _response(outgoing)

    async def _body(self, request: web.BaseRequest) -> bytes:
        if _media_type(request.headers) != _JSON:
            raise _Unreadable(f"expected {_JSON}, was {request.headers.get('content-type', 'nothing')}", 415)
        too_large = _Unreadable(f"expected at most {self._request_bytes} bytes", 400)
        if (request.content_length or 0) > self._request_bytes:
            raise too_large
        if request.headers.get("expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(None if request.content.is_eof() else BODY_S):
                body = await _read_up_to(request.content, self._request_bytes)
        except TimeoutError:
            raise _Unreadable(f"expected the body within {BODY_S:g} s", 408) from None
        except web.RequestPayloadError as fault:
            raise _Unreadable(f"expected a whole body: {fault}", 400) from fault
        if body is None:
            raise too_large
        return _decoded(body, request.headers, self._request_bytes, self._inflation_ratio)


class _NotTheirs(logging.Filter):
    """Keep out of the log what somebody sent us that is no HTTP: it was answered with 400, and may be a flood."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_aiohttp_log = logging.getLogger(f"{__name__}.aiohttp")
_aiohttp_log.addFilter(_NotTheirs())


class _Unreadable(Exception):
    """A body or header that cannot be taken; `status` is what HTTP calls it when a caller sent it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


async def _read_up_to(content: aiohttp.StreamReader, limit: int) -> bytes | None:
    """Read to the end; None as soon as there is more than `limit`."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decoded(body: bytes, headers: Mapping[str, str], limit: int, ratio: int) -> bytes:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise _Unreadable(f"expected gzip or no encoding, was {encoding[:40]}", 415)
    return inflate(body, limit, ratio)


def inflate(packed: bytes, limit: int, ratio: int) -> bytes:
    """Undo gzip, in memory for at most `limit` bytes and `ratio` times what came in, whatever the data claims.

    Members one after the other are one text (RFC 1952 section 2.2); anything else behind the last is refused.
    """
    room = min(limit, ratio * len(packed))
    texts: list[bytes] = []
    while packed:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            # One byte more than there is room for tells too much from just enough.
            text = member.decompress(packed, room + 1)
        except zlib.error as fault:
            raise _Unreadable(f"no gzip: {fault}") from fault
        if len(text) > room:
            raise _Unreadable(f"expected at most {limit} bytes and {ratio} times the compressed size", 400)
        if not member.eof:
            raise _Unreadable("truncated gzip")
        texts.append(text)
        room -= len(text)
        packed = member.unused_data
    return b"".join(texts)


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _deadline(headers: Mapping[str, str], arrived: float) -> Deadline | None:
    told = headers.get(TIMEOUT_HEADER)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) <= 9):
        raise _Unreadable(f"{TIMEOUT_HEADER}: expected whole milliseconds, was {told[:40]}")
    return Deadline(arrived + int(told) / 1000)


_HTTP_STATUS = {
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.RESOURCE_EXHAUSTED: 503,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
}


def _response(outgoing: Outgoing) -> web.Response:
    headers = {"server": _SERVER, **dict(outgoing.headers)}
    if outgoing.status is Status.OK:
        if not outgoing.body:
            return web.Response(status=204, headers=headers)
        return web.Response(body=outgoing.body, headers={"content-type": _JSON, **headers})
    status = _HTTP_STATUS[outgoing.status]
    if status == 503:
        headers.setdefault("retry-after", str(RETRY_AFTER_S))
    return _refusal(status, outgoing.status.name, outgoing.message, headers, outgoing.path)


def _refusal(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, path: str = ""
) -> web.Response:
    error = msgspec.json.encode({"error": {"code": code, "path": path, "message": message}})
    return web.Response(
        body=error, status=status, headers={"server": _SERVER, **(headers or {}), "content-type": _JSON}
    )

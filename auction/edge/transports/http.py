# HTTP/1.1: bidders that speak OpenRTB JSON, and the JSON edge for ad servers.
#
# The protocol itself, with its pools, limits and refusals, is auction/edge/wire/http1. Here is what OpenRTB makes of
# it: which status is which answer, and that a body is JSON, perhaps in gzip, within limits before and after inflating.

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import cast

import msgspec

from auction.edge.tls import ClientContexts
from auction.edge.transports import Cancel, Done, Endpoint, Incoming, Outgoing, Status, settled
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
    request_head,
)
from auction.edge.wire.http1.coding import Undecodable, decoded, media_type
from auction.edge.wire.origin import Origin
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline
from auction.model.reply import ReplyStatus

OPENRTB_VERSION = "2.6"

# What a bidder behind TLS is offered, the first it knows of these (RFC 7301).
PROTOCOLS = ("h2", "http/1.1")

# The header that tells us how long the caller will wait, in milliseconds: HTTP has no deadline of its own.
TIMEOUT_HEADER = "x-auction-timeout-ms"

# Connections to one bidder. At 100 ms a call this many still carry 1 280 auctions a second to a bidder that hangs; what
# is beyond waits for a free one, and times out waiting.
CONNECTIONS_MAX = 128

# Opened before the first auction: enough for the first burst, the rest follow as load grows.
CONNECTIONS_WARM = 4

# How long opening waits for a bidder; as in grpcio.py.
OPEN_S = 1.0

# A request that a caller started must be there by then. Ten auctions' time: whoever is slower than that has no use for
# the answer, and must not hold a request open.
BODY_S = 5.0

# What is left of a refused body is read for this long, so that the caller sees the refusal instead of a reset.
LINGER_S = 2.0

# Callers' connections without a request on them: longer than a load balancer keeps its own.
KEEPALIVE_S = 75.0

# A caller that does not read its answer is gone, or wants us to keep it: no auction is of interest for as long.
STALL_S = 30.0

# What a refused caller is told to wait. One second is many auctions: by then the crowd has passed or is a condition.
RETRY_AFTER_S = 1

# How long a stopping server waits for the last answers to reach their sockets.
FLUSH_S = 0.25

_JSON = "application/json"
_SERVER = ("server", "auction")  # whoever looks for a version to break in with need not be told ours
_log = logging.getLogger(__name__)


class HttpBidder:
    """A bidder that answers OpenRTB JSON at `url`, over kept connections of its own.

    At an https URL they speak HTTP/2 where the bidder agrees to it, which `tls` has to offer, and else HTTP/1.1.
    `tls_name` is the name that its certificate must have, where it is not the host of `url`.

    ValueError for a URL that is none and for headers that no head may hold.
    """

    def __init__(
        self,
        url: str,
        *,
        reply_bytes: int = 65_536,
        inflation_ratio: int = 100,
        headers: Iterable[tuple[str, str]] = (),
        connections: int = CONNECTIONS_MAX,
        tls: Callable[[], ssl.SSLContext] | None = None,
        tls_name: str | None = None,
    ) -> None:
        self._to = address(url)
        self._limits = Limits(reply_bytes)
        self._inflation_ratio = inflation_ratio
        fields = {
            "content-type": _JSON,
            "accept": _JSON,
            "accept-encoding": "gzip",
            "user-agent": "auction",
            "x-openrtb-version": OPENRTB_VERSION,
            **{name.lower(): text for name, text in headers},
        }
        self._fields = tuple(fields.items())
        self._head = request_head("POST", self._to, self._fields)
        self._connections = connections
        self._tls_name = tls_name
        self._tls = tls or ClientContexts(PROTOCOLS)
        self._way: Pool | Origin | None = None
        self._ask: Callable[[bytes, Callable[[Answer | Failure], None]], Cancel] | None = None

    async def open(self) -> None:
        if not self._to.secure:
            self._way = pool = Pool(
                self._to, self._limits, connections_max=self._connections, wanted=_is_ok, connect_s=OPEN_S
            )
            self._ask = partial(pool.ask, self._head)
            await pool.warm(CONNECTIONS_WARM)
            return
        self._way = origin = Origin(
            self._to,
            self._fields,
            self._limits,
            connections_max=self._connections,
            wanted=_is_ok,
            tls=self._tls,
            tls_name=self._tls_name,
            connect_s=OPEN_S,
        )
        self._ask = origin.ask
        await origin.open(CONNECTIONS_WARM)

    async def close(self) -> None:
        way, self._way, self._ask = self._way, None, None
        if way is not None:
            await way.close()

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        if self._ask is None:
            done(ReplyStatus.UNREACHABLE, b"", "not connected")
            return settled
        return self._ask(invitation.body, partial(self._ended, done))

    def _ended(self, done: Done, ending: Answer | Failure) -> None:
        if isinstance(ending, Failure):
            status = ReplyStatus.UNREACHABLE if ending.fault is Fault.UNREACHABLE else ReplyStatus.INVALID
            done(status, b"", f"{_NAMED.get(ending.fault, '')}{ending.detail}")
        else:
            done(*self._read(ending))

    def _read(self, answer: Answer) -> tuple[ReplyStatus, bytes, str]:
        # Nobody waits for a body that nobody will read. One that came with its head does not cost the connection.
        status, body = answer.status, answer.body
        if status == 204:
            return ReplyStatus.NO_BID, b"", ""
        if status == 429 or status >= 500:
            return ReplyStatus.UNREACHABLE, b"", f"HTTP {status}"
        if status != 200:
            return ReplyStatus.INVALID, b"", f"HTTP {status}"
        if not body:
            return ReplyStatus.NO_BID, b"", ""
        if media_type(answer.fields) != _JSON:
            return ReplyStatus.INVALID, b"", f"expected {_JSON}, was {answer.fields.get('content-type', 'nothing')}"
        try:
            body = decoded(body, answer.fields, self._limits.body_bytes, self._inflation_ratio)
        except Undecodable as fault:
            return ReplyStatus.INVALID, b"", str(fault)
        return (ReplyStatus.BID, body, "") if body else (ReplyStatus.NO_BID, b"", "")


_NAMED = {Fault.NO_HTTP: "no HTTP: ", Fault.TRUNCATED: "truncated: "}


def _is_ok(status: int) -> bool:
    return status == 200


class Page(msgspec.Struct, frozen=True):
    """What a GET of one path shows right now."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serve `POST` of JSON at `paths` with one endpoint, and `GET` of `pages`.

    The endpoint's OK is 200, or 204 without a body; anything else is a JSON error `{"error": {"code", "path",
    "message"}}` under the HTTP status that says the same. gzip is accepted, within `request_bytes` and the ratio. `tls`
    gives the context to listen with, or there is none.
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
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.port = port
        self._application = _Application(endpoint, paths, clock, dict(pages or {}), request_bytes, inflation_ratio)
        self._request_bytes = request_bytes
        self._clock = clock
        self._host = host
        self._reuse_port = reuse_port
        self._tls = tls
        self._listener: Listener | None = None

    async def start(self) -> None:
        listener = Listener(
            self._application,
            Limits(self._request_bytes),
            lambda: self._clock.wall_us() / 1e6,
            host=self._host,
            port=self.port,
            patience=Patience(KEEPALIVE_S, BODY_S, STALL_S, LINGER_S),
            reuse_port=self._reuse_port,
            tls=self._tls() if self._tls is not None else None,
        )
        await listener.start()
        self._listener = listener
        self.port = listener.port

    def leave(self) -> None:
        """Answer as before, and end each connection with its next answer."""
        if self._listener is not None:
            self._listener.leave()

    async def stop(self, grace_s: float) -> None:
        if self._listener is not None:
            await self._listener.stop(grace_s, FLUSH_S)


class _Application:
    """Requests as the exchange takes them, in the words of HTTP."""

    def __init__(
        self,
        endpoint: Endpoint,
        paths: Sequence[str],
        clock: Clock,
        pages: Mapping[str, Callable[[], Page]],
        request_bytes: int,
        inflation_ratio: int,
    ) -> None:
        self._endpoint = endpoint
        self._paths = frozenset(paths)
        self._clock = clock
        self._pages = pages
        self._request_bytes = request_bytes
        self._inflation_ratio = inflation_ratio

    def accept(self, request: Request) -> Response | None:
        path, method = request.path, request.method
        if path in self._pages:
            if method in ("GET", "HEAD"):
                return None
            return _refusal(405, "UNIMPLEMENTED", f"expected GET, was {method}", fields=(("allow", "GET, HEAD"),))
        if path not in self._paths:
            return _refusal(404, "NOT_FOUND", "nothing is served here")
        if method != "POST":
            return _refusal(405, "UNIMPLEMENTED", f"expected POST, was {method}", fields=(("allow", "POST"),))
        if media_type(request.fields) != _JSON:
            was = request.fields.get("content-type", "nothing")
            return _refusal(415, "INVALID_ARGUMENT", f"expected {_JSON}, was {was}")
        try:
            request.note = _deadline(request.fields, self._clock)
        except Undecodable as fault:
            return _refusal(fault.status, "INVALID_ARGUMENT", str(fault))
        return None

    def answer(self, request: Request, done: Callable[[Response | None], None]) -> Cancel:
        path = request.path
        page = self._pages.get(path)
        if page is not None:
            shown = page()
            done(Response(shown.status, (("content-type", shown.content_type), _SERVER), shown.body))
            return settled
        assert request.body is not None
        try:
            body = decoded(request.body, request.fields, self._request_bytes, self._inflation_ratio)
        except Undecodable as fault:
            done(_refusal(fault.status, "INVALID_ARGUMENT", str(fault)))
            return settled
        answering = _Answering(done)
        try:
            return self._endpoint(
                Incoming(path, request.fields, body, cast("Deadline | None", request.note)), answering
            )
        except Exception:  # ours: the caller hears that there was one, and no other call ends with it
            # A fault of ours is written down where we can read it; the caller is told no more than that there was one.
            _log.exception("a call to %s failed", path)
            answering(Outgoing(status=Status.INTERNAL, message="internal error"))
            return settled

    def refuse(self, refused: Refused) -> Response:
        return _refusal(refused.status, "INVALID_ARGUMENT", refused.reason)


class _Answering:
    """Says an answer once, in the words of HTTP: an endpoint that answered and then failed has answered."""

    __slots__ = ("_done",)

    def __init__(self, done: Callable[[Response | None], None]) -> None:
        self._done: Callable[[Response | None], None] | None = done

    def __call__(self, outgoing: Outgoing) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(_response(outgoing))


def _deadline(fields: Mapping[str, str], clock: Clock) -> Deadline | None:
    told = fields.get(TIMEOUT_HEADER)
    if told is None:
        return None
    if not (told.isascii() and told.isdigit() and len(told) <= 9):
        raise Undecodable(f"{TIMEOUT_HEADER}: expected whole milliseconds, was {told[:40]}")
    return Deadline(clock.monotonic() + int(told) / 1000)


_HTTP_STATUS = {
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.RESOURCE_EXHAUSTED: 503,
    Status.UNIMPLEMENTED: 501,
    Status.INTERNAL: 500,
    Status.UNAVAILABLE: 503,
}


def _response(outgoing: Outgoing) -> Response:
    if outgoing.status is Status.OK:
        if not outgoing.body:
            return Response(204, (*outgoing.headers, _SERVER))
        return Response(200, (("content-type", _JSON), *outgoing.headers, _SERVER), outgoing.body)
    status, headers = _HTTP_STATUS[outgoing.status], outgoing.headers
    if status == 503 and not any(name == "retry-after" for name, _ in headers):
        headers = (*headers, ("retry-after", str(RETRY_AFTER_S)))
    return _refusal(status, outgoing.status.name, outgoing.message, outgoing.path, headers)


def _refusal(
    status: int, code: str, message: str, path: str = "", fields: tuple[tuple[str, str], ...] = ()
) -> Response:
    error = msgspec.json.encode({"error": {"code": code, "path": path, "message": message}})
    return Response(status, (("content-type", _JSON), *fields, _SERVER), error)

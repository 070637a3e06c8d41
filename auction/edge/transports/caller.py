# The other end of the exchange's two doors: what an ad server does, for demos, load and measurements.
#
# It gives an Outgoing, the very thing that the exchange gave its transport, so a caller of either protocol can be
# counted and compared alike. Nothing is retried: a generator that tried again would hide what it is there to find.

from __future__ import annotations

import asyncio
from typing import Protocol, cast
from urllib.parse import urlsplit

import grpc
import msgspec
from grpc import aio

from auction.edge.tls import ClientContexts
from auction.edge.transports import Outgoing, Status
from auction.edge.transports.http import TIMEOUT_HEADER
from auction.edge.wire.http1 import Answer, Failure, Limits, Pool, address, request_head

METHOD = "/auction.v1.Exchange/Auction"
PATH = "/openrtb2/auction"

# Calls under way at a time over HTTP, where each needs a connection; gRPC needs one for all.
CONNECTIONS_MAX = 1024
# An answer is a BidResponse with an explanation at most: far below, and 16 MiB is what one record may hold.
ANSWER_BYTES_MAX = 16 * 1024 * 1024
# Heads of requests that are kept; beyond it they are made anew.
HEADS_MAX = 64
# How long opening waits for the exchange before the first call does.
OPEN_S = 2.0


class Caller(Protocol):
    """A way to one exchange. `json` tells what bodies it takes: OpenRTB JSON, or messages."""

    target: str
    json: bool

    async def open(self) -> None:
        """Connect, or have tried for OPEN_S; the first calls say whether it worked."""
        ...

    async def call(self, body: bytes, timeout_s: float) -> Outgoing:
        """Have one auction held. Never raises for what came of it: refusals, silence and no connection are statuses."""
        ...

    async def close(self) -> None: ...


def caller(target: str) -> Caller:
    """Make a caller for host:port (gRPC) or a URL (JSON); ValueError for anything else."""
    if "://" in target:
        return HttpCaller(target)
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{target}: expected HOST:PORT or a URL")
    return GrpcCaller(target)


def host_of(target: str) -> str:
    """Name the host of a target, without brackets."""
    if "://" in target:
        return urlsplit(target).hostname or ""
    return target.rpartition(":")[0].strip("[]")


class GrpcCaller:
    """Calls Exchange/Auction over one channel."""

    json = False

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel: aio.Channel | None = None
        self._call: aio.UnaryUnaryMultiCallable[bytes, bytes] | None = None

    async def open(self) -> None:
        options = (
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        )
        self._channel = aio.insecure_channel(self.target, options=options)
        self._call = cast("aio.UnaryUnaryMultiCallable[bytes, bytes]", self._channel.unary_unary(METHOD))
        try:
            async with asyncio.timeout(OPEN_S):
                await self._channel.channel_ready()
        except TimeoutError:
            pass  # the first call says what is wrong

    async def call(self, body: bytes, timeout_s: float) -> Outgoing:
        assert self._call is not None
        try:
            return Outgoing(await self._call(body, timeout=timeout_s))
        except aio.AioRpcError as failure:
            number = failure.code().value[0]
            return Outgoing(status=_status(number), message=failure.details() or failure.code().name)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


class HttpCaller:
    """Posts to the JSON edge over kept connections."""

    json = True

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url}: expected a URL such as http://127.0.0.1:7480")
        self.target = url if parts.path.strip("/") else url.rstrip("/") + PATH
        self._to = address(self.target)
        self._pool: Pool | None = None
        # A caller has few timeouts, so few heads; each is encoded once.
        self._heads: dict[int, bytes] = {}

    async def open(self) -> None:
        tls = ClientContexts(["http/1.1"])
        self._pool = Pool(
            self._to, Limits(ANSWER_BYTES_MAX), connections_max=CONNECTIONS_MAX, tls=tls, connect_s=OPEN_S
        )

    async def call(self, body: bytes, timeout_s: float) -> Outgoing:
        assert self._pool is not None
        ended: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()

        def done(ending: Answer | Failure) -> None:
            if not ended.done():
                ended.set_result(ending)

        cancel = self._pool.ask(self._head(int(timeout_s * 1000)), body, done)
        try:
            async with asyncio.timeout(timeout_s):
                ending = await ended
        except TimeoutError:
            return Outgoing(status=Status.DEADLINE_EXCEEDED, message="no answer in time")
        finally:
            cancel()
        if isinstance(ending, Failure):
            return Outgoing(status=Status.UNAVAILABLE, message=ending.detail)
        if ending.status in (200, 204):
            return Outgoing(ending.body)
        status = _FROM_HTTP.get(ending.status, Status.INTERNAL)
        return Outgoing(status=status, message=_said(ending.body, ending.status))

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    def _head(self, timeout_ms: int) -> bytes:
        head = self._heads.get(timeout_ms)
        if head is None:
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            fields = {**_FIELDS, TIMEOUT_HEADER: str(timeout_ms)}
            head = self._heads[timeout_ms] = request_head("POST", self._to, fields.items())
        return head


_FIELDS = {"content-type": "application/json", "x-openrtb-version": "2.6"}

_FROM_HTTP = {
    400: Status.INVALID_ARGUMENT,
    404: Status.NOT_FOUND,
    413: Status.RESOURCE_EXHAUSTED,
    503: Status.RESOURCE_EXHAUSTED,
    504: Status.DEADLINE_EXCEEDED,
}


def _status(number: int) -> Status:
    try:
        return Status(number)
    except ValueError:
        # CANCELLED and UNKNOWN are no answers of ours.
        return Status.INTERNAL if number != grpc.StatusCode.CANCELLED.value[0] else Status.DEADLINE_EXCEEDED


def _said(body: bytes, status: int) -> str:
    try:
        error = msgspec.json.decode(body)["error"]
        return f"{error['path']}: {error['message']}" if error["path"] else str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"HTTP {status}"

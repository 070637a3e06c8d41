# gRPC by the exchange's own wire, in both directions. What is told to callers and made of bidders is what grpcio.py
# tells and makes; the same tests run over both.
#
# Only reflection speaks protobuf here, with grpcio's own servicer, about itself.

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from auction.edge.transports import Cancel, Connections, Done, Endpoint, Incoming, Outgoing, Status, settled
from auction.edge.transports.descriptors import described
from auction.edge.wire import health
from auction.edge.wire import statuses as grpc
from auction.edge.wire.asks import Method
from auction.edge.wire.calls import Call, Handler
from auction.edge.wire.channel import Channel
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds
from auction.edge.wire.server import Server
from auction.edge.wire.settings import Lives
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline
from auction.model.reply import ReplyStatus

BID_METHOD = "/auction.v1.Bidder/Bid"

# How long opening waits for a bidder; as in grpcio.py.
OPEN_S = 1.0

# A request over the limit is refused by name up to this many times its size; above, it is cut off before it is read.
OVERSIZE_READ = 4

_UNREACHABLE = {grpc.Status.UNAVAILABLE, grpc.Status.RESOURCE_EXHAUSTED}
_TIMED_OUT = {grpc.Status.DEADLINE_EXCEEDED, grpc.Status.CANCELLED}


class WireBidder:
    """A bidder that serves `method` at `target` ("host:port"), on a channel of its own.

    `tls` gives the context for each new connection; `tls_name` is the name that its certificate must have, where that
    is not the target's host.
    """

    def __init__(
        self,
        target: str,
        clock: Clock,
        *,
        reply_bytes: int = 65_536,
        inflation_ratio: int = 100,
        headers: Iterable[tuple[str, str]] = (),
        method: str = BID_METHOD,
        tls: Callable[[], ssl.SSLContext] | None = None,
        tls_name: str | None = None,
    ) -> None:
        host, _, port = target.rpartition(":")
        self._channel = Channel(
            host.strip("[]"),
            int(port),
            context=tls,
            tls_name=tls_name,
            bounds=Bounds(reply_bytes, inflation_ratio),
            now=clock.monotonic,
        )
        self._method: Method = self._channel.method(method, tuple(headers))

    async def open(self) -> None:
        await self._channel.open(OPEN_S)

    async def close(self) -> None:
        await self._channel.close()

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        return self._channel.unary(
            self._method, invitation.body, partial(_end, done), deadline.at, enforce=False
        ).cancel


def _end(done: Done, status: grpc.Status, body: bytes, message: str, ours: bool) -> None:
    if not status:
        done(ReplyStatus.BID if body else ReplyStatus.NO_BID, body, "")
    elif status is grpc.Status.RESOURCE_EXHAUSTED and ours:
        done(ReplyStatus.INVALID, b"", f"{status.name}: {message}")
    elif status in _UNREACHABLE:
        done(ReplyStatus.UNREACHABLE, b"", f"{status.name}: {message}")
    elif status in _TIMED_OUT:
        done(ReplyStatus.TIMED_OUT, b"", f"{status.name}: {message}")
    else:
        done(ReplyStatus.INVALID, b"", f"{status.name}: {message}")


class WireServer:
    """Serve `methods` ("/package.Service/Method") with one endpoint, beside health and reflection, as GrpcServer does.

    `tls` gives the context to listen with; whether callers need a certificate is that one's to say.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        methods: Sequence[str],
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        request_bytes: int = 262_144,
        inflation_ratio: int = 100,
        descriptors: Sequence[bytes] = (),
        connections: Connections = Connections(),  # noqa: B008  frozen
        reuse_port: bool = False,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.port = port
        self._endpoint = endpoint
        self._host = host
        self._request_bytes = request_bytes
        self._reuse_port = reuse_port
        self._tls = tls
        self._health = health.Health()
        services = list(dict.fromkeys(method.split("/")[1] for method in methods))
        self._server = Server(
            {**dict.fromkeys(methods, self._serve), **self._health.methods},
            dialogues={**self._health.dialogues, **_reflection([*services, health.SERVICE], descriptors)},
            bounds=Bounds(OVERSIZE_READ * request_bytes, inflation_ratio),
            limits=Limits(streams=connections.streams),
            lives=Lives(
                age_s=connections.age_s,
                grace_s=connections.grace_s,
                keepalive_s=connections.keepalive_s,
                keepalive_timeout_s=connections.keepalive_timeout_s,
            ),
            now=clock.monotonic,
        )

    async def start(self) -> None:
        await self.serving(False)
        context = self._tls() if self._tls is not None else None
        await self._server.start(self._host, self.port, context, self._reuse_port)
        self.port = self._server.port

    async def serving(self, yes: bool) -> None:
        """Tell who asks for our health; everything else goes on as it is."""
        for service in ("", "auction"):
            self._health.tell(service, yes)

    async def stop(self, grace_s: float) -> None:
        await self.serving(False)
        await self._server.stop(grace_s)

    def _serve(self, call: Call) -> None:
        body = call.body
        if len(body) > self._request_bytes:
            message = f"expected at most {self._request_bytes} bytes, were {len(body)}"
            call.refuse(Status.INVALID_ARGUMENT, message)
            return
        deadline = None if call.deadline is None else Deadline(call.deadline)
        cancel = self._endpoint(Incoming(call.method, call.metadata, body, deadline), partial(_answer, call))
        if call.open and cancel is not settled:
            call.on_cancel = cancel


def _answer(call: Call, outgoing: Outgoing) -> None:
    if outgoing.status is Status.OK:
        call.answer(outgoing.body, outgoing.headers)
    else:
        message = f"{outgoing.path}: {outgoing.message}" if outgoing.path else outgoing.message
        call.refuse(outgoing.status, message, outgoing.headers)


def _reflection(services: Sequence[str], descriptors: Sequence[bytes]) -> dict[str, Handler]:
    """Serve reflection under both of its names: v1alpha, and v1, which is the same messages in another package."""
    servicer = reflection.ReflectionServicer([*services, reflection.SERVICE_NAME], pool=described(descriptors))

    def info(call: Call) -> None:
        def asked(body: bytes) -> None:
            request: Any = reflection_pb2.ServerReflectionRequest.FromString(body)
            for response in servicer.ServerReflectionInfo(iter((request,)), None):
                call.write(response.SerializeToString())

        def going() -> None:
            call.finish(Status.UNAVAILABLE, "the connection is about to go")

        call.on_message, call.on_end, call.on_drain = asked, call.finish, going

    names = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
    return {f"/{name}/ServerReflectionInfo": info for name in names}

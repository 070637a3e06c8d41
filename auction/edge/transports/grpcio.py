# gRPC by grpcio: the reference transport, in both directions, with raw bytes on either side.
#
# grpcio is given no serialisers: a message goes in and out as the bytes it is, and only the core reads it. The health
# and reflection services are grpcio's own; they speak protobuf, about themselves, which is why they live here.
#
# Refused: retries (a bid asked twice is two bids), service configurations from DNS, and proxies from the environment.
# Compressed messages are inflated by grpcio, no further than the size limit; it does not tell how small they were, so
# there is no limit on the ratio here; nor does it tell a reply's content type, so one that is no gRPC is left to the
# core to find unreadable. Refusals reach a caller as a status and a sentence, never as an exception's text.

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from auction.edge import tls
from auction.edge.transports import Cancel, Connections, Done, Endpoint, Incoming, Outgoing, Status, awaited, settled
from auction.edge.transports.descriptors import described
from auction.model.auction import Invitation
from auction.model.clock import Clock, Deadline
from auction.model.reply import ReplyStatus

BID_METHOD = "/auction.v1.Bidder/Bid"

# How long opening waits for a bidder. Two round trips to the far side of the world; the exchange must be ready within
# three seconds, whoever of its bidders is down.
OPEN_S = 1.0

# A bidder that comes back is asked again within seconds (gRPC's own default waits up to two minutes), and one that is
# gone for good costs a connection attempt every five.
RECONNECT_FIRST_MS = 100
RECONNECT_MAX_MS = 5_000

# A peer that vanished without a word (power, cable, firewall) is noticed within 25 s; TCP would take a quarter of an
# hour. Only while calls are under way, and any call resets the peer's count of pings, so no server takes it for abuse.
KEEPALIVE_MS = 20_000
KEEPALIVE_ANSWER_MS = 5_000

# How often a caller's keepalive may ask with no call under way. Go's clients ask no more often than this; grpcio's own
# limit of five minutes would send them away with GOAWAY.
PING_MS_MIN = 10_000

# Request metadata and response headers: ten times what clients and proxies send.
METADATA_BYTES_MAX = 16_384

# How often the files of a bidder's TLS are looked at: renewed certificates have days left when their successors come.
RENEW_S = 30.0

# How long calls may go on over a channel that another has replaced: no auction lasts longer.
LONGEST_S = 60.0

# A request over the limit is refused by name up to this many times its size; above, grpcio itself cuts it off.
OVERSIZE_READ = 4

_INT32_MAX = 2**31 - 1

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_retries", 0),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
)


def _keepalive(ask_ms: int, answer_ms: int) -> tuple[tuple[str, Any], ...]:
    return (
        ("grpc.keepalive_time_ms", ask_ms),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),  # the one that counts: its default of 60 s outlasts the other
    )


_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
_TIMED_OUT = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

# What grpcio says when a message is over our own limit, under the same code as a bidder that is out of capacity. There
# is no other mark; the tests that send an enormous reply, plain and compressed, hold it to these words.
_TOO_LARGE = "message larger than max"


class GrpcBidder:
    """A bidder that serves `method` at `target` ("host:port"), on a channel of its own.

    One task per call, owned here. The channel connects to every address of the name and keeps connecting when one is
    lost, whether or not somebody asks. `secured` makes it TLS, and is read for each channel: grpcio cannot be told of
    other files, so there is another channel soon after they have changed.
    """

    def __init__(
        self,
        target: str,
        clock: Clock,
        *,
        reply_bytes: int = 65_536,
        headers: Iterable[tuple[str, str]] = (),
        method: str = BID_METHOD,
        secured: tls.Newest[tls.Contents] | None = None,
        tls_name: str | None = None,
        renew_s: float = RENEW_S,
    ) -> None:
        self._target = target
        self._clock = clock
        self._secured = secured
        self._shown: tls.Contents | None = None
        self._tls_name = tls_name
        self._renew_s = renew_s
        self._renewing: asyncio.Task[None] | None = None
        self._reply_bytes = reply_bytes
        self._metadata = tuple((name.lower(), text) for name, text in headers)
        self._method = method
        self._channel: aio.Channel | None = None
        self._call: aio.UnaryUnaryMultiCallable[bytes, bytes] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._connect()
        if self._secured is not None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew(self._secured))

    async def _renew(self, secured: tls.Newest[tls.Contents]) -> None:
        """Have another channel where files have changed, and let calls on the one before end."""
        while True:
            await asyncio.sleep(self._renew_s)
            with contextlib.suppress(OSError):  # told by whoever reads them; the channel that there is goes on
                if secured() is not self._shown:
                    before = self._channel
                    await self._connect()
                    assert before is not None
                    try:
                        await before.close(LONGEST_S)
                    except asyncio.CancelledError:
                        await before.close()
                        raise

    async def _connect(self) -> None:
        options = (
            *_OPTIONS,
            *_keepalive(KEEPALIVE_MS, KEEPALIVE_ANSWER_MS),
            ("grpc.max_receive_message_length", self._reply_bytes),
            ("grpc.max_send_message_length", -1),  # what we send was bounded on arrival
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
            ("grpc.min_reconnect_backoff_ms", int(OPEN_S * 1000)),  # which is also how long one attempt may take
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
            ("grpc.lb_policy_name", "round_robin"),  # connects to all addresses, and again when one is lost
            ("grpc.client_idle_timeout_ms", _INT32_MAX),  # the night is no reason to start the day with a handshake
            ("grpc.use_local_subchannel_pool", 1),  # bidders behind one address share no connection
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.enable_http_proxy", 0),
        )
        if self._secured is None:
            channel = aio.insecure_channel(self._target, options=options)
        else:
            self._shown = shown = self._secured()
            roots = shown.authorities or tls.system_authorities()
            credentials = grpc.ssl_channel_credentials(roots, shown.key, shown.certificate)
            if self._tls_name is not None:
                options = (*options, ("grpc.ssl_target_name_override", self._tls_name))
            channel = aio.secure_channel(self._target, credentials, options=options)
        state = channel.get_state(try_to_connect=True)
        try:
            async with asyncio.timeout(OPEN_S):
                while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            pass  # it goes on connecting without us
        self._channel = channel
        self._call = cast("aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary(self._method))

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        channel, self._channel, self._call = self._channel, None, None
        if channel is not None:
            await channel.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        if self._call is None:
            done(ReplyStatus.UNREACHABLE, b"", "not connected")
            return settled
        remaining = deadline.remaining(self._clock.monotonic())
        if remaining <= 0:
            done(ReplyStatus.TIMED_OUT, b"", "no time left to ask")
            return settled
        call = self._call(invitation.body, timeout=remaining, metadata=self._metadata, wait_for_ready=False)
        task = asyncio.get_running_loop().create_task(self._end(call, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _end(self, call: aio.UnaryUnaryCall[bytes, bytes], done: Done) -> None:
        try:
            body = await call
        except aio.AioRpcError as failure:
            done(_status(failure), b"", f"{failure.code().name}: {failure.details() or ''}")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # withdrawn
            done(ReplyStatus.UNREACHABLE, b"", "connection closed")
        except Exception as fault:  # ours, not the bidder's; its rivals still wait for exactly one ending
            logging.getLogger(__name__).exception("asking %s failed", self._target)
            done(ReplyStatus.UNREACHABLE, b"", type(fault).__name__)
        else:
            if body:
                done(ReplyStatus.BID, body, "")
            elif body is None:  # grpcio's word for OK without a whole message, whatever its types say
                done(ReplyStatus.INVALID, b"", "truncated: no whole message")
            else:
                done(ReplyStatus.NO_BID, b"", "")


def _status(failure: aio.AioRpcError) -> ReplyStatus:
    code = failure.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in (failure.details() or ""):
        return ReplyStatus.INVALID
    if code in _UNREACHABLE:
        return ReplyStatus.UNREACHABLE
    if code in _TIMED_OUT:
        return ReplyStatus.TIMED_OUT
    return ReplyStatus.INVALID


class GrpcServer:
    """Serve `methods` ("/package.Service/Method") with one endpoint, beside health and reflection.

    Health answers for the whole server ("") and for "auction", NOT_SERVING until `serving(True)` is told. Reflection
    describes `descriptors`, serialised FileDescriptorProtos with each file behind those that it imports. `secured`
    makes it TLS, mutual where there are authorities.
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
        descriptors: Sequence[bytes] = (),
        connections: Connections = Connections(),  # noqa: B008  frozen
        reuse_port: bool = False,
        secured: tls.Newest[tls.Contents] | None = None,
    ) -> None:
        self.port = port
        self._endpoint = endpoint
        self._clock = clock
        self._host = host
        self._request_bytes = request_bytes
        self._secured = secured
        self._health = _Health()
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            _, service, name = method.split("/")
            services.setdefault(service, {})[name] = grpc.unary_unary_rpc_method_handler(self._serve(method))
        self._services = [grpc.method_handlers_generic_handler(name, calls) for name, calls in services.items()]
        self._services += _reflection([*services, health.SERVICE_NAME], descriptors)
        self._options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", OVERSIZE_READ * request_bytes),
            ("grpc.max_send_message_length", -1),  # an answer is as large as the bids in it, which were bounded
            *_lives(connections),
            ("grpc.so_reuseport", int(reuse_port)),
        )
        self._server: aio.Server | None = None

    async def start(self) -> None:
        self._server = server = aio.server(options=self._options)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers(self._services)
        host = f"[{self._host}]" if ":" in self._host else self._host
        where = f"{host}:{self.port}"
        try:
            if self._secured is None:
                self.port = server.add_insecure_port(where)
            else:
                self.port = server.add_secure_port(where, _credentials(self._secured))
        except RuntimeError as refusal:
            raise OSError(f"cannot listen on {host}:{self.port}") from refusal
        await self.serving(False)
        await server.start()

    async def serving(self, yes: bool) -> None:
        """Tell who asks for our health; everything else goes on as it is."""
        serving = health_pb2.HealthCheckResponse.ServingStatus
        for service in ("", "auction"):
            await self._health.set(service, serving.SERVING if yes else serving.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        if self._server is None:
            return
        await self.serving(False)
        self._health.end_watches()
        await self._server.stop(grace_s)

    def _serve(self, method: str) -> Callable[[bytes, aio.ServicerContext[bytes, bytes]], Any]:
        async def serve(body: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
            if len(body) > self._request_bytes:
                message = f"expected at most {self._request_bytes} bytes, were {len(body)}"
                outgoing = Outgoing(status=Status.INVALID_ARGUMENT, message=message)
            else:
                remaining = context.time_remaining()
                deadline = None if remaining is None else Deadline(self._clock.monotonic() + remaining)
                outgoing = await awaited(self._endpoint, Incoming(method, _metadata(context), body, deadline))
            if outgoing.headers:
                context.set_trailing_metadata(outgoing.headers)
            if outgoing.status is not Status.OK:
                message = f"{outgoing.path}: {outgoing.message}" if outgoing.path else outgoing.message
                await context.abort(_CODES[outgoing.status], message)
            return outgoing.body

        return serve


def _credentials(secured: tls.Newest[tls.Contents]) -> grpc.ServerCredentials:
    """Have grpcio ask for the newest files before each handshake."""
    shown = secured()

    def configuration() -> grpc.ServerCertificateConfiguration:
        assert shown.key is not None
        assert shown.certificate is not None
        return grpc.ssl_server_certificate_configuration([(shown.key, shown.certificate)], shown.authorities)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = secured()
        if newest is shown:
            return None
        shown = newest
        return configuration()

    needs_certificate = shown.authorities is not None
    # None is a word of its own there, whatever its types say: nothing has changed.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)
    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, needs_certificate)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def _lives(connections: Connections) -> tuple[tuple[str, Any], ...]:
    """Say in grpcio's words how connections live; it varies their age by a tenth by itself."""
    age_s = connections.age_s
    return (
        ("grpc.max_connection_age_ms", _INT32_MAX if age_s is None else _ms(age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(connections.grace_s)),
        *_keepalive(_ms(connections.keepalive_s), _ms(connections.keepalive_timeout_s)),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_MS_MIN),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_concurrent_streams", connections.streams),
    )


def _ms(seconds: int) -> int:
    return 1000 * seconds


def _metadata(context: aio.ServicerContext[bytes, bytes]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for name, text in context.invocation_metadata() or ():
        if isinstance(text, str):
            metadata.setdefault(name, text)
    return metadata


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health ships no types
    """grpcio's health service, whose watchers can be sent home: a stopping server would wait its whole grace."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  the contract's name
        # In a task of its own: cancelling grpcio's would leave the stream open, ours ends it in good order.
        watch = asyncio.get_running_loop().create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait([watch])
        finally:
            watch.cancel()
            self._watches.discard(watch)

    def end_watches(self) -> None:
        for watch in self._watches:
            watch.cancel()


def _reflection(services: Sequence[str], descriptors: Sequence[bytes]) -> list[grpc.GenericRpcHandler]:
    """Serve reflection under both of its names: v1alpha, and v1, which is the same messages in another package."""
    servicer = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME], pool=described(descriptors))
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info})
        for name in ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
    ]

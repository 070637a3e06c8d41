# grpcio at the other end, its synchronous API and grpc.aio: what callers and bidders in Python have.

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio

from tests.interop.echo import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    LARGEST,
    OTHER_CERTIFICATE,
    OTHER_KEY,
    PATIENCE_S,
    SAY,
    SIZES,
    TALK,
    Fault,
    Way,
    ask,
    echoing,
    pattern,
    same,
)

# grpcio refuses nothing by size: the limit is ours to keep.
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Otherwise two servers or channels of one process share connections and ports.
OPTIONS = [*UNLIMITED, ("grpc.so_reuseport", 0), ("grpc.use_local_subchannel_pool", 1)]
COMPRESSIONS = {False: grpc.Compression.NoCompression, True: grpc.Compression.Gzip}
# One for a unary call, one for the dialogue beside it.
THREADS = 4


def _trust(way: Way) -> grpc.ChannelCredentials:
    shown = (OTHER_KEY.read_bytes(), OTHER_CERTIFICATE.read_bytes()) if way is Way.MUTUAL else (None, None)
    return grpc.ssl_channel_credentials(AUTHORITY.read_bytes(), *shown)


def _credentials(way: Way) -> grpc.ServerCredentials:
    mutual = way is Way.MUTUAL
    pair = (KEY.read_bytes(), CERTIFICATE.read_bytes())
    return grpc.ssl_server_credentials([pair], AUTHORITY.read_bytes() if mutual else None, mutual)


def ask_sync(target: str, way: Way) -> int:
    """Ask with grpcio for every size, plain and gzip, unary and as a dialogue; give how many calls that were."""
    if way is Way.PLAINTEXT:
        channel = grpc.insecure_channel(target, OPTIONS)
    else:
        channel = grpc.secure_channel(target, _trust(way), OPTIONS)
    calls = 0
    with channel:
        say: Any = channel.unary_unary(SAY)
        talk: Any = channel.stream_stream(TALK)
        for gzip, compression in COMPRESSIONS.items():
            words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            answers = talk(iter(words.get, None), timeout=PATIENCE_S, compression=compression)
            for size in SIZES:
                body = pattern(size)
                same(body, say(body, timeout=PATIENCE_S, compression=compression), "", gzip)
                words.put(body)
                same(body, next(answers), " of a dialogue", gzip)
                calls += 1
            words.put(None)
            if list(answers):
                raise Fault("a dialogue that had ended went on")
            over = pattern(LARGEST + 1)
            refused(lambda: say(over, timeout=PATIENCE_S, compression=compression))  # noqa: B023  called at once
            refused(lambda: list(talk(iter([over]), timeout=PATIENCE_S, compression=compression)))  # noqa: B023
            calls += 3
    return calls


def refused(call: Callable[[], Any]) -> None:
    """Expect that more than the largest message is refused by its status."""
    try:
        call()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return
        raise Fault(f"more than the largest message: {error.code()}, {error.details()}") from error
    raise Fault("more than the largest message was answered")


async def ask_aio(target: str, way: Way) -> int:
    """Ask as `ask_sync` does, with grpc.aio."""
    if way is Way.PLAINTEXT:
        channel = grpc.aio.insecure_channel(target, OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target, _trust(way), OPTIONS)
    calls = 0
    async with channel:
        say: Any = channel.unary_unary(SAY)
        talk: Any = channel.stream_stream(TALK)
        for gzip, compression in COMPRESSIONS.items():
            dialogue = talk(timeout=PATIENCE_S, compression=compression)
            for size in SIZES:
                body = pattern(size)
                same(body, await say(body, timeout=PATIENCE_S, compression=compression), "", gzip)
                await dialogue.write(body)
                same(body, await dialogue.read(), " of a dialogue", gzip)
                calls += 1
            await dialogue.done_writing()
            if await dialogue.read() is not grpc.aio.EOF or await dialogue.code() is not grpc.StatusCode.OK:
                raise Fault(f"a dialogue did not end well: {await dialogue.code()}")
            try:
                await say(pattern(LARGEST + 1), timeout=PATIENCE_S, compression=compression)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise Fault(f"more than the largest message: {error.code()}, {error.details()}") from error
            else:
                raise Fault("more than the largest message was answered")
            calls += 2
    return calls


def _handlers(say: Any, talk: Any) -> list[grpc.GenericRpcHandler]:
    methods: Any = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    return [grpc.method_handlers_generic_handler("interop.Echo", methods)]


def _listen(server: Any, way: Way) -> int:
    if way is Way.PLAINTEXT:
        return int(server.add_insecure_port("127.0.0.1:0"))
    return int(server.add_secure_port("127.0.0.1:0", _credentials(way)))


@contextmanager
def serving_sync(way: Way, compression: grpc.Compression) -> Iterator[int]:
    """Serve with grpcio for as long as the block runs; give the port."""

    def talk(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from bodies

    with ThreadPoolExecutor(THREADS) as pool:
        server = grpc.server(
            pool, _handlers(lambda body, context: body, talk), options=OPTIONS, compression=compression
        )
        port = _listen(server, way)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


@asynccontextmanager
async def serving_aio(way: Way, compression: grpc.Compression) -> AsyncIterator[int]:
    """Serve with grpc.aio for as long as the block runs; give the port."""

    async def say(body: bytes, context: Any) -> bytes:
        return body

    async def talk(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body

    server = grpc.aio.server(handlers=_handlers(say, talk), options=OPTIONS, compression=compression)
    port = _listen(server, way)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def client_sync(way: Way) -> str:
    """Have grpcio ask us."""
    async with echoing(way) as echo:
        return f"{await asyncio.to_thread(ask_sync, echo.target, way)} calls"


async def client_aio(way: Way) -> str:
    """Have grpc.aio ask us."""
    async with echoing(way) as echo:
        return f"{await ask_aio(echo.target, way)} calls"


async def server_sync(way: Way) -> str:
    """Ask grpcio, which answers plain, then compressed."""
    for compression in COMPRESSIONS.values():
        with serving_sync(way, compression) as port:
            await ask(port, way)
    return ""


async def server_aio(way: Way) -> str:
    """Ask grpc.aio, which answers plain, then compressed."""
    for compression in COMPRESSIONS.values():
        async with serving_aio(way, compression) as port:
            await ask(port, way)
    return ""

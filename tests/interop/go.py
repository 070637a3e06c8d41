# grpc-go at the other end: peer.go.

from __future__ import annotations

from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.interop.echo import AUTHORITY, CERTIFICATE, KEY, Fault, Way, ask, echoing
from tests.interop.programs import PEER, built, run, started


@asynccontextmanager
async def serving(way: Way) -> AsyncIterator[int]:
    """Have grpc-go serve for as long as the block runs; give its port."""
    program = await built(PEER)
    files = () if way is Way.PLAINTEXT else (CERTIFICATE, KEY)
    async with started(program, "serve", *files, said=PIPE, erred=None) as process:
        assert process.stdout is not None
        yield int(await process.stdout.readline())


async def client(way: Way) -> str:
    """Have grpc-go ask us, plain and gzip, unary and dialogue."""
    program = await built(PEER)
    async with echoing(way) as echo:
        code, said = await run(program, "ask", echo.target, *(() if way is Way.PLAINTEXT else (AUTHORITY,)))
        if code:
            raise Fault(said)
        return f"{echo.said} calls"


async def server(way: Way) -> str:
    """Ask grpc-go, plain and gzip, unary and dialogue."""
    async with serving(way) as port:
        await ask(port, way)
    return ""

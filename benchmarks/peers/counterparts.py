# The other side of every engine: bidders that answer at once, and callers that ask as soon as they are answered.
#
# They share a core and must not be what an engine waits for. Over gRPC they speak as little HTTP/2 as there is
# (bare.py), over HTTP/1.1 the exchange's own wire; they are the same for every engine. All bidders are one process.

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Protocol

import uvloop

from auction.edge.transports import Cancel, settled
from auction.edge.transports.http import HttpBidder
from auction.edge.wire.http1 import Limits, Listener, Refused, Request, Response
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline
from auction.model.reply import ReplyStatus
from benchmarks.peers import bare
from benchmarks.peers.messages import TMAX_MS, reply, reply_message

AUCTION_METHOD = "/auction.v1.Exchange/Auction"

# Calls at a time: enough that no engine ever waits for a question. With fewer, engines that take many messages in one
# read have fewer to take, and cost more.
OUTSTANDING = 64

# Whoever gives an answer this much shorter than its first has left somebody's bids out.
SHORT = 0.9


class Caller(Protocol):
    """An ad server's connection to one engine."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, calls: int, expected: int) -> bytes:
        """Ask so many times, OUTSTANDING at a time; give the last answer.

        RuntimeError if one fails, or is so much shorter than `expected` octets that bids must be missing.
        """
        ...


class GrpcCaller:
    """Asks over gRPC."""

    def __init__(self, port: int, body: bytes) -> None:
        self._port = port
        self._connection = bare.Caller(AUCTION_METHOD, body, TMAX_MS)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._connection, "127.0.0.1", self._port)

    async def close(self) -> None:
        self._connection.close()

    async def ask(self, calls: int, expected: int) -> bytes:
        return await self._connection.ask(calls, OUTSTANDING, expected * SHORT)


class HttpCaller:
    """Posts JSON."""

    def __init__(self, port: int, body: bytes, path: str) -> None:
        self._bidder = HttpBidder(f"http://127.0.0.1:{port}{path}")
        self._invitation = Invitation("engine", Encoding.JSON, body, (0,))

    async def open(self) -> None:
        await self._bidder.open()

    async def close(self) -> None:
        await self._bidder.close()

    async def ask(self, calls: int, expected: int) -> bytes:
        ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        left, under_way, least = calls, 0, expected * SHORT

        def done(status: ReplyStatus, answer: bytes, detail: str) -> None:
            nonlocal under_way
            under_way -= 1
            if ended.done():
                return
            if status is not ReplyStatus.BID or len(answer) < least:
                fault = f"expected about {expected} octets of answer, were {len(answer)}: {status.name} {detail}"
                ended.set_exception(RuntimeError(fault))
            elif left:
                more()
            elif not under_way:
                ended.set_result(answer)

        def more() -> None:
            nonlocal left, under_way
            left -= 1
            under_way += 1
            self._bidder.bid(self._invitation, Deadline(float("inf")), done)

        for _ in range(min(OUTSTANDING, calls)):
            more()
        return await ended


class JsonBidder:
    """The cheapest bidder over HTTP that there is here: it looks at nothing."""

    def __init__(self, row: int) -> None:
        self._response = Response(200, (("content-type", "application/json"),), reply(row))

    def accept(self, request: Request) -> Response | None:
        return None

    def answer(self, request: Request, done: Callable[[Response | None], None]) -> Cancel:
        done(self._response)
        return settled

    def refuse(self, refused: Refused) -> Response:
        return Response(refused.status)


async def bidders(count: int) -> None:
    """Serve as so many bidders over both protocols, until ended."""
    loop = asyncio.get_running_loop()
    ports: dict[str, list[int]] = {"grpc": [], "http": []}
    for row in range(count):
        server = await loop.create_server(partial(bare.Bidder, reply_message(row)), "127.0.0.1", 0)
        ports["grpc"].append(server.sockets[0].getsockname()[1])
        listener = Listener(JsonBidder(row), Limits(65_536), lambda: 0.0)
        await listener.start()
        ports["http"].append(listener.port)
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(bidders(int(sys.argv[1])))

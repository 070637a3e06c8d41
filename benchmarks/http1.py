# HTTP/1.1 alone: what a call costs whoever makes it and whoever serves it, in CPU, beside aiohttp doing the same.
#
# Both sides of aiohttp are as the exchange used it before it had its own: a task for each call, bodies read up to a
# limit, the low-level server without routes. Runs of the two alternate in one process, or between two processes on one
# core; the other side is the same for both, and has the other core.

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import aiohttp
import uvloop
from aiohttp import web

from auction.edge.transports import Cancel, Done, Incoming, Outgoing, settled
from auction.edge.transports.http import HttpBidder, HttpServer
from auction.edge.wire.http1 import (
    Limits,
    Listener,
    Refused,
    Request,
    Response,
)
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from benchmarks.peers.processes import ENGINE_CORE, OTHER_CORE, child, cpu_ns

REQUEST = b'{"id":"' + b"q" * 440 + b'"}'  # as two impressions take
REPLY = b'{"id":"' + b"r" * 290 + b'"}'  # as two bids take
REPLY_BYTES_MAX = 65_536
OUTSTANDING = 32
CALLS = 4_000  # in each run: at 10 us, ten times the clock's grain
RUNS = 7
PATH = "/bid"
KINDS = ("wire", "aiohttp")
DEADLINE = Deadline(float("inf"))
INVITATION = Invitation("bidder", Encoding.JSON, REQUEST, (0,))


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): CPU microseconds of the caller, and of the server, by call."""
    with ExitStack() as stack:
        port = child(stack, ["-m", "benchmarks.http1", "answer"], OTHER_CORE)["port"]
        asked = child(stack, ["-m", "benchmarks.http1", "ask", str(port)], ENGINE_CORE)
        for kind in KINDS:
            yield f"http1.{kind}.call.cpu_us", "us", json.loads(asked[kind])
    measured: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        servers = {kind: child(stack, ["-m", "benchmarks.http1", f"serve-{kind}"], ENGINE_CORE) for kind in KINDS}
        for turn in range(RUNS + 1):
            for kind, server in servers.items():
                before = cpu_ns(int(server["pid"]))
                child(stack, ["-m", "benchmarks.http1", "load", str(server["port"])], OTHER_CORE)
                if turn:  # the first warms up
                    measured[kind].append((cpu_ns(int(server["pid"])) - before) / CALLS / 1000)
    for kind, runs in measured.items():
        yield f"http1.{kind}.serve.cpu_us", "us", runs


class Bidder(Protocol):
    """What both ways of asking have in common, of what BidderConnection promises."""

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        """Ask, and call back."""
        ...


class AiohttpBidder:
    """A bidder over aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": "auction",
            "x-openrtb-version": "2.6",
        }
        self._tasks: set[asyncio.Task[None]] = set()

    def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
        task = asyncio.get_running_loop().create_task(self._ask(invitation.body, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return settled

    async def _ask(self, body: bytes, done: Done) -> None:
        response = await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)
        try:
            chunks, size = [], 0
            while chunk := await response.content.readany():
                size += len(chunk)
                assert size <= REPLY_BYTES_MAX
                chunks.append(chunk)
        finally:
            response.close()
        is_json = response.headers.get("content-type", "") == "application/json"
        done(ReplyStatus.BID if response.status == 200 and is_json else ReplyStatus.INVALID, b"".join(chunks), "")


async def calls(bidder: Bidder, count: int) -> None:
    """Ask `count` times, OUTSTANDING at a time; RuntimeError if one is not answered with a bid."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left, under_way = count, 0

    def done(status: ReplyStatus, body: bytes, detail: str) -> None:
        nonlocal under_way
        under_way -= 1
        if status is not ReplyStatus.BID:
            if not ended.done():
                ended.set_exception(RuntimeError(f"{status.name}: {detail}"))
        elif left:
            more()
        elif not under_way and not ended.done():
            ended.set_result(None)

    def more() -> None:
        nonlocal left, under_way
        left -= 1
        under_way += 1
        bidder.bid(INVITATION, DEADLINE, done)

    for _ in range(OUTSTANDING):
        more()
    await ended


async def ask(port: int) -> None:
    """Ask the server at `port` in both ways by turns, and print what each run cost this process by call."""
    url = f"http://127.0.0.1:{port}{PATH}"
    wire = HttpBidder(url)
    await wire.open()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=128), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )
    bidders: dict[str, Bidder] = {"wire": wire, "aiohttp": AiohttpBidder(session, url)}
    for turn in range(RUNS + 1):
        for kind, bidder in bidders.items():
            before = cpu_ns(os.getpid())
            await calls(bidder, CALLS)
            if turn:
                found[kind].append((cpu_ns(os.getpid()) - before) / CALLS / 1000)
    await session.close()
    await wire.close()
    print(json.dumps({kind: json.dumps(runs) for kind, runs in found.items()}), flush=True)


async def load(port: int) -> None:
    """Make one run's calls to the server at `port`, and say when they are done."""
    bidder = HttpBidder(f"http://127.0.0.1:{port}{PATH}")
    await bidder.open()
    await calls(bidder, CALLS)
    await bidder.close()
    print("{}", flush=True)


class Answers:
    """The cheapest server that there is here: it looks at nothing."""

    def accept(self, request: Request) -> Response | None:
        return None

    def answer(self, request: Request, done: Callable[[Response | None], None]) -> Cancel:
        done(Response(200, (("content-type", "application/json"),), REPLY))
        return settled

    def refuse(self, refused: Refused) -> Response:
        return Response(refused.status)


def endpoint(incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
    """Answer as an exchange would, without an auction."""
    assert incoming.body
    done(Outgoing(REPLY))
    return settled


async def answer() -> int:
    listener = Listener(Answers(), Limits(REPLY_BYTES_MAX), lambda: 0.0)
    await listener.start()
    return listener.port


async def serve_wire() -> int:
    server = HttpServer(endpoint, [PATH], SystemClock())
    await server.start()
    return server.port


async def serve_aiohttp() -> int:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        assert request.path == PATH
        assert request.headers.get("content-type") == "application/json"
        assert await request.content.read()
        return web.Response(body=REPLY, headers={"content-type": "application/json", "server": "auction"})

    server = web.Server(serve, handler_cancellation=True, access_log=None, auto_decompress=False)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    return int(listener.sockets[0].getsockname()[1])


async def play(part: str, port: int) -> None:
    """Be one of the processes of this benchmark."""
    if part == "ask":
        await ask(port)
    elif part == "load":
        await load(port)
    else:
        bound = await {"answer": answer, "serve-wire": serve_wire, "serve-aiohttp": serve_aiohttp}[part]()
        print(json.dumps({"pid": os.getpid(), "port": bound}), flush=True)
        await asyncio.get_running_loop().create_future()  # until the process is ended


if __name__ == "__main__":
    uvloop.run(play(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))

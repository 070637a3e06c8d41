# The transports alone: what a call costs a server in CPU, and what asking bidders adds, with no auction in between.
#
# An engine here is a process that asks every bidder with the bytes that it was asked with and, once all have answered,
# answers what the first one did; it has one core to itself, bidders and load share the other. Runs of the two
# transports alternate. Bidders and load are on the wire in all of them, because they are cheap and wait for nobody.

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import uvloop

from auction.edge.transports import BidderConnection, Cancel, Incoming, Outgoing, Status, settled
from auction.edge.transports.grpcio import BID_METHOD, GrpcBidder, GrpcServer
from auction.edge.transports.wire import WireBidder, WireServer
from auction.edge.wire.channel import Channel
from auction.edge.wire.statuses import Status as WireStatus
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from benchmarks.exchange import ENGINE_CORE, OTHER_CORE, child, cpu_ns

METHOD = "/auction.v1.Exchange/Auction"
REQUEST_BYTES = 446  # two impressions
REPLY_BYTES = 300  # two bids
OUTSTANDING = 64
CALLS = 4_000  # in each run: at 10 us, ten times the clock's grain
RUNS = 7
PATIENCE_S = 10.0  # nothing is late here: what is measured is the cost of a call that is answered
TRANSPORTS = {"wire": (WireServer, WireBidder), "grpcio": (GrpcServer, GrpcBidder)}


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): CPU microseconds by call, for 0 (an echo), 1, 4, 8 bidders."""
    free = os.sched_getaffinity(0)
    for bidders in (0, 1, 4, 8):
        measured: dict[str, list[float]] = {name: [] for name in TRANSPORTS}
        with ExitStack() as stack:
            line = child(stack, ["-m", "benchmarks.wire", "bidders", str(bidders)], OTHER_CORE)
            engines = {
                name: child(stack, ["-m", "benchmarks.wire", name, *map(str, json.loads(line["ports"]))], ENGINE_CORE)
                for name in TRANSPORTS
            }
            os.sched_setaffinity(0, {OTHER_CORE})
            for turn in range(RUNS + 1):
                for name, engine in engines.items():
                    before = cpu_ns(int(engine["pid"]))
                    asyncio.run(load(int(engine["port"])))
                    if turn:  # the first warms up
                        measured[name].append((cpu_ns(int(engine["pid"])) - before) / CALLS / 1000)
        os.sched_setaffinity(0, free)
        for name, runs in measured.items():
            row = f"transport.{name}.{bidders}.cpu_us" if bidders else f"transport.{name}.echo.cpu_us"
            yield row, "us", runs


async def load(port: int) -> None:
    """Call an engine, OUTSTANDING calls at a time; RuntimeError if one is not OK."""
    channel = Channel("127.0.0.1", port)
    await channel.open()
    method, body = channel.method(METHOD), b"q" * REQUEST_BYTES
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left, under_way = CALLS, 0

    def done(status: WireStatus, answer: bytes, message: str, ours: bool) -> None:
        nonlocal under_way
        under_way -= 1
        if status and not ended.done():
            ended.set_exception(RuntimeError(f"{status.name}: {message}"))
        elif left:
            ask()
        elif not under_way and not ended.done():
            ended.set_result(None)

    def ask() -> None:
        nonlocal left, under_way
        left -= 1
        under_way += 1
        channel.unary(method, body, done, channel.now() + PATIENCE_S)

    for _ in range(OUTSTANDING):
        ask()
    await ended
    await channel.close()


class Engine:
    """An exchange without an auction."""

    def __init__(self, bidders: list[BidderConnection], clock: SystemClock) -> None:
        self._bidders = bidders
        self._clock = clock

    def __call__(self, incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        left = len(self._bidders)
        if not left:
            done(Outgoing(incoming.body))
            return settled
        deadline = Deadline(self._clock.monotonic() + PATIENCE_S)
        bodies: list[bytes] = []

        def replied(status: ReplyStatus, body: bytes, detail: str) -> None:
            bodies.append(body)
            if len(bodies) == left:
                done(Outgoing(bodies[0]) if bodies[0] else Outgoing(status=Status.UNAVAILABLE, message=detail))

        for bidder in self._bidders:
            bidder.bid(Invitation("bidder", Encoding.PROTOBUF, incoming.body, (0,)), deadline, replied)
        return settled


async def engine(transport: str, ports: list[str]) -> None:
    """Serve as an engine on a port of the system's choice, until ended."""
    listen, connect = TRANSPORTS[transport]
    clock = SystemClock()
    bidders: list[BidderConnection] = [connect(f"127.0.0.1:{port}", clock) for port in ports]
    for bidder in bidders:
        await bidder.open()
    server = listen(Engine(bidders, clock), [METHOD], clock)
    await server.start()
    print(json.dumps({"pid": str(os.getpid()), "port": str(server.port)}), flush=True)
    await asyncio.Event().wait()


async def bidders(count: int) -> None:
    """Serve as so many bidders that answer at once."""

    def bid(incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        done(Outgoing(b"b" * REPLY_BYTES))
        return settled

    servers = [WireServer(bid, [BID_METHOD], SystemClock()) for _ in range(count)]
    for server in servers:
        await server.start()
    print(json.dumps({"ports": json.dumps([server.port for server in servers])}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Be what the first argument says."""
    role, *arguments = sys.argv[1:]
    uvloop.run(bidders(int(arguments[0])) if role == "bidders" else engine(role, arguments))


if __name__ == "__main__":
    main()

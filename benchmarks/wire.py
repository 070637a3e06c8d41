# The transports alone: what a call costs a server in CPU, and what asking bidders adds, with no auction in between.
#
# An engine here is a process that asks every bidder with the octets that it was asked with and, once all have answered,
# answers what the first one did. How engines are measured: peers/turns.py.

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import uvloop

from auction.edge.transports import BidderConnection, Cancel, Incoming, Outgoing, Status, settled
from auction.edge.transports.grpcio import GrpcBidder, GrpcServer
from auction.edge.transports.wire import WireBidder, WireServer
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import ReplyStatus
from benchmarks.peers import cpp
from benchmarks.peers.counterparts import AUCTION_METHOD
from benchmarks.peers.messages import TMAX_MS
from benchmarks.peers.processes import ENGINE_CORE, child
from benchmarks.peers.turns import BIDDERS, Ports, Running
from benchmarks.peers.turns import Engine as Compared

TRANSPORTS = {"wire": (WireServer, WireBidder), "grpcio": (GrpcServer, GrpcBidder)}

# None at all is an echo: what a call costs a server by itself.
COUNTS = (0, *BIDDERS)


def engines() -> list[Compared]:
    """Give the transports: ours, ours again, gRPC's from Python and from C++."""
    return [
        Compared("transport.wire", partial(started, "wire")),
        Compared("transport.wire_again", partial(started, "wire")),
        Compared("transport.grpcio", partial(started, "grpcio")),
        Compared("transport.cpp", cpp.transport),
    ]


def started(transport: str, stack: ExitStack, ports: Ports) -> Running:
    """Start an engine on one of our transports."""
    line = child(stack, ["-m", "benchmarks.wire", transport, *map(str, ports.grpc)], ENGINE_CORE)
    return Running(int(line["pid"]), int(line["port"]))


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
        deadline = Deadline(self._clock.monotonic() + TMAX_MS / 1000)
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
    server = listen(Engine(bidders, clock), [AUCTION_METHOD], clock)
    await server.start()
    gc.collect()
    gc.freeze()  # as the exchange does
    print(json.dumps({"pid": str(os.getpid()), "port": str(server.port)}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(engine(sys.argv[1], sys.argv[2:]))

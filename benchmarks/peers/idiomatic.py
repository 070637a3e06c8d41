# What a good engineer would write on an afternoon: grpc.aio on uvloop, one coroutine an auction, one task a bidder.
#
# It decides by the exchange's own core and by the same configuration, so all that differs from the exchange is how
# bytes come and go; it has no admission, metrics, log or reload.

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import uvloop

from auction.config import load
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.kernels import warm_up
from auction.exchange import RANDOM_BYTES, auction_id
from auction.model.auction import Arrival, Encoding, Invitation
from auction.model.errors import InvalidRequest
from auction.model.reply import Reply, ReplyStatus
from benchmarks.exchange import configured
from benchmarks.peers.processes import ENGINE_CORE, child
from benchmarks.peers.turns import Ports, Running


def started(stack: ExitStack, ports: Ports) -> Running:
    """Start the engine against bidders, configured as the exchange is."""
    path = configured("grpcio", "grpc", stack, ports)
    line = child(stack, ["-m", "benchmarks.peers.idiomatic", str(path)], ENGINE_CORE)
    return Running(int(line["pid"]), int(line["port"]))


class Auctions:
    """Holds auctions among bidders that are asked over grpc.aio."""

    def __init__(self, rules: CompiledRules, bidders: dict[str, Any]) -> None:
        self._rules = rules
        self._bidders = bidders

    async def auction(self, body: bytes, context: Any) -> bytes:
        """Answer one request."""
        arrived, received_us = time.monotonic(), time.time_ns() // 1000
        arrival = Arrival(auction_id(received_us, os.urandom(RANDOM_BYTES)), received_us, Encoding.PROTOBUF, body)
        try:
            auction = open_auction(arrival, self._rules)
        except InvalidRequest as refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{refusal.path}: {refusal.message}")
            raise AssertionError from refusal  # abort never returns
        deadline = arrived + auction.budget_us / 1e6
        replies = await asyncio.gather(*(self._ask(invitation, deadline) for invitation in auction.invitations))
        return close_auction(auction, replies).response

    async def _ask(self, invitation: Invitation, deadline: float) -> Reply:
        began = time.monotonic()
        status, body = ReplyStatus.BID, b""
        try:
            body = await self._bidders[invitation.bidder](invitation.body, timeout=deadline - began)
        except grpc.aio.AioRpcError as failure:
            late = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            status = ReplyStatus.TIMED_OUT if late else ReplyStatus.UNREACHABLE
        return Reply(invitation.bidder, status, body, round((time.monotonic() - began) * 1e6))


async def serve(path: Path) -> None:
    """Serve on a port of the system's choice, until ended."""
    config = load(path, {})
    warm_up()
    bidders: dict[str, Any] = {}
    for bidder in config.bidders:
        assert bidder.grpc is not None
        bidders[bidder.name] = grpc.aio.insecure_channel(bidder.grpc).unary_unary("/auction.v1.Bidder/Bid")
    auctions = Auctions(compile_rules(config.rules()), bidders)
    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(auctions.auction)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("auction.v1.Exchange", {"Auction": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    print(json.dumps({"pid": str(os.getpid()), "port": str(port)}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))

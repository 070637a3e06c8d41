# The exchange itself, as an operator starts it with `server.transport: wire`, and callers in Python and Go who ask it
# for auctions with the messages of the contract.

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from auction.edge.wire.server import Server
from auction.v1 import openrtb_pb2
from tests.interop.echo import AUTHORITY, CERTIFICATE, KEY, PATIENCE_S, Fault, Way
from tests.interop.load import called
from tests.interop.python import OPTIONS
from tests.processes import METHOD, ExchangeProcess, a_request, exchange, message_of, read_response

# Of each caller, so many at a time.
AUCTIONS, AT_A_TIME = 1_600, 16
PRICE = 2.0
REQUEST = a_request(at=1)  # at the first price, which is the bid's
BID = "/auction.v1.Bidder/Bid"


@asynccontextmanager
async def _bidding() -> AsyncIterator[int]:
    """Offer the same for every auction as long as the block runs; give the port."""
    bid = {"id": "b1", "impid": REQUEST["imp"][0]["id"], "price": PRICE, "adm": "<b>"}
    offer = openrtb_pb2.BidResponse(id=REQUEST["id"], cur="USD", seatbid=[{"seat": "s", "bid": [bid]}])
    message = offer.SerializeToString()
    server = Server({BID: lambda call: call.answer(message)})
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop(0)


@asynccontextmanager
async def _serving(way: Way, folder: Path) -> AsyncIterator[tuple[ExchangeProcess, str]]:
    """Serve auctions of one bidder as long as the block runs, all over the wire; give the process, and where it is."""
    tls = None if way is Way.PLAINTEXT else {"certificate": str(CERTIFICATE), "key": str(KEY)}
    async with _bidding() as port:
        settings = {
            "bidders": [{"name": "dsp", "grpc": f"127.0.0.1:{port}", "transport": "wire"}],
            "exchange": {"tmax_ms": 10_000, "tmax_max_ms": 10_000},  # nobody is in a hurry here
            "log": {"dir": str(folder / "log")},
            "server": {"transport": "wire", "tls": tls},
        }
        opened = exchange(folder, settings)
        process = await asyncio.to_thread(opened.__enter__)
        try:
            yield process, f"127.0.0.1:{process.ready['grpc'].rpartition(':')[2]}"
        finally:
            await asyncio.to_thread(opened.__exit__, None, None, None)


async def asked(way: Way) -> str:
    """Have grpcio, grpc.aio and ghz, which learns the contract by reflection, ask for auctions; all are sold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with _serving(way, folder) as (process, target):
            await asyncio.to_thread(_ask_sync, target, way)
            await _ask_aio(target, way)
            (binary := folder / "request").write_bytes(message_of(REQUEST))
            method = METHOD[1:].replace("/", ".")
            await called(target, way, method, binary, calls=AUCTIONS, workers=AT_A_TIME)
            sold = await asyncio.to_thread(process.metric, 'auction_auctions_total{outcome="sold"}')
            if sold != 3 * AUCTIONS:
                raise Fault(f"expected {3 * AUCTIONS} auctions that sold, was {sold:.0f}")
            if code := await asyncio.to_thread(process.end):
                raise Fault(f"the exchange ended with {code}: {process.lines[-3:]}")
            return f"{sold:.0f} auctions, all sold"


def _trust() -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(AUTHORITY.read_bytes())


def _ask_sync(target: str, way: Way) -> None:
    plain = way is Way.PLAINTEXT
    with grpc.insecure_channel(target, OPTIONS) if plain else grpc.secure_channel(target, _trust(), OPTIONS) as channel:
        auction: Any = channel.unary_unary(METHOD)
        message = message_of(REQUEST)
        for _ in range(AUCTIONS):
            _sold(auction(message, timeout=PATIENCE_S))


async def _ask_aio(target: str, way: Way) -> None:
    if way is Way.PLAINTEXT:
        channel = grpc.aio.insecure_channel(target, OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target, _trust(), OPTIONS)
    async with channel:
        auction: Any = channel.unary_unary(METHOD)
        message = message_of(REQUEST)

        async def ask() -> None:
            for _ in range(AUCTIONS // AT_A_TIME):
                _sold(await auction(message, timeout=PATIENCE_S))

        await asyncio.gather(*(ask() for _ in range(AT_A_TIME)))


def _sold(answer: bytes) -> None:
    response: dict[str, Any] = read_response(answer)
    prices = [bid["price"] for seat in response.get("seatbid", ()) for bid in seat["bid"]]
    if prices != [PRICE]:
        raise Fault(f"expected one bid of {PRICE}, was {response}")

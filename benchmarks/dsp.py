# What a demo bidder costs: processor time per call, over either protocol. It is the counterpart of every load test, so
# it must not be what is measured there. Processor time and not throughput, because the caller here is the slower one.
# Not named after its subject: locust puts this folder before all others, and `import bidders` must find the package.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from typing import Any

import aiohttp
import grpc

from auction.core.openrtb import json as codec
from benchmarks.peers.processes import OTHER_CORE, child, cpu_ns

OUTSTANDING = 32  # calls at a time: enough that the bidder never waits for a question
CALLS = 2000  # in each run: a quarter of a second of the bidder's CPU
RUNS = 5
REQUEST = "site-banner-2kb.json"
# Thinking time would be waiting, not work.
SETTINGS = '{"latency_ms": {"median": 0.001}, "bid_share": 1}'

Call = Callable[[], Awaitable[None]]


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): CPU microseconds of one bidder by call."""
    for protocol, runs in (("grpc", over_grpc), ("http", over_http)):
        with ExitStack() as stack:
            words = ["-m", "bidders", "--name", "dsp", f"--{protocol}", "0", "--settings", SETTINGS]
            line = child(stack, words, OTHER_CORE)
            yield f"bidder.{protocol}.cpu_us", "us", asyncio.run(runs(int(line[protocol]), int(line["pid"])))


async def over_grpc(port: int, process: int) -> list[float]:
    """Call Bidder/Bid; AioRpcError if one call is not OK."""
    message = codec.request_bytes(_request(), lenient=True, depth=32).message
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary("/auction.v1.Bidder/Bid")

        async def call() -> None:
            assert await method(message, timeout=5)

        return await measured(call, process)


async def over_http(port: int, process: int) -> list[float]:
    """Post OpenRTB JSON; an answer without bids is a mistake here."""
    body = _request()
    async with aiohttp.ClientSession() as session:

        async def call() -> None:
            async with session.post(f"http://127.0.0.1:{port}/bid", data=body) as answer:
                assert await answer.read()

        return await measured(call, process)


async def measured(call: Call, process: int) -> list[float]:
    """Give the CPU microseconds that a process takes by call, a number each run; one run before them warms it up."""
    found = []
    for _ in range(RUNS + 1):
        numbers = iter(range(CALLS))

        async def caller(numbers: Iterator[int] = numbers) -> None:
            for _ in numbers:
                await call()

        before = cpu_ns(process)
        await asyncio.gather(*(caller() for _ in range(OUTSTANDING)))
        found.append((cpu_ns(process) - before) / CALLS / 1000)
    return found[1:]


def _request() -> bytes:
    return files("bidders").joinpath("requests", REQUEST).read_bytes()

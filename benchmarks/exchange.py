# The whole exchange as a process: what one auction costs it in CPU, and how that grows with bidders.
#
# The engine has one core to itself; bidders and load share the other, so that neither takes time from it. The figure is
# CPU time of the engine's process (all threads, user and system) by completed auction, with a constant number of calls
# outstanding. The other core is the slower one here, so the engine waits now and then, and a wait has its price too.

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc

from auction.core.openrtb import json as codec

ENGINE_CORE, OTHER_CORE = 1, 0
OUTSTANDING = 32  # calls at a time: as many as keep the slower side always busy
AUCTIONS = 600  # in each run: half a second of the engine's CPU, a thousand times the clock's grain
RUNS = 7
REQUEST = "site-banner-2kb.json"
BIDDER = {"strategy": "fixed", "settings": {"latency_ms": {"median": 2, "sigma": 0.1}, "bid_share": 1}}


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): CPU microseconds by auction, by what carries it."""
    ways = (
        ("grpcio", "grpc", "exchange.grpcio"),
        ("wire", "grpc", "exchange.wire"),
        ("wire", "http", "exchange.wire_json"),
    )
    for transport, protocol, name in ways:
        for bidders in (1, 4, 8):
            with ExitStack() as stack:
                engine, port = started(stack, bidders, protocol, transport)
                message = codec.request_bytes(
                    files("bidders").joinpath("requests", REQUEST).read_bytes(), lenient=True, depth=32
                ).message
                asyncio.run(load(port, message, AUCTIONS))  # warm: connections, caches
                runs = []
                for _ in range(RUNS):
                    before = cpu_ns(engine)
                    answered = asyncio.run(load(port, message, AUCTIONS))
                    runs.append((cpu_ns(engine) - before) / answered / 1000)
            yield f"{name}.{bidders}.cpu_us", "us", runs


def started(stack: ExitStack, bidders: int, protocol: str, transport: str) -> tuple[int, int]:
    """Start bidders and an exchange that asks them, on loopback; give the engine's process id and its gRPC port.

    `protocol` is how bidders are asked, grpc or http; `transport` is what carries gRPC, to the exchange and from it.
    """
    entries = []
    for row in range(bidders):
        name = f"dsp-{row}"
        settings = json.dumps(BIDDER["settings"])
        command = ["-m", "bidders", "--name", name, "--strategy", str(BIDDER["strategy"]), "--seed", str(row)]
        line = child(stack, [*command, f"--{protocol}", "0", "--settings", settings], OTHER_CORE)
        port = line[protocol]
        address = f"127.0.0.1:{port}" if protocol == "grpc" else f"http://127.0.0.1:{port}/bid"
        entries.append({"name": name, protocol: address, **({"transport": transport} if protocol == "grpc" else {})})
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = {"port": 0, "http_port": 0, "transport": transport}
    config = {"server": server, "log": {"dir": str(folder / "log")}, "bidders": entries}
    path = folder / "auction.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    line = child(stack, ["-m", "auction", "serve", "--config", str(path)], ENGINE_CORE)
    return int(line["pid"]), int(line["grpc"].rpartition(":")[2])


def child(stack: ExitStack, arguments: list[str], core: int) -> dict[str, str]:
    """Start a process of ours on one core and wait for its line of JSON."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)}),
    )

    def stop() -> None:
        process.terminate()
        process.wait(30)

    stack.callback(stop)
    assert process.stdout is not None
    line: dict[str, str] = json.loads(process.stdout.readline())
    return line


async def load(port: int, message: bytes, auctions: int) -> int:
    """Call the exchange, OUTSTANDING calls at a time; give the number of answers. AioRpcError if one is not OK."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/auction.v1.Exchange/Auction")
        numbers = iter(range(auctions))

        async def caller() -> int:
            answered = 0
            for _ in numbers:
                await call(message, timeout=5)
                answered += 1
            return answered

        return sum(await asyncio.gather(*(caller() for _ in range(OUTSTANDING))))


def cpu_ns(process: int) -> int:
    """Give the CPU time a process has used, all threads, in nanoseconds (Linux)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat"))

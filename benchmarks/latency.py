# What the exchange adds to an auction's time: from the moment at which the last bidder wrote its answer to the answer
# that the caller has, at 60 % of what it can do. Both clocks are outside of the exchange; the generator and the bidders
# share a core, so what they take for reading is in the figure too.
#
# The C++ engine is offered as many calls, in turns: what it adds is what this machine and these callers add to anybody.

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from auction.edge.wire.statuses import Status
from benchmarks import openloop
from benchmarks.openloop import Found
from benchmarks.peers import cpp
from benchmarks.peers.processes import cpu_ns
from benchmarks.peers.turns import Ports, Running, Skipped, in_turns

BIDDERS: Final = 4
TMAX_MS: Final = 100
LOAD: Final = 0.6

RUNS: Final = 5
RUN_S: Final = 8.0  # at a thousand a second, eight answers are beyond its p99.9
SATURATION_S: Final = 2.0

PERCENTILES: Final = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}

# Auctions in flight: so many that nobody is refused, and whatever holds the exchange up is in the figures.
IN_FLIGHT: Final = 4_000


def rows() -> Iterator[openloop.Numbers]:
    """Measure and give (name, unit, a number each run)."""
    return openloop.rows(measured)


async def measured() -> dict[str, list[float]]:
    """Give the rows by name; an answer that did not wait for the last bidder is left out and counted."""
    found: dict[str, list[float]] = defaultdict(list)
    bidders = openloop.Bidders(BIDDERS)
    with ExitStack() as stack:
        ports = await bidders.start()
        said = await openloop.exchange_at(stack, ports, in_flight=IN_FLIGHT)
        engines = {"latency": Running(int(said["pid"]), openloop.port(said))}
        try:
            engines["latency.cpp"] = await asyncio.to_thread(cpp.auction, stack, Ports(ports, []))
        except Skipped as why:
            print(f"  latency.cpp: skipped: {why}", file=sys.stderr)
        callers = {
            name: openloop.Callers(engine.port, openloop.Question("446b", TMAX_MS)) for name, engine in engines.items()
        }
        try:
            for caller in callers.values():
                await caller.open()
                await caller.saturate(SATURATION_S)  # connections, caches, branches
            rate, _ = await callers["latency"].saturate(SATURATION_S)
            found["latency.saturation_per_s"].append(rate)

            async def turn(name: str) -> None:
                bidders.wrote.clear()
                pid = engines[name].pid
                used_ns, began = cpu_ns(pid), time.monotonic()
                run = await callers[name].offer(LOAD * rate, RUN_S)
                used_ns, took_s = cpu_ns(pid) - used_ns, time.monotonic() - began
                # Of its core, and of an auction: more than with many at a time, which is what 60 % is of.
                found[f"{name}.busy_ratio"].append(used_ns / 1e9 / took_s)
                found[f"{name}.cpu_us"].append(used_ns / 1000 / len(run.statuses))
                added_s = added(run, bidders.wrote)
                found[f"{name}.counted_ratio"].append(len(added_s) / len(run.statuses))
                for ending, share in PERCENTILES.items():
                    found[f"{name}.added.{ending}"].append(openloop.percentile(added_s, share) * 1e6)
                    found[f"{name}.whole.{ending}"].append(openloop.percentile(run.latencies(), share) * 1e6)

            await in_turns(list(engines), RUNS, turn)
        finally:
            for caller in callers.values():
                await caller.close()
            await bidders.stop()
    return found


def added(run: Found, wrote: Mapping[int, float]) -> list[float]:
    """Give the seconds from when the last bidder `wrote`, by the question's number, to the answer, of calls that waited
    for it.
    """
    return [
        at - wrote[number]
        for number, (at, status) in enumerate(zip(run.answered, run.statuses, strict=True), run.first)
        if status is Status.OK and wrote.get(number, at) < at
    ]

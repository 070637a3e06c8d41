# What the exchange adds to an auction's time: from the moment at which the last bidder wrote its answer to the answer
# that the caller has, at 60 % of what it can do. Both clocks are outside of the exchange; the generator and the bidders
# share a core, so what they take for reading is in the figure too.

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

from auction.edge.wire.statuses import Status
from benchmarks import openloop
from benchmarks.openloop import Found
from benchmarks.peers.processes import cpu_ns

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
        said = await openloop.exchange_at(stack, await bidders.start(), in_flight=IN_FLIGHT)
        callers = openloop.Callers(openloop.port(said), openloop.Question("446b", TMAX_MS))
        await callers.open()
        try:
            await callers.saturate(SATURATION_S)  # connections, caches, branches
            rate, _ = await callers.saturate(SATURATION_S)
            found["latency.saturation_per_s"].append(rate)
            for _ in range(RUNS):
                bidders.wrote.clear()
                used_ns, began = cpu_ns(int(said["pid"])), time.monotonic()
                run = await callers.offer(LOAD * rate, RUN_S)
                used_ns, took_s = cpu_ns(int(said["pid"])) - used_ns, time.monotonic() - began
                # Of its core, and of an auction: more than with many at a time, which is what 60 % is of.
                found["latency.busy_ratio"].append(used_ns / 1e9 / took_s)
                found["latency.cpu_us"].append(used_ns / 1000 / len(run.statuses))
                added_s = added(run, bidders.wrote)
                found["latency.counted_ratio"].append(len(added_s) / len(run.statuses))
                for name, share in PERCENTILES.items():
                    found[f"latency.added.{name}"].append(openloop.percentile(added_s, share) * 1e6)
                    found[f"latency.whole.{name}"].append(openloop.percentile(run.latencies(), share) * 1e6)
        finally:
            await callers.close()
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

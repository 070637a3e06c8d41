# What an exchange still does when it is asked for three times as much as it can do: answers with bids, in time, a
# second, beside the most that it does when it is not. Whoever cannot be served must be refused at once; an exchange
# that takes everybody answers nobody in time.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from auction.edge.wire.statuses import Status
from benchmarks import openloop
from benchmarks.openloop import Found

BIDDERS: Final = 4
TMAX_MS: Final = 100
FACTOR: Final = 3.0

RUNS: Final = 5
RUN_S: Final = 4.0
SATURATION_S: Final = 1.5

# An answer that is this much shorter than one in which everybody bid lacks somebody's bids.
SHORT: Final = 0.9


def rows() -> Iterator[openloop.Numbers]:
    """Measure and give (name, unit, a number each run)."""
    return openloop.rows(measured)


async def measured() -> dict[str, list[float]]:
    """Give the rows by name; saturation, its own rate offered and three times as much take turns."""
    found: dict[str, list[float]] = defaultdict(list)
    bidders = openloop.Bidders(BIDDERS)
    with ExitStack() as stack:
        port = await openloop.exchange(stack, await bidders.start())
        callers = openloop.Callers(port, openloop.Question("446b", TMAX_MS))
        await callers.open()
        try:
            await callers.saturate(SATURATION_S)
            for _ in range(RUNS):
                rate, octets = await callers.saturate(SATURATION_S)
                as_much = await callers.offer(rate, RUN_S)
                over = await callers.offer(FACTOR * rate, RUN_S)
                peak = max(rate, goodput(as_much, octets))
                accepted = over.latencies()
                found["overload.peak_per_s"].append(peak)
                found["overload.goodput_per_s"].append(goodput(over, octets))
                found["overload.goodput_ratio"].append(goodput(over, octets) / peak)
                found["overload.accepted.p99_ms"].append(openloop.percentile(accepted, 0.99) * 1e3)
                refused = over.statuses.count(Status.RESOURCE_EXHAUSTED)
                found["overload.refused_ratio"].append(refused / len(over.statuses))
                bidders.wrote.clear()
        finally:
            await callers.close()
            await bidders.stop()
    return found


def goodput(run: Found, octets: int) -> float:
    """Give the answers a second that came in time and had everybody's bids."""
    good = sum(
        status is Status.OK and at - due <= TMAX_MS / 1000 and length >= SHORT * octets
        for due, at, status, length in zip(run.due, run.answered, run.statuses, run.octets, strict=True)
    )
    return good / (run.due[-1] - run.due[0])

# A caller in good standing beside each attack on the wire: what becomes of its p99. And the same exchange for a minute
# at load: how often the collector looked through all that it has.
#
# Attacks and quiet take turns, so that a machine that is slower for a while is slower for all. Bidders take some time,
# as every bidder does; an attacker that is let go on at full speed costs the loop a few milliseconds at a time.
#
#   python -m benchmarks.neighbour [--rounds 5] [--load-s 60]      exit code 1: harmed, or looked through

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import msgspec

from auction.edge.wire.statuses import Status
from benchmarks import openloop, results
from benchmarks.attacks import ATTACKS
from benchmarks.latency import BIDDERS, LOAD
from benchmarks.peers.processes import OTHER_CORE, child

THINK_S: Final = 0.010
TMAX_MS: Final = 200

ROUNDS: Final = 5
RATE: Final = 100.0
TURN_S: Final = 2.0
QUIET: Final = "quiet"

# What a neighbour's p99 may grow to, in times of what it is in quiet.
RATIO_MOST: Final = 2.0

LOAD_S: Final = 60.0
SATURATION_S: Final = 2.0


class Beside(msgspec.Struct):
    """What was found: milliseconds of each call beside each attack, how many failed, and full collections at load."""

    latencies_ms: dict[str, list[float]] = {}
    failed: int = 0
    full: int = 0
    held: int = 0

    def p99_ms(self, name: str) -> float:
        return openloop.percentile(self.latencies_ms[name], 0.99)

    def ratios(self) -> dict[str, float]:
        """Give how the p99 grew beside each attack."""
        return {name: self.p99_ms(name) / self.p99_ms(QUIET) for name in self.latencies_ms if name != QUIET}

    @property
    def unharmed(self) -> bool:
        """Whether every call succeeded, and no attack was felt too much."""
        return not self.failed and max(self.ratios().values()) <= RATIO_MOST

    def rows(self) -> dict[str, tuple[str, float]]:
        """Give unit and value by name."""
        ratios = {f"soak.neighbour.{name}.ratio": ("ratio", ratio) for name, ratio in self.ratios().items()}
        return {
            f"soak.neighbour.{QUIET}.p99_ms": ("ms", self.p99_ms(QUIET)),
            **ratios,
            "soak.neighbour.failed": ("calls", self.failed),
            "soak.gc.auctions": ("auctions", self.held),
            "soak.gc.gen2": ("collections", self.full),
        }


async def beside(rounds: int = ROUNDS, load_s: float = LOAD_S) -> Beside:
    """Attack an exchange on the wire, then load it; give what was found."""
    found = Beside(defaultdict(list))
    bidders = openloop.Bidders(BIDDERS, THINK_S)
    with ExitStack() as stack:
        place = await openloop.exchange_at(stack, await bidders.start())
        try:
            await _attacked(place, rounds, found)
            bidders.think_s = 0.0
            await _loaded(place, load_s, found)
        finally:
            await bidders.stop()
    return found


async def _attacked(place: Mapping[str, str], rounds: int, found: Beside) -> None:
    port = openloop.port(place)
    neighbour = openloop.Callers(port, openloop.Question("446b", TMAX_MS), connections=1)
    await neighbour.open()
    try:
        await neighbour.offer(RATE, TURN_S)
        names = [QUIET, *ATTACKS]
        for _ in range(rounds):
            for name in names:
                with ExitStack() as attack:
                    if name != QUIET:
                        words = ["-m", "benchmarks.attacks", name, str(port)]
                        await asyncio.to_thread(child, attack, words, OTHER_CORE)
                    run = await neighbour.offer(RATE, TURN_S)
                found.latencies_ms[name] += [seconds * 1000 for seconds in run.latencies()]
                found.failed += len(run.statuses) - run.statuses.count(Status.OK)
            names.append(names.pop(0))
    finally:
        await neighbour.close()


async def _loaded(place: Mapping[str, str], seconds: float, found: Beside) -> None:
    callers = openloop.Callers(openloop.port(place), openloop.Question("446b", TMAX_MS))
    await callers.open()
    try:
        rate, _ = await callers.saturate(SATURATION_S)
        before = await asyncio.to_thread(full_collections, place["http"])
        run = await callers.offer(LOAD * rate, seconds)
        found.full = await asyncio.to_thread(full_collections, place["http"]) - before
        found.held = run.statuses.count(Status.OK)
    finally:
        await callers.close()


def full_collections(http: str) -> int:
    """Read how often an exchange has collected its oldest objects, of its metrics."""
    page = urllib.request.urlopen(f"{http}/metrics", timeout=5).read().decode()
    counted = re.search(r'^python_gc_collections_total\{generation="2"\} (\S+)$', page, re.MULTILINE)
    assert counted is not None
    return int(float(counted[1]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbour", description="A healthy caller beside harm.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each attack")
    parser.add_argument("--load-s", type=float, default=LOAD_S, help="seconds of load")
    arguments = parser.parse_args()
    found = openloop.alone(lambda: beside(arguments.rounds, arguments.load_s))
    rows = [results.row(name, unit, [value], "make soak") for name, (unit, value) in found.rows().items()]
    if (arguments.rounds, arguments.load_s) == (ROUNDS, LOAD_S):
        results.write(rows)
    results.show(rows, results.machine())
    faults = (
        [] if found.unharmed else [f"a neighbour's p99 grew to more than {RATIO_MOST:g} times, or its calls failed"]
    )
    faults += [f"{found.full} full collections at load"] if found.full else []
    print("FAILED: " + "; ".join(faults) if faults else "holds: no neighbour was harmed, nothing was looked through")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

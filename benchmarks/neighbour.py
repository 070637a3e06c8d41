# A caller in good standing beside each attack on the wire: what becomes of its p99. And the same exchange for a minute
# at load: how often the collector looked through all that it has.
#
# What is claimed: an attack at most doubles the p99 of a neighbour, each of whose calls succeeds; and in a minute at
# load there is no full collection. It fails if the median of an attack's pairs is more, if any call was not answered OK
# in a second, or if the exchange's own counter of full collections moved.
#
# Each attack is compared with the quiet right before it, on the same connection, and the median of several such pairs
# counts: a machine that is slower for a while is slower for both halves of a pair, and one that stops for a moment
# spoils one pair. Attacks take turns, so that a bad minute is not all one attack's. Bidders take some time, as every
# bidder does. No core is ever idle, in quiet as little as beside an attack: what is left of each goes to a process of
# the lowest priority. A machine of many tenants is slower when it is all in use, which is no attack's doing.
#
#   python -m benchmarks.neighbour [--pairs 5] [--load-s 60]      four minutes; exit code 1: harmed, or looked through

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Final

import msgspec

from auction.edge.wire.statuses import Status
from benchmarks import openloop, results
from benchmarks.attacks import ATTACKS
from benchmarks.latency import BIDDERS, LOAD
from benchmarks.peers.processes import ENGINE_CORE, OTHER_CORE, child

THINK_S: Final = 0.010
# A hundred times what bidders take: a machine that stops for a moment makes calls slow, and none fail.
TMAX_MS: Final = 1_000
# Auctions in flight, for the same reason: what comes in while nothing runs is not refused.
IN_FLIGHT: Final = 1_000

# An odd number, so that the median is one of them; two that the machine spoiled do not decide.
PAIRS: Final = 5
# So few that it is the attack that is felt, and so many that a turn has 400 calls: four are beyond its p99.
RATE: Final = 200.0
TURN_S: Final = 2.0
# Connections of an attacker that has ended are gone by then.
SETTLE_S: Final = 0.2

# What uses up a core that nobody else wants.
IDLE_AWAY: Final = """
import os
os.nice(19)
print("{}", flush=True)
while True: pass
"""

# What a neighbour's p99 may grow to, in times of what it is in quiet.
RATIO_MOST: Final = 2.0

LOAD_S: Final = 60.0
SATURATION_S: Final = 2.0


class Beside(msgspec.Struct):
    """What was found: p99 in milliseconds of each pair (in quiet, attacked) by attack, calls that failed, and at load
    the auctions that were held and the full collections.
    """

    pairs: dict[str, list[tuple[float, float]]] = {}
    failed: int = 0
    full: int = 0
    held: int = 0

    def ratios(self, name: str) -> list[float]:
        """Give how the p99 grew beside an attack, by pair."""
        return [attacked / quiet for quiet, attacked in self.pairs[name]]

    def rows(self, command: str = "make soak") -> list[results.Row]:
        """Give the numbers worth keeping."""
        quiet = [quiet for pairs in self.pairs.values() for quiet, _ in pairs]
        return [
            results.row("soak.neighbour.quiet.p99_ms", "ms", quiet, command),
            *(results.row(f"soak.neighbour.{name}.ratio", "ratio", self.ratios(name), command) for name in self.pairs),
            results.row("soak.neighbour.failed", "calls", [self.failed], command),
            results.row("soak.gc.auctions", "auctions", [self.held], command),
            results.row("soak.gc.gen2", "collections", [self.full], command),
        ]

    def faults(self) -> list[str]:
        """Say what does not hold."""
        grown = {name: median(self.ratios(name)) for name in self.pairs}
        faults = [f"{name}: p99 x {times:.2f}" for name, times in grown.items() if times > RATIO_MOST]
        if self.failed:
            faults.append(f"{self.failed} calls failed beside an attack")
        if not self.held:
            faults.append("no auction was held at load")
        if self.full:
            faults.append(f"{self.full} full collections at load")
        return faults


async def beside(
    pairs: int = PAIRS, load_s: float = LOAD_S, attacks: Sequence[str] = tuple(ATTACKS), transport: str = "wire"
) -> Beside:
    """Attack an exchange, then load it; give what was found. `transport` is what carries gRPC to it."""
    found = Beside(defaultdict(list))
    bidders = openloop.Bidders(BIDDERS, THINK_S)
    with ExitStack() as stack:
        place = await openloop.exchange_at(stack, await bidders.start(), in_flight=IN_FLIGHT, transport=transport)
        try:
            with ExitStack() as busy:
                for core in (ENGINE_CORE, OTHER_CORE):
                    await asyncio.to_thread(child, busy, ["-c", IDLE_AWAY], core)
                await _attacked(place, pairs, attacks, found)
            bidders.think_s = 0.0
            await _loaded(place, load_s, found)
        finally:
            await bidders.stop()
    return found


async def _attacked(place: Mapping[str, str], pairs: int, attacks: Sequence[str], found: Beside) -> None:
    port = openloop.port(place)
    neighbour = openloop.Callers(port, openloop.Question("446b", TMAX_MS), connections=1)

    async def turn() -> float:
        run = await neighbour.offer(RATE, TURN_S)
        found.failed += len(run.statuses) - run.statuses.count(Status.OK)
        latencies = run.latencies()
        return openloop.percentile(latencies, 0.99) * 1000 if latencies else float("inf")

    await neighbour.open()
    try:
        await neighbour.offer(RATE, TURN_S)
        names = list(attacks)
        for pair in range(pairs):
            for name in names:
                quiet = await turn()
                with ExitStack() as attack:
                    words = ["-m", "benchmarks.attacks", name, str(port)]
                    await asyncio.to_thread(child, attack, words, OTHER_CORE)
                    attacked = await turn()
                await asyncio.sleep(SETTLE_S)
                found.pairs[name].append((quiet, attacked))
                _say(f"pair {pair + 1} of {pairs}  {name:20} p99 {quiet:6.1f} ms in quiet, {attacked:6.1f} ms attacked")
            names.append(names.pop(0))
    finally:
        await neighbour.close()


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:4.0f} s  {line}", flush=True)


_BEGAN: Final = time.monotonic()


async def _loaded(place: Mapping[str, str], seconds: float, found: Beside) -> None:
    callers = openloop.Callers(openloop.port(place), openloop.Question("446b", TMAX_MS))
    await callers.open()
    try:
        rate, _ = await callers.saturate(SATURATION_S)
        _say(f"{seconds:g} s at {LOAD:.0%} of {rate:.0f} auctions a second")
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
    parser.add_argument("--pairs", type=int, default=PAIRS, help="turns of each attack, each behind a turn of quiet")
    parser.add_argument("--load-s", type=float, default=LOAD_S, help="seconds of load")
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="this one only; all without a name")
    parser.add_argument("--transport", choices=("wire", "grpcio"), default="wire", help="what carries gRPC to it")
    arguments = parser.parse_args()
    attacks = arguments.attack or tuple(ATTACKS)
    found = openloop.alone(lambda: beside(arguments.pairs, arguments.load_s, attacks, arguments.transport))
    rows = found.rows()
    if (arguments.pairs, arguments.load_s, arguments.attack, arguments.transport) == (PAIRS, LOAD_S, None, "wire"):
        results.write(rows)
    results.show(rows, results.machine())
    faults = found.faults()
    print("FAILED: " + "; ".join(faults) if faults else "holds: no neighbour was harmed, nothing was looked through")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

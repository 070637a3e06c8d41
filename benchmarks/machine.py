# What the machine itself takes for a fixed piece of work: over and over, and after it has slept for a moment, while the
# other core does the same.
#
# Claims about a hundredth or a thousandth of all calls hold only where the machine keeps to them itself. A core of a
# shared host loses its caches, its clock and its turn, and most of all while it sleeps; what that costs has to be known
# beside figures of an exchange that mostly waits. Nothing of ours runs here but the loop below.

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from benchmarks.openloop import percentile
from benchmarks.peers.processes import ENGINE_CORE, OTHER_CORE, spawned

# A loop of arithmetic that takes about a tenth of a millisecond: what an exchange does at a stretch.
STEPS: Final = 2_000

# As between messages at some hundred auctions a second.
SLEEP_S: Final = 0.002

RUNS: Final = 3
PIECES: Final = 2_000


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run), on the core that engines are measured on."""
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {ENGINE_CORE % (os.cpu_count() or 1)})
    found: dict[str, list[float]] = defaultdict(list)
    try:
        with ExitStack() as stack:
            spawned(stack, [sys.executable, "-m", "benchmarks.machine"], OTHER_CORE)
            for _ in range(RUNS):
                for name, sleep_s in (("awake", 0.0), ("slept", SLEEP_S)):
                    took_us = [_piece(sleep_s) for _ in range(PIECES)]
                    for share, value in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                        found[f"machine.{name}.{share}_us"].append(percentile(took_us, value))
    finally:
        os.sched_setaffinity(0, free)
    for name, values in found.items():
        yield name, "us", values


def _piece(sleep_s: float) -> float:
    if sleep_s:
        time.sleep(sleep_s)
    began = time.perf_counter_ns()
    total = 0
    for step in range(STEPS):
        total += step
    return (time.perf_counter_ns() - began) / 1000


if __name__ == "__main__":
    while os.getppid() != 1:  # until it is ended, or whoever began it is gone
        _piece(SLEEP_S)

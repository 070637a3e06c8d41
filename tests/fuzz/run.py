# `make fuzz`: executions by number, on every core, until there are enough or time is up.
#
# A case is a function of the seed and its number, so that what a worker was at when it hung or died can be made again
# by whoever watches it. Finds are made smaller and stay in tests/finds, where `make test` replays them.

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auction.core.kernels import warm_up
from tests.fuzz import cases
from tests.fuzz.cases import Case
from tests.fuzz.invariants import NOTHING, REFUSED, SOLD, check

EXECUTIONS = 20_000
SECONDS_MAX = 3_600
# Ten thousand times what an execution takes, so that other work beside it, or making a find smaller, is no hang; a
# kernel that loops does not come back at all.
HANG_S = 60
# Loading takes seconds, and minutes where the kernels are compiled first.
START_S_MAX = 300
# Each shows another fault; what finds more should be mended first.
FINDS_MAX = 20
# Executions spent on making one find smaller.
SMALLER_MAX = 400

BROKE = "broke something"
ENDS = (REFUSED, NOTHING, SOLD, BROKE)

_STARTING = -1
_Numbers = Any  # shared arrays of integers, which have no type of their own


def main() -> int:
    """Run; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--seed", type=int, default=None, help="the number that a run before printed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=int, default=SECONDS_MAX)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    return Run(seed, options.executions, max(1, options.processes), options.seconds).watch()


class Run:
    """One run: workers, what each is at, and what was found."""

    def __init__(self, seed: int, executions: int, processes: int, seconds: int) -> None:
        self._context: SpawnContext = get_context("spawn")
        self._seed, self._executions, self._processes, self._seconds = seed, executions, processes, seconds
        # The number of the case that each worker is at, and how many cases ended how.
        self._at: _Numbers = self._context.Array("q", [_STARTING] * processes, lock=False)
        self._ends: _Numbers = self._context.Array("q", processes * len(ENDS), lock=False)
        self._found: Synchronized[int] = self._context.Value("q", 0)

    def watch(self) -> int:
        """Start the workers, show how far they are, and see to those that hang or die."""
        console = Console(stderr=True)
        console.print(f"{self._executions} executions, {self._processes} processes, --seed {self._seed}")
        began = time.monotonic()
        workers = [self._start(place, place) for place in range(self._processes)]
        moved = [(_STARTING, began)] * self._processes
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]} finds"), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                task = progress.add_task("", total=self._executions, found=0)
                tenths = 0
                while any(worker.exitcode != 0 for worker in workers):
                    time.sleep(0.2)
                    now, done = time.monotonic(), sum(self._ends)
                    progress.update(task, completed=done, found=self._found.value)
                    if not console.is_terminal and done * 10 // max(1, self._executions) > tenths:
                        tenths = done * 10 // self._executions
                        console.print(f"{done} done, {self._found.value} finds, {now - began:.0f} s")
                    if now - began > self._seconds or self._found.value >= FINDS_MAX:
                        break
                    for place, worker in enumerate(workers):
                        if self._at[place] != moved[place][0]:
                            moved[place] = (self._at[place], now)
                        patience_s = START_S_MAX if self._at[place] == _STARTING else HANG_S
                        hangs = worker.is_alive() and now - moved[place][1] > patience_s
                        died = worker.exitcode not in (None, 0)
                        if self._at[place] == _STARTING and (hangs or died):
                            console.print("a worker did not start")
                            return 2
                        if hangs or died:
                            worker.kill()
                            worker.join()
                            lost = self._lost(place, "hang" if hangs else "death")
                            workers[place] = self._start(place, lost + self._processes)
                            moved[place] = (_STARTING, now)
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        took, done = time.monotonic() - began, sum(self._ends)
        ends = [sum(self._ends[end :: len(ENDS)]) for end in range(len(ENDS))]
        told = ", ".join(f"{count} {end}" for end, count in zip(ENDS, ends, strict=True))
        console.print(f"{done} executions in {took:.0f} s ({done / took:.0f}/s), {self._found.value} finds: {told}")
        return 1 if self._found.value else 0

    def _start(self, place: int, number: int) -> SpawnProcess:
        self._at[place] = _STARTING
        arguments = (self._seed, number, self._executions, self._processes, place, self._at, self._ends, self._found)
        worker = self._context.Process(target=work, args=arguments, daemon=True)
        worker.start()
        return worker

    def _lost(self, place: int, how: str) -> int:
        """Keep the case that a worker did not come back from; give its number."""
        number = int(self._at[place])
        self._found.value += 1
        path = cases.write(cases.made(self._seed, number), f"{how}: seed {self._seed}, {number}", f"{how}-{number}")
        print(f"{how}: {path}", file=sys.stderr)
        return number


def work(
    seed: int,
    first: int,
    executions: int,
    processes: int,
    place: int,
    at: _Numbers,
    ends: _Numbers,
    found: Synchronized[int],
) -> None:
    """Run every case of one worker; keep one find of each kind."""
    warnings.simplefilter("error")
    warm_up()
    known: set[str] = set()
    parent = parent_process()
    for number in range(first, executions, processes):
        if parent is not None and not parent.is_alive():
            return  # however it ended, nobody waits for the rest
        at[place] = number
        case = cases.made(seed, number)
        end, fault = run(case)
        ends[place * len(ENDS) + ENDS.index(end)] += 1
        if fault is not None and fault not in known:
            known.add(fault)
            keep(case, fault, f"seed {seed}, {number}")
            with found.get_lock():
                found.value += 1


def run(case: Case) -> tuple[str, str | None]:
    """Run a case; give how it ended, and what it broke and where, None for nothing."""
    try:
        return check(case), None
    except Exception as error:  # whatever it is, it is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return BROKE, f"{type(error).__name__} in {Path(frame.filename).stem} {frame.name}: {frame.line}"


def keep(case: Case, fault: str, where: str) -> None:
    """Write a find as small as it gets in a bounded number of tries."""
    small = smaller(case, fault)
    path = cases.write(small, f"{fault} ({where})", fault)
    print(f"find: {path}", file=sys.stderr)


def smaller(case: Case, fault: str) -> Case:
    """Take away replies and parts of bodies as long as the fault stays the same."""
    tries = 0
    shrunk = True
    while shrunk and tries < SMALLER_MAX:
        shrunk = False
        for less in _less(case):
            tries += 1
            if tries > SMALLER_MAX:
                break
            if run(less)[1] == fault:
                case, shrunk = less, True
                break
    return case


def _less(case: Case) -> Iterator[Case]:
    for bidder, reply in case.replies.items():
        others = {name: one for name, one in case.replies.items() if name != bidder}
        yield msgspec.structs.replace(case, replies=others)
        for body in _cuts(reply.body):
            changed = {**case.replies, bidder: msgspec.structs.replace(reply, body=body)}
            yield msgspec.structs.replace(case, replies=changed)
    for body in _cuts(case.arrival.body):
        yield msgspec.structs.replace(case, arrival=msgspec.structs.replace(case.arrival, body=body))


def _cuts(body: bytes) -> Iterator[bytes]:
    size = len(body) // 2
    while size:
        for start in range(0, len(body), size):
            yield body[:start] + body[start + size :]
        size = size // 2 if size > 8 else 0

# Engines side by side: all that are to be compared are alive at the same time, and are asked in turns.
#
# A machine that is slower for a minute is slower for all of them. The figure is CPU time of the engine's process (all
# threads, user and system) by completed call, with a constant number of calls outstanding. What two runs of the very
# same engine differ by is what any other difference has to exceed: that pair is among the engines of every comparison.

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any, Final, TypeVar

import msgspec
import uvloop

from auction.v1 import openrtb_pb2
from benchmarks.peers import messages
from benchmarks.peers.counterparts import Caller, GrpcCaller, HttpCaller
from benchmarks.peers.processes import OTHER_CORE, child, cpu_ns

# Counts of bidders; the goals are set at these.
BIDDERS: Final = (1, 4, 8)

RUNS: Final = 7

# A run takes about so much of the engine's CPU: long enough that a page fault or a collection is not its figure.
RUN_S: Final = 0.3
CALLS_MIN, CALLS_MAX = 300, 10_000

# Asked for once before anything counts: connections, caches, what a runtime compiles as it goes; and once to see how
# many calls make a run.
WARM_CALLS: Final = 1_000

T = TypeVar("T")


class Ports(msgspec.Struct, frozen=True):
    """Where the bidders of one comparison are, over either protocol."""

    grpc: list[int]
    http: list[int]


class Running(msgspec.Struct, frozen=True):
    """An engine that is up: its process, and where it is asked; `path` is where JSON is posted to, none for gRPC."""

    pid: int
    port: int
    path: str = ""


class Skipped(Exception):
    """Why an engine cannot be measured here, in one line."""


class Engine(msgspec.Struct, frozen=True):
    """What is compared: the first part of its rows' names, and how it is started against bidders.

    `request` makes what it is asked of a size and a count of bidders, where that is not the message.
    """

    name: str
    start: Callable[[ExitStack, Ports], Running]
    request: Callable[[str, int], bytes] | None = None


def rows(
    engines: Sequence[Engine], counts: Sequence[int] = BIDDERS, sizes: Sequence[str] = messages.SIZES
) -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): CPU microseconds of each engine by call.

    RuntimeError where an engine fails to answer; one that cannot be had here is a line on standard error, once.
    """
    skipped: dict[str, str] = {}
    for bidders in counts:
        with ExitStack() as stack:
            ports = _bidders(stack, bidders)
            running: dict[Engine, Running] = {}
            for engine in engines:
                try:
                    running[engine] = engine.start(stack, ports)
                except Skipped as why:
                    skipped[engine.name] = str(why)
            for size in sizes:
                for name, runs in _measured(stack, running, size, bidders).items():
                    yield row_name(name, bidders, size), "us", runs
    for name, reason in skipped.items():
        print(f"  {name}: skipped: {reason}", file=sys.stderr)


def row_name(engine: str, bidders: int, size: str = messages.SIZES[0]) -> str:
    """Name a row; the larger request is part of it.

    >>> row_name("exchange.wire", 4), row_name("exchange.wire", 4, "2kb"), row_name("transport.wire", 0)
    ('exchange.wire.4.cpu_us', 'exchange.wire.4.2kb.cpu_us', 'transport.wire.echo.cpu_us')
    """
    count = str(bidders) if bidders else "echo"
    return f"{engine}.{count}.cpu_us" if size == messages.SIZES[0] else f"{engine}.{count}.{size}.cpu_us"


def _bidders(stack: ExitStack, count: int) -> Ports:
    if not count:
        return Ports([], [])
    return msgspec.convert(child(stack, ["-m", "benchmarks.peers.counterparts", str(count)], OTHER_CORE), Ports)


def _measured(stack: ExitStack, running: dict[Engine, Running], size: str, bidders: int) -> dict[str, list[float]]:
    """Give the runs of each engine, by its name. The callers are this process, on the bidders' core meanwhile."""
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OTHER_CORE % (os.cpu_count() or 1)})
    try:
        return uvloop.run(_turns(running, size, bidders))
    finally:
        os.sched_setaffinity(0, free)


async def _turns(running: dict[Engine, Running], size: str, bidders: int) -> dict[str, list[float]]:
    callers = {engine: _caller(engine, up, size, bidders) for engine, up in running.items()}
    expected, calls = {}, {}
    found: dict[str, list[float]] = {engine.name: [] for engine in running}
    busy: dict[str, list[float]] = {engine.name: [] for engine in running}
    try:
        for engine, caller in callers.items():
            await caller.open()
            answer = await caller.ask(WARM_CALLS, 0)
            examine(engine, running[engine], answer, bidders)
            expected[engine] = len(answer)
            used_us, _ = await _run(caller, running[engine], CALLS_MIN, len(answer))
            calls[engine] = calls_of(used_us)

        async def turn(engine: Engine) -> None:
            used_us, share = await _run(callers[engine], running[engine], calls[engine], expected[engine])
            found[engine.name].append(used_us)
            busy[engine.name].append(share)

        await in_turns(list(callers), RUNS, turn)
    finally:
        for caller in callers.values():
            await caller.close()
    for name, shares in busy.items():
        print(f"  {row_name(name, bidders, size)}: busy for {median(shares):.0%} of its runs", file=sys.stderr)
    return found


def calls_of(used_us: float) -> int:
    """Give how many calls make a run, of what one takes."""
    return max(CALLS_MIN, min(CALLS_MAX, round(RUN_S * 1e6 / used_us)))


async def in_turns(compared: Sequence[T], runs: int, turn: Callable[[T], Awaitable[None]]) -> None:
    """Run each once before any runs again, every other time in the opposite order and each time from another on, so
    that nobody always follows the same one.
    """
    for number in range(runs):
        first = number % max(1, len(compared))
        order = [*compared[first:], *compared[:first]]
        for one in reversed(order) if number % 2 else order:
            await turn(one)


async def _run(caller: Caller, up: Running, calls: int, expected: int) -> tuple[float, float]:
    """Give the microseconds of CPU by call, and which share of the time the engine was on its core."""
    before, began = cpu_ns(up.pid), time.monotonic_ns()
    await caller.ask(calls, expected)
    used_ns = cpu_ns(up.pid) - before
    return used_ns / calls / 1000, used_ns / (time.monotonic_ns() - began)


def _caller(engine: Engine, up: Running, size: str, bidders: int) -> Caller:
    body = messages.message(size) if engine.request is None else engine.request(size, bidders)
    return HttpCaller(up.port, body, up.path) if up.path else GrpcCaller(up.port, body)


def examine(engine: Engine, up: Running, answer: bytes, bidders: int) -> None:
    """See that an answer sells both impressions: an engine that is quick because nobody bids is no engine."""
    if not bidders:
        return
    bids: list[Any]
    if up.path:
        bids = [bid for seat in json.loads(answer).get("seatbid", ()) for bid in seat["bid"]]
        sold = {bid["impid"] for bid in bids}
    else:
        bids = [bid for seat in openrtb_pb2.BidResponse.FromString(answer).seatbid for bid in seat.bid]
        sold = {bid.impid for bid in bids}
    if sold != {imp["id"] for imp in messages.REQUEST["imp"]}:
        raise RuntimeError(f"{engine.name}: expected both impressions sold, were {sorted(sold)} in {answer[:400]!r}")

# An open loop: calls leave at their times whatever comes back, so a server that is slow meets as many calls as before.
#
# Gaps are exponential, because callers do not agree with each other; the same seed gives the same gaps. Whoever waits
# for an answer before it asks again asks less where it would have waited longest, and never sees it. Bidders live in
# this process, on the generator's core, and note when they wrote: each question has a number of its own, in its id,
# which is in what a bidder is asked as well.

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import uvloop

from auction.core.openrtb import json as codec
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.server import Server
from auction.edge.wire.statuses import Status
from benchmarks.exchange import configured
from benchmarks.peers import messages
from benchmarks.peers.counterparts import AUCTION_METHOD
from benchmarks.peers.processes import ENGINE_CORE, OTHER_CORE, child
from benchmarks.peers.turns import Ports

BID_METHOD: Final = "/auction.v1.Bidder/Bid"

# Connections of callers: several ad servers, or several threads of one.
CONNECTIONS: Final = 8

# Calls at a time of a closed loop: fewer than server.in_flight, 64 by default, because a call may be asked for again
# before the exchange has counted out the one before.
OUTSTANDING: Final = 48

# Calls that are sent without looking for answers in between, where many are due at once.
BURST: Final = 32

# How long after the last call an answer is waited for, in times of tmax; what comes later is as good as none.
PATIENCE: Final = 10

SEED: Final = 446

# What ends a row's name, and its unit.
UNITS: Final = {"_us": "us", "_ms": "ms", "_per_s": "auctions/s", "_ratio": "ratio"}

Numbers = tuple[str, str, list[float]]
"""A row's name and unit, and a number each run."""

T = TypeVar("T")

# What is in every number's id, so that it is found in what a bidder is asked: no run asks a million times.
ID_OCTETS: Final = len(messages.REQUEST["id"])
MARK: Final = b"\x0a%c" % ID_OCTETS + b"q" + b"0" * (ID_OCTETS - 8)


def named(number: int) -> str:
    """Name a question by its number, in as many octets as every other."""
    return f"q{number:0{ID_OCTETS - 1}}"


class Question:
    """What is asked: the request of a size, with an id for each number."""

    def __init__(self, size: str, tmax_ms: int) -> None:
        whole = msgspec.json.encode({**messages.request(size), "id": named(0), "tmax": tmax_ms})
        message = codec.request_bytes(whole, lenient=True, depth=32).message
        self._before, self._after = message.split(named(0).encode())
        self.tmax_s = tmax_ms / 1000

    def body(self, number: int) -> bytes:
        return named(number).encode().join((self._before, self._after))


class Bidders:
    """Sound bidders, and when the last of them to answer a question did.

    The time is the moment before the answer is put on its connection, which writes when it has read all that had come.
    They answer at once, or after `think_s`.
    """

    def __init__(self, count: int, think_s: float = 0.0) -> None:
        self.wrote: dict[int, float] = {}
        self.think_s = think_s
        self._servers = [Server({BID_METHOD: self._bid(row)}) for row in range(count)]

    async def start(self) -> list[int]:
        """Listen, and give the ports."""
        for server in self._servers:
            await server.start()
        return [server.port for server in self._servers]

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(0)

    def _bid(self, row: int) -> Callable[[Call], None]:
        before, after = messages.reply_message(row).split(messages.REQUEST["id"].encode())

        def bid(call: Call) -> None:
            body = call.body
            at = body.index(MARK) + 2
            name = body[at : at + ID_OCTETS]
            if self.think_s:
                asyncio.get_running_loop().call_later(self.think_s, answer, call, name)
            else:
                answer(call, name)

        def answer(call: Call, name: bytes) -> None:
            self.wrote[int(name[1:])] = time.monotonic()
            call.answer(name.join((before, after)))

        return bid


class Found(msgspec.Struct, frozen=True):
    """What became of the calls of one run, by their order: when each was due and answered (never: infinity), its
    status, and the octets of its answer; `first` is the number of the first.
    """

    first: int
    due: array[float]
    answered: array[float]
    statuses: list[Status | None]
    octets: array[int]

    def latencies(self) -> list[float]:
        """Give the seconds from when a call was due to its answer, of those that were answered OK."""
        return [
            at - due
            for due, at, status in zip(self.due, self.answered, self.statuses, strict=True)
            if status is Status.OK
        ]


class Callers:
    """Ad servers that ask an exchange at `port`."""

    def __init__(self, port: int, question: Question, connections: int = CONNECTIONS) -> None:
        self._channels = [Channel("127.0.0.1", port, now=time.monotonic) for _ in range(connections)]
        self._methods = [channel.method(AUCTION_METHOD) for channel in self._channels]
        self._question = question
        self._random = random.Random(SEED)
        self._numbers = 1

    async def open(self) -> None:
        for channel in self._channels:
            await channel.open()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    def _ask(self, number: int, done: Callable[[Status, bytes, str, bool], None]) -> None:
        place = number % len(self._channels)
        deadline = time.monotonic() + self._question.tmax_s
        self._channels[place].unary(self._methods[place], self._question.body(number), done, deadline, enforce=False)

    async def saturate(self, seconds: float) -> tuple[float, int]:
        """Ask as soon as answered, OUTSTANDING at a time; give the answers that were OK, a second, and the octets of
        the largest. RuntimeError if none is.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        under_way = answered = octets = 0
        began = time.monotonic()

        def more() -> None:
            nonlocal under_way
            under_way += 1
            self._numbers += 1
            self._ask(self._numbers, done)

        def done(status: Status, body: bytes, message: str, _: bool) -> None:
            nonlocal under_way, answered, octets
            under_way -= 1
            if status is Status.OK:
                answered += 1
                octets = max(octets, len(body))
            if time.monotonic() - began < seconds:
                more()
            elif not under_way:
                ended.set_result(None)

        for _ in range(OUTSTANDING):
            more()
        await ended
        if not answered:
            raise RuntimeError(f"expected answers, had none of {self._numbers} calls")
        return answered / (time.monotonic() - began), octets

    async def offer(self, rate: float, seconds: float) -> Found:
        """Ask `rate` times a second, whatever comes back; give what became of it."""
        count = max(1, round(rate * seconds))
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        due = times(self._random, time.monotonic(), rate, count)
        offering = Offering(
            self._ask, self._numbers + 1, due, later=loop.call_later, over=partial(ended.set_result, None)
        )
        self._numbers += count
        offering.turn()
        last = due[-1] - time.monotonic()
        # Given up silently: what was not answered is in what was found.
        await asyncio.wait((ended,), timeout=max(0.0, last) + PATIENCE * self._question.tmax_s)
        offering.close()
        return offering.found


def times(chance: random.Random, began: float, rate: float, count: int) -> array[float]:
    """Give so many moments after `began`, at exponential distances, `rate` a second in the mean."""
    at, due = began, array("d")
    for _ in range(count):
        at += chance.expovariate(rate)
        due.append(at)
    return due


class Offering:
    """One run: its calls, each sent when it is due by whoever calls `turn`, which asks `later` to be called again.

    `over` is called when all are answered. What is answered behind `close` is as good as never answered.
    """

    def __init__(
        self,
        ask: Callable[[int, Callable[..., None]], None],
        first: int,
        due: array[float],
        *,
        later: Callable[[float, Callable[[], None]], object],
        over: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        count = len(due)
        unanswered = array("d", [float("inf")]) * count
        self.found = Found(first, due, unanswered, [None] * count, array("l", [0]) * count)
        self._ask = ask
        self._later = later
        self._over = over
        self._now = now
        self._next = 0
        self._left = count
        self._closed = False

    def turn(self) -> None:
        """Send what is due, and be called again when the next is."""
        if self._closed:
            return
        due = self.found.due
        until = min(len(due), self._next + BURST)
        now = self._now()
        while self._next < until and due[self._next] <= now:
            place = self._next
            self._next += 1
            self._ask(self.found.first + place, partial(self._done, place))
        if self._next < len(due):
            # A loop's timer counts milliseconds; one for less fires at once, and looks again.
            self._later(max(0.0, due[self._next] - self._now()), self.turn)

    def close(self) -> None:
        """Send and hear nothing more."""
        self._closed = True

    def _done(self, place: int, status: Status, body: bytes, *_: object) -> None:
        if self._closed:
            return
        found = self.found
        found.answered[place] = self._now()
        found.statuses[place] = status
        found.octets[place] = len(body)
        self._left -= 1
        if not self._left:
            self._over()


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that this share of them does not exceed.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([4, 1, 3, 2], 0.999)
    (2, 4)
    """
    found = sorted(values)
    return found[max(0, -int(-share * len(found) // 1) - 1)]


async def exchange(stack: ExitStack, ports: Sequence[int], **server: Any) -> int:
    """Start an exchange on the wire with every rule on, and give its port; `server` are settings of that section."""
    return port(await exchange_at(stack, ports, **server))


def port(said: Mapping[str, str]) -> int:
    """Give the port for gRPC of an exchange that said where it is."""
    return int(said["grpc"].rpartition(":")[2])


async def exchange_at(stack: ExitStack, ports: Sequence[int], **server: Any) -> Mapping[str, str]:
    """Start an exchange likewise, and give all that it said when it was ready."""
    path = configured("wire", "grpc", stack, Ports(list(ports), []))
    config = json.loads(path.read_text())
    del config["server"]["in_flight"]
    config["server"] |= server
    path.write_text(json.dumps(config))
    # Elsewhere, because it connects to bidders on this loop before it says that it is ready.
    return await asyncio.to_thread(child, stack, ["-m", "auction", "serve", "--config", str(path)], ENGINE_CORE)


def rows(measure: Callable[[], Coroutine[Any, Any, Mapping[str, list[float]]]]) -> Iterator[Numbers]:
    """Run a measurement that gives numbers by name, and give them with their units; KeyError where a name has none."""
    for name, values in alone(measure).items():
        yield name, UNITS[next((end for end in UNITS if name.endswith(end)), name)], values


def alone(measure: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a measurement on the core that is not the engine's, with no collection of our own, and give what it found."""
    with _beside():
        return uvloop.run(measure())


@contextmanager
def _beside() -> Iterator[None]:
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {OTHER_CORE % (os.cpu_count() or 1)})
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        os.sched_setaffinity(0, free)

# What a million auctions leave behind: nothing. Caller, exchange and five bidders in one process over loopback, on the
# wire, so that each of its objects can be counted, on either side of each socket.
#
#   python -m benchmarks.leaks [--auctions 1000000]
#
# Four bidders are sound. The fifth answers every second call, and on the others does in turn all that a peer can do: it
# hangs, is late, refuses, sends noise, sends too much, breaks its message off, answers before it was asked to the end,
# and, once in a while, drops its connection under calls. Auctions are not written down: the log is for another to
# measure.
#
# asyncio's own loop carries it, because its timers can be counted and uvloop's cannot.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from auction.core.auction import compile_rules
from auction.core.kernels import warm_up
from auction.core.record import encode_rules
from auction.edge.admission import Admission
from auction.edge.metrics import Metrics
from auction.edge.transports.wire import BID_METHOD, WireBidder, WireServer
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.fields import Blocks
from auction.edge.wire.frames import Code
from auction.edge.wire.h2 import Connection
from auction.edge.wire.server import Served, Server
from auction.edge.wire.statuses import HEAD, Status, trailers
from auction.edge.wire.wheel import Wheel
from auction.exchange import Exchange, Market
from auction.model.clock import SystemClock
from auction.model.rules import BidderRules, Rules
from auction.v1.openrtb_pb2 import BidRequest, BidResponse

AUCTION_METHOD: Final = "/auction.v1.Exchange/Auction"
SOUND: Final = 4

# So many at a time that the loop is never idle, and that what hangs until its deadline does not hold up the rest.
OUTSTANDING: Final = 256
TMAX_MS: Final = 50
REPLY_BYTES: Final = 65_536

# Before the first look: every cache is full and the allocator has its arenas.
WARM_AUCTIONS: Final = 20_000

# A connection is dropped once in so many of the fifth bidder's calls, and is back after 100 ms.
DROP_EVERY: Final = 5_000

# Calls have ended by their deadline, connections are looked at once a second.
REST_S: Final = 15.0

# What may differ between two looks: the collector's own objects, an entry of a cache, an arena of the allocator. Header
# blocks that connections remember, up to a bound of their own, are left out: how many distinct timeouts were told is a
# matter of how busy the machine was. One object left by one misbehaving call in a thousand would be a hundred of a
# million auctions.
OBJECTS_MORE: Final = 90
RESIDENT_MORE_MB: Final = 8.0

ENDING: Final = trailers(Status.OK)
NOISE: Final = b"\xff" * 300
LARGE: Final = bytes(REPLY_BYTES + 1)


class Held(msgspec.Struct, frozen=True):
    """What a process holds at rest."""

    streams: int
    sockets: int
    connections: int
    timers: int
    deadlines: int
    tasks: int
    objects: int
    resident_mb: float

    def leaks(self, before: Held) -> list[str]:
        """Say what is more than before."""
        more = [
            f"{name}: {getattr(before, name)} -> {getattr(self, name)}"
            for name in ("streams", "sockets", "connections", "timers", "deadlines", "tasks")
            if getattr(self, name) > getattr(before, name)
        ]
        if self.objects > before.objects + OBJECTS_MORE:
            more.append(f"objects: {before.objects} -> {self.objects}")
        if self.resident_mb > before.resident_mb + RESIDENT_MORE_MB:
            more.append(f"resident: {before.resident_mb:.1f} -> {self.resident_mb:.1f} MB")
        return more


def held() -> Held:
    """Count, once cycles have been collected."""
    gc.collect()
    objects = gc.get_objects()
    loop: Any = asyncio.get_running_loop()
    connections = [each for each in objects if type(each) is Connection and not each.over]
    blocks = [fields for each in objects if type(each) is Blocks for fields in each.known.values()]
    buckets = [bucket for each in objects if type(each) is Wheel for bucket in each._buckets.values()]
    remembered = {*map(id, blocks), *(id(each.meaning) for each in blocks), *map(id, buckets)}
    status = Path("/proc/self/statm").read_text("ascii").split()
    return Held(
        streams=sum(len(each.streams) for each in connections),
        sockets=sockets(),
        connections=len(connections),
        timers=sum(not each.cancelled() for each in loop._scheduled),
        deadlines=sum(map(len, buckets)),
        tasks=len(asyncio.all_tasks()),
        objects=sum(id(each) not in remembered for each in objects),
        resident_mb=int(status[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


def sockets() -> int:
    """Count this process' open sockets."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


class Misbehaving:
    """The fifth bidder: every second call is answered, the others in as many wrong ways as there are."""

    def __init__(self, answer: Callable[[Call], None]) -> None:
        self._answer = answer
        self._calls = 0
        self._ways = (self.hang, self.late, self.refuse, self.noise, self.too_much, self.half, self.reset)
        self.done: Counter[str] = Counter()

    def __call__(self, call: Call) -> None:
        self._calls += 1
        way: Callable[[Call], None]
        if self._calls % DROP_EVERY == 0:
            way = self.drop
        elif self._calls % 2:
            way = self._answer
        else:
            way = self._ways[self._calls // 2 % len(self._ways)]
        self.done[way.__name__] += 1
        way(call)

    def hang(self, call: Call) -> None: ...

    def late(self, call: Call) -> None:
        asyncio.get_running_loop().call_later(1.1 * TMAX_MS / 1000, self._answer, call)

    def refuse(self, call: Call) -> None:
        call.refuse(Status.UNAVAILABLE, "not now")

    def noise(self, call: Call) -> None:
        call.answer(NOISE)

    def too_much(self, call: Call) -> None:
        call.answer(LARGE)

    def half(self, call: Call) -> None:
        stream = call._take()
        if stream is not None:
            call._connection.send(stream, HEAD, b"\0\0\0\1\0half", ENDING)

    def reset(self, call: Call) -> None:
        stream = call._take()
        if stream is not None:
            call._connection.reset(stream, Code.INTERNAL_ERROR)
            call._owner.due()

    def drop(self, call: Call) -> None:
        owner: Any = call._owner
        assert isinstance(owner, Served)
        assert owner._transport is not None
        owner._transport.abort()


class Callers:
    """Ask for auctions, so many at a time, by callback."""

    def __init__(self, channel: Channel, body: bytes, now: Callable[[], float]) -> None:
        self.ended: Counter[str] = Counter()
        self._channel = channel
        self._method = channel.method(AUCTION_METHOD)
        self._body = body
        self._now = now
        self._left = self._out = 0
        self._over: asyncio.Future[None] | None = None

    async def hold(self, auctions: int) -> None:
        """Have auctions held, and return when the last has ended."""
        self._left = auctions
        self._over = asyncio.get_running_loop().create_future()
        for _ in range(min(auctions, OUTSTANDING)):
            self._take()
            self._ask()
        await self._over
        self._over = None

    def _take(self) -> None:
        self._left -= 1
        self._out += 1

    def _ask(self) -> None:
        self._channel.unary(self._method, self._body, self._done, self._now() + 5.0)

    def _done(self, status: Status, body: bytes, message: str, ours: bool) -> None:
        self.ended[status.name if status else "OK with a bid" if len(body) > 20 else "OK"] += 1
        self._out -= 1
        if self._left:
            # Not from within: an answer that is there at once would ask the next one deeper on the stack.
            self._take()
            asyncio.get_running_loop().call_soon(self._ask)
        elif not self._out and self._over is not None:
            self._over.set_result(None)


async def leaks(auctions: int) -> int:
    """Hold auctions and look before and after; print both, and give how many things were left behind."""
    clock = SystemClock()
    first = sockets()  # the event loop's own
    answer = bid().SerializeToString()
    fifth = Misbehaving(lambda call: call.answer(answer))
    bidders = [Server({BID_METHOD: lambda call: call.answer(answer)}) for _ in range(SOUND)]
    bidders.append(Server({BID_METHOD: fifth}))
    for each in bidders:
        await each.start()
    names = [f"dsp-{number}" for number in range(len(bidders))]
    ways = [WireBidder(f"127.0.0.1:{each.port}", clock, reply_bytes=REPLY_BYTES) for each in bidders]
    for way in ways:
        await way.open()
    rules = Rules(bidders=tuple(BidderRules(name) for name in names))
    market = Market(compile_rules(rules), encode_rules(rules, "leaks"), dict(zip(names, ways, strict=True)))
    exchange = Exchange(market, clock=clock, admission=Admission(2 * OUTSTANDING), metrics=Metrics(names), journal=None)
    server = WireServer(exchange, [AUCTION_METHOD], clock)
    await server.start()
    channel = Channel("127.0.0.1", server.port)
    await channel.open()
    callers = Callers(channel, request().SerializeToString(), clock.monotonic)
    try:
        await callers.hold(min(auctions, WARM_AUCTIONS))
        before = await at_rest(None)
        callers.ended.clear()
        began = time.monotonic()
        left = auctions
        while left:
            part = min(left, max(1, auctions // 10))
            await callers.hold(part)
            left -= part
            rate = (auctions - left) / (time.monotonic() - began)
            print(f"{auctions - left:9} of {auctions} auctions, {rate:.0f} a second", flush=True)
        after = await at_rest(before)
    finally:
        await channel.close()
        await server.stop(1)
        for way in ways:
            await way.close()
        for each in bidders:
            await each.stop(0)
    print(f"ended: {dict(callers.ended)}; the fifth bidder's calls: {dict(fifth.done)}")
    print(f"before: {before}\nafter:  {after}")
    faults = after.leaks(before)
    if callers.ended.total() != auctions:
        faults.append(f"auctions: {callers.ended.total()} of {auctions} ended")
    if (open_after := held()).sockets > first or open_after.connections or open_after.deadlines:
        faults.append(f"still open when all was closed: {open_after}")
    print("FAILED: " + "; ".join(faults) if faults else "holds: everything ended where it began")
    return len(faults)


async def at_rest(before: Held | None) -> Held:
    """Wait until what was under way has ended, or REST_S; there are always as many connections as there were."""
    end = time.monotonic() + REST_S
    while True:
        await asyncio.sleep(1.5)
        now = held()
        settled = not (now.streams or now.deadlines) and (before is None or not now.leaks(before))
        if settled or time.monotonic() > end:
            return now


def request() -> BidRequest:
    """Make a request of one impression."""
    made = BidRequest(id="r1", tmax=TMAX_MS)
    impression = made.imp.add(id="1")
    impression.banner.format.add(w=300, h=250)
    return made


def bid() -> BidResponse:
    """Make an answer of one bid."""
    made = BidResponse(id="r1", cur="USD")
    made.seatbid.add().bid.add(id="b1", impid="1", price=1.25, adm="<a>", crid="c", adomain=["a.example"], w=300, h=250)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description="What auctions leave behind.")
    parser.add_argument("--auctions", type=int, default=1_000_000)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warm_up()
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return min(1, runner.run(leaks(args.auctions)))


if __name__ == "__main__":
    sys.exit(main())

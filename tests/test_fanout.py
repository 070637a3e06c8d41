# Fan-out over the memory transport: time is a number here, so every instant is exact and nothing waits.

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from auction.edge.fanout import ask, solicit
from auction.edge.transports import Cancel, Done, settled
from auction.edge.transports.memory import HANG, ManualClock, MemoryBidder, Play, Script
from auction.model.auction import Encoding, Invitation
from auction.model.clock import Deadline, SystemClock
from auction.model.reply import Reply, ReplyStatus

BID, NO_BID, TIMED_OUT = ReplyStatus.BID, ReplyStatus.NO_BID, ReplyStatus.TIMED_OUT
UNREACHABLE, INVALID = ReplyStatus.UNREACHABLE, ReplyStatus.INVALID


class Market:
    """Scripted bidders, a clock, and one auction at a time, 100 ms long."""

    def __init__(self, **scripts: Script) -> None:
        self.clock = ManualClock()
        self.bidders = {name: MemoryBidder(script, self.clock) for name, script in scripts.items()}
        self.invitations = [invitation(name) for name in scripts]
        self.answers: list[list[Reply]] = []

    async def opened(self) -> Market:
        for bidder in self.bidders.values():
            await bidder.open()
        return self

    def ask(self, *names: str) -> Cancel:
        invitations = [invitation(name) for name in names] or self.invitations
        return ask(invitations, Deadline(self.clock.monotonic() + 0.1), self.bidders, self.clock, self.answers.append)

    @property
    def statuses(self) -> list[ReplyStatus]:
        (replies,) = self.answers
        return [reply.status for reply in replies]

    @property
    def left_behind(self) -> int:
        return self.clock.timers + sum(bidder.under_way for bidder in self.bidders.values())


def invitation(bidder: str) -> Invitation:
    return Invitation(bidder, Encoding.PROTOBUF, b"request", (0,))


def plays(play: Play | None) -> Script:
    return lambda invitation, deadline: play


def after(seconds: float, body: bytes = b"reply") -> Script:
    return plays(Play(body, after_s=seconds))


def crash(invitation: Invitation, deadline: Deadline) -> Play:
    raise ZeroDivisionError("out of budget")


async def test_every_bidder_gets_one_reply_in_the_order_invited_whatever_it_does() -> None:
    market = await Market(
        slow=after(0.05),
        hung=plays(HANG),
        quick=after(0, b"quick"),
        crashed=crash,
        silent=after(0, b""),
        enormous=after(0.01, b"x" * 65_537),
        gone=plays(Play(after_s=0.02, status=UNREACHABLE, detail="reset")),
    ).opened()
    market.ask()
    market.clock.advance(0.1)
    assert [BID, TIMED_OUT, BID, UNREACHABLE, NO_BID, INVALID, UNREACHABLE] == market.statuses
    assert list(market.bidders) == [reply.bidder for reply in market.answers[0]]
    assert [b"reply", b"", b"quick", b"", b"", b"", b""] == [reply.body for reply in market.answers[0]]
    assert market.left_behind == 0


async def test_answers_leave_as_soon_as_all_are_in() -> None:
    market = await Market(a=after(0.02), b=after(0.03)).opened()
    market.ask()
    market.clock.advance(0.029)
    assert market.answers == []
    market.clock.advance(0.001)
    assert [BID, BID] == market.statuses
    assert [20_000, 30_000] == [reply.latency_us for reply in market.answers[0]]
    assert market.left_behind == 0


async def test_a_reply_complete_at_the_deadline_is_late() -> None:
    # Binary fractions, so that sums of instants are exact.
    clock = ManualClock(0.0)
    replies: dict[str, list[Reply]] = {}
    for name, seconds in (("before", 0.25 - 2**-20), ("at", 0.25), ("beyond", 0.25 + 2**-20)):
        bidder = MemoryBidder(after(seconds), clock)
        await bidder.open()
        deadline = Deadline(clock.monotonic() + 0.25)
        ask([invitation(name)], deadline, {name: bidder}, clock, replies.setdefault(name, []).extend)
        clock.advance(0.5)
    assert {"before": BID, "at": TIMED_OUT, "beyond": TIMED_OUT} == {n: r[0].status for n, r in replies.items()}
    assert replies["at"][0].latency_us == 250_000
    assert replies["at"][0].body == b""


async def test_lateness_is_told_by_the_clock_when_the_timer_is_behind() -> None:
    class Busy(ManualClock):
        """A loop too busy to fire its timers."""

        def call_at(self, instant: float, callback: object) -> Idle:
            return Idle()

    class Idle:
        def cancel(self) -> None: ...

    class Held:
        def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
            self.done = done
            return settled

        async def open(self) -> None: ...
        async def close(self) -> None: ...

    clock, first, second = Busy(), Held(), Held()
    answers: list[list[Reply]] = []
    connections = {"a": first, "b": second}
    ask([invitation("a"), invitation("b")], Deadline(clock.monotonic() + 0.1), connections, clock, answers.append)
    clock.advance(0.2)
    first.done(BID, b"reply", "")
    assert [TIMED_OUT, TIMED_OUT] == [reply.status for reply in answers[0]]
    second.done(BID, b"reply", "")
    assert len(answers) == 1


async def test_a_timer_that_fires_early_does_not_end_the_auction() -> None:
    class Hasty(ManualClock):
        def call_at(self, instant, callback):  # type: ignore[no-untyped-def]
            return super().call_at(instant - 0.0005, callback)

    clock = Hasty()
    bidder = MemoryBidder(after(0.0998), clock)  # told to a hasty clock: complete 0.7 ms before the deadline
    hung = MemoryBidder(plays(HANG), clock)
    await bidder.open()
    await hung.open()
    answers: list[list[Reply]] = []
    deadline = Deadline(clock.monotonic() + 0.1)
    ask([invitation("a"), invitation("h")], deadline, {"a": bidder, "h": hung}, clock, answers.append)
    clock.advance(0.0999)
    assert answers == []
    clock.advance(0.0015)
    assert [BID, TIMED_OUT] == [reply.status for reply in answers[0]]
    assert clock.timers == 0


async def test_nobody_is_asked_when_the_deadline_has_passed() -> None:
    asked: list[str] = []

    def script(invitation: Invitation, deadline: Deadline) -> Play:
        asked.append(invitation.bidder)
        return Play(b"reply")

    market = await Market(a=script).opened()
    ask(market.invitations, Deadline(market.clock.monotonic()), market.bidders, market.clock, market.answers.append)
    assert [TIMED_OUT] == market.statuses
    assert asked == []


async def test_a_deadline_that_passes_while_asking_stops_the_asking() -> None:
    market = await Market(a=plays(HANG), b=plays(HANG), c=plays(HANG)).opened()

    def slow(invitation: Invitation, deadline: Deadline) -> Play:
        market.clock.advance(0.2)  # our own process stalls
        return Play(b"reply")

    market.bidders["b"] = MemoryBidder(slow, market.clock)
    await market.bidders["b"].open()
    market.ask()
    assert [TIMED_OUT, TIMED_OUT, TIMED_OUT] == market.statuses
    assert market.left_behind == 0


async def test_nobody_invited_is_answered_at_once() -> None:
    market = Market()
    market.ask()
    assert market.answers == [[]]


async def test_a_bidder_without_a_connection_is_unreachable() -> None:
    market = await Market(a=after(0)).opened()
    market.ask("a", "unknown")
    assert [BID, UNREACHABLE] == market.statuses


async def test_a_connection_that_raises_costs_its_bidder_only(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryBidder):
        def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
            raise RuntimeError("a fault of ours")

    market = await Market(a=after(0.01), b=plays(HANG)).opened()
    market.bidders["b"] = Broken(plays(HANG), market.clock)
    market.ask()
    market.clock.advance(0.01)
    assert [BID, UNREACHABLE] == market.statuses
    assert "asking b failed" in caplog.text


async def test_a_connection_that_ends_twice_is_heard_once() -> None:
    class Stutter(MemoryBidder):
        def bid(self, invitation: Invitation, deadline: Deadline, done: Done) -> Cancel:
            done(BID, b"first", "")
            done(BID, b"second", "")
            return settled

    market = await Market(a=plays(HANG), b=after(0.01)).opened()
    market.bidders["a"] = Stutter(plays(HANG), market.clock)
    market.ask()
    market.clock.advance(0.1)
    assert [b"first", b"reply"] == [reply.body for reply in market.answers[0]]


async def test_details_are_short_and_can_be_written_down() -> None:
    market = await Market(a=plays(Play(status=INVALID, detail="\udcff" + "x" * 1000))).opened()
    market.ask()
    assert "?" + "x" * 199 == market.answers[0][0].detail


async def test_a_late_call_is_withdrawn_and_never_heard_again() -> None:
    market = await Market(a=after(0.2), b=after(0.01)).opened()
    market.ask()
    market.clock.advance(0.1)
    assert [TIMED_OUT, BID] == market.statuses
    assert market.left_behind == 0
    market.clock.advance(1.0)
    assert len(market.answers) == 1


async def test_cancelling_solicit_withdraws_every_call() -> None:
    market = await Market(a=plays(HANG), b=after(0.05), c=after(0)).opened()
    deadline = Deadline(market.clock.monotonic() + 0.1)
    task = asyncio.create_task(solicit(market.invitations, deadline, market.bidders, market.clock))
    await asyncio.sleep(0)
    assert market.left_behind == 4  # two calls, the reply of b, the deadline
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert market.left_behind == 0


async def test_a_reply_between_cancellation_and_its_arrival_is_dropped() -> None:
    market = await Market(a=after(0.05)).opened()
    deadline = Deadline(market.clock.monotonic() + 0.1)
    task = asyncio.create_task(solicit(market.invitations, deadline, market.bidders, market.clock))
    await asyncio.sleep(0)
    task.cancel()
    market.clock.advance(0.05)  # the last reply comes before the task hears of its cancellation
    with pytest.raises(asyncio.CancelledError):
        await task
    assert market.left_behind == 0


async def test_solicit_gives_the_replies_on_the_machines_own_clock() -> None:
    clock = SystemClock()
    bidders = {"a": MemoryBidder(after(0), clock), "b": MemoryBidder(plays(HANG), clock)}
    for bidder in bidders.values():
        await bidder.open()
    deadline = Deadline(clock.monotonic() + 0.02)
    replies = await solicit([invitation("a"), invitation("b")], deadline, bidders, clock)
    assert [BID, TIMED_OUT] == [reply.status for reply in replies]
    assert clock.monotonic() >= deadline.at
    assert replies[1].latency_us >= 19_999


@pytest.fixture
def without_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_ten_thousand_auctions_leave_nothing_behind(without_gc: None) -> None:
    market = await Market(
        slow=after(0.05), hung=plays(HANG), late=after(0.2), crashed=crash, silent=after(0, b""), quick=after(0)
    ).opened()
    deadline = Deadline(market.clock.monotonic() + 3600)
    tasks = len(asyncio.all_tasks())
    for number in range(10_000):
        if number % 10 == 0:  # every tenth is abandoned half way
            task = asyncio.create_task(solicit(market.invitations, deadline, market.bidders, market.clock))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task
        else:
            market.ask()
            market.clock.advance(0.1)
            assert [BID, TIMED_OUT, TIMED_OUT, UNREACHABLE, NO_BID, BID] == market.statuses
            market.answers.clear()
    assert market.left_behind == 0
    assert len(asyncio.all_tasks()) == tasks
    # Calls and rows refer to each other while an auction runs; without the collector only what was untied is freed.
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ in ("_Solicitation", "_Scripted")]

# The open loop of benchmarks: calls leave at their times whatever comes back, and what became of each is told apart.

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from itertools import pairwise
from statistics import mean

import pytest

from auction.edge.wire.statuses import Status
from benchmarks import latency, overload
from benchmarks.openloop import BURST, ID_OCTETS, Found, Offering, Question, named, percentile, rows, times

Done = Callable[..., None]
NEVER = float("inf")


class Run:
    """Drives an offering by hand: a clock that moves when it is told to, one timer, and a server that answers never,
    or when it is told to.
    """

    def __init__(self, due: list[float]) -> None:
        self.now = 0.0
        self.asked: list[tuple[float, int]] = []
        self.done: dict[int, Done] = {}
        self.over = 0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.offering = Offering(self._ask, 7, array("d", due), later=self._later, over=self._all, now=lambda: self.now)
        self.offering.turn()

    def _ask(self, number: int, done: Done) -> None:
        self.asked.append((self.now, number))
        self.done[number] = done

    def _later(self, seconds: float, turn: Callable[[], None]) -> None:
        assert seconds >= 0
        self._timers.append((self.now + seconds, turn))

    def _all(self) -> None:
        self.over += 1

    def until(self, end: float) -> None:
        """Let time pass; timers fire when they are due."""
        while self._timers and self._timers[0][0] <= end:
            assert 1 == len(self._timers), "one timer at a time"
            at, turn = self._timers.pop(0)
            self.now = max(self.now, at)
            turn()
        self.now = end

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self.now += seconds


DUE = [0.25, 0.5, 0.5, 2.0]


def test_calls_leave_when_they_are_due_whatever_is_unanswered() -> None:
    run = Run(DUE)
    run.until(10.0)
    assert list(zip(DUE, (7, 8, 9, 10), strict=True)) == run.asked
    assert [None] * 4 == run.offering.found.statuses
    assert not run.over


def test_calls_leave_no_sooner_when_all_is_answered() -> None:
    run = Run(DUE)
    for moment in (0.3, 0.6, 0.9):
        run.until(moment)
        for number in list(run.done):
            run.done.pop(number)(Status.OK, b"")
    assert [7, 8, 9] == [number for _, number in run.asked]


def test_latency_counts_from_when_a_call_was_due_even_if_the_generator_was_late() -> None:
    run = Run(DUE)
    run.stall(1.0)  # all but the last are overdue when the timer fires
    run.until(1.0)
    assert [(1.0, 7), (1.0, 8), (1.0, 9)] == run.asked
    run.done[7](Status.OK, b"")
    assert [0.75] == run.offering.found.latencies()


def test_what_is_overdue_leaves_in_bursts_so_that_answers_are_heard_in_between() -> None:
    run = Run([0.5] * (2 * BURST + 1))
    sent_by_turn = []
    while run._timers:
        at, turn = run._timers.pop(0)
        run.now = max(run.now, at)
        before = len(run.asked)
        turn()
        sent_by_turn.append(len(run.asked) - before)
    assert [BURST, BURST, 1] == sent_by_turn


def test_each_call_has_its_status_its_octets_and_its_time_whatever_the_order_of_answers() -> None:
    run = Run(DUE)
    run.until(2.0)
    run.done[10](Status.RESOURCE_EXHAUSTED, b"", "not now", False)
    run.until(3.0)
    run.done[8](Status.OK, b"abc", "", False)
    found = run.offering.found
    assert [None, Status.OK, None, Status.RESOURCE_EXHAUSTED] == found.statuses
    assert [0, 3, 0, 0] == list(found.octets)
    assert [NEVER, 3.0, NEVER, 2.0] == list(found.answered)
    assert [2.5] == found.latencies()  # of a refusal there is none


def test_the_end_is_told_once_when_the_last_is_answered() -> None:
    run = Run(DUE)
    run.until(2.0)
    for number in (10, 9, 8):
        run.done[number](Status.OK, b"")
    assert 0 == run.over
    run.done[7](Status.UNAVAILABLE, b"")
    assert 1 == run.over


def test_what_is_answered_when_nobody_waits_any_more_was_never_answered() -> None:
    run = Run(DUE)
    run.until(1.0)
    run.offering.close()
    run.done[7](Status.OK, b"")
    run.until(5.0)
    assert [None] * 4 == run.offering.found.statuses
    assert 3 == len(run.asked)


def test_times_are_in_order_as_many_a_second_as_asked_and_the_same_for_the_same_seed() -> None:
    first, again = (times(random.Random(446), 5.0, 100.0, 20_000) for _ in range(2))
    assert first == again
    assert sorted(first) == list(first)
    assert 5.0 < first[0]
    gaps = [after - before for before, after in pairwise(first)]
    assert 0.01 == pytest.approx(mean(gaps), rel=0.03)
    # Exponential: as many as in e come later than the mean, and not all at the same distance.
    assert 0.368 == pytest.approx(mean(gap > 0.01 for gap in gaps), abs=0.02)


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_percentile_is_what_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert expected == percentile(range(100, 0, -1), share)


@pytest.mark.parametrize("size", ["446b", "2kb"])
def test_questions_differ_by_their_number_and_by_nothing_else(size: str) -> None:
    question = Question(size, 100)
    one, other = question.body(1), question.body(123_456)
    assert len(one) == len(other)
    assert named(123_456).encode() in other
    assert one == other.replace(named(123_456).encode(), named(1).encode())
    assert {ID_OCTETS} == {len(named(number)) for number in (0, 1, 999_999)}


# ------------------------------------------------------------------------------------------ what is made of a run


def found(*calls: tuple[float, float, Status | None, int], first: int = 7) -> Found:
    due, answered, statuses, octets = zip(*calls, strict=True)
    return Found(first, array("d", due), array("d", answered), list(statuses), array("l", octets))


def test_goodput_counts_whole_answers_in_time_by_the_second() -> None:
    run = found(
        (0.0, 0.05, Status.OK, 100),
        (1.0, 1.09, Status.OK, 90),
        (2.0, 2.101, Status.OK, 100),  # beyond its tmax
        (3.0, 3.01, Status.OK, 89),  # somebody's bids are missing
        (4.0, 4.01, Status.RESOURCE_EXHAUSTED, 0),
        (5.0, NEVER, None, 0),
    )
    assert 2 / 5 == overload.goodput(run, 100)


def test_rows_have_the_unit_that_their_names_end_with() -> None:
    async def measured() -> dict[str, list[float]]:
        return {"a.p99_us": [1.0, 2.0], "a.p99_ms": [3.0], "a.peak_per_s": [4.0], "a.answered_ratio": [5.0]}

    expected = [("a.p99_us", "us"), ("a.p99_ms", "ms"), ("a.peak_per_s", "auctions/s"), ("a.answered_ratio", "ratio")]
    found = list(rows(measured))
    assert expected == [(name, unit) for name, unit, _ in found]
    assert [1.0, 2.0] == found[0][2]


def test_a_row_without_a_unit_is_an_error() -> None:
    async def measured() -> dict[str, list[float]]:
        return {"a.octets": [1.0]}

    with pytest.raises(KeyError, match=r"a\.octets"):
        list(rows(measured))


def test_time_added_is_from_the_last_bidders_answer_and_of_no_call_that_did_not_wait_for_it() -> None:
    run = found(
        (0.0, 0.5, Status.OK, 1),
        (1.0, 1.5, Status.OK, 1),  # answered before its last bidder wrote
        (2.0, 2.5, Status.OK, 1),  # no bidder was asked
        (3.0, 3.5, Status.UNAVAILABLE, 0),
        (4.0, NEVER, None, 0),
    )
    assert [0.25] == latency.added(run, {7: 0.25, 8: 1.75, 10: 3.25, 11: 4.5})

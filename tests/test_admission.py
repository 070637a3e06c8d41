# A bounded number of auctions in flight.

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auction.edge.admission import Admission


def test_one_more_than_the_limit_is_refused_and_changes_nothing() -> None:
    admission = Admission(2)
    assert [True, True, False, False] == [admission.enter() for _ in range(4)]
    assert 2 == admission.in_flight


def test_whoever_leaves_makes_room_for_one() -> None:
    admission = Admission(1)
    assert admission.enter()
    admission.leave()
    assert [True, False] == [admission.enter(), admission.enter()]


@given(st.integers(1, 5), st.lists(st.booleans()))
def test_in_flight_is_those_admitted_less_those_gone_and_never_above_the_limit(limit: int, moves: list[bool]) -> None:
    admission, inside = Admission(limit), 0
    for arrives in moves:
        if arrives:
            inside += admission.enter()
        elif inside:
            admission.leave()
            inside -= 1
        assert inside == admission.in_flight <= limit

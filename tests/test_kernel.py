# The kernel against its slow twin: the integer part of tests/oracle.py, bit by bit.
#
# Goal: no combination of prices, floors, ranks and switches makes the two differ, at the edges of int64 as little as
# anywhere else. Method: rows of columns are generated directly, from few values so that ties are common and from the
# largest that fit, and settled both ways under every combination of switches.
#
# Coverage does not see jitted lines; with NUMBA_DISABLE_JIT=1 the same tests run the kernel as plain Python.

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auction.core.kernels import clear as clear_imps
from auction.core.kernels import warm_up
from auction.core.kernels.clear import (
    AT,
    BIDDER,
    CLEARING_PRICE,
    COLUMNS,
    COMPETITOR,
    DEAL,
    DEAL_FLOOR,
    DEALS_FIRST,
    FLOOR,
    IMP,
    MIN_TO_WIN,
    PRICE,
    RANK,
    RANKED,
    REASON,
    RESULTS,
    RIVAL,
    SAME_COMPETITOR_SETS_PRICE,
    SETTER,
    SETTLEMENTS,
    TABLE_MIN_TO_WIN,
    TOLD_FLOOR,
    WINNER,
)
from auction.core.kernels.fold import KERNEL_PAYS, fold
from auction.model import draws

MOST = 2**63 - 1
LEAST = -(2**63)
IMPS = 3
SWITCHES = range((DEALS_FIRST | SAME_COMPETITOR_SETS_PRICE | TABLE_MIN_TO_WIN) + 1)
OWN_BID, AGREED, RIVALS, FLOORS, SOFT_FLOOR = 1, 2, 3, 5, 7

# (reason, min_to_win) of each bid; (winner, clearing price, setter, rival) of each impression.
Settlement = tuple[list[tuple[int, int]], list[tuple[int, int, int, int]]]


def by_kernel(rows: Sequence[Sequence[int]], increment: int, switches: int, soft_floor: int = -1) -> Settlement:
    bids = np.array([cell for row in rows for cell in row], np.int64)
    out = np.full(len(rows) * RESULTS + IMPS * SETTLEMENTS, 123456789, np.int64)
    clear_imps(bids, IMPS, increment, soft_floor, switches, out)
    cells = out.tolist()
    split = len(rows) * RESULTS
    per_bid = [(cells[at + REASON], cells[at + MIN_TO_WIN]) for at in range(0, split, RESULTS)]
    per_imp = [
        (cells[at + WINNER], cells[at + CLEARING_PRICE], cells[at + SETTER], cells[at + RIVAL])
        for at in range(split, len(cells), SETTLEMENTS)
    ]
    return per_bid, per_imp


def by_oracle(rows: Sequence[Sequence[int]], increment: int, switches: int, soft_floor: int = -1) -> Settlement:
    exchange = oracle.Exchange(
        increment=increment,
        soft_floor=None if soft_floor < 0 else soft_floor,
        deal_mode="deals_first" if switches & DEALS_FIRST else "compete",
        same_seat_sets_price=bool(switches & SAME_COMPETITOR_SETS_PRICE),
        min_to_win="table" if switches & TABLE_MIN_TO_WIN else "text",
    )
    per_bid = {place: (-1, -1) for place, row in enumerate(rows) if row[IMP] < 0}
    per_imp = []
    for imp in range(IMPS):
        places = [place for place, row in enumerate(rows) if row[IMP] == imp]
        bids = [oracle_row(rows[place]) for place in places]
        settlement = (-1, 0, 0, -1)
        for place, bid, verdict in zip(places, bids, oracle.settle(bids, exchange), strict=True):
            per_bid[place] = (verdict.reason, -1 if verdict.min_to_win is None else verdict.min_to_win)
            if verdict.clearing is not None:
                rival = -1 if verdict.rival is None else verdict.rival
                settlement = (place, verdict.clearing, setter(bid, verdict, increment, soft_floor), rival)
        per_imp.append(settlement)
    return [per_bid[place] for place in range(len(rows))], per_imp


def oracle_row(row: Sequence[int]) -> oracle.Row:
    """Say the same thing in the oracle's words, which does not compare floors itself."""
    refused = 101 if row[PRICE] < row[DEAL_FLOOR] else 100 if row[PRICE] < row[TOLD_FLOOR] else 0
    return oracle.Row(
        price=row[RANKED],
        floor=row[FLOOR] if refused else min(row[FLOOR], row[RANKED]),
        at=row[AT],
        deal=bool(row[DEAL]),
        competitor=row[COMPETITOR],
        rank=row[RANK],
        name=row[BIDDER].to_bytes(2, "big"),
        refused=refused,
    )


def setter(winner: oracle.Row, verdict: oracle.Verdict, increment: int, soft_floor: int) -> int:
    if winner.at in (1, 3):
        return OWN_BID if winner.at == 1 else AGREED
    if not winner.deal and winner.price < soft_floor:
        return OWN_BID
    beaten = -1 if verdict.rival is None else verdict.rival + increment
    if winner.price < beaten:
        return OWN_BID
    usual = max(winner.floor, beaten)
    if not winner.deal and usual < soft_floor:
        return SOFT_FLOOR
    return RIVALS if beaten == usual else FLOORS


amounts = st.one_of(
    st.sampled_from([0, 1, 2, 3, 10_000, 10**15, MOST - 2, MOST - 1, MOST]),
    st.integers(0, 12),
    st.integers(0, MOST),
)


soft_floors = st.one_of(st.just(-1), amounts)


@st.composite
def columns(draw: st.DrawFn) -> list[int]:
    """A row that may reach the kernel: at 3 it ranks by its floor, as the caller of the kernel promises."""
    row = [0] * COLUMNS
    row[IMP] = draw(st.sampled_from([-1, *range(IMPS), *range(IMPS)]))
    row[COMPETITOR] = draw(st.integers(0, 3))
    row[PRICE], row[TOLD_FLOOR], row[RANKED], row[FLOOR] = (draw(amounts) for _ in range(4))
    row[DEAL] = draw(st.integers(0, 1))
    row[DEAL_FLOOR] = draw(amounts) if row[DEAL] else 0
    row[AT] = draw(st.sampled_from([1, 2, 2, 3]))
    row[FLOOR] = row[RANKED] if row[AT] == 3 else row[FLOOR]
    row[RANK] = draw(st.sampled_from([LEAST, -1, 0, 1, MOST]))
    return row


@st.composite
def auctions(draw: st.DrawFn) -> list[list[int]]:
    rows = draw(st.lists(columns(), max_size=10))
    order = draw(st.permutations(range(len(rows))))
    for place, row in enumerate(rows):
        row[BIDDER] = order[place]  # as in an auction no two bids share price, rank and bidder
    return rows


LAWS = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@LAWS
@given(auctions(), st.one_of(st.sampled_from([0, 1, 10_000, MOST]), st.integers(0, MOST)), soft_floors)
def test_kernel_equals_its_twin_under_every_switch(rows: list[list[int]], increment: int, soft: int) -> None:
    for switches in SWITCHES:
        expected = by_oracle(rows, increment, switches, soft)
        assert expected == by_kernel(rows, increment, switches, soft), f"switches {switches}"


@LAWS
@given(auctions(), st.sampled_from([0, 1, 10_000]), st.randoms(use_true_random=False))
def test_ranks_decide_nothing_unless_they_were_looked_at(
    rows: list[list[int]], increment: int, chance: random.Random
) -> None:
    for switches in SWITCHES:
        bids = np.array([cell for row in rows for cell in row], np.int64)
        out = np.zeros(len(rows) * RESULTS + IMPS * SETTLEMENTS, np.int64)
        if not clear_imps(bids, IMPS, increment, -1, switches, out):
            ranked = [[*row[:RANK], chance.getrandbits(62), *row[RANK + 1 :]] for row in rows]
            assert by_kernel(rows, increment, switches) == by_kernel(ranked, increment, switches)


@LAWS
@given(auctions(), st.sampled_from([0, 1, 10_000, MOST]), st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows: list[list[int]], increment: int, shuffling: object) -> None:
    order = list(range(len(rows)))
    shuffling.shuffle(order)  # type: ignore[attr-defined]  # hypothesis types its Random as an object
    for switches in SWITCHES:
        per_bid, per_imp = by_kernel(rows, increment, switches)
        moved_bids, moved_imps = by_kernel([rows[place] for place in order], increment, switches)
        assert [per_bid[place] for place in order] == moved_bids
        named = [(order[winner] if winner >= 0 else -1, *rest) for winner, *rest in moved_imps]
        assert per_imp == named


@LAWS
@given(auctions(), st.sampled_from([0, 1, 10_000, MOST]))
def test_price_lies_between_floor_and_bid(rows: list[list[int]], increment: int) -> None:
    for switches in SWITCHES:
        for winner, price, *_ in by_kernel(rows, increment, switches)[1]:
            if winner >= 0:
                row = rows[winner]
                assert min(row[FLOOR], row[RANKED]) <= price <= row[RANKED]


def bid(ranked: int, rank: int = 0, floor: int = 0, competitor: int = 0, bidder: int = 0) -> list[int]:
    """An open bid at 2 in one currency, so that it is held to the floor that it counts with."""
    row = [0] * COLUMNS
    row[PRICE] = row[RANKED] = ranked
    row[TOLD_FLOOR] = row[FLOOR] = floor
    row[RANK], row[COMPETITOR], row[BIDDER], row[AT] = rank, competitor, bidder, 2
    return row


def test_switches_can_be_told_apart_however_they_are_combined() -> None:
    switches = (DEALS_FIRST, SAME_COMPETITOR_SETS_PRICE, TABLE_MIN_TO_WIN)
    assert [0] * 3 == [one & other for one, other in combinations(switches, 2)]
    assert all(switches)


def test_lowest_rank_wins_a_tie_wherever_it_stands() -> None:
    ranks = (LEAST, -1, 0, MOST)
    for order in permutations(range(4)):
        rows = [bid(5, ranks[place], competitor=place, bidder=place) for place in order]
        winner = by_kernel(rows, 1, 0)[1][0][0]
        assert LEAST == rows[winner][RANK]


def test_equal_ranks_go_to_the_first_bidder() -> None:
    rows = [bid(5, 7, competitor=1, bidder=1), bid(5, 7, competitor=0, bidder=0)]
    assert (1, 5, OWN_BID, 5) == by_kernel(rows, 1, 0)[1][0]


@pytest.mark.parametrize(("ranked", "looked_at"), [(4, False), (5, True), (6, False)])
def test_the_rank_of_a_refused_agreed_price_is_looked_at_where_it_ties_with_the_winner(
    ranked: int, looked_at: bool
) -> None:
    refused = bid(ranked, floor=ranked, competitor=1, bidder=1)
    refused[PRICE], refused[DEAL_FLOOR], refused[DEAL], refused[AT] = 1, ranked, 1, 3
    out = np.zeros(2 * RESULTS + SETTLEMENTS, np.int64)
    assert looked_at == clear_imps(np.array(bid(5) + refused, np.int64), 1, 1, -1, 0, out)


def test_increment_beyond_int64_is_capped_at_the_bid() -> None:
    rows = [bid(MOST, competitor=0, bidder=0), bid(MOST - 1, competitor=1, bidder=1)]
    assert (0, MOST, OWN_BID, MOST - 1) == by_kernel(rows, MOST, 0)[1][0]


def test_bid_of_zero_at_a_floor_of_zero_wins_for_nothing() -> None:
    per_bid, per_imp = by_kernel([bid(0)], 10_000, 0)
    assert [(0, 0)] == per_bid
    assert (0, 0, FLOORS, -1) == per_imp[0]


def test_without_bids_nobody_wins() -> None:
    assert ([], [(-1, 0, 0, -1)] * IMPS) == by_kernel([], 10_000, 0)


@LAWS
@given(st.text(max_size=2 * KERNEL_PAYS), st.integers(0, 2**64 - 1))
def test_folding_equals_its_twin_whatever_was_folded_before(part: str, before: int) -> None:
    assert draws.fold(part, onto=before) == fold(part, before)
    assert draws.fold(part) == fold(part)


def test_warm_kernel_compiles_nothing_more() -> None:
    warm_up()
    compiled = getattr(clear_imps, "signatures", None)
    by_kernel([bid(1), bid(2)], 1, DEALS_FIRST)
    assert compiled == getattr(clear_imps, "signatures", None)

# Exchange rates and weights: which way each step rounds, against exact fractions.

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.model.fx import NEUTRAL, SAME, Fx, Scale, Weight, scale, told
from auction.model.money import LIMIT, CpmMicros

LAW = settings(max_examples=300, deadline=None, derandomize=True, database=None, print_blob=True)

PER_USD = {"USD": "1", "EUR": "0.92", "JPY": "150.37", "KWD": "0.3061"}
RATES = Fx(rates={code: rate for code, rate in PER_USD.items() if code != "USD"}).compiled()

currencies = st.sampled_from(sorted(PER_USD))
amounts = st.one_of(st.integers(0, 200), st.integers(0, LIMIT)).map(CpmMicros)
multipliers = st.builds(
    lambda top, bottom: Weight(*Fraction(top, bottom).as_integer_ratio()), st.integers(1, 40), st.integers(1, 40)
)
weights = st.one_of(
    st.just(NEUTRAL), multipliers, st.integers(1, 10**6).map(lambda micros: Weight(subtract=CpmMicros(micros)))
)


def worth(currency: str, in_: str) -> Fraction:
    return Fraction(PER_USD[in_]) / Fraction(PER_USD[currency])


def way(currency: str, ours: str, weight: Weight) -> Scale:
    found = scale(RATES, currency, ours, weight)
    assert found is not None
    return found


# ------------------------------------------------------------ rates


def test_an_unused_snapshot_says_nothing() -> None:
    assert ("", "", {}) == (Fx().id, Fx().time, Fx().rates)


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "-Infinity", "much"])
def test_a_rate_that_is_none_is_named_with_its_place(rate: str) -> None:
    with pytest.raises(ValueError, match=rf"^fx\.rates\.JPY: expected a number > 0, was {rate}$"):
        Fx(rates={"JPY": rate}).compiled()


def test_a_currency_needs_no_rate_to_itself_and_goes_by_the_same_way() -> None:
    assert SAME is RATES.ratio("GBP", "GBP")


@LAW
@given(amounts, currencies, currencies)
def test_there_and_back_never_grows(amount: CpmMicros, one: str, other: str) -> None:
    there, back = RATES.ratio(one, other), RATES.ratio(other, one)
    assert there is not None
    assert back is not None
    assert back.down(there.down(amount)) <= amount
    assert amount <= back.up(there.up(amount))


@LAW
@given(amounts, currencies, currencies)
def test_the_most_that_comes_down_to_an_amount_is_the_highest_that_does(
    amount: CpmMicros, one: str, other: str
) -> None:
    there = RATES.ratio(one, other)
    assert there is not None
    most = there.most(amount)
    assert there.down(most) <= amount < there.down(CpmMicros(most + 1))


# ------------------------------------------------------------ the scale on which bids rank


@LAW
@given(amounts, currencies, currencies, weights)
def test_a_price_ranks_by_its_worth_weighed_and_rounded_once_down(
    price: CpmMicros, currency: str, ours: str, weight: Weight
) -> None:
    exact = price * worth(currency, ours) * Fraction(weight.numerator, weight.denominator)
    assert max(0, math.floor(exact) - weight.subtract) == way(currency, ours, weight).ranked(price)


@LAW
@given(amounts, currencies, currencies, weights)
def test_a_clearing_price_returns_to_its_buyers_scale_down(
    price: CpmMicros, currency: str, ours: str, weight: Weight
) -> None:
    exact = (price + weight.subtract) * worth(ours, currency) * Fraction(weight.denominator, weight.numerator)
    assert math.floor(exact) == way(currency, ours, weight).returned(price)


@pytest.mark.parametrize(
    ("currency", "weight", "plain"),
    [
        ("USD", NEUTRAL, True),
        ("EUR", NEUTRAL, False),
        ("USD", Weight(9, 10), False),
        ("USD", Weight(subtract=CpmMicros(1)), False),
    ],
)
def test_only_one_currency_without_a_weight_is_plain(currency: str, weight: Weight, plain: bool) -> None:
    assert plain is way(currency, "USD", weight).plain


@pytest.mark.parametrize(("currency", "ours"), [("GBP", "USD"), ("USD", "GBP"), ("GBP", "CHF")])
def test_without_a_rate_there_is_no_way(currency: str, ours: str) -> None:
    assert scale(RATES, currency, ours, NEUTRAL) is None


# ------------------------------------------------------------ what a floor is told as


@LAW
@given(amounts, currencies, currencies, currencies, weights)
def test_a_floor_is_told_where_its_buyer_sees_it_in_one_step_up(
    floor: CpmMicros, source: str, currency: str, ours: str, weight: Weight
) -> None:
    expected = Fraction(0)
    if floor:
        here = floor * worth(source, currency)
        expected = here * Fraction(weight.denominator, weight.numerator) + weight.subtract * worth(ours, currency)
    assert math.ceil(expected) == told(floor, source, currency, ours, weight, RATES)


@pytest.mark.parametrize("weight", [NEUTRAL, Weight(9, 10), Weight(subtract=CpmMicros(5))])
def test_a_floor_that_cannot_be_brought_over_is_not_told(weight: Weight) -> None:
    assert told(CpmMicros(1), "GBP", "USD", "USD", weight, RATES) is None
    assert told(CpmMicros(1), "USD", "GBP", "USD", weight, RATES) is None
    assert told(CpmMicros(0), "GBP", "USD", "USD", weight, RATES) == 0


def test_an_amount_to_add_needs_a_rate_as_well() -> None:
    subtracting: Any = Weight(subtract=CpmMicros(5))
    assert told(CpmMicros(1), "USD", "EUR", "GBP", subtracting, RATES) is None


@LAW
@given(amounts.filter(bool), currencies, currencies, weights)
def test_a_bid_at_the_floor_it_was_told_ranks_at_the_floor(
    floor: CpmMicros, currency: str, ours: str, weight: Weight
) -> None:
    seen = told(floor, ours, currency, ours, weight, RATES)
    assert seen is not None
    assert floor <= way(currency, ours, weight).ranked(seen)

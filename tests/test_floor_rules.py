# The exchange's own floors: the compiled lookup against a plain one, and what draws a model.
#
# Goal: of all rules that match, the most specific decides, whatever rules and values there are. Method: rules are
# generated with few values, so that many match, and each question is answered a second time by going through all 128
# sets of keys that a rule can name, those with the most keys first. One number draws a whole set of rules, which takes
# a fraction of what drawing each value by Hypothesis does.

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.core.floor_rules import KEYS, FloorTable, Values, compiled
from auction.model.draws import fold, mix64
from auction.model.money import CpmMicros
from auction.model.rules import FloorModel, FloorRule, FloorRules

LAW = settings(max_examples=200, deadline=None, derandomize=True, database=None, print_blob=True)

# Up to nine of a key, so that their numbers take from one bit to four.
VALUES: dict[str, list[str]] = {
    "media_type": ["banner", "video"],
    "size": ["300x250"],
    "domain": [f"{letter}.example" for letter in "abcdefghi"],
    "tagid": ["top", "side", "end"],
    "country": ["DEU", "FRA", "GBR", "USA"],
    "device_type": ["1", "2"],
    "bidder": ["dsp-a", "dsp-b"],
}
# With the most keys first; of as many, those with a value at the first key where they differ.
PATTERNS = sorted(product((True, False), repeat=7), key=lambda named: (-sum(named), [not one for one in named]))

Keyed = tuple[str | None, ...]


def rules_of(floors: dict[Keyed, int]) -> tuple[FloorRule, ...]:
    made: Any = [{"floor": floor, **dict(zip(KEYS, values, strict=True))} for values, floor in floors.items()]
    return tuple(FloorRule(**members) for members in made)


def table(floors: dict[Keyed, int], default: int | None = None, floor_min: int = 0) -> FloorTable:
    model = FloorModel(default=None if default is None else CpmMicros(default), rules=rules_of(floors))
    return compiled(FloorRules(floor_min=CpmMicros(floor_min), models=(model,)))


def plain(floors: dict[Keyed, int], values: Sequence[str]) -> int | None:
    for named in PATTERNS:
        keys = tuple(value if is_named else None for value, is_named in zip(values, named, strict=True))
        if keys in floors:
            return floors[keys]
    return None


def drawn_rules(r: Random) -> dict[Keyed, int]:
    floors = {}
    named = r.choice((0.2, 0.5, 0.8))
    for _ in range(r.randrange(60)):
        keys = tuple(r.choice(VALUES[key]) if r.random() < named else None for key in KEYS)
        floors[keys] = r.randrange(5_000_000)
    return floors


def drawn_values(r: Random) -> Values:
    unknown = r.choice((0, 0.1, 0.5))
    values: Any = [r.choice(("", "unknown")) if r.random() < unknown else r.choice(VALUES[key]) for key in KEYS]
    return tuple(values)


def test_all_keys_are_looked_at_in_the_order_of_precedence() -> None:
    assert ("media_type", "size", "domain", "tagid", "country", "device_type", "bidder") == KEYS
    assert 128 == len(PATTERNS)


@LAW
@given(st.integers(0, 2**64), st.one_of(st.none(), st.integers(0, 100)))
def test_lookup_equals_going_through_all_patterns(seed: int, default: int | None) -> None:
    r = Random(seed)
    floors = drawn_rules(r)
    (model,) = table(floors, default).models
    for _ in range(20):
        values = drawn_values(r)
        expected = plain(floors, values)
        assert (default if expected is None else expected) == model.floor(values)


@LAW
@given(st.integers(0, 2**64))
def test_every_rule_is_found_by_its_own_values(seed: int) -> None:
    r = Random(seed)
    floors = drawn_rules(r)
    (model,) = table(floors).models
    for keys, floor in floors.items():
        values: Any = tuple(value or "unknown" for value in keys)
        assert floor == model.floor(values)


@given(st.permutations(list(range(128))))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_of_all_patterns_the_most_specific_is_found_whatever_the_order_of_rules(order: list[int]) -> None:
    values = ("video", "300x250", "a.example", "top", "DEU", "2", "dsp-a")
    every = [tuple(v if n else None for v, n in zip(values, named, strict=True)) for named in PATTERNS]
    for least in range(0, 128, 9):
        (model,) = table({every[place]: place for place in order if place >= least}).models
        assert least == model.floor(values)


def test_a_rule_without_keys_is_for_everything() -> None:
    (model,) = table({(None,) * 7: 7}, default=3).models
    assert 7 == model.floor(("",) * 7)


def test_an_unknown_value_matches_open_keys_only() -> None:
    floors: dict[Keyed, int] = {("banner", *[None] * 6): 1, (None, None, None, None, "DEU", None, None): 2}
    (model,) = table(floors).models
    assert 2 == model.floor(("", "", "", "", "DEU", "", ""))
    assert 1 == model.floor(("banner", "", "", "", "DEU", "", ""))
    assert model.floor(("", "", "", "", "FRA", "", "")) is None


def test_each_model_looks_into_its_own_rules() -> None:
    banner: Keyed = ("banner", *[None] * 6)
    models = tuple(FloorModel(rules=rules_of({banner: floor})) for floor in (1, 2))
    first, second = compiled(FloorRules(models=models)).models
    values: Any = ("banner", *[""] * 6)
    assert (1, 2) == (first.floor(values), second.floor(values))


# ------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("default", "floor_min", "expected"),
    [(None, 0, 0), (None, 5, 0), (0, 5, 5), (3, 5, 5), (5, 5, 5), (7, 5, 7), (7, 0, 7)],
)
def test_a_floor_is_at_least_the_least_of_all_and_nothing_said_is_none(
    default: int | None, floor_min: int, expected: int
) -> None:
    made = table({}, default, floor_min)
    assert expected == made.floor(made.models[0], ("",) * 7)


def test_a_rule_of_zero_is_a_rule() -> None:
    made = table({("banner", *[None] * 6): 0}, default=9)
    values: Any = ("banner", *[""] * 6)
    assert 0 == made.floor(made.models[0], values)


def test_bidders_that_rules_name_are_known() -> None:
    models = tuple(FloorModel(rules=(FloorRule(CpmMicros(1), bidder=name),)) for name in ("a", "b", None))
    assert {"a", "b"} == compiled(FloorRules(models=models)).bidders
    assert frozenset() == compiled(FloorRules()).bidders


@pytest.mark.parametrize("keys", [(None,) * 7, ("banner", None, None, "top", None, None, None)])
def test_two_rules_of_one_model_with_the_same_keys_are_refused_by_their_places(keys: Keyed) -> None:
    other: Keyed = (None, None, "a.example", None, None, None, None)
    twice = (*rules_of({other: 1, keys: 2}), *rules_of({keys: 3}))
    text = r"^floors\.models\[1\]\.rules\[2\]: expected keys of its own, has those of floors\.models\[1\]\.rules\[1\]$"
    with pytest.raises(ValueError, match=text):
        compiled(FloorRules(models=(FloorModel(), FloorModel(rules=twice))))


# ------------------------------------------------------------ draws


def share(auction: str, what: str) -> Fraction:
    """Say the same draw as a share of one."""
    return Fraction(mix64(fold(auction, what)), 2**64)


IDS = [f"auction-{number}" for number in range(400)]


@pytest.mark.parametrize("rate", ["0", "0.05", "0.5", "0.95", "1"])
def test_auctions_whose_draw_is_below_the_skip_rate_are_left_alone(rate: str) -> None:
    for models in ((FloorModel(),), (FloorModel(), FloorModel())):
        made = compiled(FloorRules(skip_rate=rate, models=models))
        for auction in IDS:
            assert (share(auction, "floor.skip") < Fraction(rate)) == (made.model(auction) is None)


def test_a_skip_rate_is_met_exactly() -> None:
    drawn = share("auction-0", "floor.skip")
    step = Fraction(1, 2**64)
    for rate, skipped in ((drawn, False), (drawn + step, True)):
        exact = rate.numerator * 5**64 * (2**64 // rate.denominator)  # 64 decimals hold every multiple of 2**-64
        made = compiled(FloorRules(skip_rate=f"0.{exact:064d}", models=(FloorModel(),)))
        assert skipped == (made.model("auction-0") is None)


@pytest.mark.parametrize("weights", [(1, 1), (1, 3, 10), (5, 1), (1000, 1)])
def test_a_model_is_drawn_by_its_weight(weights: tuple[int, ...]) -> None:
    made = compiled(FloorRules(models=tuple(FloorModel(str(n), weight) for n, weight in enumerate(weights))))
    bounds = [sum(weights[: place + 1]) for place in range(len(weights))]
    for auction in IDS:
        drawn = share(auction, "floor.model") * bounds[-1]
        expected = next(place for place, bound in enumerate(bounds) if drawn < bound)
        assert made.models[expected] is made.model(auction)


def test_one_model_needs_no_draw_and_none_is_none() -> None:
    one = compiled(FloorRules(models=(FloorModel(weight=7),)))
    assert one.models[0] is one.model("auction-0")
    assert compiled(FloorRules()).model("auction-0") is None
    assert compiled(FloorRules(skip_rate="0.5")).model("auction-0") is None


def test_a_model_without_weight_is_somebodys_mistake() -> None:
    with pytest.raises(AssertionError):
        compiled(FloorRules(models=(FloorModel(weight=0),)))
    assert compiled(FloorRules(models=(FloorModel(weight=1),))).weights == (1,)

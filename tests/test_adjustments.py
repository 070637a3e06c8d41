# Bid adjustments: how one is read, which one fits, and what is refused.

from __future__ import annotations

import pytest

from auction.core.adjustments import FORMATS, Weighing, compiled, weight
from auction.model.fx import NEUTRAL, Weight
from auction.model.money import CpmMicros
from auction.model.request import AUDIO, BANNER, NATIVE, VIDEO
from auction.model.rules import Adjustment

HALF, LESS = Weight(1, 2), Weight(subtract=CpmMicros(50_000))


def test_an_adjustment_is_read_exactly() -> None:
    given = (
        Adjustment("dsp-a", "d1", "video", multiplier="0.85"),
        Adjustment(subtract=CpmMicros(50_000)),
    )
    assert (Weighing("dsp-a", "d1", VIDEO, Weight(17, 20)), Weighing(None, None, None, LESS)) == compiled(given)


def test_formats_have_their_numbers() -> None:
    assert {"banner": BANNER, "video": VIDEO, "audio": AUDIO, "native": NATIVE} == FORMATS
    assert [1, 2, 3, 4] == list(FORMATS.values())


@pytest.mark.parametrize(
    "nothing", [Adjustment(multiplier="1"), Adjustment(multiplier="1.000"), Adjustment(subtract=CpmMicros(0))]
)
def test_what_changes_nothing_is_the_neutral_weight_itself(nothing: Adjustment) -> None:
    for given in ((nothing,), (Adjustment(multiplier="0.5"), nothing)):
        assert NEUTRAL is compiled(given)[-1].weight


@pytest.mark.parametrize("multiplier", ["10", "0.000001"])
def test_a_multiplier_at_its_bounds_is_taken(multiplier: str) -> None:
    assert NEUTRAL != compiled((Adjustment(multiplier=multiplier),))[0].weight


@pytest.mark.parametrize("multiplier", ["0", "-1", "10.000001"])
def test_a_multiplier_beyond_its_bounds_is_refused_by_its_place(multiplier: str) -> None:
    text = rf"^exchange\.bid_adjustments\[1\]\.multiplier: expected more than 0, at most 10, was {multiplier}$"
    with pytest.raises(ValueError, match=text):
        compiled((Adjustment(multiplier="1"), Adjustment(multiplier=multiplier)))


@pytest.mark.parametrize("neither", [Adjustment(), Adjustment(multiplier="1", subtract=CpmMicros(1))])
def test_a_multiplier_or_an_amount_and_not_both_is_expected(neither: Adjustment) -> None:
    with pytest.raises(ValueError, match=r"^exchange\.bid_adjustments\[0\]: expected multiplier or subtract$"):
        compiled((neither,))


@pytest.mark.parametrize(
    ("bidder", "deal", "format", "fits"),
    [
        (None, None, None, True),
        ("a", None, None, True),
        ("b", None, None, False),
        (None, "d", None, True),
        (None, "e", None, False),
        (None, None, VIDEO, True),
        (None, None, BANNER, False),
        ("a", "d", VIDEO, True),
        ("a", "d", BANNER, False),
        ("a", "e", VIDEO, False),
        ("b", "d", VIDEO, False),
    ],
)
def test_an_adjustment_fits_where_all_that_it_names_does(
    bidder: str | None, deal: str | None, format: int | None, fits: bool
) -> None:
    assert (HALF if fits else NEUTRAL) == weight((Weighing(bidder, deal, format, HALF),), "a", "d", VIDEO)


def test_the_first_that_fits_counts() -> None:
    rows = (Weighing("b", None, None, NEUTRAL), Weighing("a", None, None, LESS), Weighing(None, None, None, HALF))
    assert [LESS, HALF, NEUTRAL] == [weight(rows, bidder, None, 0) for bidder in "acb"]


def test_an_open_bid_or_an_impression_of_several_formats_fits_no_name() -> None:
    assert NEUTRAL is weight((Weighing(None, "d", None, HALF), Weighing(None, None, VIDEO, HALF)), "a", None, 0)


def test_without_adjustments_every_bid_counts_as_sent() -> None:
    assert NEUTRAL is weight((), "a", "d", VIDEO)

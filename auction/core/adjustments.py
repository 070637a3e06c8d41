# How bids are weighed: `exchange.bid_adjustments`, the first that fits.
#
# Two bids of one price are not always worth the same to a publisher: one buyer pays late, one format is shared with a
# partner. An adjustment is taken into account where bids are ranked and priced, and nowhere where a buyer looks: its
# floor, its price and what it is told stay on its own scale.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from auction.model.fx import NEUTRAL, Weight
from auction.model.request import AUDIO, BANNER, NATIVE, VIDEO
from auction.model.rules import Adjustment

FORMATS = {"banner": BANNER, "video": VIDEO, "audio": AUDIO, "native": NATIVE}


class Weighing(msgspec.Struct, frozen=True):
    """One adjustment ready for use; None is any."""

    bidder: str | None
    deal: str | None
    format: int | None
    weight: Weight


def compiled(adjustments: Sequence[Adjustment]) -> tuple[Weighing, ...]:
    """Read the decimals once; ValueError for an adjustment that cannot be."""
    return tuple(_compiled(adjustments))


def _compiled(adjustments: Sequence[Adjustment]) -> Iterator[Weighing]:
    for place, given in enumerate(adjustments):
        path = f"exchange.bid_adjustments[{place}]"
        if (given.multiplier is None) == (given.subtract is None):
            raise ValueError(f"{path}: expected multiplier or subtract")
        weight = NEUTRAL
        if given.multiplier is not None:
            multiplier = Decimal(given.multiplier)
            if not 0 < multiplier <= 10:
                raise ValueError(f"{path}.multiplier: expected more than 0, at most 10, was {given.multiplier}")
            weight = Weight(*multiplier.as_integer_ratio())
        elif given.subtract:
            weight = Weight(subtract=given.subtract)
        # What changes nothing is the neutral weight itself, so that it costs nothing.
        weight = NEUTRAL if weight == NEUTRAL else weight
        yield Weighing(given.bidder, given.deal, None if given.media is None else FORMATS[given.media], weight)


def weight(weighings: Sequence[Weighing], bidder: str, deal: str | None, only: int) -> Weight:
    """Give the weight of a bidder's bids; `deal` None for open bids, `only` the impression's format, 0 for several."""
    for one in weighings:
        if (
            (one.bidder is None or one.bidder == bidder)
            and (one.deal is None or one.deal == deal)
            and (one.format is None or one.format == only)
        ):
            return one.weight
    return NEUTRAL

# Exchange rates as one snapshot, and exact conversion on integers.
#
# Rates are units of a currency per US dollar, as decimals. Between two currencies there is the direct rate, its
# inverse, or the way through USD; never a third currency, and never 1:1 for want of a rate. A conversion is one exact
# rational step, rounded once, DOWN or UP as its caller must choose. A bid's weight is part of that step, so it is here.

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from auction.model.money import CpmMicros


class Ratio(msgspec.Struct, frozen=True, gc=False):
    """An exact factor from one currency to another."""

    numerator: int
    denominator: int

    def down(self, amount: CpmMicros) -> CpmMicros:
        return CpmMicros(amount * self.numerator // self.denominator)

    def up(self, amount: CpmMicros) -> CpmMicros:
        return CpmMicros(-(-amount * self.numerator // self.denominator))

    def most(self, amount: CpmMicros) -> CpmMicros:
        """Give the highest amount that is no more than `amount` once it is brought down."""
        return CpmMicros(((amount + 1) * self.denominator - 1) // self.numerator)


SAME = Ratio(1, 1)


class Fx(msgspec.Struct, frozen=True):
    """A snapshot of rates: who made it (`id`), when (`time`, ISO 8601), and units per USD as decimal text."""

    id: str = ""
    time: str = ""
    rates: dict[str, str] = {}

    def compiled(self) -> Rates:
        """Read the decimals once; ValueError for a rate that is not a positive number."""
        per_usd = {"USD": (1, 1)}
        for code, rate in self.rates.items():
            try:
                exact = Decimal(rate)
            except InvalidOperation:
                exact = Decimal("NaN")
            if not exact.is_finite() or exact <= 0:
                raise ValueError(f"fx.rates.{code}: expected a number > 0, was {rate}")
            per_usd[code] = exact.as_integer_ratio()
        return Rates(per_usd)


class Rates(msgspec.Struct, frozen=True):
    """A snapshot ready for use: each currency's units per USD as numerator and denominator."""

    per_usd: dict[str, tuple[int, int]]

    def ratio(self, source: str, target: str) -> Ratio | None:
        """Give the exact factor from `source` to `target`; None where a rate is missing."""
        if source == target:
            return SAME
        top, bottom = self.per_usd.get(target), self.per_usd.get(source)
        if top is None or bottom is None:
            return None
        return Ratio(top[0] * bottom[1], top[1] * bottom[0])


class Weight(msgspec.Struct, frozen=True, gc=False):
    """How a bid is weighed against the others: times `numerator / denominator`, less `subtract`.

    `subtract` is micros of the auction currency, 0 where the fraction is not 1.
    """

    numerator: int = 1
    denominator: int = 1
    subtract: CpmMicros = CpmMicros(0)


NEUTRAL = Weight()


class Scale(msgspec.Struct, frozen=True, gc=False):
    """The way between prices of one currency, weighed, and the auction's own: one exact step, rounded once."""

    forth: Ratio
    back: Ratio
    subtract: CpmMicros

    @property
    def plain(self) -> bool:
        """Tell whether both ends are the same: one currency, unweighed."""
        return self.forth is SAME and not self.subtract

    def ranked(self, price: CpmMicros) -> CpmMicros:
        """Bring a buyer's price to the scale on which bids rank, DOWN, never below 0."""
        return CpmMicros(max(0, self.forth.down(price) - self.subtract))

    def returned(self, clearing_price: CpmMicros) -> CpmMicros:
        """Bring a clearing price to the buyer's own scale, DOWN."""
        return self.back.down(CpmMicros(clearing_price + self.subtract))


def scale(rates: Rates, currency: str, auction_currency: str, weight: Weight) -> Scale | None:
    """Give the way from a bid's currency to the auction's and back; None without a rate."""
    forth, back = rates.ratio(currency, auction_currency), rates.ratio(auction_currency, currency)
    if forth is None or back is None:
        return None
    if weight.numerator == weight.denominator:
        return Scale(forth, back, weight.subtract)
    top, bottom = weight.numerator, weight.denominator
    return Scale(
        Ratio(forth.numerator * top, forth.denominator * bottom),
        Ratio(back.numerator * bottom, back.denominator * top),
        weight.subtract,
    )


def told(
    amount: CpmMicros, source: str, currency: str, auction_currency: str, weight: Weight, rates: Rates
) -> CpmMicros | None:
    """Bring a floor to where a bidder sees it: to the bid's currency and back through its weight, one exact step, UP.

    A floor of 0 is none in any currency and needs no rate; None where one is missing.
    """
    if not amount:
        return CpmMicros(0)
    ratio = rates.ratio(source, currency)
    if ratio is None or weight is NEUTRAL:
        return None if ratio is None else ratio.up(amount)
    if not weight.subtract:
        top, bottom = ratio.numerator * weight.denominator, ratio.denominator * weight.numerator
        return Ratio(top, bottom).up(amount)
    back = rates.ratio(auction_currency, currency)
    if back is None:
        return None
    top = amount * ratio.numerator * back.denominator + weight.subtract * back.numerator * ratio.denominator
    return CpmMicros(-(-top // (ratio.denominator * back.denominator)))

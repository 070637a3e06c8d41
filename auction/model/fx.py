# Exchange rates as one snapshot, and exact conversion on integers.
#
# Rates are units of a currency per US dollar, as decimals. Between two currencies there is the direct rate, its
# inverse, or the way through USD; never a third currency, and never 1:1 for want of a rate. A conversion is one exact
# rational step, rounded once, DOWN or UP as its caller must choose.

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

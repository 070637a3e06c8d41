# The settings of a case, with their defaults.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .money import MINOR_DIGITS, Rates, Weight, decimal

Json = dict[str, Any]

LIMITS = {
    "request_bytes": 262_144,
    "imps": 100,
    "deals_per_imp": 64,
    "depth": 32,
    "reply_bytes": 65_536,
    "bids_per_reply": 100,
}
AMOUNTS = ("min_price", "max_cpm", "soft_floor")


@dataclass
class Exchange:
    """Section `exchange`, the rates, and the model of `floors` that was drawn for the auction."""

    currency: str = "USD"
    increment: int = 0
    min_price: int = 0
    max_cpm: int | None = None
    tmax_ms: int = 100
    tmax_max_ms: int = 500
    reply_reserve_ms: int = 5
    deal_mode: str = "compete"
    competitor: str = "seat"
    same_seat_sets_price: bool = False
    min_to_win: str = "text"
    soft_floor: int | None = None
    tie_key: str = ""
    bid_adjustments: Sequence[Json] = ()
    size: str = "enforce"
    secure: str = "enforce"
    crid: str = "warn"
    category_match: str = "exact"
    deal_advertiser: str = "strict"
    strict_ids: bool = True
    json: str = "lenient"
    rates: Rates = field(default_factory=dict)


def settings(case: Json) -> Exchange:
    """A setting that is absent has its default. The increment is that of the auction currency: one given alone is the
    exchange's own; of a currency not listed it is one minor unit. The listed defaults are one minor unit each too."""
    given = dict(case.get("exchange", {}))
    currency = given.get("currency", "USD")
    increment = given.pop("increment", {})
    if isinstance(increment, dict):
        increment = increment.get(currency, str(Decimal(1).scaleb(-MINOR_DIGITS.get(currency, 2))))
    rates = {"USD": Fraction(1), **{code: Fraction(str(rate)) for code, rate in case.get("fx", {}).items()}}
    amounts = {key: decimal(given.pop(key)) for key in AMOUNTS if given.get(key) is not None}
    known = {key: value for key, value in given.items() if key in Exchange.__dataclass_fields__ and value is not None}
    return Exchange(**{**known, **amounts}, increment=decimal(increment), rates=rates)


def everybody(case: Json) -> list[Json]:
    """Bidders with an entry first, in its order; then those that only have a reply, with defaults."""
    entries = list(case.get("bidders", []))
    listed = {entry["name"] for entry in entries}
    return entries + [{"name": reply["bidder"]} for reply in case["replies"] if reply["bidder"] not in listed]


def weight_of(adjustments: Sequence[Mapping[str, Any]], bidder: str, deal: str, only_format: str | None) -> Weight:
    """The first adjustment that fits weighs a bid; what it does not name fits any. `media` is the impression's format
    where it has one only; an open bid has no deal."""
    for one in adjustments:
        if (
            one.get("bidder") in (None, bidder)
            and (one.get("deal") is None or one["deal"] == deal)
            and one.get("media") in (None, only_format)
        ):
            if one.get("multiplier") is not None:
                return Weight(multiplier=Fraction(str(one["multiplier"])))
            return Weight(subtract=decimal(one["subtract"]))
    return Weight()

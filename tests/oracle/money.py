# Amounts: exact fractions until they are rounded, which happens once; whole micros of one unit CPM after that.

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MICROS = 1_000_000
LIMIT = 1_000_000_000 * MICROS

# ISO 4217, the codes in use. Those with a minor unit other than a hundredth stand below.
CURRENCIES = frozenset(
    re.findall(
        "[A-Z]{3}",
        """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
    HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
    RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
    USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
""",
    )
)
MINOR_DIGITS = {
    **dict.fromkeys(re.findall("[A-Z]{3}", "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"), 0),
    **dict.fromkeys(re.findall("[A-Z]{3}", "BHD IQD JOD KWD LYD OMR TND"), 3),
}

Rates = Mapping[str, Fraction]


class NoWay(Exception):
    """An amount that cannot be brought into a currency, for want of a rate."""


@dataclass(frozen=True)
class Weight:
    """How a bid is weighed against others: times the multiplier, less `subtract`, micros of the auction currency."""

    multiplier: Fraction = Fraction(1)
    subtract: int = 0


def double(sent: float | str) -> float:
    """A price is the double nearest to what was written, be it a number or a string."""
    try:
        return float(sent)
    except OverflowError:  # an integer beyond the doubles
        return math.inf if float(str(sent)[:2]) > 0 else -math.inf


def read_nanos(amount: float) -> int:
    """A double is read at nine decimals, half to even: what 0.1 * 3 has too much is noise."""
    return round(Fraction(amount) * 1_000_000_000)


def bid_micros(amount: float) -> int:
    """What is finer than a micro is left out of a bid."""
    return read_nanos(amount) // 1000


def floor_micros(amount: float | str) -> int:
    """What is finer than a micro makes a floor one micro more."""
    return -(-read_nanos(double(amount)) // 1000)


def decimal(setting: object) -> int:
    """A setting is an exact decimal."""
    micros = Fraction(str(setting)) * MICROS
    assert micros.denominator == 1
    return int(micros)


def has_way(source: str, target: str, rates: Rates) -> bool:
    """A currency needs no rate against itself; otherwise both need one against USD, and nothing is ever 1:1."""
    return source == target or (source in rates and target in rates)


def factor(source: str, target: str, rates: Rates) -> Fraction:
    """Between two currencies stands the quotient of their rates against USD."""
    if not has_way(source, target, rates):
        raise NoWay(source, target)
    return Fraction(1) if source == target else rates[target] / rates[source]


def convert_up(amount: int, source: str, target: str, rates: Rates) -> int:
    """Conversion is exact and rounded once. Nothing is nothing in any currency and needs no rate."""
    return math.ceil(amount * factor(source, target, rates)) if amount else 0


def ranked(price: int, currency: str, ours: str, weight: Weight, rates: Rates) -> int:
    """Bring a price to the scale on which bids rank: one exact step through rate and weight, DOWN, never below 0."""
    return max(0, math.floor(price * factor(currency, ours, rates) * weight.multiplier - weight.subtract))


def returned(clearing: int, currency: str, ours: str, weight: Weight, rates: Rates) -> int:
    """Bring a clearing price to the buyer's own scale: the same step back, DOWN."""
    return math.floor((clearing + weight.subtract) / weight.multiplier * factor(ours, currency, rates))


def told(amount: int, source: str, currency: str, ours: str, weight: Weight, rates: Rates) -> int:
    """Bring a floor to where the bidder sees it: to its currency and back through its weight, one exact step, UP. No
    floor stays none."""
    if not amount:
        return 0
    extra = weight.subtract * factor(ours, currency, rates) if weight.subtract else 0
    return math.ceil(amount * factor(source, currency, rates) / weight.multiplier + extra)


def plain(micros: int) -> str:
    """An exact decimal without trailing zeros."""
    whole, rest = divmod(micros, MICROS)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def as_sent(price: float | None) -> str | None:
    """The shortest decimal that reads back as the same double; beyond 1e21 with an exponent."""
    if price is None:
        return None
    if not math.isfinite(price):
        return "NaN" if math.isnan(price) else "Infinity" if price > 0 else "-Infinity"
    if price == 0:
        return "-0.0" if math.copysign(1.0, price) < 0 else "0"
    text = repr(price)
    if abs(price) < 1e21:
        text = f"{Decimal(text):f}"
    return text.removesuffix(".0")

# Money is an integer number of micros of one unit CPM: 2.01 is 2 010 000.
#
# The wire carries doubles. Each becomes an integer once, here, and nothing after that compares or adds a float. A
# double is read at nine decimals, half to even, which takes away the noise of sums (0.1 * 3 is 0.3); then a bid is
# brought down to a micro and a floor up, so that rounding never sells below a floor nor charges above a bid.

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import NewType

CpmMicros = NewType("CpmMicros", int)

MICROS = 1_000_000
NANOS_PER_MICRO = 1_000

# 1 000 000 000 CPM: a thousand times any price ever paid. Keeps every sum of an auction far inside int64.
LIMIT = CpmMicros(1_000_000_000 * MICROS)

# Below 2**50 nanos a product x * 1e9 is off by less than 2**-3; away from a half its nearest integer is then exact.
_FAST_NANOS = float(2**50)


def near_nanos(amount: float) -> int:
    """Read a double at nine decimals where arithmetic on doubles is certain of it, else give -1.

    Plain enough for a compiler: the kernel that reads bids is made of this very function.
    """
    product = amount * 1e9
    if 0 <= product < _FAST_NANOS:
        nearest = int(product + 0.5)
        if abs(product - nearest) < 0.25:
            return nearest
    return -1


def nanos(amount: float) -> int:
    """Read a finite, non-negative double at nine decimals, half to even.

    >>> nanos(0.1 * 3), nanos(2.01)
    (300000000, 2010000000)
    """
    assert isfinite(amount)
    assert amount >= 0
    near = near_nanos(amount)
    if near >= 0:
        return near
    numerator, denominator = amount.as_integer_ratio()
    quotient, rest = divmod(numerator * 1_000_000_000, denominator)
    double = 2 * rest
    if double > denominator or (double == denominator and quotient & 1):
        quotient += 1
    return quotient


def price_micros(amount: float) -> CpmMicros | None:
    """Bring a bid's price to a micro, DOWN; None for one above the limit, as sent."""
    sent = _entering(amount)
    return None if sent is None else CpmMicros(sent // NANOS_PER_MICRO)


def floor_micros(amount: float) -> CpmMicros | None:
    """Bring a floor to a micro, UP; None for one above the limit, as sent."""
    sent = _entering(amount)
    return None if sent is None else CpmMicros(-(-sent // NANOS_PER_MICRO))


def _entering(amount: float) -> int | None:
    # Far above the limit nobody needs the digits, of which there may be three hundred.
    sent = nanos(amount) if amount < 2e9 else None
    return None if sent is None or sent > LIMIT * NANOS_PER_MICRO else sent


def decimal_micros(amount: Decimal) -> CpmMicros:
    """Read an exact decimal (a setting) as micros; ValueError if finer than a micro, negative or over the limit."""
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"expected an amount >= 0, was {amount}")
    numerator, denominator = amount.as_integer_ratio()
    whole, rest = divmod(numerator * MICROS, denominator)
    if rest:
        raise ValueError(f"expected at most 6 decimals, was {amount}")
    if whole > LIMIT:
        raise ValueError(f"expected at most 1000000000, was {amount}")
    return CpmMicros(whole)


def cpm(amount: CpmMicros) -> float:
    """Give the double nearest to an amount, for a field of the wire that holds a double."""
    return amount / MICROS


def text(amount: int) -> str:
    """Write micros as a plain exact decimal without trailing zeros.

    >>> text(2_010_000), text(0), text(5_000_000)
    ('2.01', '0', '5')
    """
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), MICROS)
    return f"{sign}{whole}.{part:06d}".rstrip("0") if part else f"{sign}{whole}"


def sent_text(amount: float) -> str:
    """Write a price as sent, NaN, infinities and -0.0 included: the shortest decimal that reads back the same."""
    if amount != amount:
        return "NaN"
    if not isfinite(amount):
        return "Infinity" if amount > 0 else "-Infinity"
    if abs(amount) >= 1e21:
        return repr(amount)
    plain = format(Decimal(repr(amount)), "f")
    return plain if plain == "-0.0" else plain.removesuffix(".0")

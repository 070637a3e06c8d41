# Money, rates and draws: the arithmetic that everything else trusts, against exact fractions and published values.

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.model.draws import fnv1a64, fold, framed, mix64, rank
from auction.model.fx import Fx, Ratio
from auction.model.money import (
    LIMIT,
    MICROS,
    CpmMicros,
    cpm,
    decimal_micros,
    floor_micros,
    nanos,
    near_nanos,
    price_micros,
    sent_text,
    text,
)

LAW = settings(max_examples=1000, deadline=None, derandomize=True, database=None, print_blob=True)

amounts = st.one_of(
    st.floats(0, 3e9),
    st.floats(0, 1e300),
    st.integers(0, 10**15).map(lambda micros: micros / MICROS),  # what a bidder means to send
    st.integers(0, 2 * 10**12).map(lambda halves: halves * 5e-10),  # next to or on a half of the ninth decimal
)


# ------------------------------------------------------------ doubles


@LAW
@given(amounts)
def test_double_is_read_at_nine_decimals_half_to_even(amount: float) -> None:
    assert round(Fraction(amount) * 10**9) == nanos(amount)


@LAW
@given(amounts)
def test_bids_go_down_to_a_micro_and_floors_up(amount: float) -> None:
    exact = Fraction(nanos(amount), 1000)
    enters = exact <= LIMIT
    assert (math.floor(exact) if enters else None) == price_micros(amount)
    assert (math.ceil(exact) if enters else None) == floor_micros(amount)


@LAW
@given(st.integers(0, 2**23 * MICROS))  # above 8 388 608 CPM doubles are too far apart for nine decimals
def test_amount_that_leaves_reads_back_the_same(micros: int) -> None:
    assert micros == price_micros(cpm(CpmMicros(micros))) == floor_micros(cpm(CpmMicros(micros)))


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        (0.1 * 3, 300_000),
        (0.7 + 0.1, 800_000),
        (2.01, 2_010_000),
        (-0.0, 0),
        (5e-324, 0),
        (1e9, LIMIT),
        (0.0000005, 0),
        (1.0000009, 1_000_000),
    ],
)
def test_noise_of_sums_is_not_a_price(amount: float, micros: int) -> None:
    assert micros == price_micros(amount)


def test_nine_decimals_round_half_to_even() -> None:
    # 2**-10 is exactly 0.0009765625: 976562.5 nanos lie between an even and an odd number.
    assert [976_562, 2_929_688] == [nanos(2.0**-10), nanos(3 * 2.0**-10)]


def test_limit_is_the_last_amount_that_enters() -> None:
    assert LIMIT == price_micros(1e9) == floor_micros(1e9)
    for beyond in (math.nextafter(1e9, math.inf), 2e9, 1e300):
        assert price_micros(beyond) is None
        assert floor_micros(beyond) is None


@pytest.mark.parametrize(
    ("amount", "near"),
    [
        (0.0, 0),
        (1e-9, 1),
        (1.2e-9, 1),
        (1.25e-9, -1),  # a quarter off is as far as the product may be wrong, twice over
        (1.5e-9, -1),
        (1.76e-9, 2),
        (-1e-9, -1),
        ((2**50 - 1) / 1e9, 2**50 - 1),
        (2**50 / 1e9, -1),
        (math.inf, -1),
        (math.nan, -1),
    ],
)
def test_doubles_are_read_by_doubles_only_where_that_is_certain(amount: float, near: int) -> None:
    assert near == near_nanos(amount)


@pytest.mark.parametrize("amount", [-1.0, -5e-324, math.nan, math.inf])
def test_only_an_amount_is_read(amount: float) -> None:
    with pytest.raises(AssertionError):
        nanos(amount)


# ------------------------------------------------------------ text


@LAW
@given(st.integers(-(10**18), 10**18))
def test_amount_is_written_exactly_without_trailing_zeros(micros: int) -> None:
    written = text(micros)
    assert Decimal(micros) / MICROS == Decimal(written)
    assert "e" not in written.lower()
    assert "." not in written or written[-1] not in "0."


@pytest.mark.parametrize(
    ("micros", "written"),
    [(0, "0"), (1, "0.000001"), (-1, "-0.000001"), (2_010_000, "2.01"), (5_000_000, "5"), (-100_000_000, "-100")],
)
def test_amount_is_written_as_people_write_it(micros: int, written: str) -> None:
    assert written == text(micros)


@LAW
@given(st.floats())
def test_price_as_sent_reads_back_as_the_same_double(amount: float) -> None:
    back = float(sent_text(amount))
    assert (
        math.isnan(back) if math.isnan(amount) else (amount, math.copysign(1, amount)) == (back, math.copysign(1, back))
    )


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (1.0, "1"),
        (0.95, "0.95"),
        (0.0, "0"),
        (-0.0, "-0.0"),
        (-1.5, "-1.5"),
        (1e-7, "0.0000001"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_price_as_sent_is_the_shortest_plain_decimal(amount: float, written: str) -> None:
    assert written == sent_text(amount)


@LAW
@given(st.integers(0, LIMIT))
def test_setting_is_read_exactly(micros: int) -> None:
    assert micros == decimal_micros(Decimal(text(micros)))


@pytest.mark.parametrize("amount", ["-0.01", "NaN", "Infinity", "0.0000001", "1000000000.000001"])
def test_setting_that_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        decimal_micros(Decimal(amount))


# ------------------------------------------------------------ currencies


@LAW
@given(st.integers(0, LIMIT), st.integers(1, 10**12), st.integers(1, 10**12))
def test_conversion_is_exact_and_rounded_once(amount: int, numerator: int, denominator: int) -> None:
    exact = Fraction(amount) * Fraction(numerator, denominator)
    ratio = Ratio(numerator, denominator)
    assert math.floor(exact) == ratio.down(CpmMicros(amount))
    assert math.ceil(exact) == ratio.up(CpmMicros(amount))


RATES = Fx(rates={"JPY": "150", "EUR": "0.92"}).compiled()


@pytest.mark.parametrize(
    ("source", "target", "per_million"),
    [
        ("USD", "JPY", Fraction(150)),
        ("JPY", "USD", Fraction(1, 150)),
        ("EUR", "JPY", Fraction(15000, 92)),
        ("GBP", "GBP", Fraction(1)),
    ],
)
def test_rate_is_direct_inverse_or_through_the_dollar(source: str, target: str, per_million: Fraction) -> None:
    ratio = RATES.ratio(source, target)
    assert ratio is not None
    assert per_million == Fraction(ratio.numerator, ratio.denominator)


@pytest.mark.parametrize(("source", "target"), [("GBP", "USD"), ("USD", "GBP"), ("EUR", "GBP"), ("GBP", "CHF")])
def test_no_rate_is_never_one_to_one(source: str, target: str) -> None:
    assert RATES.ratio(source, target) is None


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity", "much"])
def test_rate_that_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="JPY"):
        Fx(rates={"JPY": rate}).compiled()


# ------------------------------------------------------------ draws


@pytest.mark.parametrize(
    ("folded", "parts"),
    # The first three of the test vectors that FNV's authors publish for 64 bits.
    [(0xCBF29CE484222325, b""), (0xAF63DC4C8601EC8C, b"a"), (0x85944171F73967E8, b"foobar")],
)
def test_fnv_gives_its_published_values(folded: int, parts: bytes) -> None:
    assert folded == fnv1a64(parts)


def test_mix_is_the_finaliser_of_splitmix64() -> None:
    # The first two outputs of splitmix64 from seed 0, whose state grows by the golden gamma.
    gamma = 0x9E3779B97F4A7C15
    assert [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4] == [mix64(gamma), mix64(2 * gamma % 2**64)]


@pytest.mark.parametrize(
    ("expected", "request_id", "seat", "bid"),
    [
        (0x8A0E7464E6BAA552, "auc-0", "A", "a1"),
        (0x1CCD65339CFCFC05, "auc-0", "B", "b1"),
        (0x4DB08938A2D47447, "auc-2", "A", "a1"),
        (0xEE93C6D1FD25527A, "auc-2", "B", "b1"),
    ],
)
def test_rank_gives_its_check_values(expected: int, request_id: str, seat: str, bid: str) -> None:
    assert expected == rank(fold(request_id, "1", seat), bid)


def test_parts_cannot_borrow_from_each_other() -> None:
    assert framed("é") == b"\x00\x00\x00\x02\xc3\xa9"
    assert fold("a", "bc") != fold("ab", "c")
    assert fold("a", "") != fold("", "a")


def test_folding_goes_on_from_what_was_folded() -> None:
    assert fold("key", "auc-0", "1", "é", "b") == fold("é", "b", onto=fold("1", onto=fold("key", "auc-0")))

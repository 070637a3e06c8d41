# Floors, of one impression and one bidder at a time: what a bid answers to, and what its bidder was told of it.
#
# Goal: `terms` is what the rules say, whatever is stated where and in which currency; and what `told` leaves to be read
# in a view is what `terms` asks for. Method: impressions with deals, floors by duration, weights and rules are drawn,
# each by one number; terms are worked out a second time with exact fractions, and a view is read as bidders read it.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.core.adjustments import Weighing
from auction.core.floor_rules import compiled
from auction.core.floors import Floors
from auction.core.floors import floors as compiled_floors
from auction.model.fx import NEUTRAL, Fx, Weight
from auction.model.money import LIMIT, MICROS, CpmMicros
from auction.model.request import (
    AUDIO,
    BANNER,
    NATIVE,
    VIDEO,
    Audience,
    BidRequest,
    Deal,
    Format,
    Imp,
    Timed,
    Told,
    Whose,
)
from auction.model.rules import FloorModel, FloorRule, FloorRules

LAW = settings(max_examples=400, deadline=None, derandomize=True, database=None, print_blob=True)
seeds = st.integers(0, 2**64)

PER_USD = {"USD": "1", "EUR": "0.92", "JPY": "150.37"}
RATES = Fx(rates={"EUR": "0.92", "JPY": "150.37"}).compiled()
NOTHING = compiled(FloorRules())
AT_OWN, AT_SECOND, AT_AGREED = 1, 2, 3


def floors(
    currency: str = "USD", min_price: int = 0, weighings: tuple[Weighing, ...] = (), rules: FloorRules | None = None
) -> Floors:
    table = NOTHING if rules is None else compiled(rules)
    return compiled_floors(currency, CpmMicros(min_price), RATES, table, weighings)


def told_of(
    market: Floors, asked: BidRequest, bidder: str, wanted: str | None, raised: Sequence[int]
) -> dict[Whose, Told]:
    return market.told(asked, bidder, wanted, raised, market.open_terms(asked, bidder, raised))


def timed(*rows: tuple[int | None, int | None, int], rate: int | None = None) -> Timed:
    made: Any = rows
    return Timed(made, None if rate is None else CpmMicros(rate), False)


def deal(
    id: str = "d", floor: int | None = None, currency: str = "USD", at: int = 0, by: Timed | None = None, place: int = 0
) -> Deal:
    amount = None if floor is None else CpmMicros(floor)
    return Deal(place, id, amount, currency, at, frozenset(), frozenset(), by, False)


def imp(
    floor: int = 0,
    currency: str = "USD",
    formats: dict[int, Timed | None] | None = None,
    deals: tuple[Deal, ...] = (),
    fine: bool = False,
    **members: Any,
) -> Imp:
    asked = {BANNER: None} if formats is None else formats
    made = {number: Format(frozenset(), timed=by) for number, by in asked.items()}
    only = next(iter(made)) if len(made) == 1 else 0
    plain: dict[str, Any] = {
        "id": "1", "tagid": "", "media": sum(1 << number - 1 for number in made), "only": only, "formats": made,
        "size": "", "secure": False, "floor": CpmMicros(floor), "currency": currency, "private_auction": False,
        "deals": {one.id: one for one in deals}, "fine": fine,
    }  # fmt: skip
    return Imp(**{**plain, **members})


def request(*imps: Imp, at: int = AT_SECOND) -> BidRequest:
    return BidRequest("r", at, 0, (), imps, frozenset(), frozenset(), None)


# ------------------------------------------------------------ drawn markets


def drawn_amount(r: Random) -> int:
    return r.choice((0, 1, 333_333, 500_000, 1_000_000, r.randrange(3_000_000), r.randrange(300_000_000)))


def drawn_currency(r: Random, ours: str) -> str:
    return r.choice((ours, ours, "USD", "EUR", "JPY", "GBP" if r.random() < 0.2 else ours))


def drawn_timed(r: Random) -> Timed | None:
    if r.random() < 0.4:
        return None
    rows = [
        (r.choice((None, 1, 6, 15)), r.choice((None, 6, 15, 30)), drawn_amount(r)) for _ in range(r.choice((0, 1, 2)))
    ]
    rate = r.choice((None, 0, 1, drawn_amount(r) // 10))
    return timed(*rows, rate=rate) if rows or rate is not None else None


def drawn_deal(r: Random, ours: str, place: int) -> Deal:
    floor = r.choice((None, drawn_amount(r), drawn_amount(r)))
    by = drawn_timed(r) if r.random() < 0.5 else None
    return deal(f"d{place}", floor, drawn_currency(r, ours), r.choice((0, 0, 1, 2, 3)), by, place)


def drawn(r: Random) -> tuple[Floors, Imp]:
    ours = r.choice(("USD", "USD", "EUR", "JPY"))
    weighings = tuple(
        Weighing(
            r.choice((None, "a", "b")), r.choice((None, "d0", "d1")), r.choice((None, None, BANNER, VIDEO)),
            r.choice((NEUTRAL, Weight(9, 10), Weight(11, 10), Weight(1, 3), Weight(subtract=CpmMicros(50_000)))),
        )
        for _ in range(r.choice((0, 0, 1, 2)))
    )  # fmt: skip
    by = drawn_timed(r)
    several: tuple[dict[int, Timed | None], ...] = ({BANNER: None}, {VIDEO: by}, {AUDIO: by}, {BANNER: None, VIDEO: by})
    formats = r.choice(several)
    deals = tuple(drawn_deal(r, ours, place) for place in range(r.randrange(3)))
    min_price = r.choice((0, 0, 300_000, 1_000_001))
    return floors(ours, min_price, weighings), imp(drawn_amount(r), drawn_currency(r, ours), formats, deals)


# ------------------------------------------------------------ terms, a second time


def stated(imp: Imp, deal: Deal | None, format: int, seconds: int) -> tuple[int, int, str, bool, bool]:
    """Give the floor that governs: each, times, currency, whether it is a rate, whether the deal's."""
    places = [(imp, imp.formats[format].timed if format in imp.formats else None, False)]
    if deal is not None:
        places.insert(0, (deal, deal.timed, True))  # type: ignore[arg-type]
    for holder, by, of_deal in places:
        if seconds and by is not None:
            fitting = [floor for least, most, floor in by.rows if (least or 0) <= seconds <= (most or 10**9)]
            if fitting:
                return max(fitting), 1, holder.currency, False, of_deal
            if by.rate is not None:
                return by.rate, seconds, holder.currency, True, of_deal
        if holder.floor is not None:
            return holder.floor, 1, holder.currency, False, of_deal
    raise AssertionError(imp)


def worth(amount: int, source: str, target: str) -> Fraction | None:
    if source == target or not amount:
        return Fraction(amount)
    if source not in PER_USD or target not in PER_USD:
        return None
    return amount * Fraction(PER_USD[target]) / Fraction(PER_USD[source])


def seen_as(amount: int, source: str, currency: str, ours: str, weight: Weight) -> int | None:
    if not amount:
        return 0
    there, less = worth(amount, source, currency), worth(weight.subtract, ours, currency)
    if there is None or less is None:
        return None
    return math.ceil(there * Fraction(weight.denominator, weight.numerator) + less)


def expected_terms(
    market: Floors, imp: Imp, deal: Deal | None, at: int, format: int, seconds: int, currency: str, raised: int
) -> dict[str, Any] | None:
    ours = market.currency
    weight = market.weight("a", None if deal is None else deal.id, imp)
    asks = NEUTRAL if at == AT_AGREED else weight
    each, times, source, is_rate, of_deal = stated(imp, deal, format, seconds)
    asked = [(each, times, source)]
    if raised and not of_deal:
        asked.append((raised, 1, ours))
        if is_rate:
            asked.append((imp.floor, 1, imp.currency))
    seen = [seen_as(amount, source, currency, ours, asks) for amount, _, source in asked]
    here = [seen_as(amount, source, ours, ours, NEUTRAL) for amount, _, source in asked]
    least = seen_as(market.min_price, ours, currency, ours, asks)
    factor = worth(MICROS, currency, ours)
    if None in seen or None in here or least is None or factor is None:
        return None
    told = max(amount * times for amount, (_, times, _) in zip(seen, asked, strict=True) if amount is not None)
    counts = max(amount * times for amount, (_, times, _) in zip(here, asked, strict=True) if amount is not None)
    agreed = -1
    if at == AT_AGREED:
        exact = max(told, least) * factor / MICROS * Fraction(weight.numerator, weight.denominator)
        agreed = max(0, math.floor(exact) - weight.subtract)
    return {
        "at": at, "deal": deal is not None, "of_deal": of_deal, "told": max(told, least),
        "deal_told": told if of_deal else 0, "counted": max(counts, market.min_price), "stated": counts,
        "agreed": agreed,
    }  # fmt: skip


@LAW
@given(seeds)
def test_terms_are_what_the_rules_say(seed: int) -> None:
    r = Random(seed)
    market, one = drawn(r)
    for _ in range(8):
        on = r.choice((None, *one.deals.values()))
        at = r.choice((AT_OWN, AT_SECOND)) if on is None else r.choice((AT_OWN, AT_SECOND, AT_AGREED, AT_AGREED))
        format, seconds = r.choice((0, *one.formats)), r.choice((0, 1, 6, 15, 30, 31))
        currency, raised = r.choice((market.currency, "USD", "JPY", "GBP")), r.choice((0, 0, 700_000, 10_000_000))
        made = market.terms(one, on, at, format, seconds, currency, "a", raised)
        expected = expected_terms(market, one, on, at, format, seconds, currency, raised)
        found = None if made is None else {name: getattr(made, name) for name in expected or ()}
        assert expected == found, (one, on, at, format, seconds, currency, raised)


@LAW
@given(seeds, st.integers(1, 5_000_000))
def test_prices_go_to_the_auctions_scale_and_back_by_the_weight_of_the_bid(seed: int, price: int) -> None:
    market, one = drawn(Random(seed))
    for on in (None, *one.deals.values()):
        made = market.terms(one, on, AT_SECOND, 0, 0, "EUR", "a", 0)
        if made is not None:
            weight = market.weight("a", None if on is None else on.id, one)
            factor = worth(MICROS, "EUR", market.currency)
            assert factor is not None
            exact = price * factor / MICROS * Fraction(weight.numerator, weight.denominator)
            assert max(0, math.floor(exact) - weight.subtract) == made.scale.ranked(CpmMicros(price))


# ------------------------------------------------------------ what is told


def plain_floor(view: dict[Whose, Told], whose: Whose, floor: int, currency: str) -> tuple[int, str]:
    told = view.get(whose)
    if told is None:
        return floor, currency
    return floor if told.floor is None else told.floor, told.currency


@LAW
@given(seeds)
def test_an_open_bid_is_held_to_the_floor_that_its_bidder_was_told(seed: int) -> None:
    r = Random(seed)
    market, one = drawn(r)
    raised, wanted = r.choice((0, 700_000)), r.choice((None, "USD", "JPY", "GBP"))
    view = told_of(market, request(one), "a", wanted, [raised])
    floor, currency = plain_floor(view, (0,), one.floor, one.currency)
    terms = market.terms(one, None, AT_SECOND, 0, 0, currency, "a", raised)
    if terms is not None:
        assert (floor, currency) == (terms.told, currency)


@LAW
@given(seeds)
def test_a_bid_by_duration_is_held_to_the_row_or_rate_that_its_bidder_was_told(seed: int) -> None:
    r = Random(seed)
    market, one = drawn(r)
    raised, wanted = r.choice((0, 700_000)), r.choice((None, "EUR", "JPY"))
    view = told_of(market, request(one), "a", wanted, [raised])
    plain, currency = plain_floor(view, (0,), one.floor, one.currency)
    for number, format in one.formats.items():
        if format.timed is None:
            continue
        told = view.get((0, number))
        rows = [row[2] for row in format.timed.rows] if told is None else list(told.rows)
        rate = format.timed.rate if told is None else told.rate
        assert told is None or told.currency == currency
        for seconds in (1, 6, 15, 30):
            fitting = [
                floor
                for floor, (least, most, _) in zip(rows, format.timed.rows, strict=True)
                if (least or 0) <= seconds <= (most or 10**9)
            ]
            terms = market.terms(one, None, AT_SECOND, number, seconds, currency, "a", raised)
            if terms is None:
                continue
            if fitting:
                assert max(fitting) == terms.told
            elif rate is not None and raised:
                assert max(rate * seconds, plain) == terms.told
            elif rate is not None:
                assert rate * seconds <= terms.told <= max(rate * seconds, plain)


@LAW
@given(seeds)
def test_a_bid_on_a_deal_is_held_to_the_floor_that_its_bidder_was_told(seed: int) -> None:
    r = Random(seed)
    market, one = drawn(r)
    raised, wanted, at = r.choice((0, 700_000)), r.choice((None, "EUR", "JPY")), r.choice((1, 2, 3))
    view = told_of(market, request(one, at=at), "a", wanted, [raised])
    for on in one.deals.values():
        told = view.get((0, -1, on.place))
        if on.floor is not None:
            floor, currency = plain_floor(view, (0, -1, on.place), on.floor, on.currency)
        elif told is not None and told.floor is not None:
            floor, currency = told.floor, told.currency
        elif on.timed is not None:
            continue  # the impression's floor, by a rate that may be missing
        else:
            floor, currency = plain_floor(view, (0,), one.floor, one.currency)
        terms = market.terms(one, on, on.at or at, 0, 0, currency, "a", raised)
        if terms is not None:
            assert floor == terms.told, (one, on, view)


@LAW
@given(seeds)
def test_only_what_differs_is_told(seed: int) -> None:
    r = Random(seed)
    market, one = drawn(r)
    for whose, told in told_of(market, request(one), "a", None, ()).items():
        if whose == (0,):
            assert (told.floor, told.currency) != (one.floor, one.currency)
        elif len(whose) == 2:
            by = one.formats[whose[1]].timed
            assert by is not None
            assert (told.rows, told.rate) != (
                tuple(row[2] for row in by.rows),
                by.rate,
            ) or told.currency != one.currency


def test_without_settings_or_weights_nothing_is_told() -> None:
    by = timed((1, 5, 900_000), rate=10)
    one = imp(400_000, "EUR", {VIDEO: by}, (deal(floor=5), deal("e", None, by=by, place=1)))
    assert {} == told_of(floors(), request(one, one), "a", None, ())
    assert {} == told_of(floors(), request(one, one), "a", None, [0, 0])


def test_a_floor_sent_finer_than_a_micro_is_told_as_it_is_held() -> None:
    held = msgspec.structs.replace(deal(floor=5), fine=True)
    one = imp(400_000, deals=(held, deal("e", 6, place=1)), fine=True)
    told = told_of(floors(), request(imp(7), one), "a", None, ())
    assert {(1,): Told("USD", CpmMicros(400_000)), (1, -1, 0): Told("USD", CpmMicros(5))} == told


def test_each_impression_is_told_with_what_is_asked_for_it() -> None:
    told = told_of(floors(), request(imp(5), imp(5), imp(5)), "a", None, [0, 9, 5])
    assert {(1,): Told("USD", CpmMicros(9))} == told


def test_a_deal_under_a_weight_of_its_own_is_told_the_impressions_floors_by_it() -> None:
    market = floors(weighings=(Weighing(None, "d", None, Weight(1, 2)),))
    one = imp(100, formats={VIDEO: timed((1, 5, 300), (6, None, 200), rate=10)}, deals=(deal(), deal("e", place=1)))
    ranges = ((1, 5), (6, None))
    rows = (CpmMicros(600), CpmMicros(400))
    assert {(0, -1, 0): Told("USD", CpmMicros(200), rows, CpmMicros(20), ranges)} == told_of(
        market, request(one), "a", None, ()
    )


def test_a_deal_without_a_weight_is_told_the_impressions_floors_as_they_stand() -> None:
    market = floors(weighings=(Weighing(None, "d", None, NEUTRAL), Weighing(None, None, None, Weight(1, 2))))
    one = imp(100, deals=(deal(),))
    assert {(0,): Told("USD", CpmMicros(200)), (0, -1, 0): Told("USD", CpmMicros(100))} == told_of(
        market, request(one), "a", None, ()
    )
    one = imp(0, formats={VIDEO: timed((1, 5, 300), rate=10)}, deals=(deal(),))
    by_video = {(0, VIDEO): Told("USD", None, (CpmMicros(600),), CpmMicros(20))}
    of_deal = {(0, -1, 0): Told("USD", CpmMicros(0), (CpmMicros(300),), CpmMicros(10), ((1, 5),))}
    assert {**by_video, **of_deal} == told_of(market, request(one), "a", None, ())


def test_a_deal_with_floors_by_duration_alone_is_told_the_impressions_by_its_weight() -> None:
    market = floors(weighings=(Weighing(None, "d", None, Weight(1, 2)),))
    one = imp(100, formats={VIDEO: None}, deals=(deal(by=timed((1, 5, 300))), deal("e", by=timed(rate=3), place=1)))
    told = told_of(market, request(one), "a", None, ())
    assert {(0, -1, 0): Told("USD", CpmMicros(200), (CpmMicros(600),), None)} == told


def test_a_deal_with_a_floor_and_floors_by_duration_is_told_both() -> None:
    one = imp(0, formats={VIDEO: None}, deals=(deal(floor=100, by=timed((1, 5, 300), (6, 9, 50), rate=3)),))
    told = told_of(floors(min_price=200), request(one), "a", None, ())
    assert Told("USD", CpmMicros(200), (CpmMicros(300), CpmMicros(200)), CpmMicros(3)) == told[0, -1, 0]


def test_an_agreed_price_is_told_without_a_weight() -> None:
    market = floors(weighings=(Weighing(None, "d", None, Weight(1, 2)),))
    for at, of_deal, told in ((2, 3, {}), (3, 0, {}), (3, 2, {(0, -1, 0): Told("USD", CpmMicros(10))})):
        one = imp(0, deals=(deal(floor=5, at=of_deal),))
        assert told == told_of(market, request(one, at=at), "a", None, ()), (at, of_deal)


# ------------------------------------------------------------ limits, and what cannot be brought over


def terms_of(market: Floors, one: Imp, on: Deal | None = None, **members: Any) -> Any:
    asked = {"at": AT_SECOND, "format": 0, "seconds": 0, "currency": "USD", "bidder": "a", "raised": 0, **members}
    return market.terms(one, on, **asked)


def test_a_floor_at_the_limit_counts_and_one_above_it_does_not() -> None:
    market = floors("JPY")
    most = LIMIT * 100 // 15037  # in dollars, at 150.37
    assert terms_of(market, imp(most), currency="JPY") is not None
    assert terms_of(market, imp(most + 1), currency="JPY") is None
    assert terms_of(market, imp(LIMIT, "JPY"), currency="USD").counted == LIMIT


def test_a_rate_at_the_limit_counts_and_one_above_it_does_not() -> None:
    for rate, seconds, counts in ((LIMIT // 10, 10, True), (LIMIT // 10, 11, False), (LIMIT // 10 + 1, 10, False)):
        one = imp(formats={VIDEO: timed(rate=rate)})
        assert counts == (terms_of(floors(), one, format=VIDEO, seconds=seconds) is not None)


def test_an_agreed_price_at_the_limit_counts_and_one_above_it_does_not() -> None:
    most = LIMIT * 100 // 15037
    for floor, counts in ((most, True), (most + 1, False)):
        on = deal(floor=floor)
        found = floors("JPY").terms(imp(deals=(on,)), on, AT_AGREED, 0, 0, "USD", "a", 0)
        assert counts == (found is not None)


def test_floors_by_duration_need_a_duration() -> None:
    one = imp(5, formats={VIDEO: timed((None, None, 9))})
    assert [5, 9, 5] == [
        terms_of(floors(), one, format=format, seconds=seconds).told
        for format, seconds in ((VIDEO, 0), (VIDEO, 1), (0, 1))
    ]


@LAW
@given(seeds)
def test_the_floor_of_a_duration_is_the_highest_of_the_ranges_that_it_is_in(seed: int) -> None:
    r = Random(seed)
    bounds = (None, -3, 0, 1, 2, 3, 5, 8, 2**31 - 1)
    rows = [(r.choice(bounds), r.choice(bounds), r.randrange(6)) for _ in range(r.randrange(8))]
    by = timed(*rows)
    for seconds in (-4, -3, 0, 1, 2, 3, 4, 5, 6, 8, 9, 2**31 - 1):
        inside = [
            floor
            for least, most, floor in rows
            if (least is None or least <= seconds) and (most is None or seconds <= most)
        ]
        assert max(inside, default=None) == by.row(seconds)


class Counted(int):
    """A number that counts how often it is compared."""

    compared = 0

    def _count(self, name: str, other: int) -> bool:
        Counted.compared += 1
        return bool(getattr(int, name)(self, other))

    def __lt__(self, other: int) -> bool:
        return self._count("__lt__", other)

    def __le__(self, other: int) -> bool:
        return self._count("__le__", other)

    def __gt__(self, other: int) -> bool:
        return self._count("__gt__", other)

    def __ge__(self, other: int) -> bool:
        return self._count("__ge__", other)


def test_a_bid_is_not_compared_with_every_floor_by_duration() -> None:
    by = timed(*((least, least + 100, least) for least in range(10_000)))
    Counted.compared = 0
    assert 5_000 == by.row(Counted(5_000))
    assert 1 <= Counted.compared <= 20


def test_a_row_of_nothing_is_a_floor_and_hides_the_rate() -> None:
    by = timed((1, 10, 0), rate=7)
    for one, on in ((imp(5, formats={VIDEO: by}), None), (imp(5, formats={VIDEO: None}), deal(floor=9, by=by))):
        assert 0 == terms_of(floors(), one, on, format=VIDEO, seconds=10).told
        assert 77 == terms_of(floors(), one, on, format=VIDEO, seconds=11).told


def test_a_way_is_made_once_for_each_currency_with_a_rate() -> None:
    market = floors()
    assert market.way("EUR") is market.way("EUR")
    assert market.way("GBP") is None
    assert ["EUR", "JPY", "USD"] == sorted(market.ways)
    weighed = market.way("EUR", Weight(1, 2))
    assert weighed is not None
    assert weighed != market.way("EUR")


def test_a_deal_with_a_rate_only_is_held_to_the_least_price_though_it_cannot_be_told() -> None:
    on = deal(by=timed(rate=10))
    one, market = imp(formats={VIDEO: None}, deals=(on,)), floors(min_price=500)
    found = market.terms(one, on, AT_SECOND, VIDEO, 15, "USD", "a", 0)
    assert found is not None
    assert 500 == found.told
    assert (0, -1, 0) not in told_of(market, request(one), "a", None, ())


# ------------------------------------------------------------ the exchange's own


def everyone() -> Iterator[FloorRule]:
    for number, medium in enumerate(("banner", "video", "audio", "native"), 1):
        made: Any = {"media_type": medium}
        yield FloorRule(CpmMicros(number), **made)
    yield FloorRule(CpmMicros(50), size="300x250")
    yield FloorRule(CpmMicros(60), domain="d.example")
    yield FloorRule(CpmMicros(70), tagid="top")
    yield FloorRule(CpmMicros(80), country="DEU")
    yield FloorRule(CpmMicros(90), device_type="2")
    yield FloorRule(CpmMicros(100), bidder="b")


@pytest.mark.parametrize(
    ("asked", "audience", "expected"),
    [
        (imp(formats={BANNER: None}), Audience("", "", ""), [1, 1]),
        (imp(formats={VIDEO: None}), Audience("", "", ""), [2, 2]),
        (imp(formats={AUDIO: None}), Audience("", "", ""), [3, 3]),
        (imp(formats={NATIVE: None}), Audience("", "", ""), [4, 4]),
        (imp(formats={BANNER: None, VIDEO: None}), Audience("", "", ""), [0, 100]),
        (imp(formats={BANNER: None, VIDEO: None}, size="300x250"), Audience("", "", ""), [50, 50]),
        (imp(formats={BANNER: None, VIDEO: None}), Audience("d.example", "", ""), [60, 60]),
        (imp(formats={BANNER: None, VIDEO: None}, tagid="top"), Audience("", "", ""), [70, 70]),
        (imp(formats={BANNER: None, VIDEO: None}), Audience("", "DEU", ""), [80, 80]),
        (imp(formats={BANNER: None, VIDEO: None}), Audience("", "", "2"), [90, 90]),
    ],
)
def test_rules_ask_by_every_key_of_an_impression(asked: Imp, audience: Audience, expected: list[int]) -> None:
    market = floors(rules=FloorRules(models=(FloorModel(rules=tuple(everyone())),)))
    assert [[expected[0]], [expected[1]]] == market.raised("auction", request(asked), audience, ["a", "b"])


def test_rules_ask_for_each_impression_and_bidder() -> None:
    market = floors(rules=FloorRules(models=(FloorModel(rules=tuple(everyone())),)))
    asked = request(imp(), imp(formats={VIDEO: None}), imp(formats={}))
    assert [[1, 2, 0], [1, 2, 100]] == market.raised("auction", asked, Audience("", "", ""), ["a", "b"])


def test_without_a_model_the_rules_ask_nothing() -> None:
    assert [] == floors().raised("auction", request(imp()), Audience("", "", ""), ["a"])
    skipped = floors(rules=FloorRules(skip_rate="1", models=(FloorModel(default=CpmMicros(5)),)))
    assert [] == skipped.raised("auction", request(imp()), Audience("", "", ""), ["a"])


def test_a_bidder_is_weighed_by_the_adjustment_that_fits_its_bid() -> None:
    half, third = Weight(1, 2), Weight(1, 3)
    market = floors(weighings=(Weighing("a", "d", None, half), Weighing("a", None, VIDEO, third)))
    video, several = imp(formats={VIDEO: None}), imp(formats={VIDEO: None, BANNER: None})
    assert [half, third, NEUTRAL, half, NEUTRAL] == [
        market.weight(bidder, deal_id, one)
        for bidder, deal_id, one in (
            ("a", "d", video), ("a", None, video), ("b", "d", video), ("a", "d", several), ("a", None, several),
        )
    ]  # fmt: skip

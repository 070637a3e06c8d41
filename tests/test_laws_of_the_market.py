# The laws of what is sold to whom at what price: creatives, floors of every kind, adjustments, several currencies.
#
# Goal: everything that a market is told (docs/conformance.md) holds for auctions that nobody thought of. Method: as in
# tests/test_laws.py, but a bid here says what it would show, and most are good enough to be ranked; a fault is seldom
# and of one kind. One law sets product against oracle, the others relate two answers of the product, or an answer with
# what a bidder was told beforehand: there a bidder reads its own view, as bidders must, and bids what it reads.

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import msgspec
import oracle
from hypothesis import assume, given
from hypothesis import strategies as st
from test_laws import Json, by_bidder, law, named_apart, unordered, without_nothing
from test_laws import comparable as comparable_answer

from auction.case import case_of, decide
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.model.auction import Auction, Invitation
from auction.model.fx import Fx
from auction.model.money import CpmMicros
from auction.model.reply import Reply, ReplyStatus

# ------------------------------------------------------------ generated markets

RATES: list[Json] = [{"EUR": "0.92", "JPY": "150"}, {"EUR": "0.333333", "JPY": "150.37"}, {"JPY": "150"}]
CURRENCIES = ["USD", "EUR", "JPY"]
FORMATS = {"banner": 1, "video": 2, "audio": 3, "native": 4}
BIDDERS = ["dsp-a", "dsp-b", "dsp-c"]
SIZES = [(300, 250), (728, 90), (320, 50), (640, 360)]
DURATIONS = [None, None, 0, 5, 6, 15, 30, 31]

cents = st.integers(1, 400).map(lambda number: number / 100)
prices = st.one_of(cents, st.sampled_from([0.000001, 0.7 + 0.1, 1.0000004, 1.000001, 1.087, 150.0, 165.0, 1e8]))
floor_prices = st.sampled_from([0, 0.0, 0.01, 0.0333333, 0.3, 0.5, 0.80, 0.99, 1.0, 1.0000004, 1.000001, 1.25])
settings_prices = st.sampled_from(["0", "0.3", "0.5", "0.99", "1", "1.000001", "1.25"])


def one_in(number: int) -> st.SearchStrategy[bool]:
    return st.integers(1, number).map(lambda drawn: drawn == number)


@st.composite
def bid_adjustments(draw: st.DrawFn, bidders: list[str]) -> list[Json]:
    rows = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        row = {
            "bidder": draw(st.sampled_from([None, *bidders])),
            "deal": draw(st.sampled_from([None, None, "d0", "d1"])),
            "media": draw(st.sampled_from([None, None, *FORMATS])),
        }
        if draw(st.booleans()):
            row["multiplier"] = draw(st.sampled_from(["0.9", "0.8", "1", "1.1", "0.333333", "10"]))
        else:
            row["subtract"] = draw(st.sampled_from(["0", "0.05", "0.000001", "0.5"]))
        rows.append(without_nothing(row))
    return rows


def rules_of_floors(bidders: list[str]) -> st.SearchStrategy[list[Json]]:
    """Give rules with keys of their own, of which many match the markets here."""
    values = {
        "mediaType": st.sampled_from(["banner", "banner", "video", "audio"]),
        "size": st.sampled_from(["300x250", "300x250", "728x90"]),
        "domain": st.sampled_from(["news.example", "News.Example", "other.example"]),
        "tagid": st.sampled_from(["top", "top", "Top"]),
        "country": st.sampled_from(["DEU", "deu", "FRA"]),
        "deviceType": st.sampled_from([2, "2", "4"]),
        "bidder": st.sampled_from(bidders),
    }

    def keys(rule: Json) -> tuple[str, ...]:
        given = {key: str(value) for key, value in rule.items() if value != "*"}
        given |= {"domain": given.get("domain", "").lower(), "country": given.get("country", "").upper()}
        return tuple(given.get(key, "") for key in values)

    rule = st.fixed_dictionaries(
        {"floor": settings_prices}, optional={key: st.one_of(st.just("*"), value) for key, value in values.items()}
    )
    return st.lists(rule, max_size=6, unique_by=keys)


@st.composite
def floors_of_the_exchange(draw: st.DrawFn, bidders: list[str]) -> Json:
    section: Json = {
        "floor_min": draw(st.one_of(st.none(), settings_prices)),
        "skip_rate": draw(st.sampled_from([None, None, "0.2", "0.5", "1"])),
    }
    if draw(st.booleans()):
        section |= {"default": draw(st.one_of(st.none(), settings_prices)), "rules": draw(rules_of_floors(bidders))}
    else:
        section["models"] = [
            without_nothing(
                {
                    "name": f"m{place}",
                    "weight": draw(st.sampled_from([None, 1, 3, 10])),
                    "default": draw(st.one_of(st.none(), settings_prices)),
                    "rules": draw(rules_of_floors(bidders)),
                }
            )
            for place in range(draw(st.integers(1, 3)))
        ]
    return without_nothing(section)


@st.composite
def floors_by_duration(draw: st.DrawFn, amounts: st.SearchStrategy[float]) -> Json:
    rows = [
        without_nothing(
            {
                "mindur": draw(st.sampled_from([None, 1, 6, 15])),
                "maxdur": draw(st.sampled_from([None, 5, 15, 30])),
                "bidfloor": draw(st.one_of(st.none(), amounts)),
            }
        )
        for _ in range(draw(st.sampled_from([0, 0, 1, 2])))
    ]
    rate = draw(st.one_of(st.none(), amounts))
    return without_nothing({"durfloors": rows or None, "mincpmpersec": rate})


@st.composite
def formats_of(draw: st.DrawFn, amounts: st.SearchStrategy[float], blocks: bool) -> Json:
    """Give one to three formats; with `blocks` each may also be particular about creatives."""
    formats: Json = {}
    for medium in draw(
        st.sampled_from(
            [["banner"], ["banner"], ["video"], ["audio"], ["native"], ["banner", "video"], ["banner", "native"]]
        )
    ):
        members: Json = {}
        if medium == "banner" and draw(st.booleans()):
            members |= {"w": 300, "h": 250}
            more = [{"w": w, "h": h} for w, h in draw(st.lists(st.sampled_from(SIZES), max_size=2))]
            more += draw(st.sampled_from([[], [], [], [{"wratio": 16, "hratio": 9, "wmin": 320}]]))
            members["format"] = more or None
        if medium in ("video", "audio"):
            members |= draw(floors_by_duration(amounts))
            if blocks:
                members |= draw(
                    st.sampled_from(
                        [{}, {}, {"minduration": 6}, {"maxduration": 30}, {"rqddurs": [15, 30]}, {"poddur": 60}]
                    )
                )
            if medium == "video" and draw(one_in(4)):
                members |= {"w": 300, "h": 250}
        if blocks and draw(one_in(3)):
            members["battr"] = draw(st.lists(st.integers(1, 3), max_size=2))
        formats[medium] = without_nothing(members)
    return formats


@st.composite
def deals_of(
    draw: st.DrawFn, currencies: list[str | None], amounts: st.SearchStrategy[float], blocks: bool
) -> list[Json]:
    deals = []
    for place in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        deal: Json = {
            "id": f"d{place}",
            "bidfloor": draw(st.one_of(st.none(), amounts)),
            "bidfloorcur": draw(st.sampled_from(currencies)),
            "at": draw(st.sampled_from([None, None, 0, 1, 2, 3, 3])),
        }
        if blocks:
            deal["wseat"] = ["s1"] if draw(one_in(8)) else None
            deal["wadomain"] = draw(
                st.sampled_from([None, None, None, ["acme.example"], ["Other.example.", "toys.example"]])
            )
        if draw(one_in(3)):
            deal |= draw(floors_by_duration(amounts))
        deals.append(without_nothing(deal))
    return deals


@st.composite
def bids_of(draw: st.DrawFn, id: str, imps: list[Json], amounts: st.SearchStrategy[float]) -> Json:
    """Give a bid that fits its impression for the most part."""
    imp = draw(st.sampled_from(imps))
    medium = draw(st.sampled_from([name for name in FORMATS if name in imp]))
    asked = imp[medium]
    bid: Json = {
        "id": id,
        "impid": imp["id"],
        "price": draw(amounts),
        "dealid": draw(st.sampled_from([None, *(deal["id"] for deal in imp.get("pmp", {}).get("deals", []))])),
        "mtype": FORMATS[medium] if draw(st.integers(0, 3)) else draw(st.sampled_from([None, None, 0, 1, 2, 3, 4, 5])),
        "adm": "<VAST/>" if draw(st.integers(0, 9)) else draw(st.sampled_from([None, "", *MARKUP, *MARKUP])),
        "nurl": draw(st.sampled_from([None, None, "https://win.example/w", "http://win.example/w"])),
        "adomain": draw(st.sampled_from([None, ["acme.example"], ["www.acme.example"], ["acme.example"]])),
        "crid": draw(st.sampled_from([None, "c1", "c1", "c2"])),
        "dur": draw(st.sampled_from(DURATIONS)),
    }
    if draw(one_in(10)):
        bid["adomain"] = draw(
            st.sampled_from([["other.example"], ["acme.example", "FORD.com"], ["www.ford.com."], ["notford.com"]])
        )
    if draw(one_in(6)):
        bid |= {"cat": draw(st.sampled_from([["IAB1-1"], ["IAB7", "IAB1"], ["3"], ["nix"]]))}
        bid |= {"cattax": draw(st.sampled_from([None, 1, 2]))}
    if draw(one_in(4)):
        bid["attr"] = draw(st.lists(st.integers(1, 4), max_size=2))
    if draw(one_in(8)):
        bid["language"] = draw(st.sampled_from([None, "en", "EN-us", "de", "xx"]))
        bid["langb"] = draw(st.sampled_from([None, "en", "en-GB", "de-AT", "xx"]))
    if draw(one_in(8)):
        bid["bundle"] = draw(st.sampled_from(["com.foo", "com.foo.two"]))
    if medium == "banner" and ("w" in asked or "format" in asked):
        size = st.just((300, 250)) if draw(st.integers(0, 7)) else st.sampled_from([*SIZES, (328, 185), (321, 180)])
        bid["w"], bid["h"] = draw(size)
    if draw(one_in(20)):
        bid |= {"w": draw(st.sampled_from([None, 0, 300])), "h": None}
    if draw(one_in(30)):
        bid |= draw(st.sampled_from([{"dealid": "d9"}, {"price": None}, {"id": ""}, {"impid": "9"}, {"price": 0}]))
    return without_nothing(bid)


MARKUP = [
    '<img src="http://ad.example/p.gif">',
    '<img src="HTTPS://ad.example/p.gif">',
    '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "<V xmlns:x='http://a.example/x' src='Http://a.example'/>",
    '<!DOCTYPE html PUBLIC "-//W3C//DTD" "http://dtd.example/x"><p>',
]


@st.composite
def exchanges(draw: st.DrawFn, currency: str | None) -> Json:
    exchange: Json = {
        "currency": currency,
        "increment": draw(st.sampled_from([None, None, "0", "0.05"])),
        "min_price": draw(st.sampled_from([None, None, None, "0.3", "0.99", "1.01"])),
        "max_cpm": draw(st.sampled_from([None, None, None, "3", "100000"])),
        "same_seat_sets_price": draw(st.sampled_from([None, False, True])),
        "soft_floor": draw(st.sampled_from([None, None, "0", "0.5", "1", "1.5", "100"])),
        "size": draw(st.sampled_from([None, None, "enforce", "warn", "off"])),
        "secure": draw(st.sampled_from([None, None, "enforce", "warn", "off"])),
        "crid": draw(st.sampled_from([None, "warn", "off", "off", "enforce"])),
        "category_match": draw(st.sampled_from([None, "exact", "parents"])),
        "deal_advertiser": draw(st.sampled_from([None, "strict", "open"])),
    }
    return without_nothing(exchange)


@st.composite
def requests(draw: st.DrawFn, currencies: list[str | None], amounts: st.SearchStrategy[float], blocks: bool) -> Json:
    """Give a request with floors in `currencies`; with `blocks` it may also be particular about seats and creatives."""
    imps = []
    for place in draw(st.sampled_from([["1"], ["1", "2"]])):
        imp: Json = {
            "id": place,
            "bidfloor": draw(st.one_of(st.none(), amounts)),
            "bidfloorcur": draw(st.sampled_from(currencies)),
            "tagid": draw(st.sampled_from([None, "top", "Top"])),
            "secure": draw(st.sampled_from([None, None, 0, 1])) if blocks else None,
            **draw(formats_of(amounts, blocks)),
        }
        deals = draw(deals_of(currencies, amounts, blocks))
        if deals or draw(one_in(10)):
            imp["pmp"] = {"private_auction": int(draw(one_in(6))), "deals": deals}
        imps.append(without_nothing(imp))
    site = {"domain": draw(st.sampled_from(["news.example", "NEWS.example", "other.example", ""]))}
    request: Json = {
        "id": draw(st.sampled_from(["auc-0", "auc-1", "auc-2", "auc-3"])),
        "at": draw(st.sampled_from([None, 0, 1, 2, 2])),
        "imp": imps,
        draw(st.sampled_from(["site", "app", "dooh"])): draw(st.sampled_from([None, site])),
        "device": draw(st.sampled_from([None, {"devicetype": 2, "geo": {"country": "DEU"}}, {"geo": {}}])),
    }
    if blocks:
        request |= {
            "wseat": draw(st.sampled_from([None, None, None, None, None, ["s1", "s2"], ["s1"]])),
            "bseat": draw(st.sampled_from([None, None, None, None, ["s2"]])),
            "badv": draw(st.sampled_from([None, None, ["ford.com"], ["Example.com", "FORD.com."]])),
            "bcat": draw(st.sampled_from([None, None, ["IAB1"], ["IAB7", "1"]])),
            "cattax": draw(st.sampled_from([None, None, 1, 2])),
            "bapp": draw(st.sampled_from([None, None, ["com.foo"]])),
            "wlang": draw(st.sampled_from([None, None, ["en"], ["de", "EN"]])),
            "wlangb": draw(st.sampled_from([None, None, None, ["en"], ["en-GB", "de"]])),
        }
    return without_nothing(request)


@st.composite
def markets(draw: st.DrawFn, one_currency: bool = False) -> Json:
    """Give a case with every setting of bids, floors and clearing, in several currencies.

    With `one_currency` all is in dollars, of whole cents, and without adjustments, which is what scales exactly.
    """
    fx = draw(st.sampled_from(RATES))
    speaking, listed = BIDDERS[: draw(st.integers(1, 3))], BIDDERS[: draw(st.sampled_from([0, 1, 3]))]
    known = max(speaking, listed, key=len)
    rated = ["USD"] if one_currency else ["USD", *fx]
    currency = None if one_currency else draw(st.sampled_from([None, *rated]))
    exchange = draw(exchanges(currency))
    if one_currency:
        exchange["increment"] = draw(st.sampled_from(["0", "0.01", "0.05"]))  # an amount as any other
    else:
        exchange["bid_adjustments"] = draw(bid_adjustments(known))
    of_floors: list[list[str | None]] = [[None], [currency], [None, *rated], [None, "USD", "EUR", "JPY", "GBP"]]
    floors = cents if one_currency else floor_prices
    request = draw(requests([None] if one_currency else draw(st.sampled_from(of_floors)), floors, True))
    if draw(st.integers(0, 3)):
        request["cur"] = [*CURRENCIES, "GBP"]
    allowed = rated if "cur" in request else sorted({"USD", currency or "USD"})
    replies = []
    for name in speaking:
        ids = (f"{name[-1]}{number}" for number in range(100))
        bid_in = draw(st.sampled_from(allowed)) if draw(st.integers(0, 20)) else draw(st.sampled_from([None, "GBP"]))
        amounts = cents if one_currency else prices
        if bid_in == "JPY":
            amounts = prices.map(lambda price: price * 150)
        seatbids = [
            without_nothing(
                {
                    "seat": draw(st.sampled_from(["s1"] * 5 + ["s2", "s3", None])),
                    "bid": [draw(bids_of(next(ids), request["imp"], amounts)) for _ in range(draw(st.integers(1, 3)))],
                }
            )
            for _ in range(draw(st.integers(1, 2)))
        ]
        body = {"id": request["id"], "cur": bid_in, "seatbid": seatbids}
        replies.append({"bidder": name, "status": "BID", "body": without_nothing(body)})
    bidders = [
        without_nothing(
            {
                "name": name,
                "seats": draw(st.sampled_from([None, None, None, None, ["s1", "s2"]])),
                "currency": draw(st.sampled_from([None, None, "EUR", "JPY"])),
                "blocked_creatives": draw(st.sampled_from([None, None, ["c2"]])),
            }
        )
        for name in listed
    ]
    return {
        "request": request,
        "exchange": exchange,
        "floors": draw(floors_of_the_exchange(known)) if draw(st.booleans()) else {},
        "fx": fx,
        "bidders": bidders,
        "replies": replies,
    }


def under_settings(case: Json) -> Iterator[Json]:
    """Give the case under settings that only change who is ranked, paid and told how, each with each other once."""
    for mode, competitor, least, at in [
        ("compete", "seat", "text", 2),
        ("compete", "bidder", "table", 1),
        ("deals_first", "seat", "table", 2),
        ("deals_first", "bidder", "text", 1),
    ]:
        exchange = {**case["exchange"], "deal_mode": mode, "competitor": competitor, "min_to_win": least}
        yield {**case, "exchange": exchange, "request": {**case["request"], "at": at}}


def comparable(answer: Json) -> Json:
    """Leave out what only the product tells; of warnings, whether a bid was tolerated."""
    tolerated = {warning["path"] for warning in answer.get("warnings", []) if ".bid[" in warning["path"]}
    return {**comparable_answer(answer), "tolerated": tolerated}


@law(500)  # under 4 settings each
@given(markets())
def test_product_equals_the_oracle_in_every_market(case: Json) -> None:
    for variant in under_settings(case):
        assert comparable(oracle.decide(variant)) == comparable(decide(variant)), variant["exchange"]


@law(100)
@given(markets().map(named_apart), st.randoms(use_true_random=False))
def test_order_of_replies_seats_and_bids_changes_nothing_in_a_market(case: Json, random: Any) -> None:
    shuffled = copy.deepcopy(case)
    random.shuffle(shuffled["replies"])
    for reply in shuffled["replies"]:
        random.shuffle(reply["body"]["seatbid"])
        for seatbid in reply["body"]["seatbid"]:
            random.shuffle(seatbid["bid"])
    before, after = decide(case), decide(shuffled)
    assert before.get("response") == after.get("response")
    assert unordered(before) == unordered(after)


# ------------------------------------------------------------ a rejected bid is as good as none

# How to make any bid worthless, whatever its price is.
FAULTS: list[Json] = [
    {"price": None}, {"price": "NaN"}, {"price": "Infinity"}, {"price": -1e6}, {"price": 2e9}, {"id": ""},
    {"dealid": "nowhere"}, {"mtype": 9}, {"adomain": ["blocked.example"]}, {"attr": [99]}, {"price": 0.0000001},
    {"language": "tlh"},
]  # fmt: skip


@law(120)
@given(markets(), st.data())
def test_a_rejected_bid_changes_no_price(case: Json, data: st.DataObject) -> None:
    case["request"].setdefault("badv", []).append("blocked.example")
    for imp in case["request"]["imp"]:
        for medium in FORMATS:
            if medium in imp:
                imp[medium].setdefault("battr", []).append(99)
    case["request"].setdefault("wlang", ["en"])
    added = copy.deepcopy(case)
    reply = data.draw(st.sampled_from(added["replies"]))
    seatbid = data.draw(st.sampled_from(reply["body"]["seatbid"]))
    like = data.draw(st.sampled_from(seatbid["bid"]))
    bid = without_nothing({**like, "id": "added", "price": 1e6, **data.draw(st.sampled_from(FAULTS))})
    place = data.draw(st.integers(0, len(seatbid["bid"])))
    seatbid["bid"].insert(place, bid)
    before, after = decide(case), decide(added)
    rejected = [one for imp in after["imp"] for one in taken_out(imp["bids"], bid["id"], reply["bidder"])]
    rejected += taken_out(after["unplaced"], bid["id"], reply["bidder"])
    assume(rejected and rejected[0]["loss_reason"] not in (0, 102, 103))
    assert before["response"] == after["response"]
    assert [priced(imp) for imp in before["imp"]] == [priced(imp) for imp in after["imp"]]


def taken_out(told: list[Json], id: str, bidder: str) -> list[Json]:
    """Take the answer to the added bid out of those that were told."""
    found = [one for one in told if (one["bidder"], one["id"]) == (bidder, id)]
    for one in found:
        told.remove(one)
    return found


def priced(imp: Json) -> Json:
    return {**imp, "bids": by_bidder(imp["bids"])}


# ------------------------------------------------------------ scale

MONEY = ("bidfloor", "mincpmpersec", "price")
SETTINGS = ("min_price", "max_cpm", "soft_floor", "increment", "floor_min", "default", "floor")


def scaled(value: Any, by: int) -> Any:
    """Multiply every amount of a case, those of requests and bids as doubles and those of settings as decimals."""
    if isinstance(value, list):
        return [scaled(member, by) for member in value]
    if not isinstance(value, dict):
        return value
    return {
        name: member * by if name in MONEY else plain(Fraction(member) * by) if name in SETTINGS else scaled(member, by)
        for name, member in value.items()
    }


def plain(amount: Fraction) -> str:
    micros = amount * 10**6
    assert micros.denominator == 1
    return f"{micros.numerator // 10**6}.{micros.numerator % 10**6:06}"


@law(200)
@given(markets(one_currency=True), st.sampled_from([2, 4, 1024]))
def test_twice_the_money_is_twice_the_price(case: Json, by: int) -> None:
    before, after = decide(case), decide(scaled(case, by))
    assert before["non_bids"] == after["non_bids"]
    for once, again in zip(before["imp"], after["imp"], strict=True):
        assert once["winner"] == again["winner"]
        assert once["price_setter"] == again["price_setter"]
        for row, higher in zip(once["winners"], again["winners"], strict=True):
            assert [times(row[name], by) for name in ("clearing_price", "pays")] == [
                Fraction(higher[name]) for name in ("clearing_price", "pays")
            ]
        for row, higher in zip(once["bids"], again["bids"], strict=True):
            assert row["loss_reason"] == higher["loss_reason"]
            assert [times(row[name], by) for name in ("floor", "min_to_win")] == [
                times(higher[name], 1) for name in ("floor", "min_to_win")
            ]


def times(amount: str | None, by: int) -> Fraction | None:
    return None if amount is None else Fraction(amount) * by


# ------------------------------------------------------------ there and back

rates = st.decimals("0.000001", "100000", places=6)


@law(500)
@given(st.integers(0, 10**15).map(CpmMicros), rates, rates)
def test_an_amount_there_and_back_never_grows(amount: CpmMicros, one: Any, other: Any) -> None:
    compiled = Fx(rates={"EUR": str(one), "JPY": str(other)}).compiled()
    for there in ("EUR", "USD"):
        forth, back = compiled.ratio("JPY", there), compiled.ratio(there, "JPY")
        assert forth is not None
        assert back is not None
        assert back.down(forth.down(amount)) <= amount
        assert back.up(forth.up(amount)) >= amount


# ------------------------------------------------------------ what a bidder is told


@st.composite
def rated_markets(draw: st.DrawFn) -> Json:
    """Give a case without replies whose currencies all have rates and that is not particular about creatives."""
    exchange = draw(exchanges(draw(st.sampled_from(CURRENCIES))))
    exchange |= {"crid": "off", "size": "off", "bid_adjustments": draw(bid_adjustments(BIDDERS))}
    exchange.pop("max_cpm", None)
    request = draw(requests(draw(st.sampled_from([[None], ["EUR"], [None, *CURRENCIES]])), floor_prices, False))
    bidders = [
        without_nothing({"name": name, "currency": draw(st.sampled_from([None, "USD", "EUR", "JPY"]))})
        for name in BIDDERS
    ]
    return {
        "request": {**request, "cur": CURRENCIES},
        "exchange": exchange,
        "floors": draw(floors_of_the_exchange(BIDDERS)) if draw(st.booleans()) else {},
        "fx": draw(st.sampled_from(RATES[:2])),
        "bidders": bidders,
        "replies": [],
    }


def asked(imp: Json, deal: Json | None, medium: str, seconds: int) -> tuple[float, str, bool] | None:
    """Read a view as its bidder does: the deal, then the format, then the impression.

    Beside a rate a plain floor may bind as well, so that who bids the greater of both is safe; then the third is true,
    the price may be more than the floor. None where the two are in different currencies.
    """
    timed = seconds > 0 and medium in ("video", "audio")
    open_floor, open_currency = imp.get("bidfloor", 0.0), imp.get("bidfloorcur", "USD")
    if deal is not None:
        own: str = deal.get("bidfloorcur", "USD")
        beside = deal.get("bidfloor", open_floor)
        floor = by_duration(deal, beside, seconds) if timed else None
        if floor is not None:
            in_one = not floor[1] or "bidfloor" in deal or not open_floor or own == open_currency
            return (floor[0], own, floor[1]) if in_one else None
        if "bidfloor" in deal:
            return deal["bidfloor"], own, False
    floor = by_duration(imp[medium], open_floor, seconds) if timed else None
    price, safe = floor or (open_floor, False)
    return price, open_currency, safe


def by_duration(holder: Json, beside: float, seconds: int) -> tuple[float, bool] | None:
    rows = [
        row.get("bidfloor", 0.0)
        for row in holder.get("durfloors", [])
        if row.get("mindur", 0) <= seconds <= row.get("maxdur", seconds)
    ]
    if rows:
        return max(rows), False
    if "mincpmpersec" in holder:
        micros = round(holder["mincpmpersec"] * 10**6) * seconds
        return max(micros / 10**6, beside), True
    return None


def opened(case: Json) -> Auction[CompiledRules]:
    """Open the auction of a case, with every view in JSON."""
    whole = case_of(case)
    bidders = tuple(msgspec.structs.replace(bidder, encoding="json") for bidder in whole.rules.bidders)
    return open_auction(whole.arrival, compile_rules(msgspec.structs.replace(whole.rules, bidders=bidders)))


def offers(invitation: Invitation) -> Iterator[tuple[Json, str, float, bool]]:
    """Give each way to bid on what a bidder sees, with the currency and price that it reads there."""
    view = json.loads(invitation.body)
    for imp in view["imp"]:
        for deal in [None, *imp.get("pmp", {}).get("deals", [])]:
            if deal is None and imp.get("pmp", {}).get("private_auction"):
                continue
            for medium in (medium for medium in FORMATS if medium in imp):
                for seconds in (0, 5, 15, 31) if medium in ("video", "audio") else (0,):
                    read = asked(imp, deal, medium, seconds)
                    if read is None:
                        continue
                    price, currency, safe = read
                    bid = {"id": "b", "impid": imp["id"], "mtype": FORMATS[medium], "adm": "<VAST/>"}
                    bid |= {"dur": seconds} if seconds else {}
                    bid |= {} if deal is None else {"dealid": deal["id"]}
                    yield bid, currency, price, safe


def outcome(auction: Auction[CompiledRules], invitation: Invitation, bid: Json, currency: str) -> Any:
    """Close the auction with one bid and everybody else silent, and give what became of the bid."""
    body = {"id": auction.request.id, "cur": currency, "seatbid": [{"seat": "s1", "bid": [bid]}]}
    sent = json.dumps(body).encode()
    replies = [
        Reply(one.bidder, ReplyStatus.BID, sent) if one is invitation else Reply(one.bidder, ReplyStatus.NO_BID)
        for one in auction.invitations
    ]
    (told,) = close_auction(auction, replies).outcomes
    return told


@law(100)  # a dozen bids each
@given(rated_markets())
def test_a_bid_exactly_at_the_floor_it_was_told_is_accepted(case: Json) -> None:
    auction = opened(case)
    for invitation in auction.invitations:
        for bid, currency, price, _ in offers(invitation):
            if price > 0 or "dealid" in bid:
                told = outcome(auction, invitation, {**bid, "price": price}, currency)
                assert 0 == told.reason, (invitation.bidder, bid, price, currency)
                assert told.pays <= round(price * 10**6)


@law(100)
@given(rated_markets())
def test_a_bid_below_the_floor_it_was_told_never_wins(case: Json) -> None:
    auction = opened(case)
    for invitation in auction.invitations:
        for bid, currency, price, safe in offers(invitation):
            less = (round(price * 10**6) - 1) / 10**6
            if less > 0 and not safe:
                told = outcome(auction, invitation, {**bid, "price": less}, currency)
                assert told.reason in (100, 101), (invitation.bidder, bid, less, currency)


@law(120)
@given(markets())
def test_nobody_is_told_to_pay_more_than_its_price(case: Json) -> None:
    for variant in under_settings(case):
        for imp in decide(variant)["imp"]:
            offered = {(bid["bidder"], bid["seat"], bid["id"]): bid for bid in imp["bids"] if bid["loss_reason"] == 0}
            for winner in imp["winners"]:
                bid = offered[winner["bidder"], winner["seat"], winner["bid"]]
                assert Fraction(winner["pays"]) <= Fraction(float(bid["price"])) + Fraction(1, 10**9)
                assert Fraction(bid["floor"]) <= Fraction(winner["clearing_price"])

# Auctions made from a source of randomness: rules, requests, and replies as bytes.
#
# Goal: near misses. A bid is sound but for a thing or two, so that it comes as far as the check it barely passes or
# fails; a bid that is wrong everywhere says something of the first check only. What a bid says is therefore drawn from
# what the request asks, and from what is a character, a bit or a unit beside it.
#
# Everything is drawn from a `Random`, so that Hypothesis can steer and shrink it (tests/test_sieve.py) and a seed can
# repeat it by the million (tests/fuzz/__main__.py).

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any, TypeVar

from auction.core.auction import CompiledRules, compile_rules
from auction.model.fx import Fx
from auction.model.money import CpmMicros, cpm
from auction.model.request import BidRequest
from auction.model.rules import (
    Adjustment,
    BidderRules,
    ExchangeRules,
    FloorModel,
    FloorRule,
    FloorRules,
    Limits,
    Rules,
)
from tests.fuzz import wire

Json = dict[str, Any]
T = TypeVar("T")

# How many versions of the rules there are; each takes longer to compile than an auction takes.
RULES = 96

FORMATS = ("banner", "video", "audio", "native")
DOMAINS = (
    "ford.com",
    "com",
    "co.uk",
    "a.b.example",
    "FORD.de",
    "bücher.example",
    "xn--bcher-kva.example",
    "x",
    "",
    ".",
)
CATEGORIES = ("IAB1", "IAB1-1", "IAB25", "7", "52", "", "iab1")
APPS = ("com.example.app", "123456789", "")
ATTRIBUTES = (1, 6, 13, 500, -1, 0)
SEATS = ("", "s1", "s1", "s2", "é", "s" * 90)
LANGUAGES = ("en", "en-US", "de", "DE-at", "xx", "", "zh-Hans")
SIZES = ((300, 250), (320, 50), (728, 90), (1, 1))
MARKUP = (
    "<b>ad</b>", "<VAST/>", "https://a.example/x", "http://a.example/x", "HTTP://A.example", "hTtP:", "http", "http;//",
    '<VAST xmlns="http://www.example/ns" xmlns:xsi=\'http://x/y\'>', '<svg xmlns="http://www.w3.org/2000/svg">',
    '<!DOCTYPE html PUBLIC "-//W3C//DTD" "http://www.w3.org/TR/html4/strict.dtd">', "p:http:", "ttp:http:", "",
    "<img src='//a.example/http:x'>", "httpſ:", "é", '<a xmlns = "x" href="http://a.example">',
)  # fmt: skip
PRICES = (
    0.0, -0.0, -1.0, 5e-324, 1e-7, 4e-7, 9.99e-7, 1e-6, 1.0000004, 1.0000005, 1.0000006, 0.1 * 3, 0.7 + 0.1, 2.5,
    math.nextafter(1.0, 2), math.nextafter(1.0, 0), 999.999999, 1000.0, 1000.000001, 2.0**50 / 1e9, 1125899.9068426,
    1e6, 1e9, math.nextafter(1e9, math.inf), 1e18, 1e308, math.nan, math.inf, -math.inf, 0.0000015, 1.5e-6, 123.4567895,
)  # fmt: skip
FLOORS = (None, None, 0, 0.5, 0.5, 1.0, 1.0, 1.0000004, 2.5, 2.5, 150, 3e7)


@cache
def rules(number: int) -> CompiledRules:
    """Make one of the versions of the rules."""
    r = Random(f"rules {number}")
    currency = pick(r, ("USD", "USD", "USD", "EUR", "JPY"))
    exchange = ExchangeRules(
        currency=currency,
        increment=pick(r, ({}, {}, {currency: CpmMicros(0)}, {currency: CpmMicros(50_000)})),
        min_price=CpmMicros(pick(r, (0, 0, 0, 1, 10_000, 500_000))),
        max_cpm=pick(r, (None, None, CpmMicros(1_000_000_000), CpmMicros(2_500_000), CpmMicros(10**15))),
        deal_mode=pick(r, ("compete", "deals_first")),
        competitor=pick(r, ("seat", "seat", "bidder")),
        same_seat_sets_price=pick(r, (False, True)),
        min_to_win=pick(r, ("text", "table")),
        soft_floor=pick(r, (None, None, None, CpmMicros(1_000_000))),
        tie_key=pick(r, ("", "salt")),
        bid_adjustments=pick(r, (
            (), (), (), (), (), (),
            (Adjustment(bidder="b1", multiplier="0.9"),),
            (Adjustment(media="video", multiplier="2"), Adjustment(subtract=CpmMicros(100_000))),
            (Adjustment(deal="d1", multiplier="1.5"), Adjustment(bidder="b0", multiplier="1")),
        )),
        size=pick(r, ("enforce", "enforce", "warn", "off")),
        secure=pick(r, ("enforce", "enforce", "warn", "off")),
        crid=pick(r, ("off", "off", "off", "warn", "enforce")),
        category_match=pick(r, ("exact", "exact", "parents")),
        deal_advertiser=pick(r, ("strict", "open")),
        strict_ids=pick(r, (True, False)),
        json=pick(r, ("lenient", "lenient", "strict")),
        explain=pick(r, ("always", "on_request", "never")),
    )  # fmt: skip
    floor_rule = FloorRule(floor=CpmMicros(700_000), media_type="banner")
    named_rule = FloorRule(floor=CpmMicros(900_000), bidder="b0", size="300x250")
    model = FloorModel(rules=(floor_rule, named_rule), default=pick(r, (None, CpmMicros(1))))
    floors = pick(r, (FloorRules(), FloorRules(), FloorRules(models=(model,), skip_rate=pick(r, ("0", "0.5")))))
    bidders = tuple(
        BidderRules(
            name,
            "json" if name == "j0" else "protobuf",
            media=pick(r, ((), (), (), ("banner",), ("video", "native"))),
            seats=pick(r, ((),) * 9 + (("s1", ""),)),
            currency=pick(r, (None, None, None, "EUR")),
            blocked_creatives=pick(r, ((),) * 6 + (("c1",),)),
        )
        for name in r.sample(("b0", "b1", "B2", "j0"), pick(r, (1, 2, 2, 3, 4)))
    )
    limits = Limits(bids_per_reply=pick(r, (100, 100, 100, 100, 3)), reply_bytes=pick(r, (65_536,) * 5 + (900,)))
    fx = Fx("test", "", {"EUR": "0.92", "JPY": "150.37", "GBP": "0.79", "KRW": "1350"})
    return compile_rules(Rules(exchange=exchange, floors=floors, bidders=bidders, limits=limits, fx=fx))


def seldom(r: Random, of: int = 6) -> bool:
    """Draw a yes, once in `of` times."""
    return r.random() * of >= of - 1


def pick(r: Random, options: Sequence[T]) -> T:
    """Draw one; `Random.choice` takes three times as long, which is a third of what making an auction takes."""
    return options[int(r.random() * len(options))]


def some(r: Random, of: tuple[Any, ...], most: int = 3) -> list[Any]:
    """Draw a few, without the same twice."""
    return r.sample(of, r.randint(1, min(most, len(of))))


def _sizes(r: Random) -> Json:
    banner: Json = {}
    if seldom(r, 2):
        width, height = pick(r, (*SIZES, (0, 250), (-1, 250), (300, 0)))
        banner |= {"w": width, "h": height}
    if seldom(r, 2):
        formats: list[Json] = [{"w": width, "h": height} for width, height in some(r, SIZES)]
        if seldom(r):
            formats.append({"wratio": pick(r, (16, 1, 0)), "hratio": pick(r, (9, 1)), "wmin": pick(r, (0, 100))})
        if seldom(r, 10):
            formats.append({"w": 300})
        banner["format"] = formats
    return banner


def _timed(r: Random, banned_durations: bool) -> Json:
    timed: Json = {}
    if banned_durations:
        timed["rqddurs"] = some(r, (0, 15, 30))
    else:
        if seldom(r, 3):
            timed["minduration"] = pick(r, (0, 5, -5, 15))
        if seldom(r, 3):
            timed["maxduration"] = pick(r, (0, 15, 30, -1, 2**31 - 1))
    if seldom(r):
        timed["poddur"] = pick(r, (60, 0, -1))
    if seldom(r):
        timed["durfloors"] = [{"mindur": 5, "maxdur": 15, "bidfloor": 1.0}, {"mindur": 16, "bidfloor": 2.5}]
    if seldom(r, 10):
        timed["mincpmpersec"] = pick(r, (0, 0.01, 0.0000004))
    return timed


def _imp(r: Random, id: str, currency: str) -> Json:
    imp: Json = {"id": id}
    for format in some(r, FORMATS, 2 if seldom(r, 3) else 1):
        media = _sizes(r) if format == "banner" else {} if format == "native" else _timed(r, seldom(r, 5))
        if seldom(r, 3):
            media["battr"] = some(r, ATTRIBUTES)
        imp[format] = media
    floor = pick(r, FLOORS)
    if floor is not None:
        imp["bidfloor"] = floor
        imp["bidfloorcur"] = pick(r, (*[currency] * 8, "EUR", "GBP"))
    if seldom(r, 3):
        imp["secure"] = pick(r, (1, 1, 0))
    if seldom(r, 4):
        deals = []
        for place in range(r.randint(0, 2)):
            deal: Json = {"id": f"d{place}"}
            if seldom(r, 2):
                deal |= {"bidfloor": pick(r, (0, 0.5, 2.5)), "bidfloorcur": currency}
            if seldom(r, 3):
                deal["at"] = pick(r, (1, 2, 3))
            if seldom(r, 3):
                deal["wadomain"] = ["ford.com", "x"]
            if seldom(r):
                deal["wseat"] = ["s1"]
            deals.append(deal)
        imp["pmp"] = {"private_auction": int(seldom(r, 5)), "deals": deals}
    return imp


def request(r: Random, currency: str = "USD") -> Json:
    """Make a request, as JSON says it."""
    # The last two differ by a byte, and by their length.
    ids = r.sample(("1", "2", "imp", "imq", "é" * 3, "i" * 70), r.randint(1, 3))
    made: Json = {"id": "r", "imp": [_imp(r, id, currency) for id in ids]}
    if seldom(r, 3):
        made["at"] = pick(r, (0, 1, 1, 2))
    if seldom(r, 2):
        made["badv"] = some(r, DOMAINS)
    if seldom(r, 2):
        made["bcat"] = some(r, CATEGORIES)
        if seldom(r, 2):
            made["cattax"] = pick(r, (1, 2, 6, 7, 0, 2**31 - 1))
    if seldom(r, 8):
        made["bapp"] = some(r, APPS)
    if seldom(r, 8):
        made[pick(r, ("wlang", "wlangb"))] = some(r, LANGUAGES)
    if seldom(r, 12):
        made[pick(r, ("wseat", "bseat"))] = some(r, SEATS)
    if seldom(r, 8):
        made["cur"] = pick(r, (["USD"], ["EUR", "USD"], ["JPY"], ["GBP", "JPY"], [currency]))
    if seldom(r, 20):
        made["tmax"] = pick(r, (0, 1, 500))
    return made


def asked(request: BidRequest) -> Json:
    """Say what a request asks of a bid in the words of `request`, whatever it was made of."""
    imps = []
    for imp in request.imps:
        told: Json = {"id": imp.id, "bidfloor": cpm(imp.floor), "pmp": {"deals": [{"id": id} for id in imp.deals]}}
        for number, format in imp.formats.items():
            media: Json = {"battr": sorted(format.attributes)} if format.attributes else {}
            media["format"] = [{"w": width, "h": height} for width, height in sorted(format.sizes)]
            length = format.length
            if length is not None:
                media |= {"minduration": length.least, "rqddurs": sorted(length.exact)}
                media["maxduration"] = 30 if length.most is None else length.most
            told[FORMATS[number - 1]] = media
        imps.append(told)
    made: Json = {"id": request.id, "imp": imps}
    if request.blocks is not None:
        made |= {"badv": sorted(request.blocks.advertisers), "bcat": sorted(request.blocks.categories)}
        made["cattax"] = request.blocks.taxonomy
    return made


def _domain(r: Random, blocked: list[str]) -> str:
    """Draw a domain at, above, below or beside a blocked one."""
    name = pick(r, blocked) if blocked and not seldom(r, 3) else pick(r, (*DOMAINS, "example.org", "mord.com"))
    name = pick(r, ("", "", "", "www.", "not", "a.b.", ".", "é.", "l" * 260 + ".")) + name
    name += pick(r, ("", "", "", ".", "..", "x", ".x"))
    return pick(r, (name, name, name.upper(), name.title(), name.swapcase()))


def _price(r: Random, imp: Json, currency: str) -> float:
    if seldom(r):
        return pick(r, PRICES)
    floor = float(imp.get("bidfloor") or 1.0)
    if seldom(r, 3):
        return floor + pick(r, (0.0, 0.0, 1e-6, -1e-6, 4e-7, -4e-7, 1e-9, -1e-9))
    return floor + pick(r, (0.5, 0.5, 0.01, 1.0, r.randint(1, 2000) / 100))


def bid(r: Random, asked: Json, id: str, currency: str = "USD") -> bytes:
    """Make a bid that fits the request but for a thing or two, as bytes in any order that means the same."""
    imp = pick(r, asked["imp"])
    offered = [place + 1 for place, format in enumerate(FORMATS) if format in imp]
    format = pick(r, offered)
    parts = [wire.text(1, id), wire.text(2, imp["id"]), wire.double(3, _price(r, imp, currency))]
    media = imp[FORMATS[format - 1]]
    if len(offered) > 1 or seldom(r, 2):
        parts.append(wire.number(33, format if not seldom(r, 12) else r.randint(0, 5)))
    if not seldom(r, 8):
        parts.append(wire.text(10, pick(r, ("c1", "c2", "c2"))))
    if format in (2, 4) or seldom(r, 2):
        parts.append(wire.text(6, pick(r, MARKUP[:3]) if not seldom(r, 3) else pick(r, MARKUP)))
    if seldom(r, 4):
        parts.append(wire.text(5, pick(r, MARKUP)))
    if format == 1:
        sizes = [(one.get("w", 0), one.get("h", 0)) for one in (media, *media.get("format", ()))]
        width, height = pick(r, sizes)
        if seldom(r):
            width, height = pick(r, ((width, 0), (0, height), (0, 0), (width + 1, height), (height, width), (320, 180)))
        if width or seldom(r, 4):
            parts.append(wire.number(16, width))
        if height or seldom(r, 4):
            parts.append(wire.number(17, height))
    elif format != 4 and seldom(r, 2):
        bounds = [media.get("minduration", 5), media.get("maxduration", 30), *media.get("rqddurs", ())]
        parts.append(wire.number(32, pick(r, bounds) + pick(r, (0, 0, 0, -1, 1))))
    parts += [wire.text(7, _domain(r, asked.get("badv", []))) for _ in range(pick(r, (0, 1, 1, 2)))]
    categories = (*asked.get("bcat", ()), *CATEGORIES, "IAB1-2", "IAB2", "IAB1-", "53")
    parts += [wire.text(15, pick(r, categories)) for _ in range(pick(r, (0, 0, 1, 2)))]
    if seldom(r, 3):
        parts.append(wire.number(30, asked.get("cattax", 1) if seldom(r, 2) else pick(r, (0, 1, 2, 6, -1))))
    if seldom(r, 3):
        shown = [pick(r, (2, 3, 7, 12, 501)) for _ in range(r.randint(1, 3))]
        if seldom(r, 3):
            shown.append(pick(r, media.get("battr", ATTRIBUTES)) + pick(r, (0, 0, 2**32, 2**31, -(2**32), 2**40)))
        parts += [wire.packed(11, *shown)] if seldom(r, 2) else [wire.number(11, one) for one in shown]
    if seldom(r, 8):
        parts.append(wire.text(14, pick(r, (*APPS, "com.example"))))
    if seldom(r, 8):
        parts.append(wire.text(pick(r, (25, 29)), pick(r, LANGUAGES)))
    deals = [deal["id"] for deal in imp.get("pmp", {}).get("deals", ())]
    if seldom(r, 2 if deals else 12):
        parts.append(wire.text(13, pick(r, (*deals, *deals, "d0", "d9", ""))))
    while seldom(r, 3):
        parts.append(oddity(r, parts))
    if seldom(r, 3):
        r.shuffle(parts)
    return b"".join(parts)


_READ = (1, 2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 16, 17, 25, 29, 30, 32, 33, 50)


def oddity(r: Random, parts: list[bytes]) -> bytes:
    """Make something that may stand anywhere in a message: a repetition, another wire type, what nobody knows."""
    field = pick(r, (*_READ, *_READ, 4, 18, 60, 99, 500, 536_870_911))
    match r.randrange(10):
        case 0:
            return pick(r, parts)
        case 1:
            return wire.text(field, pick(r, (b"", b"\x08\x01", b"x", "é".encode(), b"IAB1", b"1")))
        case 2:
            return wire.number(field, pick(r, (0, 1, 2, 5, 6, 300, -1, 2**31 - 1, 2**31, 2**32, 2**32 + 6, -(2**31))))
        case 3:
            return wire.number(field, pick(r, (0, 1, 6, 250, 300)), padding=r.randint(1, 7))
        case 4:
            return wire.double(field, pick(r, PRICES))
        case 5:
            return wire.key(field, wire.I32) + r.randbytes(4)
        case 6:
            inside = (b"", wire.text(1, "z"), wire.number(11, 6), wire.group(7, wire.double(3, 9.0)), wire.group(field))
            return wire.group(field, pick(r, inside))
        case 7:
            return wire.key(pick(r, (1, 2, 6, 7, 15)), wire.LEN, padding=r.randint(1, 3)) + b"\x03abc"
        case 8:
            return wire.text(pick(r, (1, 2, 6, 7, 15)), "ford.com", padding=r.randint(1, 3))
        case _:
            return wire.packed(11, *(pick(r, (6, 13, 2**32 + 6, -1, 500)) for _ in range(r.randint(0, 3))))


def reply(r: Random, asked: Json, currency: str = "USD", bids_max: int = 100) -> bytes:
    """Make a reply as bytes; one in thirty is cut off somewhere, one in thirty has too many bids."""
    parts = [] if seldom(r, 40) else [wire.text(1, asked["id"] if not seldom(r, 40) else "s")]
    if currency != "USD" or seldom(r):
        parts.append(wire.text(4, pick(r, (currency, currency, currency, "EUR", "", "GBP", "XXX"))))
    number = 0
    for _ in range(pick(r, (1, 1, 1, 1, 2, 3))):
        inside = []
        count = pick(r, (1, 1, 1, 2, 2, 3, 4, 0)) if not seldom(r, 200) else pick(r, (bids_max, bids_max + 1))
        for _ in range(count):
            number += 1
            made = bid(r, asked, pick(r, ("x", "y")) if seldom(r, 12) else f"b{number}", currency)
            inside.append(wire.text(1, made if count < 10 or number < 5 else b""))
        seat = pick(r, SEATS)
        if seat or seldom(r, 3):
            inside.insert(r.randint(0, len(inside)), wire.text(2, seat))
        if seldom(r, 8):
            inside.insert(r.randint(0, len(inside)), oddity_beside(r))
        parts.append(wire.text(2, b"".join(inside)))
    if seldom(r, 8):
        parts.insert(r.randint(0, len(parts)), oddity_beside(r))
    if seldom(r, 40):
        parts.append(wire.number(6, pick(r, (0, 2, -1))))
    whole = b"".join(parts)
    return whole[: r.randrange(len(whole) + 1)] if seldom(r, 30) else whole


def oddity_beside(r: Random) -> bytes:
    """Make something that may stand beside seats or bids."""
    return pick(r, (
        wire.number(2, 7), wire.number(1, 7, padding=2), wire.double(2, 1.0), wire.key(1, wire.I32) + b"abcd",
        wire.group(2, wire.text(1, "x")), wire.group(60, wire.group(61)), wire.text(60, "unknown"), wire.number(3, 0),
        wire.text(2, b"") , wire.text(99, b""),
    ))  # fmt: skip

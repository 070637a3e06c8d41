# What an auction decides, written a second time: plain Python, slow, obvious, straight from the rules.
#
# It exists to disagree. It shares no line with the product: its own hash, its own money (fractions, so nothing is
# rounded by accident), its own reading of a case. It refuses to be fast, to validate what a case file looks like (a
# malformed one may raise anything), to repair sloppy JSON, and to write a response: it only says who won, what they
# pay, and why not.
#
# Each function opens with the rule it implements. Money is whole micros of one unit CPM, in the currency named beside
# it.

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

WON, BAD_BID, BAD_DEAL, NO_PRICE, INTERNAL, BELOW_FLOOR, BELOW_DEAL_FLOOR, OUTBID, BEHIND_DEAL, WRONG_SEAT = (
    0, 3, 4, 9, 1, 100, 101, 102, 103, 104,
)  # fmt: skip

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

Json = dict[str, Any]


class Refused(Exception):
    """The request is refused whole; the one argument is the path of the field at fault."""


@dataclass
class Offer:
    """A bid on its way through the checks."""

    bidder: str
    seat: str
    id: str
    impid: str
    deal: str
    price: float | None
    currency: str
    reason: int | None = None
    placed: bool = True  # its impression is one that its bidder was asked for
    duplicate: bool = False
    told_floor: int = 0  # micros of `currency`: what the bidder is held to
    sent: int = 0  # micros of `currency`
    row: Row | None = None
    verdict: Verdict | None = None
    setter: str | None = None
    pays: int | None = None


@dataclass
class Row:
    """A bid that came as far as its floor, in micros of the auction currency.

    `price` is what it ranks with, `floor` what it has to reach there; `refused` is 0, or 100 or 101. `own_floor` and
    `min_price` are the two things its floor is made of.
    """

    price: int
    floor: int
    at: int
    deal: bool
    competitor: Hashable
    rank: int
    name: bytes
    refused: int = 0
    own_floor: int = 0
    own_floor_is_deals: bool = False
    min_price: int = 0


@dataclass
class Verdict:
    """What becomes of a Row. `clearing` and `rival` are a winner's; rival None: there was none."""

    reason: int
    clearing: int | None = None
    rival: int | None = None
    min_to_win: int | None = None


@dataclass
class Exchange:
    """The settings of a case, with their defaults."""

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
    tie_key: str = ""
    strict_ids: bool = True
    rates: Mapping[str, Fraction] = field(default_factory=dict)


# ------------------------------------------------------------ the auction as a whole


def decide(case: Json) -> Json:
    """Give the answer to a case, without `response` and `warnings`; of a refused one {"error": {"path"}} only."""
    request, limits = (
        case["request"],
        {"imps": 100, "deals_per_imp": 64, "bids_per_reply": 100, **case.get("limits", {})},
    )
    exchange = settings(case)
    try:
        check_request(request, exchange, limits)
    except Refused as refused:
        return {"error": {"path": refused.args[0]}}

    imps = {imp["id"]: imp for imp in request["imp"]}
    offers: list[Offer] = []
    non_bids: list[Json] = []
    asked_anybody = False
    replies = {reply["bidder"]: reply for reply in case["replies"]}
    for bidder in everybody(case):
        name = bidder["name"]
        refusals = {id: why_not_asked(bidder, imp, request, exchange) for id, imp in imps.items()}
        asked = [id for id in imps if refusals[id] is None]
        asked_anybody = asked_anybody or bool(asked)
        for id, status in refusals.items():
            if status is not None:
                non_bids.append(silence(name, id, status))
        if not asked:
            continue
        status, bids = read_reply(name, replies.get(name), request, exchange, limits)
        check_ids(bids, asked)
        offers += bids
        answered_for = {bid.impid for bid in bids}
        non_bids += [silence(name, id, status) for id in asked if id not in answered_for]

    for offer in offers:
        if offer.reason is None:
            check_price(offer, request, exchange)
        if offer.reason is None:
            check_deal(offer, imps[offer.impid])
        if offer.reason is None:
            check_floor(offer, imps[offer.impid], request, exchange)
    for id in imps:
        here = [offer for offer in offers if offer.impid == id and offer.row is not None]
        verdicts = settle([offer.row for offer in here if offer.row is not None], exchange)
        for offer, verdict in zip(here, verdicts, strict=True):
            offer.verdict, offer.reason = verdict, verdict.reason
            if verdict.reason == WON:
                offer.setter = price_setter(offer, exchange)
                offer.pays = told_price(offer, exchange)
    non_bids += [rejection(offer) for offer in offers if offer.reason not in (WON, OUTBID, BEHIND_DEAL)]

    answers = [answer_imp(id, [offer for offer in offers if offer.impid == id and offer.placed]) for id in imps]
    sold = any(answer["winner"] for answer in answers)
    # Nothing sold is said with reason 0; with 15 where time was what kept everybody from being asked.
    hurried = not asked_anybody and any(non_bid["status"] == 15 for non_bid in non_bids)
    return {
        "id": request["id"],
        "imp": answers,
        "unplaced": [answer_bid(offer) for offer in offers if not offer.placed],
        "non_bids": non_bids,
        "nbr": None if sold else 15 if hurried else 0,
    }


def settings(case: Json) -> Exchange:
    """A setting that is absent has its default. The increment is that of the auction currency: one given alone is the
    exchange's own; of a currency not listed it is one minor unit. The listed defaults are one minor unit each too."""
    given = dict(case.get("exchange", {}))
    currency = given.get("currency", "USD")
    increment = given.pop("increment", {})
    if isinstance(increment, dict):
        increment = increment.get(currency, str(Decimal(1).scaleb(-MINOR_DIGITS.get(currency, 2))))
    rates = {"USD": Fraction(1), **{code: Fraction(str(rate)) for code, rate in case.get("fx", {}).items()}}
    amounts = {key: decimal(given.pop(key)) for key in ("min_price", "max_cpm") if given.get(key) is not None}
    known = {key: value for key, value in given.items() if key in Exchange.__dataclass_fields__ and value is not None}
    return Exchange(**{**known, **amounts}, increment=decimal(increment), rates=rates)


def everybody(case: Json) -> list[Json]:
    """Bidders with an entry first, in its order; then those that only have a reply, with defaults."""
    entries = list(case.get("bidders", []))
    listed = {entry["name"] for entry in entries}
    return entries + [{"name": reply["bidder"]} for reply in case["replies"] if reply["bidder"] not in listed]


# ------------------------------------------------------------ the request


def check_request(request: Json, exchange: Exchange, limits: Json) -> None:
    """A request is taken or refused as a whole; a refusal names the field. A floor of -0.0 is 0, so it passes."""
    if not request.get("id"):
        raise Refused("id")
    if not request.get("imp"):
        raise Refused("imp")
    if len(request["imp"]) > limits["imps"]:
        raise Refused("imp")
    channels = [channel for channel in ("site", "app", "dooh") if request.get(channel) is not None]
    if len(channels) > 1:
        raise Refused(channels[1])
    if request.get("at", 2) not in (0, 1, 2):
        raise Refused("at")
    if request.get("tmax", 0) < 0:
        raise Refused("tmax")
    allowed = request.get("cur", [])
    if allowed and not any(factor(code, exchange.currency, exchange) for code in allowed):
        raise Refused("cur")
    ids = set()
    for row, imp in enumerate(request["imp"]):
        path = f"imp[{row}]"
        if not imp.get("id") or imp["id"] in ids:
            raise Refused(f"{path}.id")
        ids.add(imp["id"])
        if not media_of(imp):
            raise Refused(path)
        check_floors_of(imp, path)
        for medium in ("video", "audio"):
            format = imp.get(medium)
            if format is not None:
                check_floors_of(format, f"{path}.{medium}")
                if format.get("rqddurs") and ("minduration" in format or "maxduration" in format):
                    raise Refused(f"{path}.{medium}.rqddurs")
        deals = imp.get("pmp", {}).get("deals", [])
        if len(deals) > limits["deals_per_imp"]:
            raise Refused(f"{path}.pmp.deals")
        for place, deal in enumerate(deals):
            if not deal.get("id"):
                raise Refused(f"{path}.pmp.deals[{place}].id")
            if deal.get("at", 0) not in (0, 1, 2, 3):
                raise Refused(f"{path}.pmp.deals[{place}].at")
            check_floors_of(deal, f"{path}.pmp.deals[{place}]")


def check_floors_of(holder: Json, path: str) -> None:
    """A floor, a floor by duration or a rate per second is a finite number, not negative; a floor is at most the limit;
    a floor's currency is a code of ISO 4217."""
    for name in ("bidfloor", "mincpmpersec"):
        if name in holder and not sound_floor(double(holder[name])):
            raise Refused(f"{path}.{name}")
    for row, entry in enumerate(holder.get("durfloors", [])):
        if "bidfloor" in entry and not sound_floor(double(entry["bidfloor"])):
            raise Refused(f"{path}.durfloors[{row}].bidfloor")
    if "bidfloorcur" in holder and holder["bidfloorcur"] not in CURRENCIES:
        raise Refused(f"{path}.bidfloorcur")


def sound_floor(amount: float) -> bool:
    return math.isfinite(amount) and amount >= 0 and read_nanos(amount) <= LIMIT * 1000


def media_of(imp: Json) -> set[str]:
    return {medium for medium in ("banner", "video", "audio", "native") if imp.get(medium) is not None}


def why_not_asked(bidder: Json, imp: Json, request: Json, exchange: Exchange) -> int | None:
    """A bidder that serves none of an impression's formats is not asked for it (202), nor one that has less time than
    it needs (15): what it is told is the budget less what answering takes (at most a tenth) and its network time, and
    no more than its own timeout. The budget is the request's tmax (absent or 0: the default), capped."""
    if bidder.get("media") and not media_of(imp) & set(bidder["media"]):
        return 202
    budget = Fraction(min(request.get("tmax") or exchange.tmax_ms, exchange.tmax_max_ms))
    told = budget - min(Fraction(exchange.reply_reserve_ms), budget / 10) - bidder.get("network_ms", 0)
    if bidder.get("timeout_ms") is not None:
        told = min(told, Fraction(bidder["timeout_ms"]))
    return 15 if told < bidder.get("min_ms", 1) else None


# ------------------------------------------------------------ a reply as a whole


def read_reply(
    name: str, reply: Json | None, request: Json, exchange: Exchange, limits: Json
) -> tuple[int, list[Offer]]:
    """A reply brings bids, or one status for every impression it was asked for. Silence is lateness. How the call
    ended decides first; then a reason for not bidding, whose number is the status even if bids stand beside it; then
    emptiness; then an id that is not ours and a reply with too many bids make it invalid. A currency not given is
    USD."""
    status = {"NO_BID": 0, "TIMED_OUT": 101, "UNREACHABLE": 103, "INVALID": 102}
    if reply is None:
        return 101, []
    if reply["status"] != "BID":
        return status[reply["status"]], []
    body = reply.get("body") or {}
    if body.get("nbr") is not None:
        return body["nbr"], []
    if not any(seatbid.get("bid") for seatbid in body.get("seatbid") or []):
        return 0, []
    if body.get("id") != request["id"] and (exchange.strict_ids or body.get("id")):
        return 102, []
    currency = body.get("cur") or "USD"
    bids = [
        Offer(
            bidder=name,
            seat=seatbid.get("seat") or "",
            id=bid.get("id") or "",
            impid=bid.get("impid") or "",
            deal=bid.get("dealid") or "",
            price=None if bid.get("price") is None else double(bid["price"]),
            currency=currency,
        )
        for seatbid in body["seatbid"]
        for bid in seatbid.get("bid") or []
    ]
    return (102, []) if len(bids) > limits["bids_per_reply"] else (0, bids)


# ------------------------------------------------------------ a bid, check by check


def check_ids(bids: Sequence[Offer], asked: Sequence[str]) -> None:
    """First check: a bid has an id and answers to an impression its bidder was asked for; of bids with one id within
    one seat the first in the order of the reply is kept."""
    seen = set()
    for bid in bids:
        bid.placed = bid.impid in asked
        if not bid.id or not bid.placed:
            bid.reason = BAD_BID
        elif (bid.seat, bid.id) in seen:
            bid.reason, bid.duplicate = BAD_BID, True
        else:
            seen.add((bid.seat, bid.id))


def check_price(bid: Offer, request: Json, exchange: Exchange) -> None:
    """Second check: there is a price (else 9); it is finite and not negative, -0.0 counting as negative, and 0 only
    for a deal; its currency is one the request lists (none listed: the exchange's and USD); it has a rate (else 1);
    it is not above max_cpm or the limit, as sent or in the auction currency."""
    if bid.price is None:
        bid.reason = NO_PRICE
        return
    if not math.isfinite(bid.price) or math.copysign(1.0, bid.price) < 0:
        bid.reason = BAD_BID
        return
    bid.sent = read_nanos(bid.price) // 1000
    allowed = request.get("cur") or [exchange.currency, "USD"]
    if (bid.sent == 0 and not bid.deal) or bid.currency not in allowed:
        bid.reason = BAD_BID
    elif factor(bid.currency, exchange.currency, exchange) is None:
        bid.reason = INTERNAL
    else:
        amount = convert_down(bid.sent, bid.currency, exchange.currency, exchange)
        highest = LIMIT if exchange.max_cpm is None else min(LIMIT, exchange.max_cpm)
        if amount > highest or read_nanos(bid.price) > LIMIT * 1000:
            bid.reason = BAD_BID


def check_deal(bid: Offer, imp: Json) -> None:
    """Fourth check: a deal is one of the impression's (else 4) and open to the bid's seat (else 104); where the
    auction is private there is no bid without one (4)."""
    deal = deal_of(bid, imp)
    if bid.deal and deal is None:
        bid.reason = BAD_DEAL
    elif deal is not None and deal.get("wseat") and bid.seat not in deal["wseat"]:
        bid.reason = WRONG_SEAT
    elif deal is None and imp.get("pmp", {}).get("private_auction"):
        bid.reason = BAD_DEAL


def check_floor(bid: Offer, imp: Json, request: Json, exchange: Exchange) -> None:
    """Seventh check: the price as sent reaches the floor where the bidder sees it, in its own currency, UP; at the
    floor is enough, and nothing less is.

    A deal's bid answers to the deal's floor if that states one, 0 included, and not to the impression's; each is in
    the currency beside it, USD where there is none. The exchange's min_price raises every floor. A floor that cannot
    be brought into the auction currency, or is above the limit there, gives its bids 1; a floor of 0 needs no rate.

    In the auction currency the floor counts as itself, UP, at most the bid, DOWN. At 3 the price, the floor and what
    is paid are all the agreed price: the floor as the bidder sees it, brought back DOWN; above the limit its bids get
    1 as well.
    """
    deal = deal_of(bid, imp)
    holder = deal if deal is not None and deal.get("bidfloor") is not None else imp
    floor = -(-read_nanos(double(holder.get("bidfloor", 0.0))) // 1000)
    currency = holder.get("bidfloorcur", "USD")
    if floor and factor(currency, exchange.currency, exchange) is None:
        bid.reason = INTERNAL
        return
    here = convert_up(floor, currency, exchange.currency, exchange)
    if here > LIMIT:
        bid.reason = INTERNAL
        return
    told = convert_up(floor, currency, bid.currency, exchange)
    bid.told_floor = max(told, convert_up(exchange.min_price, exchange.currency, bid.currency, exchange))
    refused = 0
    if bid.sent < told:
        refused = BELOW_DEAL_FLOOR if holder is deal else BELOW_FLOOR
    elif bid.sent < bid.told_floor:
        refused = BELOW_FLOOR
    price = convert_down(bid.sent, bid.currency, exchange.currency, exchange)
    raised = max(here, exchange.min_price)
    at = (deal or {}).get("at") or request.get("at") or 2
    if at == 3:
        price = raised = convert_down(bid.told_floor, bid.currency, exchange.currency, exchange)
        if price > LIMIT:
            bid.reason = INTERNAL
            return
    bid.row = Row(
        price=price,
        floor=raised if refused else min(raised, price),
        at=at,
        deal=deal is not None,
        competitor=bid.bidder if exchange.competitor == "bidder" else (bid.bidder, bid.seat),
        rank=rank(exchange.tie_key, request["id"], imp["id"], bid.seat, bid.id),
        name=bid.bidder.encode(),
        refused=refused,
        own_floor=here,
        own_floor_is_deals=holder is deal,
        min_price=exchange.min_price,
    )


def deal_of(bid: Offer, imp: Json) -> Json | None:
    if not bid.deal:
        return None
    return next((deal for deal in imp.get("pmp", {}).get("deals", []) if deal["id"] == bid.deal), None)


# ------------------------------------------------------------ one impression settled


def settle(rows: Sequence[Row], exchange: Exchange) -> list[Verdict]:
    """Give every bid of one impression its verdict, in the order given.

    All accepted bids rank together by price, then by lowest rank, then by the bidder's name; or, deals first, every
    deal stands before every open bid. The first wins. A loser was outbid, or stands behind a deal by that setting
    alone.
    """
    accepted = sorted((row for row in rows if not row.refused), key=lambda row: place(row, exchange))
    if not accepted:
        return [Verdict(row.refused, min_to_win=row.floor) for row in rows]
    winner = accepted[0]
    behind_deals = exchange.deal_mode == "deals_first" and winner.deal
    rival = best_rival(winner, accepted, exchange)
    clearing = clearing_price(winner, rival, exchange)
    verdicts = []
    for row in rows:
        if row is winner:
            least = winner.floor if rival is None else max(winner.floor, rival)
            verdicts.append(Verdict(WON, clearing, rival, least))
            continue
        reason = row.refused or (BEHIND_DEAL if behind_deals and not row.deal else OUTBID)
        verdicts.append(Verdict(reason, min_to_win=price_to_win(row, winner, clearing, exchange)))
    return verdicts


def place(row: Row, exchange: Exchange) -> tuple[bool, int, int, bytes]:
    """Sort best first. Names are compared byte by byte."""
    return (exchange.deal_mode == "deals_first" and not row.deal, -row.price, row.rank, row.name)


def best_rival(winner: Row, accepted: Sequence[Row], exchange: Exchange) -> int | None:
    """A rival is an accepted bid of another competitor, or of the same where the own seat sets prices too; with deals
    first only deals are rivals of a deal."""
    rivals = [
        row.price
        for row in accepted
        if row is not winner
        and (row.competitor != winner.competitor or exchange.same_seat_sets_price)
        and not (exchange.deal_mode == "deals_first" and winner.deal and not row.deal)
    ]
    return max(rivals, default=None)


def clearing_price(winner: Row, rival: int | None, exchange: Exchange) -> int:
    """At 1 the winner pays its bid; at 3 the agreed price, which is its price here; at 2 what the best rival offered
    and one increment, at least its floor, at most its bid; without a rival its floor, without increment."""
    if winner.at in (1, 3):
        return winner.price
    return winner.floor if rival is None else min(winner.price, max(winner.floor, rival + exchange.increment))


def price_to_win(row: Row, winner: Row, clearing: int, exchange: Exchange) -> int | None:
    """A loser learns the price to beat: the winner's ranked price, or its clearing price where the table is followed.
    One refused for its floor learns the greater of that and its floor. No price would have helped an open bid behind
    a deal, nor one at 3 whose agreed price loses."""
    if exchange.deal_mode == "deals_first" and winner.deal and not row.deal:
        return None
    if row.at == 3 and place(winner, exchange) < place(row, exchange):
        return None
    to_beat = clearing if exchange.min_to_win == "table" else winner.price
    return max(to_beat, row.floor) if row.refused else to_beat


def price_setter(offer: Offer, exchange: Exchange) -> str:
    """At 1 the own bid, at 3 the agreed price; the own bid where it caps the price; else the first of the rival, the
    deal's floor or the impression's, and min_price, that attains it. A floor counts as at most the bid."""
    row, verdict = offer.row, offer.verdict
    assert row is not None
    assert verdict is not None
    if row.at == 1:
        return "own_bid"
    if row.at == 3:
        return "agreed"
    if verdict.rival is not None:
        beaten = verdict.rival + exchange.increment
        if row.price < max(row.floor, beaten):
            return "own_bid"
        if verdict.clearing == beaten:
            return "rival"
    if verdict.clearing == min(row.own_floor, row.price):
        return "deal_floor" if row.own_floor_is_deals else "floor"
    assert verdict.clearing == min(row.min_price, row.price)
    return "min_price"


def told_price(offer: Offer, exchange: Exchange) -> int:
    """The buyer is told its own bid or its floor exactly where that made the price; otherwise the price brought back
    to its currency, DOWN, not below its floor."""
    verdict = offer.verdict
    assert verdict is not None
    assert verdict.clearing is not None
    if offer.setter == "own_bid":
        return offer.sent
    if offer.setter != "rival":
        return offer.told_floor
    return max(offer.told_floor, convert_down(verdict.clearing, exchange.currency, offer.currency, exchange))


# ------------------------------------------------------------ ties


def rank(*parts: str) -> int:
    """Among equal prices the lowest number wins: FNV-1a over the parts, each behind its length in 4 bytes, and the last
    step of splitmix64 over that. The first part is the tie key, left out when it is empty."""
    number = 0xCBF29CE484222325
    for part in parts if parts[0] else parts[1:]:
        encoded = part.encode()
        for byte in [*len(encoded).to_bytes(4, "big"), *encoded]:
            number = ((number ^ byte) * 0x100000001B3) % 2**64
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = ((number ^ (number >> shift)) * multiplier) % 2**64
    return number ^ (number >> 31)


# ------------------------------------------------------------ money


def double(sent: float | str) -> float:
    """A price is the double nearest to what was written, be it a number or a string."""
    try:
        return float(sent)
    except OverflowError:  # an integer beyond the doubles
        return math.inf if float(str(sent)[:2]) > 0 else -math.inf


def read_nanos(amount: float) -> int:
    """A double is read at nine decimals, half to even: what 0.1 * 3 has too much is noise."""
    return round(Fraction(amount) * 1_000_000_000)


def decimal(setting: object) -> int:
    """A setting is an exact decimal."""
    micros = Fraction(str(setting)) * MICROS
    assert micros.denominator == 1
    return int(micros)


def factor(source: str, target: str, exchange: Exchange) -> Fraction | None:
    """Between two currencies stands the quotient of their rates against USD; without a rate nothing does, never 1."""
    if source == target:
        return Fraction(1)
    if source not in exchange.rates or target not in exchange.rates:
        return None
    return exchange.rates[target] / exchange.rates[source]


def convert_down(amount: int, source: str, target: str, exchange: Exchange) -> int:
    """Conversion is exact and rounded once."""
    exact = factor(source, target, exchange)
    assert exact is not None
    return math.floor(amount * exact)


def convert_up(amount: int, source: str, target: str, exchange: Exchange) -> int:
    if amount == 0:
        return 0
    exact = factor(source, target, exchange)
    assert exact is not None
    return math.ceil(amount * exact)


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


# ------------------------------------------------------------ the answer


def silence(bidder: str, imp: str, status: int) -> Json:
    """A bidder without a bid on an impression: not asked, not heard, or not interested."""
    return {"bidder": bidder, "seat": None, "imp": imp, "bid": None, "status": status}


def rejection(offer: Offer) -> Json:
    """The publisher learns of a rejected bid less than its bidder does."""
    status = 302 if offer.duplicate else {BELOW_FLOOR: 301, BELOW_DEAL_FLOOR: 304}.get(offer.reason or 0, 300)
    return {"bidder": offer.bidder, "seat": offer.seat, "imp": offer.impid, "bid": offer.id, "status": status}


def answer_bid(offer: Offer) -> Json:
    verdict = offer.verdict
    return {
        "bidder": offer.bidder,
        "seat": offer.seat,
        "id": offer.id,
        "price": as_sent(offer.price),
        "currency": offer.currency,
        "floor": None if offer.row is None else plain(offer.row.floor),
        "loss_reason": offer.reason,
        "min_to_win": None if verdict is None or verdict.min_to_win is None else plain(verdict.min_to_win),
    }


def answer_imp(id: str, offers: Sequence[Offer]) -> Json:
    winners = [
        {
            "bidder": offer.bidder,
            "seat": offer.seat,
            "bid": offer.id,
            "clearing_price": plain(offer.verdict.clearing),
            "price_setter": offer.setter,
            "pays": plain(offer.pays),
            "currency": offer.currency,
        }
        for offer in offers
        if offer.verdict is not None and offer.verdict.clearing is not None and offer.pays is not None
    ]
    first = winners[0] if winners else None
    return {
        "id": id,
        "winner": None if first is None else {key: first[key] for key in ("bidder", "seat", "bid")},
        "winners": winners,
        "clearing_price": None if first is None else first["clearing_price"],
        "price_setter": None if first is None else first["price_setter"],
        "bids": [answer_bid(offer) for offer in offers],
    }

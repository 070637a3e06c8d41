# What an auction decides, written a second time: plain Python, slow, obvious, straight from the rules.
#
# It exists to disagree. It shares no line with the product: its own hash, its own money (fractions, so nothing is
# rounded by accident), its own reading of a case. It refuses to be fast, to validate what a case file looks like (a
# malformed one may raise anything), and to know more slips of JSON than cases make. The one thing it reads of the
# product's is data that neither made up, the IAB's taxonomies.
#
# Each function opens with the rule it implements. Money is whole micros of one unit CPM, in the currency named beside
# it.

from __future__ import annotations

from collections.abc import Sequence

from .bids import Offer, check_deal, check_ids, check_price, check_seat, read_reply
from .chance import rank
from .clearing import Row, Verdict, price_setter, settle
from .creatives import check_creative, check_duration
from .floors import check_floor, drawn_model
from .money import as_sent, plain, returned
from .reasons import BEHIND_DEAL, DUPLICATE, OUTBID, REJECTED, REJECTED_AS, WON
from .requests import Refused, check_request, check_size, why_not_asked
from .response import response
from .rules import LIMITS, Exchange, Json, everybody, settings
from .slips import read_request

__all__ = ["Exchange", "Row", "Verdict", "decide", "price_setter", "rank", "settle"]


def decide(case: Json) -> Json:
    """Give the answer to a case in the public shape, but for the texts that are for people: of a refusal and of a
    warning the path alone."""
    request, limits, exchange = case["request"], {**LIMITS, **case.get("limits", {})}, settings(case)
    try:
        check_size(request, limits)
        request, warnings = read_request(request, exchange)
        warnings += check_request(request, exchange, limits)
    except Refused as refused:
        return {"error": {"code": "INVALID_ARGUMENT", "path": refused.args[0]}}

    imps = {imp["id"]: imp for imp in request["imp"]}
    bidders = {bidder["name"]: bidder for bidder in everybody(case)}
    replies = {reply["bidder"]: reply for reply in case["replies"]}
    offers: list[Offer] = []
    non_bids: list[Json] = []
    asked_anybody = False
    for name, bidder in bidders.items():
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

    # A bid gets one reason: that of the first check it fails.
    model = drawn_model(case)
    for offer in offers:
        if offer.reason is None:
            check_price(offer, request, exchange)
        if offer.reason is None:
            check_seat(offer, request, bidders[offer.bidder])
        if offer.reason is None:
            check_deal(offer, imps[offer.impid], exchange)
        if offer.reason is None:
            check_creative(offer, imps[offer.impid], request, bidders[offer.bidder], exchange)
        if offer.reason is None:
            check_duration(offer, imps[offer.impid])
        if offer.reason is None:
            check_floor(offer, imps[offer.impid], request, model, exchange)
    for id in imps:
        here = [offer for offer in offers if offer.impid == id and offer.row is not None]
        verdicts = settle([offer.row for offer in here if offer.row is not None], exchange)
        for offer, verdict in zip(here, verdicts, strict=True):
            offer.verdict, offer.reason = verdict, verdict.reason
            if verdict.reason == WON:
                assert offer.row is not None
                offer.setter = price_setter(offer.row, verdict, exchange)
                offer.pays = told_price(offer, exchange)
    non_bids += [rejection(offer) for offer in offers if offer.reason not in (WON, OUTBID, BEHIND_DEAL)]

    answers = [answer_imp(id, [offer for offer in offers if offer.impid == id and offer.placed]) for id in imps]
    sold = any(answer["winner"] for answer in answers)
    # Nothing sold is said with reason 0; with 15 where time was what kept everybody from being asked.
    hurried = not asked_anybody and any(non_bid["status"] == 15 for non_bid in non_bids)
    nbr = None if sold else 15 if hurried else 0
    warnings += [path for offer in offers for path in offer.warnings]
    return {
        "id": request["id"],
        "imp": answers,
        "unplaced": [answer_bid(offer) for offer in offers if not offer.placed],
        "non_bids": non_bids,
        "warnings": [{"path": path} for path in warnings],
        "nbr": nbr,
        "response": response(request, offers, exchange, nbr),
    }


def told_price(offer: Offer, exchange: Exchange) -> int:
    """The buyer is told its own bid or its floor exactly where that made the price; otherwise the price brought back
    to its currency and its own scale, DOWN, not below its floor nor above its bid."""
    verdict = offer.verdict
    assert verdict is not None
    assert verdict.clearing is not None
    if offer.setter == "own_bid":
        return offer.sent
    if offer.setter not in ("rival", "soft_floor"):
        return offer.told_floor
    price = returned(verdict.clearing, offer.currency, exchange.currency, offer.weight, exchange.rates)
    return max(offer.told_floor, min(offer.sent, price))


# ------------------------------------------------------------ the answer


def silence(bidder: str, imp: str, status: int) -> Json:
    """A bidder without a bid on an impression: not asked, not heard, or not interested."""
    return {"bidder": bidder, "seat": None, "imp": imp, "bid": None, "status": status}


def rejection(offer: Offer) -> Json:
    """The publisher learns of a rejected bid less than its bidder does."""
    status = DUPLICATE if offer.duplicate else REJECTED_AS.get(offer.reason or 0, REJECTED)
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

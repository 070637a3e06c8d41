# A reply as a whole, and the checks of its bids but for creative and floor.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .clearing import Row, Verdict
from .money import LIMIT, Weight, bid_micros, double, has_way, ranked, read_nanos
from .reasons import BAD_BID, BAD_DEAL, INTERNAL, NO_PRICE, NOT_IN_DEAL, WRONG_SEAT
from .requests import depth_of, only_format, size_of
from .rules import Exchange, Json
from .slips import read_bid

FORMATS = {1: "banner", 2: "video", 3: "audio", 4: "native"}


@dataclass
class Offer:
    """A bid on its way through the checks; `sent` and `told_floor` are micros of `currency`."""

    bidder: str
    seat: str
    id: str
    impid: str
    deal: str  # the deal that it counts for
    price: float | None
    currency: str
    creative: Json = field(default_factory=dict)  # the bid as it came
    reason: int | None = None
    placed: bool = True  # its impression is one that its bidder was asked for
    duplicate: bool = False
    warnings: list[str] = field(default_factory=list)
    weight: Weight = field(default_factory=Weight)
    told_floor: int = 0  # what the bidder is held to
    sent: int = 0
    row: Row | None = None
    verdict: Verdict | None = None
    setter: str | None = None
    pays: int | None = None

    def warn(self, member: str) -> None:
        """What is tolerated is noted, by a path in which a long id is cut."""
        self.warnings.append(f"{self.bidder}.bid[{self.id[:64]}].{member}")


def read_reply(
    name: str, reply: Json | None, request: Json, exchange: Exchange, limits: Json
) -> tuple[int, list[Offer]]:
    """A reply brings bids, or one status for every impression it was asked for. Silence is lateness. How the call
    ended decides first; then a reason for not bidding, whose number is the status even if bids stand beside it; then
    emptiness; then an id that is not ours and a reply with too many bids make it invalid. So does, before all that but
    how the call ended, one too long or too deep: its bytes are those of its encoding, and no case comes so near to the
    limit that it matters which. A currency not given is USD."""
    status = {"NO_BID": 0, "TIMED_OUT": 101, "UNREACHABLE": 103, "INVALID": 102}
    if reply is None:
        return 101, []
    if reply["status"] != "BID":
        return status[reply["status"]], []
    body = reply.get("body") or {}
    if size_of(body) > limits["reply_bytes"] or depth_of(body) > limits["depth"]:
        return 102, []
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
            creative=bid,
        )
        for seatbid in body["seatbid"]
        for bid in (read_bid(bid, exchange) for bid in seatbid.get("bid") or [])
    ]
    if len(bids) > limits["bids_per_reply"]:
        return 102, []
    return 0, bids


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
    bid.sent = bid_micros(bid.price)
    allowed = request.get("cur") or [exchange.currency, "USD"]
    if (bid.sent == 0 and not bid.deal) or bid.currency not in allowed:
        bid.reason = BAD_BID
    elif not has_way(bid.currency, exchange.currency, exchange.rates):
        bid.reason = INTERNAL
    else:
        amount = ranked(bid.sent, bid.currency, exchange.currency, Weight(), exchange.rates)
        highest = LIMIT if exchange.max_cpm is None else min(LIMIT, exchange.max_cpm)
        if amount > highest or read_nanos(bid.price) > LIMIT * 1000:
            bid.reason = BAD_BID


def check_seat(bid: Offer, request: Json, bidder: Json) -> None:
    """Third check: the seat is one of the bidder's own (none listed: any) and one that the request allows and does not
    block. A bid without a seat is on no list."""
    own, allowed, blocked = bidder.get("seats"), request.get("wseat"), request.get("bseat")
    if bid.seat:
        lists = [one for one in (own, allowed) if one]
        wrong = any(bid.seat not in one for one in lists) or bid.seat in (blocked or ())
    else:
        wrong = bool(own or allowed)
    if wrong:
        bid.reason = WRONG_SEAT


def check_deal(bid: Offer, imp: Json, exchange: Exchange) -> None:
    """Fourth check: a deal is one of the impression's (else 4), open to the bid's seat (else 104) and to each of its
    advertisers (else 213); where the auction is private there is no bid without one (4).

    A bid whose advertiser is not in the deal may be taken as an open one instead; then it is refused for what an open
    bid is refused for: a price of 0 (3), a private auction (4).
    """
    deal = deal_of(bid, imp)
    if bid.deal and deal is None:
        bid.reason = BAD_DEAL
        return
    if deal is not None and deal.get("wseat") and not (bid.seat and bid.seat in deal["wseat"]):
        bid.reason = WRONG_SEAT
        return
    if deal is not None and deal.get("wadomain"):
        domains = bid.creative.get("adomain") or []
        if not domains or not all(is_under(domain, deal["wadomain"]) for domain in domains):
            if exchange.deal_advertiser == "strict":
                bid.reason = NOT_IN_DEAL
                return
            bid.warn("dealid")
            bid.deal, deal = "", None
            if bid.sent == 0:
                bid.reason = BAD_BID
                return
    if deal is None and imp.get("pmp", {}).get("private_auction"):
        bid.reason = BAD_DEAL


def is_under(domain: str, entries: Sequence[str]) -> bool:
    """A domain is under an entry that it equals or ends with at the boundary of a label; case and a final dot do not
    count."""
    labels = domain.lower().removesuffix(".").split(".")
    return any(
        labels[-len(entry) :] == entry for entry in (listed.lower().removesuffix(".").split(".") for listed in entries)
    )


def deal_of(bid: Offer, imp: Json) -> Json | None:
    if not bid.deal:
        return None
    return next((deal for deal in imp.get("pmp", {}).get("deals", []) if deal["id"] == bid.deal), None)


def format_of(bid: Offer, imp: Json) -> str | None:
    """A bid's format is the one it says; if it says none, the impression's, if that has one only."""
    mtype = bid.creative.get("mtype")
    return FORMATS.get(mtype) if mtype else only_format(imp)

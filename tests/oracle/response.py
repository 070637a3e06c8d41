# What the ad server is sent: the winning bids as they came, each at the price that the publisher gets.

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from .bids import Offer
from .money import factor, has_way, plain
from .rules import Exchange, Json


def response(request: Json, offers: Sequence[Offer], exchange: Exchange, nbr: int | None) -> Json:
    """Winning bids stand under their seats, in the order of the impressions; where nothing is sold, the reason.

    The currency is the exchange's if the request allows it, else the first allowed one with a rate; the clearing price
    is brought there DOWN. A bid that was taken as an open one loses its deal.
    """
    answer: Json = {"id": request["id"], "bidid": request["id"]}
    if nbr is not None:
        return {**answer, "nbr": nbr}
    ours, rates = exchange.currency, exchange.rates
    allowed = request.get("cur") or [ours]
    currency = ours if ours in allowed else next(code for code in allowed if has_way(ours, code, rates))
    seats: dict[tuple[str, str], Json] = {}
    for imp in request["imp"]:
        for offer in offers:
            if offer.impid == imp["id"] and offer.verdict is not None and offer.verdict.clearing is not None:
                price = math.floor(offer.verdict.clearing * factor(ours, currency, rates))
                bid = {**offer.creative, "price": number(price)}
                if not offer.deal:
                    bid.pop("dealid", None)
                named = {"seat": offer.seat} if offer.seat else {}
                seats.setdefault((offer.bidder, offer.seat), {**named, "bid": []})["bid"].append(bid)
    return {**answer, "cur": currency, "seatbid": list(seats.values())}


def number(micros: int) -> int | float:
    amount = Decimal(plain(micros))
    return int(amount) if amount == int(amount) else float(amount)

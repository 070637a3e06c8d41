# Which floor applies to a bid, and where it is compared.
#
# A bid on a deal answers to the deal's floor if the deal states one (an explicit 0 does), otherwise to the
# impression's: the order that OpenRTB gives buyers (2.6, implementation guide 7.11), and a deal's floor is never
# raised to the impression's. It is compared in the bid's own currency, with the price as the bidder sent it, because
# that is where the bidder can check it: the floor comes over in one exact step, UP.

from __future__ import annotations

import msgspec

from auction.model.fx import Rates, Ratio
from auction.model.money import LIMIT, CpmMicros
from auction.model.request import Deal, Imp


class Floor(msgspec.Struct, frozen=True, gc=False):
    """What a bid answers to.

    `told` and its part `deal_told` (0 where the deal states none) are micros of the bid's currency. In micros of
    the auction currency, `stated` is the deal's or impression's floor, and `counted` that or the least price of any
    sale, whichever is more.
    """

    told: CpmMicros
    deal_told: CpmMicros
    counted: CpmMicros
    stated: CpmMicros
    of_deal: bool


def governing(
    imp: Imp, deal: Deal | None, currency: str, auction_currency: str, min_price: CpmMicros, rates: Rates
) -> Floor | None:
    """Give the floor of a bid in `currency`; None for want of a rate, or above the limit of amounts.

    A floor of 0 is no floor in any currency and needs no rate.
    """
    if deal is not None and deal.floor is not None:
        amount, source, of_deal = deal.floor, deal.currency, True
    else:
        amount, source, of_deal = imp.floor, imp.currency, False
    told = stated = CpmMicros(0)
    if amount:
        to_bid, to_auction = rates.ratio(source, currency), rates.ratio(source, auction_currency)
        if to_bid is None or to_auction is None:
            return None
        told, stated = to_bid.up(amount), to_auction.up(amount)
        if stated > LIMIT:
            return None
    if not min_price:
        return Floor(told, told if of_deal else CpmMicros(0), stated, stated, of_deal)
    least = least_told(min_price, currency, auction_currency, rates)
    if least is None:
        return None
    return Floor(max(told, least), told if of_deal else CpmMicros(0), max(stated, min_price), stated, of_deal)


def least_told(min_price: CpmMicros, currency: str, auction_currency: str, rates: Rates) -> CpmMicros | None:
    """Give the least price of any sale in another currency, UP; None without a rate."""
    ratio: Ratio | None = rates.ratio(auction_currency, currency)
    return None if ratio is None else ratio.up(min_price)

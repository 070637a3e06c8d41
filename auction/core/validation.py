# A reply is accepted or is a no-bid as a whole; then each of its bids is accepted or gets exactly one loss reason.
#
# The checks come in one order and the first that fails names the reason, so that a bidder reading its losses fixes the
# first fault first. The floor is the last check; its comparison is the kernel's, everything it needs is found here.

from __future__ import annotations

from math import copysign, isfinite

import msgspec

from auction.core.floors import Floor, governing
from auction.model.fx import Rates, Ratio
from auction.model.money import LIMIT, CpmMicros, price_micros
from auction.model.reasons import AuctionType, LossReason
from auction.model.reply import Bid
from auction.model.request import BidRequest, Deal
from auction.model.rules import ExchangeRules


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """One bid after the checks. `reason` None: it stands, up to its floor, and everything below it is set.

    `imp` is a row of the request, -1 for none; `price` micros of `currency`; `ranked` micros of the auction currency.
    """

    bidder: int
    bid: Bid
    imp: int
    currency: str
    reason: LossReason | None
    duplicate: bool = False
    deal: Deal | None = None
    price: CpmMicros = CpmMicros(0)
    ranked: CpmMicros = CpmMicros(0)
    at: int = 0
    floor: Floor | None = None


class Checks:
    """The checks of one auction, with what they share between bids: floors found once per (imp, deal, currency)."""

    __slots__ = ("_allowed", "_asked", "_exchange", "_floors", "_rates", "_request")

    def __init__(self, request: BidRequest, exchange: ExchangeRules, rates: Rates) -> None:
        self._request = request
        self._exchange = exchange
        self._rates = rates
        # OpenRTB 2.6 3.2.1: `cur` lists the currencies allowed; absent, ours and the standard's default are.
        self._allowed = frozenset(request.cur or (exchange.currency, "USD"))
        self._floors: dict[tuple[int, str, str], Floor | None] = {}
        self._asked = {imp.id: row for row, imp in enumerate(request.imps)}

    def verdicts(self, bidder: int, asked: tuple[int, ...], currency: str, bids: tuple[Bid, ...]) -> list[Verdict]:
        """Check the bids of one bidder's reply, in the order sent; `asked` are the impressions it was asked for."""
        money: LossReason | None = None
        to_auction = None
        if currency not in self._allowed:
            money = LossReason.INVALID_BID
        else:
            to_auction = self._rates.ratio(currency, self._exchange.currency)
            if to_auction is None:
                money = LossReason.INTERNAL_ERROR
        seen: set[tuple[str, str]] = set()
        return [self._verdict(bidder, asked, currency, money, to_auction, bid, seen) for bid in bids]

    def _verdict(
        self,
        bidder: int,
        asked: tuple[int, ...],
        currency: str,
        money: LossReason | None,
        to_auction: Ratio | None,
        bid: Bid,
        seen: set[tuple[str, str]],
    ) -> Verdict:
        row = self._asked.get(bid.impid, -1)
        if row not in asked:
            row = -1

        def rejected(reason: LossReason, duplicate: bool = False) -> Verdict:
            return Verdict(bidder, bid, row, currency, reason, duplicate)

        # 1 identity
        if not bid.id or row < 0:
            return rejected(LossReason.INVALID_BID)
        identity = (bid.seat, bid.id)
        if identity in seen:
            return rejected(LossReason.INVALID_BID, duplicate=True)
        seen.add(identity)

        # 2 price and currency
        amount = bid.price
        if amount is None:
            return rejected(LossReason.MISSING_PRICE)
        if not isfinite(amount) or copysign(1.0, amount) < 0:
            return rejected(LossReason.INVALID_BID)
        price = price_micros(amount)
        if price == 0 and not bid.dealid:
            return rejected(LossReason.INVALID_BID)
        if money is not None:
            return rejected(money)
        if price is None:
            return rejected(LossReason.INVALID_BID)
        assert to_auction is not None
        ranked = to_auction.down(price)
        exchange = self._exchange
        if ranked > LIMIT or (exchange.max_cpm is not None and ranked > exchange.max_cpm):
            return rejected(LossReason.INVALID_BID)

        # 4 deal
        imp = self._request.imps[row]
        deal = None
        at = self._request.at
        if bid.dealid:
            deal = imp.deals.get(bid.dealid)
            if deal is None:
                return rejected(LossReason.INVALID_DEAL)
            if deal.wseat and bid.seat not in deal.wseat:
                return rejected(LossReason.SEAT_BLOCKED)
            at = deal.at or at
        elif imp.private_auction:
            return rejected(LossReason.INVALID_DEAL)

        # 7 floor: found here, compared by the kernel
        key = (row, bid.dealid, currency)
        if key in self._floors:
            floor = self._floors[key]
        else:
            floor = governing(imp, deal, currency, exchange.currency, exchange.min_price, self._rates)
            self._floors[key] = floor
        if floor is None:
            return rejected(LossReason.INTERNAL_ERROR)
        if at == AuctionType.FIXED_PRICE:
            # The agreed price is the floor the buyer was told, whatever it bid above; it ranks by that.
            ranked = to_auction.down(floor.told)
            if ranked > LIMIT:
                return rejected(LossReason.INTERNAL_ERROR)
        return Verdict(bidder, bid, row, currency, None, False, deal, price, ranked, at, floor)

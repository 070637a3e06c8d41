# What is wrong with a bid: each is accepted, or gets exactly one loss reason. That a reply is refused whole is decided
# before, in auction.py and offers.py.
#
# The checks come in one order and the first that fails names the reason, so that a bidder reading its losses fixes the
# first fault first. The floor is the last check; its comparison is the kernel's, everything it needs is found here.

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import msgspec

from auction.core.creatives import CreativeChecks, misses_length, under
from auction.core.floors import Floors
from auction.core.openrtb import replies as wire
from auction.model.auction import Terms, Warning
from auction.model.fx import Scale
from auction.model.money import LIMIT, CpmMicros, price_micros
from auction.model.reasons import LossReason
from auction.model.reply import Bid
from auction.model.request import AUDIO, VIDEO, BidRequest, Deal, Imp
from auction.model.rules import ExchangeRules

# Characters of a bid's id that a warning names it by; an id may be as long as the reply it came in.
ID_CHARS_MAX = 64

_TIMED = (VIDEO, AUDIO)


class Offerer(msgspec.Struct, frozen=True, gc=False):
    """A bidder as its bids are checked: the seats it may bid for (empty: any), its creatives that are not shown."""

    name: str
    seats: frozenset[str]
    blocked_creatives: frozenset[str]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """One bid after the checks. `reason` None: it stands, up to its floor, and has terms.

    `imp` is a row of the request, -1 for none; `dealid` the deal that it counts for, empty for none; `price` micros of
    its reply's currency; `ranked` micros of the auction currency.
    """

    bid: Bid
    imp: int
    dealid: str
    reason: LossReason | None
    duplicate: bool = False
    price: CpmMicros = CpmMicros(0)
    ranked: CpmMicros = CpmMicros(0)
    terms: Terms | None = None


class Checks:
    """The checks of one auction, with what they share between bids: terms found once for all that have the same.

    Per bidder (its row in `groups`) and impression, `raised` is what the exchange's floor rules ask and `open_terms`
    what an open bid in the exchange's currency answers to.
    """

    __slots__ = (
        "_allowed", "_creatives", "_deal_or_open", "_floors", "_groups", "_open", "_raised", "_request", "_rows",
        "_terms", "currency", "highest", "warnings",
    )  # fmt: skip

    def __init__(
        self,
        request: BidRequest,
        exchange: ExchangeRules,
        floors: Floors,
        raised: Sequence[Sequence[int]],
        open_terms: Sequence[Sequence[Terms | None]],
        groups: tuple[int, ...],
    ) -> None:
        self._request = request
        self._open = open_terms
        self._floors = floors
        self._raised = raised
        self._groups = groups
        self._creatives = CreativeChecks(request.blocks, exchange)
        self._deal_or_open = exchange.deal_advertiser == "open"
        self.currency = exchange.currency
        self.highest = LIMIT if exchange.max_cpm is None else min(exchange.max_cpm, LIMIT)
        # OpenRTB 2.6 3.2.1: `cur` lists the currencies allowed; absent, ours and the standard's default are.
        self._allowed = request.cur or (exchange.currency, "USD")
        self._rows = {imp.id: row for row, imp in enumerate(request.imps)}
        self._terms: dict[tuple[int, str, str, int, int, int], Terms | None] = {}
        self.warnings: list[Warning] = []

    def verdicts(
        self, bidder: int, rules: Offerer, asked: tuple[int, ...], currency: str, bids: Sequence[Bid]
    ) -> list[Verdict]:
        """Check the bids of one bidder's reply, in the order sent; `asked` are the impressions it was asked for."""
        seen: set[tuple[str, str]] = set()
        verdicts = []
        for bid in bids:
            imp = self._rows.get(bid.impid, -1)
            if imp not in asked:
                imp = -1
            identity = (bid.seat, bid.id)
            # 1 identity
            if not bid.id or imp < 0:
                verdict = Verdict(bid, imp, bid.dealid, LossReason.INVALID_BID)
            elif identity in seen:
                verdict = Verdict(bid, imp, bid.dealid, LossReason.INVALID_BID, True)
            else:
                seen.add(identity)
                verdict = self._verdict(bidder, rules, bid, imp, currency)
            verdicts.append(verdict)
        return verdicts

    def group(self, bidder: int) -> int:
        """Give the group of bidders that share every floor with this one."""
        return self._groups[bidder]

    def way(self, currency: str) -> Scale | None:
        """Give the way between prices in a currency and the auction's own; None without a rate."""
        return self._floors.way(currency)

    def takes_seat(self, rules: Offerer, seat: str) -> bool:
        """Tell whether a bidder may bid for a seat, and the seat in this auction."""
        request = self._request
        if not seat:  # no seat is on no list, not even on one with an empty name
            return not (rules.seats or request.seats)
        return (
            (not rules.seats or seat in rules.seats)
            and (not request.seats or seat in request.seats)
            and seat not in request.blocked_seats
        )

    def open_terms(self, bidder: int, name: str, row: int, imp: Imp, currency: str) -> Terms | None:
        """Give the terms of an open bid that says no duration; None where there is no way to take one."""
        if currency not in self._allowed:
            return None
        if currency == self.currency:
            return self._open[self._groups[bidder]][row]
        return self._found(bidder, name, row, imp, None, 0, 0, currency)

    def _verdict(self, bidder: int, rules: Offerer, bid: Bid, row: int, currency: str) -> Verdict:
        """Check a bid that has a name and a place."""
        dealid = bid.dealid

        def rejected(reason: LossReason) -> Verdict:
            return Verdict(bid, row, dealid, reason)

        # 2 price and currency
        amount = bid.price
        if amount is None:
            return rejected(LossReason.MISSING_PRICE)
        if not isfinite(amount) or amount < 0 or (amount == 0 and str(amount) == "-0.0"):
            return rejected(LossReason.INVALID_BID)
        price = price_micros(amount)
        if (price == 0 and not dealid) or currency not in self._allowed:
            return rejected(LossReason.INVALID_BID)
        way = self._floors.way(currency)
        if way is None:
            return rejected(LossReason.INTERNAL_ERROR)
        if price is None or way.ranked(price) > self.highest:
            return rejected(LossReason.INVALID_BID)

        # 3 seat
        seat, request = bid.seat, self._request
        if not self.takes_seat(rules, seat):
            return rejected(LossReason.SEAT_BLOCKED)

        # 4 deal
        imp = request.imps[row]
        deal = None
        if dealid:
            deal = imp.deals.get(dealid)
            if deal is None:
                return rejected(LossReason.INVALID_DEAL)
            if deal.seats and (not seat or seat not in deal.seats):
                return rejected(LossReason.SEAT_BLOCKED)
            if deal.advertisers and not _of_deal(bid, deal):
                if not self._deal_or_open:
                    return rejected(LossReason.NOT_IN_DEAL)
                self._tolerate(rules.name, bid, "dealid", f"{dealid[:ID_CHARS_MAX]} is not open to its advertiser")
                deal, dealid = None, ""
                if price == 0:
                    return rejected(LossReason.INVALID_BID)
        if deal is None and imp.private_auction:
            return rejected(LossReason.INVALID_DEAL)

        # 5 creative
        format = wire.mtype(bid.wire) or imp.only

        def tolerate(member: str, text: str) -> None:
            self._tolerate(rules.name, bid, member, text)

        reason = self._creatives.fault(bid, imp, format, rules.blocked_creatives, tolerate)
        if reason is not None:
            return rejected(reason)

        # 6 duration
        seconds = 0
        if format in _TIMED and format in imp.formats:
            length, stated = imp.formats[format].length, wire.duration(bid.wire)
            if length is not None and misses_length(stated, length):
                return rejected(LossReason.CREATIVE_FILTERED)
            seconds = max(0, stated or 0)

        # 7 floor: found here, compared by the kernel
        terms = self._found(bidder, rules.name, row, imp, deal, format if seconds else 0, seconds, currency)
        if terms is None:
            # A bid that is beyond the limit only once weighed is at fault itself; a floor without a rate is our fault.
            weighed = self._floors.way(currency, self._floors.weight(rules.name, dealid or None, imp))
            beyond = weighed is not None and weighed.ranked(price) > LIMIT
            return rejected(LossReason.INVALID_BID if beyond else LossReason.INTERNAL_ERROR)
        # At 3 a bid ranks by what was agreed, whatever it bid above.
        ranked = terms.scale.ranked(price) if terms.agreed < 0 else terms.agreed
        if ranked > LIMIT:
            return rejected(LossReason.INVALID_BID)
        return Verdict(bid, row, dealid, None, False, price, ranked, terms)

    def _found(
        self,
        bidder: int,
        name: str,
        row: int,
        imp: Imp,
        deal: Deal | None,
        format: int,
        seconds: int,
        currency: str,
    ) -> Terms | None:
        group = self._groups[bidder]
        if deal is None and not seconds and currency == self.currency:
            return self._open[group][row]
        key = (row, "" if deal is None else deal.id, currency, group, format, seconds)
        if key in self._terms:
            return self._terms[key]
        at = deal.at if deal is not None and deal.at else self._request.at
        raised = self._raised[group][row] if self._raised else 0
        terms = self._floors.terms(imp, deal, at, format, seconds, currency, name, raised)
        self._terms[key] = terms
        return terms

    def _tolerate(self, bidder: str, bid: Bid, member: str, text: str) -> None:
        self.warnings.append(Warning(f"{bidder}.bid[{bid.id[:ID_CHARS_MAX]}].{member}", text))


def _of_deal(bid: Bid, deal: Deal) -> bool:
    """Tell whether a deal is open to an advertiser: every domain that a bid names is, and it names one."""
    domains = wire.adomain(bid.wire)
    return bool(domains) and all(under(one, deal.advertisers) for one in domains)

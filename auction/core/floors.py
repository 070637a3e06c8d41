# Which floor applies to a bid, where it is compared, and what bidders are told of it.
#
# A bid on a deal answers to the deal's floor if the deal states one (an explicit 0 does), otherwise to its format's,
# otherwise to the impression's: the order that OpenRTB gives buyers (2.6, implementation guide 7.11), and a deal's
# floor is never raised to the impression's. The exchange's own rules may raise what is asked of open bids, and
# `min_price` what is asked of any.
#
# It is compared in the bid's own currency, with the price as the bidder sent it, because that is where the bidder can
# check it: the floor comes over in one exact step, UP. What a view tells is made by the same steps from the same
# numbers, so that what bidders are told is what will be enforced.

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from auction.core import adjustments
from auction.core.adjustments import Weighing
from auction.core.floor_rules import FloorTable, Model, Values
from auction.model.auction import Terms
from auction.model.fx import NEUTRAL, Rates, Scale, Weight, scale, told
from auction.model.money import LIMIT, CpmMicros
from auction.model.reasons import AuctionType
from auction.model.request import Audience, BidRequest, Deal, Imp, Timed, Told, Whose

_FIXED_PRICE = int(AuctionType.FIXED_PRICE)  # comparing with the enum costs as much as a lookup
_MEDIA = {1: "banner", 2: "video", 3: "audio", 4: "native"}
_NOTHING, _NOT_AGREED = CpmMicros(0), CpmMicros(-1)


class Floors(msgspec.Struct, frozen=True):
    """The floors of one version of the rules.

    `ways` has the way of each currency with a rate, unweighed, and `weighed` that of the auction's own currency for
    each weight: what nearly every bid takes, made once.
    """

    currency: str
    min_price: CpmMicros
    rates: Rates
    table: FloorTable
    weighings: tuple[Weighing, ...]
    ways: dict[str, Scale]
    weighed: dict[Weight, Scale]

    def weight(self, bidder: str, deal: str | None, imp: Imp) -> Weight:
        """Give how a bidder's bids are weighed, on a deal or in the open (None)."""
        return adjustments.weight(self.weighings, bidder, deal, imp.only) if self.weighings else NEUTRAL

    def raised(self, auction: str, request: BidRequest, audience: Audience, bidders: Sequence[str]) -> list[list[int]]:
        """Give what the exchange's rules ask of each bidder for each impression, 0 for nothing: a list per bidder."""
        table, named = self.table, self.table.bidders
        model = table.model(auction)
        if model is None:
            return []
        # Whom no rule names is asked what nobody's name would be.
        common = _asked(table, model, request, audience, "")
        return [_asked(table, model, request, audience, name) if name in named else common for name in bidders]

    def open_terms(self, request: BidRequest, bidder: str, raised: Sequence[int]) -> list[Terms | None]:
        """Give, per impression, the terms of open bids in the auction's own currency that say no duration.

        `raised` is what the exchange's rules ask of the bidder for each impression, empty for nothing.
        """
        return [
            self._open_terms(imp, bidder, raised[row] if raised else 0, request.at)
            for row, imp in enumerate(request.imps)
        ]

    def _open_terms(self, imp: Imp, bidder: str, raised: int, at: int) -> Terms | None:
        if imp.currency != self.currency:
            return self.terms(imp, None, at, 0, 0, self.currency, bidder, raised)
        # What `terms` gives, in one go: nearly every bid answers to this.
        weight = adjustments.weight(self.weighings, bidder, None, imp.only) if self.weighings else NEUTRAL
        asked = max(imp.floor, CpmMicros(raised))
        most = max(asked, self.min_price)
        floor = most if weight is NEUTRAL else self._weighed(most, weight)
        return Terms(at, False, False, floor, _NOTHING, most, asked, self.weighed[weight], _NOT_AGREED)

    def terms(
        self,
        imp: Imp,
        deal: Deal | None,
        at: int,
        format: int,
        seconds: int,
        currency: str,
        bidder: str,
        raised: int,
    ) -> Terms | None:
        """Give the terms of a bid in `currency`; None for want of a rate, or above the limit of amounts.

        `format` 0 is unknown, `seconds` 0 where there is no duration; `raised` is what the exchange's rules ask.
        """
        weight = self.weight(bidder, None if deal is None else deal.id, imp)
        way = self.way(currency, weight)
        # An agreed price is what buyer and publisher shook hands on: no weight comes between.
        asks = NEUTRAL if at == _FIXED_PRICE else weight
        amount, rate, source, of_deal = _governing(imp, deal, format, seconds)
        if source == currency == self.currency and rate is None and way is not None:
            # Most floors have no way to go: what was stated, or asked for by us, is what is seen, but for a weight.
            asked = amount if of_deal or raised < amount else CpmMicros(raised)
            most = max(asked, self.min_price)
            floor, of_it = most, asked
            if asks is not NEUTRAL:
                floor, of_it = self._weighed(most, asks), self._weighed(asked, asks)
            agreed = way.ranked(floor) if at == _FIXED_PRICE else _NOT_AGREED
            if agreed > LIMIT:
                return None
            return Terms(at, deal is not None, of_deal, floor, of_it if of_deal else _NOTHING, most, asked, way, agreed)

        def seen(amount: CpmMicros, source: str) -> CpmMicros | None:
            return told(amount, source, currency, self.currency, asks, self.rates)

        stated = self._here(amount, source)
        converted = seen(amount if rate is None else rate, source)
        if rate is not None:
            # Each second counts here as it is seen there, rounded first: in one currency the two are the same amount.
            converted = None if converted is None else CpmMicros(converted * seconds)
            each = self._here(rate, source)
            stated = None if each is None or each * seconds > LIMIT else CpmMicros(each * seconds)
        least, over = seen(self.min_price, self.currency), _NOTHING
        if raised and not of_deal:
            over = seen(CpmMicros(raised), self.currency) or over
        if way is None or converted is None or stated is None or least is None:
            return None
        floor = converted
        if over:
            floor, stated = max(floor, over), max(stated, CpmMicros(raised))
            if rate is not None:
                # Beside a rate the rule is told as the impression's own floor, which therefore binds there.
                beside, here = seen(imp.floor, imp.currency), self._here(imp.floor, imp.currency)
                if beside is None or here is None:
                    return None
                floor, stated = max(floor, beside), max(stated, here)
        deal_told = floor if of_deal else _NOTHING
        floor, counted = max(floor, least), max(stated, self.min_price)
        agreed = way.ranked(floor) if at == _FIXED_PRICE else _NOT_AGREED
        if agreed > LIMIT:
            return None
        return Terms(at, deal is not None, of_deal, floor, deal_told, counted, stated, way, agreed)

    def way(self, currency: str, weight: Weight = NEUTRAL) -> Scale | None:
        """Give the way between a bid's prices and the auction's; None without a rate."""
        if weight is NEUTRAL:
            return self.ways.get(currency)
        if currency == self.currency:
            return self.weighed[weight]
        return scale(self.rates, currency, self.currency, weight)

    def _weighed(self, amount: CpmMicros, weight: Weight) -> CpmMicros:
        """Bring a floor in the auction's own currency to where a weighed bidder sees it."""
        floor = told(amount, self.currency, self.currency, self.currency, weight, self.rates)
        assert floor is not None
        return floor

    def _here(self, amount: CpmMicros, source: str) -> CpmMicros | None:
        """Bring a floor to the auction currency, UP; None without a rate, or above the limit of amounts."""
        here = told(amount, source, self.currency, self.currency, NEUTRAL, self.rates)
        return None if here is None or here > LIMIT else here

    def told(
        self,
        request: BidRequest,
        bidder: str,
        wanted: str | None,
        raised: Sequence[int],
        open_terms: Sequence[Terms | None],
    ) -> dict[Whose, Told]:
        """Give every floor that a bidder is told otherwise than the request has it; `wanted` is its own currency.

        `raised` and `open_terms` are as above, for this bidder.
        """
        floors: dict[Whose, Told] = {}
        changes = wanted is not None or self.min_price or self.weighings or any(raised)
        for row, imp in enumerate(request.imps):
            if changes or imp.fine:
                self._tell(floors, row, imp, bidder, wanted, raised[row] if raised else 0, request.at, open_terms[row])
        return floors

    def _tell(
        self,
        floors: dict[Whose, Told],
        row: int,
        imp: Imp,
        bidder: str,
        wanted: str | None,
        raised: int,
        at: int,
        open_terms: Terms | None,
    ) -> None:
        weight = self.weight(bidder, None, imp)
        timed = {}
        for number, format in imp.formats.items():
            if format.timed is not None:
                timed[number] = format.timed
        here = self.currency if wanted is None else wanted
        if here == imp.currency == self.currency:
            assert open_terms is not None
            # In one currency, what an open bid is told is what it will answer to.
            same = open_terms.told == imp.floor and not imp.fine
            open_floor = None if same else Told(self.currency, open_terms.told)
        else:
            held = Held(imp.floor, imp.currency, None, imp.fine)
            open_floor = self._seen(held, wanted, weight, raised, may_change=not timed)
        if open_floor is not None:
            floors[row,] = open_floor
        shown = imp.currency if open_floor is None else open_floor.currency
        for number, by_duration in timed.items():
            rows = self._seen(Held(None, imp.currency, by_duration, imp.fine), shown, weight, raised)
            if rows is not None:
                floors[row, number] = rows
        for deal in imp.deals.values():
            asks = NEUTRAL if (deal.at or at) == _FIXED_PRICE else self.weight(bidder, deal.id, imp)
            own: Told | None = None
            if deal.floor is not None and deal.timed is None and here == deal.currency == self.currency:
                own = self._plainly(deal, asks)
            elif deal.floor is not None or deal.timed is not None:
                own = self._seen(Held(deal.floor, deal.currency, deal.timed, deal.fine), wanted, asks, 0)
                if deal.floor is None and asks != weight:
                    # Bids that say no duration answer to the impression's floor, by another weight than is told there.
                    shown_in = deal.currency if own is None else own.currency
                    plain = self._seen(Held(imp.floor, imp.currency, None, True), shown_in, asks, raised)
                    if plain is not None and plain.currency == shown_in:
                        own = msgspec.structs.replace(own or Told(shown_in), floor=plain.floor)
            elif asks != weight:
                # It answers to the impression's floor by another weight than the one that is told there.
                first = next(iter(timed.values()), None)
                own = self._seen(Held(imp.floor, imp.currency, first, True), wanted, asks, raised)
                if own is not None and first is not None:
                    ranges = tuple((least, most) for least, most, _ in first.rows)
                    own = msgspec.structs.replace(own, ranges=ranges)
            if own is not None:
                floors[row, -1, deal.place] = own

    def _plainly(self, deal: Deal, weight: Weight) -> Told | None:
        """Bring a deal's floor in the auction's own currency to where its bidder sees it; None where it stands so."""
        assert deal.floor is not None
        most = max(deal.floor, self.min_price)
        if weight is not NEUTRAL:
            most = self._weighed(most, weight)
        return Told(self.currency, most) if most != deal.floor or deal.fine else None

    def _seen(
        self, held: Held, wanted: str | None, weight: Weight, raised: int, may_change: bool = False
    ) -> Told | None:
        """Bring the floors of one object to where a bidder sees them; None where that is how they stand already.

        `may_change`: where there is no floor, and what is asked has no rate to its currency, it may be told in ours.
        """
        source = held.currency
        currency = source if wanted is None or self.rates.ratio(source, wanted) is None else wanted

        def over(currency: str) -> CpmMicros | None:
            asked = [told(CpmMicros(amount), self.currency, currency, self.currency, weight, self.rates)
                     for amount in (raised, self.min_price)]  # fmt: skip
            return None if None in asked else max(filter(None, asked), default=_NOTHING)

        least = over(currency)
        if least is None and may_change and not held.floor:
            currency, least = self.currency, over(self.currency)

        def seen(amount: CpmMicros) -> CpmMicros | None:
            return told(amount, source, currency, self.currency, weight, self.rates)

        floor = None if held.floor is None else seen(held.floor)
        seen_rows = () if held.timed is None else tuple(seen(row[2]) for row in held.timed.rows)
        rate = None if held.timed is None or held.timed.rate is None else seen(held.timed.rate)
        if least is None or None in seen_rows or (floor is None and held.floor is not None):
            return None  # every bid under it fails for want of a rate, whatever is told
        if floor is not None:
            floor = max(floor, least)
        rows = tuple(max(row, least) for row in seen_rows if row is not None)
        before = () if held.timed is None else tuple(row[2] for row in held.timed.rows)
        same = floor == held.floor and rows == before and (held.timed is None or rate == held.timed.rate)
        return None if same and currency == source and not held.fine else Told(currency, floor, rows, rate)


class Held(msgspec.Struct, frozen=True, gc=False):
    """The floors that stand in one object of a request, in its currency; `floor` None: it states none."""

    floor: CpmMicros | None
    currency: str
    timed: Timed | None
    fine: bool


def floors(
    currency: str, min_price: CpmMicros, rates: Rates, table: FloorTable, weighings: tuple[Weighing, ...]
) -> Floors:
    """Make the floors of one version of the rules."""
    ways = ((code, scale(rates, code, currency, NEUTRAL)) for code in (currency, *rates.per_usd))
    return Floors(
        currency,
        min_price,
        rates,
        table,
        weighings,
        {code: way for code, way in ways if way is not None},
        dict(_weighed(rates, currency, (NEUTRAL, *(weighing.weight for weighing in weighings)))),
    )


def _weighed(rates: Rates, currency: str, weights: Iterable[Weight]) -> Iterable[tuple[Weight, Scale]]:
    for weight in weights:
        way = scale(rates, currency, currency, weight)
        assert way is not None
        yield weight, way


def _governing(imp: Imp, deal: Deal | None, format: int, seconds: int) -> tuple[CpmMicros, CpmMicros | None, str, bool]:
    """Find a bid's floor: an amount, or a rate per second instead; its currency; whether the deal states it."""
    if deal is not None:
        if seconds and deal.timed is not None:
            row = deal.timed.row(seconds)
            if row is not None or deal.timed.rate is not None:
                return row or _NOTHING, deal.timed.rate if row is None else None, deal.currency, True
        if deal.floor is not None:
            return deal.floor, None, deal.currency, True
    timed = imp.formats[format].timed if format in imp.formats else None
    if seconds and timed is not None:
        row = timed.row(seconds)
        if row is not None or timed.rate is not None:
            return row or _NOTHING, timed.rate if row is None else None, imp.currency, False
    return imp.floor, None, imp.currency, False


def _asked(table: FloorTable, model: Model, request: BidRequest, audience: Audience, bidder: str) -> list[int]:
    return [table.floor(model, _values(imp, audience, bidder)) for imp in request.imps]


def _values(imp: Imp, audience: Audience, bidder: str) -> Values:
    """Give an impression's values for floor rules; a format or size only where it has exactly one."""
    media_type = _MEDIA.get(imp.only, "")
    return (media_type, imp.size, audience.domain, imp.tagid, audience.country, audience.device_type, bidder)

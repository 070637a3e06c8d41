# From the rows of all bids to their outcomes: the kernel settles them, and rows become nouns.
#
# The kernel is called once, and once more with ranks where two prices tie: ranks are dear and ties are few.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from auction.core.kernels.clear import (
    CLEARING_PRICE,
    COLUMNS,
    DEALS_FIRST,
    FLOOR,
    IMP,
    MIN_TO_WIN,
    PRICE,
    RANK,
    RANKED,
    REASON,
    RESULTS,
    SAME_COMPETITOR_SETS_PRICE,
    SETTER,
    SETTLEMENTS,
    TABLE_MIN_TO_WIN,
    WINNER,
    clear,
)
from auction.core.kernels.fold import fold
from auction.core.kernels.sieve import ID, ID_BYTES, PLACE_CELLS, SEAT, SEAT_BYTES
from auction.core.offers import Offers
from auction.model.auction import Outcome, Terms
from auction.model.draws import mix64
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason, PriceSetter
from auction.model.request import BidRequest
from auction.model.rules import ExchangeRules

_SIGN = 2**63  # unsigned rank r as r - 2**63: int64 order is then the order of ranks


class Market(msgspec.Struct, frozen=True, gc=False):
    """What clearing takes from the rules; `order` has each bidder's place in the byte order of names.

    `soft_floor` is -1 for none, as the kernel has it.
    """

    tie_key: str
    increment: CpmMicros
    soft_floor: int
    switches: int
    order: tuple[int, ...]


def market(exchange: ExchangeRules, increment: CpmMicros, names: Sequence[str]) -> Market:
    """Take from the rules what clearing needs."""
    order = {name: place for place, name in enumerate(sorted(names, key=str.encode))}
    return Market(
        exchange.tie_key,
        increment,
        -1 if exchange.soft_floor is None else exchange.soft_floor,
        _switches(exchange),
        tuple(order[name] for name in names),
    )


def _switches(exchange: ExchangeRules) -> int:
    return (
        (DEALS_FIRST if exchange.deal_mode == "deals_first" else 0)
        | (SAME_COMPETITOR_SETS_PRICE if exchange.same_seat_sets_price else 0)
        | (TABLE_MIN_TO_WIN if exchange.min_to_win == "table" else 0)
    )


def settle(request: BidRequest, offers: Offers, market: Market) -> tuple[list[Outcome], list[int]]:
    """Settle every impression; give each bid's outcome, in the order of rows, and each impression's winner or -1."""
    columns, m = offers.columns, len(request.imps)
    n = columns.size // COLUMNS
    out = np.empty(n * RESULTS + m * SETTLEMENTS, np.int64)
    ranks_matter = clear(columns, m, market.increment, market.soft_floor, market.switches, out)
    given = columns.tolist()
    if ranks_matter:
        _rank(request, offers, given, market.tie_key)
        clear(columns, m, market.increment, market.soft_floor, market.switches, out)
    cells = out.tolist()
    outcomes: list[Outcome] = []
    imps, data, places, prices = request.imps, offers.data, offers.places, offers.prices
    results = n * RESULTS
    seat, seat_at = "", -1
    for reply in offers.replies:
        name, currency, held = reply.heard.rules.name, reply.heard.currency, reply.held
        for row in range(reply.first, reply.first + reply.count):
            code, at = cells[row * RESULTS + REASON], row * COLUMNS
            if row not in held:
                # As Offers.id and Offers.seat read it, without a call for each bid.
                place = row * PLACE_CELLS
                if places[place + SEAT] != seat_at:
                    seat_at = places[place + SEAT]
                    seat = data[seat_at : seat_at + places[place + SEAT_BYTES]].decode()
                id_at = places[place + ID]
                id = data[id_at : id_at + places[place + ID_BYTES]].decode()
                imp = given[at + IMP]
                impid, deal, terms = imps[imp].id, "", reply.terms[imp]
                price: float | None = prices[row]
            else:
                verdict = held[row]
                bid, seat_at = verdict.bid, -1
                seat, id, impid, deal, price = bid.seat, bid.id, bid.impid, verdict.dealid, bid.price
                terms, imp = verdict.terms, verdict.imp
                if code < 0:
                    assert verdict.reason is not None
                    outcomes.append(
                        Outcome(name, seat, id, imp, impid, deal, price, currency, None, verdict.reason, None, None,
                                None, PriceSetter.NONE)
                    )  # fmt: skip
                    continue
            floor, ranked = given[at + FLOOR], given[at + RANKED]
            # A bid that met its floor in its own currency may rank below it once converted: it counts as the bid then.
            if floor > ranked and code != _BELOW_AUCTION_FLOOR and code != _BELOW_DEAL_FLOOR:
                floor = ranked
            least = CpmMicros(cells[row * RESULTS + MIN_TO_WIN])
            if code == _WON:
                assert terms is not None
                settled = results + imp * SETTLEMENTS
                clearing_price = CpmMicros(cells[settled + CLEARING_PRICE])
                setter = _setter(cells[settled + SETTER], clearing_price, terms)
                pays = _buyer_pays(given[at + PRICE], terms, setter, clearing_price)
                outcomes.append(
                    Outcome(name, seat, id, imp, impid, deal, price, currency, floor, LossReason.WON,
                            None if least < 0 else least, clearing_price, pays, setter)
                )  # fmt: skip
            else:
                outcomes.append(
                    Outcome(name, seat, id, imp, impid, deal, price, currency, floor, _REASONS[code],
                            None if least < 0 else least, None, None, _NO_SETTER)
                )  # fmt: skip
    return outcomes, cells[results + WINNER :: SETTLEMENTS]


_NO_SETTER = PriceSetter.NONE
_REASONS = {int(reason): reason for reason in LossReason}
# Plain integers: comparing with an enum costs as much as a row.
_WON = int(LossReason.WON)
_BELOW_AUCTION_FLOOR, _BELOW_DEAL_FLOOR = int(LossReason.BELOW_AUCTION_FLOOR), int(LossReason.BELOW_DEAL_FLOOR)


def _rank(request: BidRequest, offers: Offers, given: list[int], tie_key: str) -> None:
    """Write the ranks of bids that tie with another on price; hashing is the dearest part of an auction, and few do."""
    prices = list(zip(given[IMP::COLUMNS], given[RANKED::COLUMNS], strict=True))
    # Ids may be as long as the message they stand in and every bid may tie, so what ties share is hashed once.
    begun = fold(request.id, fold(tie_key)) if tie_key else fold(request.id)
    imps: dict[int, int] = {}
    seats: dict[tuple[int, str], int] = {}
    ties = Counter(prices)
    for row, price in enumerate(prices):
        imp = price[0]
        if imp < 0 or ties[price] == 1:
            continue
        seat = offers.seat(row)
        if imp not in imps:
            imps[imp] = fold(request.imps[imp].id, begun)
        if (imp, seat) not in seats:
            seats[imp, seat] = fold(seat, imps[imp])
        offers.columns[row * COLUMNS + RANK] = mix64(fold(offers.id(row), seats[imp, seat])) - _SIGN


def _setter(setter: int, price: int, terms: Terms) -> PriceSetter:
    """Name the part of the floor that made the price, where the kernel could only say that the floor did."""
    if setter != PriceSetter.FLOOR:
        return PriceSetter(setter)
    # The floor counts at most as the bid itself, so a stated floor at or above the price attains it.
    if terms.stated >= price:
        return PriceSetter.DEAL_FLOOR if terms.of_deal else PriceSetter.FLOOR
    return PriceSetter.MIN_PRICE


def _buyer_pays(price: CpmMicros, terms: Terms, setter: PriceSetter, clearing_price: CpmMicros) -> CpmMicros:
    """Give what the buyer is told: micros of its bid's currency, on its own scale; `price` is its bid.

    Its own bid, exactly, when that is the price; its floor or agreed price, exactly, when that is the price; otherwise
    the clearing price converted back, DOWN, never below its floor nor above its bid.
    """
    match setter:
        case PriceSetter.OWN_BID:
            return price
        case PriceSetter.RIVAL | PriceSetter.SOFT_FLOOR:
            return max(terms.told, min(price, terms.scale.returned(clearing_price)))
    return terms.told

# Nouns to columns, one kernel call, columns to nouns.

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from auction.core.floors import Terms
from auction.core.kernels.clear import (
    CLEARING_PRICE,
    COLUMNS,
    DEALS_FIRST,
    MIN_TO_WIN,
    REASON,
    RESULTS,
    SAME_COMPETITOR_SETS_PRICE,
    SETTER,
    SETTLEMENTS,
    TABLE_MIN_TO_WIN,
    WINNER,
    clear,
)
from auction.core.validation import Verdict
from auction.model.auction import Outcome
from auction.model.draws import fold, rank
from auction.model.money import LIMIT, CpmMicros
from auction.model.reasons import LossReason, PriceSetter
from auction.model.request import BidRequest
from auction.model.rules import ExchangeRules

# A floor told in a small currency may be beyond int64; no bid reaches it, since none above the limit gets this far.
_UNREACHABLE = CpmMicros(LIMIT + 1)
_SIGN = 2**63  # unsigned rank r as r - 2**63: int64 order is then the order of ranks


def switches(exchange: ExchangeRules) -> int:
    """Give the kernel's switches for these rules."""
    return (
        (DEALS_FIRST if exchange.deal_mode == "deals_first" else 0)
        | (SAME_COMPETITOR_SETS_PRICE if exchange.same_seat_sets_price else 0)
        | (TABLE_MIN_TO_WIN if exchange.min_to_win == "table" else 0)
    )


class Market(msgspec.Struct, frozen=True, gc=False):
    """What clearing takes from the rules. `names` are the bidders', `order` each one's place in their byte order."""

    by_bidder: bool
    tie_key: str
    increment: CpmMicros
    soft_floor: int
    switches: int
    names: tuple[str, ...]
    order: tuple[int, ...]


def market(exchange: ExchangeRules, increment: CpmMicros, names: Sequence[str]) -> Market:
    """Take from the rules what clearing needs."""
    order = {name: place for place, name in enumerate(sorted(names, key=str.encode))}
    return Market(
        exchange.competitor == "bidder",
        exchange.tie_key,
        increment,
        -1 if exchange.soft_floor is None else exchange.soft_floor,
        switches(exchange),
        tuple(names),
        tuple(order[name] for name in names),
    )


def settle(request: BidRequest, standing: Sequence[Verdict], market: Market) -> tuple[list[Outcome], list[int]]:
    """Settle the bids that stand; give each one's outcome, and per impression the row of its winner (-1: none).

    `standing` are verdicts without a reason.
    """
    n, m = len(standing), len(request.imps)
    columns = fill(request, standing, market)
    out = np.empty(n * RESULTS + m * SETTLEMENTS, np.int64)
    clear(np.frombuffer(columns, np.int64), m, market.increment, market.soft_floor, market.switches, out)
    cells = out.tolist()
    outcomes = []
    for row, verdict in enumerate(standing):
        bid, terms = verdict.bid, verdict.terms
        assert terms is not None
        least, code = CpmMicros(cells[row * RESULTS + MIN_TO_WIN]), cells[row * RESULTS + REASON]
        price, pays, setter = None, None, PriceSetter.NONE
        floor = terms.counted if terms.agreed < 0 else terms.agreed
        if code < _REFUSED or code > _REFUSED_MOST:
            floor = min(floor, verdict.ranked)
        if code == _WON:
            imp = n * RESULTS + verdict.imp * SETTLEMENTS
            price = CpmMicros(cells[imp + CLEARING_PRICE])
            setter = _setter(cells[imp + SETTER], price, terms)
            pays = buyer_pays(verdict, terms, setter, price)
        outcomes.append(
            Outcome(
                bidder=market.names[verdict.bidder],
                seat=bid.seat,
                id=bid.id,
                imp=verdict.imp,
                impid=bid.impid,
                deal=verdict.dealid,
                price=bid.price,
                currency=verdict.currency,
                floor=floor,
                reason=_REASONS[code],
                min_to_win=None if least < 0 else least,
                clearing_price=price,
                pays=pays,
                setter=setter,
            )
        )
    return outcomes, cells[n * RESULTS + WINNER :: SETTLEMENTS]


_REASONS = {int(reason): reason for reason in LossReason}
# Plain integers: comparing with an enum costs as much as a row.
_WON = int(LossReason.WON)
_REFUSED, _REFUSED_MOST = int(LossReason.BELOW_AUCTION_FLOOR), int(LossReason.BELOW_DEAL_FLOOR)


def fill(request: BidRequest, standing: Sequence[Verdict], market: Market) -> array[int]:
    """Write the kernel's columns (kernels/clear.py names them), row by row."""
    competitors: dict[tuple[int, str], int] = {}
    ranks = _ranks(request, standing, market.tie_key)
    cells: list[int] = []
    for row, verdict in enumerate(standing):
        terms = verdict.terms
        assert terms is not None
        bidder = verdict.bidder
        if market.by_bidder:
            competitor = bidder
        else:
            competitor = competitors.setdefault((bidder, verdict.bid.seat), len(competitors))
        told, deal_told = terms.told, terms.deal_told
        cells += (
            verdict.imp,
            competitor,
            verdict.price,
            told if told < _UNREACHABLE else _UNREACHABLE,
            deal_told if deal_told < _UNREACHABLE else _UNREACHABLE,
            verdict.ranked,
            terms.counted if terms.agreed < 0 else terms.agreed,
            terms.at,
            terms.deal,
            ranks[row] if ranks else 0,
            market.order[bidder],
        )
    assert len(cells) == len(standing) * COLUMNS
    return array("q", cells)


def _ranks(request: BidRequest, standing: Sequence[Verdict], tie_key: str) -> list[int] | None:
    """Rank the bids that tie with another on price; hashing is the dearest part of an auction, and few bids tie."""
    prices = [(verdict.imp, verdict.ranked) for verdict in standing]
    if len(set(prices)) == len(prices):
        return None
    # Ids may be as long as the message they stand in and every bid may tie, so what ties share is hashed once.
    begun = fold(tie_key, request.id) if tie_key else fold(request.id)
    imps: dict[int, int] = {}
    seats: dict[tuple[int, str], int] = {}
    ties = Counter(prices)
    ranks = []
    for verdict, price in zip(standing, prices, strict=True):
        if ties[price] == 1:
            ranks.append(0)
            continue
        imp, seat = verdict.imp, verdict.bid.seat
        if imp not in imps:
            imps[imp] = fold(request.imps[imp].id, onto=begun)
        if (imp, seat) not in seats:
            seats[imp, seat] = fold(seat, onto=imps[imp])
        ranks.append(rank(seats[imp, seat], verdict.bid.id) - _SIGN)
    return ranks


def _setter(setter: int, price: int, terms: Terms) -> PriceSetter:
    """Name the part of the floor that made the price, where the kernel could only say that the floor did."""
    if setter != PriceSetter.FLOOR:
        return PriceSetter(setter)
    # The floor counts at most as the bid itself, so a stated floor at or above the price attains it.
    if terms.stated >= price:
        return PriceSetter.DEAL_FLOOR if terms.of_deal else PriceSetter.FLOOR
    return PriceSetter.MIN_PRICE


def buyer_pays(winner: Verdict, terms: Terms, setter: PriceSetter, clearing_price: CpmMicros) -> CpmMicros:
    """Give what the buyer is told: micros of its bid's currency, on its own scale.

    Its own bid, exactly, when that is the price; its floor or agreed price, exactly, when that is the price; otherwise
    the clearing price converted back, DOWN, never below its floor nor above its bid.
    """
    match setter:
        case PriceSetter.OWN_BID:
            return winner.price
        case PriceSetter.RIVAL | PriceSetter.SOFT_FLOOR:
            return max(terms.told, min(winner.price, terms.scale.returned(clearing_price)))
    return terms.told

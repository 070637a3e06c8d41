# Nouns to columns, one kernel call, columns to nouns.

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

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
from auction.model.draws import fold, rank
from auction.model.fx import Rates
from auction.model.money import LIMIT, CpmMicros
from auction.model.reasons import AuctionType, LossReason, PriceSetter
from auction.model.request import BidRequest
from auction.model.rules import ExchangeRules

# A floor told in a small currency may be beyond int64; no bid reaches it, since none above the limit gets this far.
_UNREACHABLE = CpmMicros(LIMIT + 1)
_FIXED_PRICE = int(AuctionType.FIXED_PRICE)  # comparing with the enum costs as much as a row
_SIGN = 2**63  # unsigned rank r as r - 2**63: int64 order is then the order of ranks


class Settled(msgspec.Struct, frozen=True, gc=False):
    """What the kernel said of one bid; amounts are micros of the auction currency. `setter` is NONE but for winners."""

    reason: LossReason
    min_to_win: CpmMicros | None
    clearing_price: CpmMicros | None
    setter: PriceSetter


def switches(exchange: ExchangeRules) -> int:
    """Give the kernel's switches for these rules."""
    return (
        (DEALS_FIRST if exchange.deal_mode == "deals_first" else 0)
        | (SAME_COMPETITOR_SETS_PRICE if exchange.same_seat_sets_price else 0)
        | (TABLE_MIN_TO_WIN if exchange.min_to_win == "table" else 0)
    )


def settle(
    request: BidRequest,
    standing: Sequence[Verdict],
    exchange: ExchangeRules,
    increment: CpmMicros,
    name_order: Sequence[int],
) -> tuple[list[Settled], list[int]]:
    """Settle the bids that stand; give each one's outcome, and per impression the row of its winner (-1: none).

    `standing` are verdicts without a reason; `name_order` gives each bidder its place in the byte order of names.
    """
    columns = fill(request, standing, exchange, name_order)
    n, m = len(standing), len(request.imps)
    out = np.empty(n * RESULTS + m * SETTLEMENTS, np.int64)
    clear(np.frombuffer(columns, np.int64), m, increment, switches(exchange), out)
    cells = out.tolist()
    winners = cells[n * RESULTS + WINNER :: SETTLEMENTS]
    settled = []
    for row in range(n):
        least = cells[row * RESULTS + MIN_TO_WIN]
        min_to_win = None if least < 0 else CpmMicros(least)
        reason = _REASONS[cells[row * RESULTS + REASON]]
        if reason is LossReason.WON:
            imp = n * RESULTS + standing[row].imp * SETTLEMENTS
            price = CpmMicros(cells[imp + CLEARING_PRICE])
            setter = _setter(cells[imp + SETTER], price, standing[row], exchange.min_price)
            settled.append(Settled(reason, min_to_win, price, setter))
        else:
            settled.append(Settled(reason, min_to_win, None, PriceSetter.NONE))
    return settled, winners


_REASONS = {int(reason): reason for reason in LossReason}


def fill(
    request: BidRequest, standing: Sequence[Verdict], exchange: ExchangeRules, name_order: Sequence[int]
) -> array[int]:
    """Write the kernel's columns (kernels/clear.py names them), row by row."""
    by_bidder = exchange.competitor == "bidder"
    competitors: dict[tuple[int, str], int] = {}
    ranks = _ranks(request, standing, exchange.tie_key)
    cells: list[int] = []
    for row, verdict in enumerate(standing):
        floor = verdict.floor
        assert floor is not None
        bidder = verdict.bidder
        competitor = bidder if by_bidder else competitors.setdefault((bidder, verdict.bid.seat), len(competitors))
        told, deal_told = floor.told, floor.deal_told
        cells += (
            verdict.imp,
            competitor,
            verdict.price,
            told if told < _UNREACHABLE else _UNREACHABLE,
            deal_told if deal_told < _UNREACHABLE else _UNREACHABLE,
            verdict.ranked,
            verdict.ranked if verdict.at == _FIXED_PRICE else floor.counted,
            verdict.at,
            verdict.deal is not None,
            ranks[row] if ranks else 0,
            name_order[bidder],
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


def _setter(setter: int, price: int, winner: Verdict, min_price: CpmMicros) -> PriceSetter:
    """Name the part of the floor that made the price, where the kernel could only say that the floor did."""
    if setter != PriceSetter.FLOOR:
        return PriceSetter(setter)
    floor = winner.floor
    assert floor is not None
    # The floor counts at most as the bid itself, so a stated floor at or above the price attains it.
    if floor.stated >= price:
        return PriceSetter.DEAL_FLOOR if floor.of_deal else PriceSetter.FLOOR
    return PriceSetter.MIN_PRICE


def buyer_pays(winner: Verdict, settled: Settled, exchange: ExchangeRules, rates: Rates) -> CpmMicros:
    """Give what the buyer is told: micros of its bid's currency.

    Its own bid, exactly, when that is the price; its floor or agreed price, exactly, when that is the price; otherwise
    the clearing price converted back, DOWN, never below its floor.
    """
    floor = winner.floor
    assert floor is not None
    assert settled.clearing_price is not None
    match settled.setter:
        case PriceSetter.OWN_BID:
            return winner.price
        case PriceSetter.AGREED | PriceSetter.DEAL_FLOOR | PriceSetter.FLOOR | PriceSetter.MIN_PRICE:
            return floor.told
    back = rates.ratio(exchange.currency, winner.currency)
    assert back is not None
    return max(back.down(settled.clearing_price), floor.told)

# One impression settled: who wins, at what price, and what the others learn.

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .reasons import BEHIND_DEAL, OUTBID, WON
from .rules import Exchange


@dataclass
class Row:
    """A bid that came as far as its floor, in micros of the auction currency.

    `price` is what it ranks with, `floor` what it has to reach there; `refused` is 0, or 100 or 101. `own_floor` (its
    deal's or the open one) and `min_price` are the two things its floor is made of.
    """

    price: int
    floor: int
    at: int
    deal: bool
    competitor: Hashable
    rank: int
    name: bytes
    refused: int = 0
    own_floor: int = 0
    own_floor_is_deals: bool = False
    min_price: int = 0


@dataclass
class Verdict:
    """What becomes of a Row. `clearing` and `rival` are a winner's; rival None: there was none."""

    reason: int
    clearing: int | None = None
    rival: int | None = None
    min_to_win: int | None = None


def settle(rows: Sequence[Row], exchange: Exchange) -> list[Verdict]:
    """Give every bid of one impression its verdict, in the order given.

    All accepted bids rank together by price, then by lowest rank, then by the bidder's name; or, deals first, every
    deal stands before every open bid. The first wins. A loser was outbid, or stands behind a deal by that setting
    alone.
    """
    accepted = sorted((row for row in rows if not row.refused), key=lambda row: place(row, exchange))
    if not accepted:
        return [Verdict(row.refused, min_to_win=row.floor) for row in rows]
    winner = accepted[0]
    behind_deals = exchange.deal_mode == "deals_first" and winner.deal
    rival = best_rival(winner, accepted, exchange)
    clearing = clearing_price(winner, rival, exchange)
    verdicts = []
    for row in rows:
        if row is winner:
            least = winner.floor if rival is None else max(winner.floor, rival)
            verdicts.append(Verdict(WON, clearing, rival, least))
            continue
        reason = row.refused or (BEHIND_DEAL if behind_deals and not row.deal else OUTBID)
        verdicts.append(Verdict(reason, min_to_win=price_to_win(row, winner, clearing, exchange)))
    return verdicts


def place(row: Row, exchange: Exchange) -> tuple[bool, int, int, bytes]:
    """Sort best first. Names are compared byte by byte."""
    return (exchange.deal_mode == "deals_first" and not row.deal, -row.price, row.rank, row.name)


def best_rival(winner: Row, accepted: Sequence[Row], exchange: Exchange) -> int | None:
    """A rival is an accepted bid of another competitor, or of the same where the own seat sets prices too; with deals
    first only deals are rivals of a deal."""
    rivals = [
        row.price
        for row in accepted
        if row is not winner
        and (row.competitor != winner.competitor or exchange.same_seat_sets_price)
        and not (exchange.deal_mode == "deals_first" and winner.deal and not row.deal)
    ]
    return max(rivals, default=None)


def clearing_price(winner: Row, rival: int | None, exchange: Exchange) -> int:
    """At 1 the winner pays its bid; at 3 the agreed price, which is its price here; at 2 what the best rival offered
    and one increment, at least its floor, at most its bid; without a rival its floor, without increment.

    At 2 an open bid below the soft floor pays itself; another at least the soft floor.
    """
    if winner.at in (1, 3):
        return winner.price
    usual = winner.floor if rival is None else min(winner.price, max(winner.floor, rival + exchange.increment))
    if exchange.soft_floor is None or winner.deal:
        return usual
    return winner.price if winner.price < exchange.soft_floor else max(usual, exchange.soft_floor)


def price_to_win(row: Row, winner: Row, clearing: int, exchange: Exchange) -> int | None:
    """A loser learns the price to beat: the winner's ranked price, or its clearing price where the table is followed.
    One refused for its floor learns the greater of that and its floor. No price would have helped an open bid behind
    a deal, nor one at 3 whose agreed price loses."""
    if exchange.deal_mode == "deals_first" and winner.deal and not row.deal:
        return None
    if row.at == 3 and place(winner, exchange) < place(row, exchange):
        return None
    to_beat = clearing if exchange.min_to_win == "table" else winner.price
    return max(to_beat, row.floor) if row.refused else to_beat


def price_setter(row: Row, verdict: Verdict, exchange: Exchange) -> str:
    """At 1 the own bid, at 3 the agreed price; the own bid where it caps the price or is below the soft floor; else the
    first of the rival, the deal's floor or the open one, min_price and the soft floor, that attains the price. A floor
    counts as at most the bid."""
    if row.at == 1:
        return "own_bid"
    if row.at == 3:
        return "agreed"
    if exchange.soft_floor is not None and not row.deal and row.price < exchange.soft_floor:
        return "own_bid"
    if verdict.rival is not None:
        beaten = verdict.rival + exchange.increment
        if row.price < max(row.floor, beaten):
            return "own_bid"
        if verdict.clearing == beaten:
            return "rival"
    if verdict.clearing == min(row.own_floor, row.price):
        return "deal_floor" if row.own_floor_is_deals else "floor"
    if verdict.clearing == min(row.min_price, row.price):
        return "min_price"
    assert verdict.clearing == exchange.soft_floor
    return "soft_floor"

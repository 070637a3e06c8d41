# Settles every impression of one auction in one call: who wins, at what price, why the rest lost, what would have won.
#
# One packed array in and one out, because a call from Python costs per array argument more than the whole loop does.
# Rows are walked three times instead of being sorted: an auction has tens of bids, and the passes need no memory but
# four numbers an impression, which come back with it. There is no allocation here, no exception and no float.

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from auction.model.reasons import LossReason, PriceSetter

# Columns of a bid. A row is a bid that passed every check but its floor, or one that did not and only has its IMP.
IMP: Final = 0  # row of its impression, in [0, m); -1 for a bid that takes no part
COMPETITOR: Final = 1  # equal for bids that do not set each other's price
PRICE: Final = 2  # micros as sent, in the bid's currency
TOLD_FLOOR: Final = 3  # what PRICE is compared with, same currency
DEAL_FLOOR: Final = 4  # the part of TOLD_FLOOR that the deal itself states, 0 for none
RANKED: Final = 5  # micros of the auction currency by which bids rank; the agreed price where AT is 3
FLOOR: Final = 6  # micros of the auction currency; the agreed price where AT is 3
AT: Final = 7  # 1 own bid, 2 second price plus, 3 agreed price
DEAL: Final = 8  # 1 for a bid on a deal, else 0
RANK: Final = 9  # where prices tie the lower wins; unsigned rank - 2**63, so that signed order is its order
BIDDER: Final = 10  # where ranks tie too: place of the bidder's name in byte order
COLUMNS: Final = 11

# What comes back of a bid, and then of an impression.
REASON: Final = 0  # LossReason; -1 for a row that takes no part
MIN_TO_WIN: Final = 1  # micros of the auction currency, -1 for none
RESULTS: Final = 2
WINNER: Final = 0  # row of the winning bid, -1 for none
CLEARING_PRICE: Final = 1  # micros of the auction currency; floor <= price <= the winner's RANKED
SETTER: Final = 2  # PriceSetter: OWN_BID, AGREED, RIVAL, SOFT_FLOOR, or FLOOR for any part of the floor
RIVAL: Final = 3  # best price among those that may set the winner's, -1 for none
SETTLEMENTS: Final = 4

# Switches, or-ed together.
DEALS_FIRST: Final = 1
SAME_COMPETITOR_SETS_PRICE: Final = 2
TABLE_MIN_TO_WIN: Final = 4

# Plain integers, since a kernel holds no object.
_WON: Final = int(LossReason.WON)
_BELOW_AUCTION_FLOOR: Final = int(LossReason.BELOW_AUCTION_FLOOR)
_BELOW_DEAL_FLOOR: Final = int(LossReason.BELOW_DEAL_FLOOR)
_LOST: Final = int(LossReason.LOST_TO_HIGHER_BID)
_LOST_TO_DEAL: Final = int(LossReason.LOST_TO_DEAL)
_OWN_BID: Final = int(PriceSetter.OWN_BID)
_AGREED: Final = int(PriceSetter.AGREED)
_RIVAL: Final = int(PriceSetter.RIVAL)
_FLOOR: Final = int(PriceSetter.FLOOR)
_SOFT_FLOOR: Final = int(PriceSetter.SOFT_FLOOR)


@njit("boolean(int64[::1], int64, int64, int64)", cache=True, inline="always")
def _beats(bids: NDArray[np.int64], a: int, b: int, switches: int) -> bool:  # pragma: no cover
    """Tell whether row offset `a` ranks before row offset `b`; total, since no two bids share all four keys."""
    if switches & DEALS_FIRST and bids[a + DEAL] != bids[b + DEAL]:
        return bool(bids[a + DEAL] > bids[b + DEAL])
    if bids[a + RANKED] != bids[b + RANKED]:
        return bool(bids[a + RANKED] > bids[b + RANKED])
    if bids[a + RANK] != bids[b + RANK]:
        return bool(bids[a + RANK] < bids[b + RANK])
    return bool(bids[a + BIDDER] < bids[b + BIDDER])


@njit("boolean(int64[::1], int64, int64, int64, int64, int64[::1])", cache=True)
def clear(
    bids: NDArray[np.int64], imps: int, increment: int, soft_floor: int, switches: int, out: NDArray[np.int64]
) -> bool:
    """Settle every impression of one auction; tell whether a RANK was looked at.

    Ranks are dear and few prices tie, so a caller may leave them 0, and fill them in and call again if they mattered.

        bids       (n * COLUMNS,) int64    row by row, columns as named above
        imps       m >= 0
        increment  micros of the auction currency, >= 0
        soft_floor micros of the auction currency, -1 for none; for open bids at 2 only
        switches   DEALS_FIRST | SAME_COMPETITOR_SETS_PRICE | TABLE_MIN_TO_WIN
    out            (n * RESULTS + m * SETTLEMENTS,) int64   bids first, then impressions; need not be cleared

    Equal prices go to the lower RANK, then BIDDER, so the order of rows does not matter. No sum here can overflow: the
    increment is compared with a difference of two prices before it is added.

    Source: OpenRTB 2.6 section 4.4.1 (second price plus) and `at`.
    """
    tied = False
    n = bids.size // COLUMNS
    settled = n * RESULTS
    for j in range(imps):
        out[settled + j * SETTLEMENTS + WINNER] = -1
        out[settled + j * SETTLEMENTS + RIVAL] = -1

    for i in range(n):  # who stands, and who ranks first
        row = i * COLUMNS
        price = bids[row + PRICE]
        if bids[row + IMP] < 0:
            out[i * RESULTS + REASON] = -1
        elif price < bids[row + DEAL_FLOOR]:
            out[i * RESULTS + REASON] = _BELOW_DEAL_FLOOR
        elif price < bids[row + TOLD_FLOOR]:
            out[i * RESULTS + REASON] = _BELOW_AUCTION_FLOOR
        else:
            out[i * RESULTS + REASON] = _LOST
            best = settled + bids[row + IMP] * SETTLEMENTS + WINNER
            if out[best] < 0:
                out[best] = i
            else:
                tied = tied or bids[row + RANKED] == bids[out[best] * COLUMNS + RANKED]
                if _beats(bids, row, out[best] * COLUMNS, switches):
                    out[best] = i

    for i in range(n):  # the best price of another competitor
        row = i * COLUMNS
        imp = settled + bids[row + IMP] * SETTLEMENTS
        if out[i * RESULTS + REASON] != _LOST or out[imp + WINNER] == i:
            continue
        winner = out[imp + WINNER] * COLUMNS
        if bids[row + COMPETITOR] == bids[winner + COMPETITOR] and not switches & SAME_COMPETITOR_SETS_PRICE:
            continue
        if switches & DEALS_FIRST and bids[winner + DEAL] and not bids[row + DEAL]:
            continue
        out[imp + RIVAL] = max(out[imp + RIVAL], bids[row + RANKED])

    for j in range(imps):  # what each winner is charged
        imp = settled + j * SETTLEMENTS
        if out[imp + WINNER] < 0:
            out[imp + CLEARING_PRICE] = 0
            out[imp + SETTER] = 0
            continue
        row = out[imp + WINNER] * COLUMNS
        ranked = bids[row + RANKED]
        floor = min(bids[row + FLOOR], ranked)
        rival = out[imp + RIVAL]
        if bids[row + AT] == 1:
            out[imp + CLEARING_PRICE] = ranked
            out[imp + SETTER] = _OWN_BID
        elif bids[row + AT] == 3:
            out[imp + CLEARING_PRICE] = ranked
            out[imp + SETTER] = _AGREED
        elif rival < 0:
            out[imp + CLEARING_PRICE] = floor
            out[imp + SETTER] = _FLOOR
        elif ranked - rival < increment:
            out[imp + CLEARING_PRICE] = ranked
            out[imp + SETTER] = _OWN_BID
        elif rival + increment >= floor:
            out[imp + CLEARING_PRICE] = rival + increment
            out[imp + SETTER] = _RIVAL
        else:
            out[imp + CLEARING_PRICE] = floor
            out[imp + SETTER] = _FLOOR
        if bids[row + AT] == 2 and not bids[row + DEAL] and out[imp + CLEARING_PRICE] < soft_floor:
            # A winner below it pays what it bid; one above pays no less than it.
            out[imp + CLEARING_PRICE] = min(ranked, soft_floor)
            out[imp + SETTER] = _OWN_BID if ranked < soft_floor else _SOFT_FLOOR

    for i in range(n):  # why each lost, and what would have won
        row = i * COLUMNS
        imp = settled + bids[row + IMP] * SETTLEMENTS
        result = i * RESULTS
        if bids[row + IMP] < 0:
            out[result + MIN_TO_WIN] = -1
            continue
        won = out[imp + WINNER]
        if won < 0:  # only refused bids, or there would be a winner
            out[result + MIN_TO_WIN] = bids[row + FLOOR]
            continue
        winner = won * COLUMNS
        if won == i:
            out[result + REASON] = _WON
            out[result + MIN_TO_WIN] = max(min(bids[row + FLOOR], bids[row + RANKED]), out[imp + RIVAL])
            continue
        behind_deal = switches & DEALS_FIRST and bids[winner + DEAL] and not bids[row + DEAL]
        refused = out[result + REASON] != _LOST
        if behind_deal:
            out[result + MIN_TO_WIN] = -1
            if not refused:
                out[result + REASON] = _LOST_TO_DEAL
            continue
        tied = tied or (refused and bids[row + RANKED] == bids[winner + RANKED])
        if bids[row + AT] == 3 and not (refused and _beats(bids, row, winner, switches)):
            out[result + MIN_TO_WIN] = -1
            continue
        to_beat = out[imp + CLEARING_PRICE] if switches & TABLE_MIN_TO_WIN else bids[winner + RANKED]
        out[result + MIN_TO_WIN] = max(to_beat, bids[row + FLOOR]) if refused else to_beat
    return tied

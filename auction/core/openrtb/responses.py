# The answer: winning bids as they were sent, at the price they are charged, and on request why.

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from auction.core.openrtb.fields import DOUBLE, field, varint
from auction.model.auction import NonBid, Outcome, Warning
from auction.model.money import CpmMicros, cpm
from auction.model.reasons import PriceSetter
from auction.v1.exchange_pb2 import Explanation
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage


class Sale(msgspec.Struct, frozen=True, gc=False):
    """One winning bid as it leaves: the bidder's own bid, at the price it is charged in the response's currency.

    `bid` is its message and `price_at` where its price stands there, -1 where that is not one place. `open`: it says
    that it is for a deal, and was sold without.
    """

    bidder: str
    seat: str
    bid: bytes
    price_at: int
    price: CpmMicros
    open: bool


def response(request: str, auction: str, currency: str, sales: Sequence[Sale], nbr: int | None) -> bytes:
    """Write the answer: each winning bid under its seat, in the order of impressions; without any, `nbr`."""
    head, tail = field(_ID_TAG, request.encode()), field(_BIDID_TAG, auction.encode())
    if nbr is not None:
        return b"".join((head, tail, _NBR_TAG, varint(nbr)))
    seats: dict[tuple[str, str], list[bytes]] = {}
    for sale in sales:
        seats.setdefault((sale.bidder, sale.seat), []).append(field(_BID_TAG, _charged(sale)))
    pieces = [head]
    for (_, seat), bids in seats.items():
        if seat:
            bids.append(field(_SEAT_TAG, seat.encode()))
        pieces.append(field(_SEATBID_TAG, b"".join(bids)))
    pieces += (tail, field(_CUR_TAG, currency.encode()))
    return b"".join(pieces)


_ID_TAG, _SEATBID_TAG, _BIDID_TAG, _CUR_TAG, _NBR_TAG = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x30"
_BID_TAG, _SEAT_TAG = b"\x0a", b"\x12"


def _charged(sale: Sale) -> bytes:
    """Write a bid at the price it is charged; everything else stays, byte for byte where that is possible."""
    if sale.price_at >= 0 and not sale.open:
        price = DOUBLE.pack(cpm(sale.price))
        return sale.bid[: sale.price_at] + price + sale.bid[sale.price_at + len(price) :]
    bid = ResponseMessage.Bid.FromString(sale.bid)
    bid.price = cpm(sale.price)
    if sale.open or not bid.dealid:
        bid.ClearField("dealid")
    return bid.SerializeToString(deterministic=True)


def explain(
    response: bytes,
    auction: str,
    currency: str,
    imps: Sequence[str],
    outcomes: Sequence[Outcome],
    non_bids: Sequence[NonBid],
    warnings: Sequence[Warning],
) -> bytes:
    """Add to an answer why it is what it is: Explanation (extension 501) and the community's seatnonbid."""
    message = ResponseMessage.FromString(response)
    told = message.ext.Extensions[Explanation.auction]
    told.id = auction
    told.currency = currency
    rows = [told.imp.add(id=imp) for imp in imps]
    for outcome in outcomes:
        bid = (rows[outcome.imp].bid if outcome.imp >= 0 else told.unplaced).add(
            bidder=outcome.bidder,
            seat=outcome.seat,
            id=outcome.id,
            impid=outcome.impid,
            currency=outcome.currency,
            loss_reason=outcome.reason,
            floor_cpm_micros=outcome.floor,
            min_to_win_cpm_micros=outcome.min_to_win,
            clearing_price_cpm_micros=outcome.clearing_price,
        )
        if outcome.price is not None:
            bid.price = outcome.price
        if outcome.setter is not PriceSetter.NONE:
            bid.price_setter = outcome.setter.name.lower()
    for warning in warnings:
        told.warning.add(path=warning.path, text=warning.text)
    seats: dict[str, ResponseMessage.SeatNonBid] = {}
    for non_bid in non_bids:
        seat = non_bid.seat or non_bid.bidder
        if seat not in seats:
            seats[seat] = message.ext.seatnonbid.add(seat=seat)
        seats[seat].nonbid.add(impid=non_bid.imp, statuscode=non_bid.status)
    return message.SerializeToString(deterministic=True)

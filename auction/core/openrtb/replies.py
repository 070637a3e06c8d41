# A bidder's reply: message bytes, and what the checks read of its bids.

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec
from google.protobuf.message import DecodeError

from auction.model.errors import InvalidReply
from auction.model.reply import Bid
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage

# What the checks read of a bid, each only where a request asks for it: functions of Bid.wire. The names are the
# standard's.
adm: Callable[[object], str] = attrgetter("adm")
nurl: Callable[[object], str] = attrgetter("nurl")
crid: Callable[[object], str] = attrgetter("crid")
adomain: Callable[[object], Sequence[str]] = attrgetter("adomain")
cat: Callable[[object], Sequence[str]] = attrgetter("cat")
cattax: Callable[[object], int] = attrgetter("cattax")
bundle: Callable[[object], str] = attrgetter("bundle")
attr: Callable[[object], Sequence[int]] = attrgetter("attr")
languages: Callable[[object], tuple[str, str]] = attrgetter("language", "langb")
size: Callable[[object], tuple[int, int]] = attrgetter("w", "h")
mtype: Callable[[object], int] = attrgetter("mtype")


def adm_native(wire: object) -> str | None:
    """Give the text of markup that a bidder sent as a native message; None where it sent none."""
    assert isinstance(wire, ResponseMessage.Bid)
    return str(wire.adm_native) if wire.HasField("adm_native") else None


def duration(wire: object) -> int | None:
    """Give `dur`, None where it is absent."""
    assert isinstance(wire, ResponseMessage.Bid)
    return wire.dur if wire.dur or wire.HasField("dur") else None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply that could be read: its currency, or a reason for no bids; `wire` is the whole of it."""

    id: str
    currency: str
    nbr: int | None
    wire: ResponseMessage


def decode_reply(body: bytes) -> Answer:
    """Read a bidder's message; InvalidReply if it is none."""
    message = ResponseMessage()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidReply("expected a BidResponse message") from error
    # Absent is USD; the canonical message declares no default.
    id, currency, nbr = _ANSWER_FIELDS(message)
    return Answer(id, currency or "USD", nbr if nbr or message.HasField("nbr") else None, message)


_ANSWER_FIELDS = attrgetter("id", "cur", "nbr")


def is_empty(wire: ResponseMessage) -> bool:
    """Tell whether a reply has no bid."""
    return not any(seatbid.bid for seatbid in wire.seatbid)


def bids_of(wire: ResponseMessage) -> list[Bid]:
    """Give the bids of a reply, in the order sent."""
    return [_bid(seatbid.seat, bid) for seatbid in wire.seatbid for bid in seatbid.bid]


def bid_at(wire: ResponseMessage, seatbid: int, place: int) -> Bid:
    """Give one bid of a reply by its place."""
    seat = wire.seatbid[seatbid]
    return _bid(seat.seat, seat.bid[place])


def _bid(seat: str, bid: ResponseMessage.Bid) -> Bid:
    id, impid, price, dealid = _OFFER_FIELDS(bid)
    return Bid(id, impid, price if price or bid.HasField("price") else None, dealid, seat, bid)


_OFFER_FIELDS = attrgetter("id", "impid", "price", "dealid")

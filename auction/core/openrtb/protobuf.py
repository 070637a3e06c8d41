# Message bytes to the nouns that the rules read, and a decision back to message bytes.
#
# This is where a request from outside is checked: everything the rules forbid is refused here, with the path of the
# field, for both edges alike (JSON becomes message bytes first). What the rules do not read is not looked at; it stays
# in the message and leaves with it.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from math import isfinite

import msgspec
from google.protobuf.message import DecodeError

from auction.core.openrtb.json import strip_rest
from auction.model.auction import NonBid, Outcome, Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros, sent_text
from auction.model.reasons import PriceSetter
from auction.model.reply import Answer, Bid
from auction.model.request import BidRequest, Deal, Imp, Media
from auction.model.rules import Limits
from auction.v1.exchange_pb2 import Explanation
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage


def parse_request(body: bytes) -> RequestMessage:
    """Read message bytes; InvalidRequest if they are none."""
    message = RequestMessage()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidRequest("", "expected a BidRequest message") from error
    return message


def decode_request(message: RequestMessage, limits: Limits) -> tuple[BidRequest, list[Warning]]:
    """Check a request against the rules and give what they read of it; InvalidRequest names the first fault."""
    if not message.id:
        raise InvalidRequest("id", "missing")
    imps = message.imp
    if not imps:
        raise InvalidRequest("imp", "missing")
    if len(imps) > limits.imps:
        raise InvalidRequest("imp", f"expected at most {limits.imps}, were {len(imps)}")
    at = message.at if message.HasField("at") else 0
    if at not in (0, 1, 2):
        raise InvalidRequest("at", f"expected 0, 1 or 2, was {at}")
    if message.tmax < 0:
        raise InvalidRequest("tmax", f"expected >= 0, was {message.tmax}")
    rows: dict[str, int] = {}
    nouns = []
    for row, imp in enumerate(imps):
        noun = _imp(row, imp, limits)
        if noun.id in rows:
            raise InvalidRequest(f"imp[{row}].id", f"duplicate of imp[{rows[noun.id]}].id")
        rows[noun.id] = row
        nouns.append(noun)
    warnings = []
    if message.wseat and message.bseat:
        warnings.append(Warning("bseat", "given beside wseat; both are applied"))
    return BidRequest(message.id, at or 2, message.tmax, tuple(message.cur), tuple(nouns)), warnings


def _imp(row: int, imp: RequestMessage.Imp, limits: Limits) -> Imp:
    path = f"imp[{row}]"
    if not imp.id:
        raise InvalidRequest(f"{path}.id", "missing")
    media = 0
    if imp.HasField("banner"):
        media |= _BANNER
    if imp.HasField("video"):
        media |= _VIDEO
        _timed(f"{path}.video", imp.video)
    if imp.HasField("audio"):
        media |= _AUDIO
        _timed(f"{path}.audio", imp.audio)
    if imp.HasField("native"):
        media |= _NATIVE
    if not media:
        raise InvalidRequest(path, "expected one of banner, video, audio, native")
    floor = _floor(path, "bidfloor", imp.bidfloor)
    currency = _currency(path, imp.bidfloorcur)
    if not imp.HasField("pmp"):
        return Imp(imp.id, imp.tagid, media, floor, currency, False, _NO_DEALS)
    pmp = imp.pmp
    if len(pmp.deals) > limits.deals_per_imp:
        raise InvalidRequest(f"{path}.pmp.deals", f"expected at most {limits.deals_per_imp}, were {len(pmp.deals)}")
    deals: dict[str, Deal] = {}
    for place, deal in enumerate(pmp.deals):
        # The first of two deals with one id is the one that bids answer to.
        noun = _deal(f"{path}.pmp.deals[{place}]", deal)
        deals.setdefault(noun.id, noun)
    return Imp(imp.id, imp.tagid, media, floor, currency, pmp.private_auction, deals)


# Plain integers: arithmetic on an IntFlag costs ten times as much.
_BANNER, _VIDEO, _AUDIO, _NATIVE = int(Media.BANNER), int(Media.VIDEO), int(Media.AUDIO), int(Media.NATIVE)
_NO_DEALS: dict[str, Deal] = {}


def _deal(path: str, deal: RequestMessage.Deal) -> Deal:
    if not deal.id:
        raise InvalidRequest(f"{path}.id", "missing")
    if deal.at not in (0, 1, 2, 3):
        raise InvalidRequest(f"{path}.at", f"expected 0 to 3, was {deal.at}")
    if deal.HasField("mincpmpersec"):
        _floor(path, "mincpmpersec", deal.mincpmpersec)
    _durfloors(path, deal.durfloors)
    return Deal(
        deal.id,
        _floor(path, "bidfloor", deal.bidfloor) if deal.HasField("bidfloor") else None,
        _currency(path, deal.bidfloorcur),
        deal.at,
        frozenset(deal.wseat),
    )


def _timed(path: str, media: RequestMessage.Video | RequestMessage.Audio) -> None:
    if media.rqddurs and (media.HasField("minduration") or media.HasField("maxduration")):
        given = "minduration" if media.HasField("minduration") else "maxduration"
        raise InvalidRequest(f"{path}.rqddurs", f"expected without {given}")
    if media.HasField("mincpmpersec"):
        _floor(path, "mincpmpersec", media.mincpmpersec)
    _durfloors(path, media.durfloors)


def _durfloors(path: str, durfloors: Iterable[RequestMessage.DurFloors]) -> None:
    for place, entry in enumerate(durfloors):
        _floor(f"{path}.durfloors[{place}]", "bidfloor", entry.bidfloor)


def _floor(path: str, member: str, amount: float) -> CpmMicros:
    if amount == 0:
        return CpmMicros(0)
    if not isfinite(amount):
        raise InvalidRequest(f"{path}.{member}", f"expected a number, was {sent_text(amount)}")
    if amount < 0:
        raise InvalidRequest(f"{path}.{member}", f"expected >= 0, was {sent_text(amount)}")
    floor = floor_micros(amount)
    if floor is None:
        raise InvalidRequest(f"{path}.{member}", f"expected at most 1000000000, was {sent_text(amount)}")
    return floor


def _currency(path: str, code: str) -> str:
    if code not in ISO_4217:
        raise InvalidRequest(f"{path}.bidfloorcur", f'expected an ISO 4217 code, was "{code[:16]}"')
    return code


# A floor as a bidder is told it: the double and its currency.
Told = tuple[float, str]


def view(
    message: RequestMessage,
    imps: Sequence[int],
    tmax_ms: int,
    floors: Mapping[int, Told],
    deals: Mapping[tuple[int, int], Told],
) -> RequestMessage:
    """Make what a bidder is told: the impressions it is asked for, its own tmax, the floors it will be held to.

    `floors` has the rows of impressions whose floor is told otherwise than `message` has it, `deals` likewise by row
    and place of the deal.
    """
    told = RequestMessage()
    told.CopyFrom(message)
    # What has no name in the contract has none in an allow-list; over JSON it would not be told either.
    told.DiscardUnknownFields()
    told.tmax = tmax_ms
    for row, (amount, currency) in floors.items():
        imp = told.imp[row]
        imp.bidfloor, imp.bidfloorcur = amount, currency
    for (row, place), (amount, currency) in deals.items():
        deal = told.imp[row].pmp.deals[place]
        deal.bidfloor, deal.bidfloorcur = amount, currency
    if len(imps) < len(told.imp):
        asked = [told.imp[row] for row in imps]
        del told.imp[:]
        told.imp.extend(asked)
    return told


def view_bytes(view: RequestMessage) -> bytes:
    """Write a view as a message. What JSON held beyond the fields is left out: no allow-list could name it."""
    return strip_rest(view.SerializeToString())


def scale_floors(body: bytes, scale: Fraction) -> bytes:
    """Multiply the floors of impressions, for a laboratory's "what if"; a deal's floor is an agreement and stays."""
    message = parse_request(body)
    for imp in message.imp:
        if imp.HasField("bidfloor") and isfinite(imp.bidfloor):
            imp.bidfloor = float(Fraction(imp.bidfloor) * scale)
    return message.SerializeToString()


def decode_reply(body: bytes, limits: Limits) -> Answer:
    """Read a bidder's message; InvalidReply if it is none, or more than is looked at."""
    message = ResponseMessage()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise InvalidReply("expected a BidResponse message") from error
    # Absent is USD; the canonical message declares no default.
    currency = message.cur or "USD"
    if message.HasField("nbr"):
        return Answer(message.id, currency, message.nbr, ())
    offered = (
        Bid(bid.id, bid.impid, bid.price if bid.HasField("price") else None, bid.dealid, seatbid.seat, bid)
        for seatbid in message.seatbid
        for bid in seatbid.bid
    )
    # A reply has room for thousands more, at two bytes each; nobody looks at those.
    bids = tuple(islice(offered, limits.bids_per_reply + 1))
    if len(bids) > limits.bids_per_reply:
        raise InvalidReply(f"expected at most {limits.bids_per_reply} bids")
    # From here on every bid has its seat and currency beside it. What a reply says once, in 60 000 characters, it would
    # say a hundred times in the record and the explanation, and it would be hashed as often where bids tie.
    if len(body) * len(bids) > limits.reply_bytes:
        unfolded = len(currency) * len(bids) + sum(len(bid.seat) for bid in bids)
        if unfolded > limits.reply_bytes:
            raise InvalidReply(f"expected at most {limits.reply_bytes} characters of seats and currency, bid by bid")
    return Answer(message.id, currency, None, bids)


class Sale(msgspec.Struct, frozen=True, gc=False):
    """One winning bid as it leaves: the bidder's own bid, at the price it is charged in the response's currency."""

    bidder: str
    bid: Bid
    price: CpmMicros


def response(request: str, auction: str, currency: str, sales: Sequence[Sale], nbr: int | None) -> ResponseMessage:
    """Build the answer: each winning bid under its seat, in the order of impressions; without any, `nbr`."""
    message = ResponseMessage(id=request, bidid=auction)
    if nbr is not None:
        message.nbr = nbr
        return message
    message.cur = currency
    seats: dict[tuple[str, str], ResponseMessage.SeatBid] = {}
    for sale in sales:
        key = (sale.bidder, sale.bid.seat)
        seatbid = seats.get(key)
        if seatbid is None:
            seatbid = seats[key] = message.seatbid.add()
            if sale.bid.seat:
                seatbid.seat = sale.bid.seat
        bid = seatbid.bid.add()
        bid.CopyFrom(sale.bid.wire)  # type: ignore[arg-type]  # the handle that decode_reply put there
        bid.price = cpm(sale.price)
    return message


def explain(
    message: ResponseMessage,
    auction: str,
    currency: str,
    imps: Sequence[str],
    outcomes: Sequence[Outcome],
    non_bids: Sequence[NonBid],
    warnings: Sequence[Warning],
) -> None:
    """Add to an answer why it is what it is: Explanation (extension 501) and the community's seatnonbid."""
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


def serialise(message: ResponseMessage) -> bytes:
    """Write an answer so that equal answers are equal bytes."""
    return message.SerializeToString(deterministic=True)

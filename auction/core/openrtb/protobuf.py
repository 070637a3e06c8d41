# Message bytes to the nouns that the rules read, and a decision back to message bytes.
#
# This is where a request from outside is checked: everything the rules forbid is refused here, with the path of the
# field, however it came in (JSON becomes message bytes first). What the rules do not read is not looked at; it stays
# in the message and leaves with it.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import isfinite
from operator import attrgetter
from typing import Any, cast

import msgspec
from google.protobuf import descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import DecodeError

from auction.model.auction import NonBid, Outcome, Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros, sent_text
from auction.model.reasons import PriceSetter
from auction.model.reply import Bid
from auction.model.request import (
    AUDIO,
    BANNER,
    NATIVE,
    VIDEO,
    Audience,
    BidRequest,
    Blocks,
    Deal,
    Format,
    Imp,
    Length,
    Timed,
    Told,
    Whose,
)
from auction.model.rules import Limits
from auction.v1 import openrtb_pb2
from auction.v1.exchange_pb2 import Explanation
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage


def _reader() -> type[RequestMessage]:
    """Make a BidRequest class that knows the fields of the contract and no extension of anybody's, ours included.

    What it does not know it can leave out in one step, and that is what a view is.
    """
    pool = descriptor_pool.DescriptorPool()
    for file in (struct_pb2, openrtb_pb2):
        pool.AddSerializedFile(file.DESCRIPTOR.serialized_pb)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("auction.v1.BidRequest"))
    return cast("type[RequestMessage]", made)


_Reader = _reader()


def parse_request(body: bytes) -> RequestMessage:
    """Read message bytes; InvalidRequest if they are none."""
    message = _Reader()
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
    at = message.at  # 2 where absent
    if at not in (0, 1, 2):
        raise InvalidRequest("at", f"expected 0, 1 or 2, was {at}")
    tmax_ms = message.tmax
    if tmax_ms < 0:
        raise InvalidRequest("tmax", f"expected >= 0, was {tmax_ms}")
    rows: dict[str, int] = {}
    nouns = []
    for row, imp in enumerate(imps):
        noun = _imp(row, imp, limits)
        if noun.id in rows:
            raise InvalidRequest(f"imp[{row}].id", f"duplicate of imp[{rows[noun.id]}].id")
        rows[noun.id] = row
        nouns.append(noun)
    warnings = []
    wseat, bseat = _texts(message.wseat), _texts(message.bseat)
    if wseat and bseat:
        warnings.append(Warning("bseat", "given beside wseat; both are applied"))
    request = BidRequest(message.id, at or 2, tmax_ms, tuple(message.cur), tuple(nouns), wseat, bseat, _blocks(message))
    return request, warnings


_NOTHING: frozenset[str] = frozenset()


def _texts(texts: Sequence[str]) -> frozenset[str]:
    return frozenset(texts) if texts else _NOTHING


def _blocks(message: RequestMessage) -> Blocks | None:
    badv, bcat, bapp, wlang, wlangb = _BLOCK_FIELDS(message)
    if not (badv or bcat or bapp or wlang or wlangb):
        return None
    return Blocks(
        advertisers=_domains(badv) if badv else _NOTHING,
        categories=_texts(bcat),
        taxonomy=message.cattax,
        # An empty one would stand for every creative that names no app.
        apps=frozenset(filter(None, bapp)) if bapp else _NOTHING,
        languages=frozenset(primary_language(language) for language in wlang) if wlang else _NOTHING,
        tags=tuple(tag.lower() for tag in wlangb) if wlangb else (),
        speak=bool(wlang or wlangb),
    )


# Several fields of a message are read in one step, which costs less than one access each.
_BLOCK_FIELDS = attrgetter("badv", "bcat", "bapp", "wlang", "wlangb")


def domain(text: str) -> str:
    """Write a domain as it is compared: without case, and without the dot of the root."""
    return text.lower().removesuffix(".")


# A list of empty names only is open to no advertiser, where no list is open to all.
_NOBODY = frozenset({""})


def _domains(texts: Iterable[str]) -> frozenset[str]:
    # An empty one would stand for every domain there is, and is nobody's.
    return frozenset(filter(None, map(domain, texts)))


def primary_language(tag: str) -> str:
    """Give the language of a tag, `en` of `en-US`, in lower case."""
    return tag.partition("-")[0].lower()


def audience(message: RequestMessage) -> Audience:
    """Read where an ad will be seen: what floor rules tell impressions of one request from another's by."""
    channel = message.WhichOneof("distributionchannel")
    where = "" if channel is None else getattr(message, channel).domain
    device = message.device
    kind = device.devicetype
    return Audience(domain(where), device.geo.country.upper(), str(kind) if kind else "")


def _imp(row: int, imp: RequestMessage.Imp, limits: Limits) -> Imp:
    id, tagid, amount, code = _IMP_FIELDS(imp)
    if not id:
        raise InvalidRequest(f"imp[{row}].id", "missing")
    formats: dict[int, Format] = {}
    media = 0
    sizes: frozenset[tuple[int, int]] = _NO_SIZES
    flexible = False
    if imp.HasField("banner"):
        media, formats[BANNER] = 1, _banner(imp.banner)
        sizes, flexible = formats[BANNER].sizes, bool(formats[BANNER].ratios)
    if imp.HasField("video"):
        media, formats[VIDEO] = media | 2, _timed(f"imp[{row}].video", imp.video)
        width, height = imp.video.w, imp.video.h
        if width > 0 and height > 0:
            sizes |= {(width, height)}
    if imp.HasField("audio"):
        media, formats[AUDIO] = media | 4, _timed(f"imp[{row}].audio", imp.audio)
    if imp.HasField("native"):
        media, formats[NATIVE] = media | 8, Format(_numbers(imp.native.battr))
    if not media:
        raise InvalidRequest(f"imp[{row}]", "expected one of banner, video, audio, native")
    floor = _floor(f"imp[{row}]", "bidfloor", amount) if amount else CpmMicros(0)
    if code not in ISO_4217:
        raise _no_currency(f"imp[{row}]", code)
    private, deals = False, _NO_DEALS
    if imp.HasField("pmp"):
        private, deals = imp.pmp.private_auction, _deals(f"imp[{row}].pmp.deals", imp.pmp.deals, limits)
    return Imp(
        id,
        tagid,
        media,
        next(iter(formats)) if len(formats) == 1 else 0,
        formats,
        "{}x{}".format(*next(iter(sizes))) if len(sizes) == 1 and not flexible else "",
        imp.secure,
        floor,
        code,
        private,
        deals,
        cpm(floor) > amount
        or any(format.timed is not None and format.timed.fine for format in formats.values())
        or any(deal.fine for deal in deals.values()),
    )


_IMP_FIELDS = attrgetter("id", "tagid", "bidfloor", "bidfloorcur")
_NO_DEALS: dict[str, Deal] = {}
_NO_SIZES: frozenset[tuple[int, int]] = frozenset()
_NO_NUMBERS: frozenset[int] = frozenset()


def _numbers(numbers: Sequence[int]) -> frozenset[int]:
    return frozenset(numbers) if numbers else _NO_NUMBERS


def _banner(banner: RequestMessage.Banner) -> Format:
    width, height, formats, battr = _BANNER_FIELDS(banner)
    sizes = {(width, height)} if width > 0 and height > 0 else set()
    ratios = []
    for format in formats:
        width, height, wratio, hratio = _FORMAT_FIELDS(format)
        if width > 0 and height > 0:
            sizes.add((width, height))
        elif wratio > 0 and hratio > 0:
            ratios.append((wratio, hratio, format.wmin))
    return Format(_numbers(battr), frozenset(sizes), tuple(ratios))


_BANNER_FIELDS = attrgetter("w", "h", "format", "battr")
_FORMAT_FIELDS = attrgetter("w", "h", "wratio", "hratio")


def _deals(path: str, deals: Sequence[RequestMessage.Deal], limits: Limits) -> dict[str, Deal]:
    if len(deals) > limits.deals_per_imp:
        raise InvalidRequest(path, f"expected at most {limits.deals_per_imp}, were {len(deals)}")
    nouns: dict[str, Deal] = {}
    for place, deal in enumerate(deals):
        # The first of two deals with one id is the one that bids answer to.
        noun = _deal(f"{path}[{place}]", place, deal)
        nouns.setdefault(noun.id, noun)
    return nouns


def _deal(path: str, place: int, deal: RequestMessage.Deal) -> Deal:
    id, at, amount, currency, rate, durfloors, wseat, wadomain = _DEAL_FIELDS(deal)
    if not id:
        raise InvalidRequest(f"{path}.id", "missing")
    if at not in (0, 1, 2, 3):
        raise InvalidRequest(f"{path}.at", f"expected 0 to 3, was {at}")
    timed = None
    if rate or durfloors or deal.HasField("mincpmpersec"):
        timed = _floors_by_duration(path, deal)
    if currency not in ISO_4217:
        raise _no_currency(path, currency)
    floor = _floor(path, "bidfloor", amount) if amount or deal.HasField("bidfloor") else None
    return Deal(
        place,
        id,
        floor,
        currency,
        at,
        frozenset(wseat) if wseat else _NOTHING,
        (_domains(wadomain) or _NOBODY) if wadomain else _NOTHING,
        timed,
        (floor is not None and cpm(floor) > amount) or (timed is not None and timed.fine),
    )


_DEAL_FIELDS = attrgetter("id", "at", "bidfloor", "bidfloorcur", "mincpmpersec", "durfloors", "wseat", "wadomain")


def _timed(path: str, media: RequestMessage.Video | RequestMessage.Audio) -> Format:
    """Read a video or audio: how long a creative may be, and its floors by duration."""
    shortest, longest = media.HasField("minduration"), media.HasField("maxduration")
    exact = _numbers(media.rqddurs)
    if exact and (shortest or longest):
        raise InvalidRequest(f"{path}.rqddurs", f"expected without {'minduration' if shortest else 'maxduration'}")
    length = None
    pod = media.poddur > 0
    if exact or shortest or longest or pod:
        length = Length(media.minduration, media.maxduration if longest else None, exact, pod)
    return Format(_numbers(media.battr), length=length, timed=_floors_by_duration(path, media))


def _floors_by_duration(
    path: str, holder: RequestMessage.Video | RequestMessage.Audio | RequestMessage.Deal
) -> Timed | None:
    rate = _floor(path, "mincpmpersec", holder.mincpmpersec) if holder.HasField("mincpmpersec") else None
    durfloors = holder.durfloors
    if rate is None and not durfloors:
        return None
    rows = tuple(
        (
            entry.mindur if entry.HasField("mindur") else None,
            entry.maxdur if entry.HasField("maxdur") else None,
            _floor(f"{path}.durfloors[{place}]", "bidfloor", entry.bidfloor),
        )
        for place, entry in enumerate(durfloors)
    )
    fine = rate is not None and cpm(rate) > holder.mincpmpersec
    fine = fine or any(cpm(row[2]) > entry.bidfloor for row, entry in zip(rows, durfloors, strict=True))
    return Timed(rows, rate, fine)


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


def _no_currency(path: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"{path}.bidfloorcur", f'expected an ISO 4217 code, was "{code[:16]}"')


_TIMED_FORMATS = {VIDEO: "video", AUDIO: "audio"}


def view(message: RequestMessage, imps: Sequence[int], tmax_ms: int, told: Mapping[Whose, Told]) -> bytes:
    """Write what a bidder is told: the impressions it is asked for, its own tmax, the floors it will be held to.

    `told` has the floors that differ from the request's. What has no name in the contract has none in an allow-list: it
    is not sent, and `message` has lost it. Its tmax is the view's.
    """
    message.DiscardUnknownFields()
    message.tmax = tmax_ms
    if len(imps) == len(message.imp) and all(len(whose) == 1 for whose in told):
        # Told on the spot and taken back: that is a fraction of a copy.
        asked_before = []
        for (row,), floors in told.items():
            imp = message.imp[row]
            floor = imp.bidfloor if imp.HasField("bidfloor") else None
            asked_before.append((imp, floor, imp.bidfloorcur if imp.HasField("bidfloorcur") else None))
            _tell(imp, (row,), floors)
        body = message.SerializeToString()
        for imp, floor, currency in asked_before:
            for member, before in (("bidfloor", floor), ("bidfloorcur", currency)):
                if before is None:
                    imp.ClearField(member)
                else:
                    setattr(imp, member, before)
        return body
    copy = type(message)()
    copy.CopyFrom(message)
    for whose, floors in told.items():
        _tell(copy.imp[whose[0]], whose, floors)
    if len(imps) < len(copy.imp):
        asked = [copy.imp[row] for row in imps]
        del copy.imp[:]
        copy.imp.extend(asked)
    return copy.SerializeToString()


def _tell(imp: RequestMessage.Imp, whose: Whose, told: Told) -> None:
    if len(whose) == 2:
        _tell_by_duration(getattr(imp, _TIMED_FORMATS[whose[1]]), told)
        return
    holder = imp if len(whose) == 1 else imp.pmp.deals[whose[2]]
    holder.bidfloorcur = told.currency
    if told.floor is not None:
        holder.bidfloor = cpm(told.floor)
    if len(whose) == 3:
        _tell_by_duration(holder, told)


def _tell_by_duration(holder: Any, told: Told) -> None:
    if told.rate is not None:
        holder.mincpmpersec = cpm(told.rate)
    for least, most in told.ranges:
        holder.durfloors.add(mindur=least, maxdur=most)
    if told.rows:
        for entry, floor in zip(holder.durfloors, told.rows, strict=True):
            entry.bidfloor = cpm(floor)


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


def scale_floors(body: bytes, scale: Fraction) -> bytes:
    """Multiply the floors of impressions, for a laboratory's "what if"; a deal's floor is an agreement and stays."""
    message = parse_request(body)

    def scaled(holder: object, member: str) -> None:
        amount: float = getattr(holder, member)
        if amount and isfinite(amount):
            setattr(holder, member, float(Fraction(amount) * scale))

    for imp in message.imp:
        scaled(imp, "bidfloor")
        for format in _TIMED_FORMATS.values():
            if imp.HasField(format):
                media = getattr(imp, format)
                scaled(media, "mincpmpersec")
                for entry in media.durfloors:
                    scaled(entry, "bidfloor")
    return message.SerializeToString()


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


def bids(wire: ResponseMessage) -> list[Bid]:
    """Give the bids of a reply, in the order sent."""
    return [_bid(seatbid.seat, bid) for seatbid in wire.seatbid for bid in seatbid.bid]


def bid(wire: ResponseMessage, seatbid: int, place: int) -> Bid:
    """Give one bid of a reply by its place."""
    seat = wire.seatbid[seatbid]
    return _bid(seat.seat, seat.bid[place])


def _bid(seat: str, bid: ResponseMessage.Bid) -> Bid:
    id, impid, price, dealid = _OFFER_FIELDS(bid)
    return Bid(id, impid, price if price or bid.HasField("price") else None, dealid, seat, bid)


_OFFER_FIELDS = attrgetter("id", "impid", "price", "dealid")


class Sale(msgspec.Struct, frozen=True, gc=False):
    """One winning bid as it leaves: the bidder's own bid, at the price it is charged in the response's currency.

    `wire` is its reply, `place` its seatbid and its place there; `dealid` is empty for an open bid, whatever it said.
    """

    bidder: str
    seat: str
    wire: ResponseMessage
    place: tuple[int, int]
    price: CpmMicros
    dealid: str


def response(request: str, auction: str, currency: str, sales: Sequence[Sale], nbr: int | None) -> ResponseMessage:
    """Build the answer: each winning bid under its seat, in the order of impressions; without any, `nbr`."""
    message = ResponseMessage(id=request, bidid=auction)
    if nbr is not None:
        message.nbr = nbr
        return message
    message.cur = currency
    seats: dict[tuple[str, str], ResponseMessage.SeatBid] = {}
    for sale in sales:
        key = (sale.bidder, sale.seat)
        seatbid = seats.get(key)
        if seatbid is None:
            seatbid = seats[key] = message.seatbid.add()
            if sale.seat:
                seatbid.seat = sale.seat
        bid = seatbid.bid.add()
        bid.CopyFrom(sale.wire.seatbid[sale.place[0]].bid[sale.place[1]])
        bid.price = cpm(sale.price)
        if not sale.dealid:
            bid.ClearField("dealid")
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

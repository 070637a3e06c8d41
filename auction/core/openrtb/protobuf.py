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
from struct import Struct
from typing import Any, cast

import msgspec
import numpy as np
from google.protobuf import descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import DecodeError

from auction.core.kernels.survey import (
    APPS,
    AT,
    BLOCKED_SEATS,
    CATEGORIES,
    COUNTRY,
    CURRENCIES,
    DEAL_AT,
    DEAL_BEGIN,
    DEAL_CELLS,
    DEAL_DOMAINS,
    DEAL_END,
    DEAL_FLOORS_AT,
    DEAL_FLOORS_END,
    DEAL_SEATS,
    DEALS,
    DEVICE_TYPE,
    DOMAIN,
    DOMAINS,
    FLOORS_AT,
    FLOORS_END,
    FORMAT_CELLS,
    HEAD,
    ID,
    IMP_AT,
    IMP_BEGIN,
    IMP_CELLS,
    IMP_END,
    IMPS,
    LANGUAGES,
    PMP_AT,
    PMP_BEGIN,
    PMP_END,
    SEATS,
    TAGS,
    TAXONOMY,
    TMAX,
    TMAX_AT,
    TMAX_END,
    room,
    survey,
)
from auction.model.auction import NonBid, Outcome, Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros, sent_text
from auction.model.reasons import PriceSetter
from auction.model.reply import Bid
from auction.model.request import (
    AUDIO,
    BANNER,
    VIDEO,
    Audience,
    BidRequest,
    Blocks,
    Deal,
    Format,
    Imp,
    Length,
    Survey,
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


def survey_request(message: RequestMessage, limits: Limits) -> tuple[Survey, list[int]]:
    """Write a request without what has no name in the contract, and find where everything stands; give the cells twice.

    The message loses it too. InvalidRequest if there is nothing to sell, or more than is looked at.
    """
    if not message.id:
        raise InvalidRequest("id", "missing")
    imps = len(message.imp)
    if not imps:
        raise InvalidRequest("imp", "missing")
    if imps > limits.imps:
        raise InvalidRequest("imp", f"expected at most {limits.imps}, were {imps}")
    message.DiscardUnknownFields()
    body = message.SerializeToString()
    cells = np.empty(room(len(body), imps), np.int64)
    used = cells[: survey(np.frombuffer(body, np.uint8), imps, cells)]
    return Survey(body, used.tobytes()), used.tolist()


def decode_request(
    message: RequestMessage, body: bytes, cells: Sequence[int], limits: Limits
) -> tuple[BidRequest, list[Warning]]:
    """Check a surveyed request against the rules, give what they read of it; InvalidRequest names the first fault."""
    at = cells[AT]  # 2 where absent
    if at < -1 or at > 2 or (at == -1 and message.at == -1):
        raise InvalidRequest("at", f"expected 0, 1 or 2, was {message.at}")
    tmax_ms = cells[TMAX]
    if tmax_ms < 0:
        raise InvalidRequest("tmax", f"expected >= 0, was {tmax_ms}")
    rows: dict[str, int] = {}
    nouns = []
    for row in range(cells[IMPS]):
        noun = _imp(row, message, body, cells, HEAD + row * IMP_CELLS, limits)
        if noun.id in rows:
            raise InvalidRequest(f"imp[{row}].id", f"duplicate of imp[{rows[noun.id]}].id")
        rows[noun.id] = row
        nouns.append(noun)
    warnings = []
    wseat, bseat = _set(body, cells, SEATS), _set(body, cells, BLOCKED_SEATS)
    if wseat and bseat:
        warnings.append(Warning("bseat", "given beside wseat; both are applied"))
    currencies = tuple(_texts(body, cells, CURRENCIES)) if cells[CURRENCIES + 1] else ()
    request = BidRequest(
        body[cells[ID] : cells[ID] + cells[ID + 1]].decode(),
        at if at > 0 else 2,
        tmax_ms,
        currencies,
        tuple(nouns),
        wseat,
        bseat,
        _blocks(body, cells),
    )
    return request, warnings


def read_request(body: bytes, limits: Limits) -> BidRequest:
    """Give what the rules read of message bytes; InvalidRequest as above."""
    message = parse_request(body)
    survey, cells = survey_request(message, limits)
    return decode_request(message, survey.body, cells, limits)[0]


def _text(body: bytes, cells: Sequence[int], text: int) -> str:
    """Read a text by its cells; an absent one is empty."""
    size = cells[text + 1]
    return body[cells[text] : cells[text] + size].decode() if size > 0 else ""


def _texts(body: bytes, cells: Sequence[int], listed: int) -> list[str]:
    """Read a list of texts by its cells."""
    first = cells[listed]
    places = cells[first : first + 2 * cells[listed + 1]]
    return [body[at : at + size].decode() for at, size in zip(places[::2], places[1::2], strict=True)]


def _set(body: bytes, cells: Sequence[int], listed: int) -> frozenset[str]:
    return frozenset(_texts(body, cells, listed)) if cells[listed + 1] else _NOTHING


_NOTHING: frozenset[str] = frozenset()


def _blocks(body: bytes, cells: Sequence[int]) -> Blocks | None:
    badv, bcat, bapp = cells[DOMAINS + 1], cells[CATEGORIES + 1], cells[APPS + 1]
    wlang, wlangb = cells[LANGUAGES + 1], cells[TAGS + 1]
    if not (badv or bcat or bapp or wlang or wlangb):
        return None
    languages = _NOTHING
    tags: tuple[str, ...] = ()
    if wlang or wlangb:
        languages = frozenset(map(primary_language, _texts(body, cells, LANGUAGES)))
        tags = tuple(tag.lower() for tag in _texts(body, cells, TAGS))
    return Blocks(
        advertisers=_domains(_texts(body, cells, DOMAINS)) if badv else _NOTHING,
        categories=_set(body, cells, CATEGORIES),
        taxonomy=cells[TAXONOMY],
        # An empty one would stand for every creative that names no app.
        apps=frozenset(filter(None, _texts(body, cells, APPS))) if bapp else _NOTHING,
        languages=languages,
        tags=tags,
        speak=bool(wlang or wlangb),
    )


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


def audience(body: bytes, cells: Sequence[int]) -> Audience:
    """Read where an ad will be seen: what floor rules tell impressions of one request from another's by."""
    kind = cells[DEVICE_TYPE]
    return Audience(domain(_text(body, cells, DOMAIN)), _text(body, cells, COUNTRY).upper(), str(kind) if kind else "")


def _imp(row: int, message: RequestMessage, body: bytes, cells: Sequence[int], imp: int, limits: Limits) -> Imp:
    # In the order of the cells; taking them one by one would cost twice as much.
    (id_at, id_bytes, only, secure, *places, tag_at, tag_bytes, micros, finer, stated, code_at, code_bytes, private,
     media) = cells[imp : imp + IMP_AT]  # fmt: skip
    if id_bytes <= 0:
        raise InvalidRequest(f"imp[{row}].id", "missing")
    formats: dict[int, Format] = {}
    sizes: frozenset[tuple[int, int]] = _NO_SIZES
    flexible, fine = False, False
    for number, at in enumerate(places, BANNER):
        if at:
            format, asked = _format(row, number, message, cells, at)
            formats[number] = format
            sizes = sizes | asked if sizes else asked
            flexible = flexible or bool(format.ratios)
            fine = fine or (format.timed is not None and format.timed.fine)
    if not media:
        raise InvalidRequest(f"imp[{row}]", "expected one of banner, video, audio, native")
    if stated and micros < 0:
        micros, finer = _uncertain(f"imp[{row}]", message.imp[row].bidfloor)
    currency = _currency(f"imp[{row}]", body, code_at, code_bytes)
    deals = _NO_DEALS
    if cells[imp + DEALS + 1]:
        deals = _deals(row, message, body, cells, imp, limits)
        fine = fine or any(deal.fine for deal in deals.values())
    size = ""
    if len(sizes) == 1 and not flexible:
        ((width, height),) = sizes
        size = f"{width}x{height}"
    return Imp(
        body[id_at : id_at + id_bytes].decode(),
        body[tag_at : tag_at + tag_bytes].decode() if tag_bytes > 0 else "",
        media,
        only,
        formats,
        size,
        secure == 1,
        CpmMicros(micros),
        currency,
        private == 1,
        deals,
        fine or finer == 1,
    )


_NO_DEALS: dict[str, Deal] = {}
_NO_SIZES: frozenset[tuple[int, int]] = frozenset()
_NO_NUMBERS: frozenset[int] = frozenset()


def _uncertain(path: str, amount: float) -> tuple[CpmMicros, bool]:
    """Read a floor that arithmetic on doubles was not certain of; tell whether it was sent finer than a micro."""
    floor = _floor(path, "bidfloor", amount)
    return floor, cpm(floor) > amount


def _currency(path: str, body: bytes, at: int, size: int) -> str:
    if size < 0:
        return "USD"  # which is the standard's default
    code = _CURRENCIES.get(body[at : at + size])
    if code is None:
        raise _no_currency(path, body[at : at + size].decode())
    return code


_CURRENCIES = {code.encode(): code for code in ISO_4217}


def _numbers(numbers: Sequence[int]) -> frozenset[int]:
    return frozenset(numbers) if numbers else _NO_NUMBERS


def _format(
    row: int, number: int, message: RequestMessage, cells: Sequence[int], at: int
) -> tuple[Format, frozenset[tuple[int, int]]]:
    """Read one format of an impression, and the sizes that it has, which only of a banner are demands."""
    first = at + FORMAT_CELLS
    attributes, pairs, _, least, most, length, pod, flexible, open_end = cells[at:first]
    after = first + attributes
    blocked = frozenset(cells[first:after]) if attributes else _NO_NUMBERS
    sizes = _NO_SIZES
    if pairs:
        ends = cells[after : after + 2 * pairs]
        sizes = frozenset(zip(ends[::2], ends[1::2], strict=True))
    if number == BANNER:
        return Format(blocked, sizes, _ratios(message.imp[row].banner) if flexible else ()), sizes
    if length == 2:
        name = _TIMED_FORMATS[number]
        return _timed(f"imp[{row}].{name}", getattr(message.imp[row], name)), sizes
    limits = Length(least, None if open_end else most, _NO_NUMBERS, pod == 1) if length else None
    return Format(blocked, length=limits), sizes


def _ratios(banner: RequestMessage.Banner) -> tuple[tuple[int, int, int], ...]:
    ratios = []
    for format in banner.format:
        width, height, wratio, hratio = _FORMAT_FIELDS(format)
        if not (width > 0 and height > 0) and wratio > 0 and hratio > 0:
            ratios.append((wratio, hratio, format.wmin))
    return tuple(ratios)


# Several fields of a message are read in one step, which costs less than one access each.
_FORMAT_FIELDS = attrgetter("w", "h", "wratio", "hratio")


def _deals(
    row: int, message: RequestMessage, body: bytes, cells: Sequence[int], imp: int, limits: Limits
) -> dict[str, Deal]:
    first, count = cells[imp + DEALS], cells[imp + DEALS + 1]
    path = f"imp[{row}].pmp.deals"
    if count > limits.deals_per_imp:
        raise InvalidRequest(path, f"expected at most {limits.deals_per_imp}, were {count}")
    nouns: dict[str, Deal] = {}
    for place in range(count):
        # The first of two deals with one id is the one that bids answer to.
        noun = _deal(path, row, place, message, body, cells, first + place * DEAL_CELLS)
        nouns.setdefault(noun.id, noun)
    return nouns


def _deal(
    path: str, row: int, place: int, message: RequestMessage, body: bytes, cells: Sequence[int], deal: int
) -> Deal:
    (id_at, id_bytes, at, micros, finer, stated, code_at, code_bytes, _, seats, _, domains,
     by_duration) = cells[deal : deal + DEAL_AT]  # fmt: skip
    if id_bytes <= 0:
        raise InvalidRequest(f"{path}[{place}].id", "missing")
    if not 0 <= at <= 3:
        raise InvalidRequest(f"{path}[{place}].at", f"expected 0 to 3, was {at}")
    timed = None
    if by_duration:
        timed = _floors_by_duration(f"{path}[{place}]", message.imp[row].pmp.deals[place])
    currency = _currency(f"{path}[{place}]", body, code_at, code_bytes)
    if stated and micros < 0:
        micros, finer = _uncertain(f"{path}[{place}]", message.imp[row].pmp.deals[place].bidfloor)
    return Deal(
        place,
        body[id_at : id_at + id_bytes].decode(),
        CpmMicros(micros) if stated else None,
        currency,
        at,
        frozenset(_texts(body, cells, deal + DEAL_SEATS)) if seats else _NOTHING,
        (_domains(_texts(body, cells, deal + DEAL_DOMAINS)) or _NOBODY) if domains else _NOTHING,
        timed,
        finer == 1 or (timed is not None and timed.fine),
    )


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


def view(
    message: RequestMessage,
    body: bytes,
    cells: Sequence[int],
    imps: Sequence[int],
    tmax_ms: int,
    told: Mapping[Whose, Told],
) -> bytes:
    """Write what a bidder is told: the impressions it is asked for, its own tmax, the floors it will be held to.

    `told` has the floors that differ from the request's. What has no name in the contract has none in an allow-list: it
    is not sent, and a surveyed request has lost it. The request's own bytes are cut and pasted, unless floors by
    duration are told otherwise; the bytes are the same either way.
    """
    for whose, floors in told.items():
        if len(whose) == 2 or floors.floor is None or floors.rows or floors.ranges or floors.rate is not None:
            return _view_of_message(message, imps, tmax_ms, told)
    pieces: list[bytes] = []
    done = 0
    if len(imps) < cells[IMPS] or told:
        for row in range(cells[IMPS]):
            imp = HEAD + row * IMP_CELLS
            own = told.get((row,))
            deals = [(whose[2], floors) for whose, floors in told.items() if whose[0] == row and len(whose) == 3]
            if row in imps and own is None and not deals:
                continue
            pieces.append(body[done : cells[imp + IMP_AT]])
            done = cells[imp + IMP_END]
            if row in imps:
                content = _imp_told(body, cells, imp, own, deals)
                pieces += (_IMP_TAG, _varint(len(content)), content)
    pieces += (body[done : cells[TMAX_AT]], _TMAX_TAG, _varint(tmax_ms), body[cells[TMAX_END] :])
    return b"".join(pieces)


def _imp_told(
    body: bytes, cells: Sequence[int], imp: int, own: Told | None, deals: Sequence[tuple[int, Told]]
) -> bytes:
    """Write what an impression's field holds, with floors of its own and of its deals as they are told."""
    at = cells[imp + FLOORS_AT] if own is not None else cells[imp + IMP_BEGIN]
    pieces: list[bytes] = []
    if own is not None:
        pieces += (body[cells[imp + IMP_BEGIN] : at], _floors_told(_IMP_FLOOR_TAGS, own))
        at = cells[imp + FLOORS_END]
    if deals:
        inner: list[bytes] = []
        done = cells[imp + PMP_BEGIN]
        for place, floors in deals:
            deal = cells[imp + DEALS] + place * DEAL_CELLS
            content = (
                body[cells[deal + DEAL_BEGIN] : cells[deal + DEAL_FLOORS_AT]]
                + _floors_told(_DEAL_FLOOR_TAGS, floors)
                + body[cells[deal + DEAL_FLOORS_END] : cells[deal + DEAL_END]]
            )
            inner += (body[done : cells[deal + DEAL_AT]], _DEAL_TAG, _varint(len(content)), content)
            done = cells[deal + DEAL_END]
        inner.append(body[done : cells[imp + PMP_END]])
        pmp = b"".join(inner)
        pieces += (body[at : cells[imp + PMP_AT]], _PMP_TAG, _varint(len(pmp)), pmp)
        at = cells[imp + PMP_END]
    pieces.append(body[at : cells[imp + IMP_END]])
    return b"".join(pieces)


# Tags as they stand in bytes: the number of the field times eight, and how it is written.
_TMAX_TAG, _IMP_TAG, _PMP_TAG, _DEAL_TAG = b"\x40", b"\x12", b"\x5a", b"\x12"
_IMP_FLOOR_TAGS, _DEAL_FLOOR_TAGS = (b"\x41", b"\x4a"), (b"\x11", b"\x1a")
_DOUBLE = Struct("<d")


def _floors_told(tags: tuple[bytes, bytes], told: Told) -> bytes:
    assert told.floor is not None
    currency = told.currency.encode()
    return tags[0] + _DOUBLE.pack(cpm(told.floor)) + tags[1] + _varint(len(currency)) + currency


def _varint(number: int) -> bytes:
    if number < 128:
        return _ONE_BYTE[number]
    pieces = bytearray()
    while number > 127:
        pieces.append(number & 127 | 128)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


_ONE_BYTE = [bytes((number,)) for number in range(128)]


def _view_of_message(message: RequestMessage, imps: Sequence[int], tmax_ms: int, told: Mapping[Whose, Told]) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.tmax = tmax_ms
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
    head, tail = _field(_ID_TAG, request.encode()), _field(_BIDID_TAG, auction.encode())
    if nbr is not None:
        return b"".join((head, tail, _NBR_TAG, _varint(nbr)))
    seats: dict[tuple[str, str], list[bytes]] = {}
    for sale in sales:
        seats.setdefault((sale.bidder, sale.seat), []).append(_field(_BID_TAG, _charged(sale)))
    pieces = [head]
    for (_, seat), bids in seats.items():
        if seat:
            bids.append(_field(_SEAT_TAG, seat.encode()))
        pieces.append(_field(_SEATBID_TAG, b"".join(bids)))
    pieces += (tail, _field(_CUR_TAG, currency.encode()))
    return b"".join(pieces)


_ID_TAG, _SEATBID_TAG, _BIDID_TAG, _CUR_TAG, _NBR_TAG = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x30"
_BID_TAG, _SEAT_TAG = b"\x0a", b"\x12"


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _charged(sale: Sale) -> bytes:
    """Write a bid at the price it is charged; everything else stays, byte for byte where that is possible."""
    if sale.price_at >= 0 and not sale.open:
        price = _DOUBLE.pack(cpm(sale.price))
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

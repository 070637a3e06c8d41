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
    ATTRIBUTES,
    BLOCKED_SEATS,
    CATEGORIES,
    COUNTRY,
    CURRENCIES,
    CURRENCY,
    DEAL_AT,
    DEAL_BEGIN,
    DEAL_CELLS,
    DEAL_DOMAINS,
    DEAL_END,
    DEAL_FLOOR,
    DEAL_FLOORS_AT,
    DEAL_FLOORS_END,
    DEAL_HOW,
    DEAL_ID,
    DEAL_SEATS,
    DEAL_TIMED,
    DEALS,
    DEVICE_TYPE,
    DOMAIN,
    DOMAINS,
    FINE,
    FLEXIBLE,
    FLOORS_AT,
    FLOORS_END,
    FORMAT_AT,
    FORMAT_CELLS,
    HEAD,
    ID,
    IMP_AT,
    IMP_BEGIN,
    IMP_CELLS,
    IMP_END,
    IMP_FLOOR,
    IMP_ID,
    IMPS,
    LANGUAGES,
    LEAST,
    LENGTH,
    MEDIA,
    MICROS_UP,
    MOST,
    ONLY,
    OPEN_END,
    PMP_AT,
    PMP_BEGIN,
    PMP_END,
    PRIVATE,
    SAYS_LENGTH,
    SEATS,
    SECURE,
    SIZES,
    STATED,
    TAGID,
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
    NATIVE,
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
    id = _text(body, cells, imp + IMP_ID)
    if not id:
        raise InvalidRequest(f"imp[{row}].id", "missing")
    formats: dict[int, Format] = {}
    sizes: frozenset[tuple[int, int]] = _NO_SIZES
    flexible, fine = False, False
    for number in _FORMATS:
        at = cells[imp + FORMAT_AT + number - 1]
        if at:
            format, asked = _format(row, number, message, cells, at)
            formats[number] = format
            sizes |= asked
            if cells[at + FLEXIBLE]:
                flexible = True
            if format.timed is not None and format.timed.fine:
                fine = True
    if not formats:
        raise InvalidRequest(f"imp[{row}]", "expected one of banner, video, audio, native")
    floor_at = imp + IMP_FLOOR
    floor, floor_fine = _NO_FLOOR, False
    if cells[floor_at + STATED]:
        floor, floor_fine = _stated(f"imp[{row}]", cells, floor_at, message.imp[row])
    currency = _currency(f"imp[{row}]", body, cells, floor_at)
    deals = _NO_DEALS
    if cells[imp + DEALS + 1]:
        deals = _deals(row, message, body, cells, imp, limits)
        fine = fine or any(deal.fine for deal in deals.values())
    width, height = next(iter(sizes)) if len(sizes) == 1 and not flexible else (0, 0)
    return Imp(
        id,
        _text(body, cells, imp + TAGID),
        cells[imp + MEDIA],
        cells[imp + ONLY],
        formats,
        f"{width}x{height}" if width else "",
        bool(cells[imp + SECURE]),
        floor,
        currency,
        bool(cells[imp + PRIVATE]),
        deals,
        fine or floor_fine,
    )


_FORMATS = (BANNER, VIDEO, AUDIO, NATIVE)
_NO_DEALS: dict[str, Deal] = {}
_NO_SIZES: frozenset[tuple[int, int]] = frozenset()
_NO_NUMBERS: frozenset[int] = frozenset()
_NO_FLOOR = CpmMicros(0)


def _stated(path: str, cells: Sequence[int], floor: int, holder: Any) -> tuple[CpmMicros, bool]:
    """Read a floor that is stated, and whether it was sent finer than a micro."""
    micros = cells[floor + MICROS_UP]
    if micros >= 0:
        return CpmMicros(micros), bool(cells[floor + FINE])
    amount = holder.bidfloor
    read = _floor(path, "bidfloor", amount)
    return read, cpm(read) > amount


def _currency(path: str, body: bytes, cells: Sequence[int], floor: int) -> str:
    size = cells[floor + CURRENCY + 1]
    if size < 0:
        return "USD"  # which is the standard's default
    code = body[cells[floor + CURRENCY] : cells[floor + CURRENCY] + size].decode()
    if code not in ISO_4217:
        raise _no_currency(path, code)
    return code


def _numbers(numbers: Sequence[int]) -> frozenset[int]:
    return frozenset(numbers) if numbers else _NO_NUMBERS


def _format(
    row: int, number: int, message: RequestMessage, cells: Sequence[int], at: int
) -> tuple[Format, frozenset[tuple[int, int]]]:
    """Read one format of an impression, and the sizes that it has, which only of a banner are demands."""
    first = at + FORMAT_CELLS
    pairs = first + cells[at + ATTRIBUTES]
    behind = pairs + 2 * cells[at + SIZES]
    sizes = (
        frozenset(zip(cells[pairs:behind:2], cells[pairs + 1 : behind : 2], strict=True))
        if behind > pairs
        else _NO_SIZES
    )
    if number == BANNER:
        attributes = _numbers(cells[first:pairs])
        return Format(attributes, sizes, _ratios(message.imp[row].banner) if cells[at + FLEXIBLE] else ()), sizes
    if cells[at + LENGTH] == 2:
        name = _TIMED_FORMATS[number]
        return _timed(f"imp[{row}].{name}", getattr(message.imp[row], name)), sizes
    length = None
    if cells[at + LENGTH]:
        most = None if cells[at + OPEN_END] else cells[at + MOST]
        length = Length(cells[at + LEAST], most, _NO_NUMBERS, bool(cells[at + SAYS_LENGTH]))
    return Format(_numbers(cells[first:pairs]), length=length), sizes


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
    id = _text(body, cells, deal + DEAL_ID)
    if not id:
        raise InvalidRequest(f"{path}[{place}].id", "missing")
    at = cells[deal + DEAL_HOW]
    if not 0 <= at <= 3:
        raise InvalidRequest(f"{path}[{place}].at", f"expected 0 to 3, was {at}")
    timed = None
    if cells[deal + DEAL_TIMED]:
        timed = _floors_by_duration(f"{path}[{place}]", message.imp[row].pmp.deals[place])
    currency = _currency(f"{path}[{place}]", body, cells, deal + DEAL_FLOOR)
    floor: CpmMicros | None = None
    fine = timed is not None and timed.fine
    if cells[deal + DEAL_FLOOR + STATED]:
        floor, finer = _stated(f"{path}[{place}]", cells, deal + DEAL_FLOOR, message.imp[row].pmp.deals[place])
        fine = fine or finer
    advertisers = _NOTHING
    if cells[deal + DEAL_DOMAINS + 1]:
        advertisers = _domains(_texts(body, cells, deal + DEAL_DOMAINS)) or _NOBODY
    return Deal(place, id, floor, currency, at, _set(body, cells, deal + DEAL_SEATS), advertisers, timed, fine)


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

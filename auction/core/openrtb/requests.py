# A request from outside: message bytes to the nouns that the rules read.
#
# This is where a request is checked: everything the rules forbid is refused here, with the path of the field, however
# it came in (JSON becomes message bytes first). What the rules do not read is not looked at; it stays in the message
# and leaves with it. How its bytes are read: docs/decisions/survey.md.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import isfinite
from operator import attrgetter
from typing import cast

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
    DEAL_CELLS,
    DEAL_DOMAINS,
    DEAL_SEATS,
    DEALS,
    DEVICE_TYPE,
    DOMAIN,
    DOMAINS,
    FORMAT_CELLS,
    HEAD,
    ID,
    IMP_AT,
    IMP_CELLS,
    IMPS,
    LANGUAGES,
    SEATS,
    TAGS,
    TAXONOMY,
    TMAX,
    room,
    survey,
)
from auction.model.auction import Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros, sent_text
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
)
from auction.model.rules import Limits
from auction.v1 import openrtb_pb2
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage


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
    used = cells[: survey(np.frombuffer(body, np.uint8), imps, limits.deals_per_imp, cells)]
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
        name = TIMED_FORMATS[number]
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


TIMED_FORMATS = {VIDEO: "video", AUDIO: "audio"}


def scale_floors(body: bytes, scale: Fraction) -> bytes:
    """Multiply the floors of impressions, for a laboratory's "what if"; a deal's floor is an agreement and stays."""
    message = parse_request(body)

    def scaled(holder: object, member: str) -> None:
        amount: float = getattr(holder, member)
        if amount and isfinite(amount):
            setattr(holder, member, float(Fraction(amount) * scale))

    for imp in message.imp:
        scaled(imp, "bidfloor")
        for format in TIMED_FORMATS.values():
            if imp.HasField(format):
                media = getattr(imp, format)
                scaled(media, "mincpmpersec")
                for entry in media.durfloors:
                    scaled(entry, "bidfloor")
    return message.SerializeToString()

# Reads where everything stands in a request: one walk over its bytes, and cells that say what the rules read of it.
#
# Attributes of a message cost a call each, and an auction asks for a hundred. The walk gives numbers as they are and
# texts as places; requests.py makes nouns of them, sieve.py looks at bids with the same cells, and a view is cut out of
# the same bytes. What is rare (floors by duration, flexible sizes, amounts that arithmetic on doubles is not certain
# of) is only marked here, and read from the message.
#
# The bytes are as protobuf's serialiser wrote them: well-formed, no unknown field, fields in the order of their
# numbers, each that is not a list once, lists of numbers packed. Field numbers are those of the contract
# (proto/auction/v1/openrtb.proto); tests/test_survey.py holds every cell to the message.

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from auction.core.kernels.wire import (
    BYTES,
    CELLS,
    DOUBLES,
    I64,
    INT,
    INT32_MAX,
    LEN,
    NONE,
    VARINT,
    behind,
    double_bits,
    near_nanos,
    varint,
)
from auction.model.money import LIMIT, MICROS, NANOS_PER_MICRO

# A text is two cells: its place in the bytes, and its length, which is -1 where it is absent. A list is two cells: the
# place of its texts in the cells, and how many.
IMPS: Final = 0  # how many; their cells stand behind the head
ID: Final = 1
AT: Final = 3  # -1 where absent
TMAX: Final = 4
TMAX_AT: Final = 5  # its field in the bytes, empty where absent, and where it ends
TMAX_END: Final = 6
TAXONOMY: Final = 7
CURRENCIES: Final = 8
SEATS: Final = 10
BLOCKED_SEATS: Final = 12
DOMAINS: Final = 14  # blocked ones
CATEGORIES: Final = 16
APPS: Final = 18
LANGUAGES: Final = 20
TAGS: Final = 22
DOMAIN: Final = 24  # of the site, app or screen
COUNTRY: Final = 26
DEVICE_TYPE: Final = 28
HEAD: Final = 29

IMP_ID: Final = 0
IMP_ID_BYTES: Final = 1
ONLY: Final = 2  # the number of its only format, 0 for several
SECURE: Final = 3
FORMAT_AT: Final = 4  # cells of formats 1 to 4; 0 where one is not offered
TAGID: Final = 8
IMP_FLOOR: Final = 10  # cells of a floor
PRIVATE: Final = 15
MEDIA: Final = 16  # formats as flags
IMP_AT: Final = 17  # its field in the bytes, where what it holds begins, and where it ends
IMP_BEGIN: Final = 18
IMP_END: Final = 19
FLOORS_AT: Final = 20  # bidfloor and bidfloorcur, which stand side by side; empty where absent
FLOORS_END: Final = 21
PMP_AT: Final = 22  # its field in the bytes, where what it holds begins, and where it ends
PMP_BEGIN: Final = 23
PMP_END: Final = 24
DEALS: Final = 25  # cells of the first, and how many
IMP_CELLS: Final = 27

# A floor: micros, UP, then whether it was sent finer, whether at all, and its currency.
MICROS_UP: Final = 0  # -1: to be read from the message
FINE: Final = 1
STATED: Final = 2
CURRENCY: Final = 3
FLOOR_CELLS: Final = 5

DEAL_ID: Final = 0
DEAL_HOW: Final = 2
DEAL_FLOOR: Final = 3  # cells of a floor
DEAL_SEATS: Final = 8
DEAL_DOMAINS: Final = 10
DEAL_TIMED: Final = 12  # it states floors by duration
DEAL_AT: Final = 13  # its field in the bytes, where what it holds begins, and where it ends
DEAL_BEGIN: Final = 14
DEAL_END: Final = 15
DEAL_FLOORS_AT: Final = 16
DEAL_FLOORS_END: Final = 17
DEAL_CELLS: Final = 18

ATTRIBUTES: Final = 0  # how many are blocked; they stand behind these cells
SIZES: Final = 1  # how many pairs stand behind those
BARE: Final = 2  # a banner without size will do
LEAST: Final = 3  # seconds
MOST: Final = 4
LENGTH: Final = 5  # 0: any, 1: LEAST to MOST, 2: more to it
SAYS_LENGTH: Final = 6  # a bid has to say how long it is
FLEXIBLE: Final = 7  # a banner states ratios
OPEN_END: Final = 8  # nothing is said of MOST
FORMAT_CELLS: Final = 9

_BANNER, _VIDEO, _AUDIO, _NATIVE = 1, 2, 3, 4
_AMOUNT_MAX = LIMIT / MICROS
_DEVICE_TYPE, _DEVICE_GEO, _GEO_COUNTRY = 18, 4, 3
_ABSENT = -1


def room(size: int, imps: int) -> int:
    """Give how many cells a request of `size` bytes may need.

    No deal, text or number is shorter than the bytes of its tag and length, or its own; a deal needs the most cells.
    """
    return HEAD + imps * (IMP_CELLS + 4 * FORMAT_CELLS) + size * (DEAL_CELLS + 2) // 2


@njit(INT(BYTES, INT, INT, CELLS, INT), cache=True)
def _texts(data: NDArray[np.uint8], at: int, end: int, cells: NDArray[np.int64], used: int) -> int:  # pragma: no cover
    """Write the places of a list of texts whose first field begins at `at`; give what is used of the cells then."""
    first, _ = varint(data, at)
    while at < end:
        key, at = varint(data, at)
        if key != first:
            break
        size, at = varint(data, at)
        cells[used], cells[used + 1] = at, size
        used += 2
        at += size
    return used


@njit(NONE(BYTES, INT, CELLS, INT, CELLS, DOUBLES), cache=True)
def _floor(
    data: NDArray[np.uint8],
    at: int,
    cells: NDArray[np.int64],
    floor: int,
    bits: NDArray[np.int64],
    doubles: NDArray[np.float64],
) -> None:  # pragma: no cover
    """Write an amount as micros, UP."""
    bits[0] = double_bits(data, at)
    amount = doubles[0]
    cells[floor + STATED] = 1
    cells[floor + MICROS_UP] = -1
    if 0 <= amount <= _AMOUNT_MAX:
        nanos = near_nanos(amount)
        if nanos >= 0:
            micros = -(-nanos // NANOS_PER_MICRO)
            cells[floor + MICROS_UP] = micros
            cells[floor + FINE] = micros / MICROS > amount


@njit(INT(BYTES, INT, INT, INT, CELLS, INT), cache=True)
def _banner(
    data: NDArray[np.uint8], at: int, end: int, format: int, cells: NDArray[np.int64], used: int
) -> int:  # pragma: no cover
    width, height, several = 0, 0, False
    # Attributes (6) stand before formats (15), and behind w and h.
    while at < end:
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            number, at = varint(data, at)
            if field == 1:
                width = number
            elif field == 2:
                height = number
        elif wire_type == LEN:
            size, at = varint(data, at)
            stop = at + size
            if field == 6:
                while at < stop:
                    cells[used], at = varint(data, at)
                    used += 1
                    cells[format + ATTRIBUTES] += 1
            elif field == 15:
                w, h, wratio, hratio = 0, 0, 0, 0
                while at < stop:
                    key, at = varint(data, at)
                    if key & 7 != VARINT:
                        at = behind(data, at, key & 7)
                        continue
                    number, at = varint(data, at)
                    if key >> 3 == 1:
                        w = number
                    elif key >> 3 == 2:
                        h = number
                    elif key >> 3 == 3:
                        wratio = number
                    elif key >> 3 == 4:
                        hratio = number
                if w > 0 and h > 0:
                    cells[used], cells[used + 1] = w, h
                    used += 2
                    first = format + FORMAT_CELLS + cells[format + ATTRIBUTES]
                    several = several or w != cells[first] or h != cells[first + 1]
                    cells[format + SIZES] += 1
                elif wratio > 0 and hratio > 0:
                    cells[format + FLEXIBLE] = 1
            at = stop
        else:
            at = behind(data, at, wire_type)
    if width > 0 and height > 0:
        cells[used], cells[used + 1] = width, height
        used += 2
        first = format + FORMAT_CELLS + cells[format + ATTRIBUTES]
        several = several or width != cells[first] or height != cells[first + 1]
        cells[format + SIZES] += 1
    cells[format + BARE] = not (several or cells[format + FLEXIBLE])
    return used


@njit(INT(BYTES, INT, INT, INT, CELLS, INT, INT), cache=True)
def _timed(
    data: NDArray[np.uint8], at: int, end: int, format: int, cells: NDArray[np.int64], used: int, number: int
) -> int:  # pragma: no cover
    """Read a video or an audio. Its size, if it has one, is no demand on a creative."""
    video = number == _VIDEO
    battr = 10 if video else 7
    shortest, longest, pod = 3, 4, 29
    exact, rate, durfloors = 32, 34, 36
    if not video:
        shortest, longest, pod = 2, 3, 25
        exact, rate, durfloors = 26, 30, 31
    width, height, limited, more = 0, 0, False, False
    cells[format + MOST], cells[format + OPEN_END] = INT32_MAX, 1
    while at < end:
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, at = varint(data, at)
            if field == shortest:
                cells[format + LEAST], limited = value, True
            elif field == longest:
                cells[format + MOST], cells[format + OPEN_END], limited = value, 0, True
            elif field == pod and value > 0:
                cells[format + SAYS_LENGTH] = 1
                limited = True
            elif field == 6 and video:
                width = value
            elif field == 7 and video:
                height = value
        elif wire_type == LEN:
            size, at = varint(data, at)
            stop = at + size
            if field == battr:
                while at < stop:
                    cells[used], at = varint(data, at)
                    used += 1
                    cells[format + ATTRIBUTES] += 1
            more = more or (field == exact and size > 0) or field == durfloors
            at = stop
        else:
            more = more or (wire_type == I64 and field == rate)
            at = behind(data, at, wire_type)
    cells[format + BARE] = 1
    cells[format + LENGTH] = 2 if more else int(limited)
    if width > 0 and height > 0:
        cells[used], cells[used + 1] = width, height
        used += 2
        cells[format + SIZES] = 1
    return used


@njit(INT(BYTES, INT, INT, INT, CELLS, INT), cache=True)
def _native(
    data: NDArray[np.uint8], at: int, end: int, format: int, cells: NDArray[np.int64], used: int
) -> int:  # pragma: no cover
    while at < end:
        key, at = varint(data, at)
        if key != 4 << 3 | LEN:
            at = behind(data, at, key & 7)
            continue
        size, at = varint(data, at)
        stop = at + size
        while at < stop:
            cells[used], at = varint(data, at)
            used += 1
            cells[format + ATTRIBUTES] += 1
    cells[format + BARE] = 1
    return used


@njit(INT(BYTES, INT, INT, INT, CELLS, INT, CELLS, DOUBLES), cache=True)
def _deal(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    deal: int,
    cells: NDArray[np.int64],
    used: int,
    bits: NDArray[np.int64],
    doubles: NDArray[np.float64],
) -> int:  # pragma: no cover
    cells[deal + DEAL_ID + 1] = cells[deal + DEAL_FLOOR + CURRENCY + 1] = _ABSENT
    cells[deal + DEAL_FLOORS_AT] = cells[deal + DEAL_FLOORS_END] = end
    placed = False
    while at < end:
        start = at
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if field >= 2 and not placed:
            cells[deal + DEAL_FLOORS_AT] = cells[deal + DEAL_FLOORS_END] = start
            placed = True
        value = at
        if wire_type == LEN:
            size, value = varint(data, at)
            if field == 1:
                cells[deal + DEAL_ID], cells[deal + DEAL_ID + 1] = value, size
            elif field == 3:
                currency = deal + DEAL_FLOOR + CURRENCY
                cells[currency], cells[currency + 1] = value, size
                cells[deal + DEAL_FLOORS_END] = value + size
            elif (field == 4 and not cells[deal + DEAL_SEATS + 1]) or (
                field == 5 and not cells[deal + DEAL_DOMAINS + 1]
            ):
                listed = deal + (DEAL_SEATS if field == 4 else DEAL_DOMAINS)
                before = used
                used = _texts(data, start, end, cells, used)
                cells[listed], cells[listed + 1] = before, (used - before) // 2
            elif field == 9:
                cells[deal + DEAL_TIMED] = 1
        elif wire_type == VARINT and field == 6:
            cells[deal + DEAL_HOW], _ = varint(data, at)
        elif wire_type == I64 and field == 2:
            _floor(data, at, cells, deal + DEAL_FLOOR, bits, doubles)
            cells[deal + DEAL_FLOORS_END] = at + 8
        elif wire_type == I64 and field == 8:
            cells[deal + DEAL_TIMED] = 1
        at = behind(data, at, wire_type)
    return used


@njit(INT(BYTES, INT, INT, INT, CELLS, INT, INT, CELLS, DOUBLES), cache=True)
def _imp(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    imp: int,
    cells: NDArray[np.int64],
    used: int,
    deals_max: int,
    bits: NDArray[np.int64],
    doubles: NDArray[np.float64],
) -> int:  # pragma: no cover
    cells[imp + IMP_BEGIN], cells[imp + IMP_END] = at, end
    cells[imp + IMP_ID_BYTES] = cells[imp + TAGID + 1] = cells[imp + IMP_FLOOR + CURRENCY + 1] = _ABSENT
    cells[imp + FLOORS_AT] = cells[imp + FLOORS_END] = end
    placed, formats = False, 0
    while at < end:
        start = at
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if field >= 8 and not placed:
            cells[imp + FLOORS_AT] = cells[imp + FLOORS_END] = start
            placed = True
        if wire_type == LEN:
            size, value = varint(data, at)
            stop = value + size
            format = 0
            if field == 1:
                cells[imp + IMP_ID], cells[imp + IMP_ID_BYTES] = value, size
            elif field == 7:
                cells[imp + TAGID], cells[imp + TAGID + 1] = value, size
            elif field == 9:
                cells[imp + IMP_FLOOR + CURRENCY], cells[imp + IMP_FLOOR + CURRENCY + 1] = value, size
                cells[imp + FLOORS_END] = stop
            elif field == 2:
                format = _BANNER
            elif field == 3:
                format = _VIDEO
            elif field == 15:
                format = _AUDIO
            elif field == 13:
                format = _NATIVE
            elif field == 11:
                cells[imp + PMP_AT], cells[imp + PMP_BEGIN], cells[imp + PMP_END] = start, value, stop
                deals, place = 0, value
                while place < stop:
                    inner, place = varint(data, place)
                    if inner == 2 << 3 | LEN:
                        deals += 1
                    elif inner == 1 << 3 | VARINT:
                        cells[imp + PRIVATE], _ = varint(data, place)
                    place = behind(data, place, inner & 7)
                deal = used
                cells[imp + DEALS], cells[imp + DEALS + 1] = deal, deals
                if deals > deals_max:
                    value = stop  # the request is refused for it
                else:
                    used += deals * DEAL_CELLS
                cells[deal:used] = 0
                place = value
                while place < stop:
                    begun = place
                    inner, place = varint(data, place)
                    if inner != 2 << 3 | LEN:
                        place = behind(data, place, inner & 7)
                        continue
                    size, place = varint(data, place)
                    cells[deal + DEAL_AT] = begun
                    cells[deal + DEAL_BEGIN], cells[deal + DEAL_END] = place, place + size
                    used = _deal(data, place, place + size, deal, cells, used, bits, doubles)
                    deal += DEAL_CELLS
                    place += size
            if format:
                formats += 1
                cells[imp + ONLY] = format
                cells[imp + MEDIA] |= 1 << (format - 1)
                cells[imp + FORMAT_AT + format - 1] = used
                row = used
                used += FORMAT_CELLS
                cells[row:used] = 0
                if format == _BANNER:
                    used = _banner(data, value, stop, row, cells, used)
                elif format == _NATIVE:
                    used = _native(data, value, stop, row, cells, used)
                else:
                    used = _timed(data, value, stop, row, cells, used, format)
            at = stop
            continue
        if wire_type == VARINT and field == 12:
            cells[imp + SECURE], _ = varint(data, at)
        elif wire_type == I64 and field == 8:
            _floor(data, at, cells, imp + IMP_FLOOR, bits, doubles)
            cells[imp + FLOORS_END] = at + 8
        at = behind(data, at, wire_type)
    if formats > 1:
        cells[imp + ONLY] = 0
    return used


@njit(NONE(BYTES, INT, INT, INT, CELLS, INT), cache=True)
def _text(
    data: NDArray[np.uint8], at: int, end: int, field: int, cells: NDArray[np.int64], text: int
) -> None:  # pragma: no cover
    """Write the place of one text of a message."""
    while at < end:
        key, at = varint(data, at)
        if key == field << 3 | LEN:
            size, value = varint(data, at)
            cells[text], cells[text + 1] = value, size
        at = behind(data, at, key & 7)


@njit(NONE(BYTES, INT, INT, CELLS), cache=True)
def _device(data: NDArray[np.uint8], at: int, end: int, cells: NDArray[np.int64]) -> None:  # pragma: no cover
    """Read a device: its type, and the country that it is in."""
    while at < end:
        key, at = varint(data, at)
        if key == _DEVICE_TYPE << 3 | VARINT:
            cells[DEVICE_TYPE], _ = varint(data, at)
        elif key == _DEVICE_GEO << 3 | LEN:
            size, place = varint(data, at)
            _text(data, place, place + size, _GEO_COUNTRY, cells, COUNTRY)
        at = behind(data, at, key & 7)


@njit(INT(BYTES, INT, INT, CELLS), cache=True)
def survey(data: NDArray[np.uint8], imps: int, deals_max: int, cells: NDArray[np.int64]) -> int:  # pragma: no cover
    """Walk over a BidRequest and write its cells.

        data      (bytes,) uint8    as protobuf's serialiser wrote it, without unknown fields
        imps      int               how many impressions it has
        deals_max int               of an impression with more, deals are counted and not read
    out cells     (n,) int64        laid out as named above; n is at least room(bytes, imps)

    Gives how many cells are used.
    """
    bits = np.zeros(1, np.int64)
    doubles = bits.view(np.float64)
    imp = HEAD
    used = HEAD + imps * IMP_CELLS
    cells[:used] = 0
    cells[IMPS], cells[AT], cells[TAXONOMY] = imps, _ABSENT, 1
    cells[ID + 1] = cells[DOMAIN + 1] = cells[COUNTRY + 1] = _ABSENT
    at, end = 0, len(data)
    cells[TMAX_AT] = cells[TMAX_END] = end
    placed = False
    while at < end:
        start = at
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if field >= 8 and not placed:
            cells[TMAX_AT] = cells[TMAX_END] = start
            placed = True
        if wire_type == LEN:
            size, value = varint(data, at)
            at = value + size
            listed = 0
            if field == 2:
                cells[imp + IMP_AT] = start
                used = _imp(data, value, at, imp, cells, used, deals_max, bits, doubles)
                imp += IMP_CELLS
            elif field == 1:
                cells[ID], cells[ID + 1] = value, size
            elif field == 3 or field == 4:
                _text(data, value, at, 3, cells, DOMAIN)
            elif field == 22:
                _text(data, value, at, 6, cells, DOMAIN)
            elif field == 5:
                _device(data, value, at, cells)
            elif field == 9:
                listed = SEATS
            elif field == 11:
                listed = CURRENCIES
            elif field == 12:
                listed = CATEGORIES
            elif field == 13:
                listed = DOMAINS
            elif field == 16:
                listed = APPS
            elif field == 17:
                listed = BLOCKED_SEATS
            elif field == 18:
                listed = LANGUAGES
            elif field == 20:
                listed = TAGS
            if listed and not cells[listed + 1]:
                before = used
                used = _texts(data, start, end, cells, used)
                cells[listed], cells[listed + 1] = before, (used - before) // 2
        elif wire_type == VARINT:
            number, at = varint(data, at)
            if field == 7:
                cells[AT] = number
            elif field == 8:
                cells[TMAX], cells[TMAX_END] = number, at
            elif field == 21:
                cells[TAXONOMY] = number
        else:
            at = behind(data, at, wire_type)
    return used

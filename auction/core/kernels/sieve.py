# Reads bids straight out of reply messages, and says which of them somebody has to look at.
#
# Most bids are fine, and finding that out in Python costs more than all the rest of an auction: a dozen looks into a
# message, each a call, for every bid. So one walk over the bytes does it for all of them. This is a sieve, no judge: of
# a bid that it lets through the columns are written for the clearing kernel, and there is no fault in what it read; one
# that it holds back may have none either, and core/validation.py looks at it. It names no reason for a bid, and refuses
# a reply only for its size (HELD_WHOLE). Whatever is rare is held back rather than understood here: deals, amounts that
# arithmetic on doubles is not certain of or int64 too small for, non-ASCII domains. The seats that a request allows are
# not judged here: core/offers.py asks that of what passed.
#
# The bytes were read by protobuf before, so that they are well-formed; field numbers are those of the contract
# (proto/auction/v1/openrtb.proto), and a field of another wire type than its own is an unknown one. Blocked domains and
# categories are sought in a Bloom filter, which errs on the side of holding back.

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from auction.core.kernels.clear import (
    AT,
    BIDDER,
    COLUMNS,
    COMPETITOR,
    DEAL,
    DEAL_FLOOR,
    FLOOR,
    IMP,
    PRICE,
    RANK,
    RANKED,
    TOLD_FLOOR,
)
from auction.core.kernels.survey import (
    ATTRIBUTES,
    BARE,
    CATEGORIES,
    DOMAINS,
    FORMAT_AT,
    FORMAT_CELLS,
    HEAD,
    IMP_CELLS,
    IMP_ID,
    IMP_ID_BYTES,
    IMPS,
    LEAST,
    LENGTH,
    MOST,
    ONLY,
    SAYS_LENGTH,
    SECURE,
    SIZES,
    TAXONOMY,
)
from auction.core.kernels.wire import (
    BOOL,
    BYTES,
    CELLS,
    DOUBLES,
    I64,
    INT,
    INT32_MAX,
    KEPT_CELLS,
    LEN,
    NONE,
    VARINT,
    behind,
    double_bits,
    near_nanos,
    varint,
)
from auction.model.money import LIMIT, MICROS, NANOS_PER_MICRO

# What a request asks of bids is told by survey.py, from its bytes. The sheet says what else there is to know: a head,
# then groups of cells for replies and terms. "At" is a place in it.
REPLIES: Final = 0  # how many
REPLIES_AT: Final = 1
BIDS_MAX: Final = 2  # of one reply
UNFOLDED_MAX: Final = 3  # bytes of currency and seats in one reply, written out bid by bid
WANTS_CRID: Final = 4
HOLDS_APPS: Final = 5  # a bid that names an app is held back
HOLDS_LANGUAGES: Final = 6  # one that names a language
HOLDS_CATEGORIES: Final = 7  # one that names a category of the blocked taxonomy
CHECKS_SIZE: Final = 8
CHECKS_SECURE: Final = 9  # markup is looked at for http: where the impression is secure
BY_BIDDER: Final = 10  # all bids of a reply are one competitor's
FILTER_BITS: Final = 11  # a power of two
SHEET_HEAD: Final = 12

START: Final = 0  # of the reply in the bytes
END: Final = 1
ORDER: Final = 2  # place of the bidder's name in byte order
OWNER: Final = 3  # the bidder's row in the listings
TERMS_AT: Final = 4  # a group of cells for each impression
CURRENCY_BYTES: Final = 5
HIGHEST: Final = 6  # micros of its currency; a price above is held back
HELD_WHOLE: Final = 7  # out: TOGETHER or TOO_MUCH, else 0
BIDS: Final = 8  # out: how many rows it has
REPLY_CELLS: Final = 9

# Listings: names that the rules keep for each bidder, in one hash table with open addresses. Behind the head each
# bidder has how many of either kind it has, then come the slots; their names are bytes beside it.
SLOTS: Final = 0  # a power of two, more than there are names
LISTINGS_HEAD: Final = 1
SEATS_LISTED: Final = 0  # the only ones that it may bid for; none: any
CREATIVES_LISTED: Final = 1  # those that are not shown
KINDS: Final = 2
LISTED_FOR: Final = 0  # the bidder's row times KINDS, and the kind; -1 where the slot is free
NAME: Final = 1  # place and length in the names
NAME_BYTES: Final = 2
SLOT_CELLS: Final = 3

TOGETHER: Final = 1  # two bids have one name, so all are looked at side by side
TOO_MUCH: Final = 2  # more than the limits allow: it is refused and has no rows

TOLD: Final = 0  # -1: hold back every bid on it
COUNTED: Final = 1
HOW: Final = 2  # 1 own bid, 2 second price plus
TIMES: Final = 3  # a price ranks by price * TIMES // OVER - LESS, but not below 0
OVER: Final = 4
LESS: Final = 5
PRODUCT_MAX: Final = 6  # a price above is held back: its product with TIMES would not fit an int64
TERMS_CELLS: Final = 7

# What comes back of a bid: its columns for the clearing kernel, the cells below, and its price as sent, as bits.
REPLY: Final = 0
SEATBID: Final = 1
PLACE: Final = 2  # within its seatbid
ID: Final = 3  # place and length in the bytes
ID_BYTES: Final = 4
SEAT: Final = 5
SEAT_BYTES: Final = 6
HELD: Final = 7  # 1: held back, and its IMP is -1
BEGIN: Final = 8  # of the bid in the bytes
BEHIND: Final = 9
PRICE_AT: Final = 10  # where its price stands; -1 where that is not one place, or it names a deal without a name
NAMES_DEAL: Final = 11  # 1 if it names a deal
PLACE_CELLS: Final = 12
ROW_CELLS: Final = COLUMNS + PLACE_CELLS + 1

# Numbers of fields: a reply's seatbids, a seatbid's bids and seat, and what is read of a bid.
_FIELD_SEATBID, _FIELD_BID, _FIELD_SEAT = 2, 1, 2
_FIELD_ID, _FIELD_IMPID, _FIELD_PRICE, _FIELD_NURL, _FIELD_ADM, _FIELD_ADOMAIN = 1, 2, 3, 5, 6, 7
_FIELD_CRID, _FIELD_ATTR, _FIELD_DEALID, _FIELD_BUNDLE, _FIELD_CAT, _FIELD_W, _FIELD_H = 10, 11, 13, 14, 15, 16, 17
_FIELD_LANGUAGE, _FIELD_LANGB, _FIELD_CATTAX, _FIELD_DUR, _FIELD_MTYPE, _FIELD_ADM_NATIVE = 25, 29, 30, 32, 33, 50
_BANNER, _VIDEO, _NATIVE = 1, 2, 4
_PRICE_MAX = LIMIT / MICROS
# Blocked attributes that those of a bid are compared with one by one. The standard lists 17; where a request has more,
# bids that list anything are held back, so that a long list in either costs no product of both.
ATTRIBUTES_SIEVED: Final = 64
# FNV-1a of 32 bits: its products fit an int64, so that interpreted and compiled say the same without a warning.
_FNV_OFFSET, _FNV_PRIME, _FNV_BITS = 0x811C9DC5, 0x1000193, 0xFFFFFFFF


@njit(BOOL(BYTES, INT, BYTES, INT, INT), cache=True, inline="always")
def _same(a: NDArray[np.uint8], at: int, b: NDArray[np.uint8], start: int, size: int) -> bool:  # pragma: no cover
    for k in range(size):  # noqa: SIM110  # a generator is an object
        if a[at + k] != b[start + k]:
            return False
    return True


@njit(INT(INT, INT), cache=True, inline="always")
def _bit(folded: int, bits: int) -> int:  # pragma: no cover
    return (folded ^ (folded >> 17)) & (bits - 1)


@njit(INT(BYTES, INT, INT, INT), cache=True)
def slot_of(data: NDArray[np.uint8], at: int, size: int, listed_for: int) -> int:  # pragma: no cover
    """Fold a name and for whom it is listed; the low bits are the slot where to look first."""
    folded: Any = (_FNV_OFFSET ^ listed_for) * _FNV_PRIME & _FNV_BITS
    for k in range(at, at + size):
        folded = (folded ^ np.int64(data[k])) * _FNV_PRIME & _FNV_BITS
    return int(folded ^ (folded >> 17))


@njit(BOOL(BYTES, INT, INT, INT, BYTES, CELLS), cache=True)
def _is_listed(
    data: NDArray[np.uint8],
    at: int,
    size: int,
    listed_for: int,
    names: NDArray[np.uint8],
    listings: NDArray[np.int64],
) -> bool:  # pragma: no cover
    slots = listings[SLOTS]
    first = len(listings) - slots * SLOT_CELLS
    slot = slot_of(data, at, size, listed_for) & (slots - 1)
    while True:
        cell = first + slot * SLOT_CELLS
        if listings[cell + LISTED_FOR] < 0:
            return False
        if (
            listings[cell + LISTED_FOR] == listed_for
            and listings[cell + NAME_BYTES] == size
            and _same(data, at, names, listings[cell + NAME], size)
        ):
            return True
        slot = (slot + 1) & (slots - 1)


@njit(BOOL(BYTES, INT, INT), cache=True, inline="always")
def _holds_http(data: NDArray[np.uint8], at: int, size: int) -> bool:  # pragma: no cover
    """Tell whether text holds "http:" in any case."""
    for k in range(at + 4, at + size):
        t_p = data[k] == 58 and data[k - 1] | 32 == 112 and data[k - 2] | 32 == 116
        if t_p and data[k - 3] | 32 == 116 and data[k - 4] | 32 == 104:
            return True
    return False


@njit(BOOL(BYTES, INT, INT, CELLS), cache=True, inline="always")
def _may_be_blocked(
    data: NDArray[np.uint8], at: int, size: int, blocked: NDArray[np.int64]
) -> bool:  # pragma: no cover
    """Tell whether a domain, or one above it, may be among the blocked ones."""
    bits = len(blocked) * 64
    folded = _FNV_OFFSET
    end = at + size
    if size and data[end - 1] == 46:  # the dot of the root
        end -= 1
    for k in range(end - 1, at - 1, -1):
        byte: Any = np.int64(data[k])
        if byte >= 128:
            return True
        if byte == 46:
            bit = _bit(folded, bits)
            if blocked[bit >> 6] >> (bit & 63) & 1:
                return True
        if 65 <= byte <= 90:
            byte += 32
        folded = (folded ^ byte) * _FNV_PRIME & _FNV_BITS
    bit = _bit(folded, bits)
    return bool(blocked[bit >> 6] >> (bit & 63) & 1)


@njit(INT(BYTES, INT, INT), cache=True, inline="always")
def _category(data: NDArray[np.uint8], at: int, size: int) -> int:  # pragma: no cover
    folded: Any = _FNV_OFFSET ^ 255  # no domain ends like this, so the two kinds share a filter
    for k in range(at + size - 1, at - 1, -1):
        folded = (folded ^ np.int64(data[k])) * _FNV_PRIME & _FNV_BITS
    return int(folded)


@njit(NONE(BYTES, KEPT_CELLS, CELLS), cache=True)
def _fill_filter(
    request: NDArray[np.uint8], asked: NDArray[np.int64], blocked: NDArray[np.int64]
) -> None:  # pragma: no cover
    # Domains that are not ASCII need no care: bids that name such a one are held back anyway.
    bits = len(blocked) * 64
    for k in range(asked[DOMAINS + 1]):
        text = asked[DOMAINS] + 2 * k
        start = asked[text]
        end = start + asked[text + 1]
        if end > start and request[end - 1] == 46:  # the dot of the root
            end -= 1
        folded: Any = _FNV_OFFSET
        j = end - 1
        while j >= start:
            byte: Any = np.int64(request[j])
            if 65 <= byte <= 90:
                byte += 32
            elif byte == 0xAA and j - 2 >= start and request[j - 1] == 0x84 and request[j - 2] == 0xE2:
                # The sign of the kelvin is the one letter beyond ASCII that is an ASCII letter, k, in lower case.
                byte = np.int64(107)
                j -= 2
            j -= 1
            folded = (folded ^ byte) * _FNV_PRIME & _FNV_BITS
        if end > start:
            bit = _bit(folded, bits)
            blocked[bit >> 6] |= np.int64(1) << (bit & 63)
    for k in range(asked[CATEGORIES + 1]):
        text = asked[CATEGORIES] + 2 * k
        bit = _bit(_category(request, asked[text], asked[text + 1]), bits)
        blocked[bit >> 6] |= np.int64(1) << (bit & 63)


@njit(BOOL(BYTES, INT, INT, INT, BOOL, BOOL, INT, KEPT_CELLS, CELLS), cache=True)
def _lists_something_blocked(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    format_at: int,
    looks_at_domains: bool,
    looks_at_categories: bool,
    attributes: int,
    asked: NDArray[np.int64],
    blocked: NDArray[np.int64],
) -> bool:  # pragma: no cover
    """Go over a bid once more, for its domains, categories and attributes."""
    bits = len(blocked) * 64
    numbers = format_at + FORMAT_CELLS
    while at < end:
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == LEN:
            size, at = varint(data, at)
            if field == _FIELD_ADOMAIN and looks_at_domains and _may_be_blocked(data, at, size, blocked):
                return True
            if field == _FIELD_CAT and looks_at_categories:
                bit = _bit(_category(data, at, size), bits)
                if blocked[bit >> 6] >> (bit & 63) & 1:
                    return True
            if field == _FIELD_ATTR and attributes:
                stop = at + size
                while at < stop:
                    number, at = varint(data, at)
                    for k in range(attributes):
                        # What has more bits than an int32 is read as one of fewer.
                        if number == asked[numbers + k] or number != number & INT32_MAX:
                            return True
            else:
                at += size
        elif wire_type == VARINT:
            number, at = varint(data, at)
            if field == _FIELD_ATTR:
                for k in range(attributes):
                    if number == asked[numbers + k] or number != number & INT32_MAX:
                        return True
        else:
            at = behind(data, at, wire_type)
    return False


@njit(BOOL(BYTES, CELLS, INT, INT), cache=True)
def _repeats(data: NDArray[np.uint8], places: NDArray[np.int64], first: int, rows: int) -> bool:  # pragma: no cover
    """Tell whether two bids of one reply have the same seat and id."""
    for i in range(first, rows):
        a = i * PLACE_CELLS
        for j in range(first, i):
            b = j * PLACE_CELLS
            if (
                places[a + ID_BYTES] == places[b + ID_BYTES]
                and places[a + SEAT_BYTES] == places[b + SEAT_BYTES]
                and _same(data, places[a + ID], data, places[b + ID], places[a + ID_BYTES])
                and _same(data, places[a + SEAT], data, places[b + SEAT], places[a + SEAT_BYTES])
            ):
                return True
    return False


@njit(
    INT(BYTES, INT, INT, BYTES, KEPT_CELLS, CELLS, CELLS, BYTES, CELLS, INT, INT, CELLS, CELLS, CELLS, DOUBLES),
    cache=True,
)
def _hold(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    request: NDArray[np.uint8],
    asked: NDArray[np.int64],
    sheet: NDArray[np.int64],
    blocked: NDArray[np.int64],
    names: NDArray[np.uint8],
    listings: NDArray[np.int64],
    reply: int,
    row: int,
    columns: NDArray[np.int64],
    places: NDArray[np.int64],
    price_bits: NDArray[np.int64],
    prices: NDArray[np.float64],
) -> int:  # pragma: no cover
    """Read one bid; 0 if it needs no second look and its columns are written, 1 to hold it back."""
    id_at, id_bytes, imp_at, imp_bytes = 0, 0, 0, 0
    adm, adm_bytes, nurl, nurl_bytes, crid, crid_bytes = 0, 0, 0, 0, 0, 0
    deal_bytes, app_bytes, language_bytes = 0, 0, 0
    width, height, taxonomy, seconds, format = 0, 0, 1, -1, 0
    lists, odd, nameless = False, False, False
    price_at, prices_given = -1, 0
    at = start
    while at < end:
        key, at = varint(data, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == LEN:
            size, at = varint(data, at)
            if field == _FIELD_ID:
                id_at, id_bytes = at, size
            elif field == _FIELD_IMPID:
                imp_at, imp_bytes = at, size
            elif field == _FIELD_NURL:
                nurl, nurl_bytes = at, size
            elif field == _FIELD_ADM:
                adm, adm_bytes = at, size
            elif field == _FIELD_ADOMAIN or field == _FIELD_ATTR or field == _FIELD_CAT:
                lists = True
            elif field == _FIELD_CRID:
                crid, crid_bytes = at, size
            elif field == _FIELD_DEALID:
                deal_bytes = size
                nameless = nameless or not size
            elif field == _FIELD_BUNDLE:
                app_bytes = size
            elif field == _FIELD_LANGUAGE or field == _FIELD_LANGB:
                language_bytes += size
            elif field == _FIELD_ADM_NATIVE:
                odd = True
            at += size
        elif wire_type == VARINT:
            number, at = varint(data, at)
            if field == _FIELD_ATTR:
                lists = True
            elif (
                field == _FIELD_W
                or field == _FIELD_H
                or field == _FIELD_CATTAX
                or field == _FIELD_DUR
                or field == _FIELD_MTYPE
            ):
                odd = odd or number < 0 or number > INT32_MAX
                if field == _FIELD_W:
                    width = number
                elif field == _FIELD_H:
                    height = number
                elif field == _FIELD_CATTAX:
                    taxonomy = number
                elif field == _FIELD_DUR:
                    seconds = number
                else:
                    format = number
        elif wire_type == I64:
            if field == _FIELD_PRICE:
                price_bits[row] = double_bits(data, at)
                price_at = at
                prices_given += 1
            at += 8
        else:
            at = behind(data, at, wire_type)
    places[row * PLACE_CELLS + ID] = id_at
    places[row * PLACE_CELLS + ID_BYTES] = id_bytes
    places[row * PLACE_CELLS + BEGIN] = start
    places[row * PLACE_CELLS + BEHIND] = end
    places[row * PLACE_CELLS + NAMES_DEAL] = deal_bytes > 0
    places[row * PLACE_CELLS + PRICE_AT] = -1 if nameless or prices_given != 1 else price_at
    if odd or not id_bytes or deal_bytes or (sheet[WANTS_CRID] and not crid_bytes):
        return 1
    if (sheet[HOLDS_APPS] and app_bytes) or (sheet[HOLDS_LANGUAGES] and language_bytes):
        return 1
    price = prices[row]
    nanos = near_nanos(price) if 0 < price <= _PRICE_MAX else -1
    micros = nanos // NANOS_PER_MICRO
    if nanos < NANOS_PER_MICRO or micros > sheet[reply + HIGHEST]:
        return 1
    owner = sheet[reply + OWNER]
    if listings[LISTINGS_HEAD + owner * KINDS + CREATIVES_LISTED] and _is_listed(
        data, crid, crid_bytes, owner * KINDS + CREATIVES_LISTED, names, listings
    ):
        return 1

    imp = 0
    while imp < asked[IMPS]:
        cell = HEAD + imp * IMP_CELLS
        if asked[cell + IMP_ID_BYTES] == imp_bytes and _same(data, imp_at, request, asked[cell + IMP_ID], imp_bytes):
            break
        imp += 1
    if imp == asked[IMPS]:
        return 1
    cell = HEAD + imp * IMP_CELLS
    terms = sheet[reply + TERMS_AT] + imp * TERMS_CELLS
    if sheet[terms + TOLD] < 0 or micros > sheet[terms + PRODUCT_MAX]:
        return 1
    ranked = micros * sheet[terms + TIMES] // sheet[terms + OVER] - sheet[terms + LESS]
    if ranked > LIMIT:
        return 1
    if not format:
        format = asked[cell + ONLY]
    if format < _BANNER or format > _NATIVE:
        return 1
    wanted = asked[cell + FORMAT_AT + format - 1]
    if not wanted:
        return 1
    if not adm_bytes:
        adm, adm_bytes = nurl, nurl_bytes
    if (format == _VIDEO or format == _NATIVE) and not adm_bytes:
        return 1
    if asked[cell + SECURE] and sheet[CHECKS_SECURE] and _holds_http(data, adm, adm_bytes):
        return 1
    attributes, sizes = asked[wanted + ATTRIBUTES], asked[wanted + SIZES]
    if format == _BANNER and sheet[CHECKS_SIZE] and not (width == 0 and height == 0 and asked[wanted + BARE]):
        pair = wanted + FORMAT_CELLS + attributes
        fits = sizes == 0 and asked[wanted + BARE] == 1
        for k in range(sizes):
            fits = fits or (width == asked[pair + 2 * k] and height == asked[pair + 2 * k + 1])
        if not fits:
            return 1
    if asked[wanted + LENGTH] == 2 or (seconds < 0 and asked[wanted + SAYS_LENGTH]):
        return 1
    if asked[wanted + LENGTH] and seconds >= 0 and not asked[wanted + LEAST] <= seconds <= asked[wanted + MOST]:
        return 1
    if lists:
        categories = asked[CATEGORIES + 1] > 0 and taxonomy == asked[TAXONOMY]
        domains = asked[DOMAINS + 1] > 0
        if (categories and sheet[HOLDS_CATEGORIES]) or attributes > ATTRIBUTES_SIEVED:
            return 1
        if _lists_something_blocked(data, start, end, wanted, domains, categories, attributes, asked, blocked):
            return 1

    column = row * COLUMNS
    columns[column + IMP] = imp
    columns[column + PRICE] = micros
    columns[column + TOLD_FLOOR] = sheet[terms + TOLD]
    columns[column + DEAL_FLOOR] = 0
    columns[column + RANKED] = max(ranked, 0)
    columns[column + FLOOR] = sheet[terms + COUNTED]
    columns[column + AT] = sheet[terms + HOW]
    columns[column + DEAL] = 0
    return 0


@njit(INT(BYTES, BYTES, KEPT_CELLS, CELLS, BYTES, CELLS, CELLS), cache=True)
def sift(
    data: NDArray[np.uint8],
    request: NDArray[np.uint8],
    asked: NDArray[np.int64],
    sheet: NDArray[np.int64],
    names: NDArray[np.uint8],
    listings: NDArray[np.int64],
    out: NDArray[np.int64],
) -> int:
    """Read every bid of every reply; write what the clearing kernel takes of those that need no second look.

        data     (bytes,) uint8         the replies, one behind the other, each a well-formed BidResponse
        request  (bytes,) uint8         and
        asked    (cells,) int64         as survey.py has them
        sheet    (cells,) int64         what else there is to know, laid out as named above; some cells are out
        names    (bytes,) uint8         of the listings
        listings (cells,) int64         what the rules keep for each bidder
    out out      (n * ROW_CELLS,) int64 for n rows: columns of the clearing kernel, IMP -1 where one is held back; then
                                        places; then prices as sent, the bits of a double, 0 where there is none

    Gives the number of rows; n is at least REPLIES * BIDS_MAX or half the bytes. A reply with more bids has no row.
    """
    n = len(out) // ROW_CELLS
    columns, places = out[: n * COLUMNS], out[n * COLUMNS : n * (COLUMNS + PLACE_CELLS)]
    price_bits = out[n * (COLUMNS + PLACE_CELLS) : n * ROW_CELLS]
    prices = price_bits.view(np.float64)
    blocked = np.zeros(sheet[FILTER_BITS] // 64, np.int64)
    _fill_filter(request, asked, blocked)
    rows = 0
    competitors = 0
    for k in range(sheet[REPLIES]):
        reply = sheet[REPLIES_AT] + k * REPLY_CELLS
        first = rows
        at, end = sheet[reply + START], sheet[reply + END]
        seatbids = 0
        whole, unfolded = 0, 0
        while at < end and not whole:
            key, at = varint(data, at)
            wire_type = key & 7
            if wire_type != LEN:
                at = behind(data, at, wire_type)
                continue
            size, at = varint(data, at)
            if key >> 3 != _FIELD_SEATBID:
                at += size
                continue
            seat, seat_bytes, bids, opened = 0, 0, 0, rows
            stop = at + size
            while at < stop and not whole:
                key, at = varint(data, at)
                wire_type = key & 7
                if wire_type != LEN:
                    at = behind(data, at, wire_type)
                    continue
                size, at = varint(data, at)
                if key >> 3 == _FIELD_SEAT:
                    seat, seat_bytes = at, size
                elif key >> 3 == _FIELD_BID:
                    if rows - first >= sheet[BIDS_MAX]:
                        whole = TOO_MUCH
                        break
                    row = rows * PLACE_CELLS
                    places[row + REPLY] = k
                    places[row + SEATBID] = seatbids
                    places[row + PLACE] = bids
                    price_bits[rows] = 0
                    held = _hold(
                        data, at, at + size, request, asked, sheet, blocked, names, listings, reply, rows, columns,
                        places, price_bits, prices,
                    )  # fmt: skip
                    places[row + HELD] = held
                    if held:
                        columns[rows * COLUMNS + IMP] = -1
                    columns[rows * COLUMNS + RANK] = 0
                    columns[rows * COLUMNS + BIDDER] = sheet[reply + ORDER]
                    bids += 1
                    rows += 1
                at += size
            competitor = k
            if not sheet[BY_BIDDER]:
                competitor = competitors
                for other in range(first, opened):
                    cell = other * PLACE_CELLS
                    if places[cell + SEAT_BYTES] == seat_bytes and _same(
                        data, places[cell + SEAT], data, seat, seat_bytes
                    ):
                        competitor = columns[other * COLUMNS + COMPETITOR]
                        break
                if competitor == competitors:
                    competitors += 1
            owner = sheet[reply + OWNER]
            refused = listings[LISTINGS_HEAD + owner * KINDS + SEATS_LISTED] and not (
                seat_bytes and _is_listed(data, seat, seat_bytes, owner * KINDS + SEATS_LISTED, names, listings)
            )
            for row in range(opened, rows):
                places[row * PLACE_CELLS + SEAT] = seat
                places[row * PLACE_CELLS + SEAT_BYTES] = seat_bytes
                columns[row * COLUMNS + COMPETITOR] = competitor
                if refused:
                    places[row * PLACE_CELLS + HELD] = 1
                    columns[row * COLUMNS + IMP] = -1
            seatbids += 1
            unfolded += bids * (seat_bytes + sheet[reply + CURRENCY_BYTES])
        if whole == TOO_MUCH or unfolded > sheet[UNFOLDED_MAX]:
            # What a reply says once, every bid has beside it from here on, and in the record.
            whole, rows = TOO_MUCH, first
        elif _repeats(data, places, first, rows):
            whole = TOGETHER
        sheet[reply + HELD_WHOLE] = whole
        sheet[reply + BIDS] = rows - first
    return rows

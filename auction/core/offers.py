# The bids of an auction as rows: read, checked, and laid out for the clearing kernel.
#
# kernels/sieve.py walks over the bytes of all replies at once and writes the rows of bids in which it finds nothing to
# ask; `_finer` puts to those what concerns few bidders. validation.py looks at whatever either holds back, one by one,
# and is the only place that says what is wrong with a bid. Nothing depends on how many are held back but time, and
# tests/test_sieve.py sends every bid both ways.

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from auction.core.floors import Terms
from auction.core.kernels import sieve as cells
from auction.core.kernels.clear import BIDDER, COLUMNS, COMPETITOR, IMP, PRICE, RANK, RANKED
from auction.core.kernels.sieve import PLACE_CELLS, REPLY_CELLS, sift
from auction.core.openrtb import protobuf
from auction.core.validation import Checks, Offerer, Verdict
from auction.model.money import LIMIT, CpmMicros
from auction.model.reply import Bid
from auction.model.request import BANNER, BidRequest, Format
from auction.model.rules import ExchangeRules, Limits
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage

# A floor told in a small currency may be beyond int64; no bid reaches it, since none above the limit gets this far.
UNREACHABLE = CpmMicros(LIMIT + 1)
# Bits of the sieve's filter for each text in it: one in eight false alarms at most, and they cost only time.
FILTER_BITS_PER_TEXT = 8
# 2 KiB while few texts are blocked; 128 KiB hold more than a request has room for.
FILTER_BITS_MIN, FILTER_BITS_MAX = 4096, 1 << 20


class Heard(msgspec.Struct, frozen=True, gc=False):
    """A reply with something in it: whose (a row of the rules), what it was asked for, its message."""

    bidder: int
    rules: Offerer
    asked: tuple[int, ...]
    body: bytes
    wire: ResponseMessage
    currency: str


class Offered(msgspec.Struct, frozen=True, gc=False):
    """The rows of one reply: `count` from `first` on. `terms` per impression, for rows that were not held back.

    `held` has the verdict of every row that was; `excessive`: it had more than anybody looks at, and has no rows.
    """

    heard: Heard
    first: int
    count: int
    terms: Sequence[Terms | None]
    held: Mapping[int, Verdict]
    excessive: bool


class Offers(msgspec.Struct, frozen=True, gc=False):
    """All bids of an auction: `columns` for clearing, `places` and `prices` as kernels/sieve.py gives them."""

    columns: NDArray[np.int64]
    places: list[int]
    prices: list[float]
    data: bytes
    replies: list[Offered]

    def found(self, row: int) -> tuple[Heard, tuple[int, int]]:
        """Give the reply that a bid stands in, and its seatbid and place there."""
        at = row * PLACE_CELLS
        reply = self.replies[self.places[at + cells.REPLY]].heard
        return reply, (self.places[at + cells.SEATBID], self.places[at + cells.PLACE])

    def id(self, row: int) -> str:
        """Give a bid's id."""
        at = self.places[row * PLACE_CELLS + cells.ID]
        return self.data[at : at + self.places[row * PLACE_CELLS + cells.ID_BYTES]].decode()

    def seat(self, row: int) -> str:
        """Give the seat of a bid, empty for none."""
        at = self.places[row * PLACE_CELLS + cells.SEAT]
        return self.data[at : at + self.places[row * PLACE_CELLS + cells.SEAT_BYTES]].decode()


def offers(
    heard: Sequence[Heard],
    request: BidRequest,
    exchange: ExchangeRules,
    checks: Checks,
    order: Sequence[int],
    limits: Limits,
    *,
    sieved: bool = True,
) -> Offers:
    """Read the bids of all replies and check them; `order` has each bidder's place in the byte order of names.

    `sieved` False has every bid looked at one by one, to the same end.
    """
    if not heard:
        return Offers(np.empty(0, np.int64), [], [], b"", [])
    texts = bytearray()
    sheet = _sheet(request, exchange, checks, texts)
    sheet[cells.REPLIES], sheet[cells.REPLIES_AT] = len(heard), len(sheet)
    sheet[cells.BIDS_MAX], sheet[cells.UNFOLDED_MAX] = limits.bids_per_reply, limits.reply_bytes
    at = 0
    for reply in heard:
        end = at + len(reply.body)
        sheet += (at, end, order[reply.bidder], 0, len(reply.currency.encode()), LIMIT, 0, 0)
        at = end
    terms = _write_terms(sheet, heard, request, checks, sieved)

    data = b"".join([reply.body for reply in heard])
    # No bid is shorter than its tag and its length.
    rows_max = min(len(heard) * limits.bids_per_reply, len(data) // 2)
    columns = np.empty(rows_max * COLUMNS, np.int64)
    places = np.empty(rows_max * PLACE_CELLS, np.int64)
    prices = np.empty(rows_max, np.float64)
    kept = np.frombuffer(array("q", sheet), np.int64)
    rows = sift(np.frombuffer(data, np.uint8), np.frombuffer(texts, np.uint8), kept, columns, places, prices)
    columns, told = columns[: rows * COLUMNS], kept[sheet[cells.REPLIES_AT] :].tolist()
    found = places[: rows * PLACE_CELLS].tolist()
    replies = []
    first = 0
    for row, reply in enumerate(heard):
        whole, count = told[row * REPLY_CELLS + cells.HELD_WHOLE], told[row * REPLY_CELLS + cells.BIDS]
        held: dict[int, Verdict] = {}
        if whole == cells.TOGETHER:
            held = _looked_at(reply, range(first, first + count), protobuf.bids(reply.wire), checks)
        else:
            passes = _finer(reply, terms[row], request, checks, columns, found, data)
            for place in range(first, first + count):
                if found[place * PLACE_CELLS + cells.HELD] or (passes is not None and not passes(place)):
                    seatbid, bid = found[place * PLACE_CELLS + cells.SEATBID], found[place * PLACE_CELLS + cells.PLACE]
                    held |= _looked_at(reply, (place,), (protobuf.bid(reply.wire, seatbid, bid),), checks)
        for place, verdict in held.items():
            _write(columns, place, verdict)
        replies.append(Offered(reply, first, count, terms[row], held, whole == cells.TOO_MUCH))
        first += count
    return Offers(columns, found, prices[:rows].tolist(), data, replies)


def _finer(
    reply: Heard,
    terms: Sequence[Terms | None],
    request: BidRequest,
    checks: Checks,
    columns: NDArray[np.int64],
    places: Sequence[int],
    data: bytes,
) -> Callable[[int], bool] | None:
    """Give what else a row has to pass where a bidder's seats, creatives, currency or weight matter; None: nothing.

    A row that passes has its ranked price in the columns.
    """
    rules = reply.rules
    scaled = any(one is not None and not one.scale.plain for one in terms)
    if not (scaled or rules.seats or rules.blocked_creatives or request.seats or request.blocked_seats):
        return None
    way = checks.way(reply.currency)
    if way is None:
        return None  # and every row was held back for that
    highest = checks.highest

    def text(at: int, size: int) -> str:
        return data[at : at + size].decode()

    def passes(row: int) -> bool:
        at, column = row * PLACE_CELLS, row * COLUMNS
        if not checks.takes_seat(rules, text(places[at + cells.SEAT], places[at + cells.SEAT_BYTES])):
            return False
        if rules.blocked_creatives:
            crid = text(places[at + cells.CRID], places[at + cells.CRID_BYTES])
            if crid in rules.blocked_creatives:
                return False
        if scaled:
            standing = terms[columns[column + IMP]]
            price = CpmMicros(int(columns[column + PRICE]))
            assert standing is not None
            ranked = standing.scale.ranked(price)
            if way.ranked(price) > highest or ranked > LIMIT:
                return False
            columns[column + RANKED] = ranked
        return True

    return passes


def _looked_at(reply: Heard, rows: Sequence[int], bids: Sequence[Bid], checks: Checks) -> dict[int, Verdict]:
    verdicts = checks.verdicts(reply.bidder, reply.rules, reply.asked, reply.currency, bids)
    return dict(zip(rows, verdicts, strict=True))


def _write(columns: NDArray[np.int64], row: int, verdict: Verdict) -> None:
    """Write a row for the clearing kernel, in the order of its columns; what the sieve wrote of any bid stays."""
    at = row * COLUMNS
    terms = verdict.terms
    if terms is None:
        columns[at + IMP] = -1
        return
    columns[at : at + COLUMNS] = (
        verdict.imp,
        columns[at + COMPETITOR],
        verdict.price,
        min(terms.told, UNREACHABLE),
        min(terms.deal_told, UNREACHABLE),
        verdict.ranked,
        terms.counted if terms.agreed < 0 else terms.agreed,
        terms.at,
        terms.deal,
        columns[at + RANK],
        columns[at + BIDDER],
    )


def _write_terms(
    sheet: list[int], heard: Sequence[Heard], request: BidRequest, checks: Checks, sieved: bool
) -> list[list[Terms | None]]:
    """Write what open bids of each reply answer to, once for all replies alike; give the terms too."""
    alike: dict[tuple[object, ...], tuple[int, list[Terms | None]]] = {}
    every = []
    for row, reply in enumerate(heard):
        key = (checks.group(reply.bidder), reply.currency, reply.asked)
        if key not in alike:
            alike[key] = (len(sheet), [])
            for place, imp in enumerate(request.imps):
                terms = None
                if sieved and place in reply.asked and not imp.private_auction:
                    terms = checks.open_terms(reply.bidder, reply.rules.name, place, imp, reply.currency)
                alike[key][1].append(terms)
                sheet += (-1, 0, 0) if terms is None else (min(terms.told, UNREACHABLE), terms.counted, terms.at)
        at, terms_of = alike[key]
        cell = sheet[cells.REPLIES_AT] + row * REPLY_CELLS
        sheet[cell + cells.TERMS_AT] = at
        # A price in another currency is compared with what is allowed once it is ours.
        sheet[cell + cells.HIGHEST] = checks.highest if reply.currency == checks.currency else LIMIT
        every.append(terms_of)
    return every


def _sheet(request: BidRequest, exchange: ExchangeRules, checks: Checks, texts: bytearray) -> list[int]:
    """Write what the request asks of every bid, as kernels/sieve.py names it; texts of it go beside."""
    sheet = [0] * (cells.HEAD + len(request.imps) * cells.IMP_CELLS)
    sheet[cells.IMPS] = len(request.imps)
    sheet[cells.WANTS_CRID] = exchange.crid != "off"
    sheet[cells.CHECKS_SIZE] = exchange.size != "off"
    sheet[cells.BY_BIDDER] = exchange.competitor == "bidder"
    for row, imp in enumerate(request.imps):
        id = imp.id.encode()
        formats = [0, 0, 0, 0]
        for number, format in imp.formats.items():
            formats[number - 1] = len(sheet)
            sheet += _format(number, format)
        at = cells.HEAD + row * cells.IMP_CELLS
        secure = imp.secure and exchange.secure != "off"
        sheet[at : at + cells.IMP_CELLS] = (len(texts), len(id), imp.only, secure, *formats)
        texts += id
    sheet[cells.DOMAINS] = len(texts)
    blocks = request.blocks
    blocked = 0
    if blocks is not None:
        sheet[cells.TAXONOMY] = blocks.taxonomy
        sheet[cells.HOLDS_APPS] = bool(blocks.apps)
        sheet[cells.HOLDS_LANGUAGES] = blocks.speak
        sheet[cells.HOLDS_CATEGORIES] = exchange.category_match == "parents"
        blocked = len(blocks.advertisers) + len(blocks.categories)
        for text in blocks.advertisers:
            encoded = text.encode()
            texts += len(encoded).to_bytes(4, "big") + encoded
    sheet[cells.CATEGORIES] = len(texts)
    if blocks is not None:
        for text in blocks.categories:
            encoded = text.encode()
            texts += len(encoded).to_bytes(4, "big") + encoded
    sheet[cells.TEXTS_END] = len(texts)
    bits = FILTER_BITS_MIN
    while bits < FILTER_BITS_MAX and bits < blocked * FILTER_BITS_PER_TEXT:
        bits *= 2
    sheet[cells.FILTER_AT], sheet[cells.FILTER_BITS] = len(sheet), bits
    sheet += _NO_BITS if bits == FILTER_BITS_MIN else [0] * (bits // 64)
    return sheet


_NO_BITS = [0] * (FILTER_BITS_MIN // 64)


def _format(number: int, format: Format) -> list[int]:
    length = format.length
    least, most, kind, says = 0, 0, 0, False
    if format.timed is not None or (length is not None and length.exact):
        kind = 2
    elif length is not None:
        least, most = length.least, _INT32_MAX if length.most is None else length.most
        kind, says = 1, length.pod
    bare = number != BANNER or not (format.ratios or len(format.sizes) > 1)
    sizes = [side for size in format.sizes for side in size]
    attributes = format.attributes
    return [len(attributes), len(sizes) // 2, bare, least, most, kind, says, *attributes, *sizes]


_INT32_MAX = 2**31 - 1

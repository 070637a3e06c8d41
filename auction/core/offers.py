# The bids of an auction as rows: read, checked, and laid out for the clearing kernel.
#
# kernels/sieve.py walks over the bytes of all replies at once and writes the rows of bids in which it finds nothing to
# ask. validation.py looks at whatever it holds back, one by one, and is the only place that says what is wrong with a
# bid. Nothing depends on how many are held back but time, and
# tests/test_sieve.py sends every bid both ways.

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from auction.core.kernels import sieve as cells
from auction.core.kernels.clear import BIDDER, COLUMNS, COMPETITOR, IMP, RANK
from auction.core.kernels.sieve import PLACE_CELLS, REPLY_CELLS, ROW_CELLS, sift
from auction.core.listings import Listings
from auction.core.openrtb.replies import bid_at, bids_of
from auction.core.validation import Checks, Offerer, Verdict
from auction.model.auction import Terms
from auction.model.money import LIMIT, CpmMicros
from auction.model.reply import Bid
from auction.model.request import BidRequest, Survey
from auction.model.rules import ExchangeRules, Limits
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage

# A floor told in a small currency may be beyond int64; no bid reaches it, since none above the limit gets this far.
UNREACHABLE = CpmMicros(LIMIT + 1)
INT64_MAX = 2**63 - 1
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

    def sent(self, row: int) -> tuple[bytes, int]:
        """Give a bid's message, and where its price stands in it; -1 where that is not one place."""
        at = row * PLACE_CELLS
        begin, behind, price = self.places[at + cells.BEGIN : at + cells.PRICE_AT + 1]
        return self.data[begin:behind], price - begin if price >= 0 else -1

    def names_deal(self, row: int) -> bool:
        """Tell whether a bid says that it is for a deal."""
        return bool(self.places[row * PLACE_CELLS + cells.NAMES_DEAL])

    def id(self, row: int) -> str:
        """Give a bid's id."""
        at = self.places[row * PLACE_CELLS + cells.ID]
        return self.data[at : at + self.places[row * PLACE_CELLS + cells.ID_BYTES]].decode()

    def seat(self, row: int) -> str:
        """Give the seat of a bid, empty for none."""
        return _seat(self.data, self.places, row)


def offers(
    heard: Sequence[Heard],
    request: BidRequest,
    survey: Survey,
    exchange: ExchangeRules,
    checks: Checks,
    order: Sequence[int],
    listings: Listings,
    limits: Limits,
    *,
    sieved: bool = True,
) -> Offers:
    """Read the bids of all replies and check them; `order` has each bidder's place in the byte order of names.

    `sieved` False has every bid looked at one by one, to the same end.
    """
    if not heard:
        return Offers(np.empty(0, np.int64), [], [], b"", [])
    sheet = _sheet(request, exchange, limits, len(heard))
    at = 0
    for reply in heard:
        end = at + len(reply.body)
        sheet += (at, end, order[reply.bidder], reply.bidder, 0, len(reply.currency.encode()), LIMIT, 0, 0)
        at = end
    terms = _write_terms(sheet, heard, request, checks, sieved)

    data = b"".join([reply.body for reply in heard])
    # No bid is shorter than its tag and its length.
    rows_max = min(len(heard) * limits.bids_per_reply, len(data) // 2)
    out = np.empty(rows_max * ROW_CELLS, np.int64)
    kept = np.frombuffer(array("q", sheet), np.int64)
    bodies, asked = np.frombuffer(data, np.uint8), np.frombuffer(survey.body, np.uint8)
    rows = sift(bodies, asked, np.frombuffer(survey.cells, np.int64), kept, listings.names, listings.cells, out)
    columns, told = out[: rows * COLUMNS], kept[sheet[cells.REPLIES_AT] :].tolist()
    at = rows_max * COLUMNS
    found = out[at : at + rows * PLACE_CELLS].tolist()
    at += rows_max * PLACE_CELLS
    prices = out[at : at + rows].view(np.float64).tolist()
    # Seats that the request allows concern few auctions, and are asked of each row that passed.
    asks_seats = request.seats or request.blocked_seats
    replies: list[Offered] = []
    first = 0
    for row, reply in enumerate(heard):
        whole, count = told[row * REPLY_CELLS + cells.HELD_WHOLE], told[row * REPLY_CELLS + cells.BIDS]
        held: dict[int, Verdict] = {}
        if whole == cells.TOGETHER:
            held = _looked_at(reply, range(first, first + count), bids_of(reply.wire), checks)
        else:
            for place in range(first, first + count):
                if found[place * PLACE_CELLS + cells.HELD] or (
                    asks_seats and not checks.takes_seat(reply.rules, _seat(data, found, place))
                ):
                    seatbid, bid = found[place * PLACE_CELLS + cells.SEATBID], found[place * PLACE_CELLS + cells.PLACE]
                    held |= _looked_at(reply, (place,), (bid_at(reply.wire, seatbid, bid),), checks)
        for place, verdict in held.items():
            _write(columns, place, verdict)
        replies.append(Offered(reply, first, count, terms[row], held, whole == cells.TOO_MUCH))
        first += count
    return Offers(columns, found, prices, data, replies)


def _seat(data: bytes, places: Sequence[int], row: int) -> str:
    at = places[row * PLACE_CELLS + cells.SEAT]
    return data[at : at + places[row * PLACE_CELLS + cells.SEAT_BYTES]].decode()


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
                sheet += _HELD_BACK if terms is None else _terms_cells(terms)
        at, terms_of = alike[key]
        cell = sheet[cells.REPLIES_AT] + row * REPLY_CELLS
        sheet[cell + cells.TERMS_AT] = at
        sheet[cell + cells.HIGHEST] = checks.highest
        if reply.currency != checks.currency:
            # The highest price that is not more than what is allowed once it is ours.
            way = checks.way(reply.currency)
            if way is not None:
                sheet[cell + cells.HIGHEST] = min(way.forth.most(checks.highest), LIMIT)
        every.append(terms_of)
    return every


def _terms_cells(terms: Terms) -> tuple[int, ...]:
    scale = terms.scale
    times, over = scale.forth.numerator, scale.forth.denominator
    if max(times, over) > INT64_MAX:
        return _HELD_BACK
    return min(terms.told, UNREACHABLE), terms.counted, terms.at, times, over, scale.subtract, INT64_MAX // times


_HELD_BACK = (-1, 0, 0, 1, 1, 0, 0)


def _sheet(request: BidRequest, exchange: ExchangeRules, limits: Limits, replies: int) -> list[int]:
    """Write what bids are asked beside what stands in the request, as kernels/sieve.py names it."""
    sheet = [0] * cells.SHEET_HEAD
    sheet[cells.REPLIES], sheet[cells.REPLIES_AT] = replies, cells.SHEET_HEAD
    sheet[cells.BIDS_MAX], sheet[cells.UNFOLDED_MAX] = limits.bids_per_reply, limits.reply_bytes
    sheet[cells.WANTS_CRID] = exchange.crid != "off"
    sheet[cells.CHECKS_SIZE] = exchange.size != "off"
    sheet[cells.CHECKS_SECURE] = exchange.secure != "off"
    sheet[cells.BY_BIDDER] = exchange.competitor == "bidder"
    bits = FILTER_BITS_MIN
    blocks = request.blocks
    if blocks is not None:
        sheet[cells.HOLDS_APPS] = bool(blocks.apps)
        sheet[cells.HOLDS_LANGUAGES] = blocks.speak
        sheet[cells.HOLDS_CATEGORIES] = exchange.category_match == "parents"
        blocked = len(blocks.advertisers) + len(blocks.categories)
        while bits < FILTER_BITS_MAX and bits < blocked * FILTER_BITS_PER_TEXT:
            bits *= 2
    sheet[cells.FILTER_BITS] = bits
    return sheet

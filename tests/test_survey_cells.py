# The survey's cells themselves, against the message.
#
# Goal: what the sieve reads of a request, and what only spares a slower look, is right cell by cell; the nouns of
# tests/test_survey.py would not show it. Method: generated requests and edges, each cell worked out from the message.

from __future__ import annotations

import json
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_survey import LAW, generated, message_of, surveyed

from auction.core.kernels.survey import (
    ATTRIBUTES,
    BARE,
    DEAL_CELLS,
    DEAL_FLOOR,
    DEAL_TIMED,
    DEALS,
    FINE,
    FLEXIBLE,
    FORMAT_AT,
    FORMAT_CELLS,
    HEAD,
    IMP_CELLS,
    IMP_FLOOR,
    LEAST,
    LENGTH,
    MICROS_UP,
    MOST,
    OPEN_END,
    SAYS_LENGTH,
    SIZES,
    STATED,
    room,
    survey,
)
from auction.core.kernels.wire import INT32_MAX, near_nanos
from auction.core.openrtb import views
from auction.model.errors import InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros
from auction.model.request import Told
from auction.v1 import openrtb_pb2

NAMES = {1: "banner", 2: "video", 3: "audio", 4: "native"}


def holds_cells(message: Any, cells: list[int]) -> None:
    for row, imp in enumerate(message.imp):
        at = HEAD + row * IMP_CELLS
        holds_floor(cells, at + IMP_FLOOR, imp)
        for number, name in NAMES.items():
            format = cells[at + FORMAT_AT + number - 1]
            assert bool(format) == imp.HasField(name)
            if format:
                holds_format(cells, format, number, getattr(imp, name))
        first, count = cells[at + DEALS : at + DEALS + 2]
        assert len(imp.pmp.deals) == count
        for place, deal in enumerate(imp.pmp.deals):
            holds_floor(cells, first + place * DEAL_CELLS + DEAL_FLOOR, deal)
            timed = bool(deal.durfloors) or deal.HasField("mincpmpersec")
            assert timed == cells[first + place * DEAL_CELLS + DEAL_TIMED]


def holds_floor(cells: list[int], floor: int, holder: Any) -> None:
    """Hold a floor to its amount, which is left to the message only where arithmetic on doubles is not certain."""
    amount = holder.bidfloor
    assert holder.HasField("bidfloor") == cells[floor + STATED]
    micros = floor_micros(amount)
    assert micros is not None
    certain = near_nanos(amount) >= 0
    assert (micros if certain else -1) == cells[floor + MICROS_UP]
    assert (certain and cpm(micros) > amount) == cells[floor + FINE]


def holds_format(cells: list[int], format: int, number: int, media: Any) -> None:
    after = format + FORMAT_CELLS
    assert len(media.battr) == cells[format + ATTRIBUTES]
    assert list(media.battr) == cells[after : after + len(media.battr)]
    after += len(media.battr)
    asked = []
    if number == 1:
        asked = [(one.w, one.h) for one in (*media.format, media)]
    elif number == 2:
        asked = [(media.w, media.h)]
    asked = [(w, h) for w, h in asked if w > 0 and h > 0]
    assert len(asked) == cells[format + SIZES]
    assert [side for size in asked for side in size] == cells[after : after + 2 * len(asked)]
    ratios = [one for one in media.format if not (one.w > 0 and one.h > 0)] if number == 1 else []
    flexible = any(one.wratio > 0 and one.hratio > 0 for one in ratios)
    assert flexible == cells[format + FLEXIBLE]
    assert (number != 1 or (len(set(asked)) < 2 and not flexible)) == cells[format + BARE]
    if number in (2, 3):
        least, most = media.HasField("minduration"), media.HasField("maxduration")
        more = bool(media.rqddurs or media.durfloors) or media.HasField("mincpmpersec")
        pod = media.poddur > 0
        assert (2 if more else int(least or most or pod)) == cells[format + LENGTH]
        assert (media.minduration, media.maxduration if most else INT32_MAX) == tuple(
            cells[format + LEAST : format + MOST + 1]
        )
        assert (pod, not most) == (cells[format + SAYS_LENGTH], cells[format + OPEN_END])


def of(imp: dict[str, Any]) -> Any:
    return message_of(json.dumps({"id": "r", "imp": [{"id": "1", **imp}]}).encode())


@LAW
@given(st.randoms(use_true_random=False))
def test_every_cell_of_floors_and_formats_is_what_the_message_says(r: Random) -> None:
    message = message_of(generated(r))
    try:
        _, cells, _ = surveyed(message)
    except InvalidRequest:
        return
    holds_cells(message, cells)


SIDES = (None, 0, 1, 250)
RATIO = {"wratio": 1, "hratio": 1}


@pytest.mark.parametrize("medium", ["banner", "video"])
def test_a_size_needs_both_of_its_sides(medium: str) -> None:
    for w, h in product(SIDES, SIDES):
        message = of({medium: {side: length for side, length in (("w", w), ("h", h)) if length is not None}})
        holds_cells(message, surveyed(message)[1])


def test_a_banner_needs_no_size_where_one_is_asked_and_does_where_there_are_several() -> None:
    for first, second, own, ratio in product((300, 250), (None, 300, 250), (None, 300, 250), (False, True)):
        sizes = [{"w": 300, "h": one} for one in (first, second) if one is not None]
        banner = {"format": [*sizes, *([RATIO] if ratio else [])], **({} if own is None else {"w": 300, "h": own})}
        message = of({"banner": banner})
        holds_cells(message, surveyed(message)[1])
    for w in (300, 320):
        message = of({"banner": {"format": [{"w": 300, "h": 250}, {"w": w, "h": 250}]}})
        holds_cells(message, surveyed(message)[1])


@pytest.mark.parametrize("duration", [None, {"durfloors": [{"bidfloor": 1}]}, {"mincpmpersec": 0.5}])
def test_a_deal_tells_whether_its_floors_go_by_duration(duration: dict[str, Any] | None) -> None:
    message = of({"video": {}, "pmp": {"deals": [{"id": "d", **(duration or {})}, {"id": "e"}]}})
    holds_cells(message, surveyed(message)[1])


def test_a_floor_without_its_currency_is_cut_at_its_end() -> None:
    # The serialiser writes a default that was given; one that was not is absent, and so are its bytes.
    message = openrtb_pb2.BidRequest(id="r", imp=[{"id": "1", "bidfloor": 1.5, "iframebuster": ["x"], "banner": {}}])
    deal = message.imp[0].pmp.deals.add(id="d", bidfloor=2.5, at=1)
    assert not deal.HasField("bidfloorcur")
    survey, cells, _ = surveyed(message)
    told = {(0,): Told("EUR", CpmMicros(3_000_000)), (0, -1, 0): Told("EUR", CpmMicros(4_000_000))}
    cut = views.view(message, survey.body, cells, (0,), 100, told)
    assert cut == views._view_of_message(message, (0,), 100, told)


@pytest.mark.parametrize(("imps", "deals"), [(100, 0), (1, 64), (1, 10_000), (100, 64)], ids=lambda count: str(count))
def test_there_is_room_for_as_much_as_fits_a_request(imps: int, deals: int) -> None:
    # Nothing shorter than an empty one, and the most cells for what is shortest.
    message = openrtb_pb2.BidRequest()
    for _ in range(imps):
        message.imp.add()
    for _ in range(deals):
        message.imp[0].pmp.deals.add()
    body = message.SerializeToString()
    cells = np.empty(room(len(body), imps), np.int64)
    assert survey(np.frombuffer(body, np.uint8), imps, deals, cells) <= len(cells)

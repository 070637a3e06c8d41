# What a bidder is told: its view of a request, as bytes.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auction.core.kernels.survey import (
    DEAL_AT,
    DEAL_BEGIN,
    DEAL_CELLS,
    DEAL_END,
    DEAL_FLOORS_AT,
    DEAL_FLOORS_END,
    DEALS,
    FLOORS_AT,
    FLOORS_END,
    HEAD,
    IMP_AT,
    IMP_BEGIN,
    IMP_CELLS,
    IMP_END,
    IMPS,
    PMP_AT,
    PMP_BEGIN,
    PMP_END,
    TMAX_AT,
    TMAX_END,
)
from auction.core.openrtb.fields import DOUBLE, varint
from auction.core.openrtb.requests import TIMED_FORMATS
from auction.model.money import cpm
from auction.model.request import (
    Told,
    Whose,
)
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage


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
    deals_told: dict[int, list[tuple[int, Told]]] = {}
    for whose, floors in told.items():
        if len(whose) == 3:
            deals_told.setdefault(whose[0], []).append((whose[2], floors))
    if len(imps) < cells[IMPS] or told:
        for row in range(cells[IMPS]):
            imp = HEAD + row * IMP_CELLS
            own = told.get((row,))
            deals = deals_told.get(row, ())
            if row in imps and own is None and not deals:
                continue
            pieces.append(body[done : cells[imp + IMP_AT]])
            done = cells[imp + IMP_END]
            if row in imps:
                content = _imp_told(body, cells, imp, own, deals)
                pieces += (_IMP_TAG, varint(len(content)), content)
    pieces += (body[done : cells[TMAX_AT]], _TMAX_TAG, varint(tmax_ms), body[cells[TMAX_END] :])
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
            inner += (body[done : cells[deal + DEAL_AT]], _DEAL_TAG, varint(len(content)), content)
            done = cells[deal + DEAL_END]
        inner.append(body[done : cells[imp + PMP_END]])
        pmp = b"".join(inner)
        pieces += (body[at : cells[imp + PMP_AT]], _PMP_TAG, varint(len(pmp)), pmp)
        at = cells[imp + PMP_END]
    pieces.append(body[at : cells[imp + IMP_END]])
    return b"".join(pieces)


# Tags as they stand in bytes: the number of the field times eight, and how it is written.
_TMAX_TAG, _IMP_TAG, _PMP_TAG, _DEAL_TAG = b"\x40", b"\x12", b"\x5a", b"\x12"
_IMP_FLOOR_TAGS, _DEAL_FLOOR_TAGS = (b"\x41", b"\x4a"), (b"\x11", b"\x1a")


def _floors_told(tags: tuple[bytes, bytes], told: Told) -> bytes:
    assert told.floor is not None
    currency = told.currency.encode()
    return tags[0] + DOUBLE.pack(cpm(told.floor)) + tags[1] + varint(len(currency)) + currency


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
        _tell_by_duration(getattr(imp, TIMED_FORMATS[whose[1]]), told)
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

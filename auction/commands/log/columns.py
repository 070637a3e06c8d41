# The columns of `auction log cat --jsonl`, in their order; docs/log.md says what each holds.
#
# One auction is one line, because a share of it proves nothing: who was asked, what came back and what became of it
# stand together. Columns are only ever added. Money is integer micros CPM, so sums of any length are exact.

from __future__ import annotations

from typing import Any

import msgspec

from auction.commands.log.records import Known, Read, request_of, revenue, time_text, won
from auction.core.record import RecordedAuction, RecordedRefusal, RecordedRules
from auction.model.auction import AuctionResult, Outcome
from auction.model.money import sent_text
from auction.model.reasons import PriceSetter
from auction.model.request import Media


def row(read: Read) -> AuctionRow | RefusalRow | RulesRow | OtherRow:
    """Give a record as its columns."""
    frame, known, recorded = read.frame, read.known, read.recorded
    head = (frame.sequence, time_text(frame.time_us), known.digest, known.software)
    if isinstance(recorded, RecordedAuction):
        assert read.result is not None
        return _auction_row(head, recorded, read.result, known)
    if isinstance(recorded, RecordedRefusal):
        return RefusalRow(*head, recorded.id, time_text(recorded.received_us), recorded.path, recorded.request_bytes)
    if isinstance(recorded, RecordedRules):
        return RulesRow(*head, _settings(recorded.canonical))
    return OtherRow(*head, frame.kind, len(frame.payload))


class AuctionRow(msgspec.Struct, tag_field="kind", tag="auction"):
    sequence: int
    written: str
    rules: str
    software: str
    id: str
    request: str | None
    received: str
    encoding: str
    caller: str
    timeout_ms: int | None
    currency: str | None
    asked: int
    sold: int
    revenue_cpm_micros: int
    nbr: int | None
    explained: bool
    request_bytes: int
    reply_bytes: int
    response_bytes: int
    imps: list[ImpRow] | None
    replies: list[ReplyRow]
    bids: list[BidRow]
    non_bids: list[NonBidRow]
    warnings: list[WarningRow]


class RefusalRow(msgspec.Struct, tag_field="kind", tag="refusal"):
    sequence: int
    written: str
    rules: str
    software: str
    id: str
    received: str
    path: str
    request_bytes: int


class RulesRow(msgspec.Struct, tag_field="kind", tag="rules"):
    sequence: int
    written: str
    rules: str
    software: str
    settings: Any


class OtherRow(msgspec.Struct, tag_field="kind", tag="other"):
    sequence: int
    written: str
    rules: str
    software: str
    number: int
    bytes: int


class ImpRow(msgspec.Struct):
    id: str
    tagid: str
    media: list[str]
    floor_cpm_micros: int
    floor_currency: str


class ReplyRow(msgspec.Struct):
    bidder: str
    status: str
    latency_us: int
    bytes: int
    detail: str


class BidRow(msgspec.Struct):
    bidder: str
    seat: str
    id: str
    imp: str
    placed: bool
    deal: str
    price: str | None
    currency: str
    floor_cpm_micros: int | None
    loss_reason: int
    min_to_win_cpm_micros: int | None
    clearing_price_cpm_micros: int | None
    pays_cpm_micros: int | None
    price_setter: str | None


class NonBidRow(msgspec.Struct):
    bidder: str
    seat: str | None
    imp: str
    bid: str | None
    status: int


class WarningRow(msgspec.Struct):
    path: str
    text: str


def _auction_row(
    head: tuple[int, str, str, str], recorded: RecordedAuction, result: AuctionResult, known: Known
) -> AuctionRow:
    arrival = recorded.arrival
    request = request_of(arrival, known.rules)
    return AuctionRow(
        *head,
        id=arrival.id,
        request=None if request is None else request.id,
        received=time_text(arrival.received_us),
        encoding=arrival.encoding.name.lower(),
        caller=arrival.caller,
        timeout_ms=arrival.timeout_ms,
        currency=known.currency,
        asked=len(recorded.replies),
        sold=len(won(result)),
        revenue_cpm_micros=revenue(result),
        nbr=result.nbr,
        explained=result.explained,
        request_bytes=len(arrival.body),
        reply_bytes=sum(len(reply.body) for reply in recorded.replies),
        response_bytes=len(result.response),
        imps=None
        if request is None
        else [ImpRow(imp.id, imp.tagid, _MEDIA[imp.media], imp.floor, imp.currency) for imp in request.imps],
        replies=[
            ReplyRow(reply.bidder, reply.status.name, reply.latency_us, len(reply.body), reply.detail)
            for reply in recorded.replies
        ],
        bids=[_bid_row(bid) for bid in result.outcomes],
        non_bids=[
            NonBidRow(non_bid.bidder, non_bid.seat, non_bid.imp, non_bid.bid, non_bid.status)
            for non_bid in result.non_bids
        ],
        warnings=[WarningRow(warning.path, warning.text) for warning in result.warnings],
    )


def _bid_row(bid: Outcome) -> BidRow:
    return BidRow(
        bidder=bid.bidder,
        seat=bid.seat,
        id=bid.id,
        imp=bid.impid,
        placed=bid.imp >= 0,
        deal=bid.deal,
        price=None if bid.price is None else sent_text(bid.price),
        currency=bid.currency,
        floor_cpm_micros=bid.floor,
        loss_reason=int(bid.reason),
        min_to_win_cpm_micros=bid.min_to_win,
        clearing_price_cpm_micros=bid.clearing_price,
        pays_cpm_micros=bid.pays,
        price_setter=None if bid.setter is PriceSetter.NONE else bid.setter.name.lower(),
    )


_MEDIA = [[str(one.name).lower() for one in Media if one & media] for media in range(16)]


def _settings(canonical: bytes) -> Any:
    try:
        return msgspec.json.decode(canonical)
    except msgspec.DecodeError:
        return None

# An auction as bytes: what is written down, and read back for a replay.
#
# (arrival, rules, replies) is what a result is a function of; the result stands beside them, serialised, so that a
# replay compares bytes and needs no opinion on what matters. Equal nouns are equal bytes (protobuf's deterministic
# form).

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from auction.model.auction import Arrival, Auction, AuctionResult, Encoding, NonBid, Outcome, Warning
from auction.model.errors import InvalidRequest
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason, PriceSetter
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import Rules, rules_from_canonical
from auction.v1 import record_pb2

# Kinds of frames in a log.
RULES, AUCTION, REFUSAL = 1, 2, 3


_ENCODINGS = {Encoding.PROTOBUF: record_pb2.PROTOBUF, Encoding.JSON: record_pb2.JSON}
_STATUSES = {
    ReplyStatus.BID: record_pb2.BID,
    ReplyStatus.NO_BID: record_pb2.NO_BID,
    ReplyStatus.TIMED_OUT: record_pb2.TIMED_OUT,
    ReplyStatus.UNREACHABLE: record_pb2.UNREACHABLE,
    ReplyStatus.INVALID: record_pb2.INVALID,
}


class Unreadable(Exception):
    """A record that is no record of this format, or contradicts itself."""


class RecordedRules(msgspec.Struct, frozen=True):
    """Rules as written down; `rules` None where this software cannot read them (another wrote them)."""

    digest: bytes
    software: str
    canonical: bytes
    rules: Rules | None


class RecordedAuction(msgspec.Struct, frozen=True):
    """An auction as written down; `result` is serialised, see decode_result()."""

    arrival: Arrival
    rules_digest: bytes
    replies: tuple[Reply, ...]
    result: bytes


class RecordedRefusal(msgspec.Struct, frozen=True):
    """A request that was refused: where, and how large it was. Nothing else of it is kept."""

    id: str
    received_us: int
    path: str
    request_bytes: int


def encode_rules(rules: Rules, software: str) -> bytes:
    """Write one version of the rules."""
    return record_pb2.RulesRecord(
        digest=rules.digest(), software=software, canonical=rules.canonical()
    ).SerializeToString(deterministic=True)


def decode_rules(payload: bytes) -> RecordedRules:
    """Read rules back; Unreadable if the bytes are none or the digest is not theirs."""
    message = _parsed(record_pb2.RulesRecord(), payload)
    try:
        rules = rules_from_canonical(message.canonical)
    except msgspec.DecodeError:
        rules = None
    if rules is not None and rules.digest() != message.digest:
        # Readable but not the same: a later version dropped or added a setting. Do not decide by them.
        rules = None
    return RecordedRules(message.digest, message.software, message.canonical, rules)


def encode_auction(auction: Auction[Any], replies: Sequence[Reply], result: AuctionResult) -> bytes:
    """Write one auction; its rules are named by digest."""
    arrival = auction.arrival
    message = record_pb2.AuctionRecord(
        arrival=record_pb2.Arrival(
            id=arrival.id,
            received_us=arrival.received_us,
            encoding=_ENCODINGS[arrival.encoding],
            body=arrival.body,
            timeout_ms=arrival.timeout_ms,
            explain=arrival.explain,
            caller=arrival.caller,
        ),
        rules_digest=auction.rules.digest,
        result=encode_result(result),
    )
    for reply in replies:
        message.reply.add(
            bidder=reply.bidder,
            status=_STATUSES[reply.status],
            body=reply.body,
            latency_us=reply.latency_us,
            detail=reply.detail,
        )
    return message.SerializeToString(deterministic=True)


def decode_auction(payload: bytes) -> RecordedAuction:
    """Read an auction back; Unreadable if the bytes are none."""
    message = _parsed(record_pb2.AuctionRecord(), payload)
    arrival = message.arrival
    try:
        return RecordedAuction(
            Arrival(
                arrival.id,
                arrival.received_us,
                Encoding(arrival.encoding),
                arrival.body,
                arrival.timeout_ms if arrival.HasField("timeout_ms") else None,
                arrival.explain,
                arrival.caller,
            ),
            message.rules_digest,
            tuple(
                Reply(reply.bidder, ReplyStatus(reply.status), reply.body, reply.latency_us, reply.detail)
                for reply in message.reply
            ),
            message.result,
        )
    except ValueError as error:
        raise Unreadable(f"not an auction of this format: {error}") from error


def encode_refusal(arrival: Arrival, refusal: InvalidRequest) -> bytes:
    """Write that a request was refused: the path and the size, never what stood there."""
    return record_pb2.RefusalRecord(
        id=arrival.id, received_us=arrival.received_us, path=refusal.path, request_bytes=len(arrival.body)
    ).SerializeToString(deterministic=True)


def decode_refusal(payload: bytes) -> RecordedRefusal:
    """Read a refusal back; Unreadable if the bytes are none."""
    message = _parsed(record_pb2.RefusalRecord(), payload)
    return RecordedRefusal(message.id, message.received_us, message.path, message.request_bytes)


def encode_result(result: AuctionResult) -> bytes:
    """Write a result so that equal results are equal bytes."""
    message = record_pb2.Result(response=result.response, nbr=result.nbr, explained=result.explained)
    for outcome in result.outcomes:
        message.outcome.add(
            bidder=outcome.bidder,
            seat=outcome.seat,
            id=outcome.id,
            imp=outcome.imp,
            impid=outcome.impid,
            deal=outcome.deal,
            price=outcome.price,
            currency=outcome.currency,
            floor_cpm_micros=outcome.floor,
            loss_reason=int(outcome.reason),
            min_to_win_cpm_micros=outcome.min_to_win,
            clearing_price_cpm_micros=outcome.clearing_price,
            pays_cpm_micros=outcome.pays,
            price_setter=int(outcome.setter),
        )
    for non_bid in result.non_bids:
        message.non_bid.add(
            bidder=non_bid.bidder, seat=non_bid.seat, imp=non_bid.imp, bid=non_bid.bid, status=int(non_bid.status)
        )
    for warning in result.warnings:
        message.warning.add(path=warning.path, text=warning.text)
    return message.SerializeToString(deterministic=True)


def decode_result(payload: bytes) -> AuctionResult:
    """Read a result back; Unreadable if the bytes are none."""
    message = _parsed(record_pb2.Result(), payload)

    def amount(row: Any, field: str) -> CpmMicros | None:
        return CpmMicros(getattr(row, field)) if row.HasField(field) else None

    def text(row: Any, field: str) -> str | None:
        return str(getattr(row, field)) if row.HasField(field) else None

    try:
        outcomes = tuple(
            Outcome(
                row.bidder,
                row.seat,
                row.id,
                row.imp,
                row.impid,
                row.deal,
                row.price if row.HasField("price") else None,
                row.currency,
                amount(row, "floor_cpm_micros"),
                LossReason(row.loss_reason),
                amount(row, "min_to_win_cpm_micros"),
                amount(row, "clearing_price_cpm_micros"),
                amount(row, "pays_cpm_micros"),
                PriceSetter(row.price_setter),
            )
            for row in message.outcome
        )
    except ValueError as error:
        raise Unreadable(f"not a result of this format: {error}") from error
    return AuctionResult(
        message.response,
        message.nbr if message.HasField("nbr") else None,
        message.explained,
        outcomes,
        tuple(NonBid(row.bidder, text(row, "seat"), row.imp, text(row, "bid"), row.status) for row in message.non_bid),
        tuple(Warning(row.path, row.text) for row in message.warning),
    )


def _parsed(message: Any, payload: bytes) -> Any:
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise Unreadable(f"not a {message.DESCRIPTOR.name}: {error}") from error
    return message

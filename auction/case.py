# A case: one auction as a JSON file, request, rules and replies together, and what an exchange should make of it.
#
# This is the public format of docs/conformance.md. It takes the same road as a live auction: open_auction, replies in
# the order of invitations, close_auction. Only where live bytes come from sockets they come from the file here.

from __future__ import annotations

import contextlib
import json as stdlib_json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from auction.config import ConfigFaults, rules_of_case
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.explain import refused, told
from auction.core.openrtb import json
from auction.model.auction import Arrival, Auction, AuctionResult, Encoding, Invitation
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import Rules

_MEMBERS = ("request", "exchange", "floors", "bidders", "limits", "fx", "received", "replies", "expect")


# The year 9999, where ISO 8601 as Python reads it ends.
_RECEIVED_MAX = 253_402_300_799_999_999


class NoCase(Exception):
    """A file that is no case: one readable line for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Case(msgspec.Struct, frozen=True):
    """A case that could be read: what arrives, under which rules, and what comes back from each bidder."""

    arrival: Arrival
    rules: Rules
    replies: dict[str, Reply]


class Decided(msgspec.Struct, frozen=True):
    """A case that was decided: the auction, the replies in the order of its invitations, and the result."""

    auction: Auction[CompiledRules]
    replies: tuple[Reply, ...]
    result: AuctionResult


def read(text: bytes) -> dict[str, Any]:
    """Read the JSON of a case file; NoCase if it is none."""
    try:
        value = stdlib_json.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise NoCase(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise NoCase("expected an object with request and replies")
    return value


def case_of(value: Mapping[str, Any]) -> Case:
    """Give the nouns of a case; NoCase names every fault. What is wrong in the request, the auction says."""
    faults = [f"{name}: unknown member" for name in value if name not in _MEMBERS]
    request, replies = value.get("request"), value.get("replies", [])
    if not isinstance(request, dict):
        faults.append("request: expected an OpenRTB request")
    if not isinstance(replies, list):
        faults.append("replies: expected a list")
        replies = []
    for place, reply in enumerate(replies):
        if not isinstance(reply, dict) or not isinstance(reply.get("bidder"), str):
            faults.append(f"replies[{place}].bidder: expected a name")
        elif reply.get("status", "BID") not in ReplyStatus.__members__:
            faults.append(f"replies[{place}].status: expected one of {', '.join(ReplyStatus.__members__)}")
    if not faults and len({reply["bidder"] for reply in replies}) < len(replies):
        faults.append("replies: expected one for each bidder")
    if faults:
        raise NoCase(*faults)
    try:
        rules = rules_of_case(exact(value), [reply["bidder"] for reply in replies])
    except ConfigFaults as error:
        raise NoCase(*str(error).splitlines()) from error
    assert isinstance(request, dict)
    name = request.get("id")
    arrival = Arrival(
        id=str(name) if isinstance(name, str | int) else "",
        received_us=_received_us(value.get("received")),
        encoding=Encoding.JSON,
        body=stdlib_json.dumps(request, ensure_ascii=False, allow_nan=True).encode("utf-8", "surrogatepass"),
    )
    return Case(arrival, rules, {reply["bidder"]: _reply(reply, rules) for reply in replies})


def decided(case: Case) -> Decided:
    """Run a case; InvalidRequest if the request is refused."""
    auction = open_auction(case.arrival, compile_rules(case.rules))
    replies = tuple(_answer(invitation, case.replies) for invitation in auction.invitations)
    return Decided(auction, replies, close_auction(auction, replies))


def decide(value: Mapping[str, Any]) -> dict[str, Any]:
    """Run a case and tell it in the public shape; a refused request is `{"error": ...}`. NoCase if it is none."""
    try:
        case = decided(case_of(value))
    except InvalidRequest as refusal:
        return refused(refusal)
    auction, result = case.auction, case.result
    answer = told(auction.arrival.id, [imp.id for imp in auction.request.imps], result)
    return {**answer, "response": msgspec.json.decode(result.response)}


def exact(value: Any) -> Any:
    """Turn the floats of parsed JSON into the decimals they were written as, so that settings are read exactly."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {key: exact(member) for key, member in value.items()}
    if isinstance(value, list):
        return [exact(member) for member in value]
    return value


def _received_us(received: Any) -> int:
    if received is None:
        return 0
    if isinstance(received, int) and not isinstance(received, bool) and 0 <= received <= _RECEIVED_MAX:
        return received
    if isinstance(received, str):
        with contextlib.suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(received)
            return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    raise NoCase(f"received: expected ISO 8601 or microseconds since 1970-01-01 UTC, was {received!r}")


def _answer(invitation: Invitation, replies: Mapping[str, Reply]) -> Reply:
    # A bidder that is configured and has no reply in the file did not answer.
    return replies.get(invitation.bidder) or Reply(invitation.bidder, ReplyStatus.TIMED_OUT)


def _reply(reply: Mapping[str, Any], rules: Rules) -> Reply:
    name, status = reply["bidder"], ReplyStatus[reply.get("status", "BID")]
    latency = reply.get("latency_ms", 0)
    latency_us = int(latency * 1000) if isinstance(latency, int | float) and not isinstance(latency, bool) else 0
    body = reply.get("body")
    if status is not ReplyStatus.BID or body is None:
        return Reply(name, status, b"", latency_us)
    # Message bytes rather than JSON, because they can carry what a file may hold as text: NaN, infinities, -0.0.
    try:
        lenient = rules.exchange.json == "lenient"
        encoded = json.response_message(_with_prices(body), lenient=lenient, depth=rules.limits.depth)
    except InvalidReply as error:
        return Reply(name, ReplyStatus.INVALID, b"", latency_us, error.message)
    return Reply(name, status, encoded.message, latency_us)


def _with_prices(body: Any) -> Any:
    """Read prices written as text, so that a file may say "NaN" or "-0.0"; the nearest double, as on the wire."""
    if not isinstance(body, dict) or not isinstance(body.get("seatbid"), list):
        return body
    return {**body, "seatbid": [_seat_with_prices(seatbid) for seatbid in body["seatbid"]]}


def _seat_with_prices(seatbid: Any) -> Any:
    if not isinstance(seatbid, dict) or not isinstance(seatbid.get("bid"), list):
        return seatbid
    bids: Sequence[Any] = seatbid["bid"]
    return {**seatbid, "bid": [_priced(bid) for bid in bids]}


def _priced(bid: Any) -> Any:
    if not isinstance(bid, dict) or not isinstance(bid.get("price"), str):
        return bid
    try:
        return {**bid, "price": float(bid["price"])}
    except ValueError:
        return bid

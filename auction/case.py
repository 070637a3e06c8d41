# A case: one auction as a JSON file, request, rules and replies together, and what an exchange should make of it.
#
# This is the public format of docs/conformance.md. It takes the same road as a live auction: open_auction, replies in
# the order of invitations, close_auction. Only where live bytes come from sockets they come from the file here.

from __future__ import annotations

import contextlib
import json as stdlib_json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
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

_SETTINGS = ("exchange", "floors", "bidders", "limits", "fx")
# What a case says of itself, and what others expect of it, is for its readers.
_NOT_READ = ("title", "source", "note", "expect")
_MEMBERS = ("request", *_SETTINGS, "received", "replies", *_NOT_READ)
_STATUSES = tuple(ReplyStatus.__members__)

# Twice what any exchange can be told to accept in a request, and a fraction of what the interpreter can walk.
LEVELS_MAX = 200
# A day: longer than anybody waited. It is only reported.
LATENCY_MS_MAX = 86_400_000
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
    except RecursionError as error:
        raise NoCase(f"nested deeper than {LEVELS_MAX} levels") from error
    except ValueError as error:
        raise NoCase(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise NoCase("expected an object with request and replies")
    return value


def case_of(value: Mapping[str, Any]) -> Case:
    """Give the nouns of a case; NoCase names every fault. What is wrong in the request, the auction says."""
    if json.deeper(dict(value), LEVELS_MAX):
        raise NoCase(f"nested deeper than {LEVELS_MAX} levels")
    faults = list(_faults(value))
    if faults:
        raise NoCase(*faults)
    request, replies = value["request"], value.get("replies", [])
    settings = exact({name: value[name] for name in _SETTINGS if name in value})
    try:
        rules = rules_of_case(settings, [reply["bidder"] for reply in replies])
    except ConfigFaults as error:
        raise NoCase(*str(error).splitlines()) from error
    name = request.get("id")
    arrival = Arrival(
        id=str(name) if isinstance(name, str | int) else "",
        received_us=_received_us(value.get("received")),
        encoding=Encoding.JSON,
        body=_body(request),
    )
    return Case(arrival, rules, {reply["bidder"]: _reply(reply, rules) for reply in replies})


def _faults(value: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name}: unknown member" for name in value if name not in _MEMBERS)
    if not isinstance(value.get("request"), dict):
        yield "request: expected an OpenRTB request"
    replies = value.get("replies", [])
    if not isinstance(replies, list):
        yield "replies: expected a list"
        return
    bidders = set()
    for place, reply in enumerate(replies):
        path = f"replies[{place}]"
        if not isinstance(reply, dict) or not isinstance(reply.get("bidder"), str):
            yield f"{path}.bidder: expected a name"
            continue
        if reply["bidder"] in bidders:
            yield f"{path}.bidder: expected one reply for each bidder"
        bidders.add(reply["bidder"])
        if reply.get("status", "BID") not in _STATUSES:
            yield f"{path}.status: expected one of {', '.join(_STATUSES)}"
        latency = reply.get("latency_ms")
        if latency is not None and not (type(latency) in (int, float) and 0 <= latency <= LATENCY_MS_MAX):
            yield f"{path}.latency_ms: expected milliseconds, was {latency!r}"


# INFINITY where json.dumps writes it, not where a string does.
_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')


def _body(request: Mapping[str, Any]) -> bytes:
    """Write the request as it may have arrived: infinity, as Python reads a number beyond a double, is one again."""
    body = stdlib_json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    body = _INFINITY.sub(lambda found: "1e999" if found[0] == "Infinity" else found[0], body)
    return body.encode("utf-8", "surrogatepass")


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
    latency_us = int((reply.get("latency_ms") or 0) * 1000)
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


# JSON's numbers, and the words for what it has no number for.
_PRICE = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Infinity)|NaN")


def _priced(bid: Any) -> Any:
    price = bid.get("price") if isinstance(bid, dict) else None
    if isinstance(price, str) and _PRICE.fullmatch(price):
        return {**bid, "price": float(price)}
    if type(price) is int:
        return {**bid, "price": _nearest(price)}
    return bid


def _nearest(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf

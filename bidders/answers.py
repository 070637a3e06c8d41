# What goes onto the wire: a decision written in the protocol's encoding, and spoiled where the decision says so.
#
# Requests and answers are messages here; JSON goes through the codec of auction/core/openrtb, both ways, so there is
# one way to decide and two to speak. The two servers only wait and send.

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from google.protobuf.message import DecodeError

from auction.core.openrtb.json import request_bytes, response_json
from auction.model.auction import Encoding
from auction.model.errors import InvalidRequest
from auction.v1.openrtb_pb2 import BidRequest, BidResponse
from bidders.settings import ENORMOUS_BYTES, HANG_S, Fault, Settings
from bidders.strategies import Draws, decide

# Deeper than the exchange lets through by default.
_DEPTH_MAX = 64

# Timers tick in milliseconds; less than half of one is no wait, and a load test asks for none.
PROMPT_S = 0.0005

_NAN = float("nan")


class NotARequest(Exception):
    """What arrived is no BidRequest."""


class Answer(msgspec.Struct, frozen=True):
    """What to send, how many seconds after the request, and the fault that the sending itself must commit, if any.

    An empty body is a no-bid: 204 over HTTP, an empty message over gRPC.
    """

    body: bytes
    delay_s: float
    fault: Fault | None


def answer(settings: Settings, body: bytes, encoding: Encoding) -> Answer:
    """Answer one request; NotARequest where it cannot be read."""
    request = _read(body, encoding)
    decision = decide(settings, request)
    fault = decision.fault
    response = decision.response
    if fault is Fault.HANG:
        return Answer(b"", HANG_S, None)
    if fault is Fault.GARBAGE:
        noise = Draws(request.id.encode())
        return Answer(bytes(int(256 * noise.unit()) for _ in range(64)), decision.delay_s, None)
    if response is None:
        return Answer(b"", decision.delay_s, fault if fault in _TOLD else None)
    spoil = _SPOILED.get(fault) if fault is not None else None
    if spoil is not None:
        spoil(response)
    if encoding is Encoding.PROTOBUF:
        written = response.SerializeToString()
    else:
        written = response_json(response, rest=False)
        if fault is Fault.NAN_PRICE:
            # JSON has no NaN, and careless programs write it all the same.
            written = written.replace(b'"price":null', b'"price":NaN')
    return Answer(written, decision.delay_s, fault if fault in _SENT else None)


# Faults of the sending, and those of them that need no body.
_TOLD = frozenset({Fault.REFUSE, Fault.RESET, Fault.WRONG_TYPE})
_SENT = _TOLD | {Fault.HALF}


def _read(body: bytes, encoding: Encoding) -> BidRequest:
    try:
        if encoding is Encoding.JSON:
            body = request_bytes(body, lenient=True, depth=_DEPTH_MAX).message
        return BidRequest.FromString(body)
    except (DecodeError, InvalidRequest) as error:
        raise NotARequest(str(error)) from error


def _wrong_id(response: BidResponse) -> None:
    response.id = "not-" + response.id


def _enormous(response: BidResponse) -> None:
    response.seatbid[0].bid[0].adm = "<!-- " + ENORMOUS_BYTES * "x" + " -->"


def _each_bid(change: Callable[[BidResponse.Bid], None]) -> Callable[[BidResponse], None]:
    def spoil(response: BidResponse) -> None:
        for seatbid in response.seatbid:
            for bid in seatbid.bid:
                change(bid)

    return spoil


def _priced(price: float) -> Callable[[BidResponse], None]:
    def change(bid: BidResponse.Bid) -> None:
        bid.price = price

    return _each_bid(change)


def _without(field: Literal["id", "price"]) -> Callable[[BidResponse], None]:
    def change(bid: BidResponse.Bid) -> None:
        bid.ClearField(field)

    return _each_bid(change)


def _wrong_imp(bid: BidResponse.Bid) -> None:
    bid.impid = "not-" + bid.impid


_SPOILED: dict[Fault, Callable[[BidResponse], None]] = {
    Fault.WRONG_ID: _wrong_id,
    Fault.ENORMOUS: _enormous,
    Fault.NAN_PRICE: _priced(_NAN),
    Fault.NEGATIVE_PRICE: _priced(-1.0),
    Fault.NO_PRICE: _without("price"),
    Fault.WRONG_IMP: _each_bid(_wrong_imp),
    Fault.NO_BID_ID: _without("id"),
}

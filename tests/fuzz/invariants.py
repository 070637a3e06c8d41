# What holds of any auction, whatever arrived and whatever came back.

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from auction.core.auction import CompiledRules, open_auction
from auction.core.openrtb import json as codec
from auction.core.record import decode_auction, decode_result, encode_auction, encode_refusal, encode_result
from auction.model.auction import Arrival, Auction, AuctionResult, Encoding
from auction.model.errors import InvalidRequest
from auction.model.money import price_micros
from auction.model.reasons import LossReason, PriceSetter
from auction.model.reply import Reply
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage
from auction.v1.openrtb_pb2 import BidResponse as ResponseMessage
from tests.fuzz.cases import Case
from tests.fuzz.ways import agreed, read

REFUSED, NOTHING, SOLD = "refused", "nothing sold", "sold"

_ACCEPTED = (LossReason.WON, LossReason.LOST_TO_HIGHER_BID, LossReason.LOST_TO_DEAL)


def check(case: Case) -> str:
    """Run a case and hold it to everything below; give how it ended."""
    auction, refusal = _opened(case.arrival, case.rules)
    if auction is None:
        assert refusal is not None
        encode_refusal(case.arrival, refusal)
        assert refusal.message
        _refused_alike(case, refusal)
        return REFUSED
    _opened_alike(case, auction)
    _asked(auction)
    replies = case.answers(auction)
    result = agreed(auction, replies)[1]
    _every_bid_has_one_reason(auction, replies, result)
    _silence_has_one_status(auction, result)
    sold = _one_winner_at_a_price_it_bid(auction, result)
    _answer_says_what_was_decided(auction, result, sold)
    _is_written_and_read(auction, replies, result)
    return SOLD if sold else NOTHING


def _opened(arrival: Arrival, rules: CompiledRules) -> tuple[Auction[CompiledRules] | None, InvalidRequest | None]:
    try:
        return open_auction(arrival, rules), None
    except InvalidRequest as refusal:
        return None, refusal


def _other_edge(case: Case) -> Arrival | None:
    """Give a JSON arrival as the message it becomes; None for a message, or where either is too large for its edge."""
    limits, exchange = case.rules.rules.limits, case.rules.rules.exchange
    arrival = case.arrival
    if arrival.encoding is not Encoding.JSON or len(arrival.body) > limits.request_bytes:
        return None
    message = codec.request_bytes(arrival.body, lenient=exchange.json == "lenient", depth=limits.depth).message
    if len(message) > limits.request_bytes:
        return None
    return Arrival(arrival.id, 0, Encoding.PROTOBUF, message, arrival.timeout_ms, arrival.explain)


def _refused_alike(case: Case, refusal: InvalidRequest) -> None:
    """Both edges refuse alike, unless the codec refused: then no message says this."""
    found: InvalidRequest | None
    try:
        other = _other_edge(case)
    except InvalidRequest as by_the_codec:
        found = by_the_codec
    else:
        if other is None:
            return
        found = _opened(other, case.rules)[1]
    assert found is not None, f"refused as JSON only: {refusal}"
    assert (found.path, found.message) == (refusal.path, refusal.message)


def _opened_alike(case: Case, auction: Auction[CompiledRules]) -> None:
    """Both edges open the same auction and ask with the same bytes."""
    other = _other_edge(case)
    if other is not None:
        opened = open_auction(other, case.rules)
        assert opened.request == auction.request
        assert opened.invitations == auction.invitations
        assert opened.not_asked == auction.not_asked
        assert (opened.budget_us, opened.raised) == (auction.budget_us, auction.raised)


def _asked(auction: Auction[CompiledRules]) -> None:
    """Every bidder is asked or has a status for each impression, with a body that is a request."""
    asked = {(one.bidder, auction.request.imps[row].id) for one in auction.invitations for row in one.imps}
    kept = Counter((one.bidder, one.imp) for one in auction.not_asked)
    every = {(bidder.name, imp.id) for bidder in auction.rules.rules.bidders for imp in auction.request.imps}
    assert asked | kept.keys() == every
    assert not asked & kept.keys()
    assert set(kept.values()) <= {1}
    for body, encoding, imps in {(one.body, one.encoding, one.imps) for one in auction.invitations}:
        ids = [auction.request.imps[row].id for row in imps]
        if encoding is Encoding.JSON:
            assert ids == [imp["id"] for imp in json.loads(body)["imp"]]
        else:
            assert ids == [imp.id for imp in RequestMessage.FromString(body).imp]


def _every_bid_has_one_reason(auction: Auction[CompiledRules], replies: Sequence[Reply], result: AuctionResult) -> None:
    """Every bid in a reply that is read has one outcome, every rejected one a status of its own."""
    most = auction.rules.rules.limits.bids_per_reply
    sent = []
    for heard in read(auction, replies):
        bids = [(heard.rules.name, seatbid.seat, bid.id, bid.impid) for seatbid in heard.wire.seatbid
                for bid in seatbid.bid]  # fmt: skip
        told = [one for one in result.outcomes if one.bidder == heard.rules.name]
        if len(bids) <= most and told:
            sent += bids
        elif bids:
            statuses = {one.status for one in result.non_bids if one.bidder == heard.rules.name and one.bid is None}
            assert 102 in statuses
    assert sent == [(one.bidder, one.seat, one.id, one.impid) for one in result.outcomes]
    rejected = [(one.bidder, one.seat, one.id) for one in result.outcomes if one.reason not in _ACCEPTED]
    assert rejected == [(one.bidder, one.seat, one.bid) for one in result.non_bids if one.bid is not None]


def _silence_has_one_status(auction: Auction[CompiledRules], result: AuctionResult) -> None:
    """Each bidder has, for each impression, a bid or one status."""
    imps = auction.request.imps
    heard = {(one.bidder, imps[one.imp].id) for one in result.outcomes if one.imp >= 0}
    silent = Counter((one.bidder, one.imp) for one in result.non_bids if one.bid is None)
    assert set(silent.values()) <= {1}
    assert not heard & silent.keys()
    assert heard | silent.keys() == {(bidder.name, imp.id) for bidder in auction.rules.rules.bidders for imp in imps}


def _one_winner_at_a_price_it_bid(auction: Auction[CompiledRules], result: AuctionResult) -> int:
    """At most one bid wins an impression, at its floor or above and at most at what it bid."""
    exchange = auction.rules.rules.exchange
    winners = Counter(one.imp for one in result.outcomes if one.reason == LossReason.WON)
    assert set(winners.values()) <= {1}
    for one in result.outcomes:
        if one.reason != LossReason.WON:
            assert one.clearing_price is None
            assert one.pays is None
            continue
        assert one.price is not None
        price = price_micros(one.price)
        assert one.floor is not None
        assert one.clearing_price is not None
        assert one.pays is not None
        assert one.min_to_win is not None
        assert price is not None
        assert one.floor <= one.clearing_price
        assert one.min_to_win >= one.floor
        assert 0 <= one.pays <= price
        assert one.setter is not PriceSetter.NONE
        if one.currency == exchange.currency and not exchange.bid_adjustments:
            assert one.clearing_price <= price
            assert one.min_to_win <= price
            assert one.pays == one.clearing_price
    return len(winners)


def _answer_says_what_was_decided(auction: Auction[CompiledRules], result: AuctionResult, sold: int) -> None:
    """The answer is of its encoding, and sells each winner's bid."""
    message = _answer(auction, result)
    bids = Counter((bid.impid, seatbid.seat, bid.id) for seatbid in message.seatbid for bid in seatbid.bid)
    assert bids == Counter((one.impid, one.seat, one.id) for one in result.outcomes if one.reason == LossReason.WON)
    assert (result.nbr is None) == bool(sold)
    assert message.HasField("nbr") == (not sold)
    assert message.id == auction.request.id


def _answer(auction: Auction[CompiledRules], result: AuctionResult) -> ResponseMessage:
    body = result.response
    if auction.arrival.encoding is Encoding.JSON:
        json.loads(body)
        body = codec.response_bytes(body, lenient=False, depth=1000).message
    try:
        return ResponseMessage.FromString(body)
    except DecodeError as error:
        raise AssertionError("the answer is no BidResponse") from error


def _is_written_and_read(auction: Auction[CompiledRules], replies: Sequence[Reply], result: AuctionResult) -> None:
    """The record holds all of it."""
    written = encode_result(result)
    assert written == encode_result(decode_result(written))
    recorded = decode_auction(encode_auction(auction, replies, result))
    assert (recorded.arrival, list(recorded.replies), recorded.result) == (auction.arrival, list(replies), written)

# Whatever a bidder sends, an auction is decided: its reply is read, or is a no-bid of one status as a whole.

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.openrtb.json import request_bytes, response_bytes
from auction.core.record import decode_result, encode_result
from auction.model.auction import Arrival, Auction, AuctionResult, Encoding
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import BidderRules, ExchangeRules, Rules
from auction.v1.openrtb_pb2 import BidResponse
from tests.fuzz.wire import double, text

LAW = settings(max_examples=400, deadline=None, derandomize=True, database=None, print_blob=True)

RULES = Rules(exchange=ExchangeRules(explain="always"), bidders=(BidderRules("pb"), BidderRules("js", "json")))
REQUEST = {"id": "r", "imp": [{"id": "1", "banner": {}}, {"id": "2", "video": {}}]}
REPLY: dict[str, Any] = {
    "id": "r",
    "cur": "USD",
    "bidid": "x",
    "seatbid": [
        {
            "seat": "s",
            "bid": [{"id": "a", "impid": "1", "price": 1.5, "adm": "<b>", "cat": ["IAB1"], "ext": {"k": [1]}}],
        },
        {"bid": [{"id": "b", "impid": "2", "price": 2, "w": 300, "attr": [1, 2], "dealid": "d"}], "group": 0},
    ],
}
AUCTION: Auction[CompiledRules] = open_auction(
    Arrival("A", 0, Encoding.JSON, json.dumps(REQUEST).encode()), compile_rules(RULES)
)


def closed(message: bytes = b"", body: bytes = b"") -> AuctionResult:
    """Close with a message of one bidder and a JSON body of the other; hold the result to what any result must be."""
    result = close_auction(AUCTION, [Reply("pb", ReplyStatus.BID, message), Reply("js", ReplyStatus.BID, body)])
    assert result == decode_result(encode_result(result))
    json.loads(result.response)
    return result


def silent(result: AuctionResult, bidder: str) -> set[int]:
    return {non_bid.status for non_bid in result.non_bids if non_bid.bidder == bidder and non_bid.bid is None}


def message(reply: Any) -> bytes:
    return response_bytes(json.dumps(reply).encode(), lenient=True, depth=32).message


@st.composite
def mutilated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Give bytes with a few places overwritten, cut out or put in."""
    body = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        body[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


@LAW
@given(mutilated(message(REPLY)), mutilated(json.dumps(REPLY).encode()))
def test_mutilated_replies_are_decided(sent: bytes, body: bytes) -> None:
    closed(sent, body)


odd = st.one_of(
    st.sampled_from([None, True, 0, -1, -0.0, 2**31, 2**63, 10**400, 1e308, "", "1.5", "NaN", "[red]", "é", [], {}]),
    st.text(max_size=3),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner)),
)


@LAW
@given(st.data())
def test_a_reply_with_anything_anywhere_is_decided(data: st.DataObject) -> None:
    reply = json.loads(json.dumps(REPLY))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = reply
        while True:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            name = data.draw(st.sampled_from(names))
            inner = place[name]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
                place[name] = data.draw(odd)
                break
            place = inner
    closed(body=json.dumps(reply).encode())


def test_a_sound_reply_sells() -> None:
    assert closed(message(REPLY)).nbr is None
    assert closed(body=json.dumps(REPLY).encode()).nbr is None


ADS = text(1, "a") + text(2, "1") + text(6, "<b>")


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (ADS + double(3, 1.5), ADS + double(3, 0.5)),
        (double(3, 1.5) + ADS, ADS + double(3, 0.5)),
        (ADS + double(3, 1.0) + double(3, 1.5), ADS + double(3, 0.5)),
        (ADS + double(3, 1.5) + text(13, ""), ADS + double(3, 0.5)),
        (ADS + double(3, 1.5) + text(2000, "ours"), ADS + double(3, 0.5) + text(2000, "ours")),
        (double(3, 1.5) + ADS + text(7, "x.example"), double(3, 0.5) + ADS + text(7, "x.example")),
    ],
    ids=["plain", "price first", "two prices", "a deal without a name", "a field of its own", "more behind the price"],
)  # fmt: skip
def test_a_winning_bid_leaves_as_it_was_sent_but_for_its_price(sent: bytes, left: bytes) -> None:
    request = {"id": "r", "imp": [{"id": "1", "banner": {}, "bidfloor": 0.5}]}
    body = request_bytes(json.dumps(request).encode(), lenient=True, depth=32).message
    auction = open_auction(Arrival("A", 0, Encoding.PROTOBUF, body), compile_rules(Rules(bidders=(BidderRules("a"),))))
    reply = text(1, "r") + text(2, text(1, sent) + text(2, "s"))
    answer = BidResponse.FromString(close_auction(auction, [Reply("a", ReplyStatus.BID, reply)]).response)
    assert ("r", "A", "USD", ["s"]) == (answer.id, answer.bidid, answer.cur, [one.seat for one in answer.seatbid])
    assert [BidResponse.Bid.FromString(left)] == list(answer.seatbid[0].bid)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("explain", ["always", "on_request", "never"])
def test_an_answer_says_why_if_the_rules_say_so_or_leave_it_to_who_asks(explain: Any, asked: bool) -> None:
    rules = compile_rules(Rules(exchange=ExchangeRules(explain=explain), bidders=(BidderRules("a"),)))
    auction = open_auction(Arrival("A", 0, Encoding.JSON, json.dumps(REQUEST).encode(), explain=asked), rules)
    result = close_auction(auction, [Reply("a", ReplyStatus.NO_BID, b"")])
    says_why = explain == "always" or (explain == "on_request" and asked)
    assert says_why == result.explained == ("auction" in json.loads(result.response).get("ext", {}))


@pytest.mark.parametrize("member", ["cur", "seat"])
def test_a_name_that_would_be_said_a_hundred_times_makes_a_reply_too_large(member: str) -> None:
    def named(length: int, bids: int) -> bytes:
        names = {"cur": "USD", "seat": "s", member: "x" * length}
        bid = [BidResponse.Bid(id=str(number), impid="1", price=1) for number in range(bids)]
        seatbid = [BidResponse.SeatBid(seat=names["seat"], bid=bid)]
        return BidResponse(id="r", cur=names["cur"], seatbid=seatbid).SerializeToString()

    for length, bids, too_large in ((60_000, 1, False), (60_000, 2, True), (600, 100, False), (700, 100, True)):
        result = closed(named(length, bids))
        assert ({102} if too_large else {0}) == silent(result, "pb")
        assert len(encode_result(result)) < 1_000_000


def test_bids_beyond_those_looked_at_make_a_reply_invalid() -> None:
    empty = BidResponse(id="r", seatbid=[BidResponse.SeatBid(bid=[BidResponse.Bid()] * 100)])
    assert {0} == silent(closed(empty.SerializeToString()), "pb")
    empty.seatbid.add(bid=[BidResponse.Bid()])
    assert {102} == silent(closed(empty.SerializeToString()), "pb")

# What a bidder is sent: its view of the request. What it is told there is what it is held to.

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.openrtb.json import request_bytes
from auction.model.auction import Arrival, Auction, Encoding
from auction.model.fx import Fx
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import BidderRules, ExchangeRules, Rules
from auction.v1.openrtb_pb2 import BidRequest, BidResponse

Json = dict[str, Any]

# One request in both encodings, each to a bidder of each encoding.
ROADS = [(arrival, bidder) for arrival in Encoding for bidder in ("protobuf", "json")]


def rules(*bidders: BidderRules, fx: dict[str, str] | None = None, **exchange: Any) -> CompiledRules:
    return compile_rules(Rules(exchange=ExchangeRules(**exchange), bidders=bidders, fx=Fx(rates=fx or {})))


def opened(request: Json, rules: CompiledRules, encoding: Encoding = Encoding.JSON) -> Auction[CompiledRules]:
    body = json.dumps({"id": "r", **request}).encode()
    if encoding is Encoding.PROTOBUF:
        body = request_bytes(body, lenient=True, depth=32).message
    return open_auction(Arrival("A", 0, encoding, body), rules)


def views(auction: Auction[CompiledRules]) -> list[BidRequest]:
    """Read the view of every bidder asked, whatever it speaks."""
    return [
        BidRequest.FromString(
            invitation.body
            if invitation.encoding is Encoding.PROTOBUF
            else request_bytes(invitation.body, lenient=False, depth=32).message
        )
        for invitation in auction.invitations
    ]


@pytest.mark.parametrize(("arrival", "speaks"), ROADS)
def test_a_bidder_sees_the_impressions_it_is_asked_for(arrival: Encoding, speaks: Any) -> None:
    request = {
        "imp": [{"id": "1", "video": {}}, {"id": "2", "banner": {"w": 1}}, {"id": "3", "video": {}, "banner": {}}]
    }
    asked = rules(BidderRules("a", speaks, ("banner",)), BidderRules("b", speaks))
    banners, everything = views(opened(request, asked, arrival))
    assert ["2", "3"] == [imp.id for imp in banners.imp]
    assert 1 == banners.imp[0].banner.w
    assert ["1", "2", "3"] == [imp.id for imp in everything.imp]


@pytest.mark.parametrize(("arrival", "speaks"), ROADS)
def test_a_bidder_is_told_the_time_that_is_left_to_it(arrival: Encoding, speaks: Any) -> None:
    asked = rules(
        BidderRules("a", speaks), BidderRules("b", speaks, network_ms=20), BidderRules("c", speaks, timeout_ms=30)
    )
    told = views(opened({"tmax": 200, "imp": [{"id": "1", "banner": {}}]}, asked, arrival))
    assert [195, 175, 30] == [view.tmax for view in told]


@pytest.mark.parametrize(("arrival", "speaks"), ROADS)
def test_nothing_that_has_no_field_reaches_a_bidder(arrival: Encoding, speaks: Any) -> None:
    imp = {"id": "1", "banner": {"pos": "secret"}, "secret": 1, "ext": {"gpid": "/home", "secret": {"a": None}}}
    auction = opened({"imp": [imp], "secret": [], "ext": {"secret": 1}}, rules(BidderRules("a", speaks)), arrival)
    assert b"secret" in auction.arrival.body
    assert b"secret" not in auction.invitations[0].body
    assert "/home" == views(auction)[0].imp[0].ext.gpid


@pytest.mark.parametrize("speaks", ["protobuf", "json"])
def test_a_field_that_the_contract_does_not_know_reaches_no_bidder(speaks: Any) -> None:
    # Field 999, a string: somebody's extension of the request, and of its impression.
    secret = b"\xba\x3e\x06secret"
    imp = BidRequest.Imp(id="1", banner={}).SerializeToString() + secret
    body = BidRequest(id="r").SerializeToString() + secret + b"\x12" + bytes([len(imp)]) + imp
    auction = open_auction(Arrival("A", 0, Encoding.PROTOBUF, body), rules(BidderRules("a", speaks)))
    assert b"secret" in auction.arrival.body
    assert b"secret" not in auction.invitations[0].body


@pytest.mark.parametrize(("arrival", "speaks"), ROADS)
def test_least_price_is_told_with_every_floor(arrival: Encoding, speaks: Any) -> None:
    deals = [{"id": "d1", "bidfloor": 0}, {"id": "d2"}, {"id": "d3", "bidfloor": 9, "bidfloorcur": "JPY"}]
    request = {"imp": [{"id": "1", "banner": {}, "bidfloorcur": "EUR", "pmp": {"deals": deals}}]}
    asked = rules(BidderRules("a", speaks), fx={"EUR": "0.9", "JPY": "150"}, min_price=CpmMicros(500_001))
    (imp,) = views(opened(request, asked, arrival))[0].imp
    assert (0.450001, "EUR") == (imp.bidfloor, imp.bidfloorcur)
    assert [(0.500001, "USD"), (0.0, "USD"), (75.00015, "JPY")] == [
        (deal.bidfloor, deal.bidfloorcur) for deal in imp.pmp.deals
    ]
    assert [True, False, True] == [deal.HasField("bidfloor") for deal in imp.pmp.deals]


@pytest.mark.parametrize(("arrival", "speaks"), ROADS)
def test_least_price_is_told_in_our_currency_where_the_floors_has_no_rate(arrival: Encoding, speaks: Any) -> None:
    asked = rules(BidderRules("a", speaks), currency="EUR", min_price=CpmMicros(500_000))
    imps = [{"id": "1", "banner": {}}, {"id": "2", "banner": {}, "bidfloor": 1}]
    told = views(opened({"imp": imps, "cur": ["EUR"]}, asked, arrival))[0].imp
    # A bid under a floor that cannot be compared fails, whatever is told.
    assert [(0.5, "EUR"), (1.0, "USD")] == [(imp.bidfloor, imp.bidfloorcur) for imp in told]


FX = {"EUR": "0.92", "JPY": "150.37", "KWD": "0.3061"}
currencies = st.sampled_from(["USD", *FX])
# Above 8 388 608 doubles are too far apart for a micro.
floors = st.one_of(st.floats(0, 1000), st.integers(0, 10**9).map(lambda micros: micros / 10**6), st.just(0.1 * 3))


@settings(max_examples=300, deadline=None, derandomize=True, database=None, print_blob=True)
@given(st.lists(st.tuples(floors, currencies), min_size=2, max_size=2), currencies, st.integers(0, 2_000_000))
def test_a_bid_at_the_floor_that_it_was_told_is_not_below_it(
    sent: list[tuple[float, str]], currency: str, min_price: int
) -> None:
    (floor, floor_currency), (deal_floor, deal_currency) = sent
    deal = {"id": "d", "bidfloor": deal_floor, "bidfloorcur": deal_currency}
    imp = {"id": "1", "banner": {}, "bidfloor": floor, "bidfloorcur": floor_currency, "pmp": {"deals": [deal]}}
    market = rules(BidderRules("a"), fx=FX, currency=currency, min_price=CpmMicros(min_price))
    auction = opened({"imp": [imp], "cur": ["USD", *FX]}, market)
    told = views(auction)[0].imp[0]
    for answered, deal_id in ((told, ""), (told.pmp.deals[0], "d")):
        bid = BidResponse.Bid(id="b", impid="1", price=answered.bidfloor, dealid=deal_id)
        reply = BidResponse(id="r", cur=answered.bidfloorcur, seatbid=[BidResponse.SeatBid(bid=[bid])])
        (outcome,) = close_auction(auction, [Reply("a", ReplyStatus.BID, reply.SerializeToString())]).outcomes
        # A price of 0, or of less than a micro, is one for a deal only.
        enters = deal_id or answered.bidfloor >= 1e-6
        assert (LossReason.WON if enters else LossReason.INVALID_BID) == outcome.reason


def test_a_deal_for_advertisers_without_a_name_is_open_to_none() -> None:
    deal = {"id": "d", "wadomain": ["", "."]}
    imp = {"id": "1", "banner": {}, "pmp": {"deals": [deal]}}
    auction = opened({"imp": [imp]}, rules(BidderRules("a")))
    bid = BidResponse.Bid(id="b", impid="1", price=1, dealid="d", adomain=["ford.com"])
    reply = BidResponse(id="r", seatbid=[BidResponse.SeatBid(bid=[bid])])
    (outcome,) = close_auction(auction, [Reply("a", ReplyStatus.BID, reply.SerializeToString())]).outcomes
    assert LossReason.NOT_IN_DEAL == outcome.reason

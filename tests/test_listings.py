# The sieve's table of names against the sets that it stands for.
#
# Goal: a name is found exactly for the bidder and the kind that it is listed for, however names collide. Method: a
# reply of every bidder is sieved with the table, and each bid must be held back as the sets say.

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.core.auction import compile_rules, open_auction
from auction.core.kernels.sieve import HELD, PLACE_CELLS
from auction.core.offers import offers
from auction.core.openrtb import json as codec
from auction.model.auction import Arrival, Encoding
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import BidderRules, Rules
from tests.fuzz.ways import checks_of, read

# Few letters, so that names of one bidder are another's, prefixes of each other, and share a slot.
names = st.lists(st.text("ab\xe9", max_size=3), max_size=12)
bidders = st.lists(st.tuples(names, names), min_size=1, max_size=4)
IMP = {"id": "1", "banner": {"w": 1, "h": 1}}


@settings(max_examples=150, deadline=None, derandomize=True, database=None, print_blob=True)
@given(bidders, st.data())
def test_a_bid_is_held_back_where_its_seat_or_creative_is_listed_against_it(
    listed: list[tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    rules = compile_rules(
        Rules(
            bidders=tuple(
                BidderRules(f"b{row}", seats=tuple(seats), blocked_creatives=tuple(creatives))
                for row, (seats, creatives) in enumerate(listed)
            )
        )
    )
    request = msgspec.json.encode({"id": "r", "imp": [IMP]})
    auction = open_auction(Arrival("A", 0, Encoding.JSON, request), rules)
    seat_or_creative = st.sampled_from(
        sorted({name for kinds in listed for kind in kinds for name in kind} | {"a", ""})
    )
    sent = [(data.draw(seat_or_creative), data.draw(seat_or_creative)) for _ in listed]
    replies = []
    for row, (seat, creative) in enumerate(sent):
        bid = {"id": "1", "impid": "1", "price": 1, "crid": creative, "adm": "x", "w": 1, "h": 1}
        body = msgspec.json.encode({"id": "r", "seatbid": [{"seat": seat, "bid": [bid]}]})
        message = codec.response_bytes(body, lenient=True, depth=32).message
        replies.append(Reply(f"b{row}", ReplyStatus.BID, message))
    exchange, order, limits = rules.rules.exchange, rules.market.order, rules.rules.limits
    heard, checks = read(auction, replies), checks_of(auction)
    made = offers(heard, auction.request, auction.survey, exchange, checks, order, rules.listings, limits)
    for row, ((seats, creatives), (seat, creative)) in enumerate(zip(listed, sent, strict=True)):
        held = bool((seats and (not seat or seat not in seats)) or creative in creatives or not creative)
        assert held == bool(made.places[row * PLACE_CELLS + HELD])

# Every refusal of the corpus, word for word, on both edges.

from __future__ import annotations

import pytest

from auction.core.auction import compile_rules, open_auction
from auction.core.openrtb import json
from auction.model.auction import Arrival, Encoding
from auction.model.errors import InvalidRequest
from auction.model.fx import Fx
from auction.model.rules import Rules
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage
from tests.corpus import Refused, accepted, refused

RULES = compile_rules(Rules(fx=Fx("test", "", {"EUR": "0.9", "GBP": "0.8", "JPY": "150", "KRW": "1350"})))


@pytest.mark.parametrize("case", refused(), ids=lambda case: case.name)
def test_refused_with_these_words(case: Refused) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        open_auction(Arrival("A", 0, Encoding.JSON, case.body), RULES)
    assert (case.path, case.message) == (refusal.value.path, refusal.value.message)


# The same body is a few bytes shorter as a message, and then within the limit.
OF_MESSAGES = [case for case in refused() if case.name != "body-over-the-limit"]


@pytest.mark.parametrize("case", OF_MESSAGES, ids=lambda case: case.name)
def test_what_can_be_a_message_is_refused_alike_over_protobuf(case: Refused) -> None:
    try:
        message = json.request_bytes(case.body, lenient=True, depth=32).message
    except InvalidRequest as refusal:
        found = refusal  # by the codec: no message exists that says this
    else:
        with pytest.raises(InvalidRequest) as caught:
            open_auction(Arrival("A", 0, Encoding.PROTOBUF, message), RULES)
        found = caught.value
    assert (case.path, case.message) == (found.path, found.message)


@pytest.mark.parametrize("name", accepted())
def test_a_sound_request_opens_the_same_auction_in_both_encodings(name: str) -> None:
    body = accepted()[name]
    message = json.request_bytes(body, lenient=True, depth=32).message
    from_json = open_auction(Arrival("A", 0, Encoding.JSON, body), RULES)
    from_message = open_auction(Arrival("A", 0, Encoding.PROTOBUF, message), RULES)
    assert from_json.request == from_message.request
    assert from_json.budget_us == from_message.budget_us


def test_no_message_is_refused_as_such() -> None:
    with pytest.raises(InvalidRequest, match="expected a BidRequest message"):
        open_auction(Arrival("A", 0, Encoding.PROTOBUF, b"\xff\xff\xff"), RULES)


@pytest.mark.parametrize("floor", [float("nan"), float("inf"), float("-inf")])
def test_a_floor_that_is_no_number_is_refused_over_protobuf(floor: float) -> None:
    message = RequestMessage(id="r", imp=[{"id": "1", "banner": {}, "bidfloor": floor}])
    with pytest.raises(InvalidRequest) as refusal:
        open_auction(Arrival("A", 0, Encoding.PROTOBUF, message.SerializeToString()), RULES)
    assert "imp[0].bidfloor" == refusal.value.path

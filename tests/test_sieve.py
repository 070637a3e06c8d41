# What the sieve lets through, against a look at every bid.
#
# Goal: kernels/sieve.py never lets a bid through that validation.py would have something to say about, and what it
# writes of one is what validation.py would have written; a reply that is odd in a way that protobuf accepts is walked
# over as protobuf reads it. Method: the same replies are decided three ways, with the sieve, with every bid held back
# by it, and from the parsed messages without a walk over bytes, and must agree in every row, outcome and warning.
#
# Runs repeat themselves exactly. To look further than the last run did, set AUCTION_EXPLORE to a number of examples.

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auction.core.auction import CompiledRules, compile_rules, open_auction
from auction.core.creatives import insecure
from auction.core.kernels.clear import COLUMNS, COMPETITOR, RANKED, TOLD_FLOOR
from auction.core.kernels.sieve import ATTRIBUTES_SIEVED
from auction.core.offers import Offers
from auction.core.openrtb import json as codec
from auction.model.auction import Arrival, Auction, Encoding
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.fx import Fx
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import Adjustment, BidderRules, ExchangeRules, FloorModel, FloorRule, FloorRules, Limits, Rules
from tests.fuzz import auctions, wire
from tests.fuzz.ways import agreed, read, walked
from tests.fuzz.wire import double, group, number, packed, text

Json = dict[str, Any]

EXPLORE = int(os.environ.get("AUCTION_EXPLORE", "0"))
LAW = settings(
    max_examples=EXPLORE or 150,
    derandomize=not EXPLORE,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def decided(auction: Auction[CompiledRules], bodies: Sequence[bytes]) -> Offers:
    """Decide all three ways and give what the sieve made."""
    return agreed(auction, replies_of(auction, bodies))[0]


def replies_of(auction: Auction[CompiledRules], bodies: Sequence[bytes]) -> list[Reply]:
    return [
        Reply(invitation.bidder, ReplyStatus.BID, body)
        for invitation, body in zip(auction.invitations, bodies, strict=True)
    ]


# ------------------------------------------------------------ generated auctions


def drawn(r: Random) -> Auction[CompiledRules] | None:
    rules = auctions.rules(r.randrange(auctions.RULES))
    body = json.dumps(auctions.request(r, rules.rules.exchange.currency)).encode()
    try:
        return open_auction(Arrival("A", 0, Encoding.JSON, body), rules)
    except InvalidRequest:
        return None


def replies_to(r: Random, auction: Auction[CompiledRules]) -> list[bytes]:
    rules = auction.rules.rules
    asked = auctions.asked(auction.request)
    bodies = []
    for invitation in auction.invitations:
        body = auctions.reply(r, asked, rules.exchange.currency, rules.limits.bids_per_reply)
        if invitation.encoding is Encoding.JSON:
            try:
                body = codec.response_json(body, rest=True)
            except InvalidReply:
                body = b"{"
        bodies.append(body)
    return bodies


@LAW
@given(st.randoms(use_true_random=False))
def test_sieved_or_looked_at_one_by_one_is_the_same(r: Random) -> None:
    auction = drawn(r)
    if auction is not None:
        decided(auction, replies_to(r, auction))


def test_generated_bids_are_let_through_held_back_and_refused_for_every_reason() -> None:
    through, held, excessive = 0, 0, 0
    reasons = set()
    for seed in range(800):
        r = Random(seed)
        auction = drawn(r)
        if auction is None:
            continue
        for reply in walked(auction, read(auction, replies_of(auction, replies_to(r, auction))), sieved=True)[
            0
        ].replies:
            through += reply.count - len(reply.held)
            held += len(reply.held)
            excessive += reply.excessive
            reasons |= {verdict.reason for verdict in reply.held.values()}
    assert through > 200
    assert held > 200
    assert excessive > 5
    settled = {LossReason.WON, LossReason.LOST_TO_HIGHER_BID, LossReason.LOST_TO_DEAL}
    by_the_kernel = {LossReason.BELOW_AUCTION_FLOOR, LossReason.BELOW_DEAL_FLOOR}
    assert set(REACHED) <= reasons
    assert not reasons & (settled | by_the_kernel)


REACHED = (
    None, LossReason.INVALID_BID, LossReason.INVALID_DEAL, LossReason.MISSING_MARKUP,
    LossReason.MISSING_CREATIVE_ID, LossReason.MISSING_PRICE, LossReason.SEAT_BLOCKED, LossReason.CREATIVE_FILTERED,
    LossReason.CREATIVE_DISAPPROVED, LossReason.WRONG_SIZE, LossReason.WRONG_FORMAT, LossReason.ADVERTISER_BLOCKED,
    LossReason.NOT_SECURE, LossReason.WRONG_LANGUAGE, LossReason.CATEGORY_BLOCKED, LossReason.ATTRIBUTE_BLOCKED,
    LossReason.NOT_IN_DEAL, LossReason.APP_BLOCKED,
)  # fmt: skip


def test_document_types_that_nothing_ends_are_not_each_followed_to_the_end() -> None:
    # As many as the largest reply has room for; looking for the end of each takes an hour.
    assert insecure("<!doctype" * 460_000 + "http:")


# ------------------------------------------------------------ one bid each


def opened(
    request: Json,
    bidders: int | Sequence[BidderRules] = 1,
    limits: Limits | None = None,
    floors: FloorRules | None = None,
    **exchange: Any,
) -> Auction[CompiledRules]:
    every = [BidderRules(f"dsp-{place}") for place in range(bidders)] if isinstance(bidders, int) else bidders
    rules = Rules(
        exchange=ExchangeRules(**{"crid": "off", "explain": "never", **exchange}),
        floors=floors or FloorRules(),
        bidders=tuple(every),
        limits=limits or Limits(),
        fx=Fx("test", "", {"EUR": "0.9", "JPY": "1500"}),
    )
    body = json.dumps({"id": "r", **request}).encode()
    return open_auction(Arrival("A", 0, Encoding.JSON, body), compile_rules(rules))


def seatbid(*bids: bytes, seat: str | None = None) -> bytes:
    return text(2, b"".join(text(1, bid) for bid in bids) + (b"" if seat is None else text(2, seat)))


def answer(*bids: bytes) -> bytes:
    return text(1, "r") + seatbid(*bids)


BID = text(1, "b") + text(2, "1") + double(3, 1.5)
BANNER: Json = {"imp": [{"id": "1", "banner": {}}]}
VIDEO: Json = {"imp": [{"id": "1", "video": {"minduration": 5, "maxduration": 15}}]}
SECURE: Json = {"imp": [{"id": "1", "secure": 1, "banner": {}}]}
SIZED: Json = {"imp": [{"id": "1", "banner": {"w": 300, "h": 250}}]}
SIZES: Json = {"imp": [{"id": "1", "banner": {"format": [{"w": 300, "h": 250}, {"w": 320, "h": 50}]}}]}
RATIO: Json = {"imp": [{"id": "1", "banner": {"format": [{"w": 300, "h": 250}, {"wratio": 1, "hratio": 1}]}}]}
RATIO_ALONE: Json = {"imp": [{"id": "1", "banner": {"format": [{"wratio": 1, "hratio": 1}]}}]}
TWO: Json = {"imp": [{"id": "1", "banner": {}}, {"id": "22222222", "banner": {}}]}
BATTR: Json = {"imp": [{"id": "1", "banner": {"battr": [6, -1]}}]}
SEVERAL: Json = {"imp": [{"id": "1", "banner": {"battr": [6]}, "video": {}}]}
POD: Json = {"imp": [{"id": "1", "video": {"poddur": 30}}]}
PRICED_POD: Json = {"imp": [{"id": "1", "video": {"poddur": 30, "mincpmpersec": 0.01}}]}
PRIVATE: Json = {"imp": [{"id": "1", "banner": {}, "pmp": {"private_auction": 1}}]}
DEAL: Json = {"imp": [{"id": "1", "banner": {}, "pmp": {"deals": [{"id": "d", "wseat": [""]}]}}]}
AUDIO: Json = {"imp": [{"id": "1", "audio": {"rqddurs": [15, 30]}}]}


def with_(request: Json, **members: Any) -> Json:
    return {**request, **members}


def battr(count: int) -> Json:
    return {"imp": [{"id": "1", "banner": {"battr": list(range(100, 100 + count))}}]}


BADV = with_(BANNER, badv=["ford.com", "Bücher.example", "a.b.c.", ""])
BCAT = with_(BANNER, bcat=["IAB1", "7"], cattax=2)
BAPP = with_(BANNER, bapp=["com.example.app", ""])
SPEAK = with_(BANNER, wlang=["en"])

THROUGH, HELD = True, False
BLOCKED, FILTERED = LossReason.ADVERTISER_BLOCKED, LossReason.CREATIVE_FILTERED
INVALID, SIZE = LossReason.INVALID_BID, LossReason.WRONG_SIZE
MARKUP, FORMAT = LossReason.MISSING_MARKUP, LossReason.WRONG_FORMAT
ATTRIBUTE, CATEGORY = LossReason.ATTRIBUTE_BLOCKED, LossReason.CATEGORY_BLOCKED
NOT_SECURE, APP, LANGUAGE = LossReason.NOT_SECURE, LossReason.APP_BLOCKED, LossReason.WRONG_LANGUAGE

# Of each: whether it is let through, and if not, what the second look finds (None: nothing).
CASES: dict[str, tuple[Json, bytes, bool, LossReason | None]] = {
    "nothing asked": (BANNER, BID, THROUGH, None),
    "nothing in it": (BANNER, b"", HELD, INVALID),
    # domains
    "domain of another": (BADV, BID + text(7, "ford.org"), THROUGH, None),
    "domain blocked": (BADV, BID + text(7, "ford.com"), HELD, BLOCKED),
    "domain in capitals": (BADV, BID + text(7, "FORD.Com"), HELD, BLOCKED),
    "domain with the dot of the root": (BADV, BID + text(7, "ford.com."), HELD, BLOCKED),
    "domain with two dots at its end": (BADV, BID + text(7, "ford.com.."), THROUGH, None),
    "domain below": (BADV, BID + text(7, "www.ford.com"), HELD, BLOCKED),
    "domain that only ends alike": (BADV, BID + text(7, "notford.com"), THROUGH, None),
    "domain above": (BADV, BID + text(7, "com"), THROUGH, None),
    "domain below an empty name": (BADV, BID + text(7, ".ford.com"), HELD, BLOCKED),
    "domain empty": (BADV, BID + text(7, ""), THROUGH, None),
    "domain of a dot": (BADV, BID + text(7, "."), THROUGH, None),
    "domain written with a dot in the list": (BADV, BID + text(7, "A.B.C"), HELD, BLOCKED),
    "domain beyond ASCII": (BADV, BID + text(7, "bücher.example"), HELD, BLOCKED),
    "domain beyond ASCII, in capitals": (BADV, BID + text(7, "BÜCHER.example"), HELD, BLOCKED),
    "domain beyond ASCII of another": (BADV, BID + text(7, "bücher.org"), HELD, None),
    "domain with the sign of kelvin": (with_(BANNER, badv=["k.example"]), BID + text(7, "K.example"), HELD, BLOCKED),
    "domain blocked with the sign of kelvin": (
        with_(BANNER, badv=["\u212aelvin.example"]), BID + text(7, "kelvin.example"), HELD, BLOCKED,
    ),
    "domain blocked with the sign of kelvin behind a letter": (
        with_(BANNER, badv=["o\u212a.example"]), BID + text(7, "ok.example"), HELD, BLOCKED,
    ),
    "domain second of two": (BADV, BID + text(7, "x.org") + text(7, "ford.com"), HELD, BLOCKED),
    "domain behind a group": (BADV, BID + group(7, text(7, "x")) + text(7, "ford.com"), HELD, BLOCKED),
    "domain in a group": (BADV, BID + group(60, text(7, "ford.com")), THROUGH, None),
    "domain of another wire type": (BADV, BID + number(7, 3) + double(7, 1.0), THROUGH, None),
    "domain of 300 characters below": (BADV, BID + text(7, "l" * 300 + ".ford.com"), HELD, BLOCKED),
    "domain of 300 characters in labels": (BADV, BID + text(7, "l." * 150 + "ford.com"), HELD, BLOCKED),
    # categories
    "category blocked": (BCAT, BID + number(30, 2) + text(15, "IAB1"), HELD, CATEGORY),
    "category of another case": (BCAT, BID + number(30, 2) + text(15, "iab1"), THROUGH, None),
    "category below": (BCAT, BID + number(30, 2) + text(15, "IAB1-1"), THROUGH, None),
    "category of the default taxonomy": (BCAT, BID + text(15, "IAB1"), THROUGH, None),
    "category of taxonomy 0": (BCAT, BID + number(30, 0) + text(15, "IAB1"), THROUGH, None),
    "category whose taxonomy comes last": (BCAT, BID + text(15, "7") + number(30, 1) + number(30, 2), HELD, CATEGORY),
    "category of a taxonomy of 33 bits": (BCAT, BID + number(30, 2**32 + 2) + text(15, "IAB1"), HELD, CATEGORY),
    "category empty, and one blocked empty": (with_(BANNER, bcat=[""]), BID + text(15, ""), HELD, CATEGORY),
    "category whose length takes five bytes": (
        BCAT, BID + number(30, 2) + text(15, "IAB1", padding=4), HELD, CATEGORY,
    ),
    "category as a domain": (with_(BCAT, cattax=1), BID + text(7, "IAB1"), THROUGH, None),
    # apps and languages
    "app of another": (BAPP, BID + text(14, "com.example"), HELD, None),
    "app blocked": (BAPP, BID + text(14, "com.example.app"), HELD, APP),
    "app taken back": (BAPP, BID + text(14, "com.example.app") + text(14, ""), THROUGH, None),
    "app not named, and one blocked empty": (BAPP, BID, THROUGH, None),
    "language allowed": (SPEAK, BID + text(25, "en-GB"), HELD, None),
    "language of others": (SPEAK, BID + text(25, "de"), HELD, LANGUAGE),
    "language of others by tag": (SPEAK, BID + text(29, "de"), HELD, LANGUAGE),
    "language unsaid": (SPEAK, BID + text(25, ""), THROUGH, None),
    # attributes
    "attribute unblocked": (BATTR, BID + number(11, 7), THROUGH, None),
    "attribute beside as many blocked as are compared": (battr(ATTRIBUTES_SIEVED), BID + number(11, 7), THROUGH, None),
    "attribute beside more blocked": (battr(ATTRIBUTES_SIEVED + 1), BID + number(11, 7), HELD, None),
    "attribute blocked": (BATTR, BID + number(11, 6), HELD, ATTRIBUTE),
    "attribute blocked, packed": (BATTR, BID + packed(11, 1, 6), HELD, ATTRIBUTE),
    "attributes packed and not": (BATTR, BID + packed(11, 1, 2) + number(11, 6), HELD, ATTRIBUTE),
    "attribute negative": (BATTR, BID + number(11, -1), HELD, ATTRIBUTE),
    "attribute negative in 32 bits": (BATTR, BID + number(11, 2**32 - 1), HELD, ATTRIBUTE),
    "attribute of 33 bits": (BATTR, BID + number(11, 2**32 + 6), HELD, ATTRIBUTE),
    "attribute of 33 bits, packed": (BATTR, BID + packed(11, 1, 2**32 + 6), HELD, ATTRIBUTE),
    "attribute in ten bytes": (BATTR, BID + number(11, 6, padding=9), HELD, ATTRIBUTE),
    "attribute under a tag of five bytes": (BATTR, BID + wire.key(11, 0, padding=4) + b"\x06", HELD, ATTRIBUTE),
    "attributes none, packed": (BATTR, BID + packed(11), THROUGH, None),
    "attribute as a double": (BATTR, BID + double(11, 6.0), THROUGH, None),
    "attribute of the other format": (SEVERAL, BID + number(33, 2) + text(6, "v") + number(11, 6), THROUGH, None),
    "attribute of an unknown format": (SEVERAL, BID + number(11, 6), HELD, ATTRIBUTE),
    # formats
    "format 0": (BANNER, BID + number(33, 0), THROUGH, None),
    "format 0 of several": (SEVERAL, BID + number(33, 0), HELD, None),
    "format not asked": (BANNER, BID + number(33, 3), HELD, FORMAT),
    "format 5": (BANNER, BID + number(33, 5), HELD, FORMAT),
    "format 5 before another impression": (TWO, BID + number(33, 5), HELD, FORMAT),
    "format 2^31": (BANNER, BID + number(33, 2**31), HELD, FORMAT),
    "format 2^32 + 1": (BANNER, BID + number(33, 2**32 + 1), HELD, None),
    "format -1": (BANNER, BID + number(33, -1), HELD, FORMAT),
    "format last said": (BANNER, BID + number(33, 2) + number(33, 1), THROUGH, None),
    "format as text": (BANNER, BID + text(33, "2"), THROUGH, None),
    "format as 32 bits": (BANNER, BID + wire.key(33, wire.I32) + b"\2\0\0\0", THROUGH, None),
    # sizes
    "size asked": (SIZED, BID + number(16, 300) + number(17, 250), THROUGH, None),
    "size turned": (SIZED, BID + number(16, 250) + number(17, 300), HELD, SIZE),
    "size by a pixel": (SIZED, BID + number(16, 301) + number(17, 250), HELD, SIZE),
    "size absent": (SIZED, BID, THROUGH, None),
    "size 0": (SIZED, BID + number(16, 0) + number(17, 0), THROUGH, None),
    "size of one side": (SIZED, BID + number(16, 300), HELD, None),
    "size of the other side": (SIZED, BID + number(17, 1), HELD, None),
    "size negative": (SIZED, BID + number(16, -300) + number(17, 250), HELD, None),
    "size absent of two": (SIZES, BID, HELD, SIZE),
    "size second of two": (SIZES, BID + number(16, 320) + number(17, 50), THROUGH, None),
    "size across two": (SIZES, BID + number(16, 320) + number(17, 250), HELD, SIZE),
    "size of one side of two": (SIZES, BID + number(16, 320), HELD, SIZE),
    "size negative of two": (SIZES, BID + number(16, -320) + number(17, 50), HELD, SIZE),
    "size of a ratio": (RATIO, BID + number(16, 77) + number(17, 77), HELD, None),
    "size beside a ratio": (RATIO, BID + number(16, 300) + number(17, 250), THROUGH, None),
    "size of a ratio alone": (RATIO_ALONE, BID + number(16, 77) + number(17, 77), HELD, None),
    "size of no ratio": (RATIO_ALONE, BID + number(16, 77) + number(17, 78), HELD, SIZE),
    "size absent of a ratio alone": (RATIO_ALONE, BID, HELD, SIZE),
    "size absent beside a ratio": (RATIO, BID, HELD, SIZE),
    "size nobody asked for": (BANNER, BID + number(16, 7) + number(17, -7), HELD, None),
    "size where none is asked": (BANNER, BID + number(16, 7) + number(17, 7), THROUGH, None),
    "size in 33 bits": (SIZED, BID + number(16, 2**32 + 300) + number(17, 250), HELD, None),
    "size last said": (SIZED, BID + number(16, 1) + number(17, 250) + number(16, 300), THROUGH, None),
    # markup
    "markup missing": (VIDEO, BID, HELD, MARKUP),
    "markup by address": (VIDEO, BID + text(5, "https://x"), THROUGH, None),
    "markup empty": (VIDEO, BID + text(6, ""), HELD, MARKUP),
    "markup taken back": (VIDEO, BID + text(6, "<VAST/>") + text(6, ""), HELD, MARKUP),
    "markup native as a message": (VIDEO, BID + text(50, ""), HELD, MARKUP),
    "markup native, then text": (VIDEO, BID + text(50, b"") + text(6, "<VAST/>"), HELD, None),
    "markup text, then native": (VIDEO, BID + text(6, "<VAST/>") + text(50, b""), HELD, MARKUP),
    "markup secure": (SECURE, BID + text(6, "https://x"), THROUGH, None),
    "markup not secure": (SECURE, BID + text(6, "http://x"), HELD, NOT_SECURE),
    "markup not secure in capitals": (SECURE, BID + text(6, "HTTP:"), HELD, NOT_SECURE),
    "markup not secure in both": (SECURE, BID + text(6, "..hTtP:.."), HELD, NOT_SECURE),
    "markup one letter off": (SECURE, BID + text(6, "httq://ttp: http"), THROUGH, None),
    "markup cut before the colon": (SECURE, BID + text(6, "http") + text(5, ":"), THROUGH, None),
    "markup in a namespace": (SECURE, BID + text(6, '<a xmlns="http://x">'), HELD, None),
    "address not secure": (SECURE, BID + text(5, "http://x"), HELD, NOT_SECURE),
    "address not secure beside markup": (SECURE, BID + text(5, "http://x") + text(6, "x"), THROUGH, None),
    "address not secure beside empty markup": (SECURE, BID + text(5, "http:") + text(6, ""), HELD, NOT_SECURE),
    "address not secure beside native": (SECURE, BID + text(5, "http:") + text(50, text(1, "1.2")), HELD, NOT_SECURE),
    "document type that nothing ends": (SECURE, BID + text(6, "<p><!doctype http:"), HELD, NOT_SECURE),
    "document type behind an end": (SECURE, BID + text(6, "<!DocType http:><!DOCTYPE"), HELD, None),
    "end of a name behind a document type": (SECURE, BID + text(6, '<!doctype xmlns="http:"'), HELD, None),
    "address of the second view not secure": (SECURE, BID + text(8, "http:") + text(22, "http:"), THROUGH, None),
    # durations
    "duration unsaid": (VIDEO, BID + text(6, "v"), THROUGH, None),
    "duration least": (VIDEO, BID + text(6, "v") + number(32, 5), THROUGH, None),
    "duration most": (VIDEO, BID + text(6, "v") + number(32, 15), THROUGH, None),
    "duration short": (VIDEO, BID + text(6, "v") + number(32, 4), HELD, FILTERED),
    "duration long": (VIDEO, BID + text(6, "v") + number(32, 16), HELD, FILTERED),
    "duration 0": (VIDEO, BID + text(6, "v") + number(32, 0), HELD, FILTERED),
    "duration negative": (VIDEO, BID + text(6, "v") + number(32, -5), HELD, FILTERED),
    "duration unsaid in a pod": (POD, BID + text(6, "v"), HELD, FILTERED),
    "duration in a pod": (POD, BID + text(6, "v") + number(32, 0), THROUGH, None),
    "duration exact": (AUDIO, BID + number(32, 15), HELD, None),
    "duration between two exact": (AUDIO, BID + number(32, 16), HELD, FILTERED),
    "duration 0 beside exact ones": (AUDIO, BID + number(32, 0), HELD, FILTERED),
    "duration unsaid in a pod with floors by it": (PRICED_POD, BID + text(6, "v"), HELD, FILTERED),
    # identity
    "id empty": (BANNER, text(1, "") + text(2, "1") + double(3, 1.5), HELD, INVALID),
    "id last said": (BANNER, BID + text(1, "c"), THROUGH, None),
    "id taken back": (BANNER, BID + text(1, ""), HELD, INVALID),
    "impression nobody asked for": (BANNER, BID + text(2, "2"), HELD, INVALID),
    "impression by more than its id": (BANNER, BID + text(2, "11"), HELD, INVALID),
    "impression empty": (BANNER, BID + text(2, ""), HELD, INVALID),
    "deal": (BANNER, BID + text(13, "d"), HELD, LossReason.INVALID_DEAL),
    "deal empty": (BANNER, BID + text(13, ""), THROUGH, None),
    "deal taken back": (BANNER, BID + text(13, "d") + text(13, ""), THROUGH, None),
    "private": (PRIVATE, BID, HELD, LossReason.INVALID_DEAL),
    "seat not allowed": (with_(BANNER, wseat=["s"]), BID, HELD, LossReason.SEAT_BLOCKED),
    "seat none, and an empty name blocked": (with_(BANNER, bseat=[""]), BID, THROUGH, None),
    "seat none, and an empty name allowed": (with_(BANNER, wseat=[""]), BID, HELD, LossReason.SEAT_BLOCKED),
    "seat none, and a deal for an empty name": (DEAL, BID + text(13, "d"), HELD, LossReason.SEAT_BLOCKED),
    "seat none, and another blocked": (with_(BANNER, bseat=["s"]), BID, THROUGH, None),
    # what nobody knows
    "group": (BANNER, group(60) + BID + group(1, group(2) + text(1, "x")), THROUGH, None),
    "unknown fields": (BANNER, BID + text(60, "x") + number(61, -1) + double(62, 1.0), THROUGH, None),
    "known fields of other types": (BANNER, BID + number(1, 7) + text(3, "12345678") + double(2, 1.0), THROUGH, None),
    "a length in five bytes": (BANNER, BID + text(1, "b", padding=4), THROUGH, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bid_is_let_through_only_if_nothing_can_be_wrong_with_it(name: str) -> None:
    request, bid, through, reason = CASES[name]
    made = decided(opened(request), [answer(bid)])
    (reply,) = made.replies
    assert 1 == reply.count
    verdict = reply.held.get(reply.first)
    assert through == (verdict is None)
    if verdict is not None:
        assert reason == verdict.reason


LIMIT = 1e9
LARGEST_EXACT = 2**50 / 1e9


@pytest.mark.parametrize(
    ("price", "through", "reason"),
    [
        (1.0, THROUGH, None),
        (1e-6, THROUGH, None),
        (math.nextafter(1e-6, 0), THROUGH, None),  # noise below the ninth decimal
        (9.99e-7, HELD, INVALID),
        (1e-7, HELD, INVALID),
        (5e-324, HELD, INVALID),
        (0.0, HELD, INVALID),
        (-0.0, HELD, INVALID),
        (-1.0, HELD, INVALID),
        (math.nan, HELD, INVALID),
        (math.inf, HELD, INVALID),
        (-math.inf, HELD, INVALID),
        (0.1 * 3, THROUGH, None),
        (1.0000005, THROUGH, None),
        (123.4567895, THROUGH, None),
        (1.0000000005, HELD, None),  # half a nano: more than a double's arithmetic can say
        (LARGEST_EXACT - 1, THROUGH, None),
        (LARGEST_EXACT, HELD, None),
        (LIMIT, HELD, None),
        (math.nextafter(LIMIT, math.inf), HELD, INVALID),
        (1e308, HELD, INVALID),
    ],
)
def test_a_price_is_let_through_only_if_its_digits_are_certain(
    price: float, through: bool, reason: LossReason | None
) -> None:
    (reply,) = decided(opened(BANNER), [answer(BID + double(3, price))]).replies
    verdict = reply.held.get(reply.first)
    assert through == (verdict is None)
    if verdict is not None:
        assert reason == verdict.reason


def test_a_bid_without_price_is_not_let_through() -> None:
    for bid in (text(1, "b") + text(2, "1"), text(1, "b") + text(2, "1") + number(3, 1)):
        (reply,) = decided(opened(BANNER), [answer(bid)]).replies
        assert [LossReason.MISSING_PRICE] == [verdict.reason for verdict in reply.held.values()]


@pytest.mark.parametrize(("price", "through"), [(2.0, True), (2.0000004, True), (2.000001, False)])
def test_a_price_above_the_highest_is_held_back(price: float, through: bool) -> None:
    (reply,) = decided(opened(BANNER, max_cpm=2_000_000), [answer(BID + double(3, price))]).replies
    assert through == (not reply.held)


@pytest.mark.parametrize(
    ("setting", "bid", "through"),
    [
        ({"crid": "warn"}, b"", False),
        ({"crid": "warn"}, text(10, ""), False),
        ({"crid": "warn"}, text(10, "c"), True),
        ({"crid": "enforce"}, b"", False),
        ({"size": "warn"}, number(16, 1) + number(17, 1), False),
        ({"size": "off"}, number(16, 1) + number(17, 1), True),
        ({"secure": "warn"}, text(6, "http:"), False),
        ({"secure": "off"}, text(6, "http:"), True),
        ({"category_match": "parents"}, text(15, "IAB1-1"), False),
        ({"category_match": "parents"}, text(15, "IAB9") + number(30, 2), True),
    ],
)
def test_a_check_that_is_off_holds_nothing_back(setting: Json, bid: bytes, through: bool) -> None:
    imp = {"id": "1", "secure": 1, "banner": {"w": 300, "h": 250}}
    (reply,) = decided(opened({"imp": [imp], "bcat": ["IAB1"]}, **setting), [answer(BID + bid)]).replies
    assert through == (not reply.held)


def test_parents_of_categories_are_looked_for_only_where_some_are_blocked() -> None:
    auction = opened(with_(BANNER, badv=["ford.com"]), category_match="parents")
    (reply,) = decided(auction, [answer(BID + text(15, "IAB1-1"))]).replies
    assert {} == reply.held


def test_a_price_can_be_changed_where_it_stands_in_one_place_and_the_deal_has_a_name() -> None:
    price, again = len(BID) - 8, BID + double(3, 2.0)
    for bid, place in (
        (BID, price), (again, -1), (text(1, "b") + text(2, "1"), -1), (BID + text(13, "d"), price),
        (BID + text(13, ""), -1), (BID + text(13, "") + text(13, "d"), -1), (BID + text(13, "d") + text(13, ""), -1),
    ):  # fmt: skip
        assert (bid, place) == decided(opened(BANNER), [answer(bid)]).sent(0)


# ------------------------------------------------------------ whole replies


def named(id: str, price: float = 1.5) -> bytes:
    return text(1, id) + text(2, "1") + double(3, price)


def test_a_reply_with_two_bids_of_one_seat_and_id_is_looked_at_whole() -> None:
    repeated = text(1, "r") + seatbid(named("a"), seat="s") + seatbid(named("b"), named("a", 9.0), seat="s")
    (reply,) = decided(opened(BANNER), [repeated]).replies
    assert [False, False, True] == [verdict.duplicate for verdict in reply.held.values()]


@pytest.mark.parametrize(
    ("ids", "repeated"),
    [
        (("b", "a", "a"), True), (("a", "a", "b"), True), (("ab", "a"), False), (("a", "ab"), False),
        (("ab", "b"), False), (("ab", "ac"), False), (("a", "b", "c"), False),
    ],
)  # fmt: skip
def test_a_reply_is_looked_at_whole_only_where_one_id_is_another(ids: tuple[str, ...], repeated: bool) -> None:
    # Every id once in one seat behind a reply that has the same ones; then ids are seats, of bids of one id.
    by_id = text(1, "r") + seatbid(*map(named, ids), seat="s")
    by_seat = text(1, "r") + b"".join(seatbid(named("a"), seat=seat) for seat in ids)
    for body in (by_id, by_seat):
        _, reply = decided(opened(BANNER, bidders=2), [answer(*map(named, "xyz"[: len(ids)])), body]).replies
        assert (len(ids) if repeated else 0) == len(reply.held)


def test_one_id_of_two_seats_or_two_bidders_is_two_bids() -> None:
    body = text(1, "r") + seatbid(named("a"), seat="s") + seatbid(named("a"), seat="t") + seatbid(named("a"))
    assert [{}, {}] == [reply.held for reply in decided(opened(BANNER, bidders=2), [body, body]).replies]


def test_a_seat_that_comes_behind_its_bids_is_theirs() -> None:
    before = text(1, "r") + text(2, text(2, "s") + text(1, named("a")))
    behind = text(1, "r") + text(2, text(1, named("a")) + text(2, "x") + text(2, "s"))
    made = decided(opened(BANNER, bidders=2), [before, behind])
    assert ["s", "s"] == [made.seat(row) for row in range(2)]


def test_seatbids_of_one_seat_are_one_competitor() -> None:
    body = text(1, "r") + b"".join(seatbid(named(f"b{place}"), seat=seat) for place, seat in enumerate("stsu"))
    made = decided(opened(BANNER), [body])
    competitors = made.columns.tolist()[COMPETITOR::COLUMNS]
    assert competitors[0] == competitors[2]
    assert 3 == len(set(competitors))


def test_what_stands_between_bids_is_walked_over() -> None:
    odd = [
        group(60, group(61, text(1, "x"))),
        number(2, 7),
        double(1, 1.0),
        wire.key(2, wire.I32) + b"abcd",
        text(3, "x"),
    ]
    for one in odd:
        body = one + text(1, "r") + one + text(2, one + text(1, named("a")) + one + text(1, named("b")) + one) + one
        (reply,) = decided(opened(BANNER), [body]).replies
        assert (2, {}) == (reply.count, reply.held)


def test_too_many_bids_or_too_long_names_are_a_reply_of_no_bid() -> None:
    for bids, excessive in ((100, False), (101, True)):
        for body in (
            answer(*(named(f"b{place}") for place in range(bids))),
            text(1, "r") + b"".join(seatbid(named(f"b{place}")) for place in range(bids)),
            answer(*[b""] * bids),
        ):
            made = decided(opened(BANNER, bidders=2), [body, answer(BID)])
            assert [excessive, False] == [reply.excessive for reply in made.replies]
    for seat_bytes, excessive in ((197, False), (198, True)):
        body = text(1, "r") + seatbid(named("a"), named("b"), seat="s" * seat_bytes)
        (reply,) = decided(opened(BANNER, limits=Limits(reply_bytes=400)), [body]).replies
        assert excessive == reply.excessive


def test_a_reply_with_one_bid_too_many_writes_no_row_of_it() -> None:
    (reply,) = decided(opened(BANNER, limits=Limits(bids_per_reply=1)), [answer(named("a"), named("b"))]).replies
    assert (True, 0) == (reply.excessive, reply.count)


def test_a_bid_without_price_takes_none_of_a_reply_that_was_too_large() -> None:
    too_large = answer(named("a", 5.0), named("b", 5.0))
    made = decided(
        opened(BANNER, bidders=2, limits=Limits(bids_per_reply=1)), [too_large, answer(text(1, "c") + text(2, "1"))]
    )
    assert [LossReason.MISSING_PRICE] == [verdict.reason for verdict in made.replies[1].held.values()]


def test_a_reply_cut_anywhere_is_decided() -> None:
    whole = answer(named("a") + packed(11, 1, 2) + text(7, "x.org"), named("b") + group(60, double(1, 1.0)))
    auction = opened(with_(BATTR, badv=["ford.com"]))
    for end in range(len(whole)):
        decided(auction, [whole[:end]])


def test_a_reply_with_any_byte_changed_is_decided() -> None:
    whole = bytearray(answer(named("a") + number(11, 1), named("b") + text(7, "x.org")) + group(60))
    auction = opened(with_(BATTR, badv=["ford.com"]))
    for place in range(len(whole)):
        kept = whole[place]
        for byte in (0, 1, 2, 3, 4, 5, 127, 128, 255, kept ^ 1, kept ^ 128):
            whole[place] = byte
            decided(auction, [bytes(whole)])
        whole[place] = kept


def test_bids_in_two_currencies_answer_to_their_own_floors() -> None:
    request = {"cur": ["USD", "EUR"], "imp": [{"id": "1", "bidfloor": 1.4, "bidfloorcur": "EUR", "banner": {}}]}
    in_usd, in_eur = answer(named("a")), text(4, "EUR") + answer(named("b"))
    for bodies in ([in_usd, in_eur], [in_eur, in_usd]):
        columns = decided(opened(request, bidders=2), bodies).columns.tolist()
        told = columns[TOLD_FLOOR::COLUMNS]
        assert {1_400_000, 1_555_556} == set(told)


@pytest.mark.parametrize(("price", "through"), [(1.8, True), (1.80001, False)])
def test_the_highest_price_is_the_auctions_in_every_currency(price: float, through: bool) -> None:
    auction = opened({**BANNER, "cur": ["EUR"]}, max_cpm=2_000_000)
    (reply,) = decided(auction, [text(4, "EUR") + answer(BID + double(3, price))]).replies
    assert through == (not reply.held)


def test_a_blocked_creative_is_not_let_through() -> None:
    c1, c2 = text(10, "c1"), text(10, "c2")
    bids = [named("a") + c1, named("b") + c2, named("c") + text(10, "c11"), named("d") + c2 + c1, named("e") + c1 + c2]
    auction = opened(BANNER, [BidderRules("a", blocked_creatives=("c1",))])
    (reply,) = decided(auction, [answer(*bids)]).replies
    assert [0, 3] == list(reply.held)


def test_a_bidders_own_seats_are_looked_at() -> None:
    replies = text(1, "r") + b"".join(seatbid(named(seat or "none"), seat=seat) for seat in ("s", "t", None, "ss"))
    (reply,) = decided(opened(BANNER, [BidderRules("a", seats=("s", ""))]), [replies]).replies
    assert [1, 2, 3] == list(reply.held)


def test_a_weighed_bid_ranks_by_its_weight() -> None:
    weights = (Adjustment(bidder="dsp-0", multiplier="10"), Adjustment(bidder="dsp-1", subtract=CpmMicros(500_000)))
    auction = opened(BANNER, bidders=3, bid_adjustments=weights)
    made = decided(auction, [answer(BID)] * 3)
    assert [15_000_000, 1_000_000, 1_500_000] == made.columns.tolist()[RANKED::COLUMNS]
    assert [{}, {}, {}] == [reply.held for reply in made.replies]


def test_a_weight_of_one_format_is_that_of_its_impressions() -> None:
    request = {"imp": [{"id": "1", "banner": {}}, {"id": "2", "video": {}}]}
    auction = opened(request, bid_adjustments=(Adjustment(media="video", multiplier="2"),))
    made = decided(auction, [answer(BID, named("v") + text(2, "2") + text(6, "<VAST/>"))])
    assert [1_500_000, 3_000_000] == made.columns.tolist()[RANKED::COLUMNS]


@pytest.mark.parametrize("price", [1_000_000.0, 100_000.0])  # above it as sent, and once it is weighed
def test_a_bid_that_ranks_above_the_limit_is_held_back(price: float) -> None:
    auction = opened({**BANNER, "cur": ["EUR"]}, bid_adjustments=(Adjustment(multiplier="10"),), currency="JPY")
    (reply,) = decided(auction, [text(4, "EUR") + answer(BID + double(3, price))]).replies
    assert [INVALID] == [verdict.reason for verdict in reply.held.values()]


def test_bidders_that_a_floor_rule_names_answer_to_its_floors() -> None:
    model = FloorModel(rules=(FloorRule(floor=CpmMicros(2_000_000), bidder="dsp-1"),))
    made = decided(opened(BANNER, bidders=3, floors=FloorRules(models=(model,))), [answer(BID)] * 3)
    assert [0, 2_000_000, 0] == made.columns.tolist()[TOLD_FLOOR::COLUMNS]


def test_a_bid_on_an_impression_that_another_was_asked_for_is_not_let_through() -> None:
    request = {"imp": [{"id": "1", "banner": {}}, {"id": "2", "video": {}}]}
    auction = opened(request, [BidderRules("a"), BidderRules("b", media=("video",))])
    first, second = decided(auction, [answer(BID)] * 2).replies
    assert (False, True) == (bool(first.held), bool(second.held))


def test_256_replies_are_decided() -> None:
    auction = opened(with_(SIZED, badv=["ford.com"]), bidders=256)
    bodies = [answer(named(f"b{place}", 1 + place % 7), named("c", 2.0)) for place in range(256)]
    bodies[17], bodies[128], bodies[255] = b"", b"\xff", answer(named("a", 50.0) + text(7, "ford.com"))
    made = decided(auction, bodies)
    assert (254, 507) == (len(made.replies), sum(reply.count for reply in made.replies))


def test_many_blocked_names_hold_back_few_others() -> None:
    """Hold the filter to its promise: one false alarm in eight, at most, of names that nobody blocked."""
    for blocked in (1, 500, 4000):
        auction = opened(with_(BANNER, badv=[f"site-{place}.example" for place in range(blocked)]))
        bids = [named(f"b{place}") + text(7, f"shop-{place}.test") for place in range(100)]
        (reply,) = decided(auction, [answer(*bids)]).replies
        assert len(reply.held) <= 100 / 8 + 12


def test_blocked_names_are_found_among_many() -> None:
    auction = opened(with_(BANNER, badv=[f"site-{place}.example" for place in range(3000)]))
    bids = [named(f"b{place}") + text(7, f"www.SITE-{place * 30}.example.") for place in range(100)]
    (reply,) = decided(auction, [answer(*bids)]).replies
    assert {BLOCKED} == {verdict.reason for verdict in reply.held.values()}
    assert 100 == len(reply.held)

# The core in one process, on one core: the kernel, filling its columns, and a whole auction without any waiting.

from __future__ import annotations

import struct
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Any, Literal

import msgspec
import numpy as np

from auction.core import floor_rules
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.kernels.clear import AT, COLUMNS, COMPETITOR, FLOOR, IMP, RANKED, RESULTS, SETTLEMENTS, clear
from auction.core.offers import Heard, Offers, offers
from auction.core.openrtb import json, requests, responses, views
from auction.core.openrtb.replies import decode_reply
from auction.core.openrtb.responses import Sale
from auction.core.validation import Checks
from auction.model.auction import Arrival, Auction, Encoding
from auction.model.money import CpmMicros
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import (
    Adjustment,
    BidderRules,
    ExchangeRules,
    FloorModel,
    FloorRule,
    FloorRules,
    Rules,
)
from tests import oracle

REQUEST = "site-banner-2kb.json"  # two banners, 2 KB: what an SSP sends
RUNS = 9
BID = {
    "adm": '<a href="https://click.example/c?x=1"><img src="https://cdn.example/creative/12345.png"></a>',
    "adomain": ["brand.example"],
    "cat": ["IAB3"],
    "crid": "cr-1",
    "mtype": 1,
}


def rows() -> Iterator[tuple[str, str, list[float]]]:
    """Measure and give (name, unit, a number each run): microseconds of one call, the least of three tries."""
    yield from kernel_rows()
    yield from floor_rows()
    for bidders in (4, 8):
        for encoding in (Encoding.PROTOBUF, Encoding.JSON):
            yield from core_rows(bidders, encoding)


def kernel_rows() -> Iterator[tuple[str, str, list[float]]]:
    """The kernel on 2 impressions and 32 bids, from Python, with its columns filled; the filling; the plain twin."""
    rules = compile_rules(market(16, Encoding.PROTOBUF))
    auction, replies = asked(rules, 16, Encoding.PROTOBUF)
    heard = [
        Heard(row, rules.offerers[row], invitation.imps, reply.body, decode_reply(reply.body).wire, "USD")
        for row, (invitation, reply) in enumerate(zip(auction.invitations, replies, strict=True))
    ]
    exchange, order, limits = rules.rules.exchange, rules.market.order, rules.rules.limits

    def fill(sieved: bool = True) -> Offers:
        checks = Checks(auction.request, exchange, rules.floors, auction.raised, auction.open_terms, rules.groups)
        return offers(
            heard, auction.request, auction.survey, exchange, checks, order, rules.listings, limits, sieved=sieved
        )

    columns = fill().columns
    assert columns.size == 32 * COLUMNS
    plain = oracle.Exchange(increment=10_000)
    rows = columns.reshape(32, COLUMNS).tolist()
    twin = [
        [
            oracle.Row(row[RANKED], row[FLOOR], row[AT], False, row[COMPETITOR], place, b"")
            for place, row in enumerate(rows)
            if row[IMP] == imp
        ]
        for imp in range(2)
    ]
    out = np.empty(32 * RESULTS + 2 * SETTLEMENTS, np.int64)
    yield "kernel.2x32.us", "us", timed(lambda: clear(columns, 2, 10_000, -1, 0, out), 20_000)
    yield "kernel.2x32.fill_us", "us", timed(fill, 5_000)
    yield "kernel.2x32.fill_unsieved_us", "us", timed(lambda: fill(sieved=False), 500)
    yield "oracle.2x32.us", "us", timed(lambda: [oracle.settle(rows, plain) for rows in twin], 200)


def floor_rows() -> Iterator[tuple[str, str, list[float]]]:
    """One lookup in floor rules: of every kind of key, ten of them and ten thousand."""
    for count in (10, 10_000):
        table = floor_rules.compiled(FloorRules(models=(FloorModel(rules=tuple(floors(count))),)))
        values = ("banner", "300x250", "d3.example", "t7", "GBR", "2", "dsp-00")
        model = table.models[0]
        assert model.floor(values) is not None
        yield f"floors.{count}.lookup_us", "us", timed(partial(model.floor, values), 50_000)


def floors(count: int) -> Iterator[FloorRule]:
    """Give rules that differ: by placement, by domain and country, by size, by format, by bidder, in turn."""
    for row in range(count):
        price = CpmMicros(300_000 + row)
        yield (
            FloorRule(price, tagid=f"t{row}"),
            FloorRule(price, domain=f"d{row}.example", country="GBR"),
            FloorRule(price, size=f"{300 + row}x250", device_type="2"),
            FloorRule(price, media_type="banner", domain=f"d{row}.example", size="300x250"),
            FloorRule(price, country="GBR", bidder=f"dsp-{row:02}"),
        )[row % 5]


def core_rows(bidders: int, encoding: Encoding) -> Iterator[tuple[str, str, list[float]]]:
    """open_auction and close_auction of the 2 KB request, every bidder bidding once on both impressions.

    Everything that may be asked for is: floor rules of two models with a skip rate, a least price and a soft floor, an
    adjustment, seats and blocked creatives. `bare` is the same with none of it. Decoding is reading the request and
    the replies, encoding is writing one view and the answer.
    """
    name = f"core.{bidders}x2.{encoding.name.lower()}"
    bare = compile_rules(market(bidders, encoding))
    rules = compile_rules(everything(market(bidders, encoding)))
    auction, replies = asked(rules, bidders, encoding)
    assert all(outcome.reason in (0, 102) for outcome in close_auction(auction, replies).outcomes)
    arrival = auction.arrival
    yield f"{name}.us", "us", timed(lambda: close_auction(open_auction(arrival, rules), replies), 1_000)
    yield f"{name}.open_us", "us", timed(lambda: open_auction(arrival, rules), 1_000)
    yield f"{name}.close_us", "us", timed(lambda: close_auction(auction, replies), 1_000)
    yield f"{name}.bare_us", "us", timed(lambda: close_auction(open_auction(arrival, bare), replies), 1_000)
    if encoding is Encoding.PROTOBUF:
        yield from codec_rows(name, auction, replies)


def codec_rows(
    name: str, auction: Auction[CompiledRules], replies: list[Reply]
) -> Iterator[tuple[str, str, list[float]]]:
    """The part of it that is reading and writing messages."""
    body, limits, rows = auction.arrival.body, auction.rules.rules.limits, range(len(auction.request.imps))
    bids = [seatbid.bid[0] for seatbid in decode_reply(replies[0].body).wire.seatbid]
    sent = [(bid.SerializeToString(), struct.pack("<d", bid.price)) for bid in bids]
    price = CpmMicros(1_000_000)
    sales = [Sale("dsp-00", "s0", bid, bid.index(double), price, False) for bid, double in sent]

    def decode() -> None:
        message = requests.parse_request(body)
        survey, cells = requests.survey_request(message, limits)
        requests.decode_request(message, survey.body, cells, limits)
        for reply in replies:
            decode_reply(reply.body)

    message = requests.parse_request(body)
    survey, cells = requests.survey_request(message, limits)

    def encode() -> None:
        views.view(message, survey.body, cells, rows, 90, {})
        responses.response("r", "A", "USD", sales, None)

    yield f"{name}.decode_us", "us", timed(decode, 1_000)
    yield f"{name}.encode_us", "us", timed(encode, 1_000)


def market(bidders: int, encoding: Encoding) -> Rules:
    speaks: Literal["json", "protobuf"] = "json" if encoding is Encoding.JSON else "protobuf"
    return Rules(
        exchange=ExchangeRules(increment={"USD": CpmMicros(10_000)}),
        bidders=tuple(BidderRules(f"dsp-{row:02}", speaks) for row in range(bidders)),
    )


def everything(bare: Rules) -> Rules:
    """Switch on what a market may have."""
    exchange = msgspec.structs.replace(
        bare.exchange,
        min_price=CpmMicros(50_000),
        max_cpm=CpmMicros(500_000_000),
        soft_floor=CpmMicros(2_000_000),
        tie_key="salt",
        bid_adjustments=(
            Adjustment(bidder="dsp-01", multiplier="0.95"),
            Adjustment(media="video", subtract=CpmMicros(50_000)),
        ),
    )
    models = (
        FloorModel("a", 7, CpmMicros(400_000), tuple(floors(100))),
        FloorModel("b", 3, rules=(FloorRule(CpmMicros(450_000), country="GBR"),)),
    )
    bidders = tuple(
        msgspec.structs.replace(bidder, seats=(f"s{row}-0", f"s{row}-1"), blocked_creatives=("bad-1", "bad-2"))
        for row, bidder in enumerate(bare.bidders)
    )
    return msgspec.structs.replace(
        bare, exchange=exchange, floors=FloorRules(CpmMicros(100_000), "0.05", models), bidders=bidders
    )


def asked(rules: CompiledRules, bidders: int, encoding: Encoding) -> tuple[Auction[CompiledRules], list[Reply]]:
    request = msgspec.json.decode(files("bidders").joinpath("requests", REQUEST).read_bytes())
    body = msgspec.json.encode(request)
    if encoding is Encoding.PROTOBUF:
        body = json.request_bytes(body, lenient=True, depth=32).message
    auction = open_auction(Arrival("A", 0, encoding, body), rules)
    replies = []
    for row in range(bidders):
        bids = [
            {"id": f"b{row}", "impid": imp["id"], "price": 2.5 + 0.07 * row + 0.013 * place, **BID, **size(imp)}
            for place, imp in enumerate(request["imp"])
        ]
        seats = [{"seat": f"s{row}-{place}", "bid": [bid]} for place, bid in enumerate(bids)]
        answer = msgspec.json.encode({"id": request["id"], "cur": "USD", "seatbid": seats})
        if encoding is Encoding.PROTOBUF:
            answer = json.response_bytes(answer, lenient=True, depth=32).message
        replies.append(Reply(f"dsp-{row:02}", ReplyStatus.BID, answer))
    return auction, replies


def size(imp: dict[str, Any]) -> dict[str, int]:
    return {side: imp["banner"][side] for side in ("w", "h")}


def timed(call: Callable[[], object], times: int) -> list[float]:
    call()
    return [min(timeit.repeat(call, number=times, repeat=3)) / times * 1e6 for _ in range(RUNS)]

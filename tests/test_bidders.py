# The demo bidders: what a strategy promises, that chance is a function of seed and request, and that both protocols
# tell the same story.

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import aiohttp
import grpc
import msgspec
import pytest

from auction.core.openrtb.json import request_bytes, response_bytes
from auction.model.auction import Encoding
from auction.model.errors import InvalidReply
from auction.v1.bidder_pb2 import Notice
from auction.v1.bidder_pb2_grpc import BidderStub
from auction.v1.openrtb_pb2 import BidRequest, BidResponse
from bidders import over_grpc, over_http
from bidders.answers import NotARequest, answer
from bidders.settings import NONSENSE, Fault, Settings
from bidders.strategies import Decision, decide

BUNDLED = {
    file.name: file.read_bytes()
    for file in sorted(resources.files("bidders.requests").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".json")
}
REQUESTS = [BidRequest.FromString(request_bytes(body, lenient=True, depth=64).message) for body in BUNDLED.values()]
PLAIN = BidRequest(id="r1", imp=[{"id": "1", "banner": {"w": 300, "h": 250}}], cur=["USD"])


def settings(strategy: str = "value-noise", **more: Any) -> Settings:
    return msgspec.convert({"name": "dsp", "strategy": strategy, "bid_share": 1.0, **more}, Settings)


def bids(decision: Decision) -> list[BidResponse.Bid]:
    return [bid for seatbid in decision.response.seatbid for bid in seatbid.bid] if decision.response else []


def with_id(request: BidRequest, id: str) -> BidRequest:
    changed = BidRequest()
    changed.CopyFrom(request)
    changed.id = id
    return changed


def many(count: int = 200, **fields: Any) -> list[BidRequest]:
    request = BidRequest()
    request.CopyFrom(PLAIN)
    request.MergeFrom(BidRequest(**fields))
    return [with_id(request, f"r{number}") for number in range(count)]


def test_bids_do_not_depend_on_the_order_of_requests() -> None:
    forward = [decide(settings(), request) for request in REQUESTS]
    backward = [decide(settings(), request) for request in reversed(REQUESTS)]
    assert forward == backward[::-1]


def test_another_seed_is_another_opinion() -> None:
    assert [decide(settings(seed=1), r) for r in REQUESTS] != [decide(settings(seed=2), r) for r in REQUESTS]


@pytest.mark.parametrize("strategy", ["fixed", "value-noise", "truncated"])
def test_most_bundled_requests_find_a_buyer(strategy: str) -> None:
    answered = [decide(settings(strategy), request) for request in REQUESTS]
    assert sum(bool(bids(decision)) for decision in answered) > len(REQUESTS) * 2 // 3


def test_bids_are_for_impressions_that_were_asked_and_show_something() -> None:
    for request in REQUESTS:
        imps = {imp.id: imp for imp in request.imp}
        for bid in bids(decide(settings(), request)):
            format = {1: "banner", 2: "video", 3: "audio", 4: "native"}[bid.mtype]
            assert imps[bid.impid].HasField(format)
            assert bid.adm
            assert bid.crid
            assert bid.adomain[0] not in request.badv
            assert not {bid.cat[0], bid.cat[0].partition("-")[0]} & set(request.bcat)


def test_fixed_offers_one_price() -> None:
    prices = {bid.price for request in many() for bid in bids(decide(settings("fixed", price={"median": 2}), request))}
    assert {2.0} == prices


def test_fixed_stays_away_from_a_floor_far_above_it() -> None:
    request = BidRequest(id="r", imp=[{"id": "1", "banner": {}, "bidfloor": 2.3}])
    assert [] == bids(decide(settings("fixed", price={"median": 2}), request))
    assert bids(decide(settings("fixed", price={"median": 2.1}), request))


def test_value_noise_agrees_with_its_rivals_more_or_less() -> None:
    ours, theirs = settings(noise=0.1), settings(name="rival", noise=0.1)
    pairs = [
        (first.price, second.price)
        for request in many()
        for first, second in zip(bids(decide(ours, request)), bids(decide(theirs, request)), strict=True)
    ]
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    prices = sorted(ours for ours, _ in pairs)
    # Half of all ratios are within 0.67 sigma of the two errors together, exp(0.67 * 0.14) = 1.1; prices are not.
    assert ratios[50] > 0.85
    assert ratios[150] < 1.18
    assert prices[150] / prices[50] > 1.7


def test_truncated_offers_lie_between_floor_and_ceiling() -> None:
    offers = [
        bid.price
        for request in many(imp=[{"id": "2", "banner": {}, "bidfloor": 1.5}])
        for bid in bids(decide(settings("truncated", price={"median": 1.0, "sigma": 1.0}, ceiling=3.0), request))
        if bid.impid == "2"
    ]
    assert 200 == len(offers)
    assert min(offers) >= 1.5
    assert max(offers) <= 3.0


def test_truncated_does_not_bid_where_the_floor_is_above_the_ceiling() -> None:
    request = BidRequest(id="r", imp=[{"id": "1", "banner": {}, "bidfloor": 9.5}])
    assert [] == bids(decide(settings("truncated", price={"median": 1.5, "sigma": 0.5}, ceiling=6.0), request))


def test_silent_never_bids() -> None:
    assert not any(decide(settings("silent"), request).response for request in REQUESTS)


def test_slow_is_now_and_then_later_than_it_was_told_to_be() -> None:
    delays = [decide(settings("slow"), request).delay_s for request in many(tmax=80)]
    assert 10 <= sum(delay > 0.080 for delay in delays) <= 60


def test_malformed_fails_in_every_way_that_makes_no_sense() -> None:
    assert set(NONSENSE) == {decide(settings("malformed"), request).fault for request in many()}


def test_flaky_mostly_works() -> None:
    faults = Counter(decide(settings("flaky"), request).fault for request in many())
    assert {Fault.LATE, Fault.HANG, Fault.REFUSE, Fault.RESET} == set(faults) - {None}
    assert faults[None] > 140


def test_faults_given_replace_the_habits_of_the_strategy() -> None:
    assert {Fault.HANG} == {decide(settings("slow", faults={"hang": 1}), request).fault for request in many(20)}


def test_private_auction_gets_deals_only() -> None:
    pmp = {"private_auction": True, "deals": [{"id": "d1", "bidfloor": 0.1}, {"id": "d2", "bidfloor": 0.2}]}
    request = BidRequest(imp=[{"id": "2", "banner": {}, "pmp": pmp}])
    found = [bid for r in many(imp=request.imp) for bid in bids(decide(settings(), r)) if bid.impid == "2"]
    assert {"d1", "d2"} == {bid.dealid for bid in found}


def test_fixed_price_deal_is_bought_at_its_price() -> None:
    pmp = {"private_auction": True, "deals": [{"id": "d", "at": 3, "bidfloor": 0.75}]}
    request = BidRequest(id="r", imp=[{"id": "1", "banner": {}, "pmp": pmp}])
    assert [0.75] == [bid.price for bid in bids(decide(settings("fixed"), request))]


def test_seats_reserved_by_a_deal_and_wanted_by_a_request_are_kept() -> None:
    pmp = {"private_auction": True, "deals": [{"id": "d", "bidfloor": 0.1, "wseat": ["s1", "s2"]}]}
    request = BidRequest(id="r", imp=[{"id": "1", "banner": {}, "pmp": pmp}], wseat=["s2", "s3"])
    decision = decide(settings(), request)
    assert decision.response is not None
    assert ["s2"] == [seatbid.seat for seatbid in decision.response.seatbid]
    assert [] == bids(decide(settings(seats=["s1"]), request))


def test_bids_come_in_a_currency_that_the_request_takes() -> None:
    request = BidRequest(id="r", imp=[{"id": "1", "banner": {}, "bidfloor": 100, "bidfloorcur": "JPY"}], cur=["JPY"])
    decision = decide(settings("fixed", price={"median": 2}), request)
    assert decision.response is not None
    assert ("JPY", 300.0) == (decision.response.cur, bids(decision)[0].price)
    assert decide(settings(), BidRequest(id="r", imp=PLAIN.imp, cur=["CHF"])).response is None


@pytest.mark.parametrize(
    ("allowed", "chosen"), [(["USD", "EUR"], "EUR"), (["USD", "JPY"], "USD"), (["JPY"], "JPY"), ([], "USD")]
)
def test_bidder_with_a_currency_of_its_own_bids_in_it_where_it_is_listed(allowed: list[str], chosen: str) -> None:
    decision = decide(settings("fixed", currency="EUR"), BidRequest(id="r", imp=PLAIN.imp, cur=allowed))
    assert decision.response
    assert chosen == decision.response.cur
    assert round(1.5 * {"USD": 1, "EUR": 0.92, "JPY": 150}[chosen], 4) == bids(decision)[0].price


def test_currency_without_a_rate_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="currency: expected one of rates"):
        settings(currency="CHF")


@pytest.mark.parametrize("name", BUNDLED)
def test_json_and_protobuf_get_the_same_bids(name: str) -> None:
    body = BUNDLED[name]
    message = request_bytes(body, lenient=True, depth=64).message
    from_json = answer(settings(), body, Encoding.JSON)
    from_message = answer(settings(), message, Encoding.PROTOBUF)
    assert from_message.delay_s == from_json.delay_s
    read = response_bytes(from_json.body or b"{}", lenient=False, depth=64).message
    assert BidResponse.FromString(from_message.body) == BidResponse.FromString(read)


@pytest.mark.parametrize("encoding", Encoding)
def test_what_is_no_request_is_told_so(encoding: Encoding) -> None:
    with pytest.raises(NotARequest):
        answer(settings(), b"\xff{]", encoding)


@pytest.mark.parametrize("fault", [fault for fault in NONSENSE if fault not in (Fault.WRONG_TYPE, Fault.HALF)])
def test_nonsense_is_nonsense_in_both_encodings(fault: Fault) -> None:
    spoiled = settings(faults={fault: 1})
    message = answer(spoiled, PLAIN.SerializeToString(), Encoding.PROTOBUF).body
    text = answer(spoiled, b'{"id": "r1", "imp": [{"id": "1", "banner": {}}]}', Encoding.JSON).body
    if fault is Fault.GARBAGE:
        with pytest.raises(InvalidReply):
            response_bytes(text, lenient=True, depth=64)
        return
    response = BidResponse.FromString(message)
    bid = response.seatbid[0].bid[0]
    strange = {
        Fault.WRONG_ID: response.id != "r1",
        Fault.NAN_PRICE: bid.price != bid.price and b'"price":NaN' in text,
        Fault.NEGATIVE_PRICE: bid.price < 0,
        Fault.NO_PRICE: not bid.HasField("price") and b'"price"' not in text,
        Fault.WRONG_IMP: bid.impid != "1",
        Fault.NO_BID_ID: not bid.id and b'{"impid"' in text,
    }
    assert strange[fault]


def test_enormous_is_beyond_what_the_exchange_reads_and_within_what_grpc_receives() -> None:
    body = answer(settings(faults={"enormous": 1}), PLAIN.SerializeToString(), Encoding.PROTOBUF).body
    assert 64 * 1024 < len(body) < 4 * 1024 * 1024


# ----------------------------------------------------------------------------------------------------- over the wire


def over_both(used: Settings, request: BidRequest) -> tuple[bytes | str, bytes | str]:
    """Ask one bidder over gRPC and over HTTP; give bodies, or what happened instead."""

    async def ask() -> tuple[bytes | str, bytes | str]:
        server, grpc_port = await over_grpc.listen(used, "127.0.0.1", 0)
        listener, http_port = await over_http.listen(used, "127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
                method: Any = channel.unary_unary("/auction.v1.Bidder/Bid")
                try:
                    message: bytes | str = await method(request.SerializeToString(), timeout=5)
                except grpc.aio.AioRpcError as error:
                    message = error.code().name
            async with aiohttp.ClientSession() as session:
                body = b'{"id": "%b", "imp": [{"id": "1", "banner": {}}]}' % request.id.encode()
                try:
                    async with session.post(f"http://127.0.0.1:{http_port}/bid", data=body) as response:
                        text: bytes | str = await response.read() or str(response.status)
                        if response.content_type != "application/json" and response.status == 200:
                            text = response.content_type
                        elif response.status != 200:
                            text = str(response.status)
                except aiohttp.ClientPayloadError:
                    text = "cut short"
                except aiohttp.ClientConnectionError:
                    text = "cut"
            return message, text
        finally:
            await server.stop(None)
            await listener.stop(0.0)

    return asyncio.run(ask())


@pytest.mark.parametrize("strategy", ["fixed", "value-noise", "truncated", "slow", "flaky"])
def test_strategies_bid_over_both_protocols(strategy: str) -> None:
    message, text = over_both(settings(strategy, latency_ms={"median": 0.001}, faults={}), PLAIN)
    assert isinstance(message, bytes)
    assert isinstance(text, bytes)
    read = response_bytes(text, lenient=False, depth=64).message
    price = BidResponse.FromString(message).seatbid[0].bid[0].price
    assert price > 0
    assert price == BidResponse.FromString(read).seatbid[0].bid[0].price


def test_silence_is_an_empty_message_and_204() -> None:
    assert (b"", "204") == over_both(settings("silent"), PLAIN)


@pytest.mark.parametrize(
    ("fault", "code", "outcome"),
    [
        ("refuse", "UNAVAILABLE", "503"),
        ("wrong-type", "INTERNAL", "text/html"),
        ("reset", "ABORTED", "cut"),
    ],
)
def test_refusals_over_both_protocols(fault: str, code: str, outcome: str) -> None:
    assert (code, outcome) == over_both(settings(faults={fault: 1}), PLAIN)


def test_half_an_answer_is_half_a_message_and_a_cut_body() -> None:
    message, text = over_both(settings(faults={"half": 1}), PLAIN)
    whole = answer(settings(faults={}), PLAIN.SerializeToString(), Encoding.PROTOBUF).body
    assert whole[: len(whole) // 2] == message
    assert "cut short" == text


# ------------------------------------------------------------------------------------------------------- the program


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "bidders", "--until-eof", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, msgspec.json.decode(process.stdout.readline())
        finally:
            process.kill()


def test_program_listens_where_it_says_and_ends_on_sigterm() -> None:
    with running("--name", "dsp-a", "--strategy", "fixed", "--grpc", "0", "--http", "0") as (process, said):
        assert "dsp-a" == said["name"]
        socket.create_connection(("127.0.0.1", said["http"])).close()
        with grpc.insecure_channel(f"127.0.0.1:{said['grpc']}") as channel:
            stub = BidderStub(channel)  # type: ignore[no-untyped-call]  # generated
            assert "r1" == stub.Bid(PLAIN, timeout=5).id
            stub.Notify(Notice(event=Notice.WIN, auction_id="a"), timeout=5)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(10)


def test_program_ends_when_its_parent_is_gone() -> None:
    with running("--name", "dsp-a", "--http", "0") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert 0 == process.wait(10)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_taken_port_is_said_and_ends_with_1(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "bidders", "--name", "dsp-a", f"--{protocol}", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert 1 == ended.returncode
    assert f"127.0.0.1', {port}" in ended.stderr or f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "greedy"], "$.strategy"),
        (["--settings", '{"prize": 1}'], "prize"),
        (["--settings", '{"faults": {"late": 0.7, "hang": 0.7}}'], "add up"),
        (["--up", "3"], "belong together"),
    ],
)
def test_wrong_settings_are_said_and_end_with_2(words: list[str], message: str) -> None:
    command = [sys.executable, "-m", "bidders", "--name", "dsp-a", "--http", "0", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert 2 == ended.returncode
    assert message in ended.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_bidder_that_goes_down_comes_back_on_its_port(protocol: str) -> None:
    with running("--name", "dsp-f", f"--{protocol}", "0", "--up", "0.2", "--down", "0.2") as (_, said):
        seen: list[bool] = []
        # Up, down, up again: each state lasts for many tries. The bound is on tries, of which each takes some time.
        for _ in range(1_000_000):
            try:
                socket.create_connection(("127.0.0.1", said[protocol]), timeout=1).close()
                up = True
            except OSError:
                up = False
            if not seen or seen[-1] != up:
                seen.append(up)
            if len(seen) == 3:
                break
        assert [True, False, True] == seen

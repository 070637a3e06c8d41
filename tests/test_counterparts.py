# What `make bench` compares the exchange with, and by: other engines, bidders and callers that cost next to nothing,
# and what is concluded from their figures.

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import grpc
import msgspec
import pytest

from auction.config import load
from auction.core.auction import compile_rules
from auction.core.record import encode_rules
from auction.edge.admission import Admission
from auction.edge.metrics import Metrics
from auction.edge.transports import Incoming, Outgoing, Status
from auction.edge.transports.memory import ManualClock, MemoryBidder, Play
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.server import Server
from auction.edge.wire.statuses import Status as WireStatus
from auction.exchange import Exchange, Market
from auction.v1 import openrtb_pb2
from benchmarks import exchange, wire
from benchmarks.peers import bare, idiomatic, messages, turns
from benchmarks.peers.counterparts import AUCTION_METHOD
from benchmarks.peers.engines import peers
from benchmarks.peers.goals import Goal, goals
from benchmarks.peers.turns import CALLS_MAX, CALLS_MIN, Engine, Ports, Running, Skipped, calls_of, examine, in_turns

BODY = bytes(range(255)) * 64  # nearly as much as a frame may have; five of them are more than a window has at first
TIMEOUT_MS = 20_000

# ----------------------------------------------------------------------------------------------------------- goals

FIGURES = {
    "exchange.wire.4.cpu_us": 100.0,
    "exchange.grpcio.4.cpu_us": 400.0,
    "peers.prebid.4.cpu_us": 299.0,
    "transport.wire.1.cpu_us": 30.0,
    "transport.cpp.1.cpu_us": 30.0,
    "transport.wire.4.cpu_us": 70.0,
    "transport.cpp.4.cpu_us": 69.0,
    "transport.wire.8.cpu_us": 100.1,
}


def verdicts(figures: dict[str, float]) -> dict[str, tuple[float | None, str]]:
    return {goal.text: (goal.value, goal.verdict) for goal in goals(figures)}


def test_a_goal_is_met_at_its_bound_missed_above_and_not_measured_without_a_row() -> None:
    assert {
        "exchange.wire / exchange.grpcio, 4 bidders": (1 / 4, "met"),
        "exchange.wire / peers.prebid, 4 bidders": (pytest.approx(100 / 299), "missed"),
        "transport.wire / transport.cpp, 1 bidder": (1.0, "met"),
        "transport.wire / transport.cpp, 4 bidders": (pytest.approx(70 / 69), "missed"),
        "transport.wire / transport.cpp, 8 bidders": (None, "not measured"),
        "transport.wire, each further bidder": (pytest.approx(10.014, abs=1e-3), "missed"),
    } == verdicts(FIGURES)


def test_a_slope_of_ten_microseconds_is_met() -> None:
    assert (10.0, "met") == verdicts({**FIGURES, "transport.wire.8.cpu_us": 100.0})[
        "transport.wire, each further bidder"
    ]


def test_nothing_is_met_where_nothing_was_measured() -> None:
    assert {(None, "not measured")} == set(verdicts({}).values())
    assert "not measured" == Goal("", None, 1.0).verdict


# ------------------------------------------------------------------------------------------------ bare callers, bidders


async def asked(port: int, calls: int = 6, least: float = 0.0, body: bytes = BODY) -> bytes:
    caller = bare.Caller(AUCTION_METHOD, body, TIMEOUT_MS)
    await asyncio.get_running_loop().create_connection(lambda: caller, "127.0.0.1", port)
    try:
        return await asyncio.wait_for(caller.ask(calls, 2, least), TIMEOUT_MS / 1000)
    finally:
        caller.close()


async def of_the_wire(answer: Callable[[Call], None], ask: Callable[[int], Awaitable[bytes]]) -> bytes:
    server = Server({AUCTION_METHOD: answer})
    await server.start()
    try:
        return await ask(server.port)
    finally:
        await server.stop(0)


async def of_grpcio(answer: Callable[[bytes], bytes], ask: Callable[[int], Awaitable[bytes]]) -> bytes:
    async def auction(body: bytes, _: Any) -> bytes:
        return answer(body)

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(auction)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("auction.v1.Exchange", {"Auction": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await ask(port)
    finally:
        await server.stop(0)


def test_a_bare_caller_asks_the_wire_and_grpcio_with_equal_octets_and_hears_theirs() -> None:
    heard: list[bytes] = []

    def answered(body: bytes) -> bytes:
        heard.append(body)
        return body[::-1]

    for answer in (
        asyncio.run(of_the_wire(lambda call: call.answer(answered(call.body)), asked)),
        asyncio.run(of_grpcio(answered, asked)),
    ):
        assert BODY[::-1] == answer
    assert [BODY] * 12 == heard


@pytest.mark.parametrize(("octets", "least"), [(89, 90.0), (0, 90.0), (0, 0.0)])
def test_a_bare_caller_takes_no_shorter_answer_than_expected_and_never_an_empty_one(octets: int, least: float) -> None:
    with pytest.raises(RuntimeError, match=f"at least {least:.0f} octets"):
        asyncio.run(of_the_wire(lambda call: call.answer(bytes(octets)), partial(asked, least=least, body=b"x")))


def test_a_bare_caller_takes_an_answer_of_just_the_length_expected() -> None:
    answer = asyncio.run(of_the_wire(lambda call: call.answer(bytes(90)), partial(asked, least=90.0, body=b"x")))
    assert bytes(90) == answer


def test_a_bare_caller_takes_no_refusal_for_an_answer() -> None:
    refuse = partial(of_the_wire, lambda call: call.refuse(WireStatus.RESOURCE_EXHAUSTED, "not now"))
    with pytest.raises(RuntimeError, match="expected an answer"):
        asyncio.run(refuse(partial(asked, body=b"x")))


def test_a_bare_caller_hears_that_its_connection_is_lost() -> None:
    def drop(call: Call) -> None:
        (served,) = server_of.connections
        assert served._transport is not None
        served._transport.abort()

    async def run() -> bytes:
        server_of.methods[AUCTION_METHOD] = drop
        await server_of.start()
        try:
            return await asked(server_of.port, body=b"x")
        finally:
            await server_of.stop(0)

    server_of = Server({})
    with pytest.raises(RuntimeError, match="connection lost"):
        asyncio.run(run())


def test_a_bare_bidder_answers_the_wire_and_grpcio_with_equal_octets_whatever_they_ask() -> None:
    async def run() -> list[bytes]:
        server = await asyncio.get_running_loop().create_server(partial(bare.Bidder, BODY), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answers: list[bytes] = []
        over_wire = Channel("127.0.0.1", port)
        over_grpcio = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        try:
            await over_wire.open()
            for body in (b"", b"question", BODY, BODY, BODY, BODY, BODY):
                ended: asyncio.Future[tuple[WireStatus, bytes]] = asyncio.get_running_loop().create_future()
                method = over_wire.method("/auction.v1.Bidder/Bid")
                over_wire.unary(method, body, lambda status, answer, *_, to=ended: to.set_result((status, answer)))
                status, answer = await asyncio.wait_for(ended, TIMEOUT_MS / 1000)
                assert WireStatus.OK is status
                answers.append(answer)
                bid: Any = over_grpcio.unary_unary("/auction.v1.Bidder/Bid")
                answers.append(await bid(body, timeout=TIMEOUT_MS / 1000))
        finally:
            await over_wire.close()
            await over_grpcio.close()
            server.close()
        return answers

    assert [BODY] * 14 == asyncio.run(run())


def test_a_message_that_is_more_than_a_frame_is_not_sent_wrongly_but_not_at_all() -> None:
    with pytest.raises(AssertionError):
        bare.Bidder(bytes(bare.FRAME_MAX))


# --------------------------------------------------------------------------------------------------------- in turns


def test_all_take_their_turn_before_any_has_another_and_nobody_always_follows_the_same_one() -> None:
    taken: list[str] = []

    async def turn(name: str) -> None:
        taken.append(name)

    asyncio.run(in_turns("abcd", 7, turn))
    rounds = ["".join(taken[at : at + 4]) for at in range(0, 28, 4)]
    assert ["abcd", "adcb", "cdab", "cbad"] == rounds[:4]
    assert all({*"abcd"} == {*each} for each in rounds)
    assert all(2 <= len({before for before, after in pairwise(taken) if after == name} - {name}) for name in "abcd")


@pytest.mark.parametrize(("used_us", "calls"), [(0.001, CALLS_MAX), (100.0, 3_000), (1e6, CALLS_MIN)])
def test_a_run_takes_about_as_long_for_each_engine_within_bounds(used_us: float, calls: int) -> None:
    assert calls == calls_of(used_us)


def test_in_every_comparison_one_engine_is_there_twice() -> None:
    for compared, name in ((exchange.engines(), "exchange.wire"), (wire.engines(), "transport.wire")):
        starts = {engine.name: engine.start for engine in compared}
        one, again = starts[name], starts[f"{name}_again"]
        assert isinstance(one, partial)
        assert isinstance(again, partial)
        assert (one.func, one.args, one.keywords) == (again.func, again.args, again.keywords)


def test_names_of_engines_are_their_own() -> None:
    names = [engine.name for engine in (*exchange.engines(), *peers(), *wire.engines())]
    assert len(names) == len(set(names))


def test_what_cannot_be_measured_here_is_skipped_and_says_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    def start(stack: ExitStack, ports: Ports) -> Running:
        raise Skipped("no compiler")

    assert [] == list(turns.rows([Engine("peers.cpp", start)], counts=(0, 0), sizes=("446b",)))
    assert ["  peers.cpp: skipped: no compiler"] == capsys.readouterr().err.splitlines()


def sold(*imps: str) -> dict[str, Any]:
    return {"id": "r", "seatbid": [{"seat": "s", "bid": [{"id": "b", "impid": imp, "price": 1.0} for imp in imps]}]}


IMPS = [imp["id"] for imp in messages.REQUEST["imp"]]


def test_an_engine_that_sells_one_impression_of_two_is_no_engine() -> None:
    engine, up = Engine("e", lambda stack, ports: Running(0, 0)), Running(0, 0, "/openrtb2/auction")
    examine(engine, up, json.dumps(sold(*IMPS)).encode(), 4)
    with pytest.raises(RuntimeError, match="both impressions"):
        examine(engine, up, json.dumps(sold(IMPS[0])).encode(), 4)
    over_grpc = Running(0, 0)
    answer = openrtb_pb2.BidResponse(id="r")
    for imp in IMPS:
        answer.seatbid.add().bid.add(id="b", impid=imp, price=1.0)
    examine(engine, over_grpc, answer.SerializeToString(), 4)
    del answer.seatbid[1:]
    with pytest.raises(RuntimeError, match="both impressions"):
        examine(engine, over_grpc, answer.SerializeToString(), 4)


# --------------------------------------------------------------------------------------------- what is asked, answered


@pytest.mark.parametrize("size", messages.SIZES)
def test_a_request_is_of_its_size_in_both_encodings_alike(size: str) -> None:
    message = openrtb_pb2.BidRequest.FromString(messages.message(size))
    as_json = messages.request(size)
    assert as_json["id"] == message.id == messages.REQUEST["id"]
    assert [(imp["id"], imp["banner"]["w"]) for imp in as_json["imp"]] == [(i.id, i.banner.w) for i in message.imp]
    assert messages.TMAX_MS == message.tmax == as_json["tmax"]
    least, most = {"446b": (446, 446), "2kb": (1_000, 3_000)}[size]
    assert least <= len(messages.message(size)) <= most


def test_every_bidder_bids_on_both_impressions_each_from_a_seat_and_at_a_price_of_its_own() -> None:
    bids = [
        (seat.seat, bid.impid, bid.price)
        for row in range(8)
        for seat in openrtb_pb2.BidResponse.FromString(messages.reply_message(row)).seatbid
        for bid in seat.bid
    ]
    assert 16 == len({seat for seat, _, _ in bids}) == len({price for _, _, price in bids})
    assert IMPS * 8 == [imp for _, imp, _ in bids]
    assert all(price > imp["bidfloor"] for imp in messages.REQUEST["imp"] for _, _, price in bids)


# ------------------------------------------------------------------------------------------------------ other engines


class Aborted(Exception):
    pass


class Context:
    async def abort(self, code: grpc.StatusCode, words: str) -> None:
        raise Aborted(code, words)


@pytest.mark.parametrize("size", messages.SIZES)
@pytest.mark.parametrize("bidders", [1, 4])
def test_the_idiomatic_engine_answers_as_the_exchange_does(size: str, bidders: int) -> None:
    with ExitStack() as stack:
        config = load(exchange.configured("grpcio", "grpc", stack, Ports([*range(1, bidders + 1)], [])), {})
    names = [bidder.name for bidder in config.bidders]
    bodies = {name: messages.reply_message(row) for row, name in enumerate(names)}
    rules = config.rules()
    compiled = compile_rules(rules)
    question = messages.message(size)

    async def theirs(body: bytes) -> bytes:
        async def bid(name: str, body: bytes, timeout: float) -> bytes:
            return bodies[name]

        auctions = idiomatic.Auctions(compiled, {name: partial(bid, name) for name in names})
        return await auctions.auction(body, Context())

    async def ours(body: bytes) -> Outgoing:
        clock = ManualClock()
        ways = {name: MemoryBidder(lambda invitation, _: Play(bodies[invitation.bidder]), clock) for name in names}
        for way in ways.values():
            await way.open()
        market = Market(compiled, encode_rules(rules, "test"), dict(ways))
        held = Exchange(market, clock=clock, admission=Admission(8), metrics=Metrics(names), journal=None)
        ended: asyncio.Future[Outgoing] = asyncio.get_running_loop().create_future()
        held(Incoming(AUCTION_METHOD, {}, body, None), ended.set_result)
        return await ended

    answers = [
        openrtb_pb2.BidResponse.FromString(body)
        for body in (asyncio.run(theirs(question)), asyncio.run(ours(question)).body)
    ]
    assert 2 == sum(len(seat.bid) for seat in answers[0].seatbid)
    for answer in answers:
        answer.ClearField("bidid")  # the auction's own
    assert answers[0] == answers[1]

    refused = asyncio.run(ours(b"\x0a\x01"))
    assert Status.INVALID_ARGUMENT is refused.status
    with pytest.raises(Aborted) as aborted:
        asyncio.run(theirs(b"\x0a\x01"))
    assert grpc.StatusCode.INVALID_ARGUMENT is aborted.value.args[0]


def test_an_engine_s_ports_are_what_its_bidders_said() -> None:
    assert Ports([1], [2]) == msgspec.convert({"grpc": [1], "http": [2]}, Ports)

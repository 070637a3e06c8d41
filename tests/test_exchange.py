# The three lines over bidders in memory: what an exchange answers, counts and writes down, with time as a number.

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from auction.core.auction import compile_rules
from auction.core.record import AUCTION, REFUSAL, decode_auction, decode_refusal, encode_rules
from auction.edge.admission import Admission
from auction.edge.metrics import Metrics
from auction.edge.transports import Cancel, Incoming, Outgoing, Status
from auction.edge.transports.memory import HANG, ManualClock, MemoryBidder, Play
from auction.edge.turns import TURN_S
from auction.exchange import Exchange, Market, auction_id
from auction.model.auction import Invitation
from auction.model.clock import Deadline
from auction.model.rules import BidderRules, Rules

JSON, GRPC = "/openrtb2/auction", "/auction.v1.Exchange/Auction"
REQUEST = {"id": "r1", "imp": [{"id": "1", "banner": {}}]}


class Place:
    """An exchange with one bidder in memory, and everything that came out of it."""

    def __init__(self, play: Play | None = HANG, limit: int = 8) -> None:
        self.clock = ManualClock()
        self.play = play
        self.told: list[Deadline] = []
        self.metrics = Metrics(["dsp-a"])
        self.admission = Admission(limit)
        self.written: list[tuple[int, bytes, bytes]] = []
        self.answers: list[Outgoing] = []
        self.exchange = Exchange(
            self.market(), clock=self.clock, admission=self.admission, metrics=self.metrics, journal=self
        )

    def market(self, name: str = "dsp-a") -> Market:
        self.bidder = MemoryBidder(self.script, self.clock)
        rules = Rules(bidders=(BidderRules(name, encoding="json"),))
        return Market(compile_rules(rules), encode_rules(rules, "test"), {name: self.bidder})

    def script(self, invitation: Invitation, deadline: Deadline) -> Play | None:
        self.told.append(deadline)
        return self.play

    def put(self, kind: int, payload: bytes, rules: bytes) -> bool:
        # Whoever is written down was answered before.
        assert self.answers
        self.written.append((kind, payload, rules))
        return True

    async def ask(self, body: Any = REQUEST, method: str = JSON, deadline_s: float | None = None) -> Cancel:
        """Begin an auction and let it come as far as it can without time passing."""
        await self.bidder.open()
        deadline = None if deadline_s is None else Deadline(self.clock.monotonic() + deadline_s)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        cancel = self.exchange(Incoming(method, {}, raw, deadline), self.answers.append)
        await settle()
        return cancel

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()

    @property
    def counted(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.metrics.outcomes.items() if count}


async def settle() -> None:
    # Enough turns of the loop for any chain of callbacks here; none depends on anything outside of this process.
    for _ in range(10):
        await asyncio.sleep(0)


def offer(price: float) -> Play:
    bid = {"id": "b1", "impid": "1", "price": price, "adm": "<b>"}
    return Play(json.dumps({"id": "r1", "seatbid": [{"bid": [bid]}]}).encode())


async def test_auction_is_answered_counted_and_written_down_in_that_order() -> None:
    place = Place(offer(2.0))
    await place.ask()
    (answer,) = place.answers
    assert Status.OK is answer.status
    ((kind, payload, rules),) = place.written
    assert (AUCTION, place.exchange.market.written) == (kind, rules)
    record = decode_auction(payload)
    assert json.dumps(REQUEST).encode() == record.arrival.body
    assert record.arrival.id == json.loads(answer.body)["bidid"]
    assert {"sold": 1} == place.counted
    assert 0 == place.admission.in_flight


async def test_refused_request_is_written_down_without_its_words() -> None:
    place = Place()
    await place.ask({"id": "r1", "imp": [{"id": "1"}], "user": {"id": "somebody"}})
    assert Status.INVALID_ARGUMENT is place.answers[0].status
    assert place.answers[0].path.startswith("imp[0]")
    ((kind, payload, _),) = place.written
    assert REFUSAL == kind
    assert place.answers[0].path == decode_refusal(payload).path
    assert b"somebody" not in payload
    assert {"refused": 1} == place.counted


async def test_one_too_many_is_refused_before_anything_else_happens() -> None:
    place = Place(limit=1)
    await place.ask()
    refused: list[Outgoing] = []
    place.exchange(Incoming(JSON, {}, b"not even read", None), refused.append)
    assert [Status.RESOURCE_EXHAUSTED] == [answer.status for answer in refused]
    assert [] == place.written
    await place.pass_time(1)
    assert {"overload": 1, "unsold": 1} == place.counted
    await place.ask()
    assert 1 == place.admission.in_flight


async def test_deadline_is_the_arrival_plus_the_budget_whatever_the_bidder_does() -> None:
    place = Place(HANG)
    arrived = place.clock.monotonic()
    await place.ask({**REQUEST, "tmax": 80})
    assert [Deadline(arrived + 0.075)] == place.told  # a reserve of 5 ms is kept for answering
    await place.pass_time(0.074)
    assert [] == place.answers
    await place.pass_time(place.told[0].at - place.clock.monotonic())
    assert (Status.OK, b"") == (place.answers[0].status, place.answers[0].body)
    assert ("x-openrtb-nbr", "0") in place.answers[0].headers
    assert 0 == place.bidder.under_way + place.clock.timers


async def test_callers_deadline_shortens_the_budget_and_is_written_down() -> None:
    place = Place(HANG)
    await place.ask(deadline_s=0.04)
    await place.pass_time(0.04)
    assert 1 == len(place.answers)
    assert 40 == pytest.approx(decode_auction(place.written[0][1]).arrival.timeout_ms, abs=1)


async def test_cancelled_call_leaves_nothing_behind_and_is_not_written_down() -> None:
    place = Place(HANG)
    cancel = await place.ask()
    cancel()
    cancel()
    await settle()
    assert ([], []) == (place.answers, place.written)
    assert {"cancelled": 1} == place.counted
    assert 0 == place.bidder.under_way + place.clock.timers + place.admission.in_flight


async def test_cancelling_after_the_answer_does_nothing() -> None:
    place = Place(offer(2.0))
    cancel = await place.ask()
    cancel()
    await settle()
    assert {"sold": 1} == place.counted


async def test_auctions_of_a_burst_wait_for_another_turn_where_one_has_lasted() -> None:
    place = Place(HANG)
    await place.bidder.open()
    slow = place.script

    def script(invitation: Invitation, deadline: Deadline) -> Play | None:
        place.clock.advance(TURN_S)  # asking takes as long as a turn may
        return slow(invitation, deadline)

    place.exchange.market = place.market()
    place.bidder = MemoryBidder(script, place.clock)
    place.exchange.market = msgspec.structs.replace(place.exchange.market, connections={"dsp-a": place.bidder})
    await place.bidder.open()
    for _ in range(3):
        place.exchange(Incoming(JSON, {}, json.dumps(REQUEST).encode(), None), place.answers.append)
    asked = []
    for _ in range(4):
        await asyncio.sleep(0)
        asked.append(len(place.told))
    assert [1, 2, 3, 3] == asked
    await place.pass_time(1)
    assert {"unsold": 3} == place.counted


async def test_auction_in_flight_keeps_the_market_that_it_began_with() -> None:
    place = Place(msgspec.structs.replace(offer(2.0), after_s=0.05))
    before = place.exchange.market
    await place.ask()
    place.exchange.market = place.market("dsp-b")
    await place.ask()
    await place.pass_time(0.05)
    assert [before.written, place.exchange.market.written] == [rules for _, _, rules in place.written]
    bidders = [[reply.bidder for reply in decode_auction(payload).replies] for _, payload, _ in place.written]
    assert [["dsp-a"], ["dsp-b"]] == bidders


async def test_fault_of_ours_is_internal_and_its_words_stay_with_us(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()
    place.exchange.market = msgspec.structs.replace(place.exchange.market, rules=None)
    with caplog.at_level(logging.ERROR):
        await place.ask()
    assert [(Status.INTERNAL, "internal error")] == [(answer.status, answer.message) for answer in place.answers]
    assert {"error": 1} == place.counted
    assert 1 == len(caplog.records)
    assert 0 == place.admission.in_flight


async def test_method_that_is_none_of_ours_is_said_to_be_so() -> None:
    place = Place()
    await place.ask(method="/auction.v1.Exchange/Bid")
    assert Status.UNIMPLEMENTED is place.answers[0].status


async def test_overrun_is_measured_from_the_bidders_deadline() -> None:
    place = Place(HANG)
    await place.ask()
    await place.pass_time(0.2)  # the loop was busy: 105 ms late
    assert [0] * 13 + [1] == place.metrics.overrun.counts
    assert 200_000 == pytest.approx(place.metrics.duration.sum_us, abs=2)


def test_auction_ids_sort_by_arrival_and_never_repeat() -> None:
    ids = [auction_id(1_750_000_000_000_000 + step // 2, bytes([step]) * 9) for step in range(10)]
    assert ids == sorted(set(ids))
    assert {32} == {len(name) for name in ids}

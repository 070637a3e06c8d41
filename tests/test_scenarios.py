# Every scenario four ways: through the product, through the oracle, out of a written-and-read log, and replayed.
#
# The loop below is the only code; what is claimed stands in tests/scenarios, one auction a file.

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import oracle
import pytest
from scenario import Scenario, read, scenarios

from auction import replay
from auction.case import case_of, decide, decided
from auction.core import record
from auction.core.explain import told
from auction.edge import eventlog
from auction.model.errors import InvalidRequest

SOFTWARE = "auction/test"


@pytest.fixture(params=scenarios(), ids=lambda path: str(path.stem))
def scenario(request: pytest.FixtureRequest) -> Scenario:
    path: Path = request.param
    return read(path)


def test_product_decides_as_claimed(scenario: Scenario) -> None:
    assert scenario.faults(decide(scenario.case)) == []


def test_oracle_decides_as_claimed(scenario: Scenario) -> None:
    assert scenario.faults(oracle.decide(scenario.case)) == []


def test_log_tells_the_same_and_replays_to_the_byte(scenario: Scenario, tmp_path: Path) -> None:
    case = case_of(scenario.case)
    rules = record.encode_rules(case.rules, SOFTWARE)
    try:
        outcome = decided(case)
    except InvalidRequest as refusal:
        entry = (record.REFUSAL, record.encode_refusal(case.arrival, refusal), rules)
        frame = written_and_read(tmp_path, entry)[-1]
        refused = record.decode_refusal(frame.payload)
        assert scenario.faults({"error": {"path": refused.path}}) == []
        assert len(case.arrival.body) == refused.request_bytes
        return

    entry = (record.AUCTION, record.encode_auction(outcome.auction, outcome.replies, outcome.result), rules)
    frames = written_and_read(tmp_path, entry)
    logged = list(replay.auctions(frames))
    assert len(logged) == 1
    recorded = logged[0].recorded
    assert recorded.result == record.encode_result(record.decode_result(recorded.result))
    assert scenario.faults(answer(scenario, record.decode_result(recorded.result))) == []

    assert replay.difference(logged[0]) is None
    assert logged[0].rules is not None
    assert scenario.faults(answer(scenario, replay.again(recorded, logged[0].rules))) == []


def answer(scenario: Scenario, result: Any) -> dict[str, Any]:
    return told(scenario.case["request"]["id"], [imp["id"] for imp in scenario.case["request"]["imp"]], result)


def written_and_read(directory: Path, entry: tuple[int, bytes, bytes]) -> list[eventlog.Frame]:
    """Write one record to a log on disk and read the log back: its rules, then the record."""
    ticks = count(1)
    log = eventlog.EventLog(directory, monotonic=lambda: 0.0, wall_us=lambda: next(ticks), fsync="never")
    log.append([entry])
    log.close()
    faults: list[eventlog.Fault] = []
    frames = list(eventlog.read([directory], faults.append))
    assert faults == []
    assert [record.RULES, entry[0]] == [frame.kind for frame in frames]
    return frames


def test_documented_example_is_what_is_decided() -> None:
    document = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text()
    case, told_answer = (json.loads(block) for block in re.findall(r"^```json \w+\n(.*?)^```", document, re.M | re.S))
    assert told_answer == decide(case)


def test_there_are_scenarios_of_everything() -> None:
    """A reader that finds no files would pass; every outcome and status that can be claimed is claimed somewhere."""
    read_ones = [read(path) for path in scenarios()]
    assert len(read_ones) >= 220
    outcomes = {bid.outcome for one in read_ones for bid in one.bids}
    statuses = {status for one in read_ones for *_, status in one.non_bids}
    assert outcomes == {
        "WON", "INTERNAL_ERROR", "INVALID_BID", "DUPLICATE", "UNPLACED", "INVALID_DEAL", "MISSING_MARKUP",
        "MISSING_CREATIVE_ID", "MISSING_PRICE", "BELOW_AUCTION_FLOOR", "BELOW_DEAL_FLOOR", "LOST_TO_HIGHER_BID",
        "LOST_TO_DEAL", "SEAT_BLOCKED", "CREATIVE_FILTERED", "CREATIVE_DISAPPROVED", "WRONG_SIZE", "WRONG_FORMAT",
        "ADVERTISER_BLOCKED", "NOT_SECURE", "WRONG_LANGUAGE", "CATEGORY_BLOCKED", "ATTRIBUTE_BLOCKED", "NOT_IN_DEAL",
        "APP_BLOCKED",
    }  # fmt: skip
    assert {0, 2, 8, 15, 101, 102, 103, 202, 300, 301, 302, 304, 350, 351, 352, 353, 356, 357, 501} == statuses
    setters = {bid.setter for one in read_ones for bid in one.bids} - {None}
    assert setters == {"own_bid", "agreed", "rival", "deal_floor", "floor", "min_price", "soft_floor"}


def test_every_scenario_names_its_source() -> None:
    sources = ("OpenRTB", "Policy", "Industry practice", "Arithmetic", "ISO")
    silent = [path.name for path in scenarios() if not path.read_text().startswith(tuple(f"# {s}" for s in sources))]
    assert silent == []

# What the scenarios claim, held against the oracle; from there on they are vectors, and test_conformance.py has them.

from __future__ import annotations

from pathlib import Path

from tests import oracle
from tests.generated import left_over
from tests.scenario import Scenario, read, scenarios
from tests.vectors import documents


def test_oracle_decides_as_claimed() -> None:
    faults = {path.stem: scenario.faults(oracle.decide(scenario.case)) for path, scenario in every_scenario()}
    assert {} == {name: differ for name, differ in faults.items() if differ}


def test_vectors_are_those_of_the_scenarios() -> None:
    made = documents()
    assert [] == [path.name for path, text in made.items() if not path.exists() or text != path.read_text()]
    assert [] == left_over(made)


def every_scenario() -> list[tuple[Path, Scenario]]:
    return [(path, read(path)) for path in scenarios()]


def test_there_are_scenarios_of_everything() -> None:
    """A reader that finds no files would pass; every outcome and status that can be claimed is claimed somewhere."""
    read_ones = [scenario for _, scenario in every_scenario()]
    assert len(read_ones) >= 300
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

# What `make soak` concludes from what it found: that each of its claims would notice.

from __future__ import annotations

import asyncio

import pytest

from auction.edge.wire.fields import block
from auction.edge.wire.h2 import Connection
from auction.edge.wire.wheel import Wheel
from benchmarks import endurance
from benchmarks.attacks import ATTACKS
from benchmarks.endurance import PARTS, Part, Tried, overview
from benchmarks.leaks import held
from benchmarks.neighbour import Beside


def beside(ratio: float = 1.0, odd: tuple[float, float] = (10.0, 10.0), held: int = 1, **found: int) -> Beside:
    """Five pairs of each attack: its p99 grew to `ratio` times, but in one pair, and in the first attack two more."""
    pairs = {name: [(10.0, 10.0 * ratio)] * 4 + [(10.0, 500.0)] for name in ATTACKS}
    pairs["rapid_reset"][0] = odd
    return Beside(pairs, held=held, **found)


def test_a_neighbour_that_is_slowed_down_to_twice_is_unharmed_even_if_one_pair_was_spoiled() -> None:
    assert [] == beside(2.0).faults()


def test_two_spoiled_pairs_of_five_do_not_decide() -> None:
    assert [] == beside(1.5, odd=(1.0, 900.0)).faults()


def test_a_neighbour_that_is_slowed_down_to_more_than_twice_is_harmed() -> None:
    assert [f"{name}: p99 x 2.10" for name in ATTACKS] == beside(2.1).faults()


def test_an_attack_that_stops_all_answers_is_harm() -> None:
    assert [f"{name}: p99 x inf" for name in ATTACKS] == beside(float("inf")).faults()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (beside(failed=1), "1 calls failed"),
        (beside(full=1), "1 full collections"),
        (beside(held=0), "no auction was held"),
    ],
)
def test_a_call_that_failed_a_full_collection_or_no_load_at_all_is_a_fault(found: Beside, words: str) -> None:
    (fault,) = found.faults()
    assert words in fault


def test_rows_of_a_neighbour_are_medians_of_pairs_with_their_spread() -> None:
    rows = {row.name: row for row in beside(1.2, full=3).rows()}
    ratio = rows["soak.neighbour.ping_flood.ratio"]
    assert (1.2, 48.8, 5) == (ratio.value, ratio.spread, ratio.runs)
    assert (3.0, "collections") == (rows["soak.gc.gen2"].value, rows["soak.gc.gen2"].unit)
    assert {f"soak.neighbour.{name}.ratio" for name in ATTACKS} <= rows.keys()


class Silent:
    def expire(self) -> None: ...


def test_what_is_left_behind_is_counted_and_header_blocks_that_are_remembered_are_not() -> None:
    async def run() -> None:
        connection, wheel, left = Connection(False), Wheel(lambda: 0.0), []
        before = held()
        for number in range(200):
            connection._blocks.read(block([(b"grpc-timeout", b"%dm" % number)]))
        assert not held().leaks(before)
        left += [[number] for number in range(200)]
        assert ["objects"] == [fault.partition(":")[0] for fault in held().leaks(before)]
        left.clear()
        wheel.add(60.0, Silent())
        assert ["timers", "deadlines"] == [fault.partition(":")[0] for fault in held().leaks(before)]
        wheel.stop()
        assert not held().leaks(before)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(run())


def test_overview_says_of_each_part_whether_it_held_and_how_long_it_took() -> None:
    lines = overview([Tried("auctions", 0, 90.0), Tried("leaks", 3, 30.0), Tried("wirefuzz", None, 0.0)]).splitlines()
    assert ["holds", "FAILED", "skipped"] == [line.split()[0] for line in lines[1:4]]
    assert "FAILED with 3  leaks" in lines[2]
    assert "1.5 min" in lines[1]
    assert "soak: 1 hold, 1 failed, 1 skipped of 3 parts, in 2.0 min" == lines[4]


def test_a_part_whose_package_is_missing_is_skipped_and_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PARTS, "leaks", Part("nothing", ("this",), ("this",), needs="nothing_of_this_name"))
    assert 0 == endurance.main(["leaks"])
    said = capfd.readouterr().out
    assert "leaks: skipped: nothing_of_this_name is not here" in said
    assert "soak: 0 hold, 1 skipped of 1 parts" in said


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("7", 1)])
def test_soak_ends_with_1_where_a_part_does_not_end_with_0(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], code: str, expected: int
) -> None:
    leaks = PARTS["leaks"]
    # `python -m this` says nothing of ours and ends with 0, a module that is not there with 1.
    words = ("this",) if code == "0" else ("benchmarks.nothing",)
    monkeypatch.setitem(PARTS, "leaks", Part(leaks.claim, words, words))
    assert expected == endurance.main(["leaks"])
    assert f"soak: {1 - expected} hold" in capfd.readouterr().out


def test_parts_are_programs_that_are_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        endurance.main(["--help"])
    assert 0 == ended.value.code
    said = capfd.readouterr().out
    assert all(name in said for name in PARTS)

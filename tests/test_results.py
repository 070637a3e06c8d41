# The file of measured numbers: a run replaces what it measured and nothing else.

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import load, results


def test_run_replaces_the_rows_it_measured_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write([results.row("b.us", "us", [1.0], "make b"), results.row("a.us", "us", [1.0], "make a")], path)
    results.write([results.row("b.us", "us", [2.0, 4.0, 3.0], "make b")], path)
    assert [("a.us", 1.0, 1), ("b.us", 3.0, 3)] == [(row.name, row.value, row.runs) for row in results.read(path)]


def test_spread_is_from_the_lowest_run_to_the_highest() -> None:
    assert 2.0 == results.row("b.us", "us", [2.0, 4.0, 3.0], "make b").spread


@pytest.mark.parametrize("runs", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_number_is_no_result(runs: list[float]) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        results.row("b.us", "us", runs, "make b")


def test_percentile_is_the_time_that_so_many_did_not_exceed() -> None:
    times = {10.0: 90, 20.0: 9, 500.0: 1}
    assert [10.0, 10.0, 20.0, 500.0] == [load.percentile(times, share) for share in (0.5, 0.9, 0.99, 0.999)]

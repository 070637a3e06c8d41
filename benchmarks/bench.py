# `make bench`: measures everything that has a row, prints the table, and writes benchmarks/results.json.

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import core, deadline, dsp, http1, latency, machine, overload, results
from benchmarks.peers import engines, goals

Rows = Iterator[tuple[str, str, list[float]]]


def main() -> int:
    """Measure the parts named on the command line, or all."""
    parts: dict[str, Callable[[], Rows]] = {
        "core": core.rows,
        "dsp": dsp.rows,
        "http1": http1.rows,
        "machine": machine.rows,
        "latency": latency.rows,
        "deadline": deadline.rows,
        "overload": overload.rows,
    }
    names = [*parts, *engines.PARTS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="Measure, print, write down.")
    parser.add_argument("part", nargs="*", choices=[*names, []], help="what to measure; all without a name")
    wanted = parser.parse_args().part or names
    # Engines are compared in one go, each with all others that are wanted.
    compared = [name for name in wanted if name in engines.PARTS]
    runs = {name: parts[name] for name in wanted if name in parts}
    if compared:
        runs[", ".join(compared)] = partial(engines.rows, compared)
    measured = []
    for name, rows in runs.items():
        print(f"measuring {name} ...", file=sys.stderr)
        for row, unit, values in rows():
            measured.append(results.row(row, unit, values, "make bench"))
    results.write(measured)
    results.show(measured, f"{results.machine()}")
    if compared:
        goals.show({row.name: row.value for row in measured})
    return 0


if __name__ == "__main__":
    sys.exit(main())

# `make bench`: measures everything that has a row, prints the table, and writes benchmarks/results.json.

from __future__ import annotations

import argparse
import sys

from benchmarks import core, dsp, exchange, http1, results, wire


def main() -> int:
    """Measure the parts named on the command line, or all."""
    parts = {"core": core.rows, "exchange": exchange.rows, "dsp": dsp.rows, "wire": wire.rows, "http1": http1.rows}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="Measure, print, write down.")
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="what to measure; all without a name")
    arguments = parser.parse_args()
    measured = []
    for name in arguments.part or parts:
        print(f"measuring {name} ...", file=sys.stderr)
        for row, unit, runs in parts[name]():
            measured.append(results.row(row, unit, runs, "make bench"))
    results.write(measured)
    results.show(measured, f"{results.machine()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

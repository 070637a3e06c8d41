# `make soak`: everything that takes time to show, one part after the other, and an overview of what held at the end.
#
#   python -m benchmarks.endurance [PART ...] [--short]      exit code 1: something did not hold
#
# Each part is a program of its own that says how it goes, and by its exit code whether what it claims holds. One that
# fails does not keep the others from being tried. `--short` is for whoever changes a part: it runs in minutes, shows
# little, and leaves benchmarks/results.json as it is.

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec


class Part(msgspec.Struct, frozen=True):
    """One program: what it claims, the words that start it, at length and in short, and a package that it needs."""

    claim: str
    words: tuple[str, ...]
    short: tuple[str, ...]
    needs: str = ""


PARTS: Final = {
    "auctions": Part(
        "bidders fail in every way: each auction answered in time, logged and replayed; nothing held, a clean stop",
        ("benchmarks.soak",),
        ("benchmarks.soak", "--auctions", "300", "--dry-run"),
    ),
    "neighbour": Part(
        "each attack at most doubles a neighbour's p99, none of its calls fails; no full collection at load",
        ("benchmarks.neighbour",),
        ("benchmarks.neighbour", "--pairs", "1", "--load-s", "5"),
    ),
    "leaks": Part(
        "a million auctions, one bidder in five misbehaving: streams, sockets, deadlines and memory as before",
        ("benchmarks.leaks",),
        ("benchmarks.leaks", "--auctions", "20000"),
    ),
    "wirefuzz": Part(
        "arbitrary octets for ten minutes: no crash, no hang, no growth, the same events however they are cut",
        ("tests.wirefuzz", "--seconds", "600"),
        ("tests.wirefuzz", "--seconds", "20"),
        needs="atheris",
    ),
}


class Tried(msgspec.Struct, frozen=True):
    """What became of a part; without a code it was skipped."""

    name: str
    code: int | None
    seconds: float


def tried(name: str, words: Sequence[str]) -> Tried:
    """Run one part to its end, where what it needs is here."""
    needs = PARTS[name].needs
    if needs and importlib.util.find_spec(needs) is None:
        print(f"--- {name}: skipped: {needs} is not here, which has no build for this Python or platform", flush=True)
        return Tried(name, None, 0.0)
    print(f"--- {name}: {' '.join(words)}", flush=True)
    began = time.monotonic()
    code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
    return Tried(name, code, time.monotonic() - began)


def overview(found: Iterable[Tried]) -> str:
    """Write a line for each part, and one for all of them."""
    lines, seconds = [], 0.0
    counts = {"hold": 0, "failed": 0, "skipped": 0}
    for each in found:
        outcome = "skipped" if each.code is None else "failed" if each.code else "hold"
        shown = {"hold": "holds", "failed": f"FAILED with {each.code}", "skipped": "skipped"}[outcome]
        lines.append(f"{shown:14} {each.name:10} {each.seconds / 60:5.1f} min  {PARTS[each.name].claim}")
        counts[outcome] += 1
        seconds += each.seconds
    verdict = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "hold")
    return "\n".join(["", *lines, f"soak: {verdict} of {len(lines)} parts, in {seconds / 60:.1f} min"])


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts named, or all."""
    lines = "\n".join(f"  {name:10} {part.claim}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance",
        description="What takes time to show: half an hour for all of it.",
        epilog=f"parts, each also a program with a --help of its own (python -m ...):\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="what to try; all without a name")
    parser.add_argument("--short", action="store_true", help="minutes instead of half an hour; shows little")
    wanted = parser.parse_args(words)
    found = [tried(name, PARTS[name].short if wanted.short else PARTS[name].words) for name in wanted.part or PARTS]
    print(overview(found))
    return int(any(each.code for each in found))


if __name__ == "__main__":
    sys.exit(main())

# Numbers that were measured, and where: benchmarks/results.json.
#
# One file for every benchmark, so that the documentation is made from one place and a claim can be traced to the
# command that reproduces it. A run replaces the rows it measured and leaves the others, so each row says which commit
# and machine it is of. It refuses values that are no numbers: a table with NaN in it would be read as a result.

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"


class Row(msgspec.Struct, frozen=True):
    """One measured number: the median of `runs` runs, `spread` from the lowest to the highest of them."""

    name: str
    value: float
    unit: str
    spread: float
    runs: int
    command: str
    machine: str
    commit: str


def row(name: str, unit: str, runs: Sequence[float], command: str) -> Row:
    """Make a row of what each run measured; ValueError where there is none or one is not finite."""
    if not runs or not all(map(isfinite, runs)):
        raise ValueError(f"{name}: expected finite numbers, were {list(runs)}")
    spread = max(runs) - min(runs)
    return Row(name, _short(median(runs)), unit, _short(spread), len(runs), command, machine(), commit())


def write(rows: Iterable[Row], path: Path = RESULTS) -> None:
    """Put rows in the file, each in the place of the one with its name; the file is whole at every moment."""
    kept = {each.name: each for each in read(path)}
    kept.update((each.name, each) for each in rows)
    text = msgspec.json.format(msgspec.json.encode([kept[name] for name in sorted(kept)]), indent=1)
    beside = path.with_suffix(".new")
    beside.write_bytes(text + b"\n")
    beside.replace(path)


def read(path: Path = RESULTS) -> list[Row]:
    """Give all rows, in the order of their names; none where nothing was measured yet."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []


def show(rows: Iterable[Row], title: str) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    for heading, justify in (
        ("name", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("spread", "right"),
        ("runs", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]  # a literal that the loop made a str
    for each in rows:
        table.add_row(each.name, f"{each.value:g}", each.unit, f"{each.spread:g}", str(each.runs))
    Console().print(table)


def table(path: Path = RESULTS) -> str:
    """Write all rows as a Markdown table."""
    lines = ["| name | value | unit | spread | runs | command | commit |", "|---|---:|---|---:|---:|---|---|"]
    lines += [
        f"| `{each.name}` | {each.value:g} | {each.unit} | {each.spread:g} | {each.runs} "
        f"| `{each.command}` | {each.commit} |"
        for each in read(path)
    ]
    machines = sorted({each.machine for each in read(path)})
    return "\n".join([*lines, "", f"Measured on: {'; '.join(machines) or 'nothing yet'}."]) + "\n"


@cache
def machine() -> str:
    """Name this machine as far as it matters for speed: processor, cores allowed to us, Python."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = " ".join(line.partition(":")[2].split())
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


@cache
def commit() -> str:
    """Name the commit measured, with a + where files differ from it; empty outside of a repository."""
    root = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        )
        # The results themselves change by measuring; they do not change what is measured.
        other = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results.json"]
        status = subprocess.run(other, cwd=root.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def _short(value: float) -> float:
    """Round to four significant digits: more than any of these measurements repeats."""
    return float(f"{value:.4g}")

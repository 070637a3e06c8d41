# `make drill`: real servers and real proxies on loopback, and calls at a steady pace while servers are added, replaced,
# and killed. It prints what must hold and what was, and writes its figures to benchmarks/results.json.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.drill import proxies
from benchmarks.drill.drills import DRILLS, Outcome, Stage
from benchmarks.drill.fleet import Broken

COMMAND = "make drill"
EPILOG = f"""\
drills:
{chr(10).join(f"  {name:8}  {drill.__doc__}" for name, drill in DRILLS.items())}

exit codes:
  0        every claim held
  1 .. 31  a bit for each drill with a claim that did not, in the order above from 1
  2        the command line is wrong (where nothing else was said)
  64       it could not be run
  130      interrupted

examples:
  python -m benchmarks.drill --only rollout --rounds 3
  python -m benchmarks.drill --set server.transport=grpcio    over the library: clients that do not watch health lose
                                                              the calls of a round trip at some stops
  python -m benchmarks.drill --only scale --set server.connection_age_s=null      see it fail
  python -m benchmarks.drill --only rollout --rounds 3 --set server.notice_ms=0 --set server.drain_s=0
"""
CANNOT, INTERRUPTED = 64, 130
# With which figures are comparable, and written down.
ROUNDS, RATE = 20, 150.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drill",
        description="Add, replace and kill servers while calls go on, and count what is lost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=DRILLS, metavar="DRILL", help="this one; may be repeated")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="rolling restarts of all three servers (default: 20)"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="calls a second, all callers together (default: 150)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=YAML", help="a setting of the servers, over the drill's own"
    )
    parser.add_argument("--dry-run", action="store_true", help="do not write benchmarks/results.json")
    args = parser.parse_args()
    try:
        settings = settings_of(args.set)
        if args.rounds < 1 or not args.rate > 0:
            raise ValueError("--rounds, --rate: expected at least one round and more than no calls")
    except ValueError as wrong:
        parser.error(str(wrong))
    console = Console(highlight=False)
    if absent := proxies.absent():
        console.print(f"drill: expected {' and '.join(absent)} here, was not")
        return CANNOT
    if not Path("/proc/self").exists():
        console.print("drill: expected Linux, which answers on all of 127.0.0.0/8")
        return CANNOT
    try:
        return asyncio.run(run(args, settings, console))
    except KeyboardInterrupt:
        return INTERRUPTED


async def run(args: argparse.Namespace, settings: Mapping[str, Mapping[str, Any]], console: Console) -> int:
    """Run the drills one after the other; give the exit code."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    code = 0
    wanted = args.only or list(DRILLS)
    rows = []
    for bit, (name, drill) in enumerate(DRILLS.items()):
        if name not in wanted:
            continue
        console.print(f"\n[bold]{name}[/]  {drill.__doc__}")
        with tempfile.TemporaryDirectory(prefix="auction-drill-") as folder, _status(console) as tell:
            # Another run, or another drill of this one, has other addresses.
            net = f"127.{64 + os.getpid() % 128}.{10 + bit}"
            stage = Stage(Path(folder), net, settings, args.rate, args.rounds, tell)
            try:
                outcome = await drill(stage)
            except (Broken, ExceptionGroup) as broken:
                if isinstance(broken, ExceptionGroup) and not broken.subgroup(Broken):
                    raise
                console.print(f"[red]{broken.exceptions[0] if isinstance(broken, ExceptionGroup) else broken}[/]")
                return CANNOT
        report(outcome, console)
        if not all(claim.holds for claim in outcome.claims):
            code |= 1 << bit
        rows += [results.row(f"drill.{each.name}", each.unit, [each.value], COMMAND) for each in outcome.figures]
    # Figures of other settings, another pace, or fewer rounds are not the ones that the documentation tells.
    if not (args.dry_run or settings or code or args.rounds < ROUNDS or args.rate != RATE):
        results.write(rows)
    return code


@contextlib.contextmanager
def _status(console: Console) -> Any:
    """Tell how far it is: in place on a terminal, as lines elsewhere."""
    if not console.is_terminal:
        yield lambda text: console.print(f"  {text}")
        return
    with console.status("starting servers") as status:
        yield status.update


def report(outcome: Outcome, console: Console) -> None:
    """Print what must hold and what was found."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("claim", "found", ""):
        table.add_column(heading)
    for claim in outcome.claims:
        table.add_row(claim.text, claim.found, "[green]holds[/]" if claim.holds else "[red]FAILS[/]")
    console.print(table)
    for line in outcome.said:
        console.print(line, style="dim")


def settings_of(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read SECTION.NAME=YAML words as sections. Raises ValueError."""
    sections: dict[str, dict[str, Any]] = {}
    for word in words:
        path, equals, text = word.partition("=")
        section, dot, name = path.partition(".")
        if not equals or not dot:
            raise ValueError(f"--set: expected SECTION.NAME=VALUE, was {word}")
        sections.setdefault(section, {})[name] = yaml.safe_load(text)
    return sections


if __name__ == "__main__":
    sys.exit(main())

"""Count records, auctions, sales and bytes, by segment and over all."""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import groupby

import msgspec
from rich.console import Console
from rich.table import Table

from auction.commands.log.records import (
    FAULTS_MAX,
    Finding,
    Read,
    Reading,
    counted,
    plain,
    request_of,
    revenue,
    shown,
    time_text,
    up_to,
    with_progress,
    won,
)
from auction.core.record import RecordedAuction, RecordedRefusal, RecordedRules
from auction.model.money import text

# Rules that are listed; a thousand versions are what nobody reads to the end. All are counted.
RULES_MAX = 1000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of a table")


def run(arguments: argparse.Namespace, names: list[str]) -> int:
    listed: list[Finding] = []
    reading = Reading(names, up_to(FAULTS_MAX, listed))
    sizes = {name: os.path.getsize(name) for name in names}
    segments = {name: Tally(bytes=sizes[name]) for name in names}
    total = Tally(bytes=sum(sizes.values()))
    versions: dict[str, Version] = {}
    for read in with_progress(reading, total.bytes):
        imps = 0
        if isinstance(read.recorded, RecordedAuction):
            request = request_of(read.recorded.arrival, read.known.rules)
            imps = 0 if request is None else len(request.imps)
        segments[read.frame.path].add(read, imps)
        total.add(read, imps)
        digest = read.known.digest
        if digest in versions or len(versions) < RULES_MAX:
            version = versions.setdefault(digest, Version(digest, read.known.software))
            version.auctions += isinstance(read.recorded, RecordedAuction)
    total.faults = reading.damage
    for name, count in reading.faults.items():
        segments[name].faults = count
    for tally in (total, *segments.values()):
        tally.fill = round(tally.sold / tally.imps, 6) if tally.imps else None
    if arguments.json:
        told = {
            "segments": [{"path": name, **msgspec.structs.asdict(tally)} for name, tally in segments.items()],
            "total": total,
            "versions": list(versions.values()),
            "torn": reading.torn,
            "faults": listed,
        }
        print(json.dumps(msgspec.to_builtins(told), indent=2, ensure_ascii=False))
    else:
        for finding in listed:
            print(finding, file=sys.stderr)
        _show(segments, total, list(versions.values()), reading.torn)
    return 1 if reading.damage else 0


class Tally(msgspec.Struct):
    """What a segment, or all of a log, holds. Revenue is the sum of clearing prices by currency, in micros CPM."""

    bytes: int = 0
    records: int = 0
    auctions: int = 0
    refusals: int = 0
    rules: int = 0
    others: int = 0
    first_sequence: int | None = None
    last_sequence: int | None = None
    first_written: str | None = None
    last_written: str | None = None
    imps: int = 0
    sold: int = 0
    fill: float | None = None
    revenue_cpm_micros: dict[str, int] = {}
    faults: int = 0

    def add(self, read: Read, imps: int) -> None:
        frame, recorded = read.frame, read.recorded
        self.records += 1
        if self.first_sequence is None:
            self.first_sequence, self.first_written = frame.sequence, time_text(frame.time_us)
        self.last_sequence, self.last_written = frame.sequence, time_text(frame.time_us)
        if isinstance(recorded, RecordedAuction):
            assert read.result is not None
            self.auctions += 1
            self.imps += imps
            sold = len(won(read.result))
            if sold:
                self.sold += sold
                currency = read.known.currency or "?"
                before = self.revenue_cpm_micros.get(currency, 0)
                self.revenue_cpm_micros[currency] = before + revenue(read.result)
        elif isinstance(recorded, RecordedRefusal):
            self.refusals += 1
        elif isinstance(recorded, RecordedRules):
            self.rules += 1
        else:
            self.others += 1


class Version(msgspec.Struct):
    """One version of the rules in a log, and how many auctions it decided there."""

    rules: str
    software: str
    auctions: int = 0


def _show(segments: dict[str, Tally], total: Tally, versions: list[Version], torn: int) -> None:
    # Where there is no terminal to fit, a width that folds no row.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for directory, tallies in groupby(segments.items(), lambda segment: os.path.dirname(segment[0])):
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("sequences", no_wrap=True)
        table.add_column("from", no_wrap=True)
        for column in ("bytes", "auctions", "refused", "rules", "imps", "sold", "fill", "revenue", "faults"):
            table.add_column(column, justify="right")
        for _, tally in tallies:
            read = tally.first_sequence is not None
            table.add_row(
                f"{tally.first_sequence}-{tally.last_sequence}" if read else "-",
                str(tally.first_written)[:19] if read else "-",
                *map(str, (tally.bytes, tally.auctions, tally.refusals, tally.rules, tally.imps, tally.sold)),
                _percent(tally.fill),
                _money(tally),
                str(tally.faults or "-"),
            )
        console.print(shown(directory), markup=False, highlight=False, soft_wrap=True)
        console.print(table)
        console.print()
    for line in (
        f"{counted(total.records, 'record')} in {counted(len(segments), 'segment')} of {total.bytes} bytes, "
        f"written {total.first_written or '-'} to {total.last_written or '-'}",
        f"{counted(total.auctions, 'auction')}, {counted(total.refusals, 'refused request')}, "
        f"{total.imps} impressions, {total.sold} sold ({_percent(total.fill)}), revenue {_money(total)} CPM",
        *(
            f"rules {version.rules[:16]} by {plain(version.software)}: {counted(version.auctions, 'auction')}"
            for version in versions
        ),
        f"{counted(total.faults, 'fault')}, {counted(torn, 'torn tail')}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _percent(fill: float | None) -> str:
    return "-" if fill is None else f"{fill:.1%}"


def _money(tally: Tally) -> str:
    return ", ".join(f"{text(amount)} {code}" for code, amount in sorted(tally.revenue_cpm_micros.items())) or "0"

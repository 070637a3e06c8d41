"""Run logged auctions again, as they were or under other rules.

Without options every auction must come out byte for byte as it was. With --set, --floor-scale or --drop-bidder the log
is run under changed rules, and revenue, fill and prices are compared.

examples:
  auction replay var/log                                   N of N byte-identical
  auction replay var/log/*.seg --json
  auction replay var/log --set increment=0.02 --set deal_mode=deals_first
  auction replay var/log --set floors.floor_min=0.50 --set bidders.dsp-a.seats='[seat-1]'
  auction replay var/log --floor-scale 1.1 --drop-bidder dsp-a

--set takes KEY=VALUE, the value as in a configuration file. A key is a setting of section exchange, or has its section:
floors.KEY, limits.KEY, fx.rates.CODE (units per USD), bidders.NAME.KEY. What stands below a setting is changed with it.

exit codes: 0 all identical, or a counterfactual; 1 a difference, or nothing to replay; 2 a path or setting is wrong;
3 the only differences are in records of other software
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from auction import replay
from auction.commands.log.records import plain
from auction.config import ConfigFaults
from auction.console import legible
from auction.core.record import Unreadable
from auction.edge import eventlog
from auction.model.money import text
from auction.model.rules import SOFTWARE

# Differences of other software are listed, not all of a year's log.
LISTED_MAX = 20
# Printing more often than this many auctions would cost more than it tells.
PROGRESS_EVERY = 500


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", nargs="+", type=Path, metavar="LOG", help="directories and segments, in any mix")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, see below")
    parser.add_argument(
        "--floor-scale", type=_scale, default=Fraction(1), metavar="X", help="multiply impression floors"
    )
    parser.add_argument("--drop-bidder", action="append", default=[], metavar="NAME", help="leave a bidder out")
    parser.add_argument("--json", action="store_true", help="print data instead of tables")


def run(arguments: argparse.Namespace) -> int:
    missing = [path for path in arguments.log if not path.exists()]
    if missing:
        print(f"{missing[0]}: no such directory or file", file=sys.stderr)
        return 2
    faults: list[eventlog.Fault] = []
    log = _with_progress(replay.auctions(eventlog.read(arguments.log, faults.append)))
    try:
        if arguments.set or arguments.floor_scale != 1 or arguments.drop_bidder:
            code = _otherwise(log, arguments)
        else:
            code = _as_it_was(log, arguments.json)
    except Unreadable as error:
        print(legible(str(error)), file=sys.stderr)
        return 1
    except (ConfigFaults, ValueError) as error:
        for line in str(error).splitlines():
            print(legible(line), file=sys.stderr)
        return 2
    for fault in faults:
        print(fault, file=sys.stderr)
    return code


def _as_it_was(log: Iterable[replay.Logged], as_json: bool) -> int:
    total = identical = 0
    ours: list[replay.Difference] = []
    others: list[replay.Difference] = []
    differing = 0
    for logged in log:
        total += 1
        found = replay.difference(logged)
        if found is None:
            identical += 1
            continue
        # Without a name of the software the rules were lost to damage, which is no change.
        changed = found.software not in ("", SOFTWARE)
        differing += not changed
        kept = others if changed else ours
        if len(kept) < LISTED_MAX:
            kept.append(found)
    if as_json:
        rows = [
            {
                "id": found.id,
                "sequence": found.sequence,
                "software": found.software,
                "fields": [
                    {"field": field.name, "before": field.before, "after": field.after} for field in found.fields
                ],
            }
            for found in (*ours, *others)
        ]
        print(json.dumps({"auctions": total, "identical": identical, "differences": rows}, indent=2))
    else:
        for found in ours[:1]:
            print(legible(f"auction {found.id} (record {found.sequence}) differs, logged -> replayed:"))
            for field in found.fields:
                print(legible(f"  {field.name}: {_cut(field.before)} -> {_cut(field.after)}"))
        for found in others:
            first = found.fields[0]
            change = f"{first.name}: {_cut(first.before)} -> {_cut(first.after)}"
            print(legible(f"changed since {found.software}: auction {found.id}: {change}"))
        print(f"{identical} of {total} byte-identical")
    if differing or not total:
        return 1
    return 3 if identical < total else 0


def _cut(value: str) -> str:
    # A response is a page of hexadecimal; that it differs is told, what in it stands above it.
    return value if len(value) <= 80 else f"{value[:77]}..."


def _otherwise(log: Iterable[replay.Logged], arguments: argparse.Namespace) -> int:
    change = replay.Change(tuple(arguments.set), frozenset(arguments.drop_bidder), arguments.floor_scale)
    sums = replay.counterfactual(log, change)
    told = {
        "auctions": sums.auctions,
        "imps": sums.imps,
        "refused": sums.refused,
        "unreadable": sums.unreadable,
        "total": _rows(sums.totals, sums.imps),
        "bidders": _rows(sums.bidders),
        "placements": _rows(sums.placements),
        "assumes": list(replay.ASSUMPTIONS),
    }
    if arguments.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _show(told, Console())
    if not sums.auctions:
        print("nothing to replay", file=sys.stderr)
        return 1
    return 0


def _rows(group: dict[tuple[str, str], replay.Total], imps: int | None = None) -> list[dict[str, Any]]:
    rows = []
    for (currency, name), total in sorted(group.items()):
        row: dict[str, Any] = {"name": name, "currency": currency}
        for when in ("before", "after"):
            sold, revenue = getattr(total, f"sold_{when}"), getattr(total, f"revenue_{when}")
            row[when] = {
                "sold": sold,
                "revenue_cpm": text(revenue),
                "clearing_price": text(revenue // sold) if sold else None,
            }
            if imps:
                row[when]["fill"] = sold / imps
        rows.append(row)
    return rows


def _show(told: dict[str, Any], console: Console) -> None:
    console.print(f"{told['auctions']} auctions, {told['imps']} impressions, as they were and under the changed rules")
    for title, rows in (("total", told["total"]), ("bidder", told["bidders"]), ("placement", told["placements"])):
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(title)
        for column in ("sold", "then", "revenue", "then", "change", "price", "then"):
            table.add_column(column, justify="right")
        for row in rows[:30]:
            before, after = row["before"], row["after"]
            table.add_row(
                Text(plain(row["name"] or row["currency"])),
                str(before["sold"]),
                str(after["sold"]),
                before["revenue_cpm"],
                after["revenue_cpm"],
                _change(before["revenue_cpm"], after["revenue_cpm"]),
                before["clearing_price"] or "-",
                after["clearing_price"] or "-",
            )
        console.print()
        console.print(table)
        if len(rows) > 30:
            console.print(f"  and {len(rows) - 30} more (--json has them all)")
    for row in told["total"]:
        if told["imps"]:
            console.print(f"\nfill {row['before']['fill']:.1%} -> {row['after']['fill']:.1%} ({row['currency']})")
    if told["refused"]:
        console.print(f"{told['refused']} requests are refused under the changed rules")
    if told["unreadable"]:
        console.print(f"{told['unreadable']} auctions left out: this software cannot read them")
    console.print("\nrevenue and price are CPM of the exchange's currency; this assumes:")
    for assumption in told["assumes"]:
        console.print(f"  - {assumption}")


def _change(before: str, after: str) -> str:
    then, now = Fraction(before), Fraction(after)
    return f"{float((now - then) / then):+.1%}" if then else "-"


def _scale(value: str) -> Fraction:
    try:
        scale = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"expected a number such as 1.1, was {value}") from error
    if scale < 0 or scale > 1000:
        raise argparse.ArgumentTypeError(f"expected 0 to 1000, was {value}")
    return scale


def _with_progress(log: Iterator[replay.Logged]) -> Iterator[replay.Logged]:
    if not sys.stderr.isatty():
        yield from log
        return
    for count, logged in enumerate(log, start=1):
        if count % PROGRESS_EVERY == 0:
            print(f"\r{count} auctions", end="", file=sys.stderr, flush=True)
        yield logged
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)

"""Tell why an auction ended as it did, bid by bid.

examples:
  auction explain case.json                      decide a case file and explain it
  auction explain case.json --json               the same as data (docs/conformance.md has the shape)
  auction explain --log var/log ID               an auction from a log, by its id or its request's

exit codes: 0 decided or refused, 1 no such auction in the log, 2 a file that is no case, or a log that is not there or
holds a record that is none
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from auction import case, replay
from auction.console import legible
from auction.core import explain, record
from auction.core.auction import open_auction
from auction.edge import eventlog
from auction.model.errors import InvalidRequest
from auction.model.reasons import LossReason, NoBidReason, NonBidStatus


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="CASE|ID", help="a case file; with --log the id of an auction")
    parser.add_argument("--log", action="append", type=Path, metavar="PATH", help="a log or a segment; may be repeated")
    parser.add_argument("--json", action="store_true", help="print data instead of tables")


def run(arguments: argparse.Namespace) -> int:
    if arguments.log:
        missing = [str(path) for path in arguments.log if not path.exists()]
        if missing:
            return _fail(2, f"{missing[0]}: no such directory or file")
        try:
            answer = from_log(arguments.log, arguments.what)
        except record.Unreadable as error:
            return _fail(2, str(error))
        if answer is None:
            return _fail(1, f"{arguments.what}: no auction with this id in {' '.join(map(str, arguments.log))}")
    else:
        try:
            answer = case.decide(case.read(Path(arguments.what).read_bytes()))
        except OSError as error:
            return _fail(2, f"{arguments.what}: {error.strerror}")
        except case.NoCase as error:
            return _fail(2, *(f"{arguments.what}: {fault}" for fault in error.faults))
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        show(answer, Console())
    return 0


def from_log(paths: Sequence[Path], name: str) -> dict[str, Any] | None:
    """Find an auction by its own id, or else the last one whose request has this id; None: there is none."""
    by_request: replay.Logged | None = None
    written, escapable = name.encode(errors="replace"), not _UNESCAPED.fullmatch(name)
    for logged in replay.auctions(eventlog.read(paths, _report)):
        if logged.recorded.arrival.id == name:
            return _told(logged)
        # A cheap look before an expensive one: the id stands in the body as it is, in either encoding.
        body = logged.recorded.arrival.body
        if (written in body or (escapable and b"\\" in body)) and _told(logged)["request"] == name:
            by_request = logged
    return None if by_request is None else _told(by_request)


# Other characters stand in JSON as escapes, if the sender likes.
_UNESCAPED = re.compile(r"[A-Za-z0-9_.:-]*")


def _told(logged: replay.Logged) -> dict[str, Any]:
    recorded = logged.recorded
    result = record.decode_result(recorded.result)
    noun = None
    if logged.rules is not None:
        # Other software may have accepted what this one refuses.
        with contextlib.suppress(InvalidRequest):
            noun = open_auction(recorded.arrival, logged.rules).request
    if noun is None:
        places = {bid.imp: bid.impid for bid in result.outcomes}
        imps, request = [places.get(row, "?") for row in range(max(places, default=-1) + 1)], ""
    else:
        imps, request = [imp.id for imp in noun.imps], noun.id
    told = explain.told(recorded.arrival.id, imps, result)
    latencies = {reply.bidder: reply.latency_us / 1000 for reply in recorded.replies}
    return {**told, "request": request, "latency_ms": latencies}


def show(answer: dict[str, Any], console: Console) -> None:
    """Print a told auction for people: a table an impression, winner first, then who had no bid and why."""
    if "error" in answer:
        error = answer["error"]
        where = f"{error['path']}: " if error["path"] else ""
        console.print(_plain(f"refused: {where}{error['message']}"), style="bold red")
        return
    title = f"Auction {answer['id']}" + (f", request {answer['request']}" if answer.get("request") else "")
    console.print(_plain(title), style="bold")
    for imp in answer["imp"]:
        console.print()
        console.print(_headline(imp))
        if imp["bids"]:
            console.print(_bids(imp["bids"], imp["winners"]))
    if answer["unplaced"]:
        console.print()
        console.print(Text("Bids for impressions that their bidder was not asked for"))
        console.print(_bids(answer["unplaced"], []))
    silent = [non_bid for non_bid in answer["non_bids"] if non_bid["bid"] is None]
    if silent:
        console.print()
        table = _table("no bid from", "imp", "because")
        for non_bid in silent:
            cells = (non_bid["bidder"], non_bid["imp"], _words(NonBidStatus, non_bid["status"]))
            table.add_row(*map(_plain, cells))
        console.print(table)
    for warning in answer["warnings"]:
        console.print(_plain(f"warning: {warning['path']}: {warning['text']}"), style="yellow")
    if answer["nbr"] is not None:
        console.print(Text(f"\nNothing sold: {_words(NoBidReason, answer['nbr'])}"))


def _headline(imp: dict[str, Any]) -> Text:
    name = _plain(f"Impression {imp['id']}: ")
    if imp["winner"] is None:
        return name.append("not sold")
    winner = imp["winners"][0]
    setter = _SETTERS.get(winner["price_setter"], winner["price_setter"])
    won = f"{winner['bidder']} wins at {winner['clearing_price']}"
    return name.append(won, "bold green").append(f", set by {setter}")


_SETTERS = {
    "own_bid": "its own bid",
    "agreed": "the deal's agreed price",
    "rival": "the best rival plus the increment",
    "deal_floor": "the deal's floor",
    "floor": "the floor",
    "min_price": "the exchange's least price",
}


def _bids(bids: Sequence[dict[str, Any]], winners: Sequence[dict[str, Any]]) -> Table:
    # One currency for all is said once, in the headings: amounts then fit a terminal of 80 columns.
    currencies = {bid["currency"] for bid in bids}
    unit = f" {currencies.pop()}" if len(currencies) == 1 else ""
    headings = ("bidder", "seat", "bid", f"price{unit}", "floor", "outcome", f"pays{unit}", "min to win")
    table = _table(*headings, numbers=(3, 4, 6, 7))
    pays = {(winner["bidder"], winner["seat"], winner["bid"]): winner for winner in winners}
    for bid in sorted(bids, key=lambda bid: bid["loss_reason"] != LossReason.WON):
        winner = pays.get((bid["bidder"], bid["seat"], bid["id"])) if bid["loss_reason"] == LossReason.WON else None
        own = "" if unit else f" {bid['currency']}"
        cells = (
            bid["bidder"],
            bid["seat"],
            bid["id"],
            f"{bid['price']}{own}" if bid["price"] is not None else "-",
            bid["floor"] or "-",
            _words(LossReason, bid["loss_reason"]),
            f"{winner['pays']}{own}" if winner else "-",
            bid["min_to_win"] or "-",
        )
        table.add_row(*map(_plain, cells), style="green" if winner else None)
    return table


def _table(*columns: str, numbers: Sequence[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(_plain(column), justify="right" if place in numbers else "left", overflow="fold")
    return table


def _plain(words: str) -> Text:
    """Show words from outside as they are: no markup of ours in them, and nothing that moves a terminal's cursor."""
    return Text(legible(words))


def _words(names: Any, number: int) -> str:
    try:
        return f"{number} {names(number).name.lower().replace('_', ' ')}"
    except ValueError:
        return str(number)


def _report(fault: eventlog.Fault) -> None:
    print(fault, file=sys.stderr)


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(legible(line), file=sys.stderr)
    return code

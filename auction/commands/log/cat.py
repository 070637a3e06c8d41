"""Print records, for people or as one JSON object a line."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from auction.commands.log.columns import row
from auction.commands.log.records import EPOCH, Read, Reading, plain, request_of, revenue, time_text, won
from auction.core import record
from auction.core.record import RecordedAuction, RecordedRefusal, RecordedRules
from auction.model.auction import AuctionResult, Outcome
from auction.model.clock import SystemClock
from auction.model.money import sent_text, text


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a record; docs/log.md names the columns")
    parser.add_argument("--kind", choices=("auction", "refusal", "rules"), help="records of this kind only")
    parser.add_argument("--bidder", metavar="NAME", help="auctions that asked this bidder only")
    parser.add_argument(
        "--since", type=_instant_us, metavar="TIME", help="written at or after: 2026-05-01T12:00Z, 10m, 2d"
    )
    parser.add_argument("--until", type=_instant_us, metavar="TIME", help="written before")
    parser.add_argument("--limit", type=_count, metavar="N", help="end after this many records")


def run(arguments: argparse.Namespace, names: list[str]) -> int:
    reading = Reading(_not_before(names, arguments.since), lambda finding: print(finding, file=sys.stderr))
    left = arguments.limit
    for read in reading:
        if arguments.since is not None and read.frame.time_us < arguments.since:
            continue
        if arguments.until is not None and read.frame.time_us >= arguments.until:
            break
        if arguments.kind is not None and arguments.kind != _kind(read):
            continue
        if arguments.bidder is not None and not _asked(read, arguments.bidder):
            continue
        if arguments.jsonl:
            sys.stdout.buffer.write(msgspec.json.encode(row(read)) + b"\n")
        else:
            print(*_lines(read), sep="\n")
        if left is not None:
            left -= 1
            if not left:
                break
    return 1 if reading.damage else 0


def _not_before(names: list[str], since_us: int | None) -> list[str]:
    """Leave out segments that were closed before an instant: their successor in the directory was opened before it."""
    if since_us is None:
        return names
    opened = {(os.path.dirname(name), os.path.basename(name)): name for name in names}
    kept = []
    successor: dict[str, int] = {}
    for (directory, base), name in sorted(opened.items(), reverse=True):
        if successor.get(directory, since_us) >= since_us:
            kept.append(name)
        if _SEGMENT_NAME.fullmatch(base):
            successor[directory] = int(base[:16])
    return kept


_SEGMENT_NAME = re.compile(r"\d{16}-\d{20}\.seg")


def _kind(read: Read) -> str:
    return _KINDS.get(read.frame.kind, "other")


_KINDS = {record.RULES: "rules", record.AUCTION: "auction", record.REFUSAL: "refusal"}


def _asked(read: Read, bidder: str) -> bool:
    return isinstance(read.recorded, RecordedAuction) and any(reply.bidder == bidder for reply in read.recorded.replies)


def _lines(read: Read) -> Iterator[str]:
    """Tell a record to people; what others named is shown without what a terminal would obey."""
    frame, recorded = read.frame, read.recorded
    head = f"{time_text(frame.time_us)}  {frame.sequence:>8}  {_kind(read):7}"
    if isinstance(recorded, RecordedAuction):
        assert read.result is not None
        yield f"{head}  {plain(recorded.arrival.id)}  {_headline(read, recorded, read.result)}"
        for reply in recorded.replies:
            bids = [_fate(bid) for bid in read.result.outcomes if bid.bidder == reply.bidder]
            told = "; ".join(bids) or plain(reply.detail)
            call = f"{plain(reply.bidder):16}  {reply.status.name:11}  {reply.latency_us / 1000:7.1f} ms"
            yield f"    {call}  {told}".rstrip()
    elif isinstance(recorded, RecordedRefusal):
        where = plain(recorded.path) or "body"
        yield f"{head}  {plain(recorded.id)}  at {where}, {recorded.request_bytes} bytes"
    elif isinstance(recorded, RecordedRules):
        yield f"{head}  {read.known.digest[:16]}  by {plain(recorded.software)}"
    else:
        yield f"{head}  kind {frame.kind}, {len(frame.payload)} bytes"


def _headline(read: Read, recorded: RecordedAuction, result: AuctionResult) -> str:
    request = request_of(recorded.arrival, read.known.rules)
    sold = len(won(result))
    if request is None:
        return f"{sold} sold, of a request that this software cannot read"
    money = f" for {text(revenue(result))} {read.known.currency or '?'} CPM" if sold else ""
    return f"request {plain(request.id)}: sold {sold} of {len(request.imps)}{money}"


def _fate(bid: Outcome) -> str:
    price = "no price" if bid.price is None else f"{sent_text(bid.price)} {plain(bid.currency)}"
    offer = f"imp {plain(bid.impid)} at {price}"
    if bid.clearing_price is not None and bid.pays is not None:
        return f"{offer} won, pays {text(bid.pays)} {plain(bid.currency)}"
    return f"{offer} {bid.reason.name.lower().replace('_', ' ')}"


_AGO_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def _instant_us(value: str) -> int:
    """Read an instant, or how long ago it was, as microseconds since 1970; without a zone it is UTC."""
    ago = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if ago:
        return SystemClock().wall_us() - int(ago[1]) * _AGO_US[ago[2]]
    try:
        instant = datetime.fromisoformat(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected 2026-05-01T12:00Z or 10m, was {value}") from error
    return ((instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, was {value}")
    return int(value)

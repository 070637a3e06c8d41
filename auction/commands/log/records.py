# A log as its reader sees it: the records that are whole, and what is wrong and where.
#
# All actions read through here, so what `verify` calls whole is what `cat` prints and `stat` counts. Nothing is decided
# again, which is replay's affair; so logs of other software can be read as far as this one knows their words.

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from auction.console import legible
from auction.core import record
from auction.core.openrtb import json, requests
from auction.core.record import RecordedAuction, RecordedRefusal, RecordedRules, Unreadable
from auction.edge import eventlog
from auction.model.auction import Arrival, AuctionResult, Encoding, Outcome
from auction.model.errors import InvalidRequest
from auction.model.reasons import LossReason
from auction.model.request import BidRequest
from auction.model.rules import Rules, rules_from_canonical

# A log that is rotten through and through has a fault every few bytes: data for programs lists so many, and counts all.
FAULTS_MAX = 1000
# Writing it more often than once in so many records would cost more than it tells.
PROGRESS_EVERY = 1000
# What a frame adds to its payload; the header of eventlog.py has the format.
FRAME_BYTES = 40
# So much of what others named stands in a line for people; `--jsonl` has all of it.
TEXT_MAX = 80


class Known(msgspec.Struct, frozen=True):
    """Rules as written, and as far as this software reads them: enough to read a record by, not to decide by."""

    digest: str
    software: str
    rules: Rules | None

    @property
    def currency(self) -> str | None:
        return None if self.rules is None else self.rules.exchange.currency


class Read(msgspec.Struct, frozen=True):
    """A record that is whole; `recorded` is None for a kind that this software does not know."""

    frame: eventlog.Frame
    known: Known
    recorded: RecordedRules | RecordedAuction | RecordedRefusal | None
    result: AuctionResult | None


class Finding(msgspec.Struct, frozen=True):
    """Something wrong in a log: a fault of a file, or a record that is none. `--json` prints it as it is."""

    kind: str
    path: str
    offset: int
    length: int
    text: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: offset {self.offset}: {self.kind}: {self.text} ({self.length} bytes)"


class Reading:
    """Read a log once, record by record; memory grows with its segments, not with its records.

    `damage` and `torn` count what was told to `tell`: a torn tail is no damage. `faults` is damage by file, `ends` the
    last sequence number by directory.
    """

    def __init__(self, names: Sequence[str], tell: Callable[[Finding], None]) -> None:
        self.names = names
        self.damage = 0
        self.torn = 0
        self.faults: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self._tell = tell
        self._known: dict[bytes, Known] = {}

    def __iter__(self) -> Iterator[Read]:
        for frame in eventlog.read(self.names, self._fault):
            self.ends[os.path.dirname(frame.path)] = frame.sequence
            try:
                yield self._read(frame)
            except Unreadable as error:
                length = FRAME_BYTES + len(frame.payload)
                text = f"record {frame.sequence}: {error}"
                self.add(Finding("unreadable", frame.path, frame.offset, length, text))

    def add(self, finding: Finding) -> None:
        if finding.kind == eventlog.FaultKind.TORN.value:
            self.torn += 1
        else:
            self.damage += 1
            self.faults[finding.path] = self.faults.get(finding.path, 0) + 1
        self._tell(finding)

    def _fault(self, fault: eventlog.Fault) -> None:
        self.add(Finding(fault.kind.value, fault.path, fault.offset, fault.length, fault.text))

    def _read(self, frame: eventlog.Frame) -> Read:
        if frame.rules is None:
            raise Unreadable("its rules are damaged")
        known = self._known.get(frame.rules)
        if known is None:
            known = _known(record.decode_rules(frame.rules))
            # A segment alternates between no more than these.
            if len(self._known) >= eventlog.RULES_KEPT:
                del self._known[next(iter(self._known))]
            self._known[frame.rules] = known
        match frame.kind:
            case record.AUCTION:
                auction = record.decode_auction(frame.payload)
                if auction.rules_digest.hex() != known.digest:
                    raise Unreadable("it names other rules than its frame")
                return Read(frame, known, auction, record.decode_result(auction.result))
            case record.REFUSAL:
                return Read(frame, known, record.decode_refusal(frame.payload), None)
            case record.RULES:
                return Read(frame, known, record.decode_rules(frame.payload), None)
        return Read(frame, known, None, None)


def _known(written: RecordedRules) -> Known:
    if hashlib.sha256(written.canonical).digest() != written.digest:
        raise Unreadable("its rules are not those of their digest")
    try:
        # Rules of other software too: what they share with ours is enough to know a currency and a limit.
        rules = rules_from_canonical(written.canonical)
    except msgspec.DecodeError:
        rules = None
    return Known(written.digest.hex(), written.software, rules)


def request_of(arrival: Arrival, rules: Rules | None) -> BidRequest | None:
    """Read a logged request as its auction did; None where this software cannot."""
    rules = rules or Rules()
    body = arrival.body
    try:
        if arrival.encoding is Encoding.JSON:
            lenient = rules.exchange.json == "lenient"
            body = json.request_bytes(body, lenient=lenient, depth=rules.limits.depth).message
        return requests.read_request(body, rules.limits)
    except InvalidRequest:
        return None


def won(result: AuctionResult) -> list[Outcome]:
    """Give the bids that won."""
    return [bid for bid in result.outcomes if bid.reason is LossReason.WON]


def revenue(result: AuctionResult) -> int:
    """Add up the clearing prices: micros CPM of the auction currency."""
    return sum(bid.clearing_price or 0 for bid in result.outcomes)


def up_to(most: int, listed: list[Finding]) -> Callable[[Finding], None]:
    """Give what adds findings to a list until it is full."""

    def tell(finding: Finding) -> None:
        if len(listed) < most:
            listed.append(finding)

    return tell


def with_progress(reading: Reading, size: int) -> Iterator[Read]:
    """Pass records on; on a terminal, tell how far of `size` bytes they have come."""
    if not sys.stderr.isatty():
        yield from reading
        return
    done = 0
    for count, read in enumerate(reading, 1):
        done += FRAME_BYTES + len(read.frame.payload)
        if count % PROGRESS_EVERY == 0:
            print(f"\r\x1b[K{count} records, {done / size:.0%}", end="", file=sys.stderr, flush=True)
        yield read
    clear_progress()


def clear_progress() -> None:
    """Take the line of progress away, so that something else may be printed there."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def shown(path: str) -> str:
    """Name a file as briefly as it can be found from here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def plain(name: str) -> str:
    """Make a name from outside fit for a terminal: no more than fits a line, and nothing that it would obey."""
    cut = name if len(name) <= TEXT_MAX else f"{name[: TEXT_MAX - 1]}…"
    return legible(cut)


def counted(count: int, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "fault"), counted(0, "fault")
    ('1 fault', '0 faults')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A frame may claim any 64 bits; the calendar here ends with the year 9999.
_LATEST_US = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def time_text(instant_us: int) -> str:
    """Write microseconds since 1970-01-01 as UTC in ISO 8601.

    >>> time_text(1_750_000_000_123_456)
    '2025-06-15T15:06:40.123456Z'
    """
    instant = EPOCH + timedelta(microseconds=min(max(instant_us, 0), _LATEST_US))
    return instant.isoformat(timespec="microseconds").replace("+00:00", "Z")

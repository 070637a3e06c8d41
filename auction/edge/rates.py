# Exchange rates from outside: one file or one URL, asked again and again for another snapshot.
#
# A snapshot is JSON in one of two shapes:
#
#     {"id": "ecb-2026-01-30", "time": "2026-01-30T15:00:00Z", "rates": {"EUR": "0.92", "JPY": 150}}
#     {"dataAsOf": "2026-01-30", "conversions": {"USD": {"EUR": 0.92, "JPY": 150}, "GBP": {...}}}
#
# The first is ours. The second is the one that Prebid's currency file has; of it the row of USD is taken and no other,
# because what it says between two other currencies is a product that was rounded before we saw it. Either way a rate
# is units per US dollar, read from its digits and never through a double.
#
# It is taken whole or refused whole: a source that is wrong about one currency is not believed about the others. Only
# codes that are no currency are left out. Whatever goes wrong, the last good snapshot stays, and its age tells.

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal

import msgspec

from auction.edge.tls import ClientContexts
from auction.edge.wire.http1 import Failure as Unanswered
from auction.edge.wire.http1 import Fault, Limits, fetch
from auction.model.clock import Clock
from auction.model.currencies import ISO_4217
from auction.model.fx import Fx

# A source that takes longer is down. An exchange without any rates waits this long for them before it is ready, and
# orchestrators allow a start half a minute.
FETCH_S: Final = 5.0
# 1 MiB: every currency of the list against every other, as Prebid's file would have them, takes three quarters of it.
BYTES_MAX: Final = 1024 * 1024
# As in the configuration: a thousand times the weakest currency, and more digits than anybody publishes.
RATE_MAX: Final = 1_000_000_000
DIGITS_MAX: Final = 20
# What names a snapshot goes into every record of rules.
ID_CHARS_MAX: Final = 1024
# A date without a zone begins up to 14 hours before it does in UTC. What claims to be later than tomorrow is wrong, and
# would never grow stale.
AHEAD_S_MAX: Final = 24 * 3600
# Of codes that nobody knows, as many are named as a line takes.
STRANGERS_MAX: Final = 8

Outcome = Literal["changed", "unchanged", "unreachable", "refused"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("changed", "unchanged", "unreachable", "refused")

_NUMBER = re.compile(r'"?([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?)"?')
_log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """Where snapshots come from: a file or a URL, exactly one."""

    file: str | None = None
    url: str | None = None

    def shown(self) -> str:
        """Write it for people, without the query of a URL, where keys have been seen."""
        assert self.file is not None or self.url is not None
        return self.file or (self.url or "").partition("?")[0]


class Failure(Exception):
    """Why there is no snapshot: nobody gave one (`unreachable`), or it cannot be used (`refused`)."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Feed:
    """Keep the last good snapshot of one source: None until there is one.

    `outcomes` counts every refresh by how it ended; its owner may keep it from one feed to the next.
    """

    def __init__(self, source: Source, clock: Clock, outcomes: dict[Outcome, int], *, fetch_s: float = FETCH_S) -> None:
        self.source = source
        self.snapshot: Fx | None = None
        self._clock = clock
        self._outcomes = outcomes
        self._fetch_s = fetch_s
        self._asked = float("-inf")
        # What the source said of the snapshot that we have: validators of HTTP, or what the system knows of a file.
        self._validators: dict[str, str] = {}
        self._file: tuple[int, ...] = ()
        self._reading: asyncio.Future[tuple[bytes, tuple[int, ...]] | None] | None = None
        self._state: Outcome = "unchanged"
        self._strangers: tuple[str, ...] = ()
        self._tls = ClientContexts(["http/1.1"])

    async def run(self, refresh_s: float) -> None:
        """Refresh every `refresh_s`, counted from the last time, until cancelled; that leaves nothing behind."""
        while True:
            await asyncio.sleep(max(0.0, self._asked + refresh_s - self._clock.monotonic()))
            await self.refresh()

    async def refresh(self) -> None:
        """Ask once, for `fetch_s` at most; whatever happens is counted, and told when it is not what it was before."""
        self._asked = self._clock.monotonic()
        reason = ""
        try:
            async with asyncio.timeout(self._fetch_s):
                outcome = await (self._from_url(self.source.url) if self.source.url else self._from_file())
        except TimeoutError:
            outcome, reason = "unreachable", f"expected a snapshot within {self._fetch_s:g} s"
        except Failure as failure:
            outcome, reason = failure.outcome, str(failure)
        except Exception:  # a fault of ours costs one refresh, with a trace, and not all that would follow
            _log.exception("a snapshot of exchange rates could not be taken")
            outcome, reason = "unreachable", "see above"
        self._outcomes[outcome] += 1
        before, self._state = self._state, outcome
        fields = {"source": self.source.shown()}
        if reason and outcome != before:
            _log.warning("exchange rates are not refreshed: %s", reason, extra={"fields": fields})
        elif not reason and before in ("unreachable", "refused"):
            _log.info("exchange rates are refreshed again", extra={"fields": fields})

    async def _from_file(self) -> Outcome:
        # A disk that hangs keeps one thread, not one more each time.
        if self._reading is not None and not self._reading.done():
            raise Failure("unreachable", "the file is still being read")
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(None, _read_file, self.source.file or "", self._file)
        # What comes of it when nobody waits any longer is of no interest.
        self._reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())
        found = await asyncio.shield(self._reading)
        if found is None:
            return "unchanged"
        body, known = found
        outcome = self._take(body)
        self._file = known
        return outcome

    async def _from_url(self, url: str) -> Outcome:
        fields = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "auction"}
        try:
            answer = await fetch(
                url,
                tuple({**fields, **self._validators}.items()),
                Limits(BYTES_MAX),
                tls=self._tls,
                connect_s=self._fetch_s,
            )
        except ValueError as wrong:
            raise Failure("unreachable", str(wrong)) from wrong
        if isinstance(answer, Unanswered):
            raise Failure("refused" if answer.fault is Fault.TOO_LARGE else "unreachable", answer.detail)
        if answer.status == 304 and self._validators:
            return "unchanged"
        if answer.status != 200:
            raise Failure("unreachable", f"expected HTTP 200, was {answer.status}")
        if answer.fields.get("content-encoding", "identity") != "identity":
            raise Failure("refused", "expected a body without content-encoding")
        outcome = self._take(answer.body)
        names = {"etag": "if-none-match", "last-modified": "if-modified-since"}
        self._validators = {names[name]: answer.fields[name] for name in names if name in answer.fields}
        return outcome

    def _take(self, body: bytes) -> Outcome:
        snapshot, strangers = read(body, self._clock.wall_us())
        if strangers and strangers != self._strangers:
            named = ", ".join(strangers[:STRANGERS_MAX]) + (", ..." if len(strangers) > STRANGERS_MAX else "")
            _log.warning("codes that are no currency are left out: %s", named)
        self._strangers = strangers
        if snapshot == self.snapshot:
            return "unchanged"
        self.snapshot = snapshot
        return "changed"


class _Sent(msgspec.Struct):
    """Both shapes at once: which one it is, its members tell."""

    id: str = ""
    time: str = ""
    rates: dict[str, msgspec.Raw] | None = None
    as_of: str = msgspec.field(default="", name="dataAsOf")
    conversions: dict[str, msgspec.Raw] | None = None


def read(body: bytes, now_us: int) -> tuple[Fx, tuple[str, ...]]:
    """Read a snapshot, and name the codes in it that are no currency; Failure says why it cannot be used."""
    try:
        sent = msgspec.json.decode(body, type=_Sent)
        if sent.conversions is not None:
            row = msgspec.json.decode(sent.conversions.get("USD", msgspec.Raw(b"{}")), type=dict[str, msgspec.Raw])
            id, time = f"prebid-{sent.as_of}", sent.as_of
        else:
            row, id, time = sent.rates or {}, sent.id, sent.time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise Failure("refused", f"expected a snapshot in JSON: {wrong}") from wrong
    if (sent.rates is None) == (sent.conversions is None):
        raise Failure("refused", "expected either rates or conversions")
    if not 0 < len(id) <= ID_CHARS_MAX:
        raise Failure("refused", f"id: expected text of 1 to {ID_CHARS_MAX} characters")
    if len(time) > ID_CHARS_MAX:  # a second may have any number of digits
        raise Failure("refused", f"time: expected text of at most {ID_CHARS_MAX} characters")
    try:
        taken = taken_us(time)
    except ValueError as wrong:
        raise Failure("refused", f"time: {wrong}") from wrong
    if taken is None:
        raise Failure("refused", "time: expected when the rates were taken, was nothing")
    if taken > now_us + AHEAD_S_MAX * 1_000_000:
        raise Failure("refused", f"time: expected a time that has come, was {time}")
    strangers = tuple(sorted(code[:8] for code in row if code not in ISO_4217))
    rates = {code: _rate(code, bytes(raw)) for code, raw in row.items() if code in ISO_4217}
    if rates.pop("USD", "1") != "1":
        raise Failure("refused", "USD: expected 1, rates are units per US dollar")
    if not rates:
        raise Failure("refused", "expected at least one rate")
    return Fx(id, time, rates), strangers


def taken_us(time: str) -> int | None:
    """Give the instant of a snapshot's `time`, a date or one without a zone in UTC; None for none, ValueError."""
    if not time:
        return None
    try:
        instant = datetime.fromisoformat(time)
        instant = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
        return round(instant.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a time such as 2026-01-31T12:00:00Z, was {time[:40]!r}") from None


def _rate(code: str, raw: bytes) -> str:
    """Read one rate from its digits, as plain decimal text."""
    text = raw.decode(errors="replace")
    number = _NUMBER.fullmatch(text)
    exact = Decimal(number[1]) if number else Decimal("NaN")
    _, digits, exponent = exact.as_tuple()
    fits = number and len(digits) <= DIGITS_MAX and abs(int(exponent)) <= DIGITS_MAX and 0 < exact <= RATE_MAX
    if not fits:
        raise Failure("refused", f"{code}: expected more than 0, at most {RATE_MAX}, was {text[:40]}")
    plain = f"{exact:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _read_file(path: str, known: tuple[int, ...]) -> tuple[bytes, tuple[int, ...]] | None:
    """Read a file that is not the one known, and what the system knows of it; None where it is."""
    try:
        # A pipe in the place of a file would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            told = os.fstat(file.fileno())
            if not stat.S_ISREG(told.st_mode):
                raise Failure("unreachable", "expected a file, was something else")
            found = (told.st_dev, told.st_ino, told.st_mtime_ns, told.st_size)
            if found == known:
                return None
            body = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as refused:
        raise Failure("unreachable", getattr(refused, "strerror", None) or str(refused)) from refused
    return _within_limit(body), found


def _within_limit(body: bytes) -> bytes:
    if len(body) > BYTES_MAX:
        raise Failure("refused", f"expected at most {BYTES_MAX} bytes")
    return body

"""Send requests at a constant rate and print honest percentiles.

An open-loop generator: each request has an instant at which it is due, whatever became of those before it, and its
latency counts from that instant. A stall of the exchange is then seen by every request that it would have met, not
only by the one that met it. What the generator itself was late by is printed beside, so that a slow generator cannot
pass for a slow exchange.

Traffic goes to this machine. Another host must be named a second time with --host-is-mine, by whoever may do that.

exit codes:
  0  every request was answered
  1  some were refused, timed out, failed, or could not be sent
  2  the command line is wrong, or the target is not ours to load

examples:
  auction load --rate 200 --seconds 10
  auction load --rate 200 --seconds 10 --http http://127.0.0.1:7480 --request mine.json
  auction load --rate 50 --seconds 60 --target exchange.staging:7400 --host-is-mine exchange.staging --json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram
from rich.console import Console
from rich.table import Table

from auction.edge.transports import Outgoing, Status
from auction.edge.transports.caller import Caller, caller, host_of
from auction.model.clock import Clock, SystemClock
from auction.model.errors import InvalidRequest
from auction.presence import running

TARGET = "127.0.0.1:7400"

# Beyond these a single Python process is no generator any more: it sends late, and says so.
RATE_MAX = 20_000.0
# A day of soaking is another tool's work.
SECONDS_MAX = 3600.0
# Calls under way: one second of 4 096/s. What is due beyond them is not sent and counts as failed.
IN_FLIGHT_MAX = 4096
# Ten times the longest auction by default; a caller that waits longer measures its own patience.
TIMEOUT_MS = 5000
# Microseconds from 1 to a minute at three digits: 100 KB a histogram, whatever the number of values.
LATENCY_US_MAX = 60_000_000
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

UNSENT = "UNSENT"


def histogram() -> HdrHistogram:
    """Make an empty histogram of microseconds."""
    return HdrHistogram(1, LATENCY_US_MAX, 3)


class Measured:
    """What a run found: outcomes by status, latencies from the intended instant, and how late the sending was."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.latency = histogram()
        self.lateness = histogram()
        self.messages: dict[str, str] = {}
        self.elapsed_s = 0.0

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes[Status.OK.name]

    def told(self) -> dict[str, Any]:
        """Give it as data, for --json."""
        return {
            "requests": self.outcomes.total(),
            "outcomes": dict(self.outcomes),
            "messages": self.messages,
            "elapsed_s": round(self.elapsed_s, 3),
            "answered_per_s": round(self.outcomes[Status.OK.name] / self.elapsed_s, 1) if self.elapsed_s else 0.0,
            "latency_ms": percentiles(self.latency),
            "sent_late_ms": percentiles(self.lateness),
        }


async def offer(
    way: Caller,
    body: Callable[[int], bytes],
    rate: float,
    seconds: float,
    clock: Clock,
    measured: Measured,
    *,
    timeout_s: float = TIMEOUT_MS / 1000,
    in_flight: int = IN_FLIGHT_MAX,
    answered: Callable[[int, float, Outgoing], None] | None = None,
) -> None:
    """Have `rate * seconds` auctions held, one every 1/rate seconds; return when each was answered or timed out.

    `body` gives the request of a number; `measured` fills as answers come, and `answered` hears of each: its number,
    the seconds since it was really sent, and the answer. Cancelled, it cancels what it sent and leaves nothing behind.
    """
    count = max(1, round(rate * seconds))
    begin = clock.monotonic()

    async def one(number: int, due: float) -> None:
        request = body(number)
        sent = clock.monotonic()
        measured.lateness.record_value(_us(sent - due))
        answer = await way.call(request, timeout_s)
        now = clock.monotonic()
        measured.latency.record_value(_us(now - due))
        if answered is not None:
            answered(number, now - sent, answer)
        measured.outcomes[answer.status.name] += 1
        if answer.status is not Status.OK:
            measured.messages.setdefault(answer.status.name, answer.message[:200])

    calls: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = begin + number / rate
            wait = due - clock.monotonic()
            if wait > 0:
                await _until(due, clock)
            if len(calls) >= in_flight:
                measured.outcomes[UNSENT] += 1
                measured.messages[UNSENT] = f"{in_flight} calls were under way already"
                continue
            call = group.create_task(one(number, due))
            calls.add(call)
            call.add_done_callback(calls.discard)
            if wait <= 0 and number % 16 == 0:
                # Behind: what was sent must still be able to leave, and answers to come in.
                await asyncio.sleep(0)
    measured.elapsed_s = max(measured.elapsed_s, clock.monotonic() - begin, count / rate)


async def _until(instant: float, clock: Clock) -> None:
    reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(instant, lambda: None if reached.done() else reached.set_result(None))
    try:
        await reached
    finally:
        timer.cancel()


def _us(seconds: float) -> int:
    return min(max(1, round(seconds * 1e6)), LATENCY_US_MAX)


def percentiles(values: HdrHistogram) -> dict[str, float]:
    """Give the percentiles of a histogram of microseconds, and its maximum, in milliseconds."""
    found = {f"p{p:g}": values.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
    return {**found, "max": values.get_max_value() / 1000}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=_positive(RATE_MAX), default=100.0, metavar="R", help="requests a second (100)")
    parser.add_argument("--seconds", type=_positive(SECONDS_MAX), default=10.0, metavar="S", help="for how long (10)")
    edge = parser.add_mutually_exclusive_group()
    edge.add_argument("--target", metavar="HOST:PORT", help=f"gRPC (the exchange running here, otherwise {TARGET})")
    edge.add_argument("--http", metavar="URL", help="the JSON edge, such as http://127.0.0.1:7480")
    parser.add_argument(
        "--request", action="append", default=[], type=Path, metavar="FILE", help="OpenRTB JSON (the bundled requests)"
    )
    parser.add_argument("--timeout-ms", type=_positive(60_000), default=TIMEOUT_MS, metavar="MS", help="(%(default)s)")
    parser.add_argument("--host-is-mine", metavar="HOST", help="load this host, which is not this machine")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")


def run(args: argparse.Namespace) -> int:
    target = args.http or args.target or default_target()
    try:
        way = caller(target)
    except ValueError as error:
        return _fail(2, str(error))
    host = host_of(target)
    if not loopback(host) and args.host_is_mine != host:
        return _fail(2, f"{host}: not this machine; if it is yours to load, say --host-is-mine {host}")
    # Here, so that --help and a refusal answer without loading numba's and grpcio's likes.
    from bidders import bundled

    try:
        requests = [bundled.read(path.stem, path.read_bytes()) for path in args.request] or bundled.bundled()
    except OSError as error:
        return _fail(2, f"{error.filename}: {error.strerror}")
    except InvalidRequest as refusal:
        return _fail(2, f"--request: {refusal}")
    # The run's own prefix keeps two runs apart in one log.
    clock = SystemClock()
    prefix = f"load-{clock.wall_us():x}"

    def body(number: int) -> bytes:
        return requests[number % len(requests)].body(f"{prefix}-{number}", way.json)

    measured = Measured()
    # A full collection through all that was imported would stop our clock for tens of milliseconds.
    gc.freeze()

    async def measure() -> None:
        await way.open()
        try:
            await offer(way, body, args.rate, args.seconds, clock, measured, timeout_s=args.timeout_ms / 1000)
        finally:
            await way.close()

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(measure())
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    if args.json:
        asked = {"target": way.target, "rate_per_s": args.rate, "seconds": args.seconds}
        print(json.dumps({**asked, **measured.told()}, indent=2))
    else:
        show(way.target, args.rate, args.seconds, measured, Console())
    return 1 if measured.failed else 0


def show(target: str, rate: float, seconds: float, measured: Measured, console: Console) -> None:
    """Print a run for people."""
    told = measured.told()
    console.print(f"{rate:g} requests/s for {seconds:g} s to {target}", highlight=False)
    console.print(f"answered  {told['answered_per_s']:g}/s, {told['outcomes'].get('OK', 0)} of {told['requests']}")
    for outcome, count in measured.outcomes.most_common():
        if outcome != Status.OK.name:
            console.print(f"[red]{count} {outcome}[/]: {measured.messages.get(outcome, '')}", highlight=False)
    console.print(percentile_table({"latency": measured.latency, "sent late by": measured.lateness}))


def percentile_table(rows: dict[str, HdrHistogram]) -> Table:
    """Lay out histograms of microseconds, a row each, in milliseconds."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("ms")
    for heading in (*(f"p{p:g}" for p in PERCENTILES), "max"):
        table.add_column(heading, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in percentiles(values).values()))
    return table


def default_target() -> str:
    """Name the exchange that runs here, if exactly one does, otherwise where one listens by default."""
    here = running()
    return here[0].grpc if len(here) == 1 else TARGET


def loopback(host: str) -> bool:
    """Tell whether a host is this machine for certain. Names are not looked up: what they mean can change."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _positive(largest: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value <= largest:
            raise argparse.ArgumentTypeError(f"expected more than 0, at most {largest:g}, was {text}")
        return value

    return number


def new_loop() -> asyncio.AbstractEventLoop:
    """Make the fastest event loop that there is here."""
    try:
        import uvloop
    except ImportError:  # Not on every platform.
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _fail(code: int, *lines: str) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return code

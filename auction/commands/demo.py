"""Run an exchange with six bidders here, on real requests, and show what happens.

Everything is a real process on loopback: three bidders over gRPC, three over OpenRTB JSON. One is late now and then,
one talks nonsense, one goes down and comes back. The numbers come from the exchange's own log and from a clock at the
caller. Afterwards one auction is explained bid by bid, and the whole log is run again.

With `--currency` the auction currency and all floors are another one, and bidders bid in it, in USD and in EUR: an
exchange in JPY, say, has floors in whole yen and an increment of one.

On a terminal the exchange stays up until Ctrl-C, which always drains it and leaves a log that can be read.

exit codes:
  0    all auctions were answered, and all of them came out byte for byte again
  1    something did not: a process died, a port was taken, a call failed, a record is missing or differs
  2    the command line is wrong
  130  interrupted before the end

examples:
  auction demo
  auction demo --seconds 30 --rate 300
  auction demo --auctions 200 --dir var/demo
  auction demo --currency JPY
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from auction.commands import explain, replay
from auction.commands.load import Measured, histogram, new_loop, offer, percentiles
from auction.commands.scene import RATES, SIX, Broken, Player, Scene, bidding_in
from auction.core import record
from auction.edge import eventlog
from auction.edge.transports.caller import Caller, caller
from auction.model.auction import AuctionResult
from auction.model.clock import SystemClock
from auction.model.currencies import ISO_4217
from auction.model.money import MICROS
from auction.model.reasons import LossReason, NonBidStatus, PriceSetter
from auction.model.reply import ReplyStatus
from bidders.bundled import Request, bundled, told_in

# A tenth of what this machine can do: the demo shows auctions, not a queue.
RATE = 100.0
AUCTIONS = 1000
RATE_MAX = 2000.0
AUCTIONS_MAX = 1_000_000

# Small segments, so that following the log means reading little again; and the visitor sees it rotate.
SEGMENT_BYTES = 256 * 1024
# How often the table moves, on a terminal and elsewhere.
LOOK_S = 0.25
LINE_S = 2.0
# Auctions read at a time before answers are looked at again: two milliseconds' work.
READ_AT_ONCE = 25
# The log is behind the answers by milliseconds; after this long something is wrong.
WRITTEN_S = 10.0
# Below this the words about each bidder give way to its numbers.
WIDE = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--auctions", type=_whole(AUCTIONS_MAX), metavar="N", help=f"how many (default: {AUCTIONS})")
    length.add_argument("--seconds", type=_whole(3600), metavar="S", help="or for how long")
    parser.add_argument("--rate", type=_whole(int(RATE_MAX)), default=RATE, metavar="R", help="a second (%(default)g)")
    parser.add_argument("--currency", choices=("USD", *RATES), default="USD", help="the auction currency (%(default)s)")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where log and configuration go (a temporary one)")
    parser.add_argument("--port", type=int, default=0, help="gRPC (default: any free one)")
    parser.add_argument("--http-port", type=int, default=0, help="JSON, health, metrics (default: any free one)")


def run(args: argparse.Namespace) -> int:
    directory = args.dir or Path(tempfile.mkdtemp(prefix="auction-demo-"))
    if (directory / "log").exists():
        print(f"{directory}: holds a log already; name a directory without one", file=sys.stderr)
        return 2
    count = args.auctions or round(args.seconds * args.rate if args.seconds else AUCTIONS)
    console = Console(highlight=False)
    demo = Demo(directory, count, args.rate, args.port, args.http_port, console, args.currency)
    # A full collection through all that was imported would stop the caller's clock for tens of milliseconds.
    gc.freeze()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(demo.play())


class Demo:
    """One run of the demo, from the first process to the last."""

    def __init__(
        self,
        directory: Path,
        auctions: int,
        rate: float,
        port: int,
        http_port: int,
        console: Console,
        currency: str = "USD",
    ) -> None:
        config: dict[str, dict[str, Any]] = {
            "server": {"port": port, "http_port": http_port},
            "log": {"segment_bytes": SEGMENT_BYTES},
        }
        players: tuple[Player, ...] = SIX
        if currency != "USD":
            config["exchange"] = {"currency": currency}
            players = bidding_in(SIX, tuple(dict.fromkeys(("USD", "EUR", currency))))
        self._scene = Scene(directory, players, config)
        self._currency = currency
        self._auctions = auctions
        self._rate = rate
        self._console = console
        self._clock = SystemClock()
        self._measured = Measured()
        self._tally = Tally(self._scene.players)
        self._following = Following(self._scene.log)
        self._over = False

    async def play(self) -> int:
        """Do all of it; the processes have ended when this returns, whatever happened."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            # Whoever says it twice does not want to wait.
            if told.is_set():
                self._scene.kill()
            told.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, tell)
        acts = asyncio.create_task(self._acts())
        waiting = asyncio.create_task(told.wait())
        code = 1
        try:
            await asyncio.wait({acts, waiting}, return_when=asyncio.FIRST_COMPLETED)
            interrupted = 0 if self._over else 130
            code = acts.result() if acts.done() else interrupted
        except Broken as broken:
            self._console.print(Text(f"\n{broken}", style="red"), soft_wrap=True)
        finally:
            for task in (acts, waiting):
                task.cancel()
            await asyncio.gather(acts, waiting, return_exceptions=True)
            if told.is_set():
                self._console.print("\nDraining ...", style="dim")
            ended = await self._scene.stop()
        if ended not in (0, None) and code == 0:
            self._console.print(f"[red]the exchange ended with exit code {ended}[/]")
            code = 1
        if self._scene.log.exists():
            where = self._scene.directory
            self._console.print(f"\nLog, configuration and what each process said stay in {where}", soft_wrap=True)
        return code

    async def _acts(self) -> int:
        console, scene = self._console, self._scene
        console.print("[bold]auction demo[/]: an exchange and six bidders, as processes on this machine")
        if console.is_terminal:
            with console.status("Starting", spinner="dots"):
                await scene.start()
        else:
            await scene.start()
        console.print(f"gRPC {scene.grpc}   JSON {scene.http}   log {scene.log}", style="dim", soft_wrap=True)
        falling = asyncio.create_task(scene.fallen())
        playing = asyncio.create_task(self._numbers())
        try:
            await asyncio.wait({falling, playing}, return_when=asyncio.FIRST_COMPLETED)
            if falling.done():
                falling.result()
            playing.result()
            code = self._afterwards()
            if not console.is_terminal:
                return code
            self._over = code == 0
            self._invite()
            await falling
            return code
        finally:
            for task in (falling, playing):
                task.cancel()
            await asyncio.gather(falling, playing, return_exceptions=True)

    async def _numbers(self) -> None:
        """Have the auctions held over both doors, and show them as they are logged."""
        ways = [caller(self._scene.grpc), caller(self._scene.http)]
        for way in ways:
            await way.open()
        try:
            offering = asyncio.create_task(self._offer(ways))
            try:
                await self._watch(offering)
            finally:
                offering.cancel()
                await asyncio.gather(offering, return_exceptions=True)
        finally:
            for way in ways:
                await way.close()

    async def _offer(self, ways: list[Caller]) -> None:
        requests = self._requests()

        def body_of(way: Caller, place: int) -> Callable[[int], bytes]:
            def body(number: int) -> bytes:
                # Alternately through each door; the numbers tell which request this is.
                number = number * len(ways) + place
                return requests[number % len(requests)].body(f"demo-{number + 1}", way.json)

            return body

        counts = [len(range(place, self._auctions, len(ways))) for place in range(len(ways))]
        rate = self._rate / len(ways)
        async with asyncio.TaskGroup() as group:
            for place, (way, count) in enumerate(zip(ways, counts, strict=True)):
                if count:
                    offering = offer(way, body_of(way, place), rate, count / rate, self._clock, self._measured)
                    group.create_task(offering)

    def _requests(self) -> list[Request]:
        """Give the bundled requests; for another currency than USD their floors are in it."""
        requests = bundled()
        return requests if self._currency == "USD" else [told_in(each, self._currency, RATES) for each in requests]

    async def _watch(self, offering: asyncio.Task[None]) -> None:
        console = self._console
        began = said = self._clock.monotonic()
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            while not offering.done():
                await asyncio.wait({offering}, timeout=LOOK_S)
                await self._catch_up()
                now = self._clock.monotonic()
                if console.is_terminal:
                    live.update(self._picture(), refresh=True)
                elif now - said >= LINE_S:
                    said = now
                    console.print(f"{now - began:4.0f} s  {self._progress()}")
            offering.result()
            end = self._clock.monotonic() + WRITTEN_S
            while self._tally.auctions < self._measured.outcomes["OK"] and self._clock.monotonic() < end:
                await asyncio.sleep(LOOK_S / 5)
                await self._catch_up()
            live.update(self._picture(), refresh=True)
        if not console.is_terminal:
            console.print()  # on a terminal it has ended its line itself

    async def _catch_up(self) -> None:
        for place, recorded in enumerate(self._following.fresh()):
            self._tally.add(recorded)
            if place % READ_AT_ONCE == READ_AT_ONCE - 1:
                await asyncio.sleep(0)

    def _progress(self) -> str:
        tally = self._tally
        return f"{tally.auctions} of {self._auctions} auctions, {tally.sold} of {tally.imps} impressions sold"

    def _picture(self) -> Group:
        return picture(self._tally, self._measured, self._auctions, self._console.width, self._currency)

    def _afterwards(self) -> int:
        """Explain one auction and run all of them again; give the exit code that the demo has earned."""
        console, log = self._console, str(self._scene.log)
        measured, tally = self._measured, self._tally
        code = 0
        for outcome, message in measured.messages.items():
            console.print(f"[red]{measured.outcomes[outcome]} {outcome}[/]: {message}")
            code = 1
        if tally.auctions < measured.outcomes["OK"]:
            console.print(f"[red]{measured.outcomes['OK'] - tally.auctions} auctions are not in the log[/]")
            code = 1
        if tally.told:
            console.print(f"\n[bold]$ {_command('explain', '--log', log, tally.told)}[/]\n", soft_wrap=True)
            code |= _ran(explain, ["--log", log, tally.told])
        console.print(f"\n[bold]$ {_command('replay', log)}[/]\n", soft_wrap=True)
        code |= _ran(replay, [log])
        return 1 if code else 0

    def _invite(self) -> None:
        """Say how to call the exchange that stays up."""
        scene = self._scene
        request = scene.directory / "request.json"
        file = shlex.quote(str(request))
        request.write_bytes(next(each.text for each in self._requests() if each.name == "site-banner-2kb"))
        message = '{"id": "1", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}]}'
        lines = (
            _command("call", str(request), "--target", scene.grpc, "--explain"),
            f"curl -s {scene.http}/openrtb2/auction -H 'content-type: application/json' -d @{file}",
            f"grpcurl -plaintext -d '{message}' {scene.grpc} auction.v1.Exchange/Auction",
            _command("load", "--target", scene.grpc, "--rate", "200", "--seconds", "10"),
            f"curl -s {scene.http}/metrics",
        )
        self._console.print("\n[bold]The exchange is up. Call it:[/]\n")
        for line in lines:
            self._console.print(f"  {line}", soft_wrap=True)
        self._console.print("\nCtrl-C drains and stops it.")


# ------------------------------------------------------------------------------------------------------- the numbers


class Part:
    """What one bidder did, by the exchange's log."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.asked = self.bids = self.wins = self.timeouts = self.invalid = self.unreachable = 0
        self.latency: HdrHistogram = histogram()


class Tally:
    """Everything the table shows, added up from the records of a log; `told` is the auction worth explaining."""

    def __init__(self, players: tuple[Player, ...] = SIX) -> None:
        self.parts = {player.name: Part(player) for player in players}
        self.auctions = self.imps = self.sold = 0
        self.revenue = 0
        self.told = ""
        self._interest = 0

    def add(self, recorded: record.RecordedAuction) -> None:
        """Count one auction."""
        result = record.decode_result(recorded.result)
        self.auctions += 1
        # Every bidder has a bid or a status for each impression that it was asked for.
        self.imps += len(
            {bid.impid for bid in result.outcomes if bid.imp >= 0} | {each.imp for each in result.non_bids}
        )
        sound = {bid.bidder for bid in result.outcomes if bid.reason not in _SENSELESS}
        senseless = {bid.bidder for bid in result.outcomes} - sound
        senseless |= {each.bidder for each in result.non_bids if each.status == NonBidStatus.INVALID_RESPONSE}
        for reply in recorded.replies:
            part = self.parts[reply.bidder]
            part.asked += 1
            part.timeouts += reply.status is ReplyStatus.TIMED_OUT
            part.unreachable += reply.status is ReplyStatus.UNREACHABLE
            part.invalid += reply.bidder in senseless
            part.latency.record_value(max(1, reply.latency_us))
        for bid in result.outcomes:
            part = self.parts[bid.bidder]
            part.bids += 1
            if bid.clearing_price is not None:
                part.wins += 1
                self.sold += 1
                self.revenue += bid.clearing_price
        interest = _interest(result)
        if interest > self._interest:
            self._interest, self.told = interest, recorded.arrival.id


# A bid with one of these makes no sense, and nobody's floor or luck was to blame.
_SENSELESS = frozenset({LossReason.INVALID_BID, LossReason.MISSING_PRICE, LossReason.INVALID_DEAL})

# An explanation that fills a screen is not read.
_ROWS_MAX = 16
_IMPS_MAX = 2


def _interest(result: AuctionResult) -> int:
    """Tell how much there is to learn from an auction: different fates, little text."""
    imps = {bid.impid for bid in result.outcomes} | {each.imp for each in result.non_bids}
    if len(imps) > _IMPS_MAX or len(result.outcomes) + len(result.non_bids) > _ROWS_MAX or result.nbr is not None:
        return 0
    fates = {bid.reason for bid in result.outcomes} | {each.status for each in result.non_bids}
    setters = {bid.setter for bid in result.outcomes}
    failed = {NonBidStatus.TIMEOUT, NonBidStatus.INVALID_RESPONSE, NonBidStatus.UNREACHABLE} & fates
    return len(fates) + 3 * len(failed) + 4 * (PriceSetter.RIVAL in setters) + any(bid.deal for bid in result.outcomes)


class Following:
    """Read a log that is being written, each record once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sequence = 0
        self._closed: set[str] = set()

    def fresh(self) -> list[record.RecordedAuction]:
        """Give the auctions written since the last time."""
        if not self._directory.exists():
            return []
        segments = [path for path in sorted(eventlog.segments([self._directory])) if path not in self._closed]
        found = []
        for frame in eventlog.read(segments, lambda fault: None):
            if frame.sequence <= self._sequence:
                continue
            self._sequence = frame.sequence
            if frame.kind == record.AUCTION:
                found.append(record.decode_auction(frame.payload))
        # All but the newest are complete: the writer never returns to one.
        self._closed.update(segments[:-1])
        return found


def picture(tally: Tally, measured: Measured, auctions: int, width: int, currency: str = "USD") -> Group:
    """Draw the table: a row a bidder, and below it the whole, money in the currency's minor unit."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("bidder")
    table.add_column("over")
    if wide:
        table.add_column("who")
    for heading in ("asked", "bids", "wins", "timeouts", "invalid", "down", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for part in tally.parts.values():
        latency = percentiles(part.latency)
        table.add_row(
            part.player.name,
            {"grpc": "gRPC", "http": "JSON"}[part.player.protocol],
            *([Text(part.player.manner, style="dim")] if wide else []),
            f"{part.asked}",
            f"{part.bids}",
            Text(f"{part.wins}", style="green" if part.wins else "dim"),
            *(Text(f"{number}", style="yellow" if number else "dim") for number in _troubles(part)),
            f"{latency['p50']:.1f}",
            f"{latency['p99']:.1f}",
        )
    answered = percentiles(measured.latency)
    fill = tally.sold / tally.imps if tally.imps else 0.0
    # A clearing price is of a thousand impressions.
    revenue = tally.revenue / MICROS / 1000
    whole = Text.assemble(
        (f"{tally.auctions}", "bold"),
        f" of {auctions} auctions   ",
        (f"{fill:.1%}", "bold"),
        f" of {tally.imps} impressions sold   ",
        (f"{revenue:,.{ISO_4217[currency]}f} {currency}", "bold green"),
        "\nanswered after ",
        (f"{answered['p50']:.1f} ms", "bold"),
        " (p50) and ",
        (f"{answered['p99']:.1f} ms", "bold"),
        " (p99), by the caller's clock",
    )
    return Group(Text(), table, Text(), whole)


def _troubles(part: Part) -> tuple[int, int, int]:
    return part.timeouts, part.invalid, part.unreachable


def _ran(command: object, words: list[str]) -> int:
    """Run another command of ours as if typed."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)  # type: ignore[attr-defined]  # every command has it
    sys.stdout.flush()
    code: int = command.run(parser.parse_args(words))  # type: ignore[attr-defined]
    sys.stdout.flush()
    return code


def _command(*words: str) -> str:
    """Write a command line that works here, whether or not `auction` is on the path."""
    beside = Path(sys.executable).with_name("auction")
    if shutil.which("auction"):
        program = ["auction"]
    elif beside.exists():
        program = [_shorter(beside)]
    else:
        program = [_shorter(Path(sys.executable)), "-m", "auction"]
    return shlex.join((*program, *words))


def _shorter(path: Path) -> str:
    return min(str(path), os.path.relpath(path), key=len)


def _whole(largest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= value <= largest:
            raise argparse.ArgumentTypeError(f"expected 1 to {largest}, was {text}")
        return value

    return number

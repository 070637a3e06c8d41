# `make load`: the demo's exchange and bidders, loaded by locust for a while; percentiles of what the ad servers saw.
# `make load-ui`: the same, started and watched on locust's page.
#
#   python -m benchmarks.load [--seconds 30] [--users 30] [--ui]

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from auction.commands.load import new_loop
from auction.commands.scene import Broken, Scene

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PERCENTILES = (0.5, 0.9, 0.99, 0.999)
# Locust ends its users within this; then it is ended.
GRACE_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Load a demo exchange with locust.")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--users", type=int, default=30, help="ad servers; each calls five times a second")
    parser.add_argument("--ui", action="store_true", help="open locust's page on loopback instead of running at once")
    parser.add_argument("--ui-port", type=int, default=8089)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(load(args, Console(highlight=False)))


async def load(args: argparse.Namespace, console: Console) -> int:
    """Start the scene, have locust load it, stop both; 1 where a call failed or a process did."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    with tempfile.TemporaryDirectory(prefix="auction-load-") as directory:
        scene = Scene(Path(directory))
        locust: asyncio.subprocess.Process | None = None
        try:
            await scene.start()
            words = ["-f", str(LOCUSTFILE), "--grpc-target", scene.grpc, "--host", scene.http]
            if args.ui:
                words += ["--web-host", "127.0.0.1", "--web-port", str(args.ui_port), "--autostart"]
                words += ["--users", str(args.users), "--spawn-rate", str(args.users)]
                console.print(f"Ad servers: http://127.0.0.1:{args.ui_port}   Ctrl-C ends them and the exchange.")
            else:
                words += ["--headless", "--json", "--loglevel", "ERROR", "--run-time", f"{args.seconds}s"]
                words += ["--users", str(args.users), "--spawn-rate", str(args.users)]
                console.print(f"{args.users} ad servers for {args.seconds} s, half gRPC, half JSON")
            said = Path(directory) / "locust.err"
            with said.open("wb") as stderr:
                locust = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "locust", *words),
                    stdout=None if args.ui else asyncio.subprocess.PIPE,
                    stderr=None if args.ui else stderr,
                    start_new_session=True,
                )
            running = asyncio.ensure_future(locust.communicate())
            ends = {running, asyncio.ensure_future(told.wait()), asyncio.ensure_future(scene.fallen())}
            done, waiting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in waiting - {running}:
                end.cancel()
            for end in done:
                end.result()
            if args.ui or running not in done:
                return 0 if args.ui else 130
            try:
                rows = msgspec.json.decode(running.result()[0], type=list[dict[str, Any]])
            except msgspec.DecodeError:
                raise Broken(f"locust ended with exit code {locust.returncode}\n{said.read_text()}") from None
            return report(rows, args.seconds, console)
        except Broken as broken:
            console.print(f"[red]{broken}[/]")
            return 1
        finally:
            if locust is not None:
                await _ended(locust)
            await scene.stop()


def report(rows: list[dict[str, Any]], seconds: int, console: Console) -> int:
    """Print locust's numbers for people; 1 where a call failed, or none was made."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("over")
    for heading in ("calls", "per s", "failed", *(f"p{100 * share:g} ms" for share in PERCENTILES), "max ms"):
        table.add_column(heading, justify="right")
    failed = 0
    for row in rows:
        times = {float(time): count for time, count in row["response_times"].items()}
        failed += row["num_failures"]
        table.add_row(
            {"POST": "JSON"}.get(row["method"], row["method"]),
            f"{row['num_requests']}",
            f"{row['num_requests'] / seconds:.0f}",
            f"{row['num_failures']}",
            *(f"{percentile(times, share):g}" for share in PERCENTILES),
            f"{row['max_response_time']:.0f}",
        )
    console.print(table)
    console.print("A closed loop, rounded by locust; `auction load` measures from the intended send time.", style="dim")
    return 1 if failed or not rows else 0


def percentile(times: dict[float, int], share: float) -> float:
    """Give the time that this share of the calls did not exceed."""
    left = share * sum(times.values())
    for time in sorted(times):
        left -= times[time]
        if left <= 0:
            return time
    return max(times)


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    sys.exit(main())

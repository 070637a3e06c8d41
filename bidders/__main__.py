"""Start one demo bidder.

It prints one line of JSON once it listens, {"name", "pid", "grpc": PORT, "http": PORT}, and serves until SIGTERM or
SIGINT.

strategies:
  fixed        the same price for every impression of a format
  value-noise  what the market thinks it is worth, more or less
  truncated    a value between the floor and a ceiling, never outside
  slow         value-noise, now and then later than the deadline
  flaky        value-noise, with late, hung, refused and cut calls
  malformed    answers that make no sense, in every way we know
  silent       never bids

examples:
  python -m bidders --name dsp-a --strategy fixed --seed 1 --grpc 7501
  python -m bidders --name dsp-b --http 7502 --settings '{"price": {"median": 2}, "faults": {"hang": 0.1}}'
  python -m bidders --name dsp-c --grpc 0 --http 0 --up 5 --down 2
"""
# The life of a bidder: it listens, may go down and come back, and ends when told. Time is the only thing here that is
# not decided by the seed.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence

import msgspec

from bidders import over_grpc, over_http
from bidders.settings import Settings

# How often a bidder that comes back tries to get its port again, and how long it waits in between: while it was down,
# any program may have been given the port for a moment.
RETURNS_MAX = 20
RETURN_S = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one bidder until it is told to end; 1 where it cannot listen, 2 where its settings are wrong."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m bidders",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", required=True, help="also the name of its seat")
    parser.add_argument("--strategy", help="how it prices and behaves (default: value-noise)")
    parser.add_argument("--seed", type=int, help="same seed, same bids (default: 1)")
    parser.add_argument("--grpc", type=int, metavar="PORT", help="serve auction.v1.Bidder there; 0 for any free port")
    parser.add_argument("--http", type=int, metavar="PORT", help="serve OpenRTB JSON there; 0 for any free port")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="more settings, as in bidders/settings.py")
    parser.add_argument(
        "--up", type=float, default=0.0, metavar="S", help="go down after so many seconds, again and again"
    )
    parser.add_argument("--down", type=float, default=0.0, metavar="S", help="and stay down for so many")
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input, a pipe, does: the parent died"
    )
    arguments = parser.parse_args(argv)
    if arguments.grpc is None and arguments.http is None:
        parser.error("one of --grpc and --http is needed")
    if (arguments.up > 0) != (arguments.down > 0):
        parser.error("--up and --down belong together")
    given = {"name": arguments.name, "strategy": arguments.strategy, "seed": arguments.seed}
    try:
        more = msgspec.json.decode(arguments.settings, type=dict[str, object])
        settings = msgspec.convert(
            {**more, **{key: value for key, value in given.items() if value is not None}}, Settings
        )
    except msgspec.MsgspecError as error:
        parser.error(f"settings: {error}")
    # What was loaded so far lives as long as the process: a full collection should not walk it.
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_live(settings, arguments))
    except OSError as error:
        print(f"{settings.name}: {error}", file=sys.stderr)
        return 1
    return 0


async def _live(settings: Settings, arguments: argparse.Namespace) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.set)
    if arguments.until_eof:

        def hear() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin)
                told.set()

        loop.add_reader(sys.stdin, hear)
    listening = await _listen(settings, arguments.host, arguments.grpc, arguments.http)
    print(msgspec.json.encode({"name": settings.name, "pid": os.getpid(), **listening.ports}).decode(), flush=True)
    while not await _within(told, arguments.up):
        await listening.stop()
        if await _within(told, arguments.down):
            return
        for attempt in range(RETURNS_MAX):
            try:
                listening = await _listen(settings, arguments.host, *listening.bound)
                break
            except OSError:
                if attempt == RETURNS_MAX - 1:
                    raise
            if await _within(told, RETURN_S):
                return
    await listening.stop()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows, and none is needed
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Listening:
    """The servers of one bidder, while it is up."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.stop_all = contextlib.AsyncExitStack()

    @property
    def bound(self) -> tuple[int | None, int | None]:
        return self.ports.get("grpc"), self.ports.get("http")

    async def stop(self) -> None:
        await self.stop_all.aclose()


async def _listen(settings: Settings, host: str, grpc_port: int | None, http_port: int | None) -> _Listening:
    listening = _Listening()
    try:
        if grpc_port is not None:
            server, listening.ports["grpc"] = await over_grpc.listen(settings, host, grpc_port)
            listening.stop_all.push_async_callback(server.stop, None)
        if http_port is not None:
            listener, listening.ports["http"] = await over_http.listen(settings, host, http_port)
            # Going down means going down: no answer under way is waited for.
            listening.stop_all.push_async_callback(listener.stop, 0.0)
    except OSError:
        await listening.stop()
        raise
    return listening


async def _within(told: asyncio.Event, seconds: float) -> bool:
    """Wait to be told to end, for ever if seconds are 0; False if that did not happen in time."""
    try:
        await asyncio.wait_for(told.wait(), seconds or None)
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

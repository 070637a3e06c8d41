# `make interop`: the wire against programs that are not ours. A line for each trial and way, then how many there were.

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

import uvloop

from tests.interop import envoy, exchange, go, load, python, standard
from tests.interop.echo import Absent, Fault, Way

# The longest, h2spec, takes half a minute alone on a small machine, several times that beside others.
TRIAL_S_MAX = 400

BOTH = (Way.PLAINTEXT, Way.TLS)
ALL = (*BOTH, Way.MUTUAL)


class Trial(NamedTuple):
    """One peer in one role, and how it may be connected. `run` gives what was counted; Fault is what went wrong."""

    name: str
    run: Callable[[Way], Awaitable[str]]
    about: str
    ways: tuple[Way, ...] = BOTH


TRIALS = (
    Trial("h2spec", standard.of_ours, "the standard, strictly: generic, http2 and hpack"),
    Trial("grpcio-client", python.client_sync, "grpcio asks our server", ALL),
    Trial("grpcio-server", python.server_sync, "our channel asks grpcio", ALL),
    Trial("aio-client", python.client_aio, "grpc.aio asks our server", ALL),
    Trial("aio-server", python.server_aio, "our channel asks grpc.aio", ALL),
    Trial("go-client", go.client, "grpc-go asks our server"),
    Trial("go-server", go.server, "our channel asks grpc-go"),
    Trial("envoy-server", envoy.before_our_server, "grpcio and grpc.aio ask our server by way of Envoy"),
    Trial("envoy-both", envoy.before_both, "our channel asks our server by way of Envoy"),
    Trial("envoy-channel", envoy.before_grpcio, "our channel asks grpc.aio by way of Envoy"),
    Trial("ghz", load.of_ghz, "thousands of calls at once"),
    Trial("h2load", load.of_h2load, "thousands of pages and calls on many streams"),
    Trial("exchange", exchange.asked, "grpcio, grpc.aio and ghz ask an exchange for auctions"),
)

# Nothing passes or fails here: what others reach of the standard is for comparison.
OTHERS = (
    Trial("h2spec-envoy", standard.of_envoy, "the same, of Envoy"),
    Trial("h2spec-grpc-go", standard.of_grpc_go, "the same, of grpc-go"),
)


def _words(arguments: Sequence[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {trial.name:15} {trial.about} ({', '.join(trial.ways)})" for trial in (*TRIALS, *OTHERS))
    parser = argparse.ArgumentParser(
        prog="python -m tests.interop",
        description="Hold the wire against programs that are not ours.",
        epilog=f"trials:\n{listed}\n\nexamples:\n  python -m tests.interop\n  python -m tests.interop h2spec ghz\n"
        "  python -m tests.interop --others",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [trial.name for trial in (*TRIALS, *OTHERS)]
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help="which; none: all that can fail")
    parser.add_argument("--others", action="store_true", help="walk through the standard with Envoy and grpc-go too")
    words = parser.parse_args(arguments)
    for name in words.trials:
        if name not in names:
            parser.error(f"TRIAL: expected one of {', '.join(names)}, was {name}")
    return words


def _chosen(words: argparse.Namespace) -> list[Trial]:
    if words.trials:
        return [trial for trial in (*TRIALS, *OTHERS) if trial.name in words.trials]
    return [TRIALS[0], *OTHERS] if words.others else list(TRIALS)


async def _tried(trial: Trial, way: Way) -> str:
    """Try once; print how it went, and give that word."""
    began = monotonic()
    try:
        async with asyncio.timeout(TRIAL_S_MAX):
            said = await trial.run(way)
    except Absent as reason:
        outcome, said = "skipped", str(reason)
    except TimeoutError:
        outcome, said = "FAILED", f"not at its end after {TRIAL_S_MAX} s"
    except Exception as fault:  # a peer's library has exceptions of its own; the next trial runs whatever it was
        outcome, said = "FAILED", str(fault) if isinstance(fault, Fault) else f"{type(fault).__name__}: {fault}"
    else:
        outcome = "counted" if trial in OTHERS else "passed"
    print(f"{outcome}: {trial.name}, {way} ({monotonic() - began:.1f} s){': ' if said else ''}{said}", flush=True)
    return outcome


async def main(trials: Sequence[Trial]) -> int:
    """Try each in each of its ways; give 1 if any failed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as Ctrl-C: everything is ended
    began = monotonic()
    outcomes = [await _tried(trial, way) for trial in trials for way in trial.ways]
    counts = [
        f"{outcomes.count(word)} {word}" for word in ("passed", "counted", "skipped", "FAILED") if word in outcomes
    ]
    print(f"{len(outcomes)} trials in {monotonic() - began:.0f} s: {', '.join(counts)}")
    return 1 if "FAILED" in outcomes else 0


if __name__ == "__main__":
    try:
        sys.exit(uvloop.run(main(_chosen(_words(sys.argv[1:])))))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)

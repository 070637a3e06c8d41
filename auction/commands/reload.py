"""Make a running exchange read its configuration again, and say what became of it.

Without options the only exchange that this user runs on this machine is meant. The exchange does the same by itself
within seconds of a change of its file; this command tells whether it was applied or refused, and why. The next auction
sees all of a configuration that is applied; of one that is refused nothing is used, and the old one stays.

exit codes:
  0  applied
  1  refused, with every reason; or no answer
  2  no such exchange, or more than one and none was named

examples:
  auction reload
  auction reload --pid 4711
  auction reload --log /var/lib/auction/log
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

from auction.presence import Presence, running

# A reload takes as long as its slowest new bidder takes to be connected, which is bounded by seconds.
ANSWER_S = 15.0
LOOK_S = 0.05


def arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--pid", type=int, help="the process id of the exchange")
    which.add_argument("--log", metavar="DIR", help="the directory of its log")


def run(args: argparse.Namespace) -> int:
    exchanges = [
        exchange
        for exchange in running()
        if args.pid in (None, exchange.pid) and (args.log is None or exchange.log == os.path.abspath(args.log))
    ]
    if not exchanges:
        print("no such exchange of this user is running here", file=sys.stderr)
        return 2
    if len(exchanges) > 1:
        print("several exchanges are running here; name one:", file=sys.stderr)
        for exchange in exchanges:
            print(f"  --pid {exchange.pid}   {exchange.grpc}  {exchange.http}", file=sys.stderr)
        return 2
    return ask(exchanges[0])


def ask(exchange: Presence) -> int:
    """Ask one exchange, wait for what it did, and tell it."""
    os.kill(exchange.pid, signal.SIGHUP)
    pause = threading.Event()
    for _ in range(round(ANSWER_S / LOOK_S)):
        pause.wait(LOOK_S)
        now = next((other for other in running() if other.pid == exchange.pid), None)
        if now is None:
            print(f"process {exchange.pid} ended", file=sys.stderr)
            return 1
        if now.reloads > exchange.reloads:
            if now.faults:
                print("refused, the old configuration stays:", file=sys.stderr)
                print("\n".join(f"  {fault}" for fault in now.faults), file=sys.stderr)
                return 1
            same = " (the same as before)" if now.rules == exchange.rules else f" (before: {exchange.rules})"
            print(f"applied: rules {now.rules}{same}")
            return 0
    print(f"process {exchange.pid} did not answer within {ANSWER_S:.0f} s; its log lines say more", file=sys.stderr)
    return 1

"""Read a log: print its records, count them, or prove it whole.

examples:
  auction log cat var/log | less                           every auction, and what became of every bid
  auction log cat --since 10m --bidder dsp-a var/log
  auction log cat --jsonl --kind auction var/log           one JSON object a line; docs/log.md has the columns
  auction log stat var/log var/log-of-another-process      by segment, and over all
  auction log verify --json var/log/*.seg

Logs and segments may be given in any mix; records come in the order of time. A torn tail is what a killed writer
leaves: it is told, and it is no damage unless `verify` finds that it held something published.

exit codes: 0 all of it was read; 1 some of it is damaged, and each fault was told with its file and offset; 2 a path is
wrong or holds no log
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from auction.commands.log import cat, stat, verify
from auction.edge import eventlog

_ACTIONS: Final = {"cat": cat, "stat": stat, "verify": verify}


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="cat|stat|verify")
    for name, action in _ACTIONS.items():
        summary = str(action.__doc__)
        own = actions.add_parser(name, help=summary[0].lower() + summary[1:-1], description=summary)
        action.arguments(own)
        own.add_argument("log", nargs="+", type=Path, metavar="PATH", help="directories and segments, in any mix")


def run(arguments: argparse.Namespace) -> int:
    try:
        names = eventlog.segments(arguments.log)
        if not names:
            print(f"{' '.join(map(str, arguments.log))}: no segment of a log", file=sys.stderr)
            return 2
        code: int = _ACTIONS[arguments.action].run(arguments, names)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough. The rest of the buffer goes nowhere, or Python would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return code

# The command line: picks one command and gets out of its way.

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from auction import __version__
from auction.commands import COMMANDS

_EPILOG = """\
examples:
  auction demo                     see everything work, in a minute
  auction serve                    an exchange with the defaults, on loopback
  auction serve --config my.yaml
  auction COMMAND --help           options and examples of one command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (2: the command line or a file it names is wrong)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        name, rest = words[0], words[1:]
        command = importlib.import_module(f"auction.commands.{name}")
        summary, _, body = (command.__doc__ or "").partition("\n\n")
        parser = argparse.ArgumentParser(
            prog=f"auction {name}",
            description=summary,
            epilog=body,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.arguments(parser)
        code: int = command.run(parser.parse_args(rest))
        return code
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="auction",
        description=f"An ad auction engine.\n\ncommands:\n{listing}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"auction {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    if not words:
        parser.print_help()
        return 2
    parser.parse_args(words)
    return 2


if __name__ == "__main__":
    sys.exit(main())

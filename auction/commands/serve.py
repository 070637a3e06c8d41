"""Answer auctions over gRPC and JSON, until told to stop.

Without a configuration the exchange asks nobody, on loopback, and writes no log. Settings come from the file, then
from the environment (AUCTION_SERVER__PORT=7400), then from the options here.

With server.workers above 1 this process keeps so many others, and signals to it are for all of them.

signals:
  SIGTERM, SIGINT   stop taking requests, answer those in flight, write the log, exit; a second one exits at once
  SIGHUP            read the configuration again, as happens by itself when the file changes

exit codes:
  0  stopped when asked to, nothing lost
  1  could not start, or records were lost while stopping
  2  the configuration or the command line is wrong; every fault is named

examples:
  auction serve
  auction serve --config my.yaml
  auction serve --config my.yaml --log /var/lib/auction/log --port 0 --http-port 0
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from auction import console, supervisor
from auction.config import ConfigFaults, environment, load
from auction.presence import Presence


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as auction.example.yaml explains them")
    parser.add_argument("--port", type=int, help="server.port: gRPC; 0 takes a free one")
    parser.add_argument("--http-port", type=int, help="server.http_port: JSON, health, metrics; 0 takes a free one")
    parser.add_argument("--log", metavar="DIR", help="log.dir: the directory of this process's log")
    # How a supervisor begins its workers; it is of no use to anybody else.
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    console.set_up(sys.stderr)
    options = {
        "AUCTION_SERVER__PORT": args.port,
        "AUCTION_SERVER__HTTP_PORT": args.http_port,
        "AUCTION_LOG__DIR": args.log,
    }
    environ = {**environment(), **{name: str(value) for name, value in options.items() if value is not None}}
    # gRPC's own lines are neither JSON nor for operators: what matters in them we say ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if args.worker is None and _names_workers(args.config, environ):
            config = load(args.config, environ)
            if config.server.workers > 1:
                return supervisor.run(args.config, environ, config, announce)
    except ConfigFaults as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except supervisor.Unsupervisable as refusal:
        print(f"cannot start: {refusal}", file=sys.stderr)
        return 1
    # Here, so that `--help` and a wrong option answer without loading numba and grpcio, and a supervisor never does.
    try:
        from auction import server
    except (RuntimeError, OSError) as refusal:
        # numba's, where it may not write and finds nothing that fits: docs/decisions/start-up.md.
        print(f"cannot start: {refusal}; name a writable directory in NUMBA_CACHE_DIR", file=sys.stderr)
        return 1

    try:
        return server.run(args.config, environ, announce, args.worker)
    except ConfigFaults as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except server.Unstartable as refusal:
        print(f"cannot start: {refusal}", file=sys.stderr)
        return 1


def _names_workers(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Tell whether the setting is named: twenty thousand floors take a second to read, too long to do it twice."""
    try:
        named = path is not None and b"workers" in path.read_bytes()
    except OSError:
        return False  # which whoever loads it tells better
    return named or "AUCTION_SERVER__WORKERS" in environ or "AUCTION_SERVER" in environ


def announce(presence: Presence) -> None:
    """Say where the exchange listens: to people on a terminal, as one JSON object to a program."""
    if sys.stdout.isatty():
        print(TOLD.format(grpc=presence.grpc, http=presence.http, log=presence.log or "none, see log.dir"))
    else:
        print(msgspec.json.encode({"event": "ready", **msgspec.to_builtins(presence)}).decode(), flush=True)


TOLD = """\
Ready.
  gRPC     {grpc}   auction.v1.Exchange/Auction
  JSON     {http}/openrtb2/auction
  metrics  {http}/metrics
  log      {log}

Try it:
  auction call bidders/requests/site-banner-2kb.json --explain
  curl -i {http}/openrtb2/auction -H 'content-type: application/json' -d @bidders/requests/site-banner-2kb.json
Ctrl-C drains and stops."""

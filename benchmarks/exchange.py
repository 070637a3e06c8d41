# The whole exchange as a process: what one auction costs it in CPU, and how that grows with bidders.
#
# `auction serve` as an operator starts it, with its log and metrics on and with every rule that a market may have; what
# carries its messages is what differs. How engines are measured: peers/turns.py.

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from auction.model.money import MICROS
from auction.model.rules import FloorRule
from benchmarks.core import floors
from benchmarks.peers.counterparts import OUTSTANDING
from benchmarks.peers.messages import TMAX_MS
from benchmarks.peers.processes import ENGINE_CORE, child
from benchmarks.peers.turns import Engine, Ports, Running

FLOOR_RULES = 100


def engines() -> list[Engine]:
    """Give the exchange by what carries its messages, and the first of them twice."""
    return [
        Engine("exchange.wire", partial(started, "wire", "grpc")),
        Engine("exchange.wire_again", partial(started, "wire", "grpc")),
        Engine("exchange.grpcio", partial(started, "grpcio", "grpc")),
        Engine("exchange.wire_json", partial(started, "wire", "http")),
    ]


def started(transport: str, protocol: str, stack: ExitStack, ports: Ports) -> Running:
    """Start an exchange that asks bidders over `protocol`, grpc or http; `transport` carries gRPC to it and from it."""
    path = configured(transport, protocol, stack, ports)
    line = child(stack, ["-m", "auction", "serve", "--config", str(path)], ENGINE_CORE)
    return Running(int(line["pid"]), int(line["grpc"].rpartition(":")[2]))


def configured(transport: str, protocol: str, stack: ExitStack, ports: Ports) -> Path:
    """Write an exchange's configuration, in a folder that goes with `stack`."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auction-bench-")))
    bidders = [bidder(row, transport, protocol, port) for row, port in enumerate(getattr(ports, protocol))]
    config = {
        "server": {"port": 0, "http_port": 0, "transport": transport, "in_flight": 2 * OUTSTANDING},
        "log": {"dir": str(folder / "log")},
        "bidders": bidders,
        **rules(len(bidders)),
    }
    path = folder / "auction.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def bidder(row: int, transport: str, protocol: str, port: int) -> dict[str, Any]:
    """Give a bidder's entry: where it is, its seats, and creatives that it never bids with."""
    where: dict[str, Any] = {"http": f"http://127.0.0.1:{port}/bid"}
    if protocol == "grpc":
        where = {"grpc": f"127.0.0.1:{port}", "transport": transport}
    seats = [f"s{row}-{place}" for place in range(2)]
    return {"name": f"dsp-{row:02}", "seats": seats, "blocked_creatives": ["bad-1", "bad-2"], **where}


def rules(bidders: int) -> dict[str, Any]:
    """Switch on what a market may have: benchmarks/core.py's `everything`, in the words of a configuration."""
    names = {f"dsp-{row:02}" for row in range(bidders)}
    known = [rule for rule in floors(FLOOR_RULES) if rule.bidder is None or rule.bidder in names]
    return {
        "exchange": {
            "tmax_max_ms": TMAX_MS,
            "increment": "0.01",
            "min_price": "0.05",
            "max_cpm": "500",
            "soft_floor": "2",
            "tie_key": "salt",
            "bid_adjustments": [
                {"bidder": f"dsp-{bidders - 1:02}", "multiplier": "0.95"},
                {"media": "video", "subtract": "0.05"},
            ],
        },
        "floors": {
            "floor_min": "0.1",
            "skip_rate": "0.05",
            "models": [
                {"name": "a", "weight": 7, "default": "0.4", "rules": [*map(_written, known)]},
                {"name": "b", "weight": 3, "rules": [{"floor": "0.45", "country": "GBR"}]},
            ],
        },
    }


def _written(rule: FloorRule) -> dict[str, str]:
    keys = {key: value for key, value in msgspec.to_builtins(rule).items() if value is not None}
    return {**keys, "floor": str(Decimal(rule.floor) / MICROS)}

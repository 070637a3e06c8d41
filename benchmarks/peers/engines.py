# Which engines are compared: two exchanges and a transport of other people's making beside ours.

from __future__ import annotations

from collections.abc import Collection, Iterator

from benchmarks import exchange, wire
from benchmarks.peers import cpp, idiomatic, messages, prebid, turns
from benchmarks.peers.turns import Engine

# The parts of the benchmark that are measured side by side where they are asked for together.
PARTS = ("exchange", "peers", "wire")


def peers() -> list[Engine]:
    """Give the other engines that hold auctions."""
    return [
        Engine("peers.idiomatic", idiomatic.started),
        Engine("peers.cpp", cpp.auction),
        Engine("peers.prebid", prebid.started, prebid.asked),
    ]


def rows(parts: Collection[str]) -> Iterator[tuple[str, str, list[float]]]:
    """Measure the parts named and give (name, unit, a number each run)."""
    auctions = [*(exchange.engines() if "exchange" in parts else ()), *(peers() if "peers" in parts else ())]
    if auctions:
        yield from turns.rows(auctions)
    if "wire" in parts:
        yield from turns.rows(wire.engines(), wire.COUNTS, messages.SIZES[:1])

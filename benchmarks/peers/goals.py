# What the exchange is to cost beside other engines, and whether it does: ratios of rows of one run.
#
# A goal that is missed is a result like any other. Nothing fails because of it.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.peers.turns import BIDDERS, row_name

# Beside the same exchange on grpcio, and beside Prebid Server Go, at four bidders.
GRPCIO_SHARE: Final = 1 / 4
PREBID_SHARE: Final = 1 / 3

# What one more bidder adds to the transport.
SLOPE_US: Final = 10.0


class Goal(msgspec.Struct, frozen=True):
    """One goal: what is compared, what it comes to (None: a row is missing in this run), and the most it may be."""

    text: str
    value: float | None
    most: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        """Say whether it is met."""
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.most else "missed"


def goals(values: Mapping[str, float]) -> Iterator[Goal]:
    """Give every goal, of the values of a run's rows by name."""

    def ratio(engine: str, peer: str, bidders: int) -> float | None:
        ours, theirs = (values.get(row_name(name, bidders)) for name in (engine, peer))
        return ours / theirs if ours is not None and theirs is not None else None

    yield Goal("exchange.wire / exchange.grpcio, 4 bidders", ratio("exchange.wire", "exchange.grpcio", 4), GRPCIO_SHARE)
    yield Goal("exchange.wire / peers.prebid, 4 bidders", ratio("exchange.wire", "peers.prebid", 4), PREBID_SHARE)
    for bidders in BIDDERS:
        text = f"transport.wire / transport.cpp, {bidders} bidder{'s' if bidders > 1 else ''}"
        yield Goal(text, ratio("transport.wire", "transport.cpp", bidders), 1.0)
    least, most = (values.get(row_name("transport.wire", bidders)) for bidders in (BIDDERS[0], BIDDERS[-1]))
    slope = (most - least) / (BIDDERS[-1] - BIDDERS[0]) if least is not None and most is not None else None
    yield Goal("transport.wire, each further bidder", slope, SLOPE_US, " us")


def show(values: Mapping[str, float]) -> None:
    """Print every goal with what was measured."""
    table = Table(title="goals", title_justify="left", title_style="bold", header_style="dim", box=None)
    for heading in ("goal", "at most", "measured", ""):
        table.add_column(heading, justify="left" if heading in ("goal", "") else "right")
    for goal in goals(values):
        measured = "-" if goal.value is None else f"{goal.value:.3g}{goal.unit}"
        table.add_row(goal.text, f"{goal.most:.3g}{goal.unit}", measured, goal.verdict)
    Console().print(table)

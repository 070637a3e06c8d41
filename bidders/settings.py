# What can be set about a bidder, and what its named strategies mean.
#
# A strategy is a way to price and, for three of them, a habit. Habits are shares of requests that end in a fault, so
# any mix can be had with `faults`; slow, flaky and malformed are only names for the mixes that are wanted most.

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Strategy = Literal["fixed", "value-noise", "truncated", "slow", "flaky", "malformed", "silent"]


class Fault(StrEnum):
    """One way to fail an exchange. Over gRPC, where a server cannot misuse HTTP, the nearest thing that it can do."""

    # A whole and truthful answer, at the wrong time.
    LATE = "late"  # 10 to 60 ms after the tmax it was told
    HANG = "hang"  # not within HANG_S
    # No answer.
    REFUSE = "refuse"  # HTTP 503, UNAVAILABLE
    RESET = "reset"  # the connection is cut; over gRPC ABORTED
    HALF = "half"  # a body that ends early; over gRPC half a message
    # An answer that makes no sense.
    GARBAGE = "garbage"  # random bytes
    WRONG_TYPE = "wrong-type"  # an HTML page; over gRPC INTERNAL
    WRONG_ID = "wrong-id"  # the answer to another request
    ENORMOUS = "enormous"  # ENORMOUS_BYTES of markup
    # An answer in which every bid makes no sense.
    NAN_PRICE = "nan-price"
    NEGATIVE_PRICE = "negative-price"
    NO_PRICE = "no-price"
    WRONG_IMP = "wrong-imp"
    NO_BID_ID = "no-bid-id"


NONSENSE = (
    Fault.GARBAGE,
    Fault.WRONG_TYPE,
    Fault.WRONG_ID,
    Fault.HALF,
    Fault.NAN_PRICE,
    Fault.NEGATIVE_PRICE,
    Fault.NO_PRICE,
    Fault.WRONG_IMP,
    Fault.NO_BID_ID,
)
_HABITS: dict[str, dict[Fault, float]] = {
    "slow": {Fault.LATE: 0.15},
    "flaky": {Fault.LATE: 0.05, Fault.HANG: 0.02, Fault.REFUSE: 0.05, Fault.RESET: 0.05},
    "malformed": dict.fromkeys(NONSENSE, 1 / len(NONSENSE)),
}

# The longest a hung call is kept: far beyond any deadline, but a process of ours ends what it began.
HANG_S = 30.0
# 4 MiB is what grpcio receives by default, and sixty times what the exchange accepts.
ENORMOUS_BYTES = 4 * 1024 * 1024 - 1024

# Round numbers that were near enough when they were written; a bidder's opinion, as everything here.
RATES = {"USD": 1.0, "EUR": 0.92, "GBP": 0.79, "JPY": 150.0, "KRW": 1350.0}


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lognormal distribution: half of it is below `median`; two thirds are within a factor of e**sigma."""

    median: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    sigma: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bidder. Equal settings give equal answers to equal requests, in any process and order.

    price        what a banner impression is worth to the market, USD CPM; other formats are worth a multiple
    noise        sigma of this bidder's own error about that worth (value-noise)
    ceiling      the highest price of the truncated strategy, as a multiple of the median
    latency_ms   how long it thinks
    bid_share    of the impressions that it could buy, those it wants
    deal_share   of the wanted ones with a usable deal, those that it buys on the deal
    floor_share  it bids if the worth is at least this share of the floor; below 1 some bids are under the floor
    rates        units per USD; a request in no currency of these gets no bid
    currency     the one of them that it bids in where a request lists it; otherwise USD or what the request allows
    seats        the buyers it bids for; none: any that a request names, otherwise one with the bidder's own name
    media        the formats it buys
    faults       shares of requests; given, they replace the strategy's habits
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    strategy: Strategy = "value-noise"
    seed: int = 1
    price: Spread = Spread(1.5, 0.6)
    noise: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.25
    ceiling: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 6.0
    latency_ms: Spread = Spread(4.0, 0.5)
    bid_share: Share = 0.9
    deal_share: Share = 0.6
    floor_share: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.9
    rates: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = msgspec.field(default_factory=lambda: dict(RATES))
    currency: str = "USD"
    seats: tuple[str, ...] = ()
    media: tuple[Literal["banner", "video", "audio", "native"], ...] = ("banner", "video", "audio", "native")
    faults: dict[Fault, Share] | None = None

    def __post_init__(self) -> None:
        if sum((self.faults or {}).values()) > 1 + 1e-9:
            raise ValueError("faults: expected shares that add up to at most 1")
        if self.currency not in self.rates:
            raise ValueError(f"currency: expected one of rates ({', '.join(self.rates)}), was {self.currency}")

    def habits(self) -> dict[Fault, float]:
        """Give the share of requests that end in each fault."""
        return self.faults if self.faults is not None else _HABITS.get(self.strategy, {})

# An auction from arrival to result. Data only moves down this file: each noun is made of those above it.

from __future__ import annotations

from enum import IntEnum
from typing import Generic, TypeVar

import msgspec

from auction.model.fx import Scale
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason, PriceSetter
from auction.model.request import BidRequest, Survey


class Encoding(IntEnum):
    """How a body is written."""

    PROTOBUF = 1
    JSON = 2


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A request as it came in: one of the two doors by which an auction may differ from the last.

    `id` is the auction's, made by the server; ranks use the request's own. `received_us` is wall time. `timeout_ms` is
    what the caller still had, None where it set no deadline.
    """

    id: str
    received_us: int
    encoding: Encoding
    body: bytes
    timeout_ms: int | None = None
    explain: bool = False
    caller: str = ""


class Warning(msgspec.Struct, frozen=True, gc=False):
    """Something tolerated: where, and what was made of it. Never a personal value."""

    path: str
    text: str


class Invitation(msgspec.Struct, frozen=True, gc=False):
    """Whom to ask and with what bytes; `imps` are rows of the request's impressions."""

    bidder: str
    encoding: Encoding
    body: bytes
    imps: tuple[int, ...]


class NonBid(msgspec.Struct, frozen=True, gc=False):
    """A (bidder, impression) without a bid, or a rejected bid: why, for the publisher."""

    bidder: str
    seat: str | None
    imp: str
    bid: str | None
    status: int


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a bid answers to, and how it counts: the same for all bids of one currency on one thing.

    `told` and its part `deal_told` (0 where the deal states none) are micros of the bid's currency. In micros of the
    auction currency, `stated` is the floor of deal, impression and rules, and `counted` that or the least price of any
    sale, whichever is more. `scale` ranks the price as sent; at 3 every bid ranks by `agreed`, which is -1 otherwise.
    """

    at: int
    deal: bool
    of_deal: bool
    told: CpmMicros
    deal_told: CpmMicros
    counted: CpmMicros
    stated: CpmMicros
    scale: Scale
    agreed: CpmMicros


# The rules as the core has compiled them, which the model cannot name: it imports nothing of the core.
Compiled = TypeVar("Compiled")


class Auction(msgspec.Struct, Generic[Compiled], frozen=True, gc=False):
    """An open auction: everything decided before anybody is asked. The deadline is arrival + `budget_us`.

    Per group of bidders and impression, `raised` is what the exchange's floor rules ask in micros (empty for nothing),
    and `open_terms` what an open bid in the auction's currency answers to.
    """

    arrival: Arrival
    rules: Compiled
    request: BidRequest
    survey: Survey
    raised: list[list[int]]
    open_terms: list[list[Terms | None]]
    budget_us: int
    invitations: tuple[Invitation, ...]
    not_asked: tuple[NonBid, ...]
    warnings: tuple[Warning, ...]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One bid's fate. Amounts are micros of the auction currency, but for `price` (as sent) and `pays` (of `currency`).

    `imp` is a row of the request, -1 for a bid on an impression that was not asked. `floor` and `min_to_win` are None
    where the bid did not come far enough to have one. `clearing_price`, `pays` and `setter` are a winner's.
    """

    bidder: str
    seat: str
    id: str
    imp: int
    impid: str
    deal: str
    price: float | None
    currency: str
    floor: CpmMicros | None
    reason: LossReason
    min_to_win: CpmMicros | None
    clearing_price: CpmMicros | None
    pays: CpmMicros | None
    setter: PriceSetter


class AuctionResult(msgspec.Struct, frozen=True, gc=False):
    """A closed auction. `response` is in the arrival's encoding; `nbr` is set where nothing was sold.

    `explained`: the response tells why, so it is worth sending even where nothing was sold.
    """

    response: bytes
    nbr: int | None
    explained: bool
    outcomes: tuple[Outcome, ...]
    non_bids: tuple[NonBid, ...]
    warnings: tuple[Warning, ...]

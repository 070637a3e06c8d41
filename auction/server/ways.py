# The ways to bidders: for each a connection, made of what its settings say.

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from auction.config import Bidder, Config
from auction.edge.transports import BidderConnection
from auction.edge.transports.grpcio import GrpcBidder
from auction.edge.transports.http import HttpBidder
from auction.edge.transports.wire import WireBidder
from auction.model.clock import SystemClock


class Way(msgspec.Struct, frozen=True):
    """A connection, and what it was made of: as long as that is the same, so is the connection."""

    key: tuple[object, ...]
    connection: BidderConnection


def way_to(bidder: Bidder, config: Config, clock: SystemClock) -> Way:
    """Make the way to a bidder, without setting out on it."""
    limits = config.limits
    key = (bidder.grpc, bidder.http, bidder.transport, bidder.headers, limits.reply_bytes, limits.inflation_ratio)
    headers = tuple(bidder.headers.items())
    if bidder.grpc is not None:
        on_wire = partial(WireBidder, inflation_ratio=limits.inflation_ratio)
        grpc: Callable[..., GrpcBidder | WireBidder] = on_wire if bidder.transport == "wire" else GrpcBidder
        return Way(key, grpc(bidder.grpc, clock, reply_bytes=limits.reply_bytes, headers=headers))
    assert bidder.http is not None
    return Way(
        key,
        HttpBidder(
            bidder.http,
            reply_bytes=limits.reply_bytes,
            inflation_ratio=limits.inflation_ratio,
            headers=headers,
        ),
    )

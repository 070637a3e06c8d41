# The ways to bidders: for each a connection, made of what its settings say.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from auction.config import Bidder, Config, ConfigFaults, Fault
from auction.edge import tls
from auction.edge.transports import BidderConnection
from auction.edge.transports.grpcio import GrpcBidder
from auction.edge.transports.http import PROTOCOLS, HttpBidder
from auction.edge.transports.wire import WireBidder
from auction.model.clock import SystemClock

# What TLS is made of, by what is offered (nothing where only files count) and the files: bidders with the same share
# it, because the authorities of a system are a megabyte.
Secured = dict[tuple[tuple[str, ...], tls.Files], tls.Newest[Any]]


class Way(msgspec.Struct, frozen=True):
    """A connection, and what it was made of: as long as that is the same, so is the connection.

    `secured` is what its TLS is made of, where its settings say.
    """

    key: tuple[object, ...]
    connection: BidderConnection
    secured: tls.Newest[Any] | None


def ways_to(config: Config, clock: SystemClock, known: Mapping[str, Way]) -> dict[str, Way]:
    """Make the ways to all bidders, without setting out on one; those of `known` that still fit are kept.

    ConfigFaults has every file that cannot be used.
    """
    ways: dict[str, Way] = {}
    faults = []
    secured: Secured = {}
    for row, bidder in enumerate(config.bidders):
        before, key = known.get(bidder.name), _key(bidder, config)
        if before is not None and before.key == key:
            ways[bidder.name] = before
            continue
        ways[bidder.name] = way = _way_to(bidder, config, clock, key, secured)
        if way.secured is not None:
            try:
                way.secured()
            except tls.Unusable as wrong:
                faults.append(Fault(f"bidders[{row}].tls.{wrong.which}", str(wrong)))
    if faults:
        raise ConfigFaults(faults)
    return ways


def _key(bidder: Bidder, config: Config) -> tuple[object, ...]:
    limits = config.limits
    named = (bidder.grpc, bidder.http, bidder.transport, bidder.tls, bidder.headers)
    return (*named, limits.reply_bytes, limits.inflation_ratio)


def _way_to(bidder: Bidder, config: Config, clock: SystemClock, key: tuple[object, ...], secured: Secured) -> Way:
    limits, headers = config.limits, tuple(bidder.headers.items())
    name = None if bidder.tls is None else bidder.tls.name
    reply_bytes, ratio = limits.reply_bytes, limits.inflation_ratio
    if bidder.http is not None:
        contexts = _contexts(bidder, PROTOCOLS, secured)
        http = HttpBidder(
            bidder.http, reply_bytes=reply_bytes, inflation_ratio=ratio, headers=headers, tls=contexts, tls_name=name
        )
        return Way(key, http, contexts)
    assert bidder.grpc is not None
    if bidder.transport == "wire":
        contexts = _contexts(bidder, ("h2",), secured)
        wire = WireBidder(
            bidder.grpc,
            clock,
            reply_bytes=reply_bytes,
            inflation_ratio=ratio,
            headers=headers,
            tls=contexts,
            tls_name=name,
        )
        return Way(key, wire, contexts)
    contents = None
    if bidder.tls is not None:
        files = bidder.tls.files()
        contents = secured.setdefault(((), files), tls.contents(files))
    grpcio = GrpcBidder(bidder.grpc, clock, reply_bytes=reply_bytes, headers=headers, secured=contents, tls_name=name)
    return Way(key, grpcio, contents)


def _contexts(bidder: Bidder, protocols: tuple[str, ...], secured: Secured) -> tls.Newest[Any] | None:
    if bidder.tls is None:
        return None
    files = bidder.tls.files()
    return secured.setdefault((protocols, files), tls.ClientContexts(protocols, files))

# The rules of an auction: everything that decides it and changes rarely. What is the process's own is in config/.
#
# Rules are written down with the auctions they decided, as canonical JSON, so there is no key, address or header in
# them: of a bidder only its name, how it is spoken to, and what it asked to be asked.

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from auction import __version__
from auction.model.fx import Fx
from auction.model.money import CpmMicros

# What decides under these rules. A record of other software may come out otherwise: a change, not a fault.
SOFTWARE = f"auction/{__version__}"


class ExchangeRules(msgspec.Struct, frozen=True, omit_defaults=False):
    """Section `exchange`: how an auction is run. Amounts are micros; `increment` is per currency."""

    currency: str = "USD"
    increment: dict[str, CpmMicros] = {}
    min_price: CpmMicros = CpmMicros(0)
    max_cpm: CpmMicros | None = None
    tmax_ms: int = 100
    tmax_max_ms: int = 500
    reply_reserve_ms: int = 5
    deal_mode: Literal["compete", "deals_first"] = "compete"
    competitor: Literal["seat", "bidder"] = "seat"
    same_seat_sets_price: bool = False
    min_to_win: Literal["text", "table"] = "text"
    tie_key: str = ""
    strict_ids: bool = True
    json: Literal["lenient", "strict"] = "lenient"
    explain: Literal["never", "on_request", "always"] = "on_request"


class BidderRules(msgspec.Struct, frozen=True):
    """One bidder: its name, the encoding it speaks, and when it is asked. `media` empty: every format."""

    name: str
    encoding: Literal["protobuf", "json"] = "protobuf"
    media: tuple[Literal["banner", "video", "audio", "native"], ...] = ()
    min_ms: int = 1
    network_ms: int = 0
    timeout_ms: int | None = None


class Limits(msgspec.Struct, frozen=True):
    """Section `limits`: what is more than this is refused, not tried."""

    request_bytes: int = 262_144
    imps: int = 100
    deals_per_imp: int = 64
    depth: int = 32
    reply_bytes: int = 65_536
    bids_per_reply: int = 100
    inflation_ratio: int = 100


class Rules(msgspec.Struct, frozen=True):
    """One version of everything that decides an auction."""

    exchange: ExchangeRules = ExchangeRules()
    bidders: tuple[BidderRules, ...] = ()
    limits: Limits = Limits()
    fx: Fx = Fx()

    def canonical(self) -> bytes:
        """Write the rules so that equal rules are equal bytes: JSON with sorted keys."""
        return msgspec.json.encode(self, order="sorted")

    def digest(self) -> bytes:
        """Name this version: SHA-256 of its canonical form."""
        return hashlib.sha256(self.canonical()).digest()


def rules_from_canonical(canonical: bytes) -> Rules:
    """Read canonical rules back; msgspec.ValidationError where they are not rules of this software."""
    return msgspec.json.decode(canonical, type=Rules)

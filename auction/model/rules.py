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

Medium = Literal["banner", "video", "audio", "native"]
# What becomes of a bid that fails a check: it is refused, or it stands with a warning, or nobody looks.
Check = Literal["enforce", "warn", "off"]


class Adjustment(msgspec.Struct, frozen=True):
    """How bids of a kind are weighed against the others: by a `multiplier` (decimal text), or less `subtract`.

    `bidder`, `deal` and `media` say which bids; None is any. Exactly one of `multiplier` (above 0, at most 10) and
    `subtract` (micros of the exchange's currency) is given.
    """

    bidder: str | None = None
    deal: str | None = None
    media: Medium | None = None
    multiplier: str | None = None
    subtract: CpmMicros | None = None


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
    soft_floor: CpmMicros | None = None
    tie_key: str = ""
    bid_adjustments: tuple[Adjustment, ...] = ()
    size: Check = "enforce"
    secure: Check = "enforce"
    crid: Check = "warn"
    category_match: Literal["exact", "parents"] = "exact"
    deal_advertiser: Literal["strict", "open"] = "strict"
    strict_ids: bool = True
    json: Literal["lenient", "strict"] = "lenient"
    explain: Literal["never", "on_request", "always"] = "on_request"


class BidderRules(msgspec.Struct, frozen=True):
    """One bidder: its name, the encoding it speaks, when it is asked and what it may offer.

    `media` empty: every format; `seats` empty: any. `currency` is the one its floors are told in, None: the request's.
    `blocked_creatives` are creative ids (crid).
    """

    name: str
    encoding: Literal["protobuf", "json"] = "protobuf"
    media: tuple[Medium, ...] = ()
    seats: tuple[str, ...] = ()
    currency: str | None = None
    blocked_creatives: tuple[str, ...] = ()
    min_ms: int = 1
    network_ms: int = 0
    timeout_ms: int | None = None


# As configuration and the field's floor files write them.
_KEYS = {"media_type": "mediaType", "device_type": "deviceType"}


class FloorRule(msgspec.Struct, frozen=True, rename=_KEYS):
    """A floor, micros of the exchange's currency, for impressions with these keys; None is any."""

    floor: CpmMicros
    media_type: Medium | None = None
    size: str | None = None
    domain: str | None = None
    tagid: str | None = None
    country: str | None = None
    device_type: str | None = None
    bidder: str | None = None


class FloorModel(msgspec.Struct, frozen=True):
    """One set of floor rules, drawn with `weight`; `default` is the floor where no rule matches."""

    name: str = ""
    weight: int = 1
    default: CpmMicros | None = None
    rules: tuple[FloorRule, ...] = ()


class FloorRules(msgspec.Struct, frozen=True):
    """Section `floors`: the exchange's own floors, which only ever raise a request's.

    One model is drawn by weight; `skip_rate` (decimal text, 0 to 1) is the share of auctions that have none.
    `floor_min` bounds from below what the model says.
    """

    floor_min: CpmMicros = CpmMicros(0)
    skip_rate: str = "0"
    models: tuple[FloorModel, ...] = ()


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
    """One version of everything that decides an auction; `data` has the SHA-256 of each data file it is read with."""

    exchange: ExchangeRules = ExchangeRules()
    floors: FloorRules = FloorRules()
    bidders: tuple[BidderRules, ...] = ()
    limits: Limits = Limits()
    fx: Fx = Fx()
    data: dict[str, str] = {}

    def canonical(self) -> bytes:
        """Write the rules so that equal rules are equal bytes: JSON with sorted keys."""
        return msgspec.json.encode(self, order="sorted")

    def digest(self) -> bytes:
        """Name this version: SHA-256 of its canonical form."""
        return hashlib.sha256(self.canonical()).digest()


def rules_from_canonical(canonical: bytes) -> Rules:
    """Read canonical rules back; msgspec.ValidationError where they are not rules of this software."""
    return msgspec.json.decode(canonical, type=Rules)

# An ad server's request, as far as the rules of an auction read it. The rest stays in the message bytes.

from __future__ import annotations

from enum import IntFlag

import msgspec

from auction.model.money import CpmMicros


class Media(IntFlag):
    """The formats an impression can be sold in; one impression may offer several."""

    BANNER = 1
    VIDEO = 2
    AUDIO = 4
    NATIVE = 8


class Deal(msgspec.Struct, frozen=True, gc=False):
    """A deal of an impression. `floor` None: the deal states none (an explicit 0 is one); `at` 0: the request's."""

    id: str
    floor: CpmMicros | None
    currency: str
    at: int
    wseat: frozenset[str]


class Imp(msgspec.Struct, frozen=True, gc=False):
    """One impression; `floor` is micros of `currency`, UP; `tagid` names its placement, empty for none."""

    id: str
    tagid: str
    media: int
    floor: CpmMicros
    currency: str
    private_auction: bool
    deals: dict[str, Deal]


class BidRequest(msgspec.Struct, frozen=True, gc=False):
    """What is auctioned; `at` is 1 or 2, `tmax_ms` 0 for absent, `cur` empty for absent."""

    id: str
    at: int
    tmax_ms: int
    cur: tuple[str, ...]
    imps: tuple[Imp, ...]

# Names that the rules keep for each bidder (the seats it may bid for, its creatives that are not shown), as the sieve
# looks them up: one hash table of flat cells for all bidders, made when rules are loaded.
#
# validation.py asks the same of the sets in the rules; the sieve's table only has to agree with them.

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from auction.core.kernels.sieve import (
    CREATIVES_LISTED,
    KINDS,
    LISTED_FOR,
    LISTINGS_HEAD,
    NAME,
    NAME_BYTES,
    SEATS_LISTED,
    SLOT_CELLS,
    SLOTS,
    slot_of,
)
from auction.model.rules import BidderRules

# Slots for each name, at least: half of them free keep a search to two looks.
SLOTS_PER_NAME = 2


class Listings(msgspec.Struct, frozen=True):
    """The table; kernels/sieve.py says how its cells are laid out."""

    names: NDArray[np.uint8]
    cells: NDArray[np.int64]


def listings(bidders: Sequence[BidderRules]) -> Listings:
    """Make the table of one version of the rules."""
    listed = list(_listed(bidders))
    slots = 1
    while slots < SLOTS_PER_NAME * len(listed) + 1:
        slots *= 2
    first = LISTINGS_HEAD + len(bidders) * KINDS
    cells = np.full(first + slots * SLOT_CELLS, -1, np.int64)
    cells[:first] = 0
    cells[SLOTS] = slots
    # A byte more than there are, so that the array has a place to point to.
    names = np.frombuffer(b"".join(name for _, name in listed) + b"\0", np.uint8)
    at = 0
    for owner, name in listed:
        cells[LISTINGS_HEAD + owner] += 1
        slot = slot_of(names, at, len(name), owner) & (slots - 1)
        while cells[first + slot * SLOT_CELLS + LISTED_FOR] >= 0:
            slot = (slot + 1) & (slots - 1)
        cell = first + slot * SLOT_CELLS
        cells[cell + LISTED_FOR], cells[cell + NAME], cells[cell + NAME_BYTES] = owner, at, len(name)
        at += len(name)
    return Listings(names, cells)


def _listed(bidders: Sequence[BidderRules]) -> Iterator[tuple[int, bytes]]:
    for row, bidder in enumerate(bidders):
        for seat in sorted(set(bidder.seats)):
            yield row * KINDS + SEATS_LISTED, seat.encode()
        for creative in sorted(set(bidder.blocked_creatives)):
            yield row * KINDS + CREATIVES_LISTED, creative.encode()

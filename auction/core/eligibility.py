# Whom to ask for which impressions, and the status of each that is not asked: the first reason that applies.

from __future__ import annotations

from collections.abc import Sequence

from auction.model.reasons import NonBidStatus
from auction.model.request import Imp, Media
from auction.model.rules import BidderRules

_EVERY_MEDIA = int(Media.BANNER | Media.VIDEO | Media.AUDIO | Media.NATIVE)
_MEDIA = {"banner": Media.BANNER, "video": Media.VIDEO, "audio": Media.AUDIO, "native": Media.NATIVE}


def media_mask(bidder: BidderRules) -> int:
    """Give the formats a bidder serves as flags; none named is all."""
    mask = 0
    for name in bidder.media:
        mask |= _MEDIA[name]
    return mask or _EVERY_MEDIA


def tmax_told_ms(budget_us: int, network_ms: int, timeout_ms: int | None) -> int:
    """Give the time a bidder is told it has: what remains until the deadline less its way there and back."""
    remaining = budget_us // 1000 - network_ms
    return remaining if timeout_ms is None else min(remaining, timeout_ms)


def asked(
    imps: Sequence[Imp], media: int, tmax_ms: int, min_ms: int
) -> tuple[tuple[int, ...], tuple[tuple[str, NonBidStatus], ...]]:
    """Give the rows of the impressions that a bidder is asked for, and each other's id with why it is not."""
    rows = []
    kept = []
    for row, imp in enumerate(imps):
        if not imp.media & media:
            kept.append((imp.id, NonBidStatus.MEDIA_TYPE))
        elif tmax_ms < min_ms:
            kept.append((imp.id, NonBidStatus.INSUFFICIENT_TIME))
        else:
            rows.append(row)
    return tuple(rows), tuple(kept)

# Whom to ask for which impressions, and the status of each that is not asked: the first reason that applies.

from __future__ import annotations

from auction.model.reasons import NonBidStatus
from auction.model.request import Imp, Media
from auction.model.rules import BidderRules

EVERY_MEDIA = Media.BANNER | Media.VIDEO | Media.AUDIO | Media.NATIVE
_MEDIA = {"banner": Media.BANNER, "video": Media.VIDEO, "audio": Media.AUDIO, "native": Media.NATIVE}


def media_mask(bidder: BidderRules) -> int:
    """Give the formats a bidder serves as flags; none named is all."""
    mask = 0
    for name in bidder.media:
        mask |= _MEDIA[name]
    return mask or int(EVERY_MEDIA)


def tmax_told_ms(budget_us: int, bidder: BidderRules) -> int:
    """Give the time a bidder is told it has: what remains until the deadline less its way there and back."""
    remaining = budget_us // 1000 - bidder.network_ms
    return remaining if bidder.timeout_ms is None else min(remaining, bidder.timeout_ms)


def why_not_asked(imp: Imp, media: int, tmax_ms: int, min_ms: int) -> NonBidStatus | None:
    """Tell why a bidder is not asked for an impression; None: it is asked."""
    if not imp.media & media:
        return NonBidStatus.MEDIA_TYPE
    if tmax_ms < min_ms:
        return NonBidStatus.INSUFFICIENT_TIME
    return None

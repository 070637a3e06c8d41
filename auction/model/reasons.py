# Why a bid did not win, why there is none, why nothing was sold: three lists, kept apart by who says a thing to whom.
# Beside them, how a winner is charged and what made its price.
#
# The numbers are the standard's (AdCOM lists and the community extension seat-non-bid), but for PriceSetter, which is
# ours. Two public protobuf copies of them are off by one above 205, so they stand here once.

from __future__ import annotations

from enum import IntEnum


class LossReason(IntEnum):
    """Why a bid did not win: exchange to bidder. Every bid leaves with exactly one."""

    WON = 0
    INTERNAL_ERROR = 1
    IMP_EXPIRED = 2
    INVALID_BID = 3
    INVALID_DEAL = 4
    MISSING_MARKUP = 7
    MISSING_CREATIVE_ID = 8
    MISSING_PRICE = 9
    BELOW_AUCTION_FLOOR = 100
    BELOW_DEAL_FLOOR = 101
    LOST_TO_HIGHER_BID = 102
    LOST_TO_DEAL = 103
    SEAT_BLOCKED = 104
    CREATIVE_FILTERED = 200
    CREATIVE_DISAPPROVED = 202
    WRONG_SIZE = 203
    WRONG_FORMAT = 204
    ADVERTISER_BLOCKED = 205
    NOT_SECURE = 207
    WRONG_LANGUAGE = 208
    CATEGORY_BLOCKED = 209
    ATTRIBUTE_BLOCKED = 210
    NOT_IN_DEAL = 213
    APP_BLOCKED = 215


class NonBidStatus(IntEnum):
    """Why a bidder has no valid bid for an impression: exchange to publisher."""

    NO_BID = 0
    INSUFFICIENT_TIME = 15
    ERROR = 100
    TIMEOUT = 101
    INVALID_RESPONSE = 102
    UNREACHABLE = 103
    MEDIA_TYPE = 202
    REJECTED = 300
    BELOW_FLOOR = 301
    DUPLICATE = 302
    BELOW_DEAL_FLOOR = 304
    INVALID_CREATIVE = 350
    WRONG_SIZE = 351
    NOT_SECURE = 352
    WRONG_FORMAT = 353
    ADVERTISER_BLOCKED = 356
    CATEGORY_BLOCKED = 357


class NoBidReason(IntEnum):
    """Why a response has no bids: whoever answers, to whoever asked."""

    UNKNOWN = 0
    INSUFFICIENT_TIME = 15


class AuctionType(IntEnum):
    """How a bid that wins is charged."""

    FIRST_PRICE = 1
    SECOND_PRICE = 2
    FIXED_PRICE = 3


class PriceSetter(IntEnum):
    """What made the clearing price what it is."""

    NONE = 0
    OWN_BID = 1
    AGREED = 2
    RIVAL = 3
    DEAL_FLOOR = 4
    FLOOR = 5
    MIN_PRICE = 6
    SOFT_FLOOR = 7


# Toward the publisher a rejected bid says less than toward its bidder: the nearest status of the shorter list.
_REJECTED = {
    LossReason.BELOW_AUCTION_FLOOR: NonBidStatus.BELOW_FLOOR,
    LossReason.BELOW_DEAL_FLOOR: NonBidStatus.BELOW_DEAL_FLOOR,
    LossReason.CREATIVE_DISAPPROVED: NonBidStatus.INVALID_CREATIVE,
    LossReason.WRONG_SIZE: NonBidStatus.WRONG_SIZE,
    LossReason.WRONG_FORMAT: NonBidStatus.WRONG_FORMAT,
    LossReason.ADVERTISER_BLOCKED: NonBidStatus.ADVERTISER_BLOCKED,
    LossReason.NOT_SECURE: NonBidStatus.NOT_SECURE,
    LossReason.CATEGORY_BLOCKED: NonBidStatus.CATEGORY_BLOCKED,
}


def rejected_status(reason: LossReason) -> NonBidStatus:
    """Translate the loss reason of a rejected bid for the publisher (a duplicate is named by its caller)."""
    return _REJECTED.get(reason, NonBidStatus.REJECTED)

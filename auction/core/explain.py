# A result told bid by bid, as plain data: the public shape of docs/conformance.md. Amounts are exact decimal text.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auction.model.auction import AuctionResult, Outcome
from auction.model.errors import InvalidRequest
from auction.model.money import CpmMicros, sent_text, text
from auction.model.reasons import LossReason, PriceSetter

# The code of a refused request, the same on every edge.
REFUSED = "INVALID_ARGUMENT"


def told(auction_id: str, imps: Sequence[str], result: AuctionResult) -> dict[str, Any]:
    """Tell a result: per impression its winner and every bid's fate, then what never became a bid."""
    return {
        "id": auction_id,
        "imp": [_imp(imp, [bid for bid in result.outcomes if bid.imp == row]) for row, imp in enumerate(imps)],
        "unplaced": [_bid(bid) for bid in result.outcomes if bid.imp < 0],
        "non_bids": [
            {
                "bidder": non_bid.bidder,
                "seat": non_bid.seat,
                "imp": non_bid.imp,
                "bid": non_bid.bid,
                "status": int(non_bid.status),
            }
            for non_bid in result.non_bids
        ],
        "warnings": [{"path": warning.path, "text": warning.text} for warning in result.warnings],
        "nbr": None if result.nbr is None else int(result.nbr),
    }


def refused(refusal: InvalidRequest) -> dict[str, Any]:
    """Tell a refusal in the shape that every edge and command uses."""
    return {"error": {"code": REFUSED, "path": refusal.path, "message": refusal.message}}


def _imp(imp: str, bids: Sequence[Outcome]) -> dict[str, Any]:
    winners = [
        {
            **_name(bid),
            "clearing_price": _text(bid.clearing_price),
            "price_setter": bid.setter.name.lower(),
            "pays": _text(bid.pays),
            "currency": bid.currency,
        }
        for bid in bids
        if bid.reason is LossReason.WON
    ]
    first = next((bid for bid in bids if bid.reason is LossReason.WON), None)
    return {
        "id": imp,
        "winner": None if first is None else _name(first),
        "winners": winners,
        "clearing_price": None if first is None else _text(first.clearing_price),
        "price_setter": None if first is None or first.setter is PriceSetter.NONE else first.setter.name.lower(),
        "bids": [_bid(bid) for bid in bids],
    }


def _name(bid: Outcome) -> dict[str, str]:
    return {"bidder": bid.bidder, "seat": bid.seat, "bid": bid.id}


def _bid(bid: Outcome) -> dict[str, Any]:
    return {
        "bidder": bid.bidder,
        "seat": bid.seat,
        "id": bid.id,
        "price": None if bid.price is None else sent_text(bid.price),
        "currency": bid.currency,
        "floor": _text(bid.floor),
        "loss_reason": int(bid.reason),
        "min_to_win": _text(bid.min_to_win),
    }


def _text(amount: CpmMicros | None) -> str | None:
    return None if amount is None else text(amount)

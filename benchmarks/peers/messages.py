# What every engine is asked, and what every bidder answers, in both encodings.
#
# Both requests have the same id and impressions of the same sizes, so that a bidder's answer is the same octets to
# either, and it costs the bidders nothing.

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import msgspec

from auction.core.openrtb import json as codec

# Nothing is late in these runs: what is measured is the cost of an auction in which everybody answers.
TMAX_MS: Final = 5_000

# As a message; what two impressions take, and what the figures of other engines were measured with.
SMALL_BYTES: Final = 446

SIZES: Final = ("446b", "2kb")

REQUEST: Final[dict[str, Any]] = msgspec.json.decode(
    files("bidders").joinpath("requests", "site-banner-2kb.json").read_bytes()
)


def request(size: str) -> dict[str, Any]:
    """Give the request of this size, as JSON has it."""
    if size == "2kb":
        return {**REQUEST, "tmax": TMAX_MS}
    small = {
        "id": REQUEST["id"],
        "imp": [
            {
                "id": imp["id"],
                "tagid": imp["tagid"],
                "bidfloor": imp["bidfloor"],
                "bidfloorcur": "USD",
                "banner": {side: imp["banner"][side] for side in ("w", "h")},
            }
            for imp in REQUEST["imp"]
        ],
        "site": {
            "id": "site-118",
            "domain": "harbourtimes.example",
            "page": REQUEST["site"]["page"],
            "cat": ["IAB12", "IAB20"],
        },
        "device": {"ua": REQUEST["device"]["ua"], "ip": "203.0.113.47", "language": "en"},
        "user": {"id": "u-5f2c", "buyeruid": "b-88e1"},
        "at": 2,
        "tmax": TMAX_MS,
        "cur": ["USD"],
        "bcat": ["IAB7-39", "IAB25"],
        "badv": ["rival-ferries.example", "rival-trams.example"],
    }
    assert len(_message(small)) == SMALL_BYTES, len(_message(small))
    return small


def message(size: str) -> bytes:
    """Give the request of this size as a message."""
    return _message(request(size))


def _message(value: dict[str, Any]) -> bytes:
    return codec.request_bytes(msgspec.json.encode(value), lenient=True, depth=32).message


def reply(row: int) -> bytes:
    """Give what bidder `row` answers, as JSON: a bid above every floor on each impression, from a seat each."""
    bids = [
        {
            "id": f"b{row}",
            "impid": imp["id"],
            "price": 2.5 + 0.07 * row + 0.013 * place,
            "adm": '<a href="https://click.example/c?x=1"><img src="https://cdn.example/creative/12345.png"></a>',
            "adomain": ["brand.example"],
            "cat": ["IAB3"],
            "crid": "cr-1",
            "mtype": 1,
            **{side: imp["banner"][side] for side in ("w", "h")},
        }
        for place, imp in enumerate(REQUEST["imp"])
    ]
    seats = [{"seat": f"s{row}-{place}", "bid": [bid]} for place, bid in enumerate(bids)]
    return msgspec.json.encode({"id": REQUEST["id"], "cur": "USD", "seatbid": seats})


def reply_message(row: int) -> bytes:
    """Give the same as a message."""
    return codec.response_bytes(reply(row), lenient=True, depth=32).message

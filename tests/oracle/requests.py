# A request: taken or refused as a whole, and who is asked about it.

from __future__ import annotations

import json
import math
from fractions import Fraction

from .money import CURRENCIES, LIMIT, double, has_way, read_nanos
from .rules import Exchange, Json


class Refused(Exception):
    """The request is refused whole; the one argument is the path of the field at fault."""


def check_size(request: Json, limits: Json) -> None:
    """What is too long or too deep is refused before anything is read of it, so that the path is empty."""
    if size_of(request) > limits["request_bytes"] or depth_of(request) > limits["depth"]:
        raise Refused("")


def size_of(value: object) -> int:
    """Give the bytes of a value as JSON without blanks."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def depth_of(value: object) -> int:
    """Count the levels of objects and lists."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((depth_of(member) for member in inner), default=0)


def check_request(request: Json, exchange: Exchange, limits: Json) -> list[str]:
    """A request is taken or refused as a whole; a refusal names the field. A floor of -0.0 is 0, so it passes. Seats
    that are both allowed and blocked are worth a warning."""
    if not request.get("id"):
        raise Refused("id")
    if not request.get("imp"):
        raise Refused("imp")
    if len(request["imp"]) > limits["imps"]:
        raise Refused("imp")
    channels = [channel for channel in ("site", "app", "dooh") if request.get(channel) is not None]
    if len(channels) > 1:
        raise Refused(channels[1])
    if request.get("at", 2) not in (0, 1, 2):
        raise Refused("at")
    if request.get("tmax", 0) < 0:
        raise Refused("tmax")
    allowed = request.get("cur", [])
    if allowed and not any(has_way(code, exchange.currency, exchange.rates) for code in allowed):
        raise Refused("cur")
    ids = set()
    for row, imp in enumerate(request["imp"]):
        path = f"imp[{row}]"
        if not imp.get("id") or imp["id"] in ids:
            raise Refused(f"{path}.id")
        ids.add(imp["id"])
        if not media_of(imp):
            raise Refused(path)
        check_floors_of(imp, path)
        for medium in ("video", "audio"):
            format = imp.get(medium)
            if format is not None:
                check_floors_of(format, f"{path}.{medium}")
                if format.get("rqddurs") and ("minduration" in format or "maxduration" in format):
                    raise Refused(f"{path}.{medium}.rqddurs")
        deals = imp.get("pmp", {}).get("deals", [])
        if len(deals) > limits["deals_per_imp"]:
            raise Refused(f"{path}.pmp.deals")
        for place, deal in enumerate(deals):
            if not deal.get("id"):
                raise Refused(f"{path}.pmp.deals[{place}].id")
            if deal.get("at", 0) not in (0, 1, 2, 3):
                raise Refused(f"{path}.pmp.deals[{place}].at")
            check_floors_of(deal, f"{path}.pmp.deals[{place}]")
    return ["bseat"] if request.get("wseat") and request.get("bseat") else []


def check_floors_of(holder: Json, path: str) -> None:
    """A floor, a floor by duration or a rate per second is a finite number, not negative; a floor is at most the limit;
    a floor's currency is a code of ISO 4217."""
    for name in ("bidfloor", "mincpmpersec"):
        if name in holder and not sound_floor(double(holder[name])):
            raise Refused(f"{path}.{name}")
    for row, entry in enumerate(holder.get("durfloors", [])):
        if "bidfloor" in entry and not sound_floor(double(entry["bidfloor"])):
            raise Refused(f"{path}.durfloors[{row}].bidfloor")
    if "bidfloorcur" in holder and holder["bidfloorcur"] not in CURRENCIES:
        raise Refused(f"{path}.bidfloorcur")


def sound_floor(amount: float) -> bool:
    return math.isfinite(amount) and amount >= 0 and read_nanos(amount) <= LIMIT * 1000


def media_of(imp: Json) -> set[str]:
    return {medium for medium in ("banner", "video", "audio", "native") if imp.get(medium) is not None}


def only_format(imp: Json) -> str | None:
    media = media_of(imp)
    return media.pop() if len(media) == 1 else None


def why_not_asked(bidder: Json, imp: Json, request: Json, exchange: Exchange) -> int | None:
    """A bidder that serves none of an impression's formats is not asked for it (202), nor one that has less time than
    it needs (15): what it is told is the budget less what answering takes (at most a tenth) and its network time, and
    no more than its own timeout. The budget is the request's tmax (absent or 0: the default), capped."""
    if bidder.get("media") and not media_of(imp) & set(bidder["media"]):
        return 202
    budget = Fraction(min(request.get("tmax") or exchange.tmax_ms, exchange.tmax_max_ms))
    told = budget - min(Fraction(exchange.reply_reserve_ms), budget / 10) - bidder.get("network_ms", 0)
    if bidder.get("timeout_ms") is not None:
        told = min(told, Fraction(bidder["timeout_ms"]))
    return 15 if told < bidder.get("min_ms", 1) else None

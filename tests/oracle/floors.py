# The last check: what a bid answers to, of deal, format, impression and the exchange's own rules, and where it is
# compared.

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .bids import Offer, deal_of, format_of
from .chance import drawn, rank, share_is_met
from .clearing import Row
from .money import LIMIT, NoWay, Weight, convert_up, decimal, floor_micros, ranked, told
from .reasons import BAD_BID, BELOW_DEAL_FLOOR, BELOW_FLOOR, INTERNAL
from .requests import only_format
from .rules import Exchange, Json, weight_of

KEYS = ("mediaType", "size", "domain", "tagid", "country", "deviceType", "bidder")


@dataclass
class Floor:
    """A floor as it is stated: micros of `currency`, `each` second of `seconds`, or of the whole bid, which is one."""

    each: int
    currency: str
    seconds: int = 1
    is_deals: bool = False
    is_rate: bool = False


def governing_floor(bid: Offer, imp: Json) -> Floor:
    """A bid answers to its deal, if that states a floor, 0 included; else to its format; else to the impression.

    Of each of the first two, for video and audio of a known duration: the highest of the floors by duration whose range
    it is in, else the rate per second. A deal may state a plain floor as well, and the impression does. Each is in the
    currency beside it, USD where there is none; a format's is the impression's.
    """
    format, seconds = format_of(bid, imp), bid.creative.get("dur") or 0
    timed = format in ("video", "audio") and seconds > 0
    deal = deal_of(bid, imp)
    if deal is not None:
        currency = deal.get("bidfloorcur", "USD")
        found = floor_by_duration(deal, seconds, currency) if timed else None
        if found is None and deal.get("bidfloor") is not None:
            found = Floor(floor_micros(deal["bidfloor"]), currency)
        if found is not None:
            found.is_deals = True
            return found
    currency = imp.get("bidfloorcur", "USD")
    found = floor_by_duration(imp[format], seconds, currency) if timed and format else None
    return found or Floor(floor_micros(imp.get("bidfloor", 0.0)), currency)


def floor_by_duration(holder: Json, seconds: int, currency: str) -> Floor | None:
    """A range is open where it does not say; its ends belong to it."""
    matching = [
        floor_micros(entry.get("bidfloor", 0.0))
        for entry in holder.get("durfloors") or []
        if entry.get("mindur", seconds) <= seconds <= entry.get("maxdur", seconds)
    ]
    if matching:
        return Floor(max(matching), currency)
    if holder.get("mincpmpersec") is not None:
        return Floor(floor_micros(holder["mincpmpersec"]), currency, seconds, is_rate=True)
    return None


# ------------------------------------------------------------ the exchange's own


def drawn_model(case: Json) -> Json | None:
    """One model is drawn by weight, or none where the auction is skipped: draws on its id, for all to repeat. Rules and
    a default without a model are the only one."""
    floors = case.get("floors") or {}
    models = floors.get("models") or []
    if "rules" in floors or "default" in floors:
        models = [floors]
    auction = case["request"]["id"]
    if not models or share_is_met(Fraction(str(floors.get("skip_rate", 0))), auction, "floor.skip"):
        return None
    place = drawn([model.get("weight", 1) for model in models], auction, "floor.model")
    return {**models[place], "floor_min": floors.get("floor_min", 0)}


def own_floor(model: Json | None, imp: Json, request: Json, bidder: str) -> int:
    """The exchange's floor for an impression and a bidder, micros of its currency; 0 for none.

    The rule with the fewest open keys wins; of two the one with a value at the first key, in their order, where they
    differ. Where none matches the model's default counts; the least of all floors bounds both.
    """
    if model is None:
        return 0
    values = values_of(imp, request, bidder)
    matching = []
    for rule in model.get("rules") or []:
        wanted = {key: fold(key, rule.get(key)) for key in KEYS}
        if all(wanted[key] in ("*", values[key]) for key in KEYS):
            is_open = [wanted[key] == "*" for key in KEYS]
            matching.append((sum(is_open), is_open, decimal(rule["floor"])))
    if matching:
        floor = min(matching)[2]
    elif model.get("default") is not None:
        floor = decimal(model["default"])
    else:
        return 0
    return max(floor, decimal(model["floor_min"]))


def fold(key: str, value: object) -> str:
    text = "*" if value is None else str(value)
    return text.lower().removesuffix(".") if key == "domain" else text.upper() if key == "country" else text


def values_of(imp: Json, request: Json, bidder: str) -> dict[str, str]:
    """A format or a size counts only if it is the one that the impression has. What is not known matches open keys
    only, so that its value here is one that no rule has."""
    domains = [(request.get(channel) or {}).get("domain") for channel in ("site", "app", "dooh")]
    device = request.get("device") or {}
    values = {
        "mediaType": only_format(imp),
        "size": only_size(imp),
        "domain": next((domain for domain in domains if domain), None),
        "tagid": imp.get("tagid"),
        "country": (device.get("geo") or {}).get("country"),
        "deviceType": device.get("devicetype"),
        "bidder": bidder,
    }
    return {key: fold(key, value) if value else "" for key, value in values.items()}


def only_size(imp: Json) -> str | None:
    """Sizes are the banner's, exact ones of its formats, and the video's."""
    banner, video = imp.get("banner") or {}, imp.get("video") or {}
    formats = banner.get("format") or []
    if any(one.get("wratio") and one.get("hratio") for one in formats):
        return None
    sizes = {f"{one['w']}x{one['h']}" for one in [banner, *formats, video] if one.get("w") and one.get("h")}
    return sizes.pop() if len(sizes) == 1 else None


# ------------------------------------------------------------ the check


def check_floor(bid: Offer, imp: Json, request: Json, model: Json | None, exchange: Exchange) -> None:
    """Seventh check: the price as sent reaches the floor where the bidder sees it, in its own currency and on its own
    scale, UP; at the floor is enough, and nothing less is.

    The governing floor is brought there through rate and adjustment in one step; a rate per second first, times seconds
    after. The exchange's own floor raises what is not a deal's; beside a rate it is told as the impression's plain
    floor, which therefore binds as well. `min_price` raises everything. A floor that cannot be brought over, or is
    above the limit in the auction currency, gives its bids 1; a floor of 0 needs no rate.

    In the auction currency the floor counts as itself, UP, a rate first here too, at most the bid's ranked price. At 3
    no adjustment comes between the buyer and its floor; what ranks and is paid is that floor, brought to the auction
    currency DOWN and adjusted then; above the limit its bids get 1 as well.
    """
    ours, rates = exchange.currency, exchange.rates
    deal = deal_of(bid, imp)
    at = (deal or {}).get("at") or request.get("at") or 2
    bid.weight = weight_of(exchange.bid_adjustments, bid.bidder, bid.deal, only_format(imp))
    asks = Weight() if at == 3 else bid.weight
    price = ranked(bid.sent, bid.currency, ours, bid.weight, rates)
    if price > LIMIT and at != 3:
        bid.reason = BAD_BID
        return

    floor = governing_floor(bid, imp)
    raised = 0 if floor.is_deals else own_floor(model, imp, request, bid.bidder)
    try:
        seen = told(floor.each, floor.currency, bid.currency, ours, asks, rates) * floor.seconds
        here = convert_up(floor.each, floor.currency, ours, rates) * floor.seconds
        if raised:
            seen = max(seen, told(raised, ours, bid.currency, ours, asks, rates))
            here = max(here, raised)
        if raised and floor.is_rate:
            beside, currency = floor_micros(imp.get("bidfloor", 0.0)), imp.get("bidfloorcur", "USD")
            seen = max(seen, told(beside, currency, bid.currency, ours, asks, rates))
            here = max(here, convert_up(beside, currency, ours, rates))
    except NoWay:
        bid.reason = INTERNAL
        return
    if here > LIMIT:
        bid.reason = INTERNAL
        return

    bid.told_floor = max(seen, told(exchange.min_price, ours, bid.currency, ours, asks, rates))
    refused = 0
    if bid.sent < bid.told_floor:
        refused = BELOW_DEAL_FLOOR if floor.is_deals and bid.sent < seen else BELOW_FLOOR
    counted = max(here, exchange.min_price)
    if at == 3:
        price = counted = ranked(bid.told_floor, bid.currency, ours, bid.weight, rates)
        if price > LIMIT:
            bid.reason = INTERNAL
            return
    bid.row = Row(
        price=price,
        floor=counted if refused else min(counted, price),
        at=at,
        deal=deal is not None,
        competitor=bid.bidder if exchange.competitor == "bidder" else (bid.bidder, bid.seat),
        rank=rank(exchange.tie_key, request["id"], imp["id"], bid.seat, bid.id),
        name=bid.bidder.encode(),
        refused=refused,
        own_floor=here,
        own_floor_is_deals=floor.is_deals,
        min_price=exchange.min_price,
    )

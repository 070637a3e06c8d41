# Each setting that decides an auction, value by value, and the vector that shows what the value does.
#
# The table is held to three things. To the vectors: each must have the value it stands for. To what can be set: a new
# setting, or a new word for one, fails here until there is a vector. And to the market: with another value of its row a
# vector must come out otherwise, or it would show nothing of the setting.

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from auction.case import NoCase, decide
from auction.config.schema import every_setting
from tests.test_conformance import compared
from tests.vectors import VECTORS

Json = dict[str, Any]

ANY_RULE = "a-floor-rule-raises-every-floor-by-duration"
ANY_BIDDER = "a-creative-that-the-exchange-blocks-is-refused"

# By the value as it would be written; `none` where there is none.
TABLE: dict[str, dict[str, str]] = {
    "exchange.currency": {
        "USD": "a-floor-rule-is-told-in-the-bids-currency",
        "EUR": "currencies-meet-through-the-dollar",
        "JPY": "the-increment-of-a-yen-is-a-yen",
        "KRW": "the-increment-of-a-won-is-a-won",
        "KWD": "an-increment-not-listed-is-one-minor-unit",
    },
    "exchange.increment": {
        "EUR:0.01,GBP:0.01,JPY:1,KRW:1,USD:0.01": "the-increment-of-a-dollar-is-a-cent",
        "0": "an-increment-of-zero-pays-the-rivals-price",
        "0.05": "a-gap-smaller-than-the-increment-is-capped-at-the-bid",
        "JPY:7,USD:0.10": "the-increment-is-that-of-the-auction-currency",
        "JPY:5,USD:0.10": "an-increment-listed-for-a-yen-is-that",
    },
    "exchange.min_price": {
        "0": "no-rival-and-no-floor-pays-nothing",
        "2.00": "a-deals-floor-is-named-before-min-price",
    },
    "exchange.max_cpm": {
        "none": "a-bid-above-the-limit-is-invalid",
        "50": "a-bid-above-max-cpm-is-invalid",
    },
    "exchange.tmax_ms": {
        "100": "a-bidder-with-less-time-than-it-needs-is-not-asked",
        "40": "a-tmax-of-zero-is-the-default",
    },
    "exchange.tmax_max_ms": {
        "500": "a-tmax-above-the-cap-is-the-cap",
        "50": "the-cap-holds-for-the-default-too",
    },
    "exchange.reply_reserve_ms": {
        "5": "a-bidder-with-less-time-than-it-needs-is-not-asked",
        "3": "a-tmax-of-zero-is-the-default",
    },
    "exchange.deal_mode": {
        "compete": "an-open-bid-beats-a-lower-deal",
        "deals_first": "deals-first-puts-any-deal-before-every-open-bid",
    },
    "exchange.competitor": {
        "seat": "two-seats-of-one-bidder-are-rivals",
        "bidder": "two-seats-of-one-bidder-are-one-competitor-if-told-to",
    },
    "exchange.same_seat_sets_price": {
        "false": "a-seat-does-not-set-its-own-price",
        "true": "a-seat-sets-its-own-price-if-told-to",
    },
    "exchange.min_to_win": {
        "text": "second-price-of-the-standard-by-its-text",
        "table": "second-price-of-the-standard-by-its-table",
    },
    "exchange.soft_floor": {
        "none": "no-rival-pays-the-floor-without-increment",
        "1.00": "above-the-soft-floor-the-winner-pays-at-least-that",
    },
    "exchange.tie_key": {
        "": "a-tie-goes-to-the-lower-rank",
        "salt": "a-tie-key-decides-ties-that-bidders-cannot-foresee",
    },
    "exchange.bid_adjustments[].bidder": {
        "none": "an-adjustment-can-be-for-banner",
        "dsp-a": "an-adjustment-is-for-one-bidder",
    },
    "exchange.bid_adjustments[].deal": {
        "none": "an-adjustment-is-for-one-bidder",
        "d1": "an-adjustment-is-for-one-deal",
    },
    "exchange.bid_adjustments[].media": {
        "none": "an-adjustment-is-for-one-bidder",
        "banner": "an-adjustment-can-be-for-banner",
        "video": "an-adjustment-by-format-needs-an-impression-of-one",
        "audio": "an-adjustment-can-be-for-audio",
        "native": "an-adjustment-can-be-for-native",
    },
    "exchange.bid_adjustments[].multiplier": {
        "none": "an-adjustment-can-cost-a-bid-the-win",
        "0.9": "an-adjustment-ranks-a-bid-by-less",
        "1.5": "an-adjustment-can-lift-a-bid",
        "10": "an-adjusted-price-above-the-limit-is-invalid",
    },
    "exchange.bid_adjustments[].subtract": {
        "none": "an-adjustment-ranks-a-bid-by-less",
        "0.10": "an-adjustment-can-cost-a-bid-the-win",
        "10": "what-is-subtracted-is-in-the-exchanges-currency",
    },
    "exchange.size": {
        "enforce": "a-size-that-was-not-asked-for-is-refused",
        "warn": "a-wrong-size-can-be-tolerated",
        "off": "a-wrong-size-can-be-passed-over",
    },
    "exchange.secure": {
        "enforce": "markup-that-is-not-secure-is-refused-where-it-must-be",
        "warn": "markup-that-is-not-secure-can-be-tolerated",
        "off": "markup-that-is-not-secure-can-be-passed-over",
    },
    "exchange.crid": {
        "enforce": "a-missing-creative-id-can-be-refused",
        "warn": "a-missing-creative-id-is-warned-of",
        "off": "a-missing-creative-id-can-be-passed-over",
    },
    "exchange.category_match": {
        "exact": "a-blocked-category-stands-for-itself-by-default",
        "parents": "a-blocked-category-stands-for-those-below-it-if-told-to",
    },
    "exchange.deal_advertiser": {
        "strict": "a-deal-is-only-for-its-advertisers",
        "open": "a-bid-not-in-its-deal-can-be-taken-as-an-open-one",
    },
    "exchange.strict_ids": {
        "true": "a-reply-with-another-id-is-invalid",
        "false": "a-reply-without-id-can-be-tolerated",
    },
    "exchange.json": {
        "lenient": "a-slip-is-read-as-what-it-means",
        "strict": "a-slip-is-refused-if-told-to",
    },
    "fx.rates": {
        "": "a-floor-without-a-rate-fails-the-bids-under-it",
        "JPY:150": "a-bid-in-another-currency-ranks-by-its-worth",
        "EUR:0.92": "a-floor-is-compared-in-the-bids-currency",
        "EUR:0.75,JPY:150": "currencies-meet-through-the-dollar",
        "GBP:0.8": "a-rate-given-for-a-floor-lets-its-bids-in",
    },
    "floors.floor_min": {
        "0": ANY_RULE,
        "0.30": "floor-min-is-the-least-that-a-floor-rule-says",
        "0.50": "floor-min-bounds-the-default-floor-too",
        "1.00": "floor-min-is-not-for-deals",
    },
    "floors.skip_rate": {
        "0": ANY_RULE,
        "0.387": "an-auction-above-the-skip-rate-has-its-floors",
        "0.388": "an-auction-below-the-skip-rate-is-without-floor-rules",
        "1": "every-auction-is-skipped-at-a-rate-of-one",
    },
    "floors.default": {
        "none": "floor-min-by-itself-is-no-floor",
        "30": "a-default-floor-is-for-what-no-rule-matches",
        "0.10": "floor-min-bounds-the-default-floor-too",
    },
    "floors.rules[].floor": {
        "0": "floor-min-is-the-least-that-a-floor-rule-says",
        "1.00": "a-floor-rule-can-be-for-one-bidder",
        "2.00": "a-floor-rule-raises-the-open-floor-and-no-deals",
    },
    "floors.rules[].mediaType": {
        "none": ANY_RULE,
        "banner": "a-floor-rule-can-be-for-banners",
        "video": "a-floor-rule-can-be-for-a-format",
        "audio": "a-floor-rule-can-be-for-audio",
        "native": "a-floor-rule-can-be-for-native",
    },
    "floors.rules[].size": {
        "none": ANY_RULE,
        "300x250": "a-floor-rule-can-be-for-a-size",
    },
    "floors.rules[].domain": {
        "none": ANY_RULE,
        "mall.example": "a-floor-rule-can-be-for-a-domain",
        "news.example.": "a-final-dot-of-a-domain-does-not-count",
    },
    "floors.rules[].tagid": {
        "none": ANY_RULE,
        "top": "a-floor-rule-can-be-for-a-placement",
    },
    "floors.rules[].country": {
        "none": ANY_RULE,
        "GBR": "a-floor-rule-can-be-for-a-country",
        "FRA": "a-floor-rule-for-another-country-is-none",
    },
    "floors.rules[].deviceType": {
        "none": ANY_RULE,
        "4": "a-floor-rule-can-be-for-a-kind-of-device",
        "5": "a-floor-rule-for-another-kind-of-device-is-none",
    },
    "floors.rules[].bidder": {
        "none": "a-floor-rule-is-told-through-the-adjustment",
        "dsp-a": "a-floor-rule-can-be-for-one-bidder",
        "dsp-b": "a-floor-rule-for-another-bidder-is-none",
    },
    "floors.models[].weight": {
        "1": "another-auction-draws-another-model",
        "6": "a-heavier-model-is-drawn-more-often",
    },
    "floors.models[].default": {
        "none": "a-model-that-says-nothing-is-no-floor",
        "1.00": "the-first-of-three-models-is-drawn",
    },
    "floors.models[].rules[].floor": {
        "0.50": "a-model-is-drawn-by-weight",
        "1.00": "a-drawn-model-has-its-own-rules",
    },
    "bidders[].seats": {
        "": "a-tie-goes-to-the-lower-rank",
        "s1,s2": "a-seat-not-among-its-bidders-is-blocked",
        "s1": "a-bidders-own-seats-come-before-an-unknown-deal",
    },
    "bidders[].blocked_creatives": {
        "": "seats-both-allowed-and-blocked-are-warned-of",
        "c1,c2": ANY_BIDDER,
        "c1": "the-creative-of-one-bid-is-blocked",
    },
    "bidders[].media": {
        "": ANY_BIDDER,
        "video": "a-bidder-is-asked-for-the-formats-it-serves",
        "audio,native": "a-bidder-can-serve-several-formats",
    },
    "bidders[].min_ms": {
        "1": ANY_BIDDER,
        "31": "a-bidders-own-timeout-is-all-it-has",
        "95": "a-bidder-with-less-time-than-it-needs-is-not-asked",
        "96": "nobody-asked-in-time-is-no-bid-reason-15",
    },
    "bidders[].network_ms": {
        "0": "a-bidder-with-less-time-than-it-needs-is-not-asked",
        "90": "the-way-to-a-bidder-takes-its-time",
    },
    "bidders[].timeout_ms": {
        "none": "a-bidder-with-less-time-than-it-needs-is-not-asked",
        "30": "a-bidders-own-timeout-is-all-it-has",
    },
    "limits.request_bytes": {
        "262144": "at-the-floor-is-accepted",
        "60": "a-request-that-is-too-long-is-refused",
    },
    "limits.imps": {
        "100": "impressions-are-settled-each-by-itself",
        "2": "more-impressions-than-allowed-are-refused",
    },
    "limits.deals_per_imp": {
        "64": "deals-first-ranks-agreed-prices-among-the-deals",
        "1": "more-deals-than-allowed-are-refused",
    },
    "limits.depth": {
        "32": "a-request-of-32-levels-is-taken",
        "4": "a-request-that-is-nested-too-deep-is-refused",
    },
    "limits.reply_bytes": {
        "65536": "a-reply-of-some-length-is-read",
        "400": "a-reply-that-is-too-long-is-invalid",
    },
    "limits.bids_per_reply": {
        "100": "prices-that-are-no-amounts-never-enter",
        "2": "a-reply-with-too-many-bids-is-invalid",
    },
}

# What a bidder is told, which is no part of an answer: with any value it is the same.
TOLD = {"bidders[].currency": {"EUR": "a-bidders-currency-is-only-what-it-is-told-in"}}

# Settings of which no case can show anything, and why.
ELSEWHERE = {
    "exchange.explain": "how much of the answer is told; a case tells all",
    "fx.id": "a case has rates only",
    "fx.time": "a case has rates only",
    "fx.file": "where rates come from; a case has them",
    "fx.url": "where rates come from; a case has them",
    "fx.refresh_s": "where rates come from; a case has them",
    "fx.max_age_s": "a case has no clock",
    "fx.stale": "a case has no clock",
    "floors.models[].name": "for people",
    **{
        f"floors.models[].rules[].{key}": f"as floors.rules[].{key}"
        for key in ("mediaType", "size", "domain", "tagid", "country", "deviceType", "bidder")
    },
    "bidders[].name": "a name, not a choice",
    "bidders[].grpc": "an address; a case has replies",
    "bidders[].http": "an address; a case has replies",
    "bidders[].transport": "what carries calls; a case has replies",
    "bidders[].headers": "for the bidder; a case has replies",
    **dict.fromkeys(
        (f"bidders[].tls.{name}" for name in ("authorities", "certificate", "key", "name")),
        "how it is reached; a case has replies",
    ),
    "limits.inflation_ratio": "of packed bodies; those of a case are not",
}

SECTIONS = ("exchange", "fx", "floors", "bidders", "limits")
SETTINGS = {name: node for name, node in every_setting() if re.split(r"[.[]", name)[0] in SECTIONS}
ROWS = [(name, value) for name, row in TABLE.items() for value in row]


def vector(name: str) -> Json:
    read: Json = json.loads((VECTORS / f"{name}.json").read_text())
    return read


def steps(setting: str) -> Iterator[str | int]:
    """Give the way to a setting in a case, of several entries that to the first; `fx` is its rates there."""
    for part in setting.replace("fx.rates", "fx").split("."):
        yield part.removesuffix("[]")
        if part.endswith("[]"):
            yield 0


def value_of(case: Json, setting: str) -> Any:
    """Give what a case sets, None for nothing."""
    value: Any = case
    for step in steps(setting):
        if value is None or (isinstance(step, int) and not value):
            return None
        value = value[step] if isinstance(step, int) else value.get(step)
    return value


def written(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{code}:{amount}" for code, amount in sorted(value.items()))
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def effective(case: Json, setting: str) -> str:
    """Write what a setting comes to in a case, the default where it says nothing."""
    value = value_of(case, setting)
    return written(SETTINGS[setting].get("default") if value is None else value)


# Of these an adjustment has one.
INSTEAD = {"multiplier": "subtract", "subtract": "multiplier"}


def under(case: Json, setting: str, value: Any) -> Json:
    """Give the case with another value of a setting."""
    case = deepcopy(case)
    *way, last = steps(setting)
    holder: Any = case
    for step, after in zip(way, (*way, last)[1:], strict=True):
        if isinstance(step, int):
            if not holder:
                holder.append({"name": case["replies"][0]["bidder"]})
            holder = holder[step]
        else:
            holder = holder.setdefault(step, [] if isinstance(after, int) else {})
    holder.pop(last, None)
    if value is not None:
        holder.pop(INSTEAD.get(str(last)), None)
        holder[last] = value
    return case


def comes_out_otherwise(case: Json, setting: str, value: Any) -> bool:
    try:
        return compared(decide(under(case, setting, value))) != compared(case["expect"])
    except NoCase:  # this value cannot stand beside the others
        return False


@pytest.mark.parametrize(("setting", "value"), ROWS)
def test_each_value_has_a_vector_that_depends_on_it(setting: str, value: str) -> None:
    case = vector(TABLE[setting][value])
    assert value == effective(case, setting)
    others = [value_of(vector(name), setting) for other, name in TABLE[setting].items() if other != value]
    assert any(comes_out_otherwise(case, setting, other) for other in others)


@pytest.mark.parametrize("setting", TOLD)
def test_what_a_bidder_is_told_in_decides_nothing(setting: str) -> None:
    for value, name in TOLD[setting].items():
        case = vector(name)
        assert value == effective(case, setting)
        assert not any(comes_out_otherwise(case, setting, other) for other in (None, "JPY", "USD"))


def test_every_setting_that_decides_has_its_vectors() -> None:
    assert set(SETTINGS) == {*TABLE, *TOLD, *ELSEWHERE}
    assert len(SETTINGS) == len(TABLE) + len(TOLD) + len(ELSEWHERE)
    for setting, row in TABLE.items():
        node = SETTINGS[setting]
        required = setting.endswith(".floor")
        assert required or written(node.get("default")) in row, setting
        assert 2 <= len(row), setting
        words = node.get("enum") or (["true", "false"] if node.get("type") == "boolean" else None)
        if words is not None:
            absent = {"none"} if node.get("default", "") is None else set()
            assert {*words, *absent} == set(row), setting

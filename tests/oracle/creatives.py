# The checks of what a bid would show: fifth the creative, sixth how long it is.

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .bids import FORMATS, Offer, format_of, is_under
from .reasons import (
    BLOCKED_ADVERTISER,
    BLOCKED_APP,
    BLOCKED_ATTRIBUTE,
    BLOCKED_CATEGORY,
    BLOCKED_CREATIVE,
    NO_CREATIVE_ID,
    NO_MARKUP,
    NOT_SECURE,
    WRONG_FORMAT,
    WRONG_LANGUAGE,
    WRONG_LENGTH,
    WRONG_SIZE,
)
from .requests import media_of
from .rules import Exchange, Json

TAXONOMIES = Path(__file__).parents[2] / "auction" / "core" / "taxonomies.json"


def check_creative(bid: Offer, imp: Json, request: Json, bidder: Json, exchange: Exchange) -> None:
    """Fifth check, in this order: markup, creative id, advertiser, category, app, attribute, language, security, size,
    format, the exchange's own list of blocked creatives. Size, security and the id may be enforced, warned of, or not
    looked at."""
    creative, format = bid.creative, format_of(bid, imp)

    def fails(how: str, member: str) -> bool:
        if how == "warn":
            bid.warn(member)
        return how == "enforce"

    if lacks_markup(creative, format):
        bid.reason = NO_MARKUP
    elif not creative.get("crid") and fails(exchange.crid, "crid"):
        bid.reason = NO_CREATIVE_ID
    elif any(is_under(domain, request.get("badv") or []) for domain in creative.get("adomain") or []):
        bid.reason = BLOCKED_ADVERTISER
    elif is_of_blocked_category(creative, request, exchange):
        bid.reason = BLOCKED_CATEGORY
    elif creative.get("bundle") and creative["bundle"] in (request.get("bapp") or []):
        bid.reason = BLOCKED_APP
    elif has_blocked_attribute(creative, imp, format):
        bid.reason = BLOCKED_ATTRIBUTE
    elif speaks_another_language(creative, request):
        bid.reason = WRONG_LANGUAGE
    elif imp.get("secure") and is_insecure(creative) and fails(exchange.secure, "adm"):
        bid.reason = NOT_SECURE
    elif format == "banner" and does_not_fit(creative, imp.get("banner") or {}) and fails(exchange.size, "adm"):
        bid.reason = WRONG_SIZE
    elif creative.get("mtype") and FORMATS.get(creative["mtype"]) not in media_of(imp):
        bid.reason = WRONG_FORMAT
    elif creative.get("crid") and creative["crid"] in bidder.get("blocked_creatives", []):
        bid.reason = BLOCKED_CREATIVE


def lacks_markup(creative: Json, format: str | None) -> bool:
    """Video and native need what is to be shown, or where to fetch it."""
    return format in ("video", "native") and not any(creative.get(name) for name in ("adm", "adm_native", "nurl"))


def is_of_blocked_category(creative: Json, request: Json, exchange: Exchange) -> bool:
    """Categories are compared within one taxonomy only. A blocked one may stand for all below it."""
    taxonomy = request.get("cattax", 1)
    if creative.get("cattax", 1) != taxonomy:
        return False
    blocked = request.get("bcat") or []
    for category in creative.get("cat") or []:
        if category in blocked:
            return True
        if exchange.category_match == "parents" and set(ancestors(category, taxonomy)) & set(blocked):
            return True
    return False


def ancestors(category: str, taxonomy: int) -> Sequence[str]:
    """Give the categories above one, nearest first."""
    parents = parents_of(taxonomy)
    above: list[str] = []
    while category in parents:
        category = parents[category]
        above.append(category)
    return above


@cache
def parents_of(taxonomy: int) -> dict[str, str]:
    """Read the parent of each category that has one. The file lists, by taxonomy, the children of each parent in one
    text; those of the empty parent have none."""
    children = json.loads(TAXONOMIES.read_text()).get(str(taxonomy), {})
    return {child: parent for parent, row in children.items() if parent for child in row.split()}


def has_blocked_attribute(creative: Json, imp: Json, format: str | None) -> bool:
    """An attribute is blocked by the bid's format; where that is not known, by any that the impression offers."""
    formats = media_of(imp) if format is None else {format}
    blocked = {attribute for one in formats for attribute in (imp.get(one) or {}).get("battr") or []}
    return bool(blocked & set(creative.get("attr") or []))


def speaks_another_language(creative: Json, request: Json) -> bool:
    """Languages matter if the request lists any. A bid that names none passes, and so does `xx`, which is none.
    `wlangb` lists tags, and any that goes on behind a `-` is of that language too; it decides where both are given.
    `wlang` lists languages by their first subtag."""
    language, tag = creative.get("language"), creative.get("langb")
    if request.get("wlangb"):
        said = (tag or language or "").lower()
        allowed = any(f"{said}-".startswith(f"{entry.lower()}-") for entry in request["wlangb"])
    elif request.get("wlang"):
        said = (language or tag or "").lower().split("-")[0]
        allowed = said in [entry.lower().split("-")[0] for entry in request["wlang"]]
    else:
        return False
    return said not in ("", "xx") and not allowed


# Not addresses that anybody fetches, although they begin like one.
NAMES_ONLY = re.compile(
    r"""
      \b(?:xmlns(?::[\w.-]+)?|xsi:(?:schemaLocation|noNamespaceSchemaLocation)) \s*=\s* (?:"[^"]*"|'[^']*')
    | <!DOCTYPE[^>]*>
    | http://www\.w3\.org/
    """,
    re.VERBOSE | re.IGNORECASE,
)


def is_insecure(creative: Json) -> bool:
    """Where everything has to be secure, the markup names no address by `http:`, but for XML namespaces and document
    types. Where there is no markup, that goes for the address it is fetched from."""
    if creative.get("adm"):
        markup = str(creative["adm"])
    else:
        native = creative.get("adm_native")
        markup = " ".join([str(creative.get("nurl") or ""), json.dumps(native) if native else ""])
    return "http:" in NAMES_ONLY.sub("", markup).lower()


def does_not_fit(creative: Json, banner: Json) -> bool:
    """A banner has one of the sizes asked for, or one of the ratios at its least width: the height is the whole pixel
    nearest to what the ratio makes of the width. One that does not say has the size asked for, if that is one only.
    Where no size is asked for, any will do."""
    formats = banner.get("format") or []
    sizes = {(one["w"], one["h"]) for one in [banner, *formats] if one.get("w") and one.get("h")}
    ratios = [one for one in formats if one.get("wratio") and one.get("hratio")]
    if not sizes and not ratios:
        return False
    w, h = creative.get("w") or 0, creative.get("h") or 0
    if w <= 0 or h <= 0:
        return bool(ratios) or len(sizes) != 1
    return (w, h) not in sizes and not any(
        w >= one.get("wmin", 0) and abs(w * one["hratio"] - h * one["wratio"]) * 2 <= one["wratio"] for one in ratios
    )


def check_duration(bid: Offer, imp: Json) -> None:
    """Sixth check, of video and audio: the duration is one of those required, or in the range. It may be left out, but
    not in a dynamic pod."""
    format = format_of(bid, imp)
    if format not in ("video", "audio"):
        return
    asked, seconds = imp[format], bid.creative.get("dur")
    if seconds is None:
        fits = not asked.get("poddur", 0) > 0
    elif asked.get("rqddurs"):
        fits = seconds in asked["rqddurs"]
    else:
        fits = asked.get("minduration", 0) <= seconds and (
            asked.get("maxduration") is None or seconds <= asked["maxduration"]
        )
    if not fits:
        bid.reason = WRONG_LENGTH

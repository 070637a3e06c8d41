# What a creative must be: the checks of a bid that look at what would be shown.
#
# They come in one order and the first that fails names the reason. What a request does not ask for is not read: every
# member of a bid costs a look into its message, and there are a dozen. A bid says its format by `mtype`; without one it
# is the impression's if that has only one, and otherwise unknown: then it is held to what every format is held to.

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from auction.core import categories
from auction.core.openrtb import replies as wire
from auction.core.openrtb.requests import domain, primary_language
from auction.model.reasons import LossReason
from auction.model.reply import Bid
from auction.model.request import BANNER, NATIVE, VIDEO, Blocks, Format, Imp, Length
from auction.model.rules import Check, ExchangeRules

# (member of the bid, what of it): the bid stands in spite of something.
Tolerate = Callable[[str, str], None]

# The longest name that DNS takes. Longer text is no domain, and is not searched for one.
DOMAIN_CHARS_MAX = 253

_NEEDS_MARKUP = (VIDEO, NATIVE)


class CreativeChecks:
    """The checks of one auction's creatives."""

    __slots__ = ("_blocks", "_crid", "_parents", "_secure", "_size")

    def __init__(self, blocks: Blocks | None, exchange: ExchangeRules) -> None:
        self._blocks = blocks
        self._parents = exchange.category_match == "parents"
        self._crid: Check = exchange.crid
        self._secure: Check = exchange.secure
        self._size: Check = exchange.size

    def fault(self, bid: Bid, imp: Imp, format: int, blocked: Collection[str], tolerate: Tolerate) -> LossReason | None:
        """Tell what is wrong with a bid's creative; `blocked` are creative ids that are not shown."""
        if format in _NEEDS_MARKUP and not _markup(bid):
            return LossReason.MISSING_MARKUP
        crid = wire.crid(bid.wire) if blocked or self._crid != "off" else ""
        if not crid and self._crid != "off":
            if self._crid == "enforce":
                return LossReason.MISSING_CREATIVE_ID
            tolerate("crid", "missing")
        blocks, asked = self._blocks, imp.formats.get(format)
        if blocks is not None:
            reason = self._blocked(bid, blocks)
            if reason is not None:
                return reason
        held_to = imp.formats.values() if not format else () if asked is None else (asked,)
        for one in held_to:
            if one.attributes and not one.attributes.isdisjoint(wire.attr(bid.wire)):
                return LossReason.ATTRIBUTE_BLOCKED
        if blocks is not None and blocks.speak and not _speaks(*wire.languages(bid.wire), blocks):
            return LossReason.WRONG_LANGUAGE
        if imp.secure and self._secure != "off" and insecure(_markup(bid)):
            if self._secure == "enforce":
                return LossReason.NOT_SECURE
            tolerate("adm", "holds an http: address where https: was asked for")
        if format == BANNER and self._size != "off" and asked is not None and not _fits(*wire.size(bid.wire), asked):
            if self._size == "enforce":
                return LossReason.WRONG_SIZE
            width, height = wire.size(bid.wire)
            tolerate("adm", f"expected a size that was asked for, was {width}x{height}")
        if format and asked is None:
            return LossReason.WRONG_FORMAT
        if crid and crid in blocked:
            return LossReason.CREATIVE_DISAPPROVED
        return None

    def _blocked(self, bid: Bid, blocks: Blocks) -> LossReason | None:
        if blocks.advertisers and any(under(one, blocks.advertisers) for one in wire.adomain(bid.wire)):
            return LossReason.ADVERTISER_BLOCKED
        if blocks.categories and wire.cattax(bid.wire) == blocks.taxonomy:
            shown: Iterable[str] = wire.cat(bid.wire)
            if self._parents:
                shown = (above for one in shown for above in categories.ancestors(blocks.taxonomy, one))
            if not blocks.categories.isdisjoint(shown):
                return LossReason.CATEGORY_BLOCKED
        if blocks.apps and wire.bundle(bid.wire) in blocks.apps:
            return LossReason.APP_BLOCKED
        return None


def misses_length(seconds: int | None, length: Length) -> bool:
    """Tell whether a creative is not as long as the impression asks; None: it does not say."""
    if seconds is None:
        return length.pod
    if length.exact:
        return seconds not in length.exact
    return seconds < length.least or (length.most is not None and seconds > length.most)


def under(text: str, domains: Collection[str]) -> bool:
    """Tell whether a domain is one of `domains` or below one: ford.com has www.ford.com below it, not notford.com."""
    name = domain(text)
    if name in domains:
        return True
    at = name.find(".", max(0, len(name) - DOMAIN_CHARS_MAX - 1))
    while at >= 0:
        if name[at + 1 :] in domains:
            return True
        at = name.find(".", at + 1)
    return False


def _markup(bid: Bid) -> str:
    """Give the markup of a bid, `adm`, or what stands for it: a native message and `nurl`; empty for none."""
    return wire.adm(bid.wire) or " ".join(filter(None, (wire.adm_native(bid.wire), wire.nurl(bid.wire))))


# Where an http: address is only a name: XML namespaces and the schemas beside them, document types, and what W3C calls
# its namespaces wherever they are written.
_NAMES = re.compile(
    r"""\bxmlns(?::[\w.-]+)?\s*=\s*(?:"[^"]*"|'[^']*')"""
    r"""|\bxsi:(?:noNamespaceSchemaLocation|schemaLocation)\s*=\s*(?:"[^"]*"|'[^']*')"""
    r"""|<!doctype[^>]*>|http://www\.w3\.org/""",
    re.IGNORECASE,
)
_DOCUMENT_TYPE = re.compile("<!doctype", re.IGNORECASE)


def insecure(markup: str) -> bool:
    """Tell whether markup holds an http: address that is not just a name."""
    if "http:" not in markup.lower():
        return False
    # Document types that nothing ends are none; each would be followed to the end, and a reply has room for thousands.
    ended = markup.rfind(">") + 1
    markup = markup[:ended] + _DOCUMENT_TYPE.sub("<?doctype", markup[ended:])
    return "http:" in _NAMES.sub("", markup).lower()


def _fits(width: int, height: int, asked: Format) -> bool:
    """Tell whether a size is one that was asked for. A bid without one takes the only one there is."""
    if not asked.sizes and not asked.ratios:
        return True
    if width <= 0 or height <= 0:
        return len(asked.sizes) == 1 and not asked.ratios
    # A ratio is kept to the nearest whole pixel: 16:9 at 300 is 168.75 high, which nobody can draw.
    return (width, height) in asked.sizes or any(
        width >= least and abs(width * hratio - height * wratio) * 2 <= wratio for wratio, hratio, least in asked.ratios
    )


# "xx" stands for a creative without words.
_NO_WORDS = "xx"


def _speaks(language: str, langb: str, blocks: Blocks) -> bool:
    """Tell whether a creative's language is one of those asked for; one that says none may be any."""
    if blocks.tags:
        tag = (langb or language).lower()
        allowed = any(tag == one or tag.startswith(f"{one}-") for one in blocks.tags)
    else:
        tag = primary_language(language or langb)
        allowed = tag in blocks.languages
    return allowed or not tag or tag == _NO_WORDS

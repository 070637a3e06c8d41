# What a bid shows: an advertiser the publisher has not blocked, and markup of the size and format that was asked for.
#
# Invented brands under .example, which nobody can register. The markup is what such markup looks like, in shape and
# size; it loads nothing from anywhere.

from __future__ import annotations

from collections.abc import Collection

import msgspec

from auction.v1.openrtb_pb2 import BidRequest, BidResponse


class Advertiser(msgspec.Struct, frozen=True):
    """Who pays for the ad: its domain and IAB category, and what the ad says."""

    domain: str
    category: str
    slogan: str


ADVERTISERS = (
    Advertiser("wagtail-motors.example", "IAB2-3", "The quiet car"),
    Advertiser("oatfield.example", "IAB8-9", "Breakfast, mostly oats"),
    Advertiser("northern-rail.example", "IAB20-18", "See the coast by train"),
    Advertiser("lumen-energy.example", "IAB18-1", "Power from your roof"),
    Advertiser("papermill-books.example", "IAB1-1", "Ten novels for autumn"),
    Advertiser("quarry-bank.example", "IAB13-4", "Save a little, often"),
    Advertiser("tidewater-shoes.example", "IAB18-3", "Walk further"),
    Advertiser("kiln-kitchen.example", "IAB10-6", "Pans that outlive you"),
)

# A bid without a size of its own takes this one: the most common of the web, and of phones held upright for video.
_SIZE = (300, 250)
# Seconds of an ad in a player that does not say how long it may be.
_SECONDS = 15


def advertiser(request: BidRequest, chance: float) -> Advertiser | None:
    """Choose an advertiser that the request blocks neither by domain nor by category; None where it blocks all."""
    blocked_domains, blocked = request.badv, request.bcat
    first = int(chance * len(ADVERTISERS))
    for place in range(len(ADVERTISERS)):
        candidate = ADVERTISERS[(first + place) % len(ADVERTISERS)]
        if not _blocked(candidate, blocked_domains, blocked):
            return candidate
    return None


def fill(bid: BidResponse.Bid, imp: BidRequest.Imp, medium: str, buyer: Advertiser, chance: float) -> None:
    """Give a bid everything but its price: advertiser, creative and markup."""
    creative = f"{buyer.domain.partition('.')[0]}-{1 + int(chance * 4)}"
    bid.adomain.append(buyer.domain)
    bid.cat.append(buyer.category)
    bid.cid = creative[:-2]
    if medium == "banner":
        bid.mtype = 1
        bid.w, bid.h = _size(imp.banner, chance)
        creative += f"-{bid.w}x{bid.h}"
        bid.adm = (
            f'<a href="https://{buyer.domain}/?from={creative}" target="_blank" rel="noopener">'
            f'<img src="https://cdn.{buyer.domain}/{creative}.webp" width="{bid.w}" height="{bid.h}" '
            f'alt="{buyer.slogan}"></a>'
        )
    elif medium == "native":
        bid.mtype = 4
        bid.adm = _native(imp.native, buyer, creative)
    else:
        video = medium == "video"
        player = imp.video if video else imp.audio
        bid.mtype = 2 if video else 3
        bid.dur = player.rqddurs[0] if player.rqddurs else min(player.maxduration or _SECONDS, 2 * _SECONDS)
        bid.dur = max(bid.dur, player.minduration)
        if player.protocols:
            bid.protocol = player.protocols[0]
        creative += f"-{bid.dur}s"
        bid.adm = _vast(buyer, creative, bid.dur, "video/mp4" if video else "audio/mpeg")
    bid.crid = creative
    bid.burl = f"https://dsp.example/billing?imp={imp.id}&price=${{AUCTION_PRICE}}"


def _blocked(candidate: Advertiser, domains: Collection[str], categories: Collection[str]) -> bool:
    return (
        candidate.domain in domains
        or candidate.category in categories
        or candidate.category.partition("-")[0] in categories
    )


def _size(banner: BidRequest.Banner, chance: float) -> tuple[int, int]:
    sized = [asked for asked in banner.format if asked.w and asked.h]
    if sized:
        asked = sized[int(chance * len(sized))]
        return asked.w, asked.h
    return (banner.w, banner.h) if banner.w and banner.h else _SIZE


def _vast(buyer: Advertiser, creative: str, seconds: int, mime: str) -> str:
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return (
        f'<VAST version="4.2"><Ad id="{creative}"><InLine><AdSystem>demo</AdSystem><AdTitle>{buyer.slogan}</AdTitle>'
        f"<Impression><![CDATA[https://dsp.example/shown?ad={creative}]]></Impression><Creatives><Creative><Linear>"
        f"<Duration>{clock}</Duration><VideoClicks><ClickThrough><![CDATA[https://{buyer.domain}/?from={creative}]]>"
        f'</ClickThrough></VideoClicks><MediaFiles><MediaFile delivery="progressive" type="{mime}" width="1280" '
        f'height="720"><![CDATA[https://cdn.{buyer.domain}/{creative}]]></MediaFile></MediaFiles></Linear></Creative>'
        f"</Creatives></InLine></Ad></VAST>"
    )


class _Asset(msgspec.Struct):
    id: int = 0
    title: dict[str, object] | None = None
    img: dict[str, object] | None = None
    data: dict[str, object] | None = None


class _NativeRequest(msgspec.Struct):
    assets: list[_Asset] = []
    # Version 1.0 wraps everything in one member, and some senders still do.
    native: _NativeRequest | None = None


def _native(native: BidRequest.Native, buyer: Advertiser, creative: str) -> str:
    """Answer the assets that were asked for, as far as a picture and some words can."""
    try:
        asked = msgspec.json.decode(native.request or b"{}", type=_NativeRequest)
    except msgspec.MsgspecError:
        asked = _NativeRequest()
    assets: list[dict[str, object]] = []
    for asset in (asked.native or asked).assets:
        if asset.title is not None:
            assets.append({"id": asset.id, "title": {"text": buyer.slogan}})
        elif asset.img is not None:
            assets.append({"id": asset.id, "img": {"url": f"https://cdn.{buyer.domain}/{creative}.webp"}})
        elif asset.data is not None:
            assets.append({"id": asset.id, "data": {"value": buyer.domain.partition(".")[0]}})
    link = {"url": f"https://{buyer.domain}/?from={creative}"}
    return msgspec.json.encode({"native": {"ver": "1.2", "assets": assets, "link": link}}).decode()

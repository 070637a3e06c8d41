# What the survey finds in a request, and the views that are cut out by it, against the message itself.
#
# Goal: kernels/survey.py and the nouns made of its cells say of a request what its message says, and a view that is cut
# and pasted is, byte by byte, what protobuf would have written. Method: generated requests and those of the corpus are
# read a second time attribute by attribute; floors are told at random, and the same view is written by the message.

from __future__ import annotations

import json
from functools import reduce
from importlib.resources import files
from operator import or_
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auction.core.kernels.survey import DEAL_CELLS
from auction.core.openrtb import json as codec
from auction.core.openrtb import requests, views
from auction.model.errors import InvalidRequest
from auction.model.money import CpmMicros, cpm, floor_micros
from auction.model.request import Audience, BidRequest, Survey, Told, Whose
from auction.model.rules import Limits
from auction.v1 import openrtb_pb2
from tests.fuzz import auctions

LAW = settings(
    max_examples=300, derandomize=True, deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
CORPUS = sorted(one.name for one in files("bidders").joinpath("requests").iterdir() if one.name.endswith(".json"))
LIMITS = Limits()


def message_of(body: bytes) -> Any:
    return requests.parse_request(codec.request_bytes(body, lenient=True, depth=32).message)


def generated(r: Random) -> bytes:
    request = auctions.request(r)
    if not r.randrange(3):
        request["wseat"] = auctions.some(r, auctions.SEATS)
    if not r.randrange(3):
        where = r.choice(("site", "app", "dooh"))
        request[where] = {"domain": r.choice(("News.Example.", "", "a.example")), "name": "n"}
    if not r.randrange(3):
        geo = {"lat": 1.5, "country": r.choice(("gbr", "")), "city": "c", "zip": "z"}
        request["device"] = {"ua": "x", "devicetype": r.choice((0, 2, 7)), "pxratio": 1.5, "geo": geo, "w": 1}
    if not r.randrange(3):
        request["tmax"] = r.choice((0, 1, 127, 128, 100_000))
    if not r.randrange(3):
        request["source"], request["test"], request["allimps"] = {"tid": "t"}, 1, 0
    for imp in request["imp"]:
        if not r.randrange(3):
            # What no rule reads, of every wire type and on either side of what one does.
            imp |= {
                "displaymanager": "d",
                "instl": 1,
                "exp": 9,
                "dt": 1.5,
                "iframebuster": ["x"],
                "qty": {"multiplier": 2},
            }
        for media in ("banner", "video", "audio", "native"):
            if media in imp and not r.randrange(3):
                imp[media] |= {"mimes": ["m/x"], "pos": 1, "api": [3], "id": "b", "ver": "1", "protocols": [200, 3]}
    if not r.randrange(3):
        extend(r, request)
    return json.dumps(request).encode()


def extend(r: Random, value: Any) -> None:
    """Give some objects an Ext, which is the last thing in any message."""
    if isinstance(value, list):
        for element in value:
            extend(r, element)
    if isinstance(value, dict):
        for member in value.values():
            extend(r, member)
        if r.randrange(2):
            value["ext"] = {"ours": 1}


def surveyed(message: Any) -> tuple[Survey, list[int], BidRequest]:
    survey, cells = requests.survey_request(message, LIMITS)
    return survey, cells, requests.decode_request(message, survey.body, cells, LIMITS)[0]


def holds(request: BidRequest, message: Any) -> None:
    """Hold what was read of a request to its message, attribute by attribute."""
    assert (message.id, message.at or 2, message.tmax, tuple(message.cur)) == (
        request.id, request.at, request.tmax_ms, request.cur,
    )  # fmt: skip
    assert (frozenset(message.wseat), frozenset(message.bseat)) == (request.seats, request.blocked_seats)
    lists = (message.badv, message.bcat, message.bapp, message.wlang, message.wlangb)
    assert (request.blocks is None) == (not any(lists))
    if request.blocks is not None:
        blocks = request.blocks
        assert blocks.advertisers == {name.lower().removesuffix(".") for name in message.badv} - {""}
        assert (blocks.categories, blocks.taxonomy) == (set(message.bcat), message.cattax)
        assert blocks.apps == set(message.bapp) - {""}
        assert blocks.languages == {tag.split("-")[0].lower() for tag in message.wlang}
        assert blocks.tags == tuple(tag.lower() for tag in message.wlangb)
        assert blocks.speak == bool(message.wlang or message.wlangb)
    assert len(message.imp) == len(request.imps)
    for imp, noun in zip(message.imp, request.imps, strict=True):
        holds_imp(noun, imp)


def holds_imp(noun: Any, imp: Any) -> None:
    assert (imp.id, imp.tagid, imp.secure, imp.bidfloorcur) == (noun.id, noun.tagid, noun.secure, noun.currency)
    assert (floor_micros(imp.bidfloor), imp.pmp.private_auction) == (noun.floor, noun.private_auction)
    numbers = {1: "banner", 2: "video", 3: "audio", 4: "native"}
    offered = {number for number, name in numbers.items() if imp.HasField(name)}
    assert offered == set(noun.formats)
    assert reduce(or_, (1 << number - 1 for number in offered)) == noun.media
    assert noun.only == (min(offered) if len(offered) == 1 else 0)
    sizes = set()
    for number, format in noun.formats.items():
        media = getattr(imp, numbers[number])
        assert set(media.battr) == format.attributes
        asked = [(one.w, one.h) for one in (media, *media.format) if one.w > 0 and one.h > 0] if number == 1 else []
        assert set(asked) == format.sizes
        sizes |= set(asked)
        if number == 2 and media.w > 0 and media.h > 0:
            sizes.add((media.w, media.h))
        ratios = [one for one in media.format if not (one.w > 0 and one.h > 0)] if number == 1 else []
        assert format.ratios == tuple(
            (one.wratio, one.hratio, one.wmin) for one in ratios if one.wratio > 0 and one.hratio > 0
        )
        if number in (2, 3):
            holds_length(format, media)
        else:
            assert (None, None) == (format.length, format.timed)
    flexible = 1 in noun.formats and noun.formats[1].ratios
    assert noun.size == ("{}x{}".format(*sizes.pop()) if len(sizes) == 1 and not flexible else "")
    timed = [format.timed for format in noun.formats.values() if format.timed is not None]
    fine = cpm(noun.floor) > imp.bidfloor or any(one.fine for one in timed)
    assert noun.fine == (fine or any(deal.fine for deal in noun.deals.values()))
    for place, deal in reversed(list(enumerate(imp.pmp.deals))):
        read = noun.deals[deal.id]
        if read.place != place:
            assert read.place < place
            continue
        assert read.floor == (floor_micros(deal.bidfloor) if deal.HasField("bidfloor") else None)
        assert (read.currency, read.at, read.seats) == (deal.bidfloorcur, deal.at, set(deal.wseat))
        domains = {name.lower().removesuffix(".") for name in deal.wadomain} - {""}
        assert read.advertisers == (domains or {""} if deal.wadomain else set())
        holds_timed(read.timed, deal)
        finer = read.floor is not None and cpm(read.floor) > deal.bidfloor
        assert read.fine == (finer or (read.timed is not None and read.timed.fine))


def holds_length(format: Any, media: Any) -> None:
    length = format.length
    limited = media.HasField("minduration") or media.HasField("maxduration") or media.poddur > 0 or media.rqddurs
    assert (length is None) == (not limited)
    if length is not None:
        most = media.maxduration if media.HasField("maxduration") else None
        assert (length.least, length.most) == (media.minduration, most)
        assert (length.exact, length.pod) == (set(media.rqddurs), media.poddur > 0)
    holds_timed(format.timed, media)


def holds_timed(timed: Any, holder: Any) -> None:
    assert (timed is None) == (not holder.durfloors and not holder.HasField("mincpmpersec"))
    if timed is not None:
        assert [floor_micros(row.bidfloor) for row in holder.durfloors] == [row[2] for row in timed.rows]
        assert (timed.rate is None) == (not holder.HasField("mincpmpersec"))


@LAW
@given(st.randoms(use_true_random=False))
def test_what_is_read_of_a_request_is_what_its_message_says(r: Random) -> None:
    message = message_of(generated(r))
    try:
        survey, cells, request = surveyed(message)
    except InvalidRequest:
        return
    holds(request, message)
    channel = message.WhichOneof("distributionchannel")
    domain = "" if channel is None else getattr(message, channel).domain.lower().removesuffix(".")
    kind = message.device.devicetype
    expected = Audience(domain, message.device.geo.country.upper(), str(kind) if kind else "")
    assert expected == requests.audience(survey.body, cells)


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_read_of_the_corpus_is_what_its_messages_say(name: str) -> None:
    message = message_of(files("bidders").joinpath("requests", name).read_bytes())
    holds(surveyed(message)[2], message)


def test_deals_beyond_the_limit_are_counted_and_not_read() -> None:
    deals = [{"id": str(place)} for place in range(LIMITS.deals_per_imp + 1)]
    used = []
    for count in (0, LIMITS.deals_per_imp, LIMITS.deals_per_imp + 1):
        request = {"id": "r", "imp": [{"id": "1", "banner": {}, "pmp": {"deals": deals[:count]}}]}
        used.append(len(requests.survey_request(message_of(json.dumps(request).encode()), LIMITS)[1]))
    assert used[0] == used[2] == used[1] - LIMITS.deals_per_imp * DEAL_CELLS


def told_at_random(r: Random, request: BidRequest) -> dict[Whose, Told]:
    told: dict[Whose, Told] = {}
    for row, imp in enumerate(request.imps):
        for whose in ((row,), *((row, -1, deal.place) for deal in imp.deals.values())):
            if r.randrange(2):
                told[whose] = Told(r.choice(("USD", "JPY")), CpmMicros(r.choice((0, 1, 2_500_000, 10**15))))
    return told


@LAW
@given(st.randoms(use_true_random=False))
def test_a_view_that_is_cut_and_pasted_is_what_the_message_writes(r: Random) -> None:
    message = message_of(generated(r))
    try:
        survey, cells, request = surveyed(message)
    except InvalidRequest:
        return
    every = range(len(request.imps))
    imps = tuple(row for row in every if r.randrange(4)) or tuple(every)
    told, tmax_ms = told_at_random(r, request), r.choice((0, 1, 127, 128, 16_384, 2**31 - 1))
    cut = views.view(message, survey.body, cells, imps, tmax_ms, told)
    assert cut == views._view_of_message(message, imps, tmax_ms, told)
    assert cut == openrtb_pb2.BidRequest.FromString(cut).SerializeToString()

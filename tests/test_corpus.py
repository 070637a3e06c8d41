# What the two corpora promise to whoever builds on them; that the exchange answers as they say is asked elsewhere.
#
# Nothing here imports the product: a mistake shared with it would hide itself. The checks of RULES are therefore
# written a second time, for requests that are sound, so they need no messages.

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest

from tests.corpus import MALFORMED, Refused, accepted, refused

Json = Any

ACCEPTED = accepted()
REQUESTS: dict[str, Json] = {name: msgspec.json.decode(body) for name, body in ACCEPTED.items()}
SOUND = {name: request for name, request in REQUESTS.items() if not name.startswith("sloppy-")}
REFUSED = refused()
ERRORS = Path(__file__).parents[1] / "docs" / "errors.md"

RATES = {"USD", "EUR", "GBP", "JPY", "KRW"}
FORMATS = {"banner", "video", "audio", "native"}
AMOUNTS = {"bidfloor", "mincpmpersec"}
DOCUMENTATION = [ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]


def walk(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield every member below a value with its path, list indexes left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}", inner
            yield from walk(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, path)


def depth(value: Json) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def members(request: Json, *names: str) -> list[Json]:
    """Collect the values of one nested field over all impressions (or another list) of a request."""
    found = [request]
    for name in names:
        found = [inner[name] for inner in found if isinstance(inner, dict) and name in inner]
        found = [item for inner in found for item in (inner if isinstance(inner, list) else [inner])]
    return found


def test_the_collection_is_large_enough_and_mostly_sound() -> None:
    assert len(REQUESTS) >= 64
    assert len(SOUND) >= 58
    assert len(REQUESTS) - len(SOUND) >= 6


def test_sizes_are_those_of_real_traffic() -> None:
    sizes = {name: len(body) for name, body in ACCEPTED.items()}
    assert not {name: size for name, size in sizes.items() if not 500 <= size <= 20_480}
    assert 1_700 <= median(sizes.values()) <= 2_600
    assert max(sizes.values()) >= 16_384


def test_no_two_requests_share_an_id() -> None:
    assert len(REQUESTS) == len({str(request["id"]) for request in REQUESTS.values()})


def test_no_two_requests_share_a_shape() -> None:
    assert len(REQUESTS) == len({frozenset(path for path, _ in walk(request)) for request in REQUESTS.values()})


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_request_breaks_no_rule(name: str) -> None:
    request = SOUND[name]
    assert isinstance(request["id"], str)
    assert request["id"]
    assert 1 <= len(request["imp"]) <= 100
    assert depth(request) <= 32
    assert len({"site", "app", "dooh"} & request.keys()) <= 1
    assert request.get("at", 0) in (0, 1, 2)
    assert request.get("tmax", 0) >= 0
    assert not request.get("cur") or RATES & set(request["cur"])
    ids = [imp["id"] for imp in request["imp"]]
    assert len(ids) == len(set(ids))
    for imp in request["imp"]:
        assert isinstance(imp["id"], str)
        assert imp["id"]
        assert FORMATS & imp.keys()
        for timed in members(imp, "video") + members(imp, "audio"):
            assert "rqddurs" not in timed or not {"minduration", "maxduration"} & timed.keys()
        deals = members(imp, "pmp", "deals")
        assert len(deals) <= 64
        for deal in deals:
            assert isinstance(deal["id"], str)
            assert deal["id"]
            assert deal.get("at", 0) in (0, 1, 2, 3)
        for path, value in walk({key: inner for key, inner in imp.items() if key != "ext"}):
            field = path.rpartition(".")[2]
            if field in AMOUNTS and ".ext." not in path:
                assert type(value) in (int, float), path
                assert 0 <= value <= 1_000_000_000, path
            if field == "bidfloorcur":
                assert value in RATES, path


FEATURES: dict[str, tuple[int, Callable[[Json], object]]] = {
    "site": (30, lambda r: "site" in r),
    "app": (15, lambda r: "app" in r),
    "dooh": (3, lambda r: "dooh" in r),
    "no channel": (1, lambda r: not {"site", "app", "dooh"} & r.keys()),
    "banner": (30, lambda r: members(r, "imp", "banner")),
    "banner in several sizes": (15, lambda r: any(len(b.get("format", ())) > 1 for b in members(r, "imp", "banner"))),
    "instream video": (8, lambda r: 1 in members(r, "imp", "video", "plcmt")),
    "outstream video": (2, lambda r: 4 in members(r, "imp", "video", "plcmt")),
    "video of a structured pod": (3, lambda r: members(r, "imp", "video", "podid")),
    "video of a dynamic pod": (2, lambda r: members(r, "imp", "video", "poddur")),
    "audio": (3, lambda r: members(r, "imp", "audio")),
    "audio of a dynamic pod": (1, lambda r: members(r, "imp", "audio", "poddur")),
    "native, its request readable": (5, lambda r: [json.loads(n) for n in members(r, "imp", "native", "request")]),
    "several formats in one impression": (3, lambda r: any(len(FORMATS & i.keys()) > 1 for i in r["imp"])),
    "companions": (2, lambda r: members(r, "imp", "video", "companionad") + members(r, "imp", "audio", "companionad")),
    "one impression": (30, lambda r: len(r["imp"]) == 1),
    "several impressions": (15, lambda r: len(r["imp"]) > 1),
    "twelve impressions": (1, lambda r: len(r["imp"]) == 12),
    "rewarded": (1, lambda r: 1 in members(r, "imp", "rwdd")),
    "interstitial": (2, lambda r: 1 in members(r, "imp", "instl")),
    "multiplier": (3, lambda r: members(r, "imp", "qty")),
    "deals": (12, lambda r: members(r, "imp", "pmp", "deals")),
    "private auction": (3, lambda r: 1 in members(r, "imp", "pmp", "private_auction")),
    "private auction with nothing to sell": (1, lambda r: any(p["deals"] == [] for p in members(r, "imp", "pmp"))),
    "deal at 1": (3, lambda r: 1 in members(r, "imp", "pmp", "deals", "at")),
    "deal at 2": (3, lambda r: 2 in members(r, "imp", "pmp", "deals", "at")),
    "deal at 3": (3, lambda r: 3 in members(r, "imp", "pmp", "deals", "at")),
    "deal with a floor of 0": (1, lambda r: 0 in members(r, "imp", "pmp", "deals", "bidfloor")),
    "deal without a floor": (3, lambda r: any("bidfloor" not in d for d in members(r, "imp", "pmp", "deals"))),
    "deal floor in its own currency": (5, lambda r: members(r, "imp", "pmp", "deals", "bidfloorcur")),
    "deal for some seats": (8, lambda r: members(r, "imp", "pmp", "deals", "wseat")),
    "deal for some advertisers": (3, lambda r: members(r, "imp", "pmp", "deals", "wadomain")),
    "duration floors": (3, lambda r: members(r, "imp", "video", "durfloors") + members(r, "imp", "audio", "durfloors")),
    "duration floors of a deal": (2, lambda r: members(r, "imp", "pmp", "deals", "durfloors")),
    "floor per second": (3, lambda r: members(r, "imp", "video", "mincpmpersec")),
    "floor per second of a deal": (2, lambda r: members(r, "imp", "pmp", "deals", "mincpmpersec")),
    "required durations": (2, lambda r: members(r, "imp", "video", "rqddurs")),
    "floor of 0": (1, lambda r: 0 in members(r, "imp", "bidfloor")),
    "no floor": (3, lambda r: any("bidfloor" not in i for i in r["imp"])),
    "floor in EUR": (4, lambda r: "EUR" in members(r, "imp", "bidfloorcur")),
    "floor in GBP": (3, lambda r: "GBP" in members(r, "imp", "bidfloorcur")),
    "floor in JPY": (4, lambda r: "JPY" in members(r, "imp", "bidfloorcur")),
    "floor in KRW": (1, lambda r: "KRW" in members(r, "imp", "bidfloorcur")),
    "answer in JPY only": (2, lambda r: r.get("cur") == ["JPY"]),
    "answer in any currency": (3, lambda r: "cur" not in r),
    "first price": (15, lambda r: r.get("at") == 1),
    "second price": (15, lambda r: r.get("at") == 2),
    "no auction type": (1, lambda r: not r.get("at")),
    "tmax absent": (1, lambda r: "tmax" not in r),
    "tmax of 100 or less": (8, lambda r: 0 < r.get("tmax", 0) <= 100),
    "tmax above 500": (2, lambda r: r.get("tmax", 0) > 500),
    "test": (1, lambda r: r.get("test") == 1),
    "identities from three sources": (10, lambda r: len(members(r, "user", "eids", "source")) >= 3),
    "identities in their old place": (1, lambda r: members(r, "user", "ext", "eids")),
    "gdpr with a TCF string": (10, lambda r: 1 in members(r, "regs", "gdpr") and any(members(r, "user", "consent"))),
    "gdpr in its old place": (1, lambda r: 1 in members(r, "regs", "ext", "gdpr")),
    "gpp": (4, lambda r: members(r, "regs", "gpp") and members(r, "regs", "gpp_sid")),
    "us privacy": (5, lambda r: members(r, "regs", "us_privacy")),
    "us privacy in its old place": (1, lambda r: members(r, "regs", "ext", "us_privacy")),
    "global privacy control": (1, lambda r: "1" in members(r, "regs", "ext", "gpc")),
    "coppa": (1, lambda r: 1 in members(r, "regs", "coppa")),
    "limited tracking": (3, lambda r: 1 in members(r, "device", "lmt")),
    "do not track": (1, lambda r: 1 in members(r, "device", "dnt")),
    "ad transparency": (1, lambda r: members(r, "regs", "ext", "dsa")),
    "IPv6": (2, lambda r: members(r, "device", "ipv6")),
    "long user agent": (1, lambda r: any(len(ua) > 400 for ua in members(r, "device", "ua"))),
    "user agent in parts": (3, lambda r: members(r, "device", "sua", "browsers")),
    "supply chain": (15, lambda r: members(r, "source", "schain", "nodes")),
    "supply chain of four": (1, lambda r: len(members(r, "source", "schain", "nodes")) == 4),
    "supply chain in its old place": (1, lambda r: members(r, "source", "ext", "schain")),
    "blocked categories": (15, lambda r: r.get("bcat")),
    "long block lists": (1, lambda r: len(r.get("badv", ())) > 50 and len(r.get("bcat", ())) > 50),
    "blocked apps": (2, lambda r: r.get("bapp")),
    "allowed and blocked seats": (1, lambda r: r.get("wseat") and r.get("bseat")),
    "SKAdNetwork": (1, lambda r: members(r, "imp", "ext", "skadn")),
    "fields that nobody knows": (1, lambda r: "reqhash" in r),
    "large ext": (2, lambda r: sum(len(json.dumps(v)) for p, v in walk(r) if re.fullmatch(r"[^x]*\.ext", p)) > 2_000),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_sound_requests_cover(feature: str) -> None:
    wanted, present = FEATURES[feature]
    assert wanted <= sum(bool(present(request)) for request in SOUND.values())


@pytest.mark.parametrize(
    "letters", ["[ぁ-ん]", "[가-힣]", "[ء-ي]", "[अ-ह]", "[ก-ฮ]", "[\U0001f300-\U0001faff]", "[äöüß]", "\u200d", "\x01"]
)
def test_sound_requests_speak(letters: str) -> None:
    values = [value for request in SOUND.values() for _, value in walk(request) if isinstance(value, str)]
    assert any(re.search(letters, value) for value in values)


@pytest.mark.parametrize("name", REQUESTS)
def test_people_and_companies_are_invented(name: str) -> None:
    for path, value in walk(REQUESTS[name]):
        if path in (".device.ip", ".device.ipv6"):
            assert any(ip_address(value) in network for network in DOCUMENTATION), path
        if path.endswith((".domain", ".asi", ".inserter", ".matcher", ".eids.source")):
            assert value.endswith(".example"), path
    for host in re.findall(r"https?:\\?/\\?/([^/?\"\\]+)", ACCEPTED[name].decode()):
        assert host.endswith(".example"), host


def test_the_benchmark_request_stays_what_it_is() -> None:
    body, request = ACCEPTED["site-banner-2kb"], REQUESTS["site-banner-2kb"]
    assert 1_900 <= len(body) <= 2_150
    assert len(body) == len(json.dumps(request, separators=(",", ":")))
    assert [{"banner"}, {"banner"}] == [FORMATS & imp.keys() for imp in request["imp"]]
    assert len(members(request["imp"][0], "pmp", "deals")) == 2
    assert not members(request["imp"][1], "pmp")
    assert {"site", "device", "user", "regs", "source", "ext"} <= request.keys()
    assert members(request, "user", "eids")
    assert members(request, "site", "content")
    assert members(request, "source", "schain", "nodes")


def test_every_malformed_body_has_one_row_and_every_row_a_body() -> None:
    names = [case.name for case in REFUSED]
    assert len(names) >= 45
    assert sorted(names) == sorted(file.stem for file in MALFORMED.glob("*.json"))


def test_no_two_malformed_bodies_are_alike() -> None:
    assert len(REFUSED) == len({case.body for case in REFUSED})


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_malformed_body_fails_where_its_row_says(case: Refused) -> None:
    if " JSON, " in case.message or " UTF-8, " in case.message:
        assert case.message == _syntax(case.body)
        return
    if case.message == "nested deeper than 32 levels":
        assert len(case.body) <= 262_144
        assert max(_levels(case.body)) > 32
        return
    value = json.loads(case.body)
    if case.message.startswith("expected at most 262144 bytes"):
        assert len(case.body) == 262_145
        return
    assert len(case.body) <= 262_144
    steps = re.findall(r"[a-z_]+|\d+", case.path)
    for step in steps[:-1]:
        value = value[int(step)] if step.isdigit() else value[step]
    if case.message != "missing" and steps:
        last = steps[-1]
        assert (int(last) < len(value)) if last.isdigit() else last in value


def _syntax(body: bytes) -> str:
    try:
        body.decode()
        msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        return f"expected UTF-8, was malformed (byte {error.start})"
    except msgspec.DecodeError as error:
        if not body.strip():
            return "expected JSON, was empty"
        reason = str(error)
        return f"expected JSON, was {'truncated' if 'truncated' in reason else reason.removeprefix('JSON is ')}"
    return "sound"


def _levels(body: bytes) -> Iterator[int]:
    level = 0
    for character in re.sub(rb'"[^"]*"', b"", body):
        level += (character in b"[{") - (character in b"]}")
        yield level


def test_every_documented_refusal_has_its_malformed_body() -> None:
    text = ERRORS.read_text(encoding="utf-8").partition("## Protobuf")[0]
    documented = re.findall(r"^\| .* \| `(.+)` \|$", text, re.MULTILINE)
    answers = {f"{case.path}: {case.message}" if case.path else case.message for case in REFUSED}
    assert len(documented) >= 25
    assert not set(documented) - answers


def test_every_malformed_body_fails_by_a_documented_refusal() -> None:
    text = ERRORS.read_text(encoding="utf-8").partition("## Protobuf")[0]
    examples = re.findall(r"^\| .* \| `(?:\S+: )?(.+)` \|$", text, re.MULTILINE)
    forms = {_form(example) for example in examples}
    assert not {_form(case.message) for case in REFUSED} - forms


def _form(message: str) -> str:
    """Take out of a message what differs from case to case: the value found, and what stood beside it."""
    return re.sub(r"(, was(?: malformed)?|, were|duplicate of|without)\b.*", r"\1", message)

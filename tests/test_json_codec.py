# The codec's promise: a JSON value goes in, a message travels, the same JSON value comes out.
#
# Random values are built from the published field table, which the codec does not read, with noise of every kind where
# the rules of an auction do not look. Equality is JSON's: true is not 1, 1 is 1.0, the order of members is nothing.

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from auction.core.openrtb.json import (
    REPAIRS_MAX,
    Encoded,
    Repair,
    request_bytes,
    request_json,
    request_message,
    response_bytes,
    response_json,
    response_message,
    strip_rest,
)
from auction.core.openrtb.schema import RULED
from auction.model.errors import InvalidReply, InvalidRequest
from auction.v1.exchange_pb2 import Explanation
from auction.v1.json_rest_pb2 import JsonRest
from auction.v1.openrtb_pb2 import BidRequest, BidResponse
from tests.test_contract import MESSAGES, PUBLISHED, WITHOUT_EXT, named

ROOT = Path(__file__).parents[1]
BODIES = sorted([*(ROOT / "bidders" / "requests").glob("*.json"), *(ROOT / "tests" / "corpus").glob("**/*.json")])
DEPTH = 32


def request(**members: Any) -> dict[str, Any]:
    return {"id": "r", "imp": [{"id": "1", "banner": {}}], **members}


def response(*bids: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": "r", "seatbid": [{"seat": "s", "bid": list(bids)}], **members}


def bid(**members: Any) -> dict[str, Any]:
    return {"id": "b", "impid": "1", "price": 1.5, **members}


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def sent(value: Any, *, lenient: bool = True, depth: int = DEPTH) -> Encoded:
    return request_bytes(text(value), lenient=lenient, depth=depth)


def answered(value: Any, *, lenient: bool = True, depth: int = DEPTH) -> Encoded:
    return response_bytes(text(value), lenient=lenient, depth=depth)


def told(encoded: Encoded, *, rest: bool = True) -> Any:
    return json.loads(request_json(encoded.message, rest=rest))


def told_reply(encoded: Encoded, *, rest: bool = True) -> Any:
    return json.loads(response_json(encoded.message, rest=rest))


def canonical(value: Any) -> Any:
    """Make values that JSON calls equal equal in Python, and no others."""
    if isinstance(value, dict):
        return {name: canonical(member) for name, member in value.items()}
    if isinstance(value, list):
        return [canonical(element) for element in value]
    return ("bool", value) if isinstance(value, bool) else value


def assert_same(expected: Any, actual: Any, repairs: tuple[Repair, ...] = ()) -> None:
    """Assert that two values are equal, named repairs aside."""
    expected = json.loads(text(expected))  # what is blanked may stand in several places
    for repair in repairs:
        if not repair.text.endswith("the bid is void"):
            blank(expected, repair.path)
            blank(actual, repair.path)
    assert canonical(expected) == canonical(actual)


def blank(value: Any, path: str) -> None:
    """Empty what stands at a path; in a list of one that was repaired to be one, the list."""
    *way, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    for part in way:
        value = value[part]
    if not isinstance(last, int) or isinstance(value, list):
        value[last] = None


def levels(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels, inner), default=0)


# ------------------------------------------------------------------------------------------------ real and broken input


@pytest.mark.parametrize("path", BODIES, ids=lambda path: path.stem)
def test_every_body_of_the_corpora_comes_back_or_is_refused(path: Path) -> None:
    body = path.read_bytes()
    try:
        encoded = request_bytes(body, lenient=True, depth=DEPTH)
    except InvalidRequest:
        assert path.parent.name == "malformed"
        return
    assert_same(json.loads(body), told(encoded), encoded.repairs)
    assert told(encoded, rest=False) == json.loads(request_json(strip_rest(encoded.message), rest=True))
    if encoded.repairs:
        with pytest.raises(InvalidRequest) as refusal:
            request_bytes(body, lenient=False, depth=DEPTH)
        assert refusal.value.path in {repair.path for repair in encoded.repairs}
    else:
        assert encoded == request_bytes(body, lenient=False, depth=DEPTH)


# ------------------------------------------------------------------------------------------------------ generated input

NOTHING_ELSE = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))

characters = st.characters(codec="utf-8")
strings = st.text(characters, max_size=6) | st.sampled_from(["", "1", "0.5", "¢\x1f", "日本", "\0"])
integers = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 127, 128, 2**31 - 1, -(2**31)])
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0, 1, 0.0, -0.0, 0.1, 2**53, 1e22])
noise = st.recursive(
    st.none()
    | st.booleans()
    | strings
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([2**31, -(2**31) - 1, 2**53 + 1, 2**64, 1.5, 1e300, "json_rest", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings | st.just("ext"), inner, max_size=3),
    max_leaves=6,
)
nearly = st.sampled_from(
    [0, 1, 2, 0.5, "0", "1", "0.5", True, False, "a", ["1"], [1, "2", True], ["a", 1], {}, [{}], [{}, 1]]
)
FITTING = {"string": strings, "int32": integers, "double": doubles, "bool": st.sampled_from([0, 1])}
ONLY_IN_MESSAGES = {"request_native", "adm_native"}


def unknown_names(message: str) -> st.SearchStrategy[str]:
    known = {field.name for field in PUBLISHED if field.message == message} | {"ext"}
    return (strings | st.sampled_from(["json_rest", "x-", "500", "self"])).filter(lambda name: name not in known)


def member(field: Any) -> st.SearchStrategy[Any]:
    if field.type == "map<string,double>":
        one: st.SearchStrategy[Any] = st.dictionaries(strings, doubles, max_size=3)
    elif field.type == "Value":
        one = noise
    elif field.type in FITTING:
        one = FITTING[field.type]
    else:
        one = messages(named(field.message, field.type))
    return st.lists(one, max_size=3) if field.many else one


def members(message: str) -> dict[str, st.SearchStrategy[Any]]:
    """Describe the members of a message; where the rules do not look, anything may stand."""
    found = {}
    for field in PUBLISHED:
        if field.message == message and field.name not in ONLY_IN_MESSAGES:
            fits = st.deferred(lambda field=field: member(field))
            ruled = field.name in RULED.get(message, "").split()
            found[field.name] = fits | st.none() if ruled else fits | nearly | noise
    if not message.endswith(".Ext") and message not in WITHOUT_EXT:
        ext = st.deferred(lambda: messages(f"{message}.Ext"))
        found["ext"] = ext | noise
    return found


@st.composite
def messages(draw: st.DrawFn, message: str) -> dict[str, Any]:
    """Draw a few members of a message, in any order, with unknown ones between them."""
    possible = members(message)
    names = draw(st.lists(st.sampled_from(sorted(possible)), max_size=6, unique=True)) if possible else []
    value = {name: draw(possible[name]) for name in names}
    for name in draw(st.lists(unknown_names(message), max_size=2)):
        value[name] = draw(noise)
    if message == "BidRequest":
        channels = [name for name in ("site", "app", "dooh") if value.get(name) is not None]
        for name in channels[1:]:
            del value[name]
    return dict(draw(st.permutations(list(value.items()))))


@NOTHING_ELSE
@given(messages("BidRequest"))
def test_any_request_comes_back_as_it_was(value: dict[str, Any]) -> None:
    encoded = sent(value)
    BidRequest.FromString(encoded.message)
    assert_same(value, told(encoded), encoded.repairs)


@NOTHING_ELSE
@given(messages("BidResponse"))
def test_any_reply_comes_back_as_it_was(value: dict[str, Any]) -> None:
    encoded = answered(value)
    BidResponse.FromString(encoded.message)
    assert_same(value, told_reply(encoded), encoded.repairs)


@NOTHING_ELSE
@given(
    st.sampled_from(sorted(MESSAGES)).filter(lambda name: name.startswith(("BidRequest.", "BidResponse."))), st.data()
)
def test_any_message_of_the_standard_comes_back_as_it_was(message: str, data: st.DataObject) -> None:
    # Roots seldom draw what lies deep, so each message is also asked for in its place.
    value = data.draw(messages(message))
    root, place = placed(message, value)
    read, tell = (sent, told) if root == "BidRequest" else (answered, told_reply)
    encoded = read(place)
    assert_same(place, tell(encoded), encoded.repairs)


def placed(message: str, value: Any) -> tuple[str, Any]:
    """Wrap a value in the messages around it, up to a root."""
    while message not in ("BidRequest", "BidResponse"):
        if message.endswith(".Ext"):
            message, value = message.removesuffix(".Ext"), {"ext": value}
            continue
        holder = next(
            field
            for field in PUBLISHED
            if field.name not in ONLY_IN_MESSAGES
            and not field.message.startswith("Native")
            and field.type not in FITTING
            and named(field.message, field.type) == message
        )
        message, value = holder.message, {holder.name: [value] if holder.many else value}
    return message, value


@NOTHING_ELSE
@given(messages("BidRequest"))
def test_a_view_without_rest_is_the_same_in_both_encodings(value: dict[str, Any]) -> None:
    encoded = sent(value)
    stripped = strip_rest(encoded.message)
    assert told(encoded, rest=False) == json.loads(request_json(stripped, rest=True))
    assert encoded.has_rest == (b"\xa2\x1f" in encoded.message and stripped != encoded.message)
    assert stripped == strip_rest(stripped)


@NOTHING_ELSE
@given(noise | messages("BidRequest"), st.integers(1, 8))
@example({"site": {"cat": ["a"]}}, 2)
@example({"imp": [{}]}, 2)
@example({"imp": []}, 1)
@example({"bcat": []}, 1)
def test_a_request_is_refused_for_its_depth_exactly_when_it_is_deeper(value: Any, depth: int) -> None:
    try:
        sent(value, depth=depth)
    except InvalidRequest as refusal:
        if refusal.message == f"nested deeper than {depth} levels":
            assert levels(value) > depth
        return
    assert levels(value) <= depth


@NOTHING_ELSE
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | noise.map(text), st.booleans())
def test_any_bytes_are_read_or_refused(body: bytes, lenient: bool) -> None:
    for read, refusal in ((request_bytes, InvalidRequest), (response_bytes, InvalidReply)):
        try:
            read(body, lenient=lenient, depth=DEPTH)
        except refusal:
            continue


@NOTHING_ELSE
@given(messages("BidRequest"))
def test_a_parsed_value_gives_the_same_message_and_stays_as_it_is(value: dict[str, Any]) -> None:
    before = text(value)
    assert sent(value) == request_message(value, lenient=True, depth=DEPTH)
    assert before == text(value)


# --------------------------------------------------------------------------------------------------- what has no field


def carried(ext: Any, extension: Any) -> Any:
    return json.loads(ext.Extensions[extension])


@pytest.mark.parametrize(
    "members",
    [
        {"bcat": []},
        {"ext": {}},
        {"ext": None},
        {"ext": [1]},
        {"ext": {"a": None}},
        {"vendor": {"ext": {}}},
        {"vendor": 1, "ext": {}},
        {"vendor": 1, "ext": {"a": 1}},
        {"ext": {"json_rest": "mine"}},
        {"tmax": None},
        {"site": None, "app": {}},
        {"site": {"mobile": 2}},
        {"site": {"content": {"len": 2**31}}},
        {"site": {"content": {"len": 1.5, "data": [{"segment": [{}, 1]}]}}},
        {"site": {"content": {"cattax": 2**80}}},
        {"site": {"cat": {"IAB1": 1}}},
        {"site": {"kwarray": ["a", {}]}},
        {"device": {"geo": {"lat": 2**53 + 1, "lon": 10**400}}},
        {"device": {"ua": {"brand": "x"}, "sua": "text", "ext": {"atts": "many", "ifv": None, "cdep": ["x"]}}},
        {"user": {"eids": [{"uids": [{"id": "a", "ext": {"b": 1}}, {"atype": [], "more": 0}]}]}},
        {"imp": [{"id": "1", "banner": {}, "qty": {}, "metric": [{"value": "x"}, None]}]},
        {"imp": [{"id": "1", "banner": {"ext": {}, "x": 1}, "ext": {"igs": [{"ae": 1}]}}]},
        {"imp": [{"id": "1", "banner": {}, "ext": {"igs": {"ae": 1, "ext": {"a": 1}}, "skadn": {"x": 1, "ext": {}}}}]},
        {"regs": {"ext": {"dsa": {"transparency": [{"domain": "a"}, {"x": 1}, {"dsaparams": [], "ext": {}}]}}}},
        {"request_native": 1},
        {"imp": [{"id": "1", "native": {"request": '{"ver":"1.2"}', "request_native": {"ver": "1.2"}}}]},
    ],
    ids=text,
)
def test_what_does_not_fit_comes_back(members: dict[str, Any]) -> None:
    value = request(**members)
    encoded = sent(value, lenient=False)
    assert_same(value, told(encoded))
    assert encoded.has_rest == (members != {"ext": {}})


def test_unknown_members_travel_in_the_ext_of_their_owner() -> None:
    value = request(site={"id": "s", "vendor": {"a": 1}, "content": {"len": "long"}, "ext": {"amp": 0}})
    message = BidRequest.FromString(sent(value).message)
    assert carried(message.site.ext, JsonRest.bid_request_site) == {"vendor": {"a": 1}, "ext": {"amp": 0}}
    assert carried(message.site.content.ext, JsonRest.bid_request_content) == {"len": "long"}
    assert not message.HasField("ext")


def test_what_fits_stays_a_field_beside_what_does_not() -> None:
    dsa = {"dsarequired": 3, "x": 1, "transparency": [{"domain": "a.example"}, {"domain": "b.example", "y": 2}]}
    message = BidRequest.FromString(sent(request(regs={"gpp": "DBAA", "ext": {"gpc": "1", "dsa": dsa}})).message)
    assert message.regs.ext.dsa.dsarequired == 3
    assert [each.domain for each in message.regs.ext.dsa.transparency] == ["a.example", "b.example"]
    assert carried(message.regs.ext, JsonRest.bid_request_regs) == {
        "ext": {"dsa": {"x": 1, "transparency": {"1": {"y": 2}}}}
    }


def test_explicit_zeros_and_empty_values_are_present() -> None:
    value = request(
        at=0,
        test=0,
        imp=[{"id": "", "bidfloor": 0, "secure": 0, "banner": {}, "pmp": {"deals": [{"id": "d", "bidfloor": 0.0}]}}],
    )
    encoded = sent(value)
    message = BidRequest.FromString(encoded.message)
    assert message.HasField("at")
    assert message.HasField("test")
    assert message.imp[0].HasField("id")
    assert message.imp[0].HasField("bidfloor")
    assert message.imp[0].HasField("banner")
    assert message.imp[0].pmp.deals[0].HasField("bidfloor")
    assert not encoded.has_rest
    assert_same(value, told(encoded))


def test_absent_members_stay_absent() -> None:
    message = BidRequest.FromString(sent(request()).message)
    assert [field.name for field, _ in message.ListFields()] == ["id", "imp"]
    assert not message.imp[0].HasField("bidfloor")


def test_of_a_member_given_twice_the_last_counts() -> None:
    encoded = request_bytes(b'{"id":"a","imp":[],"id":"b"}', lenient=True, depth=DEPTH)
    assert told(encoded) == {"id": "b", "imp": []}


def test_numbers_are_kept_whatever_their_spelling() -> None:
    body = b'{"tmax":1.2e2,"imp":[{"bidfloor":1E-1,"dt":-0.0}],"site":{"x":1.50}}'
    encoded = request_bytes(body, lenient=False, depth=DEPTH)
    message = BidRequest.FromString(encoded.message)
    assert (message.tmax, message.imp[0].bidfloor) == (120, 0.1)
    assert math.copysign(1, message.imp[0].dt) == -1
    assert b"-0.0" in request_json(message, rest=True)


# ------------------------------------------------------------------------------------------------------------- replies


def interest_groups(buyer: dict[str, Any]) -> dict[str, Any]:
    return response(bid(), ext={"igi": [{"impid": "1", "igb": [buyer], "igs": [{"config": {"seller": [1, None]}}]}]})


@pytest.mark.parametrize(
    ("buyer", "fits"),
    [
        ({"pbs": {"a": [1, True, None, {"b": []}], "fields": {"c": "x"}}}, True),
        ({"pbs": None}, True),
        ({"pbs": "text"}, True),
        ({"ps": {"a": 1, "b": 2.5, "": 0}}, True),
        ({"pbs": {"a": 2**53 + 1}}, False),
        ({"ps": {}}, False),
        ({"ps": {"a": "1"}}, False),
        ({"ps": {"a": 1, "b": None}}, False),
        ({"begid": "first", "cur": None, "maxbid": [1]}, False),
    ],
)
def test_values_of_any_type_and_maps_come_back(buyer: dict[str, Any], fits: bool) -> None:
    # `null` is a value of a Value, and nothing anywhere else.
    encoded = answered(interest_groups(buyer))
    assert_same(interest_groups(buyer), told_reply(encoded))
    assert fits == (not encoded.has_rest)


def test_a_deep_value_travels_as_json_where_a_parser_might_stop() -> None:
    deep: Any = 1
    for _ in range(20):
        deep = {"a": deep}
    encoded = answered(interest_groups({"pbs": deep}))
    assert_same(interest_groups({"pbs": deep}), told_reply(encoded))
    assert encoded.has_rest


def test_maps_are_written_in_one_order() -> None:
    forwards = {f"k{n}": n + 0.5 for n in range(20)}
    backwards = dict(reversed(forwards.items()))
    assert answered(interest_groups({"ps": forwards})).message == answered(interest_groups({"ps": backwards})).message


@pytest.mark.parametrize("lenient", [True, False])
@pytest.mark.parametrize(
    "member",
    [
        {"price": "much"},
        {"price": [1]},
        {"price": 2**53 + 1},
        {"impid": {}},
        {"id": 1.5},
        {"adomain": {"a": "b"}},
        {"adomain": ["a", None]},
        {"dealid": 1.5},
        {"attr": ["x"]},
        {"w": 0.5},
    ],
    ids=text,
)
def test_a_bid_that_cannot_be_read_is_void_and_its_rivals_stay(member: dict[str, Any], lenient: bool) -> None:
    value = response(bid(id="first"), bid(**member), bid(id="last"), cur="EUR")
    encoded = answered(value, lenient=lenient)
    message = BidResponse.FromString(encoded.message)
    assert [each.id for each in message.seatbid[0].bid] == ["first", "", "last"]
    assert not message.seatbid[0].bid[1].HasField("id")
    [noted] = encoded.repairs
    assert noted.path.startswith(f"seatbid[0].bid[1].{next(iter(member))}")
    assert noted.text.endswith("; the bid is void")
    assert_same(value, told_reply(encoded))


def test_strict_voids_a_sloppy_bid_down_to_its_ext_and_lenient_repairs_it() -> None:
    value = response(
        bid(id="first", ext={"skadn": {"nonce": 5, "ext": {}}}), bid(price="0.5"), bid(id="last", adm={"a": 1})
    )
    strict = answered(value, lenient=False)
    assert [each.id for each in BidResponse.FromString(strict.message).seatbid[0].bid] == ["", "", ""]
    assert_same(value, told_reply(strict))
    lenient = BidResponse.FromString(answered(value).message).seatbid[0].bid
    assert [each.id for each in lenient] == ["first", "b", "last"]
    assert (lenient[0].ext.skadn.nonce, lenient[1].price, lenient[2].adm) == ("5", 0.5, '{"a":1}')


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"id": 1.5}, "id: expected a string, was 1.5"),
        ({"id": "r", "cur": ["USD"]}, "cur: expected a string, was a list"),
        ({"id": "r", "nbr": "none"}, 'nbr: expected an integer, was "none"'),
        ({"id": "r", "seatbid": {}}, "seatbid: expected a list, was an object"),
        ({"id": "r", "seatbid": [1]}, "seatbid[0]: expected an object, was 1"),
        ({"id": "r", "seatbid": [{"bid": [None]}]}, "seatbid[0].bid[0]: expected an object, was null"),
        ({"id": "r", "seatbid": [{"seat": {}}]}, "seatbid[0].seat: expected a string, was an object"),
        ([], "expected an object, was a list"),
        ("text", "expected an object, was a string"),
    ],
    ids=str,
)
def test_a_reply_that_cannot_be_read_is_invalid_whole(value: Any, message: str) -> None:
    with pytest.raises(InvalidReply) as refusal:
        answered(value)
    assert message == str(refusal.value)


def test_prices_that_json_cannot_write_pass_from_a_parsed_value() -> None:
    prices = [math.nan, math.inf, -math.inf, -0.0, 5e-324]
    value = response(*(bid(price=price) for price in prices))
    message = BidResponse.FromString(response_message(value, lenient=True, depth=DEPTH).message)
    assert [repr(price) for price in prices] == [repr(each.price) for each in message.seatbid[0].bid]
    assert [None, None, None, 0, 5e-324] == [
        each["price"] for each in json.loads(response_json(message, rest=True))["seatbid"][0]["bid"]
    ]


@pytest.mark.parametrize("strange", [{"x": math.nan}, {"ext": {"a": [math.inf]}}, {"tmax": math.nan}])
def test_nan_is_refused_where_there_is_no_double(strange: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        request_message(request(**strange), lenient=True, depth=DEPTH)


def test_half_of_a_surrogate_pair_is_refused_in_a_parsed_value() -> None:
    for value in (request(id="\ud800"), request(x="\udc00"), request(ext={"a": {"\ud800": 1}})):
        with pytest.raises(InvalidRequest, match="surrogate"):
            request_message(value, lenient=True, depth=DEPTH)


def test_an_object_used_twice_in_a_parsed_value_is_written_twice() -> None:
    shared = {"w": 300, "x": 1}
    value = request(imp=[{"id": "1", "banner": shared}, {"id": "2", "banner": shared}])
    assert_same(value, told(request_message(value, lenient=True, depth=DEPTH)))


# -------------------------------------------------------------------------------------------------- repairs, refusals

SLOPPY = [
    ({"id": 7}, "id", "a number, read as a string", {"id": "7"}),
    ({"id": 2**70}, "id", "a number, read as a string", {"id": str(2**70)}),
    ({"tmax": "120"}, "tmax", "a string, read as a number", {"tmax": 120}),
    ({"test": True}, "test", "a boolean, read as 0 or 1", {"test": 1}),
    ({"test": "0"}, "test", "a string, read as 0 or 1", {"test": 0}),
    ({"cur": "USD"}, "cur", "one value, read as a list of one", {"cur": ["USD"]}),
    ({"bcat": ["a", 1]}, "bcat[1]", "a number, read as a string", {"bcat": ["a", "1"]}),
    ({"site": {"cat": "IAB1"}}, "site.cat", "one value, read as a list of one", {"site": {"cat": ["IAB1"]}}),
]


@pytest.mark.parametrize(("members", "path", "words", "repaired"), SLOPPY, ids=lambda value: text(value).decode())
def test_sloppy_json_is_repaired_by_name_or_refused(
    members: dict[str, Any], path: str, words: str, repaired: dict[str, Any]
) -> None:
    encoded = sent(request(**members))
    assert encoded.repairs == (Repair(path, words),)
    assert_same(request(**repaired), told(encoded))
    with pytest.raises(InvalidRequest) as refusal:
        sent(request(**members), lenient=False)
    assert path == refusal.value.path


@pytest.mark.parametrize(
    ("imp", "path"),
    [
        ({"bidfloor": "0.5"}, "imp[0].bidfloor"),
        ({"banner": {"battr": 3}}, "imp[0].banner.battr"),
        ({"banner": {"battr": ["3"]}}, "imp[0].banner.battr[0]"),
        ({"pmp": {"deals": [{"id": 5}]}}, "imp[0].pmp.deals[0].id"),
        ({"pmp": {"deals": [{"id": "d", "guar": True}]}}, "imp[0].pmp.deals[0].guar"),
        ({"native": {"request": {"ver": "1.2"}}}, "imp[0].native.request"),
        ({"ext": {"gpid": 12}}, "imp[0].ext.gpid"),
    ],
    ids=text,
)
def test_repairs_are_named_where_they_were_made(imp: dict[str, Any], path: str) -> None:
    assert [path] == [repair.path for repair in sent(request(imp=[{"id": "1", **imp}])).repairs]


def test_a_list_of_one_that_needs_repair_itself_names_both() -> None:
    assert ["bcat", "bcat[0]"] == [repair.path for repair in sent(request(bcat=5)).repairs]


def test_repairs_beyond_what_anybody_reads_are_counted() -> None:
    site = {"cat": [2, {}]}
    repairs = sent(request(badv=[1] * (REPAIRS_MAX + 7), site=site, wlang=3)).repairs
    assert REPAIRS_MAX + 1 == len(repairs)
    assert Repair(f"badv[{REPAIRS_MAX - 1}]", "a number, read as a string") == repairs[-2]
    # The list of cat travels as it was; wlang is read as a list of one, and the one as a string.
    assert Repair("", "and 9 more") == repairs[-1]


def test_no_repair_is_named_for_what_stays_as_it_was() -> None:
    value = request(site={"kwarray": [1, {}]})
    encoded = sent(value)
    assert encoded.repairs == ()
    assert_same(value, told(encoded))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"imp": [{}, {}, {"bidfloor": "abc"}]}, 'imp[2].bidfloor: expected a number, was "abc"'),
        ({"imp": [{"bidfloor": " 1"}]}, 'imp[0].bidfloor: expected a number, was " 1"'),
        ({"imp": [{"bidfloor": "1e999"}]}, 'imp[0].bidfloor: expected a number, was "1e999"'),
        ({"imp": [{"bidfloor": "NaN"}]}, 'imp[0].bidfloor: expected a number, was "NaN"'),
        ({"imp": [{"bidfloor": True}]}, "imp[0].bidfloor: expected a number, was true"),
        ({"imp": [{"secure": 2}]}, "imp[0].secure: expected 0 or 1, was 2"),
        (
            {"imp": [{"banner": {"format": [{"wratio": 16.5, "hratio": 9}]}}]},
            "imp[0].banner.format[0].wratio: expected an integer, was 16.5",
        ),
        ({"imp": {"id": "1"}}, "imp: expected a list, was an object"),
        ({"imp": [None]}, "imp[0]: expected an object, was null"),
        ({"imp": [{"video": {"rqddurs": [15, {}]}}]}, "imp[0].video.rqddurs[1]: expected an integer, was an object"),
        ({"imp": [{"pmp": []}]}, "imp[0].pmp: expected an object, was a list"),
        ({"tmax": 2**31}, "tmax: expected an integer of 32 bits, was 2147483648"),
        ({"cur": ["x" * 60, []]}, "cur[1]: expected a string, was a list"),
        ({"cur": {}}, "cur: expected a list, was an object"),
        ({"id": ["x"]}, "id: expected a string, was a list"),
        ({"at": "x" * 60}, 'at: expected an integer, was "' + "x" * 39 + "…"),
        ({"site": {}, "app": {}}, "app: expected one of site, app, dooh, were site and app"),
        ({"dooh": {}, "app": {"id": []}}, "dooh: expected one of site, app, dooh, were app and dooh"),
        ({"device": {"lmt": "secret"}}, "device.lmt: expected 0 or 1, was a string"),
        ({"user": {"consent": 0.25}}, "user.consent: expected a string, was a number"),
    ],
    ids=str,
)
def test_what_the_rules_read_is_held_to_its_type(members: dict[str, Any], message: str) -> None:
    for lenient in (True, False):
        with pytest.raises(InvalidRequest) as refusal:
            sent(request(**members), lenient=lenient)
        assert message == str(refusal.value)


def test_null_is_absence_for_what_the_rules_read() -> None:
    value = request(tmax=None, cur=None, site=None, imp=[{"id": "1", "bidfloor": None, "pmp": None}])
    encoded = sent(value, lenient=False)
    assert not BidRequest.FromString(encoded.message).imp[0].HasField("bidfloor")
    assert_same(value, told(encoded))


def test_neither_repair_nor_refusal_tells_anything_about_a_person() -> None:
    secret = 8675309
    sloppy = request(
        user={"id": secret, "yob": str(secret), "eids": [{"uids": [{"id": secret}]}]},
        device={"ifa": secret, "ip": secret, "geo": {"zip": secret, "lat": f"{secret}.5"}},
    )
    said = str(sent(sloppy).repairs)
    assert said.count("Repair(") == 7
    assert str(secret) not in said
    for personal in ({"user": {"consent": [secret]}}, {"device": {"devicetype": f"x{secret}"}}, {"user": f"{secret}"}):
        with pytest.raises(InvalidRequest) as refusal:
            sent(request(**personal))
        assert str(secret) not in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected JSON, was empty"),
        (b"[]", "expected an object, was a list"),
        (b'{"id":"\xff"}', "expected UTF-8, was malformed (byte 7)"),
        (b'{"id":', "expected JSON, was truncated"),
        (b'{"ext":[{"a":1e999}]}', "ext[0].a: expected a number, was Infinity"),
        (b'{"ext":' + b"1" * 5000 + b"}", "ext: expected a number, was Infinity"),
        (b'{"' + b"k" * 9000 + b'":1e999}', f'"{"k" * 40}": expected a number, was Infinity'),
        (b'{"a":1,"b":1e999,"a":{"\\ud800\\n":1e999}}', 'a."\\ud800\\n": expected a number, was Infinity'),
        (b"[1e999," + b"[" * 100_000, "nested deeper than 32 levels"),
        (b"[1e999,}", "expected JSON, was malformed: a number beyond a double"),
        (b"[" * 100_000, "nested deeper than 32 levels"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper than 32 levels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_no_json_object_is_refused_in_words(body: bytes, message: str) -> None:
    for read, refused in ((request_bytes, InvalidRequest), (response_bytes, InvalidReply)):
        with pytest.raises(refused) as refusal:
            read(body, lenient=True, depth=DEPTH)
        assert message == str(refusal.value)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="expected a BidRequest message"):
        request_json(b"\xff", rest=True)
    with pytest.raises(InvalidReply, match="expected a BidResponse message"):
        response_json(b"\xff", rest=True)
    for broken in (b"\x12\x05\xa2\x1f", b"\xa2\x1f\xff", b"\x0b\xa2\x1f\x00", b"\xff" * 11 + b"\xa2\x1f"):
        with pytest.raises(InvalidRequest, match="expected a BidRequest message"):
            strip_rest(broken)


# --------------------------------------------------------------------------------------------- messages from elsewhere


def test_registered_extensions_are_told_by_name() -> None:
    message = BidResponse(id="r", nbr=0)
    explanation = message.ext.Extensions[Explanation.auction]
    explanation.id = "a"
    explanation.imp.add(id="1").bid.add(bidder="dsp-a", floor_cpm_micros=2**40, price=math.nan)
    message.ext.seatnonbid.add(seat="s").nonbid.add(impid="1", statuscode=301)
    assert json.loads(response_json(message, rest=False)) == {
        "id": "r",
        "nbr": 0,
        "ext": {
            "seatnonbid": [{"seat": "s", "nonbid": [{"impid": "1", "statuscode": 301}]}],
            "auction": {
                "id": "a",
                "imp": [{"id": "1", "bid": [{"bidder": "dsp-a", "floor_cpm_micros": 2**40, "price": None}]}],
            },
        },
    }


def test_native_messages_are_told_as_the_text_that_the_standard_asks_for() -> None:
    asked = BidRequest()
    asked.imp.add().native.request_native.assets.add(id=1, required=True).title.len = 25
    [imp] = json.loads(request_json(asked, rest=True))["imp"]
    assert json.loads(imp["native"]["request"]) == {"assets": [{"id": 1, "required": 1, "title": {"len": 25}}]}
    offered = BidResponse()
    offered.seatbid.add().bid.add().adm_native.link.url = "https://a.example"
    [offer] = json.loads(response_json(offered, rest=True))["seatbid"][0]["bid"]
    assert json.loads(offer["adm"]) == {"link": {"url": "https://a.example"}}


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"\xff",
        b'{"id":"mine","imp":{"0":{"id":"mine","tagid":"mine"}},"site":{"id":"mine","name":"mine"},"ext":{}}',
        b"[" * 100_000,
        b'{"a":' * 300 + b"1" + b"}" * 300,
    ],
    ids=lambda value: str(value)[:40],
)
def test_rest_that_a_client_made_up_changes_no_field_and_breaks_nothing(rest: bytes) -> None:
    message = BidRequest(id="r", imp=[{"id": "1"}], site={"id": "s"})
    message.ext.Extensions[JsonRest.bid_request] = rest
    value = json.loads(request_json(message, rest=True))
    value.pop("ext", None)
    assert value == {"id": "r", "imp": [{"id": "1"}], "site": {"id": "s"}}
    assert json.loads(request_json(strip_rest(message.SerializeToString()), rest=True)) == value


def test_stripping_leaves_strings_and_strangers_alone() -> None:
    # "¢" and a unit separator are the two bytes of the tag, in a string.
    value = request(site={"name": "¢\x1f", "ext": {"a": "¢\x1f"}, "content": {"title": "¢\x1f"}}, x="¢\x1f")
    encoded = sent(value)
    assert told(encoded, rest=False) == json.loads(request_json(strip_rest(encoded.message), rest=True))
    # Numbers 1000 of an Ext, 5000 of a request, and 500 of a request, which is no Ext.
    stranger = b"\x9a\x06\x05\xc2\x3e\x02\xa2\x1f" + b"\xc2\xb8\x02\x02\xa2\x1f" + b"\xa2\x1f\x01x"
    assert strip_rest(encoded.message + stranger) == strip_rest(encoded.message) + stranger


def test_stripping_keeps_an_object_that_is_left_empty() -> None:
    encoded = sent(request(imp=[{"id": "1", "banner": {"x": 1}, "ext": {}}]))
    assert told(encoded, rest=False)["imp"] == [{"id": "1", "banner": {}, "ext": {}}]
    assert json.loads(request_json(strip_rest(encoded.message), rest=True))["imp"] == [
        {"id": "1", "banner": {}, "ext": {}}
    ]

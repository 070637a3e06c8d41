# The sieve again, where it looks into lists: what stands first, between and last is found, and nothing beside it.

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from test_sieve import BANNER, BID, CASES, SECURE, answer, decided, opened, with_

from auction.core.kernels.sieve import HELD
from tests.fuzz.wire import number, packed, text

SIZES = [(300, 250), (320, 50), (728, 90)]


def through(request: dict[str, Any], bid: bytes) -> bool:
    (reply,) = decided(opened(request), [answer(bid)]).replies
    return not reply.held


@pytest.mark.parametrize("asked", [SIZES, SIZES[::-1], SIZES[:1], SIZES[1:2] + SIZES[:1]])
def test_each_size_that_is_asked_for_passes_and_no_other(asked: list[tuple[int, int]]) -> None:
    imp = {"id": "1", "banner": {"format": [{"w": w, "h": h} for w, h in asked]}}
    for w, h in product((0, 1, 300, 320, 728), (0, 1, 250, 50, 90)):
        passes = (w, h) in asked or (len(asked) == 1 and not w and not h)  # one size goes without saying
        bid = BID + number(16, w) + number(17, h)
        assert passes == through({"imp": [imp]}, bid), (asked, w, h)


@pytest.mark.parametrize("blocked", [[1], [1, 2], [2, 7, 1]])
def test_each_attribute_that_is_blocked_is_held_back_and_no_other(blocked: list[int]) -> None:
    imp = {"id": "1", "banner": {"battr": blocked, "format": [{"w": 300, "h": 250}]}}
    sized = BID + number(16, 300) + number(17, 250)
    for one in range(10):
        for bid in (number(11, one), packed(11, one), packed(11, 9, one), packed(11, one, 9)):
            assert (one not in blocked) == through({"imp": [imp]}, sized + bid), (blocked, one)


@pytest.mark.parametrize("medium", ["banner", "video", "audio", "native"])
def test_an_attribute_is_blocked_by_the_format_of_the_bid(medium: str) -> None:
    formats = ("banner", "video", "audio", "native")
    imp = {"id": "1", **{one: {"battr": [place + 1]} for place, one in enumerate(formats)}}
    for one in range(1, 5):
        bid = BID + text(6, "<VAST/>") + number(33, formats.index(medium) + 1) + number(11, one)
        assert (formats[one - 1] != medium) == through({"imp": [imp]}, bid)


def test_each_impression_is_found_by_its_id_alone() -> None:
    ids = ["1", "11", "2", "", "é"]
    asked = [{"id": one, "banner": {"battr": [place + 1]}} for place, one in enumerate(ids) if one]
    for one in asked:
        bid = text(1, "b") + text(2, one["id"]) + BID[-9:]
        for attribute in range(1, 6):
            blocked = one["banner"]["battr"] == [attribute]
            assert blocked != through({"imp": asked}, bid + number(11, attribute))


def test_a_letter_is_folded_and_nothing_else_is() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    request = with_(BANNER, badv=[f"{letters}.example", "@[`{.example"])
    for sent, blocked in (
        (f"{letters.upper()}.EXAMPLE", True), ("@[`{.example", True), ("`{@[.example", False), ("`[`{.example", False),
        ("@{`{.example", False),
    ):  # fmt: skip
        assert blocked != through(request, BID + text(7, sent)), sent


@pytest.mark.parametrize("name", CASES)
def test_a_bid_is_marked_with_one_where_it_is_held_back_and_with_nothing_else(name: str) -> None:
    request, bid, passes, _ = CASES[name]
    mark = decided(opened(request), [answer(bid)]).places[HELD]
    assert mark in ((0,) if passes else (0, 1))  # seats are looked at later


def test_only_the_whole_word_http_is_not_secure() -> None:
    word = "http:"
    assert not through(SECURE, BID + text(6, word))
    for place, letter in product(range(5), "htp:xHTP;"):
        sent = word[:place] + letter + word[place + 1 :]
        for markup in (sent, f"..{sent}", f"{sent}..", f"h{sent}t"):
            assert (sent.lower() != word) == through(SECURE, BID + text(6, markup)), markup


def test_blocked_names_of_any_length_are_found_and_those_behind_them() -> None:
    for size in (1, 127, 128, 255, 256, 257, 511, 512, 1000):
        domain, category = f"{'l' * size}.example", "7" * size
        request = with_(BANNER, badv=[domain, "ford.com"], bcat=[category, "IAB1"])
        for blocked in (text(7, domain), text(7, "ford.com"), text(15, category), text(15, "IAB1")):
            assert not through(request, BID + blocked), size
        assert through(request, BID + text(7, "other.example") + text(15, "IAB2"))

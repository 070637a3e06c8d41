# The category trees: well formed as a whole, and as published where they are known by heart.

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from auction.core import categories
from auction.core.categories import DIGEST, ancestors, parents

FILE = Path(categories.__file__).with_name("taxonomies.json")
TREES: dict[str, dict[str, str]] = json.loads(FILE.read_text())

# Rows of each published table, counted there by its own numbering.
SIZES = {
    1: 26 + 366,  # IAB1 to IAB26 and what is under them
    2: 698 + 481,  # 1 to 698, 1000 to 1480
    3: 863 - 1,  # 1 to 863, of which 10 was printed as 0, and 61 as a second 51
    5: 698 + 481,
    6: 698 + 481 + 12 + 5,  # and sensitive topics, and levels of brand suitability
    7: 703,
    8: 583,  # 1000 to 1582
    9: 703 + 1,  # 3.0 and one genre
}

PUBLISHED = [
    (1, "IAB1-1", ("IAB1-1", "IAB1")),
    (1, "IAB7-39", ("IAB7-39", "IAB7")),
    (1, "IAB25-3", ("IAB25-3", "IAB25")),
    (2, "211", ("211", "210")),
    (2, "140", ("140", "139", "137", "132")),
    (2, "1477", ("1477", "1228", "1219")),
    (3, "31", ("31", "30", "27")),
    (3, "223", ("223", "222", "221", "220")),
    (3, "349", ("349", "348", "284", "221", "220")),
    (5, "562", ("562", "561", "560", "552")),
    (5, "1068", ("1068", "1030")),
    (6, "bsr003", ("bsr003", "MRkz4Q")),
    (6, "8FD8nI", ("8FD8nI", "v9i3On")),
    (6, "325", ("325", "324")),
    (7, "325", ("325", "SPSHQ5")),
    (7, "364", ("364", "363", "338", "JLBCU7")),
    (7, "ZJG29S", ("ZJG29S", "685", "680")),
    (8, "1006", ("1006", "1002")),
    (8, "1052", ("1052", "1050", "1049")),
    (8, "1580", ("1580", "1576")),
    (9, "700", ("700", "SPSHQ5")),
    (9, "W3CW2J", ("W3CW2J", "602", "599", "596")),
]

# Rows whose parent column and whose tiers disagree in the publisher's own table: docs/decisions/taxonomies.md.
CORRECTED = [
    (2, "497", ("497", "496", "483")),
    (5, "497", ("497", "496", "483")),
    (6, "497", ("497", "496", "483")),
    (9, "497", ("497", "496", "483")),
    (9, "376", ("376", "371", "SPSHQ5")),
    (3, "273", ("273", "249", "221", "220")),
    (8, "1037", ("1037", "1036", "1010")),
    (8, "1041", ("1041", "1036", "1010")),
    (8, "1426", ("1426", "1425", "1419")),
    (8, "1000", ("1000",)),
    (9, "150", ("150",)),
    (9, "163", ("163",)),
    (9, "186", ("186",)),
]


def ids(cattax: int) -> list[str]:
    return [one for row in TREES[str(cattax)].values() for one in row.split()]


@pytest.mark.parametrize(("cattax", "category", "lineage"), PUBLISHED)
def test_a_category_has_the_ancestors_that_were_published(cattax: int, category: str, lineage: tuple[str, ...]) -> None:
    assert lineage == ancestors(cattax, category)


@pytest.mark.parametrize(("cattax", "category", "lineage"), CORRECTED)
def test_a_row_that_contradicts_itself_has_the_parent_that_its_tiers_name(
    cattax: int, category: str, lineage: tuple[str, ...]
) -> None:
    assert lineage == ancestors(cattax, category)


def test_every_taxonomy_is_whole() -> None:
    assert {str(cattax): size for cattax, size in SIZES.items()} == {name: len(ids(int(name))) for name in TREES}


@pytest.mark.parametrize("cattax", SIZES)
def test_no_category_has_two_places(cattax: int) -> None:
    assert sorted(set(ids(cattax))) == sorted(ids(cattax))


@pytest.mark.parametrize("cattax", SIZES)
def test_every_parent_is_a_category_of_the_same_taxonomy(cattax: int) -> None:
    assert set(parents(cattax).values()) <= set(ids(cattax))


@pytest.mark.parametrize("cattax", SIZES)
def test_every_category_is_under_a_root_and_none_is_under_itself(cattax: int) -> None:
    roots = set(TREES[str(cattax)][""].split())
    for category in ids(cattax):
        seen = [category]
        while (parent := parents(cattax).get(seen[-1])) is not None:
            assert parent not in seen
            seen.append(parent)
        assert seen[-1] in roots
        assert tuple(seen) == ancestors(cattax, category)


@pytest.mark.parametrize("cattax", SIZES)
def test_a_root_has_no_parent(cattax: int) -> None:
    roots = TREES[str(cattax)][""].split()
    assert roots
    assert [] == [root for root in roots if root in parents(cattax)]


def test_the_first_taxonomy_says_in_each_id_what_its_parent_is() -> None:
    assert {one: one.partition("-")[0] for one in ids(1) if "-" in one} == dict(parents(1))


def test_a_number_is_another_category_in_another_taxonomy() -> None:
    assert ("380", "379") == ancestors(6, "380")
    assert ("380",) == ancestors(7, "380")


@pytest.mark.parametrize("cattax", [0, 4, 10, 500, -1, 2**31 - 1])
def test_a_taxonomy_that_is_not_known_has_no_parents(cattax: int) -> None:
    assert {} == parents(cattax)
    assert ("IAB1-1",) == ancestors(cattax, "IAB1-1")


@pytest.mark.parametrize("category", ["", "IAB1-999", "iab1-1", "IAB1-1 ", "IAB1-1 IAB1-2", "IAB99"])
def test_a_category_that_is_not_in_its_taxonomy_is_alone(category: str) -> None:
    assert (category,) == ancestors(1, category)


def test_nothing_that_bids_claim_is_kept() -> None:
    for cattax in SIZES:
        ancestors(cattax, "1")
    for claimed in range(1000, 2000):
        ancestors(claimed, "1")
        parents(claimed)
        assert (str(claimed) + "x",) == ancestors(1, str(claimed) + "x")
    assert len(SIZES) == categories._parents.cache_info().currsize
    assert len(SIZES) == categories._lineages.cache_info().currsize
    assert sum("-" in one for one in ids(1)) == len(categories._lineages(1))


def test_parents_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        parents(1)["IAB1"] = "IAB2"  # type: ignore[index]


def test_the_digest_is_that_of_the_file() -> None:
    assert hashlib.sha256(FILE.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == DIGEST

# Which categories lie above a category, for publishers who block a branch by its root (`category_match: parents`).
#
# The trees are those that AdCOM's list "Category Taxonomies" numbers, as ids alone: docs/decisions/taxonomies.md says
# where they come from and which are missing. A taxonomy that is not here, or an id that its tree does not have, has
# no parents, so it is compared exactly, as under `category_match: exact`.
#
# Only numbers of the file become keys here. What a bid claims (`cattax`, `cat`) is looked up and never kept.

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import msgspec

# 5: as many tiers as Ad Product 1.0 has, and no other taxonomy here has more.
_TIERS = 5

_NONE: Mapping[str, str] = MappingProxyType({})

FILE = "taxonomies.json"
"""What the file is called in rules, which hold the digest that they were written with."""

_TEXT = Path(__file__).with_name(FILE).read_text("ascii")

# By `cattax`: the ids under each id, separated by spaces; under "" are the roots.
_TREES = msgspec.json.decode(_TEXT, type=dict[int, dict[str, str]])

DIGEST = sha256(_TEXT.encode("ascii")).hexdigest()


def parents(cattax: int) -> Mapping[str, str]:
    """Give the parent of every category that has one; empty for a taxonomy that is not known here."""
    return _parents(cattax) if cattax in _TREES else _NONE


def ancestors(cattax: int, category: str) -> tuple[str, ...]:
    """Name the category itself, then what lies above it, nearest first.

    The first call for a taxonomy lays out its tree, which takes as long as a small auction.
    """
    if cattax not in _TREES:
        return (category,)
    return _lineages(cattax).get(category) or (category,)


@cache
def _parents(cattax: int) -> Mapping[str, str]:
    tree = _TREES[cattax]
    return MappingProxyType({child: parent for parent, ids in tree.items() if parent for child in ids.split()})


@cache
def _lineages(cattax: int) -> dict[str, tuple[str, ...]]:
    above = _parents(cattax)
    lineages = {}
    for category in above:
        lineage = [category]
        while (parent := above.get(lineage[-1])) is not None:
            lineage.append(parent)
            assert len(lineage) <= _TIERS
        lineages[category] = tuple(lineage)
    return lineages

# What the documents point at is there, and every rule that docs/rules.md states is shown.

from __future__ import annotations

import re
from pathlib import Path

import pytest

from auction.case import decide

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path for folder in (".", "docs", "docs/decisions", "conformance") for path in (ROOT / folder).glob("*.md")]
RULES = (ROOT / "docs" / "rules.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    assert [] == [link for link in links if "://" not in link and not (document.parent / link).exists()]


def blocks() -> list[str]:
    """Give what the rules say, block by block: paragraphs and rows of tables, behind the introduction."""
    said = RULES.partition("\n## Money\n")[2]
    paragraphs = [block for block in re.split(r"\n\n+", said) if not block.startswith(("#", "|", "> "))]
    rows = [row for row in said.splitlines() if row.startswith("| ") and not row.startswith("|---")]
    heads = {before for before, line in zip(said.splitlines(), said.splitlines()[1:], strict=False) if "|---" in line}
    return paragraphs + [row for row in rows if row not in heads]


def test_every_rule_is_shown_by_a_vector() -> None:
    assert len(blocks()) > 50
    assert [] == [block for block in blocks() if "](../conformance/" not in block]


def test_code_that_the_rules_name_is_there() -> None:
    named = re.findall(r"`(auction/[a-z_/]+\.py)`", RULES)
    assert len(named) > 10
    assert [] == [path for path in named if not (ROOT / path).exists()]


def test_example_of_a_floor_in_another_currency() -> None:
    """At exactly 0.868889 EUR the bid is accepted, a micro below it is not."""
    for price, reason in (("0.868889", 0), ("0.868888", 100)):
        bid = {"id": "b1", "impid": "1", "price": price, "crid": "c"}
        answer = decide(
            {
                "request": {
                    "id": "r",
                    "cur": ["EUR"],
                    "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.85}],
                },
                "exchange": {"bid_adjustments": [{"bidder": "dsp-a", "multiplier": "0.9"}]},
                "fx": {"EUR": "0.92"},
                "replies": [{"bidder": "dsp-a", "body": {"id": "r", "cur": "EUR", "seatbid": [{"bid": [bid]}]}}],
            }
        )
        assert reason == answer["imp"][0]["bids"][0]["loss_reason"]


def test_example_of_a_second_price() -> None:
    bids = [
        {"bidder": name, "body": {"id": "r", "seatbid": [{"bid": [{"id": "b", "impid": "1", "price": price}]}]}}
        for name, price in (("a", "1.00"), ("b", "0.90"), ("c", "0.80"))
    ]
    imp = {"id": "1", "banner": {"w": 300, "h": 250}, "bidfloor": 0.85}
    (told,) = decide({"request": {"id": "r", "imp": [imp]}, "replies": bids})["imp"]
    assert ("a", "0.91") == (told["winner"]["bidder"], told["clearing_price"])
    assert [0, 102, 100] == [bid["loss_reason"] for bid in told["bids"]]

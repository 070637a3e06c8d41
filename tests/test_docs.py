# What is written for people is true: links lead somewhere, the rules page shows what it says, its examples are decided
# again, and the code it names is there.

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from auction.case import case_of, decide, decided
from auction.config import load
from auction.core.auction import compile_rules
from auction.model.auction import Encoding
from auction.model.draws import fold, rank
from auction.model.money import floor_micros, text
from auction.v1.openrtb_pb2 import BidRequest
from tests import oracle, promises
from tests.promises import ROOT, RULES
from tests.vectors import VECTORS

Json = dict[str, Any]

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *VECTORS.glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)
SECTIONS = dict(promises.sections(RULES.read_text()))
# Each paragraph, point and row that promises something, with its section.
PROMISES = [
    (heading, block)
    for heading, body in SECTIONS.items()
    for block in promises.blocks(body)
    if not block.startswith("Code:") and not block.endswith(":") and "not in a case:" not in block
]


def anchors(page: Path) -> set[str]:
    """Give the names of a page's headings, as a browser knows them."""
    page_text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", page_text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target, title in promises.LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
        elif title and f"def {title}(" not in there.read_text():
            lost.append(f"{target} {title}")
    assert lost == []


def test_every_rule_is_shown_by_a_vector_or_a_test() -> None:
    assert [(heading, block) for heading, block in PROMISES if not promises.evidence(block)] == []
    assert 150 <= len(PROMISES)
    assert 250 <= len(set(promises.vectors(RULES.read_text())))


def test_a_rule_without_a_link_is_seen() -> None:
    added = (
        "## 1 Money\n\n- A promise.\n- [Another](../conformance/x.json).\n\n| a | b |\n|---|---|\n| c | d |\n\nLast\n"
    )
    ((_, body),) = promises.sections(added)
    unshown = [block for block in promises.blocks(body) if not promises.evidence(block)]
    assert ["- A promise.", "| c | d |", "Last"] == unshown


def test_settings_on_the_rules_page_are_all_and_their_vectors_those_that_depend_on_them() -> None:
    # `make docs` writes the table; its source is held to the market by tests/test_settings.py.
    assert promises.settings_table() in RULES.read_text()


def test_example_configuration_of_the_rules_page_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", RULES.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "auction.yaml"
    path.write_text(example)
    compile_rules(load(path, {}).rules())
    written = {
        name.partition("[")[0].partition(".")[2] or name
        for name, _ in promises.every_setting()
        if name.startswith("exchange.") and name != "exchange.explain"
    }
    assert [name for name in sorted(written) if f"{name}:" not in example] == []


# ------------------------------------------------------------ examples


def rows_with(column: str) -> list[Json]:
    return [row for body in SECTIONS.values() for table in promises.tables(body) if column in table[0] for row in table]


def linked(row: Json) -> list[Json]:
    return [json.loads((VECTORS / f"{name}.json").read_text()) for name in promises.vectors(" ".join(row.values()))]


def amount(written: str, currency: str) -> tuple[str, str]:
    """Read an amount of the page, `151.5 JPY`, or `0.91` of the exchange's own currency."""
    number, _, code = written.partition(" ")
    return number, code or currency


@pytest.mark.parametrize("row", rows_with("bids"), ids=lambda row: row["bids"])
def test_worked_auction_comes_out_as_written(row: Json) -> None:
    (case,) = linked(row)
    currency = case.get("exchange", {}).get("currency", "USD")
    imp = decide(case)["imp"][0]
    (winner,) = imp["winners"]
    assert (row["price"], row["set by"]) == (imp["clearing_price"], imp["price_setter"])
    assert amount(row["pays"], currency) == (winner["pays"], winner["currency"])
    written = row["bids"].split(", ")
    assert len(written) == len(imp["bids"])
    for cell, bid in zip(written, imp["bids"], strict=True):
        assert amount(cell.strip("*~"), currency) == (bid["price"], bid["currency"])
        assert cell.startswith("**") == (bid["loss_reason"] == 0)
        assert cell.startswith("~~") == (bid["loss_reason"] not in (0, 102, 103))


@pytest.mark.parametrize("row", rows_with("reason"), ids=lambda row: row["rejected, since"][:60])
def test_each_check_gives_reason_and_status_as_written(row: Json) -> None:
    # Each vector of the first column that shows: those behind a semicolon show what is said beside it.
    given = set()
    for case in linked({"shown by": row["shown by"].partition(";")[0]}):
        expect = case["expect"]
        bids = [bid for imp in expect["imp"] for bid in imp["bids"]] + expect["unplaced"]
        reasons = {(bid["bidder"], bid["seat"], bid["id"]): bid["loss_reason"] for bid in bids}
        statuses = {
            (one["bidder"], one["seat"], one["bid"]): one["status"]
            for one in expect["non_bids"]
            if one["bid"] is not None
        }
        found = {(str(reasons[bid]), str(status)) for bid, status in statuses.items() if bid in reasons}
        assert (row["reason"], row["status"]) in found, case["title"]
        given |= found
    assert given


@pytest.mark.parametrize("row", rows_with("refused"), ids=lambda row: row["refused"][:60])
def test_each_refusal_is_one(row: Json) -> None:
    cases = linked(row)
    assert cases
    assert [case["title"] for case in cases if "error" not in decide(case)] == []


@pytest.mark.parametrize("row", rows_with("the reply"), ids=lambda row: row["the reply"][:60])
def test_each_reply_has_its_status(row: Json) -> None:
    shown = {**row, "shown by": row["shown by"].partition(";")[0]}
    found = {one["status"] for case in linked(shown) for one in case["expect"]["non_bids"] if one["bid"] is None}
    statuses = [int(status) for status in row["status"].split(", ")] if row["status"][0].isdigit() else [8, 501, 0]
    assert set(statuses) <= found


def test_worked_floors_are_told_and_held_to_as_written() -> None:
    (example,) = re.findall(r"^```json case\n(.*?)^```", RULES.read_text(), re.MULTILINE | re.DOTALL)
    case = json.loads(example)
    outcome = decided(case_of(case))
    told = {}
    for invitation in outcome.auction.invitations:
        assert invitation.encoding is Encoding.PROTOBUF
        told[invitation.bidder] = BidRequest.FromString(invitation.body).imp[0]
    (imp,) = decide(case)["imp"]
    assert imp["bids"] == oracle.decide(case)["imp"][0]["bids"]
    bids = {bid["id"]: bid for bid in imp["bids"]}
    rows = rows_with("deal told")
    assert list(told) == [row["bidder"] for row in rows]
    for row in rows:
        view = told[row["bidder"]]
        assert (row["told"], row["in"]) == (text(floor_micros(view.bidfloor) or 0), view.bidfloorcur)
        (deal,) = view.pmp.deals
        assert (row["deal told"], row["in"]) == (text(floor_micros(deal.bidfloor) or 0), deal.bidfloorcur)
        for column in ("just below", "at it"):
            bid, _, reason = row[column].partition(": ")
            assert int(reason) == bids[bid]["loss_reason"]
        assert row["told"] == bids[row["at it"].partition(":")[0]]["price"]
        below = bids[row["just below"].partition(":")[0]]["price"]
        assert 1 == round((float(row["told"]) - float(below)) * 1e6)
        assert row["floor that counts, USD"] == bids[row["at it"].partition(":")[0]]["floor"]


def test_ranks_on_the_rules_page_are_ranks() -> None:
    for row in rows_with("seat A, bid a1"):
        for column, seat, bid in (("seat A, bid a1", "A", "a1"), ("seat B, bid b1", "B", "b1")):
            assert row[column] == f"`{rank(fold(row['request'], '1', seat), bid):#018x}`"


# ------------------------------------------------------------ code


def defined(path: Path) -> set[str]:
    """Name the functions and classes of a module, methods behind their class."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_every_section_names_its_code_and_the_code_is_there() -> None:
    for heading, body in SECTIONS.items():
        named = promises.CODE.findall(body)
        if heading.startswith(("12 ", "13 ")):  # what can be set, and what is ours, are all of the others' code
            continue
        assert named, heading
        for path, name in named:
            assert (ROOT / path).is_file(), path
            assert not name or name in defined(ROOT / path), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_and_code_that_a_page_names_are_there(page: Path) -> None:
    lost = []
    for path, name in re.findall(
        r"`((?:tests|auction|benchmarks|bidders)/[\w/]+\.py)(?:::([\w.]+))?`", page.read_text()
    ):
        if not (ROOT / path).is_file() or (name and name not in defined(ROOT / path)):
            lost.append(f"{path}::{name}")
    assert lost == []


def test_every_duty_of_the_wire_names_what_holds_it_and_where_it_is_built() -> None:
    page = (ROOT / "docs" / "wire-tests.md").read_text()
    rows = [row for table in promises.tables(page) for row in table]
    assert len(rows) > 50
    for row in rows:
        assert re.search(r"`tests/\w+\.py::test_\w+`|`make [a-z]+`|\[wire\.md\]", row["test"]), row["duty"]
        for built in re.findall(r"`([\w/.]+)`", row["built in"]):
            inside = (
                built if built.startswith("auction/") or built == "pyproject.toml" else f"auction/edge/wire/{built}"
            )
            assert (ROOT / inside).exists(), built
    for target in re.findall(r"`make ([a-z]+)`", page):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    duties = {name for name in defined(ROOT / "tests" / "test_wire_duties.py") if name.startswith("test_")}
    assert duties == set(re.findall(r"test_wire_duties\.py::(\w+)", page))

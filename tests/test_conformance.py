# Every vector of conformance/ five ways: through the product, by its sieve and without it, through the oracle, out of a
# written-and-read log, and replayed.
#
# The loop below is the only code; what is claimed stands in tests/scenarios, from which the vectors are made.

from __future__ import annotations

import json
import re
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from auction import replay
from auction.case import case_of, decide, decided
from auction.core import auction, record
from auction.core.explain import told
from auction.core.offers import offers
from auction.edge import eventlog
from auction.model.auction import AuctionResult
from auction.model.errors import InvalidRequest
from tests import oracle
from tests.vectors import VECTORS

Json = dict[str, Any]

SOFTWARE = "auction/test"


@pytest.fixture(params=sorted(VECTORS.glob("*.json")), ids=lambda path: str(path.stem))
def vector(request: pytest.FixtureRequest) -> Json:
    path: Path = request.param
    read: Json = json.loads(path.read_text())
    return read


def compared(answer: Json) -> Json:
    """Leave out the texts, which are for people, and the order of non-bids, which is no part of a decision."""
    if "error" in answer:
        return {name: answer["error"][name] for name in ("code", "path")}
    warnings = [warning["path"] for warning in answer["warnings"]]
    return {**answer, "warnings": warnings, "non_bids": sorted(answer["non_bids"], key=repr)}


def test_product_decides_as_expected(vector: Json) -> None:
    assert compared(vector["expect"]) == compared(decide(vector))


def test_product_decides_as_expected_without_its_sieve(vector: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auction, "offers", partial(offers, sieved=False))
    assert compared(vector["expect"]) == compared(decide(vector))


def test_oracle_decides_as_expected(vector: Json) -> None:
    assert compared(vector["expect"]) == compared(oracle.decide(vector))


def test_log_tells_the_same_and_replays_to_the_byte(vector: Json, tmp_path: Path) -> None:
    case = case_of(vector)
    rules = record.encode_rules(case.rules, SOFTWARE)
    try:
        outcome = decided(case)
    except InvalidRequest as refusal:
        entry = (record.REFUSAL, record.encode_refusal(case.arrival, refusal), rules)
        frame = written_and_read(tmp_path, entry)[-1]
        refused = record.decode_refusal(frame.payload)
        assert vector["expect"]["error"]["path"] == refused.path
        assert len(case.arrival.body) == refused.request_bytes
        return

    entry = (record.AUCTION, record.encode_auction(outcome.auction, outcome.replies, outcome.result), rules)
    logged = list(replay.auctions(written_and_read(tmp_path, entry)))
    assert len(logged) == 1
    recorded = logged[0].recorded
    assert recorded.result == record.encode_result(record.decode_result(recorded.result))
    assert compared(vector["expect"]) == compared(answer(vector, record.decode_result(recorded.result)))

    assert replay.difference(logged[0]) is None
    assert logged[0].rules is not None
    assert compared(vector["expect"]) == compared(answer(vector, replay.again(recorded, logged[0].rules)))


def answer(vector: Json, result: AuctionResult) -> Json:
    # Ids as the expected answer has them, since a sloppy request may give them as numbers.
    imps = [imp["id"] for imp in vector["expect"]["imp"]]
    return {**told(vector["expect"]["id"], imps, result), "response": json.loads(result.response)}


def written_and_read(directory: Path, entry: tuple[int, bytes, bytes]) -> list[eventlog.Frame]:
    """Write one record to a log on disk and read the log back: its rules, then the record."""
    ticks = count(1)
    log = eventlog.EventLog(directory, monotonic=lambda: 0.0, wall_us=lambda: next(ticks), fsync="never")
    log.append([entry])
    log.close()
    faults: list[eventlog.Fault] = []
    frames = list(eventlog.read([directory], faults.append))
    assert faults == []
    assert [record.RULES, entry[0]] == [frame.kind for frame in frames]
    return frames


def test_documented_example_is_what_is_decided() -> None:
    document = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text()
    case, answered = (json.loads(block) for block in re.findall(r"^```json \w+\n(.*?)^```", document, re.M | re.S))
    assert answered == decide(case)
    assert compared(answered) == compared(oracle.decide(case))


def test_documented_reasons_and_statuses_are_those_of_the_vectors() -> None:
    document = (VECTORS.parent / "docs" / "conformance.md").read_text()
    documented = {
        (int(reason), int(status))
        for reason, status in re.findall(r"^\| [^|]+ \| (\d+)[^|]*\| (\d+) \|$", document, re.MULTILINE)
    }
    found = set()
    for path in VECTORS.glob("*.json"):
        expect = json.loads(path.read_text())["expect"]
        rejected = [non_bid for non_bid in expect.get("non_bids", []) if non_bid["bid"] is not None]
        told_of = [bid for imp in expect.get("imp", []) for bid in imp["bids"]] + expect.get("unplaced", [])
        reasons = [(bid["bidder"], bid["seat"], bid["id"], bid["loss_reason"]) for bid in told_of]
        lost = [one for one in reasons if one[-1] not in (0, 102, 103)]
        # Both lists are bidder by bidder, in the order of the reply; bids placed nowhere come last among those told of.
        if not expect.get("unplaced") and len(expect.get("imp", [])) == 1:
            found |= {(bid[-1], non_bid["status"]) for bid, non_bid in zip(lost, rejected, strict=True)}
    assert documented == found


# The sections of OpenRTB 2.6 that say what an auction decides: objects, markup, a macro's note, guidance on floors.
SECTIONS = r"3\.2\.([1-9]|[12]\d|3[0-5])|4\.2\.[1-3]|4\.3\.[12]|4\.4\.1|7\.11"


def test_every_vector_names_its_source() -> None:
    known = re.compile(
        rf"OpenRTB 2\.6 section ({SECTIONS})|OpenRTB (loss|no-bid) reasons|ISO 4217|industry practice|arithmetic|policy"
    )
    read = {path.stem: json.loads(path.read_text()) for path in VECTORS.glob("*.json")}
    assert 300 <= len(read)
    assert [] == [name for name, one in read.items() if not one["source"]]
    assert [] == [name for name, one in read.items() if not all(map(known.fullmatch, one["source"]))]


def test_vectors_are_what_any_reader_of_json_takes() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for path in VECTORS.glob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)

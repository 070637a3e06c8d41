# `auction explain`: why an auction ended as it did, from a case file and from a log.

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from auction.__main__ import main
from auction.case import decide
from auction.core.auction import close_auction, compile_rules, open_auction
from auction.core.record import encode_auction, encode_rules
from auction.edge.eventlog import AUCTION, EventLog
from auction.model.auction import Arrival, Encoding
from auction.model.rules import SOFTWARE, Rules
from tests.test_replay import held

CASE: dict[str, Any] = {
    "request": {"id": "r1", "imp": [{"id": "1", "banner": {}, "bidfloor": 0.85}]},
    "replies": [
        {
            "bidder": "dsp-a",
            "status": "BID",
            "body": {"id": "r1", "seatbid": [{"seat": "s1", "bid": [{"id": "a", "impid": "1", "price": 1.0}]}]},
        },
        {
            "bidder": "dsp-b",
            "status": "BID",
            "body": {
                "id": "r1",
                "seatbid": [
                    {
                        "seat": "s2",
                        "bid": [
                            {"id": "b", "impid": "1", "price": "0.90"},
                            {"id": "n", "impid": "1", "price": "NaN"},
                            {"id": "x", "impid": "9", "price": 3},
                        ],
                    }
                ],
            },
        },
        {"bidder": "dsp-c", "status": "TIMED_OUT"},
    ],
}


def explained(tmp_path: Path, case: Any, *options: str) -> int:
    path = tmp_path / "case.json"
    path.write_text(case if isinstance(case, str) else json.dumps(case))
    return main(["explain", str(path), *options])


def test_a_case_is_told_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == explained(tmp_path, CASE, "--json")
    told = json.loads(capsys.readouterr().out)
    assert {"id", "imp", "unplaced", "non_bids", "warnings", "nbr", "response"} == set(told)
    (imp,) = told["imp"]
    assert {"bidder": "dsp-a", "seat": "s1", "bid": "a"} == imp["winner"]
    assert ("0.91", "rival") == (imp["clearing_price"], imp["price_setter"])
    assert ["1", "0.9", "NaN"] == [bid["price"] for bid in imp["bids"]]
    assert [0, 102, 3] == [bid["loss_reason"] for bid in imp["bids"]]
    assert ["x"] == [bid["id"] for bid in told["unplaced"]]
    assert 0.91 == told["response"]["seatbid"][0]["bid"][0]["price"]


def test_a_case_is_told_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == explained(tmp_path, CASE)
    out = capsys.readouterr().out
    assert "dsp-a wins at 0.91, set by the best rival plus the increment" in out
    assert "101 timeout" in out


def test_words_from_outside_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = json.loads(json.dumps(CASE).replace('"s1"', '"[red]\\u001b[2J"'))
    assert 0 == explained(tmp_path, case)
    out = capsys.readouterr().out
    assert "[red]" in out
    assert "\x1b[2J" not in out


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ("1e400", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("-0.0", "-0.0"),
        (10**400, "Infinity"),
        (2**53 + 1, "9007199254740992"),
    ],
)
def test_a_price_is_read_as_the_nearest_double(price: Any, told: str) -> None:
    bid = {"id": "a", "impid": "1", "price": price}
    reply = {"bidder": "dsp-a", "body": {"id": "r1", "seatbid": [{"bid": [bid]}]}}
    (imp,) = decide({**CASE, "replies": [reply]})["imp"]
    assert [("a", told, 3)] == [(bid["id"], bid["price"], bid["loss_reason"]) for bid in imp["bids"]]


def test_a_floor_beyond_a_double_is_refused_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = json.dumps(CASE).replace("0.85", '1e999, "tagid": "Infinity \\" Infinity"')
    assert 0 == explained(tmp_path, case, "--json")
    assert "imp[0].bidfloor" == json.loads(capsys.readouterr().out)["error"]["path"]


def test_a_refused_request_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = {**CASE, "request": {"id": "r1", "imp": [{"id": "1", "banner": {}, "bidfloor": -0.5}]}}
    assert 0 == explained(tmp_path, case, "--json")
    error = json.loads(capsys.readouterr().out)["error"]
    assert ("INVALID_ARGUMENT", "imp[0].bidfloor", "expected >= 0, was -0.5") == tuple(error.values())


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ({}, "request: expected"),
        ({**CASE, "replys": []}, "replys: unknown member"),
        ({**CASE, "replies": [{"bidder": "a", "status": "LATE"}]}, "replies[0].status: expected one of"),
        ({**CASE, "replies": [{"status": "BID"}]}, "replies[0].bidder: expected a name"),
        ({**CASE, "exchange": {"incremet": "1"}}, "exchange.incremet"),
        ({**CASE, "floors": [{"value": "1"}]}, "floors: expected a mapping, was a list"),
        ({**CASE, "replies": [{"bidder": "a"}, {"bidder": "a"}]}, "replies[1].bidder: expected one reply for each"),
        ({**CASE, "replies": [{"bidder": "a", "status": []}]}, "replies[0].status: expected one of"),
        ({**CASE, "replies": [{"bidder": "a", "latency_ms": math.inf}]}, "replies[0].latency_ms: expected"),
        ('{"request": ' + "[" * 100_000, "nested deeper than 200 levels"),
        ('{"request": {"ext": ' + "[" * 300 + "]" * 300 + "}}", "nested deeper than 200 levels"),
        ({**CASE, "fx": {"JPY": "\ud800"}}, 'fx.JPY: expected a decimal, was "\\ud800"'),
        ({**CASE, "\x1b[2J": 1}, "\\u001b[2J: unknown member"),
    ],
)
def test_a_file_that_is_no_case_is_told_what_is_wrong(
    tmp_path: Path, case: Any, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == explained(tmp_path, case)
    assert fault in capsys.readouterr().err


def test_an_auction_is_found_by_its_id_and_by_its_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload, rules = next(held())
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, payload, rules)])
    writer.close()
    from auction.core import record
    from auction.core.openrtb import requests

    arrival = record.decode_auction(payload).arrival
    request = requests.parse_request(arrival.body).id
    told = []
    for name in (arrival.id, request):
        assert 0 == main(["explain", "--log", str(tmp_path), name, "--json"])
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert request == told[0]["request"]


def test_an_auction_is_found_though_its_requests_id_was_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = Rules()
    body = b'{"id": "caf\\u00e9\\/1", "imp": [{"id": "1", "banner": {}}]}'
    auction = open_auction(Arrival("A", 0, Encoding.JSON, body), compile_rules(rules))
    payload = encode_auction(auction, [], close_auction(auction, []))
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, payload, encode_rules(rules, SOFTWARE))])
    writer.close()
    assert 0 == main(["explain", "--log", str(tmp_path), "--json", "café/1"])
    assert "A" == json.loads(capsys.readouterr().out)["id"]
    assert 1 == main(["explain", "--log", str(tmp_path), "\udcff"])  # an argument that is no UTF-8
    assert "\\udcff: no auction with this id" in capsys.readouterr().err


def test_an_unknown_id_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["explain", "--log", str(tmp_path), "nobody"])
    assert "nobody: no auction with this id" in capsys.readouterr().err

# What `auction log` reads in logs that a real writer wrote, whole and damaged.


from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from auction import case
from auction.__main__ import main
from auction.commands.log import columns
from auction.core import record
from auction.edge.eventlog import EventLog, Frame, read
from auction.model.errors import InvalidRequest
from auction.model.rules import SOFTWARE
from auction.v1 import record_pb2

ROOT = Path(__file__).resolve().parent.parent
START_US = 1_750_000_000_000_000
START = "2025-06-15T15:06:40.000000Z"
# Each batch is written so much later than the one before.
STEP_US = 60_000_000

IMPS: list[dict[str, Any]] = [
    {"id": "1", "tagid": "top", "banner": {"w": 300, "h": 250}, "bidfloor": 0.85},
    {"id": "2", "tagid": "side", "video": {"mimes": ["video/mp4"]}, "banner": {}, "bidfloorcur": "USD"},
]


def auction_case(name: str, **members: Any) -> case.Case:
    """Two impressions, of which dsp-a wins the first at dsp-b's price and an increment, and dsp-c is late."""
    replies = [
        {"bidder": "dsp-a", "latency_ms": 12, "body": reply(name, "s1", "a1", "1", 1.0)},
        {"bidder": "dsp-b", "latency_ms": 3.5, "body": reply(name, "s2", "b1", "1", 0.9)},
        {"bidder": "dsp-c", "status": "TIMED_OUT", "latency_ms": 95},
    ]
    return case.case_of({"request": {"id": name, "imp": IMPS}, "replies": replies, **members})


def reply(request: str, seat: str, bid: str, imp: str, price: object) -> dict[str, Any]:
    return {"id": request, "seatbid": [{"seat": seat, "bid": [{"id": bid, "impid": imp, "price": price}]}]}


class Writer:
    """A log under construction; each record is a batch of its own, a minute after the one before."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self._now_us = START_US
        self._log = EventLog(directory, monotonic=lambda: 0.0, wall_us=lambda: self._now_us, **settings)

    def put(self, *cases: case.Case) -> Writer:
        for one in cases:
            rules = record.encode_rules(one.rules, SOFTWARE)
            try:
                held = case.decided(one)
            except InvalidRequest as refusal:
                self.append(record.REFUSAL, record.encode_refusal(one.arrival, refusal), rules)
            else:
                self.append(record.AUCTION, record.encode_auction(held.auction, held.replies, held.result), rules)
        return self

    def append(self, kind: int, payload: bytes, rules: bytes) -> None:
        self._log.append([(kind, payload, rules)])
        self._now_us += STEP_US

    def close(self) -> Path:
        self._log.close()
        return self.directory


def written(directory: Path, *names: str, **settings: Any) -> Path:
    return Writer(directory, **settings).put(*map(auction_case, names)).close()


def frames(*paths: Path) -> list[Frame]:
    return list(read(paths, lambda fault: None))


def segment(directory: Path) -> Path:
    (path,) = directory.glob("*.seg")
    return path


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return written(tmp_path / "log", "r1", "r2", "r3")


# cat


def test_a_row_tells_who_was_asked_what_came_back_and_what_became_of_it(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["log", "cat", "--jsonl", "--kind", "auction", "--limit", "1", str(log)])
    (row,) = rows(capsys.readouterr().out)
    assert ("auction", 2, START, SOFTWARE) == tuple(row[name] for name in ("kind", "sequence", "written", "software"))
    assert ("r1", "r1", "json") == (row["id"], row["request"], row["encoding"])
    assert ("USD", 3, 1, 910_000) == (row["currency"], row["asked"], row["sold"], row["revenue_cpm_micros"])
    assert [("1", "top", ["banner"], 850_000), ("2", "side", ["banner", "video"], 0)] == [
        (imp["id"], imp["tagid"], imp["media"], imp["floor_cpm_micros"]) for imp in row["imps"]
    ]
    assert [("dsp-a", "BID", 12_000), ("dsp-b", "BID", 3_500), ("dsp-c", "TIMED_OUT", 95_000)] == [
        (reply["bidder"], reply["status"], reply["latency_us"]) for reply in row["replies"]
    ]
    assert [("a1", "1", 0, 910_000, "rival"), ("b1", "0.9", 102, None, None)] == [
        (bid["id"], bid["price"], bid["loss_reason"], bid["clearing_price_cpm_micros"], bid["price_setter"])
        for bid in row["bids"]
    ]
    assert ("dsp-c", "1", 101) in [(no["bidder"], no["imp"], no["status"]) for no in row["non_bids"]]


def test_rules_and_refusals_have_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = case.case_of({"request": {"id": "bad", "imp": [{**IMPS[0], "bidfloor": -0.5}]}})
    log = Writer(tmp_path).put(refused).close()
    assert 0 == main(["log", "cat", "--jsonl", str(log)])
    rules, refusal = rows(capsys.readouterr().out)
    assert ("rules", "USD") == (rules["kind"], rules["settings"]["exchange"]["currency"])
    assert ("refusal", "bad", "imp[0].bidfloor") == (refusal["kind"], refusal["id"], refusal["path"])
    assert rules["rules"] == refusal["rules"]


def test_every_column_is_documented_and_every_documented_column_exists() -> None:
    document = (ROOT / "docs" / "log.md").read_text()
    sections = {
        title: set(re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE))
        for title, body in re.findall(r"^### (.*?)$(.*?)(?=^#|\Z)", document, re.MULTILINE | re.DOTALL)
    }
    common = sections["Every record"]
    for title, row in (
        ("auction", columns.AuctionRow),
        ("refusal", columns.RefusalRow),
        ("rules", columns.RulesRow),
        ("other", columns.OtherRow),
    ):
        assert common | sections[title] == {"kind", *row.__struct_fields__}
    for title, nested in (
        ("imps", columns.ImpRow),
        ("replies", columns.ReplyRow),
        ("bids", columns.BidRow),
        ("non_bids", columns.NonBidRow),
        ("warnings", columns.WarningRow),
    ):
        assert sections[title] == set(nested.__struct_fields__)


def test_a_price_that_no_json_number_can_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replies = [{"bidder": "dsp-a", "body": reply("r1", "s1", "a1", "1", "NaN")}]
    log = Writer(tmp_path).put(auction_case("r1", replies=replies)).close()
    assert 0 == main(["log", "cat", "--jsonl", "--kind", "auction", str(log)])
    (row,) = rows(capsys.readouterr().out)
    assert ["NaN"] == [bid["price"] for bid in row["bids"]]


def test_time_bounds_include_since_and_exclude_until(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bounds = ["--since", "2025-06-15T15:07:40Z", "--until", "2025-06-15T15:08:40Z"]
    assert 0 == main(["log", "cat", "--jsonl", *bounds, str(log)])
    assert ["r2"] == [row["id"] for row in rows(capsys.readouterr().out)]


def test_segments_closed_before_since_are_not_even_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path / "log", "r1", "r2", "r3", segment_bytes=1)
    first, *_ = sorted(log.glob("*.seg"))
    flip(first, 30)
    assert 0 == main(["log", "cat", "--jsonl", "--since", "2025-06-15T15:08:00Z", "--kind", "auction", str(log)])
    assert ["r3"] == [row["id"] for row in rows(capsys.readouterr().out)]


def test_bidder_keeps_the_auctions_that_asked_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = auction_case("r2", replies=[{"bidder": "dsp-d", "status": "NO_BID"}])
    log = Writer(tmp_path).put(auction_case("r1"), alone).close()
    assert 0 == main(["log", "cat", "--jsonl", "--bidder", "dsp-d", str(log)])
    assert ["r2"] == [row["id"] for row in rows(capsys.readouterr().out)]


def test_logs_of_several_processes_come_in_the_order_of_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = written(tmp_path / "a", "a1", "a2"), written(tmp_path / "b", "b1", "b2")
    assert 0 == main(["log", "cat", "--jsonl", "--kind", "auction", str(one), str(segment(other))])
    assert ["a1", "b1", "a2", "b2"] == [row["id"] for row in rows(capsys.readouterr().out)]


def test_people_see_what_became_of_every_bid(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["log", "cat", "--limit", "2", str(log)])
    lines = capsys.readouterr().out.splitlines()
    assert "request r1: sold 1 of 2 for 0.91 USD CPM" in lines[1]
    assert "imp 1 at 1 USD won, pays 0.91 USD" in lines[2]
    assert "imp 1 at 0.9 USD lost to higher bid" in lines[3]
    assert "TIMED_OUT" in lines[4]


def test_a_terminal_gets_nothing_that_it_would_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, "\x1b[2Jgone")
    assert 0 == main(["log", "cat", str(log)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\u001b[2Jgone" in out


def test_cat_passes_over_damage_and_says_where(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = frames(log)[2]
    flip(segment(log), broken.offset + 50)
    assert 1 == main(["log", "cat", "--jsonl", "--kind", "auction", str(log)])
    told = capsys.readouterr()
    assert ["r1", "r3"] == [row["id"] for row in rows(told.out)]
    assert f"offset {broken.offset}: corrupt: wrong checksum" in told.err


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    log = written(tmp_path, *(f"r{number}" for number in range(200)))  # more than a pipe holds
    command = subprocess.Popen(
        [sys.executable, "-m", "auction", "log", "cat", "--jsonl", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    assert "rules" == json.loads(command.stdout.readline())["kind"]
    command.stdout.close()
    assert b"" == command.stderr.read()
    assert 0 == command.wait(timeout=30)
    command.stderr.close()


# stat


def test_stat_adds_up_by_segment_and_over_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = case.case_of({"request": {"id": "bad", "imp": []}})
    log = Writer(tmp_path, segment_bytes=1).put(auction_case("r1"), auction_case("r2"), refused).close()
    assert 0 == main(["log", "stat", "--json", str(log)])
    told = json.loads(capsys.readouterr().out)
    total = told["total"]
    assert (3, 2, 1, 3) == (len(told["segments"]), total["auctions"], total["refusals"], total["rules"])
    assert (4, 2, 0.5, {"USD": 1_820_000}) == (
        total["imps"],
        total["sold"],
        total["fill"],
        total["revenue_cpm_micros"],
    )
    assert [(1, 2), (3, 4), (5, 6)] == [(row["first_sequence"], row["last_sequence"]) for row in told["segments"]]
    assert START == total["first_written"] == told["segments"][0]["first_written"]
    assert sum(path.stat().st_size for path in log.glob("*.seg")) == total["bytes"]
    assert [1, 1, 0] == [row["sold"] for row in told["segments"]]


def test_stat_names_every_version_of_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dearer = auction_case("r2", exchange={"currency": "EUR", "increment": "0.02"}, fx={"EUR": "0.9"})
    log = Writer(tmp_path).put(auction_case("r1"), dearer, auction_case("r3")).close()
    assert 0 == main(["log", "stat", "--json", str(log)])
    told = json.loads(capsys.readouterr().out)
    assert [2, 1] == [version["auctions"] for version in told["versions"]]
    assert {"USD", "EUR"} == set(told["total"]["revenue_cpm_micros"])


def test_rules_of_other_software_still_tell_their_currency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = case.decided(auction_case("r1"))
    settings = json.loads(held.auction.rules.rules.canonical())
    settings["exchange"]["auto_haggle"] = True
    canonical = json.dumps(settings).encode()
    digest = hashlib.sha256(canonical).digest()
    rules = record_pb2.RulesRecord(digest=digest, software="auction/9", canonical=canonical)
    auction = record_pb2.AuctionRecord.FromString(record.encode_auction(held.auction, held.replies, held.result))
    auction.rules_digest = digest
    writer = Writer(tmp_path)
    writer.append(record.AUCTION, auction.SerializeToString(), rules.SerializeToString())
    assert 0 == main(["log", "stat", "--json", str(writer.close())])
    told = json.loads(capsys.readouterr().out)
    assert (2, {"USD": 910_000}) == (told["total"]["imps"], told["total"]["revenue_cpm_micros"])
    assert ["auction/9"] == [version["software"] for version in told["versions"]]


def test_stat_shows_a_table_to_people(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["log", "stat", str(log)])
    out = capsys.readouterr().out
    assert out.startswith(str(log))
    assert re.search(r"^1-4 +2025-06-15T15:06:40 ", out, re.MULTILINE)
    assert "3 auctions, 0 refused requests, 6 impressions, 3 sold (50.0%), revenue 2.73 USD CPM" in out


# verify


def test_a_whole_log_is_whole(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["log", "verify", str(log)])
    assert capsys.readouterr().out.startswith("whole; 4 records in 1 segment")


@pytest.mark.parametrize("place", ["checksum", "length", "payload"])
def test_a_damaged_frame_is_named_with_its_file_and_offset(
    log: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = frames(log)[2]
    flip(segment(log), broken.offset + {"checksum": 4, "length": 9, "payload": 45}[place])
    assert 1 == main(["log", "verify", "--json", str(log)])
    told = json.loads(capsys.readouterr().out)
    assert (False, 1, 3) == (told["whole"], told["damage"], told["records"])
    assert [("corrupt", str(segment(log)), broken.offset)] == [
        (fault["kind"], fault["path"], fault["offset"]) for fault in told["faults"]
    ]


def test_every_auction_whose_rules_are_damaged_is_named(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, *auctions = frames(log)
    flip(segment(log), rules.offset + 60)
    assert 1 == main(["log", "verify", "--json", str(log)])
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [("corrupt", rules.offset), *(("unreadable", auction.offset) for auction in auctions)] == [
        (fault["kind"], fault["offset"]) for fault in faults
    ]


def test_a_torn_tail_is_told_and_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Writer(tmp_path).put(auction_case("r1"))
    with segment(tmp_path).open("ab") as file:
        file.write(segment(tmp_path).read_bytes()[20:50])  # half of a frame, as a killed writer leaves it
    assert 0 == main(["log", "verify", str(tmp_path)])
    out = capsys.readouterr().out
    writer.close()
    assert "whole, 1 torn tail; 2 records" in out
    assert "torn: 30 bytes are no frame header" in out


def test_a_tail_that_was_published_and_is_gone_is_damage(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = frames(log)[-1]
    with segment(log).open("r+b") as file:
        file.truncate(last.offset)
    assert 1 == main(["log", "verify", str(log)])
    assert "missing: record 4 was published, and the segments end with 3" in capsys.readouterr().out


def test_a_missing_segment_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, "r1", "r2", "r3", segment_bytes=1)
    sorted(log.glob("*.seg"))[1].unlink()
    assert 1 == main(["log", "verify", str(log)])
    assert "missing: frames 3 to 4 are missing" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [record.AUCTION, record.REFUSAL])
def test_a_record_that_is_none_is_damage_though_its_frame_is_whole(
    tmp_path: Path, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(tmp_path)
    writer.append(kind, b"\xff\xff", record.encode_rules(auction_case("r1").rules, SOFTWARE))
    assert 1 == main(["log", "verify", str(writer.close())])
    assert "unreadable: record 2: not a" in capsys.readouterr().out


def test_rules_that_are_not_those_of_their_digest_are_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = record_pb2.RulesRecord(digest=bytes(32), canonical=b"{}").SerializeToString()
    writer = Writer(tmp_path)
    writer.append(record.REFUSAL, b"", rules)
    assert 1 == main(["log", "verify", str(writer.close())])
    assert "its rules are not those of their digest" in capsys.readouterr().out


def test_a_kind_that_is_not_known_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Writer(tmp_path)
    writer.append(77, b"of a later version", record.encode_rules(auction_case("r1").rules, SOFTWARE))
    log = writer.close()
    assert 0 == main(["log", "verify", str(log)])
    assert 0 == main(["log", "stat", "--json", str(log)])
    capsys.readouterr()
    assert 0 == main(["log", "cat", "--jsonl", str(log)])
    row = rows(capsys.readouterr().out)[-1]
    assert ("other", 77) == (row["kind"], row["number"])


# all of them


@pytest.mark.parametrize("action", ["cat", "stat", "verify"])
@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_path_without_a_log_is_wrong(
    tmp_path: Path, action: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert 2 == main(["log", action, str(tmp_path / name)])
    assert name in capsys.readouterr().err


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    # 100 records of 1 MB, read within a fifth of that.
    held = case.decided(auction_case("r1"))
    large = msgspec.structs.replace(held.replies[0], detail="x" * 1_000_000)
    payload = record.encode_auction(held.auction, (large, *held.replies[1:]), held.result)
    writer = Writer(tmp_path)
    rules = record.encode_rules(held.auction.rules.rules, SOFTWARE)
    for _ in range(100):
        writer.append(record.AUCTION, payload, rules)
    log = writer.close()
    # What reads a request brings a compiler with it, whose size is the same for any log.
    code = (
        "import sys, tracemalloc, auction.core.kernels; from auction.__main__ import main; tracemalloc.start();"
        "code = main(sys.argv[1:]); print(tracemalloc.get_traced_memory()[1], file=sys.stderr); sys.exit(code)"
    )
    for action in (["cat", "--jsonl"], ["stat"], ["verify"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, "log", *action, str(log)], capture_output=True, check=True, text=True
        )
        assert int(ended.stderr) < 20_000_000, action

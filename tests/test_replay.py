# A log runs again: as it was, and under other rules. Logs here are written by the real writer from real requests.

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from auction import replay
from auction.__main__ import main
from auction.config import ConfigFaults
from auction.core import record
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.openrtb import json as codec
from auction.edge.eventlog import AUCTION, EventLog, read
from auction.model.auction import Arrival, Auction, Encoding
from auction.model.errors import InvalidRequest
from auction.model.fx import Fx
from auction.model.money import CpmMicros
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import (
    SOFTWARE,
    Adjustment,
    BidderRules,
    ExchangeRules,
    FloorModel,
    FloorRule,
    FloorRules,
    Rules,
)
from auction.v1.record_pb2 import AuctionRecord, Result
from tests.corpus import accepted

RULES = Rules(
    exchange=ExchangeRules(increment={"USD": CpmMicros(10_000)}),
    bidders=(BidderRules("dsp-a"), BidderRules("dsp-b", "json"), BidderRules("dsp-c", media=("banner",))),
    fx=Fx("test", "2026-01-01T00:00:00Z", {"EUR": "0.9", "GBP": "0.8", "JPY": "150", "KRW": "1350"}),
)


def replies(auction: Auction[CompiledRules]) -> list[Reply]:
    """Two bidders that bid on everything, prices by place so that every auction has its own, and one that is late."""
    given = []
    for row, invitation in enumerate(auction.invitations):
        if invitation.bidder == "dsp-c":
            given.append(Reply("dsp-c", ReplyStatus.TIMED_OUT, b"", 95_000))
            continue
        bids = [
            {"id": f"{row}-{imp}", "impid": auction.request.imps[imp].id, "price": 2.5 + row * 0.25 + imp * 0.1}
            for imp in invitation.imps
        ]
        body = msgspec.json.encode({"id": auction.request.id, "cur": "USD", "seatbid": [{"seat": "s", "bid": bids}]})
        if invitation.encoding is Encoding.PROTOBUF:
            body = codec.response_bytes(body, lenient=True, depth=32).message
        given.append(Reply(invitation.bidder, ReplyStatus.BID, body, 20_000 + 40_000 * row))
    return given


def held() -> Iterator[tuple[bytes, bytes]]:
    """Give (record, its rules) for an auction of each bundled request, in both encodings by turns."""
    compiled = compile_rules(RULES)
    written = record.encode_rules(RULES, SOFTWARE)
    for place, (name, body) in enumerate(accepted().items()):
        encoding = Encoding.JSON if place % 2 else Encoding.PROTOBUF
        if encoding is Encoding.PROTOBUF:
            body = codec.request_bytes(body, lenient=True, depth=32).message
        auction = open_auction(Arrival(f"A-{name}", place, encoding, body, explain=place % 3 == 0), compiled)
        answers = replies(auction)
        yield record.encode_auction(auction, answers, close_auction(auction, answers)), written


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    writer = EventLog(directory, monotonic=time.monotonic, wall_us=lambda: 1)
    for payload, rules in held():
        writer.append([(AUCTION, payload, rules)])
    writer.close()
    return directory


def test_a_log_replays_byte_for_byte(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["replay", str(log)])
    count = len(accepted())
    assert f"{count} of {count} byte-identical\n" == capsys.readouterr().out


def test_a_changed_result_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload, rules = next(held())
    recorded = record.decode_auction(payload)
    result = record.decode_result(recorded.result)
    winner = next(place for place, bid in enumerate(result.outcomes) if bid.clearing_price is not None)
    forged = list(result.outcomes)
    forged[winner] = msgspec.structs.replace(forged[winner], clearing_price=CpmMicros(1), pays=CpmMicros(2))
    from auction.v1 import record_pb2

    message = record_pb2.AuctionRecord.FromString(payload)
    message.result = record.encode_result(msgspec.structs.replace(result, outcomes=tuple(forged)))
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, message.SerializeToString(), rules)])
    writer.close()
    assert 1 == main(["replay", str(tmp_path)])
    out = capsys.readouterr().out
    assert f"bid[{winner}].clearing_price: 1 -> " in out
    assert f"bid[{winner}].pays: 2 -> " in out
    assert "0 of 1 byte-identical" in out


def test_a_difference_to_other_software_is_a_change_not_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from auction.v1 import record_pb2

    payload, _ = next(held())
    message = record_pb2.AuctionRecord.FromString(payload)
    message.result = b""
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, message.SerializeToString(), record.encode_rules(RULES, "auction/0.0.9"))])
    writer.close()
    assert 3 == main(["replay", str(tmp_path)])
    assert "changed since auction/0.0.9" in capsys.readouterr().out


def unknown_reason(message: AuctionRecord) -> None:
    result = Result.FromString(message.result)
    result.outcome[0].loss_reason = 777
    message.result = result.SerializeToString()


def fewer_asked(message: AuctionRecord) -> None:
    del message.reply[1:]


def refused_here(message: AuctionRecord) -> None:
    message.arrival.body = b"\x0a\x00"


def unknown_currency(message: AuctionRecord) -> None:
    message.rules_digest = UNKNOWN_CURRENCY.digest()


UNKNOWN_CURRENCY = msgspec.structs.replace(RULES, exchange=ExchangeRules(currency="ZZZ"))


@pytest.mark.parametrize("otherwise", [unknown_reason, fewer_asked, refused_here, unknown_currency])
def test_what_other_software_wrote_is_a_change_whatever_it_is(
    otherwise: Callable[[AuctionRecord], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = AuctionRecord.FromString(next(held())[0])
    otherwise(message)
    rules = UNKNOWN_CURRENCY if otherwise is unknown_currency else RULES
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, message.SerializeToString(), record.encode_rules(rules, "auction/0.0.9"))])
    writer.close()
    assert 3 == main(["replay", str(tmp_path)])
    assert "changed since auction/0.0.9" in capsys.readouterr().out
    # Under other rules it is left out, where it cannot be read as it was.
    left_out = otherwise is not fewer_asked
    assert left_out == main(["replay", str(tmp_path), "--set", "increment=0.02", "--json"])
    assert left_out == json.loads(capsys.readouterr().out)["unreadable"]
    # What was decided then is told all the same, if its words are known.
    assert (2 if otherwise is unknown_reason else 0) == main(["explain", "--log", str(tmp_path), message.arrival.id])


def test_rules_lost_to_damage_are_a_fault_not_a_change(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged = next(replay.auctions(read([log], print)))
    found = replay.difference(msgspec.structs.replace(logged, rules=None, software=""))
    assert found is not None
    assert [("rules", "lost")] == [(field.name, field.before) for field in found.fields]


def test_words_from_a_log_do_nothing_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = compile_rules(RULES)
    imp = {"id": "1", "tagid": "[/red]\x1b[2J", "banner": {}}
    body = json.dumps({"id": "[/x]", "imp": [imp]}).encode()
    auction = open_auction(Arrival("A", 0, Encoding.JSON, body), compiled)
    answers = replies(auction)
    payload = record.encode_auction(auction, answers, close_auction(auction, answers))
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, payload, record.encode_rules(RULES, SOFTWARE))])
    writer.close()
    assert 0 == main(["replay", str(tmp_path), "--floor-scale", "2"])
    out = capsys.readouterr().out
    assert "[/red]\\u001b[2J" in out
    assert "\x1b[2J" not in out


def test_an_empty_log_is_not_called_identical(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["replay", str(tmp_path)])
    assert "0 of 0" in capsys.readouterr().out


def test_a_missing_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["replay", str(tmp_path / "nowhere")])
    assert "nowhere: no such directory or file" in capsys.readouterr().err


def test_a_record_reads_back_as_it_was_written() -> None:
    for payload, _ in itertools.islice(held(), 10):
        recorded = record.decode_auction(payload)
        result = record.decode_result(recorded.result)
        assert recorded.result == record.encode_result(result)


def test_rules_read_back_as_they_were_written() -> None:
    written = record.decode_rules(record.encode_rules(RULES, SOFTWARE))
    assert RULES == written.rules
    assert SOFTWARE == written.software


def test_rules_hold_no_address_or_header() -> None:
    assert set(BidderRules.__struct_fields__) == {
        "name", "encoding", "media", "seats", "currency", "blocked_creatives", "min_ms", "network_ms", "timeout_ms",
    }  # fmt: skip


def test_a_refusal_keeps_path_and_size_only() -> None:
    arrival = Arrival("A", 7, Encoding.JSON, b'{"id":"private"}')
    refusal = record.decode_refusal(record.encode_refusal(arrival, InvalidRequest("imp", "missing")))
    assert record.RecordedRefusal("A", 7, "imp", len(arrival.body)) == refusal
    assert b"private" not in record.encode_refusal(arrival, InvalidRequest("imp", "missing"))


@pytest.mark.parametrize("decode", [record.decode_auction, record.decode_result, record.decode_rules])
def test_bytes_that_are_no_record_are_called_so(decode: object) -> None:
    with pytest.raises(record.Unreadable):
        decode(b"\xff\xff\xff")  # type: ignore[operator]


def otherwise(log: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert 0 == main(["replay", str(log), "--json", *options])
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


def total(told: dict[str, object]) -> dict[str, dict[str, object]]:
    rows = told["total"]
    assert isinstance(rows, list)
    found: dict[str, dict[str, object]] = rows[0]
    return found


def test_the_same_rules_change_nothing(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = otherwise(log, capsys, "--set", "increment=0.01")
    assert total(told)["before"] == total(told)["after"]
    assert total(told)["before"]["sold"]


def test_a_higher_increment_raises_revenue(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = otherwise(log, capsys, "--set", "increment=0.02")
    before, after = total(told)["before"], total(told)["after"]
    assert before["sold"] == after["sold"]
    assert float(str(before["revenue_cpm"])) < float(str(after["revenue_cpm"]))


def test_higher_floors_sell_less_or_dearer(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = otherwise(log, capsys, "--floor-scale", "100")
    assert int(str(total(told)["after"]["sold"])) < int(str(total(told)["before"]["sold"]))


def test_a_dropped_bidder_sells_nothing(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = otherwise(log, capsys, "--drop-bidder", "dsp-b")
    rows = told["bidders"]
    assert isinstance(rows, list)
    after = {row["name"]: row["after"]["sold"] for row in rows}
    assert 0 == after["dsp-b"]
    assert after["dsp-a"] > 0


def test_an_earlier_deadline_loses_the_slower_bidder(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = otherwise(log, capsys, "--set", "tmax_max_ms=40", "--set", "tmax_ms=40")
    rows = told["bidders"]
    assert isinstance(rows, list)
    assert 0 == next(row["after"]["sold"] for row in rows if row["name"] == "dsp-b")


def test_a_counterfactual_says_what_it_assumes(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["replay", str(log), "--set", "min_price=3"])
    out = capsys.readouterr().out
    assert "Bids do not react" in out
    assert "fill" in out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("incremet=1", "incremet"),
        ("increment=[", "exchange.increment: not YAML"),
        ("increment=&a [*a]", "increment"),
        ("increment=-1", "increment"),
        ("increment", "KEY=VALUE"),
        ("server.port=1", "expected a setting of exchange, floors, bidders, limits, fx"),
        ("fx.JPY=1", "expected fx.rates.CODE"),
        ("fx.rates.EURO=1", "expected an ISO 4217 code"),
        ("fx.rates.EUR=0", "expected more than 0"),
        ("floors.floor_mim=1", "floors.floor_mim: unknown setting; did you mean floor_min?"),
        ("floors.rules=[{size: big, floor: 1}]", "floors.rules[0].size: expected a size such as 300x250"),
        ("floors.rules=[{bidder: dsp-x, floor: 1}]", "floors.rules[0].bidder: expected the name of a bidder"),
        ("bid_adjustments=[{}]", "exchange.bid_adjustments[0]: expected multiplier or subtract, was neither"),
        ("limits.imps=0", "limits.imps: expected 1 to 1000, was 0"),
        ("bidders.dsp-a.currency=yen", "bidders[0].currency: expected an ISO 4217 code"),
        ("bidders.dsp-x.seats=[a]", "expected bidders.NAME.SETTING, with a name of dsp-a"),
    ],
)
def test_a_wrong_setting_is_named(log: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["replay", str(log), "--set", setting])
    assert message in capsys.readouterr().err


def test_another_data_file_stops_the_replay_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = Rules(exchange=ExchangeRules(category_match="parents"), data={"taxonomies.json": "0" * 64})
    writer = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1)
    writer.append([(AUCTION, next(held())[0], record.encode_rules(rules, SOFTWARE))])
    writer.close()
    assert 1 == main(["replay", str(tmp_path)])
    assert "taxonomies.json: these rules were written with the file 000000000000..." in capsys.readouterr().err


MARKET = Rules(
    exchange=ExchangeRules(
        currency="EUR",
        # Everybody has these, listed or not.
        increment=msgspec.convert(
            {"USD": 10_000, "EUR": 20_000, "GBP": 10_000, "JPY": 1_000_000, "KRW": 1_000_000}, dict[str, int]
        ),
        max_cpm=CpmMicros(500_000_000),
        soft_floor=CpmMicros(2_500_000),
        bid_adjustments=(
            Adjustment(bidder="dsp.a", multiplier="0.9"),
            Adjustment(media="video", subtract=CpmMicros(50_000)),
        ),
        tie_key="salt",
        crid="enforce",
    ),
    floors=FloorRules(
        CpmMicros(100_000),
        "0.05",
        (
            FloorModel(
                "a", 7, CpmMicros(400_000), (FloorRule(CpmMicros(900_000), media_type="banner", size="300x250"),)
            ),
            FloorModel("b", 3),
        ),
    ),
    bidders=(BidderRules("dsp.a", "json", ("banner",), ("s1",), "JPY", ("c1",), 5, 2, 80), BidderRules("dsp-b")),
    fx=Fx("id", "2026-01-30T15:00:00Z", {"EUR": "0.92", "JPY": "150"}),
)


def test_rules_as_settings_are_the_same_rules_again() -> None:
    assert MARKET == replay.Change(("increment=0.02",)).rules(MARKET)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("increment=0.03", "exchange.increment", {"EUR": 30_000}),
        ("currency=JPY", "exchange.currency", "JPY"),
        ("min_price=0.5", "exchange.min_price", 500_000),
        ("max_cpm=10", "exchange.max_cpm", 10_000_000),
        ("max_cpm=null", "exchange.max_cpm", None),
        ("soft_floor=3", "exchange.soft_floor", 3_000_000),
        ("deal_mode=deals_first", "exchange.deal_mode", "deals_first"),
        ("competitor=bidder", "exchange.competitor", "bidder"),
        ("same_seat_sets_price=true", "exchange.same_seat_sets_price", True),
        ("min_to_win=table", "exchange.min_to_win", "table"),
        ("tie_key=pepper", "exchange.tie_key", "pepper"),
        ("size=off", "exchange.size", "off"),
        ("secure=warn", "exchange.secure", "warn"),
        ("crid=off", "exchange.crid", "off"),
        ("category_match=parents", "exchange.category_match", "parents"),
        ("deal_advertiser=open", "exchange.deal_advertiser", "open"),
        ("strict_ids=false", "exchange.strict_ids", False),
        ("json=strict", "exchange.json", "strict"),
        ("exchange.explain=always", "exchange.explain", "always"),
        ("bid_adjustments=[{multiplier: 0.5}]", "exchange.bid_adjustments", (Adjustment(multiplier="0.5"),)),
        ("floors.floor_min=1", "floors.floor_min", 1_000_000),
        ("floors.skip_rate=0", "floors.skip_rate", "0"),
        ("floors.models=[]", "floors.models", ()),
        ("limits.bids_per_reply=3", "limits.bids_per_reply", 3),
        ("limits.imps=3", "limits.imps", 3),
        ("bidders.dsp.a.seats=[s2, s3]", "bidders.0.seats", ("s2", "s3")),
        ("bidders.dsp.a.blocked_creatives=[]", "bidders.0.blocked_creatives", ()),
        ("bidders.dsp-b.currency=EUR", "bidders.1.currency", "EUR"),
        ("bidders.dsp-b.media=[video]", "bidders.1.media", ("video",)),
        ("fx.rates.JPY=160.5", "fx.rates.JPY", "160.5"),
        ("fx.rates.GBP=0.79", "fx.rates.GBP", "0.79"),
        ("bidders.dsp-b.name=dsp-c", "bidders.1.name", "dsp-c"),
        ("bidders.dsp-b.network_ms=7", "bidders.1.network_ms", 7),
    ],
)
def test_a_counterfactual_reaches_a_setting_and_no_other(setting: str, path: str, value: object) -> None:
    changed = replay.Change((setting,)).rules(MARKET)
    section, _, name = path.partition(".")
    before, after = (msgspec.to_builtins(rules) for rules in (MARKET, changed))
    there: Any = changed
    for part in path.split("."):
        there = (
            there[int(part)] if part.isdecimal() else there[part] if isinstance(there, dict) else getattr(there, part)
        )
    if name == "increment":
        there = {"EUR": there["EUR"]}
    assert value == there
    others = [one for one in before if one not in (section, "data")]
    assert [before[one] for one in others] == [after[one] for one in others]
    assert (["taxonomies.json"] if value == "parents" else []) == list(changed.data)
    assert [bidder.encoding for bidder in MARKET.bidders] == [bidder.encoding for bidder in changed.bidders]


def test_several_changes_count_together() -> None:
    changed = replay.Change(("soft_floor=1", "soft_floor=2", "floors.floor_min=0.3", "bidders.dsp-b.seats=[s9]"))
    rules = changed.rules(MARKET)
    assert (2_000_000, 300_000, ("s9",)) == (
        rules.exchange.soft_floor,
        rules.floors.floor_min,
        rules.bidders[1].seats,
    )


def test_all_that_is_wrong_with_several_changes_is_named() -> None:
    with pytest.raises(ConfigFaults) as refused:
        replay.Change(("increment=[", "nowhere.x=1", "size")).rules(MARKET)
    assert 3 == len(refused.value.faults)
    with pytest.raises(ConfigFaults) as refused:
        replay.Change(("increment=-1", "floors.skip_rate=2")).rules(MARKET)
    assert ["exchange.increment", "floors.skip_rate"] == [fault.path for fault in refused.value.faults]


def test_models_replace_the_only_model_and_rules_do_not_replace_models() -> None:
    only = msgspec.structs.replace(MARKET, floors=FloorRules(models=(FloorModel(default=CpmMicros(1)),)))
    several = replay.Change(("floors.models=[{name: a, default: 0.5}]",))
    assert (FloorModel("a", default=CpmMicros(500_000)),) == several.rules(only).floors.models
    one = "floors.rules=[{floor: 0.5}]"
    with pytest.raises(ConfigFaults, match=r"floors\.models: expected models or rules, was both"):
        replay.Change((one,)).rules(MARKET)
    rule = FloorRule(CpmMicros(500_000))
    assert (FloorModel(rules=(rule,)),) == replay.Change((one, "floors.models=[]")).rules(MARKET).floors.models
    assert (FloorModel(default=CpmMicros(1), rules=(rule,)),) == replay.Change((one,)).rules(only).floors.models


def test_the_rules_of_a_log_are_those_of_each_record(log: Path) -> None:
    logged = list(replay.auctions(read([log], lambda fault: pytest.fail(str(fault)))))
    assert len(accepted()) == len(logged)
    assert {SOFTWARE} == {each.software for each in logged}

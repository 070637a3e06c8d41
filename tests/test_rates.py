# A snapshot of exchange rates is taken whole and exactly, or refused with its reason and the one before stays; whatever
# stands in a file, or answers at a URL.

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time as clock
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import eventually, http

from auction.config import ConfigFaults, load
from auction.edge.rates import BYTES_MAX, OUTCOMES, Failure, Feed, Outcome, Source, read, taken_us
from auction.model.clock import SystemClock
from auction.model.fx import Fx

NOON_US = 1_769_774_400_000_000  # 2026-01-30T12:00:00Z
TIME = "2026-01-30T12:00:00Z"


def ours(rates: dict[str, Any] | str = '{"EUR": "0.92"}', id: str = "one", time: str = TIME) -> bytes:
    """Write a snapshot in our shape; `rates` as text where digits matter."""
    written = rates if isinstance(rates, str) else json.dumps(rates)
    return f'{{"id": {json.dumps(id)}, "time": {json.dumps(time)}, "rates": {written}}}'.encode()


def taken(body: bytes) -> Fx:
    return read(body, NOON_US)[0]


def refusal(body: bytes) -> str:
    with pytest.raises(Failure) as refused:
        read(body, NOON_US)
    assert "refused" == refused.value.outcome
    return str(refused.value)


# One snapshot


def test_our_shape_is_read_from_its_digits() -> None:
    sent = ours('{"EUR": 0.92345678901234567, "GBP": "0.790", "JPY": 150.00, "KRW": 1.35e3, "USD": 1.0}')
    expected = {"EUR": "0.92345678901234567", "GBP": "0.79", "JPY": "150", "KRW": "1350"}
    assert Fx("one", TIME, expected) == taken(sent)


def test_of_prebids_shape_the_row_of_usd_is_taken_and_no_third_currency() -> None:
    rows = {"GBP": {"USD": 1.3, "CHF": 1.1}, "USD": {"EUR": 0.92, "JPY": 150, "USD": 1}}
    sent = json.dumps({"dataAsOf": "2026-01-30", "generatedAt": "later", "conversions": rows}).encode()
    assert Fx("prebid-2026-01-30", "2026-01-30", {"EUR": "0.92", "JPY": "150"}) == taken(sent)


def test_codes_that_are_no_currency_are_left_out_and_named() -> None:
    snapshot, strangers = read(ours({"EUR": 1, "XBT": "free", "eur": 2, "BITCOINCASH": 1}), NOON_US)
    assert ({"EUR": "1"}, ("BITCOINC", "XBT", "eur")) == (snapshot.rates, strangers)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "expected a snapshot in JSON: Input data was truncated"),
        (ours()[:-2], "expected a snapshot in JSON: Input data was truncated"),
        (b"[" * 100_000, "expected a snapshot in JSON: Expected `object`, got `array`"),
        (b'{"a": ' + b"[" * 100_000, "expected a snapshot in JSON: maximum recursion depth exceeded"),
        (b"{}", "expected either rates or conversions"),
        (b'{"rates": {"EUR": 1}, "conversions": {}}', "expected either rates or conversions"),
        (b'{"dataAsOf": "2026-01-30", "conversions": {"EUR": {"USD": 1.1}}}', "expected at least one rate"),
        (b'{"dataAsOf": "2026-01-30", "conversions": {"USD": [1]}}', "expected a snapshot in JSON: Expected `object`"),
        (ours({}), "expected at least one rate"),
        (ours({"USD": 1}), "expected at least one rate"),
        (ours({"XBT": 1}), "expected at least one rate"),
        (ours({"USD": 2, "EUR": 1}), "USD: expected 1, rates are units per US dollar"),
        (ours(id=""), "id: expected text of 1 to 1024 characters"),
        (ours(id="x" * 1025), "id: expected text of 1 to 1024 characters"),
        (ours(time=""), "time: expected when the rates were taken, was nothing"),
        (ours(time=f"2026-01-30T12:00:00.{'0' * 1024}"), "time: expected text of at most 1024 characters"),
        (ours(time="noon"), "time: expected a time such as 2026-01-31T12:00:00Z, was 'noon'"),
        (ours(time="2026-01-31T12:00:01Z"), "time: expected a time that has come, was 2026-01-31T12:00:01Z"),
    ],
)
def test_snapshot_that_cannot_be_used_is_refused_whole(sent: bytes, said: str) -> None:
    assert refusal(sent).startswith(said)


def test_snapshot_of_tomorrow_is_as_far_ahead_as_a_date_may_be() -> None:
    assert taken(ours(time="2026-01-31T12:00:00Z")).rates


@pytest.mark.parametrize(
    "rate",
    ["0", "0.0", '"-1"', "-1", '"NaN"', '"Infinity"', "null", "true", '""', "[1]", "1000000001", '"1_0"', '" 1"'],
)
def test_one_rate_that_cannot_be_one_refuses_all(rate: str) -> None:
    assert refusal(ours(f'{{"EUR": 1, "JPY": {rate}}}')) == f"JPY: expected more than 0, at most 1000000000, was {rate}"


@given(st.decimals(min_value=0, max_value=Decimal("2e9"), allow_nan=False) | st.integers(0, 2 * 10**9).map(Decimal))
def test_a_source_may_give_the_rates_that_a_configuration_may(exact: Decimal) -> None:
    for text in (str(exact), f"{exact:f}"):
        try:
            expected = load(None, {"AUCTION_FX__RATES__EUR": f"'{text}'"}).fx.rates
        except ConfigFaults:
            refusal(ours(f'{{"EUR": "{text}"}}'))
        else:
            assert expected == taken(ours(f'{{"EUR": "{text}"}}')).rates


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_a_snapshot_or_refused(sent: bytes) -> None:
    for body in (sent, b'{"id": "x", "time": "2026-01-30", "rates": {"EUR": ' + sent + b"}}"):
        try:
            taken(body).compiled()
        except Failure:
            refusal(body)


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as place:
        place.setenv("TZ", "JST-9")
        clock.tzset()
        yield
    clock.tzset()


@pytest.mark.parametrize("time", ["2026-01-30T12:00:00Z", "2026-01-30T12:00:00", "2026-01-30T21:00:00.000+09:00"])
def test_time_without_a_zone_is_utc_wherever_we_are(time: str, in_tokyo: None) -> None:
    assert NOON_US == taken_us(time)
    assert NOON_US - 12 * 3600 * 1_000_000 == taken_us("2026-01-30")
    assert taken_us("") is None


# From a URL


class Origin:
    """A web server that answers every request with `answer`, as it is; `heads` has what came."""

    def __init__(self) -> None:
        self.answer = http(ours())
        self.answers: Callable[[bytes], bytes] = lambda head: self.answer
        self.heads: list[bytes] = []
        self.port = 0

    def feed(self, path: str = "/rates.json?key=swordfish", fetch_s: float = 20.0) -> tuple[Feed, dict[Outcome, int]]:
        outcomes = dict.fromkeys(OUTCOMES, 0)
        return Feed(
            Source(url=f"http://127.0.0.1:{self.port}{path}"), SystemClock(), outcomes, fetch_s=fetch_s
        ), outcomes


@asynccontextmanager
async def an_origin() -> AsyncIterator[Origin]:
    origin = Origin()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            origin.heads.append(head.lower())
            answer = origin.answers(head)
            writer.write(answer)
            if not answer:
                await reader.read()  # until the other side has had enough
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    async with server:
        yield origin


def counted(outcomes: dict[Outcome, int]) -> dict[str, int]:
    return {outcome: count for outcome, count in outcomes.items() if count}


async def test_snapshot_that_the_server_knows_we_have_is_not_sent_again() -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        origin.answer = http(ours(), more='etag: "v1"\r\nlast-modified: Fri, 30 Jan 2026 12:00:00 GMT\r\n')
        await feed.refresh()
        origin.answer = b"HTTP/1.1 304 Not Modified\r\n\r\n"
        await feed.refresh()
        assert feed.snapshot == taken(ours())
        assert {"changed": 1, "unchanged": 1} == counted(outcomes)
        assert b"if-none-match" not in origin.heads[0]
        assert b'if-none-match: "v1"\r\n' in origin.heads[1]
        assert b"if-modified-since: fri, 30 jan 2026 12:00:00 gmt\r\n" in origin.heads[1]


async def test_same_snapshot_again_is_unchanged_and_another_is_taken() -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        for body in (ours(), ours(), ours({"EUR": "0.93"})):
            origin.answer = http(body)
            await feed.refresh()
        assert feed.snapshot is not None
        assert {"EUR": "0.93"} == feed.snapshot.rates
        assert {"changed": 2, "unchanged": 1} == counted(outcomes)


async def test_refused_snapshot_is_not_what_we_say_we_have() -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        for version, rate in ((1, 1), (2, 0), (3, 1)):
            origin.answer = http(ours({"EUR": rate}), more=f'etag: "v{version}"\r\n')
            await feed.refresh()
        assert {"changed": 1, "refused": 1, "unchanged": 1} == counted(outcomes)
        assert [b'"v1"' in head for head in origin.heads] == [False, True, True]
        assert b'"v2"' not in b"".join(origin.heads)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % (BYTES_MAX + 1) + b" " * (BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http(b"", status="500 Internal Server Error"), "unreachable"),
        (http(b"", status="404 Not Found"), "unreachable"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "unreachable"),  # without a condition
        (http(ours())[:-5], "unreachable"),  # cut short
        (b"SSH-2.0-OpenSSH\r\n", "unreachable"),
        (b"\r\n", "unreachable"),
        (http(ours({"EUR": 0})), "refused"),
        (http(b"<html>", content_type="text/html"), "refused"),
        (http(b" " * (BYTES_MAX + 1)), "refused"),
        (CHUNKED, "refused"),
        (http(ours(), more="content-encoding: gzip\r\n"), "refused"),
    ],
)
async def test_answer_without_a_snapshot_leaves_the_last_good_one(answer: bytes, outcome: Outcome) -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        await feed.refresh()
        good, origin.answer = feed.snapshot, answer
        await feed.refresh()
        assert good is not None
        assert good is feed.snapshot
        assert {"changed": 1, outcome: 1} == counted(outcomes)


async def test_snapshot_of_just_the_largest_size_is_taken() -> None:
    async with an_origin() as origin:
        feed, _ = origin.feed()
        origin.answer = http(ours() + b" " * (BYTES_MAX - len(ours())))
        await feed.refresh()
        assert feed.snapshot is not None


async def test_redirect_is_not_followed() -> None:
    async with an_origin() as origin, an_origin() as elsewhere:
        feed, outcomes = origin.feed()
        origin.answer = http(b"", "302 Found", more=f"location: http://127.0.0.1:{elsewhere.port}/\r\n")
        await feed.refresh()
        assert {"unreachable": 1} == counted(outcomes)
        assert (1, []) == (len(origin.heads), elsewhere.heads)


async def test_server_that_does_not_answer_is_given_up() -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed(fetch_s=0.05)
        origin.answer = b""
        await feed.refresh()
        assert {"unreachable": 1} == counted(outcomes)


async def test_trouble_is_told_once_and_so_is_its_end_and_no_query_ever(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "auction")
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        down = http(b"", status="503 Service Unavailable")
        for answer in (down, down, http(ours({"EUR": -1})), http(ours()), http(ours())):
            origin.answer = answer
            await feed.refresh()
    assert {"unreachable": 2, "refused": 1, "changed": 1, "unchanged": 1} == counted(outcomes)
    await feed.refresh()
    assert [
        "exchange rates are not refreshed: expected HTTP 200, was 503",
        "exchange rates are not refreshed: EUR: expected more than 0, at most 1000000000, was -1",
        "exchange rates are refreshed again",
    ] == caplog.messages[:3]
    assert caplog.messages[3].startswith("exchange rates are not refreshed: Cannot connect")
    assert 4 == len(caplog.messages)
    assert "swordfish" not in "".join(str(vars(record)) for record in caplog.records)


async def test_codes_left_out_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with an_origin() as origin:
        feed, _ = origin.feed()
        for rate in (1, 2, 3):
            origin.answer = http(ours({"EUR": rate, "XBT": 1, **({"XET": 1} if rate == 3 else {})}))
            await feed.refresh()
    said = "codes that are no currency are left out: "
    assert [f"{said}XBT", f"{said}XBT, XET"] == caplog.messages


async def test_source_is_asked_again_and_again_until_cancelled() -> None:
    async with an_origin() as origin:
        feed, outcomes = origin.feed()
        before = asyncio.all_tasks()
        running = asyncio.create_task(feed.run(0.001))
        assert await eventually(lambda: outcomes["unchanged"] >= 2)
        origin.answer = b""
        held = len(origin.heads)
        assert await eventually(lambda: len(origin.heads) > held)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await eventually(lambda: asyncio.all_tasks() <= before)


# From a file


def from_file(path: Path) -> tuple[Feed, dict[Outcome, int]]:
    outcomes = dict.fromkeys(OUTCOMES, 0)
    return Feed(Source(file=str(path)), SystemClock(), outcomes), outcomes


async def refreshed(feed: Feed, outcomes: dict[Outcome, int]) -> Outcome:
    """Refresh once, and tell how it ended."""
    before = dict(outcomes)
    await feed.refresh()
    (outcome,) = [outcome for outcome in outcomes if outcomes[outcome] > before[outcome]]
    return outcome


async def test_file_is_read_again_when_the_system_says_that_it_is_another(tmp_path: Path) -> None:
    path, beside = tmp_path / "rates.json", tmp_path / "next.json"
    path.write_bytes(ours({"EUR": "0.91"}))
    feed, outcomes = from_file(path)
    assert "changed" == await refreshed(feed, outcomes)
    told = os.stat(path)
    path.write_bytes(ours({"EUR": "0.92"}))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert "unchanged" == await refreshed(feed, outcomes)  # nothing tells it from the one that was read
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
    assert "changed" == await refreshed(feed, outcomes)
    beside.write_bytes(ours({"EUR": "0.93"}))
    os.utime(beside, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
    beside.replace(path)
    assert "changed" == await refreshed(feed, outcomes)
    assert feed.snapshot is not None
    assert {"EUR": "0.93"} == feed.snapshot.rates


async def test_file_that_is_half_written_is_refused_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_bytes(ours()[:40])
    feed, outcomes = from_file(path)
    assert ["refused", "refused"] == [await refreshed(feed, outcomes), await refreshed(feed, outcomes)]
    path.write_bytes(ours())
    assert ["changed", "unchanged"] == [await refreshed(feed, outcomes), await refreshed(feed, outcomes)]


async def test_what_is_no_file_is_a_failure(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "pipe", Path("\0")):
        feed, outcomes = from_file(path)
        assert "unreachable" == await refreshed(feed, outcomes)
        assert feed.snapshot is None


class Disk(ThreadPoolExecutor):
    """The loop's threads: one, that reads nothing until it is `free`; `reads` counts what it was asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.free = threading.Event()
        super().submit(self.free.wait)
        self.reads = 0

    def submit(self, *work: Any, **named: Any) -> Any:
        self.reads += 1
        return super().submit(*work, **named)


async def test_disk_that_hangs_is_asked_once_until_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_bytes(ours())
    outcomes = dict.fromkeys(OUTCOMES, 0)
    feed = Feed(Source(file=str(path)), SystemClock(), outcomes, fetch_s=0.05)
    with Disk() as disk:
        asyncio.get_running_loop().set_default_executor(disk)
        try:
            assert ["unreachable"] * 3 == [await refreshed(feed, outcomes) for _ in range(3)]
            assert 1 == disk.reads
        finally:
            disk.free.set()
        for _ in range(1000):
            if "unreachable" != await refreshed(feed, outcomes):
                break
            await asyncio.sleep(0.001)  # the loop's turn, to hear of the thread
    assert feed.snapshot is not None


async def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_bytes(ours() + b" " * BYTES_MAX)
    assert "refused" == await refreshed(*from_file(tmp_path / "rates.json"))

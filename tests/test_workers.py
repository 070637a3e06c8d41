# Several processes that are one exchange: what callers, the operator and metrics see of them, and what they do not.

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from processes import PATIENCE_S, ExchangeProcess, a_request, bidder, bids, command, configure, exchange, read_response

from auction import replay
from auction.config import load
from auction.edge import eventlog
from auction.edge.metrics import Metrics
from auction.edge.pages import counted, merged, plain
from auction.model.auction import AuctionResult
from auction.presence import Presence
from auction.supervisor import Supervisor

# Enough connections that no fair kernel gives all of them to one of two: one in 2**39 times.
CALLS = 40
# No auction is lost because the machine is busy for a moment.
UNHURRIED = {"tmax_ms": 60_000, "tmax_max_ms": 60_000, "reply_reserve_ms": 60_000}


def settings(*urls: str, log: Path | None = None, **sections: Any) -> dict[str, Any]:
    bidders = [{"name": f"dsp-{name}", "http": url} for name, url in zip("ab", urls, strict=False)]
    given = {"bidders": bidders, "log": {"dir": str(log)} if log else {}, **sections}
    given["exchange"] = {**UNHURRIED, **sections.get("exchange", {})}
    return {**given, "server": {"workers": 2, "notice_ms": 0, **sections.get("server", {})}}


def workers(served: ExchangeProcess) -> set[int]:
    """The process ids of those that are ready."""
    folder = Path(served.environment["TMPDIR"])
    return {int(file.stem) for file in folder.glob("auction-workers-*/*.json")}


def logged(log: Path) -> list[str]:
    faults: list[eventlog.Fault] = []
    auctions = list(replay.auctions(eventlog.read([log], faults.append)))
    assert [] == faults
    return [auction.recorded.arrival.id for auction in auctions]


def until_counted(served: ExchangeProcess, sample: str, value: float) -> None:
    end = time.monotonic() + PATIENCE_S
    while (found := served.metric(sample)) != value:
        assert time.monotonic() < end, f"{sample} is {found}"


# One exchange.


@pytest.mark.parametrize("edge", ["json", "grpcio", "wire"])
def test_workers_share_the_ports_and_each_has_its_own_log(edge: str, tmp_path: Path) -> None:
    server = {} if edge == "json" else {"transport": edge}
    with (
        bidder(bids(2.0)) as dsp_a,
        exchange(tmp_path, settings(dsp_a.url, log=tmp_path / "log", server=server)) as served,
    ):
        assert 2 == len(workers(served))
        ask = posted if edge == "json" else called
        answered = [ask(served) for _ in range(CALLS)]
        assert 0 == served.end()
    halves = [logged(tmp_path / "log" / f"worker-{number}") for number in (1, 2)]
    assert all(halves)
    assert sorted(answered) == sorted(halves[0] + halves[1])
    assert sorted(answered) == sorted(logged(tmp_path / "log"))


def posted(served: ExchangeProcess) -> str:
    return str(served.post(a_request()).json["bidid"])


def called(served: ExchangeProcess) -> str:
    """Call on a connection of its own."""
    with grpc.insecure_channel(served.ready["grpc"], [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return str(read_response(served.ask(a_request(), channel=channel).result())["bidid"])


def test_metrics_are_of_all_workers_whoever_is_asked(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, exchange(tmp_path, settings(dsp_a.url, server={"in_flight": 50})) as served:
        until_counted(served, "auction_workers", 2)
        for _ in range(CALLS):
            served.post(a_request())
        until_counted(served, 'auction_auctions_total{outcome="sold"}', CALLS)
        assert 100 == served.metric("auction_in_flight_limit")
        assert 1 == served.metric("auction_reload_last_success")


def test_health_of_all_is_said_on_both_ports(tmp_path: Path) -> None:
    with exchange(tmp_path, settings()) as served:
        for _ in range(10):
            assert 200 == served.get("/readyz").status
        assert "nbr" in served.grpc(a_request())


# Workers that go.


def test_a_worker_that_dies_is_begun_again_and_what_it_counted_still_counts(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, exchange(tmp_path, settings(dsp_a.url)) as served:
        for _ in range(CALLS):
            served.post(a_request())
        until_counted(served, 'auction_auctions_total{outcome="sold"}', CALLS)
        victim, other = workers(served)
        os.kill(victim, signal.SIGKILL)
        line = served.until("a worker ended")
        assert -signal.SIGKILL == line["code"]
        assert 200 == served.post(a_request()).status  # the other one is there
        until_counted(served, "auction_worker_restarts_total", 1)
        until_counted(served, "auction_workers", 2)
        until_counted(served, 'auction_auctions_total{outcome="sold"}', CALLS + 1)
        assert other in workers(served)
        assert 0 == served.end()


def test_a_worker_that_cannot_be_begun_is_tried_again_later_each_time(tmp_path: Path) -> None:
    with exchange(tmp_path, settings()) as served:
        victim, _ = workers(served)
        supervisor = served.process.pid
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))  # a worker takes two pipes
        os.kill(victim, signal.SIGKILL)
        assert [0.1, 0.2, 0.4] == [served.until("a worker ended")["again_s"] for _ in range(3)]
        assert 200 == served.get("/readyz").status  # the other one is there
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
        until_counted(served, "auction_workers", 2)
        assert 0 == served.command("reload").returncode
        assert 0 == served.end()


def test_where_no_worker_can_be_begun_at_the_start_nothing_is_announced(tmp_path: Path) -> None:
    announced: list[Presence] = []
    given = {"AUCTION_SERVER__WORKERS": "2"}
    # Linux takes no variable of more than 128 KiB.
    environ = {**given, "FULL": "x" * 200_000}
    supervisor = Supervisor(None, environ, load(None, given), (1, 2), tmp_path)
    assert 1 == asyncio.run(supervisor.run(announced.append))
    assert [] == announced


def test_a_stop_drains_all_workers_and_answers_what_is_in_flight(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, exchange(tmp_path, settings(dsp_a.url, log=tmp_path / "log")) as served:
        dsp_a.hold()
        channels = [
            grpc.insecure_channel(served.ready["grpc"], [("grpc.use_local_subchannel_pool", 1)]) for _ in range(8)
        ]
        calls = [served.ask(a_request(), channel=channel) for channel in channels]
        for _ in calls:
            dsp_a.asked.get(timeout=20)
        served.kill(signal.SIGTERM)
        for _ in range(3):  # of the supervisor, and of both workers
            served.until("draining")
        dsp_a.release()
        assert all(call.result() for call in calls)
        assert 0 == served.wait()
        for channel in channels:
            channel.close()
    assert 8 == len(logged(tmp_path / "log"))
    assert [] == list(tmp_path.glob("auction-workers-*"))


def test_a_second_signal_ends_all_where_they_stand(tmp_path: Path) -> None:
    with exchange(tmp_path, settings(server={"notice_ms": 600_000})) as served:
        served.kill(signal.SIGINT)
        served.until("draining")
        assert 128 + signal.SIGTERM == served.end(signal.SIGTERM)
        until_nobody_listens(served)
    assert [] == list(tmp_path.glob("auction-workers-*"))


def test_workers_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with exchange(tmp_path, settings()) as served:
        left = workers(served)
        served.kill(signal.SIGKILL)
        try:
            until_nobody_listens(served)
        except AssertionError:
            for worker in left:
                os.kill(worker, signal.SIGKILL)
            raise


def until_nobody_listens(served: ExchangeProcess) -> None:
    host, _, port = served.ready["grpc"].rpartition(":")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with socket.socket() as caller:
            if caller.connect_ex((host, int(port))):
                return
    raise AssertionError("somebody listens")


# Another configuration.


def test_a_reload_reaches_all_workers(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, bidder(bids(3.0)) as dsp_b, exchange(tmp_path, settings(dsp_a.url)) as served:
        before = served.ready["rules"]
        configure(served.config, settings(dsp_b.url, exchange={"increment": 1}))
        applied = served.command("reload")
        assert (0, "") == (applied.returncode, applied.stderr)
        assert f"(before: {before})" in applied.stdout
        again = served.command("reload")  # nothing has changed, so nobody would have noticed by himself
        assert (0, "") == (again.returncode, again.stderr)
        assert "(the same as before)" in again.stdout
        while dsp_a.asked.qsize():
            dsp_a.asked.get()
        for _ in range(CALLS):
            assert 200 == served.post(a_request()).status
        assert (0, CALLS) == (dsp_a.asked.qsize(), dsp_b.asked.qsize())


def test_a_refused_reload_is_refused_by_all_and_told_once(tmp_path: Path) -> None:
    with exchange(tmp_path, settings()) as served:
        configure(served.config, settings(exchange={"tmax_ms": -1}))
        refused = served.command("reload")
        assert 1 == refused.returncode
        assert 1 == refused.stderr.count("exchange.tmax_ms")
        configure(served.config, settings(server={"workers": 3}))
        assert "server.workers: a change needs a restart" in served.command("reload").stderr


def test_a_reload_while_workers_begin_ends_nobody_and_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    configure(file, settings())
    words = [sys.executable, "-m", "auction", "serve", "--config", str(file), "--port", "0", "--http-port", "0"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            begun = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            end = time.monotonic() + PATIENCE_S
            while len(begun.read_text().split()) < 2:
                assert time.monotonic() < end
            process.send_signal(signal.SIGHUP)
            assert process.stdout is not None
            assert process.stdout.readline(), "it ended"
            while [1, 1] != [
                json.loads(told.read_text())["reloads"] for told in tmp_path.glob("auction-workers-*/*.json")
            ]:
                assert time.monotonic() < end
        finally:
            process.terminate()
        assert 0 == process.wait(PATIENCE_S)


# Starting.


def test_taken_port_is_named_with_its_setting_also_by_workers(tmp_path: Path) -> None:
    with exchange(tmp_path, settings()) as served:
        port = served.ready["grpc"].rpartition(":")[2]
        ended = command("serve", "--config", served.config, "--port", port, "--http-port", "0")
        assert 1 == ended.returncode
        assert f"cannot start: server.port: cannot listen on 127.0.0.1:{port}" in ended.stderr


def test_what_no_worker_can_start_with_ends_all(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("no directory")
    file = tmp_path / "config.yaml"
    configure(file, settings(log=tmp_path / "log"))
    ended = command("serve", "--config", file, "--port", "0", "--http-port", "0")
    assert (1, "") == (ended.returncode, ended.stdout)
    assert "cannot start: log.dir: " in ended.stderr


# Pages of metrics.


def page(sold: int, fx_age: float) -> bytes:
    metrics = Metrics(["dsp-a"])
    for _ in range(sold):
        metrics.settled(1, [], AuctionResult(b"", 0, False, (), (), ()), 3_000, 0)
    metrics.read("auction_in_flight", lambda: sold)
    metrics.read("auction_fx_age_seconds", lambda: fx_age)
    metrics.read("auction_reload_last_success", lambda: sold % 2)
    metrics.read("auction_rules_info", lambda: [(("abc",), 1)])
    return metrics.page()


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ('auction_auctions_total{outcome="unsold"}', 5),
        ('auction_duration_seconds_bucket{le="0.005"}', 5),
        ("auction_duration_seconds_sum", 0.015),
        ("auction_in_flight", 5),
        ("auction_fx_age_seconds", 9),
        ("auction_reload_last_success", 0),
        ('auction_rules_info{digest="abc"}', 1),
    ],
)
def test_pages_become_one(sample: str, value: float) -> None:
    assert value == pytest.approx(samples(merged([page(2, 9.0), page(3, 4.0)]))[sample])


def test_a_page_of_one_is_the_page() -> None:
    ours = page(2, 9.0)
    assert samples(ours) == samples(merged([ours]))
    assert ours.decode().count("# TYPE") == merged([ours, ours]).decode().count("# TYPE")


def test_of_one_that_is_gone_only_what_it_counted_stays() -> None:
    left = samples(counted(page(2, 9.0)))
    assert 2 == left['auction_auctions_total{outcome="unsold"}']
    assert "auction_in_flight" not in left
    assert 2 == samples(merged([counted(page(2, 9.0)), page(0, 1.0)]))['auction_auctions_total{outcome="unsold"}']


def test_plain_page_shows_what_the_table_says_of_it() -> None:
    assert {"auction_workers": 2.0} == samples(plain({"auction_workers": 2}))
    assert b"# TYPE auction_workers gauge" in plain({"auction_workers": 2})


def samples(shown: bytes) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in shown.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines if not name.startswith("process_")}

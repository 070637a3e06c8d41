# The load generator: it keeps its rate whatever comes back, counts latency from when a request was due, stays on this
# machine, and says what failed.

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from auction.commands import load
from auction.edge.transports import Cancel, Endpoint, Incoming, Outgoing, Status, settled
from auction.edge.transports.caller import METHOD, PATH, caller
from auction.edge.transports.grpcio import GrpcServer
from auction.edge.transports.http import HttpServer
from auction.edge.transports.memory import ManualClock
from auction.model.clock import SystemClock
from bidders.bundled import bundled


class Gate:
    """A way to an exchange that answers nobody before it is opened."""

    target, json = "memory", False

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.asked: list[bytes] = []

    async def open(self) -> None:
        pass

    async def call(self, body: bytes, timeout_s: float) -> Outgoing:
        self.asked.append(body)
        await self.opened.wait()
        return Outgoing(b"ok")

    async def close(self) -> None:
        pass


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def held_up(gate_after_s: float, in_flight: int) -> tuple[load.Measured, list[int]]:
    """Offer 8 requests in a second to a gate that opens on the way; give what was found, and how many were sent when.

    Sixteenths of a second, because a double holds them exactly.
    """

    async def run() -> tuple[load.Measured, list[int]]:
        clock, gate, asked = ManualClock(), Gate(), []
        measured = load.Measured()
        offering = asyncio.create_task(
            load.offer(gate, lambda number: b"%d" % number, 8, 1, clock, measured, in_flight=in_flight)
        )
        await settle()
        for step in range(1, 17):
            asked.append(len(gate.asked))
            clock.advance(1 / 16)
            await settle()
            if step / 16 >= gate_after_s:
                gate.opened.set()
            await settle()
        await offering
        return measured, asked

    return asyncio.run(run())


def test_requests_are_sent_when_due_whatever_is_unanswered() -> None:
    _, asked = held_up(gate_after_s=1.0, in_flight=100)
    assert [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8] == asked


def test_latency_counts_from_the_instant_a_request_was_due() -> None:
    measured, _ = held_up(gate_after_s=1.0, in_flight=100)
    # Due at 0, 1/8 ... 7/8 and all answered at 1: the mean is 9/16.
    assert {"OK": 8} == dict(measured.outcomes)
    assert 9 / 16 == pytest.approx(measured.latency.get_mean_value() / 1e6, rel=0.01)
    assert 1000 == pytest.approx(measured.told()["latency_ms"]["max"], rel=0.01)


def test_a_late_generator_counts_its_own_lateness_as_latency() -> None:
    async def run() -> load.Measured:
        clock, gate, measured = ManualClock(), Gate(), load.Measured()
        gate.opened.set()
        offering = asyncio.create_task(load.offer(gate, lambda number: b"", 8, 1, clock, measured))
        await settle()
        # A second in which nothing runs: what was due in it is sent at its end.
        clock.advance(1.0)
        await offering
        return measured

    measured = asyncio.run(run())
    assert 7 / 8 == pytest.approx(measured.latency.get_max_value() / 1e6, rel=0.01)
    assert 7 / 8 == pytest.approx(measured.lateness.get_max_value() / 1e6, rel=0.01)


def test_what_is_due_beyond_the_bound_is_counted_as_failed() -> None:
    measured, _ = held_up(gate_after_s=0.5, in_flight=3)
    assert {"OK": 6, load.UNSENT: 2} == dict(measured.outcomes)
    assert 2 == measured.failed


def answering(answer: Callable[[Incoming], Outgoing]) -> Endpoint:
    def endpoint(incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
        done(answer(incoming))
        return settled

    return endpoint


def silent(incoming: Incoming, done: Callable[[Outgoing], None], /) -> Cancel:
    return settled


@asynccontextmanager
async def doors(endpoint: Endpoint) -> AsyncIterator[tuple[str, str]]:
    """Serve an endpoint through both doors; give their targets."""
    clock = SystemClock()
    over_grpc, over_http = GrpcServer(endpoint, [METHOD], clock), HttpServer(endpoint, [PATH], clock)
    await over_grpc.start()
    await over_grpc.serving(True)
    await over_http.start()
    try:
        yield f"127.0.0.1:{over_grpc.port}", f"http://127.0.0.1:{over_http.port}"
    finally:
        await over_grpc.stop(0)
        await over_http.stop(0)


@contextmanager
def exchange(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """The same, from a thread of its own."""
    ready, over = threading.Event(), threading.Event()
    targets: list[str] = []

    async def serve() -> None:
        async with doors(endpoint) as found:
            targets.extend(found)
            ready.set()
            await asyncio.to_thread(over.wait, 60)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield targets[0], targets[1]
    finally:
        over.set()
        thread.join(30)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "auction", "load", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("door", [0, 1])
def test_answered_requests_end_with_0(door: int) -> None:
    seen: list[bytes] = []

    def answer(incoming: Incoming) -> Outgoing:
        seen.append(incoming.body)
        return Outgoing(b"{}")

    with exchange(answering(answer)) as targets:
        word = ("--target", "--http")[door]
        ended = command(word, targets[door], "--rate", "200", "--seconds", "0.2", "--json")
    told: dict[str, Any] = json.loads(ended.stdout)
    assert 0 == ended.returncode
    assert {"OK": 40} == told["outcomes"]
    assert 40 == len(set(seen))
    assert {"p50", "p90", "p99", "p99.9", "max"} == set(told["latency_ms"]) == set(told["sent_late_ms"])


@pytest.mark.parametrize("door", [0, 1])
def test_refused_requests_end_with_1_and_say_why(door: int) -> None:
    refusal = Outgoing(status=Status.INVALID_ARGUMENT, message="expected >= 0, was -0.5", path="imp[2].bidfloor")
    with exchange(answering(lambda _: refusal)) as targets:
        ended = command(("--target", "--http")[door], targets[door], "--rate", "50", "--seconds", "0.1")
    assert 1 == ended.returncode
    assert "5 INVALID_ARGUMENT" in ended.stdout
    assert "expected >= 0, was -0.5" in ended.stdout


def test_nobody_there_ends_with_1() -> None:
    ended = command("--http", "http://127.0.0.1:1", "--rate", "20", "--seconds", "0.1")
    assert 1 == ended.returncode
    assert "UNAVAILABLE" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("target", ["192.0.2.1:7400", "exchange.example:7400", "127.0.0.1.example:7400"])
def test_another_host_must_be_named_twice(target: str) -> None:
    ended = command("--target", target, "--host-is-mine", "other.example")
    assert 2 == ended.returncode
    assert "--host-is-mine" in ended.stderr


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "::1"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert load.loopback(host)


def test_wrong_request_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("{")
    ended = command("--request", str(tmp_path / "r.json"), "--target", "127.0.0.1:1")
    assert 2 == ended.returncode
    assert "expected JSON" in ended.stderr


def test_caller_without_an_answer_in_time_hears_deadline_exceeded() -> None:
    async def run() -> list[Status]:
        found = []
        async with doors(silent) as targets:
            for target in targets:
                way = caller(target)
                await way.open()
                found.append((await way.call(b"{}", 0.05)).status)
                await way.close()
        return found

    assert [Status.DEADLINE_EXCEEDED] * 2 == asyncio.run(run())


def test_bundled_requests_differ_by_id_in_both_encodings() -> None:
    for request in bundled():
        assert b'"id":"x-1"' in request.body("x-1", json=True)
        assert b"x-1" in request.body("x-1", json=False)
    assert len(bundled()) >= 60


def test_locust_finds_its_ad_servers() -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--list"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == listed.returncode, listed.stderr
    assert "AdServer" in listed.stdout

# An exchange as a process, on the wire and on grpcio, with the same bidder over each: nobody can tell which it was.

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import ExchangeProcess, a_request, exchange

# Longer than any test waits.
UNHURRIED = {"tmax_ms": 60_000, "tmax_max_ms": 60_000, "reply_reserve_ms": 60_000}


@pytest.fixture(scope="module")
def dsp() -> Iterator[str]:
    words = ["-m", "bidders", "--name", "dsp-a", "--strategy", "fixed", "--seed", "1", "--grpc", "0"]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{json.loads(process.stdout.readline())['grpc']}"
        finally:
            process.terminate()


@contextmanager
def on(transport: str, folder: Path, dsp: str) -> Iterator[ExchangeProcess]:
    settings: dict[str, Any] = {
        "server": {"transport": transport},
        "bidders": [{"name": "dsp-a", "grpc": dsp, "transport": transport}],
        "log": {},
        "exchange": UNHURRIED,
    }
    with exchange(folder, settings) as served:
        yield served


def test_an_exchange_answers_alike_on_either_transport(dsp: str, tmp_path: Path) -> None:
    told = {}
    for transport in ("grpcio", "wire"):
        folder = tmp_path / transport
        folder.mkdir()
        with on(transport, folder, dsp) as served:
            answer = served.grpc(a_request(), explain=True)
            assert answer.pop("bidid")
            with pytest.raises(grpc.RpcError) as refused:
                served.grpc({"id": "r1", "imp": [{"id": "1", "banner": {}, "bidfloor": -1}]})
            health = health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest())
            told[transport] = (answer["seatbid"], refused.value.code(), refused.value.details(), health.status)
    assert told["grpcio"] == told["wire"]
    assert told["wire"][0]


def test_an_exchange_on_the_wire_stops_in_order(dsp: str, tmp_path: Path) -> None:
    with on("wire", tmp_path, dsp) as served:
        assert served.grpc(a_request())["id"] == "r1"
        served.process.send_signal(signal.SIGTERM)
        assert 0 == served.process.wait(30)
    assert [] == [line for line in served.lines if line.get("level") in ("ERROR", "WARNING")]

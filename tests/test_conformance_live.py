# The vectors over sockets: a real exchange, and bidders that answer as a vector says, both as conformance/README.md has
# it for any exchange. conformance/run.py is what it offers; here it is held to what it promises.

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from processes import PATIENCE_S, ExchangeProcess, configure, exchange

from auction.config import load
from tests.vectors import VECTORS

Json = dict[str, Any]

# As long as a caller may wait at all: here nobody is in a hurry, and no reply is late for want of a core.
UNHURRIED = {"tmax_ms": 60_000, "tmax_max_ms": 60_000}
# Every third of those that fit shows the road; that the decision is right, tests/test_conformance.py shows of each.
STEP = 3


@pytest.fixture(scope="module")
def run() -> ModuleType:
    found = importlib.util.spec_from_file_location("conformance_run", VECTORS / "run.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def read(name: str) -> Json:
    case: Json = json.loads((VECTORS / f"{name}.json").read_text())
    return case


def fits(case: Json) -> bool:
    """Say whether a vector is one that the README calls fit for any exchange over JSON."""
    bids = [
        bid
        for reply in case["replies"]
        for seatbid in (reply.get("body") or {}).get("seatbid") or []
        for bid in seatbid.get("bid", [])
    ]
    in_words = any(isinstance(bid.get("price"), str) for bid in bids)
    replied = {reply["bidder"] for reply in case["replies"] if reply["status"] != "TIMED_OUT"}
    late = {reply["bidder"] for reply in case["replies"]} | {one["name"] for one in case.get("bidders", [])}
    drawn = case.get("floors", {}).keys() & {"models", "skip_rate"}
    timed = "tmax" in case["request"] or case.get("exchange", {}).keys() & {"tmax_ms", "tmax_max_ms"}
    timed = timed or any(one.keys() & {"min_ms", "network_ms", "timeout_ms"} for one in case.get("bidders", []))
    return not (in_words or late - replied or drawn or timed or "request_bytes" in case.get("limits", {}))


FIT = [path.stem for path in sorted(VECTORS.glob("*.json")) if fits(json.loads(path.read_text()))]


@pytest.fixture(scope="module")
def bidders() -> str:
    # Below the ports from which connections are made, which come and go while this one is between two auctions.
    start = os.getpid() % 10_000
    for port in (20_000 + (start + step) % 10_000 for step in range(100)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise AssertionError("a hundred ports in a row are taken")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, run: ModuleType, bidders: str) -> Iterator[ExchangeProcess]:
    with exchange(tmp_path_factory.mktemp("exchange"), settings(run, bidders, read(FIT[0]))) as process:
        yield process
        assert 0 == process.end()


def settings(run: ModuleType, bidders: str, case: Json) -> Json:
    given: Json = run.settings(case, bidders)
    return {**given, "exchange": {**given.get("exchange", {}), **UNHURRIED}}


def set_to(served: ExchangeProcess, given: Json) -> None:
    """Have an exchange take up a configuration; it also finds changes by itself, and may say so twice."""
    configure(served.config, given)
    served.kill(signal.SIGHUP)
    rules = load(served.config, {}).rules().digest().hex()
    while not rules.startswith(served.until("configuration applied")["rules"]):
        pass


def test_vectors_come_out_as_expected_over_sockets(served: ExchangeProcess, run: ModuleType, bidders: str) -> None:
    assert 280 <= len(FIT)
    differing = {}
    for name in FIT[::STEP]:
        case = read(name)
        set_to(served, settings(run, bidders, case))
        answer = run.auction(case, bidders, f"{served.ready['http']}/openrtb2/auction")
        if lines := run.differences(case["expect"], *answer):
            differing[name] = lines
    assert {} == differing


def test_runner_says_what_came_out_otherwise(served: ExchangeProcess, run: ModuleType, bidders: str) -> None:
    case = read("the-increment-of-a-dollar-is-a-cent")
    set_to(served, settings(run, bidders, {**case, "exchange": {"increment": "0.05"}}))
    answer = run.auction(case, bidders, f"{served.ready['http']}/openrtb2/auction")
    assert [
        "sold: expected [('s1', 'b1', '1', 0.51)], was [('s1', 'b1', '1', 0.55)]",
    ] == run.differences(case["expect"], *answer)
    refused = read("a-negative-floor-is-refused")["expect"]
    assert ["refused: expected True, was HTTP 200"] == run.differences(refused, *answer)
    assert ["refused: expected False, was HTTP 400"] == run.differences(case["expect"], 400, {})
    unsold = read("a-price-of-zero-needs-a-deal")["expect"]
    assert ["refused: expected False, was HTTP 503"] == run.differences(unsold, 503, {})


def test_commands_of_the_readme_hold_an_auction(served: ExchangeProcess, run: ModuleType, bidders: str) -> None:
    vector = "first-price-pays-the-bid"
    text = (VECTORS / "README.md").read_text()
    told, held = [line for line in text.splitlines() if line.startswith("python run.py ") and vector in line]
    assert json.loads(command(told, bidders)) == run.settings(read(vector), bidders)
    set_to(served, settings(run, bidders, read(vector)))
    url = f"{served.ready['http']}/openrtb2/auction"
    assert "as expected\n" == command(held.replace("http://127.0.0.1:7480/openrtb2/auction", url), bidders)


def command(line: str, bidders: str) -> str:
    words = shlex.split(line.partition(" > ")[0].replace("127.0.0.1:9000", bidders))
    ended = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=VECTORS,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (0, "") == (ended.returncode, ended.stderr)
    return ended.stdout

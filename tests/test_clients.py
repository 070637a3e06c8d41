# A client made of the proto files alone works. Both are built by the very commands of docs/clients/README.md, in a
# copy that has nothing else of the project, and call a real exchange with two bidders.

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ExchangeProcess, bidder, bids, exchange

from auction import replay
from auction.edge import eventlog
from auction.model.auction import Encoding

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "docs" / "clients" / "README.md").read_text()
TARGET = "127.0.0.1:7400"
# What `patience` is in both clients.
PATIENCE_MS = 2000
# From nothing, grpc-go and what it stands on take a minute to fetch and compile on a small machine that others use too.
COMMANDS_S_MAX = 600
GO_AT_LEAST = (1, 24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    generated = shutil.ignore_patterns("auction", "auctionv1", "bin", "adserver", "__pycache__")
    shutil.copytree(ROOT / "docs" / "clients", tmp_path / "docs" / "clients", ignore=generated)
    return tmp_path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ExchangeProcess]:
    place = tmp_path / "exchange"
    place.mkdir()
    with bidder(seat("s-a", 2.0)) as a, bidder(seat("s-b", 1.5)) as b:
        settings = {
            "bidders": [{"name": "dsp-a", "http": a.url}, {"name": "dsp-b", "http": b.url}],
            "exchange": {"tmax_ms": 60_000, "tmax_max_ms": 60_000},  # only the caller is in a hurry
            "log": {"dir": str(place / "log")},
        }
        with exchange(place, settings) as process:
            yield process


def seat(name: str, price: float) -> Any:
    offer = bids(price)

    def strategy(request: dict[str, Any]) -> dict[str, Any]:
        answer = offer(request)
        answer["seatbid"][0]["seat"] = name
        return answer

    return strategy


def commands(language: str, target: str) -> str:
    """Give the commands of the README, for an exchange that listens there; what they install is here already."""
    section = re.search(rf"^## {language}$.*?^```sh$(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert section is not None
    lines = [line for line in section[1].splitlines() if not line.startswith("python -m pip install")]
    assert TARGET in lines[-1]
    return "\n".join(lines).replace(TARGET, target)


def run(folder: Path, script: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=COMMANDS_S_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def without_id(printed: str) -> list[str]:
    return re.sub(r"^auction [0-9a-f]{32}$", "auction ID", printed, flags=re.MULTILINE).splitlines()


def promised() -> list[str]:
    section = re.search(r"^## What they print$.*?^```$(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert section is not None
    return without_id(section[1].strip())


def test_a_python_client_of_the_proto_files_alone_is_answered(folder: Path, served: ExchangeProcess) -> None:
    # The project is installed here under the name that the generated package has: a package beside the client comes
    # before it, a bare folder would not.
    generated = folder / "docs" / "clients" / "python" / "auction"
    (generated / "v1").mkdir(parents=True)
    for package in (generated, generated / "v1"):
        (package / "__init__.py").touch()
    assert promised() == without_id(run(folder, commands("Python", served.ready["grpc"])))
    where = run(generated.parent, "python -c 'from auction.v1 import exchange_pb2; print(exchange_pb2.__file__)'")
    assert where.startswith(str(generated))
    assert_a_deadline_and_a_question_arrived(served)


def test_a_go_client_of_the_proto_files_alone_is_answered(folder: Path, served: ExchangeProcess) -> None:
    if shutil.which("go") is None:
        pytest.skip("there is no Go here")
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < GO_AT_LEAST:
        pytest.skip(f"Go here is {version}; the client needs 1.24")
    proxy = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout.strip()
    variables = {
        # Modules come from a proxy, never from where their source is kept, and no other toolchain is fetched.
        "GOPROXY": re.sub(r"[,|]direct$", "", proxy),
        "GOTOOLCHAIN": "local",
        # Without paths in what is compiled, another temporary folder finds it in Go's own cache, which Go keeps small.
        "GOFLAGS": "-trimpath -buildvcs=false",
        "CGO_ENABLED": "0",
    }
    printed = run(folder, commands("Go", served.ready["grpc"]), **variables)
    assert promised() == without_id(printed)
    assert_a_deadline_and_a_question_arrived(served)


def assert_a_deadline_and_a_question_arrived(served: ExchangeProcess) -> None:
    assert 0 == served.end()  # what it answered is in its log when it has ended
    (logged,) = replay.auctions(eventlog.read([served.ready["log"]], lambda fault: pytest.fail(str(fault))))
    arrival = logged.recorded.arrival
    assert Encoding.PROTOBUF is arrival.encoding
    assert arrival.explain
    assert arrival.timeout_ms is not None
    assert 0 < arrival.timeout_ms <= PATIENCE_MS

# Prebid Server Go, where somebody has built it: PREBID_SERVER=path make bench.
#
# It is asked over JSON, and asks the same bidders over JSON through adapters that pass a request on as it is and whose
# endpoint is configuration. What would make it work for other things than an auction is off. docs/benchmarks.md says
# how it is built; the folder `static` of its source is expected beside the program, or beside the folder it is in.

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.peers.messages import TMAX_MS, request
from benchmarks.peers.processes import ENGINE_CORE, spawned
from benchmarks.peers.turns import Ports, Running, Skipped

VARIABLE: Final = "PREBID_SERVER"
PATH: Final = "/openrtb2/auction"

# Adapters in the order in which bidders are added, with parameters that satisfy their schemas. Not every version has
# every one (4.6 has no ezoic): the first that are there are taken.
ADAPTERS: Final[dict[str, dict[str, Any]]] = {
    "ccx": {"placementId": 1},
    "cointraffic": {"placementId": "1"},
    "coinzilla": {"placementId": "1"},
    "automatad": {"position": "1", "placementId": "1"},
    "blue": {"publisherId": "1"},
    "pwbid": {"siteId": "1"},
    "ezoic": {"placementId": "1"},
    "aax": {"cid": "1", "crid": "1"},
    "vrtcal": {},
}

# At its start it asks for exchange rates and lists of vendors, whatever its configuration says: nobody is there.
NOWHERE: Final = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}

# Its own readiness takes a second or two: it reads some hundred schemas of adapters.
START_S: Final = 30.0


def started(stack: ExitStack, ports: Ports) -> Running:
    """Start it against bidders; Skipped where PREBID_SERVER names no program, or one with too few adapters."""
    binary, static = _program()
    names = _names(static, len(ports.http))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="auction-bench-")))
    (folder / "static").symlink_to(static)
    port = _free_port()
    adapters = dict(zip(names, ports.http, strict=True))
    (folder / "pbs.yaml").write_text(json.dumps(configuration(port, adapters)))  # JSON is YAML
    process = spawned(stack, [str(binary)], ENGINE_CORE, folder=folder, environment=NOWHERE)
    _await(f"http://127.0.0.1:{port}/status", lambda: process.poll() is None)
    return Running(process.pid, port, PATH)


def _program() -> tuple[Path, Path]:
    program = os.environ.get(VARIABLE)
    if not program:
        raise Skipped(f"{VARIABLE} is not set; {VARIABLE}=path make bench measures it")
    binary = Path(program).resolve()
    if not os.access(binary, os.X_OK):
        raise Skipped(f"{VARIABLE}: expected a program, was {program}")
    for place in binary.parents[:2]:
        if (place / "static" / "bidder-info").is_dir():
            return binary, place / "static"
    raise Skipped(f"{VARIABLE}: expected the source's folder `static` beside {binary}")


def _names(static: Path, bidders: int) -> list[str]:
    names = [name for name in ADAPTERS if (static / "bidder-info" / f"{name}.yaml").is_file()][:bidders]
    if len(names) < bidders:
        raise Skipped(f"{VARIABLE}: expected {bidders} of its adapters in {static}, found {', '.join(names) or 'none'}")
    return names


def configuration(port: int, bidders: Mapping[str, int]) -> dict[str, Any]:
    """Give its configuration: an adapter with its bidder's port for each, and nothing that is no auction."""
    adapters = {
        name: {"endpoint": f"http://127.0.0.1:{bidder}/bid", "disabled": False, "usersync": {"enabled": False}}
        for name, bidder in bidders.items()
    }
    return {
        "host": "127.0.0.1",
        "port": port,
        "admin": {"enabled": False},
        "external_url": f"http://127.0.0.1:{port}",
        "status_response": "ok",
        "auction_timeouts_ms": {"default": TMAX_MS, "max": TMAX_MS},
        "gdpr": {"enabled": False, "default_value": "0"},
        "currency_converter": {"fetch_interval_seconds": 0},
        # Its default keeps ten, and opens and closes connections all the time under load.
        "http_client": {"max_idle_connections": 4096, "max_idle_connections_per_host": 256},
        # Octets of ballast that its collector counts with: the best of the settings that were tried.
        "garbage_collector_threshold": 256 * 1024 * 1024,
        "adapters": adapters,
    }


def asked(size: str, bidders: int) -> bytes:
    """Give the same request as JSON, addressed to the adapters of so many bidders."""
    named = {name: ADAPTERS[name] for name in _names(_program()[1], bidders)}
    whole = request(size)
    imps = [{**imp, "ext": {**imp.get("ext", {}), "prebid": {"bidder": named}}} for imp in whole["imp"]]
    return msgspec.json.encode({**whole, "imp": imps, "ext": {}})


def _free_port() -> int:
    """Give a port that is free now: the program does not say which one the system chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(url: str, alive: Callable[[], bool]) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError as refused:
            if not alive() or time.monotonic() > end:
                raise RuntimeError(f"prebid: not ready at {url}: {refused}") from refused
            time.sleep(0.1)

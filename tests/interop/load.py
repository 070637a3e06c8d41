# ghz and h2load: thousands of calls at once, on many streams, of which none may fail.

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from auction.edge.wire.messages import packed
from tests.interop.echo import AUTHORITY, SAY, Fault, Way, echoing, pattern
from tests.interop.programs import GHZ, HERE, built, found, run

CALLS = 4_000
CONNECTIONS, WORKERS, STREAMS = 4, 64, 32


async def called(
    target: str, way: Way, call: str, binary: Path, *words: str | Path, calls: int = CALLS, workers: int = WORKERS
) -> None:
    """Have ghz call so often; every call must be answered as OK."""
    program = await built(GHZ)
    secured = ("--insecure",) if way is Way.PLAINTEXT else ("--cacert", AUTHORITY, "--cname", "localhost")
    size = ("-n", str(calls), "-c", str(workers), "--connections", str(CONNECTIONS))
    code, said = await run(
        program, *secured, *size, "--timeout", "60s", "-O", "json", "--call", call, "-B", binary, *words, target
    )
    try:
        report: dict[str, Any] = json.loads(said)
    except ValueError:
        raise Fault(f"ghz gave no report, code {code}: {said[-600:]}") from None
    statuses = report["statusCodeDistribution"]
    if code or statuses != {"OK": calls} or report["errorDistribution"]:
        raise Fault(f"expected {calls} calls that are OK, was {statuses}, {report['errorDistribution']}")


async def of_ghz(way: Way) -> str:
    """Have ghz call our server, by echo.proto."""
    with tempfile.TemporaryDirectory() as folder:
        # Field 1 as octets, 256 of them.
        (binary := Path(folder) / "octets").write_bytes(b"\x0a\x80\x02" + pattern(256))
        async with echoing(way) as echo:
            await called(echo.target, way, "interop.Echo.Say", binary, "--proto", HERE / "echo.proto")
            return _counted(echo.said)


async def of_h2load(way: Way) -> str:
    """Have h2load fetch the page, then post messages of gRPC."""
    program = found("h2load", "Debian: apt install nghttp2-client")
    sizes = ("-n", str(CALLS), "-c", str(CONNECTIONS), "-m", str(STREAMS))
    with tempfile.TemporaryDirectory() as folder:
        (message := Path(folder) / "message").write_bytes(packed(pattern(256)))
        grpc = ("-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers")
        async with echoing(way) as echo:
            scheme = "http" if way is Way.PLAINTEXT else "https"
            for path, words in (("/", ()), (SAY, grpc)):
                code, said = await run(program, *sizes, *words, f"{scheme}://127.0.0.1:{echo.port}{path}")
                wanted = (
                    rf"requests: {CALLS} total, {CALLS} started, {CALLS} done, {CALLS} succeeded, "
                    rf"0 failed, 0 errored, 0 timeout\s+status codes: {CALLS} 2xx, 0 3xx, 0 4xx, 0 5xx"
                )
                if code or not re.search(wanted, said):
                    raise Fault(f"{path}: {said[-1_200:]}")
            return f"{CALLS} pages, {_counted(echo.said)}"


def _counted(said: int) -> str:
    """Say how many calls we have answered, which is how many were made."""
    if said != CALLS:
        raise Fault(f"expected {CALLS} calls, was {said}")
    return f"{said} calls"

# h2spec walks through the standard, strictly: its generic, http2 and hpack sections.

from __future__ import annotations

import re

from tests.interop.echo import Fault, Way, echoing
from tests.interop.envoy import answering
from tests.interop.go import serving
from tests.interop.programs import H2SPEC, built, run

# h2spec waits so long for an answer; on a busy machine 4000 of them take more than its two seconds.
ANSWER_S = 10


async def walk(port: int, way: Way) -> tuple[str, str]:
    """Give the tally, and what failed."""
    program = await built(H2SPEC)
    secured = () if way is Way.PLAINTEXT else ("-t", "-k")
    _, said = await run(program, "--strict", "-h", "127.0.0.1", "-p", str(port), "-o", str(ANSWER_S), *secured)
    tally = next((line.strip() for line in said.splitlines() if re.match(r"\s*\d+ tests, ", line)), "")
    if not tally:
        raise Fault(f"h2spec did not come to its end: {said[-600:]}")
    return tally, said[at:] if (at := said.find("Failures")) >= 0 else ""


async def of_ours(way: Way) -> str:
    """Hold our server to it: every case passes and none is skipped."""
    async with echoing(way) as echo:
        tally, failures = await walk(echo.port, way)
    if failures or ", 0 skipped, 0 failed" not in tally:
        raise Fault(f"{tally}\n{failures}")
    return tally


async def of_envoy(way: Way) -> str:
    """Count what Envoy passes, which answers with as large a page."""
    async with answering(way) as port:
        return (await walk(port, way))[0]


async def of_grpc_go(way: Way) -> str:
    """Count what grpc-go passes, which answers GET with a status of gRPC or a reset."""
    async with serving(way) as port:
        return (await walk(port, way))[0]

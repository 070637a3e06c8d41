# kill -9 in the middle of load, twenty times over each transport: the log opens each time, and every record up to the
# last one that its writer published is there, whole and in order.
#
# A killer that waits for a moment of its own choosing would find the same moment every time. So each round is killed
# after another number of answers, while others are on their way and the writer is somewhere between two batches.

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest
from processes import METHOD, PATIENCE_S, a_request, exchange, message_of

from auction import replay
from auction.core.record import AUCTION, RULES, decode_auction
from auction.edge import eventlog

ROUNDS = 5
# Calls under way at a time, from one client.
CALLERS = 16


@pytest.mark.parametrize("transport", ["grpcio", "wire"])
@pytest.mark.parametrize("first", [40, 97, 150, 233])
def test_killed_exchange_leaves_every_record_that_it_published(tmp_path: Path, first: int, transport: str) -> None:
    log = tmp_path / "log"
    server = {"drain_s": 5, "transport": transport}
    given = {"log": {"dir": str(log), "segment_bytes": 100_000}, "server": server}
    published = 0
    for round in range(ROUNDS):
        with exchange(tmp_path, given) as served:
            before, answers = eventlog.last_written(log), first + 17 * round
            assert before >= published  # opened again with all of it
            killed = loaded_until_killed(served.ready["grpc"], served.process.pid, answers, log, before)
            published = asyncio.run(killed)
            assert -signal.SIGKILL == served.wait()
        published = max(published, eventlog.last_written(log))
        assert published > before
        assert_whole(log, published)
    with exchange(tmp_path, given) as served:
        served.grpc(a_request(id="after"))
        assert 0 == served.end()
    frames = assert_whole(log, published + 1)
    assert b"after" in decode_auction(frames[-1].payload).arrival.body
    assert {None} == {replay.difference(logged) for logged in replay.auctions(frames)}


async def loaded_until_killed(target: str, pid: int, answers: int, log: Path, before: int) -> int:
    """Keep CALLERS calls going; kill the process after so many answers; give what `last` said just before.

    Not before this process has published something, or the round would show nothing. How far `last` may be behind the
    answers is no claim of this test.
    """
    body, answered, published = message_of(a_request()), 0, before
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD)

        async def caller() -> None:
            nonlocal answered, published
            while published == before:
                try:
                    await call(body, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    return
                answered += 1
                if answered >= answers and published == before:
                    published = eventlog.last_written(log)
                    if published > before:
                        os.kill(pid, signal.SIGKILL)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return published


def assert_whole(log: Path, published: int) -> list[eventlog.Frame]:
    """Read the log: every sequence number from 1 to at least `published`, and nothing wrong but a torn end."""
    faults: list[eventlog.Fault] = []
    frames = list(eventlog.read([log], faults.append))
    assert [] == [fault for fault in faults if fault.kind is not eventlog.FaultKind.TORN]
    assert list(range(1, len(frames) + 1)) == [frame.sequence for frame in frames]
    assert len(frames) >= published
    assert {AUCTION, RULES} == {frame.kind for frame in frames}
    assert all(frame.rules is not None for frame in frames)
    return frames

# What must not be left waiting: calls for a stream that is free again, streams for octets that nobody will send.

from __future__ import annotations

import asyncio

import pytest
from peers import eventually, frame, grpc_peer, grpc_reply
from test_wire_calls import Asked, ask, channel, serving, silent
from test_wire_h2 import headers

from auction.edge.wire import frames, places
from auction.edge.wire.calls import Call
from auction.edge.wire.frames import ACK, Setting
from auction.edge.wire.h2 import Connection
from auction.edge.wire.limits import Limits
from auction.edge.wire.statuses import Status


@pytest.mark.parametrize("resets", [5, 0])
async def test_a_call_that_waits_is_sent_when_another_is_withdrawn_and_the_peer_says_nothing(
    resets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CONNECTIONS_PER_ADDRESS", 1)
    async with grpc_peer(silent) as peer, channel(peer.port, resets_per_s=resets) as one:
        one.ready[0].data_received(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 1}))
        first = Asked(one, b"first")
        assert await eventually(lambda: [b"first"] == peer.requests)
        Asked(one, b"second")
        first.ask.cancel()
        one.resets_per_s = 5
        if not resets:
            one.ready[0].tick()  # its stream is taken back in a later second
        assert await eventually(lambda: [b"first", b"second"] == peer.requests, 1_000)


async def test_a_call_that_has_waited_for_a_stream_tells_what_is_left_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "CONNECTIONS_PER_ADDRESS", 1)
    clock = [100.0]
    held: list[Call] = []
    async with (
        serving(held.append, limits=Limits(streams=1), now=lambda: 0.0) as server,
        channel(server.port, now=lambda: clock[0]) as one,
    ):
        asked = [Asked(one, timeout_s=10.0) for _ in range(2)]
        assert await eventually(lambda: 1 == len(held))
        clock[0] = 104.0
        held[0].answer(b"")
        assert await eventually(lambda: 2 == len(held))
        assert [10.0, 6.0] == [call.deadline for call in held]
        held[1].answer(b"")
        assert [Status.OK] * 2 == [(await each.ended)[0] for each in asked]


async def test_a_call_that_is_answered_before_it_was_sent_whole_leaves_no_stream() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
        await reader.readuntil(b"/a.B/C")
        writer.write(grpc_reply(1, None, 8))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    try:
        async with channel(server.sockets[0].getsockname()[1]) as one:
            assert Status.RESOURCE_EXHAUSTED is (await ask(one, b"x" * 100))[0]
            assert {} == one.ready[0].connection.streams
            assert 0 == one.ready[0].connection.outbound.queued
    finally:
        server.close()


def test_a_smaller_window_than_the_default_is_opened_where_it_was_used_up_before_it_was_known() -> None:
    server = Connection(False, Limits(stream_window=1_000, connection_window=100_000))
    server.receive(frames.PREFACE + frame(frames.SETTINGS) + headers(1) + frame(frames.DATA, b"x" * 5_000, 0, 1))
    server.take()
    server.receive(frame(frames.SETTINGS, flags=ACK))
    assert frames.window_update(1, 5_000) == server.take()
    assert 1_000 == server.streams[1].recv_window

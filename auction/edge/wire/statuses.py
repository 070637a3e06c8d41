# gRPC's words over HTTP/2, as PROTOCOL-HTTP2.md in grpc/grpc writes them: statuses, timeouts, metadata, messages for
# people, and what HTTP's own statuses and resets count as.

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Final

from auction.edge.wire.fields import Fields, block
from auction.edge.wire.frames import Code

CONTENT_TYPE: Final = b"application/grpc"

# A message for people: a sentence and a field path. What a peer sends beyond it is cut.
WORDS_MAX: Final = 1_024


class Status(IntEnum):
    """How a call ended, by gRPC's numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_OF_HTTP: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_OF_RESETS: Final = {
    Code.REFUSED_STREAM: Status.UNAVAILABLE,
    Code.CANCEL: Status.CANCELLED,
    Code.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    Code.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{2}")
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}  # all that is printed, but for the percent sign


def of_http(status: int) -> Status:
    """Give what an HTTP status counts as where there is no grpc-status."""
    return _OF_HTTP.get(status, Status.UNKNOWN)


def of_reset(code: int) -> Status:
    """Give what a reset stream counts as."""
    try:
        return _OF_RESETS.get(Code(code), Status.INTERNAL)
    except ValueError:
        return Status.INTERNAL


def quoted(message: str) -> bytes:
    """Write a message for people as grpc-message has it."""
    octets = message.encode(errors="replace")[:WORDS_MAX]
    return b"".join(bytes((octet,)) if octet in _PLAIN else b"%%%02X" % octet for octet in octets)


def unquoted(octets: bytes) -> str:
    """Read a grpc-message; what is no escape stays as it is."""
    octets = octets[: 3 * WORDS_MAX]
    if b"%" not in octets:
        return octets.decode(errors="replace")
    first, *rest = octets.split(b"%")
    read = bytearray(first)
    for part in rest:
        if _HEX.match(part):
            read += binascii.unhexlify(part[:2]) + part[2:]
        else:
            read += b"%" + part
    return read.decode(errors="replace")


def timeout_text(seconds: float) -> bytes:
    """Write a grpc-timeout, rounded down, so coarsely that calls share their header blocks."""
    if seconds >= 0.01:
        ms = int(seconds * 1000)
        return b"%dm" % ms if ms < 100_000_000 else b"%dS" % min(int(seconds), 99_999_999)
    return b"%du" % (max(1, int(seconds * 10_000)) * 100)


def timeout_s(text: bytes) -> float | None:
    """Read a grpc-timeout; None is none: what cannot be read bounds nothing."""
    digits, unit = text[:-1], text[-1:]
    if not digits.isdigit() or len(digits) > 8 or unit not in _UNITS:
        return None
    return int(digits) * _UNITS[unit]


def written(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Write metadata as header fields; what is binary has a name that ends in -bin."""
    pairs = []
    for name, value in metadata:
        lower = name.lower().encode("ascii")
        if lower.endswith(b"-bin"):
            octets = value.encode() if isinstance(value, str) else value
            pairs.append((lower, base64.b64encode(octets).rstrip(b"=")))
        else:
            pairs.append((lower, value.encode() if isinstance(value, str) else value))
    return pairs


def read(fields: Fields) -> tuple[Mapping[str, str], Mapping[str, bytes]]:
    """Give the text and the binary metadata of a header list; of a name given twice the first counts."""
    text: dict[str, str] = {}
    binary: dict[str, bytes] = {}
    for name, value in fields.pairs:
        if name.startswith((b":", b"grpc-")) or name in (b"te", b"content-length"):
            continue
        if name.endswith(b"-bin"):
            try:
                first = value.split(b",")[0]
                binary.setdefault(name.decode(), base64.b64decode(first + b"=" * (-len(first) % 4), validate=True))
            except binascii.Error:
                continue  # as good as not sent
        else:
            text.setdefault(name.decode(), value.decode("latin-1"))
    return text, binary


HEAD: Final = block([(b":status", b"200"), (b"content-type", CONTENT_TYPE)])
"""The header block in front of any answer that has a message."""


@lru_cache(maxsize=1_024)
def trailers(status: int, message: str = "", metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Write the trailers behind a message."""
    return block(_ending(status, message, metadata))


@lru_cache(maxsize=1_024)
def trailers_only(status: int, message: str = "", metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Write an answer that is nothing but its status."""
    first = [(b":status", b"200"), (b"content-type", CONTENT_TYPE)]
    return block([*first, *_ending(status, message, metadata)])


def _ending(status: int, message: str, metadata: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    pairs = [(b"grpc-status", b"%d" % status)]
    if message:
        pairs.append((b"grpc-message", quoted(message)))
    return pairs + written(metadata)


class Ending:
    """What a header list says of how a call ended; `said` is whether it says anything."""

    __slots__ = ("binary", "message", "said", "status", "text")

    def __init__(self, fields: Fields) -> None:
        code = fields.value(b"grpc-status")
        self.said = code is not None
        known = code is not None and code.isdigit() and len(code) < 3 and int(code) <= Status.UNAUTHENTICATED
        self.status = Status(int(code)) if known and code is not None else Status.UNKNOWN
        self.message = unquoted(fields.value(b"grpc-message") or b"")
        self.text, self.binary = read(fields)

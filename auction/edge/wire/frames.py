# The numbers of HTTP/2 and the nine octets in front of every frame (RFC 9113, sections 4, 6, 7 and 11).

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

STREAM_MAX: Final = 2**31 - 1
WINDOW_MAX: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65_535
FRAME_DEFAULT: Final = 16_384
FRAME_MAX: Final = 2**24 - 1
TABLE_DEFAULT: Final = 4_096


class Code(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """What a peer may say of itself (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):
    """The peer broke the connection's rules: it ends with this code, and every stream on it."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFault(Exception):
    """The peer broke the rules of one stream; the others go on."""

    def __init__(self, stream_id: int, code: Code, message: str) -> None:
        super().__init__(message)
        self.stream_id = stream_id
        self.code = code


# Length (8 and 16 bits), type, flags, stream: read in one call.
HEAD: Final = struct.Struct(">BHBBL")
_SETTING: Final = struct.Struct(">HL")
_LONG: Final = struct.Struct(">L")
_TWO_LONGS: Final = struct.Struct(">LL")


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Write the nine octets in front of a payload of `length`."""
    return HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def settings(values: dict[Setting, int]) -> bytes:
    """Write a SETTINGS frame."""
    return head(6 * len(values), SETTINGS, 0, 0) + b"".join(_SETTING.pack(*pair) for pair in values.items())


def window_update(stream_id: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame; stream 0 is the connection."""
    return head(4, WINDOW_UPDATE, 0, stream_id) + _LONG.pack(increment)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Write a RST_STREAM frame."""
    return head(4, RST_STREAM, 0, stream_id) + _LONG.pack(code)


def goaway(last_stream_id: int, code: int, message: str = "") -> bytes:
    """Write a GOAWAY frame with words for people."""
    words = message.encode()[:256]
    return head(8 + len(words), GOAWAY, 0, 0) + _TWO_LONGS.pack(last_stream_id, code) + words


def ping(payload: bytes, ack: bool = False) -> bytes:
    """Write a PING frame; `payload` is eight octets."""
    return head(8, PING, ACK if ack else 0, 0) + payload


def code_of(number: int) -> Code:
    """Name an error code; an unknown one counts as INTERNAL_ERROR (section 7)."""
    try:
        return Code(number)
    except ValueError:
        return Code.INTERNAL_ERROR

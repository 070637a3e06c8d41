# Message bytes by hand, for what no protobuf library would write.

from __future__ import annotations

import struct

VARINT, I64, LEN, GROUP, GROUP_END, I32 = range(6)


def varint(number: int, padding: int = 0) -> bytes:
    """Write a varint, negative ones as 64 bits; `padding` makes it longer than it need be."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    if padding:
        out[-1] |= 128
        out += b"\x80" * (padding - 1) + b"\x00"
    return bytes(out)


def key(field: int, wire_type: int, padding: int = 0) -> bytes:
    """Write a field's number and wire type."""
    return varint(field << 3 | wire_type, padding)


def number(field: int, value: int, padding: int = 0) -> bytes:
    """Write an integer."""
    return key(field, VARINT) + varint(value, padding)


def text(field: int, value: str | bytes, padding: int = 0) -> bytes:
    """Write a string, or a message."""
    raw = value.encode() if isinstance(value, str) else value
    return key(field, LEN) + varint(len(raw), padding) + raw


def double(field: int, value: float) -> bytes:
    """Write a double."""
    return key(field, I64) + struct.pack("<d", value)


def packed(field: int, *values: int) -> bytes:
    """Write a list of integers as one field."""
    return text(field, b"".join(map(varint, values)))


def group(field: int, inside: bytes = b"") -> bytes:
    """Write a group, which the contract has none of."""
    return key(field, GROUP) + inside + key(field, GROUP_END)

# Fields of a message as they are written, for messages that are put together from pieces of others.

from __future__ import annotations

from struct import Struct

DOUBLE = Struct("<d")


def field(tag: bytes, content: bytes) -> bytes:
    """Write a field of text or of a message."""
    return tag + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Write a number that is not negative."""
    if number < 128:
        return _ONE_BYTE[number]
    pieces = bytearray()
    while number > 127:
        pieces.append(number & 127 | 128)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


_ONE_BYTE = [bytes((number,)) for number in range(128)]

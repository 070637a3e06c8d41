"""Content codings: gzip within limits, and what a content type says."""

from __future__ import annotations

import zlib
from collections.abc import Mapping


class Undecodable(Exception):
    """A body that cannot be taken; `status` is what HTTP calls it when a caller sent it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def media_type(fields: Mapping[str, str]) -> str:
    """Give the type of a body in lower case, without parameters; empty where none is told."""
    told = fields.get("content-type", "")
    # Nearly everybody writes it plainly.
    return told if told == "application/json" else told.partition(";")[0].strip().lower()


def decoded(body: bytes, fields: Mapping[str, str], limit: int, ratio: int) -> bytes:
    """Undo the coding of a body, as `inflate` does for gzip; Undecodable for any other."""
    coding = fields.get("content-encoding")
    if coding is None or (coding := coding.strip().lower()) in ("identity", ""):
        return body
    if coding not in ("gzip", "x-gzip"):
        raise Undecodable(f"expected gzip or no encoding, was {coding[:40]}", 415)
    return inflate(body, limit, ratio)


def inflate(packed: bytes, limit: int, ratio: int) -> bytes:
    """Undo gzip, in memory for at most `limit` bytes and `ratio` times what came in, whatever the data claims.

    Members one after the other are one text (RFC 1952 section 2.2); anything else behind the last is refused.
    """
    room = min(limit, ratio * len(packed))
    texts: list[bytes] = []
    while packed:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            # One byte more than there is room for tells too much from just enough.
            text = member.decompress(packed, room + 1)
        except zlib.error as fault:
            raise Undecodable(f"no gzip: {fault}") from fault
        if len(text) > room:
            raise Undecodable(f"expected at most {limit} bytes and {ratio} times the compressed size")
        if not member.eof:
            raise Undecodable("truncated gzip")
        texts.append(text)
        room -= len(text)
        packed = member.unused_data
    return b"".join(texts)

# Header blocks: written once, read once.
#
# Written without the dynamic table (RFC 7541 section 6.2.3, never indexed): a block is then the same octets on every
# connection, so that it is encoded once for all calls of a method, and no secret of a bidder's header stays in the
# tables of whatever stands between. It costs some 100 octets a call, which is less than finding out what was sent.
#
# Read by hpack, and remembered by the octets of the block for as long as the dynamic table is what it was: real clients
# repeat their blocks to the octet.

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hpack.exceptions import HPACKError
from hpack.hpack import Decoder
from hpack.table import HeaderTable

from auction.edge.wire.frames import Code, ConnectionFault
from auction.edge.wire.limits import BLOCK_BYTES_MAX, BLOCK_CACHED_BYTES, BLOCKS_CACHED, CONTINUATIONS_MAX

Pairs = tuple[tuple[bytes, bytes], ...]

# The list may be this many times the limit before the connection is at fault: up to there only its stream is refused,
# because the callers behind a proxy are not all to pay for one.
LIST_GRACE: Final = 4

# Lower case, and none of what RFC 9113 section 8.2.1 calls dangerous. `:` leads a pseudo-header and nothing else.
_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[^\0\r\n \t](?:[^\0\r\n]*[^\0\r\n \t])?)?")
OF_CONNECTIONS: Final = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
_OF_REQUESTS: Final = {b":method", b":scheme", b":path", b":authority"}

_INDEXED: Final = {pair: 0x80 | at for at, pair in enumerate(HeaderTable.STATIC_TABLE, 1) if pair[1]}
_NAMED: Final = {pair[0]: at for at, pair in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}

# The first block on a connection says that the table is not used, so that no limit of the peer concerns it.
NO_TABLE: Final = b"\x20"


def block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a header block that depends on nothing said before it."""
    octets = bytearray()
    for name, value in pairs:
        indexed = _INDEXED.get((name, value))
        if indexed is not None:
            octets.append(indexed)
            continue
        named = _NAMED.get(name)
        if named is None:
            octets += b"\x10" + _integer(len(name), 7) + name
        else:
            octets += _integer(named, 4, 0x10)
        octets += _integer(len(value), 7) + value
    return bytes(octets)


def _integer(number: int, bits: int, pattern: int = 0) -> bytes:
    """Write an integer behind a prefix (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((pattern | number,))
    octets = bytearray((pattern | most,))
    number -= most
    while number >= 0x80:
        octets.append(0x80 | number & 0x7F)
        number >>= 7
    octets.append(number)
    return bytes(octets)


class Fields:
    """A header list as it was sent. `meaning` is for whoever reads it, once for all the times that it comes.

    `fault` says what is wrong with it as a request, a response or trailers; "" is nothing. `faults` is what was found.
    """

    __slots__ = ("faults", "length", "meaning", "pairs", "size")

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.size = sum(len(name) + len(value) + 32 for name, value in pairs)
        self.meaning: object = None
        self.length = -1  # content-length, where there is one
        self.faults: dict[str, str] = {}

    def value(self, name: bytes) -> bytes | None:
        """Give the first value under a name."""
        return next((value for known, value in self.pairs if known == name), None)

    def fault(self, kind: str) -> str:
        """Say what is wrong with the list as a "request", a "response" or "trailers"."""
        found = self.faults.get(kind)
        if found is None:
            found = self.faults[kind] = self._look(kind)
        return found

    def _look(self, kind: str) -> str:
        pseudo: dict[bytes, bytes] = {}
        plain = False
        for name, value in self.pairs:
            if not _NAME.fullmatch(name):
                return f"no field name: {name!r}"
            if not _VALUE.fullmatch(value):
                return f"no field value: {name!r}"
            if name[:1] == b":":
                if plain:
                    return f"{name!r} comes after fields"
                if name in pseudo:
                    return f"{name!r} comes twice"
                pseudo[name] = value
                continue
            plain = True
            if name in OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                return f"{name!r} belongs to HTTP/1.1"
            if name == b"content-length" and (fault := self._length(value)):
                return fault
        if kind == "trailers":
            return "trailers with a pseudo-header" if pseudo else ""
        if kind == "response":
            status = pseudo.pop(b":status", b"")
            known = not pseudo and len(status) == 3 and status.isdigit()
            return "" if known else "expected :status and no other pseudo-header"
        return _request_fault(pseudo)

    def _length(self, value: bytes) -> str:
        if not value.isdigit() or len(value) > 18:
            return "content-length is no number"
        if self.length not in (-1, int(value)):
            return "content-length is two numbers"
        self.length = int(value)
        return ""


def _request_fault(pseudo: dict[bytes, bytes]) -> str:
    if stranger := pseudo.keys() - _OF_REQUESTS:
        return f"{min(stranger)!r} is not of requests"
    if pseudo.get(b":method") == b"CONNECT":
        fits = pseudo.keys() == {b":method", b":authority"}
        return "" if fits else "CONNECT with more than an authority"
    missing = {b":method", b":scheme", b":path"} - pseudo.keys()
    if missing:
        return f"no {min(missing)!r}"
    return "" if pseudo[b":path"] else "an empty :path"


class _Table(HeaderTable):
    """hpack's table, which tells when it changed."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        if newmax != self._maxsize:
            self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]  # a property is not known to have it


class Blocks:
    """The reading side of one connection's header compression."""

    def __init__(self, list_bytes: int) -> None:
        self.known: dict[bytes, Fields] = {}  # looked up by the connection itself, before it asks `read`
        self._decoder = Decoder(max_header_list_size=LIST_GRACE * list_bytes)
        self._table = self._decoder.header_table = _Table()

    def read(self, octets: bytes) -> Fields:
        """Decode a block; raise ConnectionFault where the two sides' tables no longer agree."""
        known = self.known.get(octets)
        if known is not None:
            return known
        _few_updates(octets)
        before = self._table.changes
        try:
            pairs = tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(octets, raw=True))
        except (HPACKError, IndexError, ValueError) as fault:
            # Its own words may hold addresses of our memory, which are nothing to tell a peer.
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"no header block: {type(fault).__name__}") from fault
        fields = Fields(pairs)
        if self._table.changes != before:
            self.known.clear()
        elif len(octets) <= BLOCK_CACHED_BYTES:
            if len(self.known) >= BLOCKS_CACHED:
                self.known.clear()
            self.known[octets] = fields
        return fields


class Parts:
    """A header block that comes in several frames, which nothing else may come between."""

    def __init__(self, stream_id: int, flags: int, octets: bytes) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.block = bytearray(octets)
        self._more = 0

    def add(self, octets: bytes) -> None:
        """Take in a CONTINUATION; raise ConnectionFault for one too many."""
        self.block += octets
        self._more += 1
        if self._more > CONTINUATIONS_MAX or len(self.block) > BLOCK_BYTES_MAX:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "an endless header block")


def _few_updates(octets: bytes) -> None:
    """Refuse a block of table size updates: two have a meaning (RFC 7541 section 4.2), a thousand only a cost."""
    at = 0
    for _ in range(3):
        if at >= len(octets) or octets[at] & 0xE0 != 0x20:
            return
        more = octets[at] == 0x3F
        at += 1
        while more and at < len(octets):
            more = octets[at] >= 0x80
            at += 1
    raise ConnectionFault(Code.COMPRESSION_ERROR, "more than two table size updates")

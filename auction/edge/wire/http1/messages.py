"""What travels: requests and answers of HTTP/1.1, and the bytes of their heads."""
# Fields of what was heard are kept as the bytes that came and are read when somebody asks for one. Most are never asked
# for, and a dictionary of text would cost more than parsing the message did.

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

# 16 KiB for names and values of a head: what Node gives by default, and ten times what ad servers and bidders send.
HEAD_BYTES_MAX: Final = 16 * 1024
# As many fields as Apache takes; each costs a call of ours.
FIELDS_MAX: Final = 100
# Pieces of a chunked body. One of 256 KiB in the 64 bytes that the most nervous writer flushes has as many; pieces of
# one byte would cost a million calls of ours by second and core.
CHUNKS_MAX: Final = 4096
# Octets that complete nothing (white space, blank lines, what follows the size of a chunk) are counted in stretches of
# as many as a head may have, from where the connection or the exchange began, so that it does not matter in which reads
# they came. This many stretches may end since something was complete: two heads' worth are always let through, which
# is any head within its limits, and three never.
STRETCHES_MAX: Final = 2

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5, but for obsolete text beyond ASCII, which nobody needs and not everybody reads alike.
_VALUE = re.compile(r"[\t\x20-\x7e]*")
# RFC 3986 section 3.3 and 3.4: what may stand in a path and a query as it is, and % because it has been quoted before.
_TARGET = "/:@!$&'()*+,;=~-._%?"
_PORTS = {"http": 80, "https": 443}


class Limits(msgspec.Struct, frozen=True):
    """How much of one message is read; what is larger is refused as soon as that shows."""

    body_bytes: int
    head_bytes: int = HEAD_BYTES_MAX
    fields: int = FIELDS_MAX
    chunks: int = CHUNKS_MAX


class Fields(Mapping[str, str]):
    """The fields of a head by name in lower case; of a name given twice the first counts."""

    __slots__ = ("_raw",)

    def __init__(self, raw: dict[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1", "replace")].decode("latin-1")

    def get(self, name: str, default: Any = None) -> Any:  # without an exception for what is not there
        raw = self._raw.get(name.encode("latin-1", "replace"))
        return default if raw is None else raw.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return f"Fields({dict(self)!r})"


class Request(msgspec.Struct, gc=False, eq=False):
    """A request as heard: `body` is None until the whole of it is there, `length` what was announced, if anything.

    `keep` tells whether its connection may serve another, `old` whether it is HTTP/1.0, `expects` whether its caller
    waits for a 100 before the body. `note` is the application's own.
    """

    method: str
    target: str
    fields: Fields
    length: int | None = None
    keep: bool = True
    old: bool = False
    expects: bool = False
    body: bytes | None = None
    note: object = None

    @property
    def path(self) -> str:
        """Give the target without its query, also of one in absolute form (RFC 9112 section 3.2.2)."""
        path = self.target.partition("?")[0]
        return path if path.startswith("/") or "://" not in path else "/" + "/".join(path.split("/")[3:])


class Response(msgspec.Struct, frozen=True, gc=False):
    """What to answer. `keep` False closes the connection behind it.

    A content-length among the fields is sent as it is, also when it lies; otherwise the body's own is.
    """

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    keep: bool = True


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a server answered to us; the body is empty where nobody wanted it."""

    status: int
    fields: Fields
    body: bytes = b""


class Address(msgspec.Struct, frozen=True):
    """A URL taken apart: where to connect to, and what to ask for there."""

    secure: bool
    host: str
    port: int
    authority: str
    target: str


def address(url: str) -> Address:
    """Take an http or https URL apart; ValueError says what is wrong. What follows # is dropped."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise ValueError(f"expected http://host:port/path or https://host/path, was {url.partition('?')[0]}")
    try:
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    except UnicodeError as wrong:
        raise ValueError(f"expected a host that DNS can ask for, was {parts.hostname}: {wrong}") from wrong
    port = parts.port or _PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port == _PORTS[parts.scheme] else f"{shown}:{port}"
    target = quote(parts.path or "/", _TARGET) + (f"?{quote(parts.query, _TARGET)}" if parts.query else "")
    return Address(parts.scheme == "https", host, port, authority, target)


def request_head(method: str, to: Address, fields: Iterable[tuple[str, str]]) -> bytes:
    """Encode the head of a request up to the number of its content-length; ValueError for what no head may hold.

    It is made once for many requests; behind it go digits, an empty line and the body.
    """
    lines = [f"{method} {to.target} HTTP/1.1", f"host: {to.authority}", *_lines(fields), "content-length: "]
    return "\r\n".join(lines).encode()


class Heads:
    """Heads of answers, each encoded once: status and fields repeat, only date and length change."""

    # Answers of an exchange differ in one or two fields with few values; beyond it starts anew.
    KEPT_MAX: Final = 256

    def __init__(self) -> None:
        # With whether there is a length to be written behind it.
        self._kept: dict[tuple[object, ...], tuple[bytes, bool]] = {}

    def encode(self, response: Response, date: bytes, connection: bytes) -> bytes:
        """Give the head of an answer; `date` and `connection` are whole lines or empty."""
        key = (response.status, response.fields)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= self.KEPT_MAX:
                self._kept.clear()
            lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}", *_lines(response.fields), ""]
            # RFC 9110 section 8.6: a 204 has no length.
            measured = response.status != 204 and all(name != "content-length" for name, _ in response.fields)
            kept = self._kept[key] = ("\r\n".join(lines).encode(), measured)
        head, measured = kept
        if measured:
            return b"%b%b%bcontent-length: %d\r\n\r\n" % (head, date, connection, len(response.body))
        return b"%b%b%b\r\n" % (head, date, connection)


def _lines(fields: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(text):
            raise ValueError(f"{name!r}: expected a field of printable ASCII, was {text!r}")
        yield f"{name}: {text}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

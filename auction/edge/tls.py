"""TLS of the edge, shared by every transport: what is made of files, and made anew when they change."""
# A certificate is replaced while we run, by a tool that writes files or by a Secret that is swapped under a symbolic
# link. Files are looked at when a connection is made, and not otherwise: whoever needs no new connection needs no new
# certificate, and a look costs three system calls beside a handshake of a millisecond.
#
# Files that cannot be used, for example a new certificate whose key is still the old one, leave what was in force where
# it is; the next connection looks again.

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

# RFC 9325 section 3.1.1: nothing older is to be spoken, and nothing that we meet needs it.
OLDEST: Final = ssl.TLSVersion.TLSv1_2

# A chain of certificates or a bundle of every public authority is a quarter of this.
FILE_BYTES_MAX: Final = 1024 * 1024

_log = logging.getLogger(__name__)


class Unusable(OSError):
    """A file that nothing can be made of: which (`certificate`, `key` or `authorities`), and why, in one line."""

    def __init__(self, which: str, why: str) -> None:
        super().__init__(why)
        self.which = which


class Files(msgspec.Struct, frozen=True):
    """What a side shows and whom it believes, all PEM: its certificate chain and key, and its authorities.

    Without `authorities` a client believes the system's, and a server asks callers for no certificate.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    @staticmethod
    def of(certificate: str | None, key: str | None, authorities: str | None) -> Files:
        """Make it of paths as text."""
        return Files(*(None if path is None else Path(path) for path in (certificate, key, authorities)))


class Contents(msgspec.Struct, frozen=True):
    """What stands in the files, checked: each is PEM, and the key is the certificate's."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None


def read(files: Files) -> Contents:
    """Read files and check that they can be used; Unusable says which cannot."""
    found = Contents(
        *(
            _content(name, path)
            for name, path in (
                ("certificate", files.certificate), ("key", files.key), ("authorities", files.authorities)
            )
        )
    )  # fmt: skip
    for name, path in (("certificate", files.certificate), ("authorities", files.authorities)):
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except (OSError, ValueError) as wrong:
                raise Unusable(name, f"expected certificates in PEM, was {path}") from wrong
    if files.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, _no_passphrase)
        except (OSError, ValueError) as wrong:
            what = "was another's" if "MISMATCH" in str(wrong) else "was none, or needs a passphrase"
            raise Unusable("key", f"expected the key of {files.certificate} in PEM, {what}: {files.key}") from wrong
    return found


def _content(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as refusal:
        raise Unusable(name, f"expected a file to read, was {path}: {refusal.strerror}") from refusal
    if len(content) > FILE_BYTES_MAX:
        raise Unusable(name, f"expected at most {FILE_BYTES_MAX} bytes, was {path}")
    return content


def _no_passphrase() -> str:
    """Answer in the place of a terminal, on which OpenSSL would ask, and wait."""
    return ""


def expiry(certificate: bytes) -> float:
    """Tell when the first certificate of a chain in PEM ends, in seconds since 1970; ValueError if it is none.

    The standard library tells this of a peer's certificate only, so the few fields before it are stepped over here
    (RFC 5280 section 4.1).
    """
    text = certificate.decode("ascii", "replace")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    at, _ = _element(der, 0)  # the certificate, and in it what is signed
    at, _ = _element(der, at)
    if der[at] == _VERSION:
        _, at = _element(der, at)
    for _ in ("serial number", "algorithm", "issuer"):
        _, at = _element(der, at)
    at, _ = _element(der, at)  # from when to when
    _, at = _element(der, at)
    begin, end = _element(der, at)
    written = der[begin:end].decode("ascii")
    year = "%y" if der[at] == _UTC_TIME else "%Y"
    return datetime.strptime(written, f"{year}%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


_VERSION, _UTC_TIME = 0xA0, 0x17


def _element(der: bytes, at: int) -> tuple[int, int]:
    """Give where the content of the element at `at` begins, and where it ends."""
    try:
        size, begin = der[at + 1], at + 2
        if size & 0x80:
            begin += size & 0x7F
            size = int.from_bytes(der[at + 2 : begin], "big")
    except IndexError:
        raise ValueError("a certificate that is cut off") from None
    return begin, begin + size


def system_authorities() -> bytes | None:
    """Give whom the system believes, for those that would bring a list of their own; None where it keeps no file."""
    known = ssl.get_default_verify_paths().cafile
    return None if known is None else Path(known).read_bytes()


Made = TypeVar("Made")


class Newest(Generic[Made]):
    """Give what was last made of files; it is made anew when they have changed, and kept where that fails.

    `refused` counts the changes that nothing could be made of; `expires` is when our certificate ends, in seconds since
    1970, None without one. Raises Unusable where nothing was ever made.
    """

    def __init__(self, files: Files, make: Callable[[Files, Contents], Made]) -> None:
        self.refused = 0
        self.expires: float | None = None
        self._files = files
        self._paths = [path for path in (files.certificate, files.key, files.authorities) if path is not None]
        self._make = make
        self._last: Made | None = None
        self._seen: object = None
        self._told: object = None

    def __call__(self) -> Made:
        seen = self._look()
        if self._last is not None and seen == self._seen:
            return self._last
        try:
            found = read(self._files)
            made = self._make(self._files, found)
            expires = None if found.certificate is None else expiry(found.certificate)
        except (OSError, ValueError) as wrong:
            if self._last is None:
                raise
            if seen != self._told:
                self._told = seen
                self.refused += 1
                _log.warning("certificates cannot be used, the old ones stay", extra={"fields": {"why": str(wrong)}})
            return self._last
        # Files that changed while they were read are read again next time.
        self._last, self._seen, self.expires = made, seen, expires
        return made

    def _look(self) -> object:
        try:
            told = [path.stat() for path in self._paths]
        except OSError as missing:
            return str(missing)
        return [(each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in told]


def contents(files: Files) -> Newest[Contents]:
    """Give what stands in the files, for those that read no files themselves."""
    return Newest(files, lambda _, found: found)


class ClientContexts(Newest[ssl.SSLContext]):
    """Give the context for the next connection to a server. Names and certificates are verified, always."""

    def __init__(self, protocols: Sequence[str], files: Files = Files()) -> None:  # noqa: B008  it is frozen
        self._protocols = list(protocols)
        super().__init__(files, self._context)

    def _context(self, files: Files, _: Contents) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=files.authorities)
        context.minimum_version = OLDEST
        context.set_alpn_protocols(self._protocols)
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.key, _no_passphrase)
        return context


class ServerContexts:
    """Give one context to listen with, under which each handshake uses the newest files.

    Raises Unusable where the files cannot be used to begin with.
    """

    def __init__(self, protocols: Sequence[str], files: Files) -> None:
        assert files.certificate is not None
        self._protocols = list(protocols)
        self.newest = Newest(files, self._context)
        self.newest()
        # One that every handshake leaves, and that nobody else has.
        self._listening = self._context(files, read(files))
        # Called in each handshake, also for callers that name no server (RFC 6066 section 3).
        self._listening.sni_callback = self._renew

    def __call__(self) -> ssl.SSLContext:
        return self._listening

    def _renew(self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = self.newest()

    def _context(self, files: Files, _: Contents) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = OLDEST
        context.set_alpn_protocols(self._protocols)
        assert files.certificate is not None
        context.load_cert_chain(files.certificate, files.key, _no_passphrase)
        if files.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.authorities)
            # A resumed session is not verified again: a caller would come in after its authority had gone.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        return context

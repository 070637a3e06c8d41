"""TLS of the edge, shared by HTTP/1.1 and HTTP/2: contexts that are made anew when their files change."""
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
from pathlib import Path
from typing import Final

import msgspec

# RFC 9325 section 3.1.1: nothing older is to be spoken, and nothing that we meet needs it.
OLDEST: Final = ssl.TLSVersion.TLSv1_2

_log = logging.getLogger(__name__)


class Files(msgspec.Struct, frozen=True):
    """What a side shows and whom it believes, all PEM: its certificate chain and key, and its authorities.

    Without `authorities` a client believes the system's, and a server asks callers for no certificate.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None


class ClientContexts:
    """Give the context for the next connection to a server. Names and certificates are verified, always."""

    def __init__(self, protocols: Sequence[str], files: Files = Files()) -> None:  # noqa: B008  it is frozen
        self._protocols = list(protocols)
        self._files = files
        self._made = _Made(files, self._make)

    def __call__(self) -> ssl.SSLContext:
        return self._made.current()

    def _make(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._files.authorities)
        context.minimum_version = OLDEST
        context.set_alpn_protocols(self._protocols)
        if self._files.certificate is not None:
            context.load_cert_chain(self._files.certificate, self._files.key)
        return context


class ServerContexts:
    """Give one context to listen with, under which each handshake uses the newest files.

    Raises OSError (ssl.SSLError is one) where the files cannot be used to begin with.
    """

    def __init__(self, protocols: Sequence[str], files: Files) -> None:
        assert files.certificate is not None
        self._protocols = list(protocols)
        self._files = files
        self._made = _Made(files, self._make)
        self._listening = self._make()
        # Called in each handshake, also for callers that name no server (RFC 6066 section 3).
        self._listening.sni_callback = self._renew

    def __call__(self) -> ssl.SSLContext:
        return self._listening

    def _renew(self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = self._made.current()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = OLDEST
        context.set_alpn_protocols(self._protocols)
        assert self._files.certificate is not None
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._files.authorities)
        return context


class _Made:
    """The last context that could be made, and the state of the files that it was made from."""

    def __init__(self, files: Files, make: Callable[[], ssl.SSLContext]) -> None:
        self._paths = [path for path in (files.certificate, files.key, files.authorities) if path is not None]
        self._make = make
        self._context: ssl.SSLContext | None = None
        self._seen: object = None
        self._told: object = None

    def current(self) -> ssl.SSLContext:
        seen = self._look()
        if self._context is not None and seen == self._seen:
            return self._context
        try:
            context = self._make()
        except (OSError, ValueError) as wrong:
            if self._context is None:
                raise
            if seen != self._told:
                self._told = seen
                _log.warning("certificates cannot be used, the old ones stay: %s", wrong)
            return self._context
        # Files that changed while they were read are read again next time.
        self._context, self._seen = context, seen
        return context

    def _look(self) -> object:
        try:
            told = [path.stat() for path in self._paths]
        except OSError as missing:
            return str(missing)
        return [(each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in told]

# Who we are and whom we believe, as files: what tools for certificates write, and what a Secret is mounted as. Only
# paths are settings; what stands in the files is read by edge/tls.py, which also sees when they change.

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auction.config.kinds import HOST_CHARS_MAX, TEXT_CHARS_MAX
from auction.config.section import Section
from auction.edge.tls import Files

File = Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX)]

_AUTHORITIES = "/etc/auction/tls/ca.crt"
_CERTIFICATE, _KEY = "/etc/auction/tls/tls.crt", "/etc/auction/tls/tls.key"


class ServerTls(Section):
    """What a port shows to its callers, and which callers it takes. Files that change are used without a restart."""

    certificate: File = Field(description="A PEM file: our certificate, and those between it and the authority.")
    key: File = Field(description="A PEM file: its key, without a passphrase.")
    authorities: File | None = Field(
        default=None,
        description="A PEM file: callers need a certificate that one of these has signed; none: no caller needs one.",
        examples=[_AUTHORITIES],
    )

    def files(self) -> Files:
        """Give where it all stands."""
        return Files.of(self.certificate, self.key, self.authorities)


class ClientTls(Section):
    """Whom of those that we ask we believe, and what we show. Files that change are used without a restart."""

    authorities: File | None = Field(
        default=None,
        description="A PEM file: whom we believe; none: the system's authorities.",
        examples=[_AUTHORITIES],
    )
    certificate: File | None = Field(
        default=None,
        description="A PEM file: the certificate that we show, with `key`; none: we show none.",
        examples=[_CERTIFICATE],
    )
    key: File | None = Field(default=None, description="A PEM file: its key, without a passphrase.", examples=[_KEY])
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=HOST_CHARS_MAX,
        description="The name that its certificate must have; none: the host that is asked.",
        examples=["bid.dsp.example"],
    )

    def files(self) -> Files:
        """Give where it all stands."""
        return Files.of(self.certificate, self.key, self.authorities)


EXAMPLE_SERVER = {"certificate": _CERTIFICATE, "key": _KEY}
EXAMPLE_CLIENT = {"authorities": _AUTHORITIES}

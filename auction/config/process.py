# The settings of a process: where it listens, what it takes on, and where it writes. No auction depends on them.

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auction.config.kinds import TEXT_CHARS_MAX, Host
from auction.config.section import Section
from auction.config.tls import EXAMPLE_SERVER, ServerTls
from auction.edge import eventlog, outbox
from auction.edge.transports import Connections

# 65 536 auctions of 256 KiB would be 16 GiB: beyond, memory is gone before the limit is met.
IN_FLIGHT_MAX = 65_536
# Ten minutes: orchestrators have killed a process long before.
DRAIN_S_MAX = 600
NOTICE_MS_MAX = DRAIN_S_MAX * 1000
# A day: whoever balances by connections that live longer does not balance.
CONNECTION_AGE_S_MAX = 24 * 3600
# An hour: no auction lasts longer than a minute, and a firewall forgets a silent connection before.
CONNECTION_GRACE_S_MAX, KEEPALIVE_S_MAX = 3600, 3600
# As many as auctions may be in flight.
STREAMS_MAX = IN_FLIGHT_MAX
# As many cores as one socket of a server has; beyond, machines are cheaper than what they would have in common.
WORKERS_MAX = 64
# A page of memory, and what a 32-bit offset reaches: tools outside count a file's bytes in one.
SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX = 4096, 2**32 - 1
# A week: by then somebody wants to ship the file.
SEGMENT_S_MAX = 7 * 24 * 3600
# A minute without fsync is as good as `never`.
FSYNC_INTERVAL_MS_MAX = 60_000
# A million records at 8 KB are 8 GB: more memory than the queue may ever cost.
QUEUE_RECORDS_MAX = 1_000_000
QUEUE_BYTES_MAX = 8 * 1024**3
# 2**53 - 1: the largest whole number that every reader of JSON keeps.
KEEP_BYTES_MAX = 2**53 - 1

_CONNECTIONS = Connections()


class Server(Section):
    """Where this process listens, and how much it takes on. A change needs a restart."""

    host: Host = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 or :: for every one.")
    port: int = Field(default=7400, ge=0, le=65_535, description="gRPC; 0 takes a free port.")
    http_port: int = Field(
        default=7480, ge=0, le=65_535, description="The JSON edge, health and metrics; 0 takes a free port."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=WORKERS_MAX,
        description="Processes behind the same ports, each with its own limits and a log in a directory below "
        "`log.dir`. They share connections, not calls.",
    )
    transport: Literal["grpcio", "wire"] = Field(
        default="wire",
        description="What carries gRPC to us: the exchange's own `wire`, or the library, which costs more of a core.",
    )
    tls: ServerTls | None = Field(
        default=None,
        description="TLS of the gRPC port; none: plaintext.",
        examples=[EXAMPLE_SERVER],
    )
    http_tls: ServerTls | None = Field(
        default=None,
        description="TLS of the JSON port, with its health and metrics, apart from `tls` because probes and scrapers "
        "seldom have certificates; none: plaintext.",
        examples=[EXAMPLE_SERVER],
    )
    in_flight: int = Field(
        default=64,
        ge=1,
        le=IN_FLIGHT_MAX,
        description="Auctions at a time, of each worker; more are refused at once, on the JSON port with Retry-After.",
    )
    notice_ms: int = Field(
        default=500,
        ge=0,
        le=NOTICE_MS_MAX,
        description="How long a stop goes on as before once health says NOT_SERVING, so that callers go elsewhere.",
    )
    drain_s: int = Field(
        default=20, ge=0, le=DRAIN_S_MAX, description="How long it then waits for auctions and the log, in seconds."
    )
    connection_age_s: int | None = Field(
        default=_CONNECTIONS.age_s,
        ge=1,
        le=CONNECTION_AGE_S_MAX,
        description="A gRPC connection older than this, give or take a tenth, is told to go (GOAWAY), so that callers "
        "find new servers; none: never.",
    )
    connection_grace_s: int = Field(
        default=_CONNECTIONS.grace_s,
        ge=1,
        le=CONNECTION_GRACE_S_MAX,
        description="How long such a one may go on with calls that it has; more than `exchange.tmax_max_ms`.",
    )
    keepalive_s: int = Field(
        default=_CONNECTIONS.keepalive_s,
        ge=1,
        le=KEEPALIVE_S_MAX,
        description="A gRPC connection that is silent for so long is asked whether it lives.",
    )
    keepalive_timeout_s: int = Field(
        default=_CONNECTIONS.keepalive_timeout_s,
        ge=1,
        le=KEEPALIVE_S_MAX,
        description="It is dropped when it says nothing for so long.",
    )
    connection_streams: int = Field(
        default=_CONNECTIONS.streams,
        ge=1,
        le=STREAMS_MAX,
        description="Calls that a gRPC connection may have open; more wait in the caller, unrefused.",
    )

    def connections(self) -> Connections:
        """Give how gRPC connections live."""
        return Connections(
            age_s=self.connection_age_s,
            grace_s=self.connection_grace_s,
            keepalive_s=self.keepalive_s,
            keepalive_timeout_s=self.keepalive_timeout_s,
            streams=self.connection_streams,
        )


class Log(Section):
    """The event log, from which auctions are replayed and explained. A change needs a restart."""

    dir: str | None = Field(
        default=None,
        min_length=1,
        max_length=TEXT_CHARS_MAX,
        description="The directory of this process's log; none: no log is written.",
        examples=["/var/lib/auction/log"],
    )
    segment_bytes: int = Field(
        default=eventlog.SEGMENT_BYTES,
        ge=SEGMENT_BYTES_MIN,
        le=SEGMENT_BYTES_MAX,
        description="A file of the log is closed before it grows beyond this.",
    )
    segment_s: int = Field(
        default=int(eventlog.SEGMENT_S), ge=1, le=SEGMENT_S_MAX, description="A file is closed after this many seconds."
    )
    fsync: Literal["always", "interval", "never"] = Field(
        default="interval",
        description="What survives a crash of the machine: every record written, all but the last interval, or what "
        "the system had written by itself. A crash of the process alone loses nothing written.",
    )
    fsync_interval_ms: int = Field(
        default=int(eventlog.FSYNC_INTERVAL_S * 1000),
        ge=1,
        le=FSYNC_INTERVAL_MS_MAX,
        description="For `fsync: interval`.",
    )
    queue_records: int = Field(
        default=outbox.RECORDS_MAX,
        ge=1,
        le=QUEUE_RECORDS_MAX,
        description="Records that wait for the disk; more are dropped and counted, auctions never wait.",
    )
    queue_bytes: int = Field(
        default=outbox.BYTES_MAX, ge=1, le=QUEUE_BYTES_MAX, description="The same, in bytes of memory."
    )
    keep_bytes: int | None = Field(
        default=None,
        ge=1,
        le=KEEP_BYTES_MAX,
        description="Delete the oldest files beyond this many bytes, at least twice `segment_bytes`; none: keep all.",
        examples=[10 * 1024**3],
    )

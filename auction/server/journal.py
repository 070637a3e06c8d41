# Where a process writes its auctions down.

from __future__ import annotations

import logging

import msgspec

from auction.config.process import Log
from auction.edge.eventlog import EventLog, LogInUse
from auction.edge.outbox import Outbox
from auction.model.clock import SystemClock
from auction.server.ports import Unstartable

_log = logging.getLogger("auction.server")


def open_log(log: Log, directory: str, clock: SystemClock) -> tuple[EventLog, Outbox]:
    """Open the log and what waits for it, and tell what was recovered; raise Unstartable where that is impossible."""
    try:
        eventlog = EventLog(
            directory,
            monotonic=clock.monotonic,
            wall_us=clock.wall_us,
            fsync=log.fsync,
            fsync_interval_s=log.fsync_interval_ms / 1000,
            segment_bytes=log.segment_bytes,
            segment_s=log.segment_s,
            keep_bytes=log.keep_bytes,
        )
    except (LogInUse, OSError) as refusal:
        raise Unstartable(f"log.dir: {refusal}") from refusal
    for fault in eventlog.recovered:
        _log.warning("log recovered: %s", fault.text, extra={"fields": msgspec.to_builtins(fault)})
    outbox = Outbox(eventlog, monotonic=clock.monotonic, records_max=log.queue_records, bytes_max=log.queue_bytes)
    return eventlog, outbox

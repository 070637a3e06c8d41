# What happens after the response: never in its way, never lost without being counted.

import errno
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from auction.edge.eventlog import (
    AUCTION,
    RULES,
    DiskFile,
    EventLog,
    Fault,
    SegmentFile,
    create_segment,
    last_written,
    read,
)
from auction.edge.outbox import Outbox

RULES_NOW = b"rules"
# How long a test waits for a thread before it fails; none ever waits that long when all is well.
PATIENCE_S = 20.0


class Disk:
    """A disk that can hang, and can refuse; the files are real."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.refusals = 0
        self.refused = threading.Semaphore(0)
        self.moving = threading.Event()
        self.moving.set()
        self.entered = threading.Semaphore(0)
        self.writes: list[int] = []
        self.wrote = threading.Semaphore(0)
        self.synced = threading.Event()

    def open(self, path: str) -> SegmentFile:
        return DiskUnderTest(self, path)


class DiskUnderTest:
    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.file = create_segment(path)

    def write(self, data: memoryview) -> int:
        self.disk.entered.release()
        assert self.disk.moving.wait(PATIENCE_S)
        if self.disk.error is not None:
            # Half of it is in the file before the disk refuses, as disks do.
            if len(data) > 1 and self.disk.refusals % 2 == 0:
                self.disk.refusals += 1
                return self.file.write(data[: len(data) // 2])
            self.disk.refusals += 1
            self.disk.refused.release()
            raise OSError(self.disk.error, os.strerror(self.disk.error))
        count = self.file.write(data)
        self.disk.writes.append(count)
        self.disk.wrote.release()
        return count

    def truncate(self, size: int) -> None:
        self.file.truncate(size)

    def sync(self) -> None:
        self.file.sync()
        self.disk.synced.set()

    def close(self) -> None:
        self.file.close()


def open_outbox(
    directory: Path, disk: Disk | None = None, *, fsync_interval_s: float = 1.0, **settings: float
) -> Outbox:
    log = EventLog(
        directory,
        monotonic=time.monotonic,
        wall_us=lambda: 1_700_000_000_000_000,
        fsync_interval_s=fsync_interval_s,
        open_segment=(disk or Disk()).open,
    )
    return Outbox(log, monotonic=time.monotonic, gather_s=0.0, retry_first_s=0.001, **settings)  # type: ignore[arg-type]


def unexpected(fault: Fault) -> None:
    raise AssertionError(fault)


def put_all(box: Outbox, payloads: Iterable[bytes]) -> list[bytes]:
    """Put records; return those that were accepted."""
    return [payload for payload in payloads if box.put(AUCTION, payload, RULES_NOW)]


def drained(box: Outbox) -> bool:
    return box.drain(time.monotonic() + PATIENCE_S)


def recorded(directory: Path) -> list[bytes]:
    return [frame.payload for frame in read([directory], unexpected) if frame.kind == AUCTION]


def dropped(box: Outbox) -> dict[str, int]:
    counts = {name: getattr(box.dropped, name) for name in box.dropped.__struct_fields__}
    return {name: count for name, count in counts.items() if count}


def test_everything_accepted_is_in_the_log_in_order(tmp_path: Path) -> None:
    box = open_outbox(tmp_path)
    accepted = put_all(box, (b"%d" % number for number in range(3000)))

    assert drained(box)

    assert 3000 == len(accepted)
    assert accepted == recorded(tmp_path)
    assert (3000, 0, 0, {}) == (box.written, box.depth, box.depth_bytes, dropped(box))
    assert 3001 == last_written(tmp_path)


def test_hung_disk_blocks_nobody_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk, records_max=10)
    disk.moving.clear()
    accepted = put_all(box, [b"first"])
    assert disk.entered.acquire(timeout=PATIENCE_S)

    accepted += put_all(box, (b"%d" % number for number in range(100)))

    assert 10 == len(accepted)
    assert (10, {"full": 91}, 0) == (box.depth, dropped(box), box.written)
    disk.moving.set()
    assert drained(box)
    assert accepted == recorded(tmp_path)
    assert {"full": 91} == dropped(box)


def test_queue_is_bounded_in_bytes_as_well(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk, bytes_max=1000)
    disk.moving.clear()

    assert box.put(AUCTION, bytes(600), RULES_NOW)
    assert not box.put(AUCTION, bytes(401), RULES_NOW)
    assert box.put(AUCTION, bytes(400), RULES_NOW)
    assert not box.put(AUCTION, b"1", RULES_NOW)

    assert (2, 1000, {"full": 2}) == (box.depth, box.depth_bytes, dropped(box))
    disk.moving.set()
    assert drained(box)
    assert [bytes(600), bytes(400)] == recorded(tmp_path)


def test_records_queued_while_the_disk_is_busy_go_in_one_write(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk)
    disk.moving.clear()
    put_all(box, [b"first"])
    assert disk.entered.acquire(timeout=PATIENCE_S)
    put_all(box, (b"%d" % number for number in range(500)))
    disk.moving.set()

    assert drained(box)

    assert 2 == len(disk.writes)
    assert 501 == len(recorded(tmp_path))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_disk_that_recovers_gets_everything_that_waited_once(
    tmp_path: Path, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk, records_max=50)
    accepted = put_all(box, [b"before"])
    assert disk.wrote.acquire(timeout=PATIENCE_S)
    disk.error = error
    accepted += put_all(box, [b"during"])
    for _ in range(3):
        assert disk.refused.acquire(timeout=PATIENCE_S)
    assert box.failing
    accepted += put_all(box, (b"%d" % number for number in range(100)))
    assert {"disk": 100 - (len(accepted) - 2)} == dropped(box)

    disk.error = None
    assert drained(box)

    assert accepted == recorded(tmp_path)
    assert not box.failing
    assert box.disk_errors >= 3
    assert 2 == len(caplog.records), "one line when it begins, one when it ends"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_device_is_counted_and_the_log_is_whole_once_there_is_space(tmp_path: Path) -> None:
    full = threading.Event()
    refused = threading.Semaphore(0)

    class Device(DiskFile):
        """/dev/full until there is space, then the file."""

        def __init__(self, path: str) -> None:
            super().__init__(os.open("/dev/full", os.O_WRONLY))
            self.path = path
            full.set()

        def write(self, data: memoryview) -> int:
            if full.is_set():
                refused.release()
                return super().write(data)
            os.close(self._descriptor)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT)
            return super().write(data)

    log = EventLog(tmp_path, monotonic=time.monotonic, wall_us=lambda: 1, open_segment=Device)
    box = Outbox(log, monotonic=time.monotonic, gather_s=0.0, retry_first_s=0.001)
    accepted = put_all(box, [b"one", b"two"])
    for _ in range(4):
        assert refused.acquire(timeout=PATIENCE_S)
    full.clear()

    assert drained(box)

    assert accepted == recorded(tmp_path)
    assert box.disk_errors >= 3
    assert {} == dropped(box)


def test_record_longer_than_a_frame_is_dropped(tmp_path: Path) -> None:
    box = open_outbox(tmp_path)
    oversized = bytes(EventLog.payload_bytes_max + 1)

    assert not box.put(AUCTION, oversized, RULES_NOW)
    assert not box.put(AUCTION, b"", oversized)
    assert box.put(AUCTION, b"after", RULES_NOW)
    assert drained(box)

    assert [b"after"] == recorded(tmp_path)
    assert {"oversized": 2} == dropped(box)


def test_rules_stay_with_the_record_they_were_put_with(tmp_path: Path) -> None:
    box = open_outbox(tmp_path)
    for number in range(20):
        box.put(AUCTION, b"%d" % number, b"new" if number % 3 else b"old")
    assert drained(box)

    frames = list(read([tmp_path], unexpected))

    assert [b"new" if number % 3 else b"old" for number in range(20)] == [f.rules for f in frames if f.kind == AUCTION]
    assert [b"old", b"new"] == [frame.payload for frame in frames if frame.kind == RULES]


def test_interval_fsync_comes_without_another_record(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk, fsync_interval_s=0.001)
    put_all(box, [b"one"])
    assert disk.synced.wait(PATIENCE_S)
    assert drained(box)


def test_drain_closes_the_log_and_refuses_what_comes_after(tmp_path: Path) -> None:
    box = open_outbox(tmp_path)
    put_all(box, [b"one"])
    assert drained(box)

    assert not box.put(AUCTION, b"late", RULES_NOW)

    assert {"closed": 1} == dropped(box)
    assert drained(open_outbox(tmp_path)), "another writer may have the directory"
    assert drained(box), "draining again changes nothing"
    assert [b"one"] == recorded(tmp_path)


def test_drain_gives_up_a_refusing_disk_at_its_deadline(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk)
    put_all(box, [b"one"])
    assert disk.wrote.acquire(timeout=PATIENCE_S)
    disk.error = errno.ENOSPC
    put_all(box, [b"two", b"three"])
    assert disk.refused.acquire(timeout=PATIENCE_S)

    assert not box.drain(time.monotonic() + 0.02)

    assert {"given_up": 2} == dropped(box)
    assert 0 == box.depth
    assert [b"one"] == recorded(tmp_path)


def test_drain_does_not_wait_for_a_hung_disk(tmp_path: Path) -> None:
    disk = Disk()
    box = open_outbox(tmp_path, disk)
    disk.moving.clear()
    put_all(box, [b"one"])
    assert disk.entered.acquire(timeout=PATIENCE_S)

    assert not box.drain(time.monotonic())

    assert 1 == box.depth
    disk.moving.set()
    assert drained(box)
    assert [b"one"] == recorded(tmp_path)

# Everything that happens after the response.
#
# It exists because a disk may be slow, full or hung, and an auction must not notice. The event loop puts records into a
# bounded queue, which never blocks and never raises; one thread takes what has gathered and appends it to the log in
# one batch. What does not fit is dropped and counted by reason, because a bound that is not counted is a silent loss.
#
# It refuses to drop what it has accepted while there is hope: a batch that the disk refuses is tried again, with longer
# and longer pauses, until the disk takes it or the outbox is drained. Meanwhile the queue fills; then new records are
# dropped.
#
# Records are bytes when they come. Encoding them in the thread was tried: one thread at a time runs Python, and the
# interpreter lets a busy one keep it for 5 ms (sys.getswitchinterval), so either the event loop woke up late by 6 ms at
# p99, or the thread paused after each record and fell 2 000 records behind under load (single runs, on cores that had
# other work). Encoding costs the loop some 15 us after the answer is on its way; the thread then waits for the disk,
# which needs no interpreter.

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

# 8192 records: about two seconds at the 4 000 auctions a second that one process may reach.
RECORDS_MAX = 8192
# 64 MiB: the same records at 8 KB; the memory that a dead disk can cost.
BYTES_MAX = 64 * 1024 * 1024
# 1 MiB in one write and one fsync: larger batches gain nothing.
BATCH_BYTES_MAX = 1024 * 1024
BATCH_RECORDS_MAX = 1024
# 5 ms: at 1 000 auctions a second one wake of the thread serves five records. kill -9 loses these beside what
# the disk has not caught up with.
GATHER_S = 0.005
# The first and the longest pause before a refused batch is tried again: quick enough for a hiccup, slow enough that a
# full disk costs nothing, and back within two seconds once there is space.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
# What the thread may need beyond drain's deadline to count what it gave up and to close the log.
LAST_STEP_S = 0.1

# (kind, payload, rules), as the log takes them.
Entry = tuple[int, bytes, bytes]

_log = logging.getLogger("auction.outbox")


class Log(Protocol):
    """Where the outbox writes: an eventlog.EventLog, whose docstrings say what these promise."""

    @property
    def payload_bytes_max(self) -> int: ...
    def append(self, entries: Sequence[Entry]) -> int: ...
    def tick(self) -> float | None: ...
    def close(self) -> None: ...


class Dropped(msgspec.Struct):
    """Records that will never be in the log, by reason."""

    full: int = 0  # The queue was full: more was put than the disk takes.
    disk: int = 0  # The queue was full while the disk refused to write.
    oversized: int = 0  # The payload or its rules are longer than a frame may be.
    closed: int = 0  # Put after drain had begun.
    given_up: int = 0  # Queued, and drain's deadline came first.


class Outbox:
    """Take records from one event loop and write them to a log from one thread of its own.

    The outbox owns the log from here on and closes it when it is drained. The counters may be read from any thread:

        depth, depth_bytes  records and bytes accepted and not yet written or dropped
        written             records in the log
        dropped             records lost, by reason
        disk_errors         times that the disk refused to write, to fsync or to close
        failing             whether the disk refused the last attempt to write
    """

    def __init__(
        self,
        log: Log,
        *,
        monotonic: Callable[[], float],
        records_max: int = RECORDS_MAX,
        bytes_max: int = BYTES_MAX,
        gather_s: float = GATHER_S,
        retry_first_s: float = RETRY_FIRST_S,
    ) -> None:
        self.written = 0
        self.dropped = Dropped()
        self.disk_errors = 0
        self.failing = False
        self._log = log
        self._monotonic = monotonic
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._gather_s = gather_s
        self._retry_first_s = retry_first_s
        # None says that nothing more will come.
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        # Each has one thread that writes it, so none needs a lock: `in` the event loop's, `out` ours.
        self._records_in = self._records_out = 0
        self._bytes_in = self._bytes_out = 0
        self._dropping = threading.Lock()
        self._draining = threading.Event()
        self._deadline = 0.0
        # Taken and never released: waiting for it is a pause.
        self._pause = threading.Lock()
        self._pause.acquire()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, kind: int, payload: bytes, rules: bytes) -> bool:
        """Accept a record to be written, or count it as dropped and return False; never waits, never raises.

        `rules` is the payload of the rules frame that it was decided under. Call it from one thread only.
        """
        size = len(payload)
        if self._draining.is_set():
            return self._drop("closed")
        if size > self._log.payload_bytes_max or len(rules) > self._log.payload_bytes_max:
            return self._drop("oversized")
        records = self._records_in - self._records_out
        if records >= self._records_max or self._bytes_in - self._bytes_out + size > self._bytes_max:
            return self._drop("disk" if self.failing else "full")
        self._records_in += 1
        self._bytes_in += size
        self._queue.put((kind, payload, rules))
        return True

    def drain(self, deadline: float) -> bool:
        """Refuse new records, write those that are queued, close the log; return whether all of it was done in time.

        `deadline` is an instant of the outbox's monotonic clock. Blocks the calling thread until then (and LAST_STEP_S)
        at most, so an event loop calls it in another. What could not be written is counted in `dropped`; while the disk
        hangs inside a call it stays in `depth`, and the thread ends with the process.
        """
        self._deadline = deadline
        self._draining.set()
        self._queue.put(None)
        self._thread.join(max(0.0, deadline - self._monotonic()) + LAST_STEP_S)
        return not self._thread.is_alive() and self.dropped.given_up == 0

    @property
    def depth(self) -> int:
        return self._records_in - self._records_out

    @property
    def depth_bytes(self) -> int:
        return self._bytes_in - self._bytes_out

    def _run(self) -> None:
        due_s: float | None = None
        more = True
        while more:
            try:
                item = self._queue.get(timeout=due_s)
            except queue.Empty:
                due_s = self._tick()
                continue
            self._draining.wait(self._gather_s)
            more = self._take_batch(item)
            due_s = self._tick()
        try:
            self._log.close()
        except OSError as error:
            self._refused(error)

    def _take_batch(self, item: Entry | None) -> bool:
        """Write what is queued, from `item` on, as far as it fits a batch; return whether more can come."""
        entries: list[Entry] = []
        size = 0
        while item is not None:
            entries.append(item)
            size += len(item[1])
            if size >= BATCH_BYTES_MAX or len(entries) >= BATCH_RECORDS_MAX:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        if entries:
            self._append(entries)
        self._records_out += len(entries)
        self._bytes_out += size
        return item is not None

    def _append(self, entries: list[Entry]) -> None:
        """Write a batch, however often that takes, unless the drain's deadline comes first."""
        pause_s = self._retry_first_s
        while True:
            left_s = self._deadline - self._monotonic() if self._draining.is_set() else None
            if left_s is not None and left_s <= 0:
                self._drop("given_up", len(entries))
                return
            try:
                self._log.append(entries)
            except OSError as error:
                self._refused(error)
            else:
                break
            if left_s is not None:
                self._pause.acquire(timeout=min(self._retry_first_s, left_s))
            elif not self._draining.wait(pause_s):
                pause_s = min(pause_s * 2, RETRY_MAX_S)
        if self.failing:
            self.failing = False
            _log.warning("the log is written again; lost meanwhile for want of room: %d records", self.dropped.disk)
        self.written += len(entries)

    def _tick(self) -> float | None:
        try:
            return self._log.tick()
        except OSError as error:
            self._refused(error)
            return None

    def _refused(self, error: OSError) -> None:
        self.disk_errors += 1
        if not self.failing:
            self.failing = True
            _log.error("the disk refuses the log, records wait or are dropped: %s", error)

    def _drop(self, reason: str, records: int = 1) -> bool:
        with self._dropping:
            setattr(self.dropped, reason, getattr(self.dropped, reason) + records)
        return False

# The event log: opaque payloads framed into append-only segments, and read back.
#
# It exists because an auction can be run again only if what it was given has survived the process. It refuses to look
# into payloads, to append to a file that another process started, and to guess what damaged bytes meant. Why not a
# database, SQLite or a broker: docs/decisions/event-log.md.
#
# THE FORMAT, version 1. All integers are unsigned and little-endian.
#
# A log is a directory with one writer. It holds segments, `last` and `lock`; other files are not ours.
#
#   TTTTTTTTTTTTTTTT-SSSSSSSSSSSSSSSSSSSS.seg   a segment, T the time of its opening in microseconds since 1970 (UTC),
#                                               S the sequence number of its first frame, both decimal and padded
#                                               with zeros: sorted by name, segments stand in the order of writing
#   last    text, 51 bytes: "LLLLLLLLLLLLLLLLLLLL GGGGGGGGGGGGGGGGGGGG CCCCCCCC\n". L is the sequence number of the last
#           record that is in the segments, G the highest ever given out (both decimal), C the CRC32C of the first
#           41 bytes in hexadecimal. L is 0 while there is no record; G is above L when a crash of the machine lost
#           records, whose numbers are not given again
#   lock    flock(2)ed by the writer while it lives, with its process id as text for the curious
#
# A segment is a header of 20 bytes, then frames without gaps up to the end of the file:
#
#    0  8  magic     "AUCLOG\r\n"
#    8  4  version   1
#   12  4  mark      random bytes; every frame of this segment begins with them. They let a reader find the next frame
#                    after damage, and payloads cannot imitate what they cannot know
#   16  4  crc       CRC32C of the 16 bytes before
#
# A frame is a header of 40 bytes, then its payload:
#
#    0  4  mark      as in the segment's header
#    4  4  crc       CRC32C (Castagnoli) of all that follows in the frame, bytes 8 to 40 + length
#    8  4  length    of the payload, at most 16 777 216
#   12  4  kind      1 a RulesRecord, 2 an AuctionRecord, 3 a RefusalRecord; a reader passes over others
#   16  8  sequence  one more than the frame before it, across segments and restarts; the first frame of a log has 1
#   24  8  time      microseconds since 1970 at the time of writing. It never decreases within a log (a clock set back
#                    repeats the last value), so it orders frames of several logs; the payload has the true times
#   32  8  rules     the sequence number of the rules frame (kind 1) that this frame was decided under: its own for a
#                    rules frame, otherwise one of the 8 rules frames nearest before it in the same segment
#   40     payload
#
# The first frame of a segment is a rules frame, so each segment can be replayed alone. Where bytes are no valid frame:
# if a frame with this mark, a right CRC and a higher sequence number begins anywhere later, the bytes between are
# corrupt; otherwise the file ends in a torn tail, which is what a killed writer leaves, and the log ends before it.
#
# WHAT IS PROMISED. A record counts as written once `last` covers it; `last` is updated after the write, never before.
# Killing the process (kill -9, an abort, out of memory) loses nothing that `last` covers, under any policy, because the
# kernel has it. When the machine crashes or loses power:
#
#   fsync     every record that `last` covered, while the disk reports no error,
#   always    is on the disk: fsync comes before the update of `last`
#   interval  is on the disk if it is older than the interval (1 s by default), or if its segment was closed
#   never     is on the disk when the kernel has got to it, as a rule within half a minute
#
# After such a crash `last` itself may be ahead of the segments; the next writer corrects it and leaves the hole in the
# numbers as evidence.

import contextlib
import enum
import errno
import fcntl
import heapq
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Literal, Protocol

import google_crc32c
import msgspec

RULES = 1
AUCTION = 2

# 16 MiB: the largest request allowed by default (256 KiB) and a hundred replies of 64 KiB come to 6.7 MB.
PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
# 64 MiB: 8 000 auctions of 8 KB, read through in well under a second when a writer opens the log again.
SEGMENT_BYTES = 64 * 1024 * 1024
# An hour: what ships closed segments elsewhere is at most that far behind on a quiet day.
SEGMENT_S = 3600.0
# One second of auctions is what an interval may lose when the machine dies; fsync once a second is no load.
FSYNC_INTERVAL_S = 1.0
# Rules change rarely, and auctions in flight at a change still name the rules before. Eight bounds a reader's memory.
RULES_KEPT = 8

StrPath = str | os.PathLike[str]
Fsync = Literal["always", "interval", "never"]
# (kind, payload, rules): `rules` is the payload of the rules frame that the record was decided under.
Entry = tuple[int, bytes, bytes]


class LogInUse(Exception):
    """Another writer, in this process or another, has this directory."""


class SegmentFile(Protocol):
    """What the log asks of a file; each call may raise OSError, and `write` may take only a part."""

    def write(self, data: memoryview) -> int: ...
    def truncate(self, size: int) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class EventLog:
    """Append frames to the segments of one directory; one thread, one writer per directory.

    Opening cuts a torn tail off, never touches damage that has frames behind it (both are listed in `recovered`), and
    goes on with the sequence numbers. It creates no segment: the first append does, so an idle writer leaves no file.

        segment_bytes   a segment is closed before records that would make it larger; a larger batch has its own
        segment_s       seconds after which a segment is closed, at the next append or tick
        keep_bytes      before another segment, delete the oldest so that all stay within this; None keeps all

    Raises LogInUse, OSError, and ValueError for limits that contradict each other.
    """

    payload_bytes_max = PAYLOAD_BYTES_MAX

    def __init__(
        self,
        directory: StrPath,
        *,
        monotonic: Callable[[], float],
        wall_us: Callable[[], int],
        fsync: Fsync = "interval",
        fsync_interval_s: float = FSYNC_INTERVAL_S,
        segment_bytes: int = SEGMENT_BYTES,
        segment_s: float = SEGMENT_S,
        keep_bytes: int | None = None,
        open_segment: Callable[[str], SegmentFile] | None = None,
    ) -> None:
        if keep_bytes is not None and keep_bytes < 2 * segment_bytes:
            raise ValueError(f"keep_bytes: expected at least two segments of {segment_bytes}, was {keep_bytes}")
        self.directory = os.path.abspath(directory)
        self.bytes_written = 0
        self._monotonic = monotonic
        self._wall_us = wall_us
        self._fsync = fsync
        self._fsync_interval_s = fsync_interval_s
        self._segment_bytes = segment_bytes
        self._segment_s = segment_s
        self._keep_bytes = keep_bytes
        self._open_segment = open_segment or create_segment
        # The open segment: its file, where its last whole batch ends, and whether bytes of a failed batch follow.
        self._file: SegmentFile | None = None
        self._path = ""
        self._mark = b""
        self._end = 0
        self._unfinished = False
        self._unsyncable = False
        self._named = False
        self._opened_s = 0.0
        self._unsynced_s: float | None = None
        self._rules: list[tuple[bytes, int]] = []

        os.makedirs(self.directory, exist_ok=True)
        self._lock = _lock(self.directory)
        try:
            self.recovered, self._last, self._given, self._time_us = self._recover()
            self._closed = deque((path, os.path.getsize(path)) for path in _segments_in(self.directory))
            self._last_file = os.open(self._beside("last"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._publish()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def last(self) -> int:
        """The sequence number of the last record written, as `last` publishes it; 0 for none."""
        return self._last

    def append(self, entries: Sequence[Entry]) -> int:
        """Write all entries as one batch, or none; return the sequence number of the last one.

        A rules frame is put before the first entry whose rules the segment does not have yet.
        Raises OSError; the log is then as before, and the same batch may be appended again. If the failed batch cannot
        even be cut off, every further append tries that first and raises: what cannot be repaired is not continued.
        """
        assert entries
        self._drop_unfinished()
        now_s = self._monotonic()
        if self._file is not None and self._end > 0:
            size = sum(_FRAME.size + len(payload) for _, payload, _ in entries)
            if self._end + size > self._segment_bytes or now_s - self._opened_s >= self._segment_s:
                self._close_segment()
        time_us = max(self._wall_us(), self._time_us)
        if self._file is None:
            self._open(time_us, now_s)
        assert self._file is not None

        parts: list[bytes] = []
        if self._end == 0:
            parts.append(_segment_header(self._mark))
        known = self._rules.copy()
        sequence = self._given
        for kind, payload, rules in entries:
            assert kind != RULES
            of_rules = next((number for content, number in known if content is rules or content == rules), 0)
            if not of_rules:
                sequence += 1
                of_rules = sequence
                parts += _frame(self._mark, RULES, sequence, time_us, sequence, rules)
                known = [*known[-(RULES_KEPT - 1) :], (rules, sequence)]
            sequence += 1
            parts += _frame(self._mark, kind, sequence, time_us, of_rules, payload)
        batch = b"".join(parts)

        self._write(batch)
        self._end += len(batch)
        self.bytes_written += len(batch)
        self._rules = known
        self._time_us = time_us
        self._last = self._given = sequence
        if self._unsynced_s is None and self._fsync == "interval":
            self._unsynced_s = now_s
        self._publish()
        return sequence

    def tick(self) -> float | None:
        """Do what time demands, fsync and closing an old segment; return in how many seconds to call again.

        None when nothing will be due before the next append. Raises OSError when the disk refuses: the segment is
        given up and the next append opens another, because after a failed fsync the kernel may call lost pages clean.
        """
        if self._file is None or self._end == 0 or self._unfinished:
            return None
        now_s = self._monotonic()
        due_s = self._opened_s + self._segment_s
        if now_s >= due_s:
            self._close_segment()
            return None
        if self._unsynced_s is not None:
            if now_s >= self._unsynced_s + self._fsync_interval_s:
                try:
                    self._sync()
                except OSError:
                    self._forget_segment()
                    raise
            else:
                due_s = min(due_s, self._unsynced_s + self._fsync_interval_s)
        return due_s - now_s

    def close(self) -> None:
        """Bring everything to the disk that the policy promises, and let the directory go; raises OSError."""
        try:
            with contextlib.suppress(OSError):  # The next writer finds the rest as a torn tail.
                self._drop_unfinished()
            if self._file is not None and self._end > 0 and not self._unfinished:
                self._close_segment()
            elif self._file is not None:
                self._forget_segment()
        finally:
            os.close(self._last_file)
            os.close(self._lock)

    def _write(self, batch: bytes) -> None:
        assert self._file is not None
        view = memoryview(batch)
        done = 0
        syncing = False
        try:
            while done < len(batch):
                count = self._file.write(view[done:])
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += count
            if self._fsync == "always":
                syncing = True
                self._sync()
        except OSError:
            self._unfinished = done > 0
            self._unsyncable = syncing
            with contextlib.suppress(OSError):  # The caller gets the first error; append starts with trying again.
                self._drop_unfinished()
            raise

    def _drop_unfinished(self) -> None:
        """Cut off what a failed batch left; raises OSError."""
        if self._unfinished:
            assert self._file is not None
            self._file.truncate(self._end)
            self._unfinished = False
            if self._unsyncable:
                self._forget_segment()

    def _open(self, time_us: int, now_s: float) -> None:
        self._prune()
        self._path = self._beside(f"{time_us:016d}-{self._given + 1:020d}.seg")
        self._file = self._open_segment(self._path)
        self._mark = os.urandom(4)
        self._end = 0
        self._named = False
        self._opened_s = now_s
        self._unsynced_s = None
        self._rules = []
        self._time_us = time_us

    def _close_segment(self) -> None:
        try:
            if self._unsynced_s is not None:
                self._sync()
        finally:
            self._forget_segment()

    def _forget_segment(self) -> None:
        file, self._file = self._file, None
        self._unsynced_s = None
        self._unsyncable = False
        if self._end > 0:
            self._closed.append((self._path, self._end))
        elif not self._unfinished:
            with contextlib.suppress(OSError):  # An empty file harms nobody.
                os.unlink(self._path)
        assert file is not None
        file.close()

    def _sync(self) -> None:
        assert self._file is not None
        self._file.sync()
        if not self._named:
            # The first time for this segment: its name in the directory must survive too.
            directory = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._named = True
        self._unsynced_s = None

    def _prune(self) -> None:
        """Make room for another segment within keep_bytes."""
        if self._keep_bytes is not None:
            total = sum(size for _, size in self._closed)
            while self._closed and total > self._keep_bytes - self._segment_bytes:
                path, size = self._closed[0]
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass
                except OSError:
                    return  # Tried again with the next segment; refusing to write would lose more.
                self._closed.popleft()
                total -= size

    def _publish(self) -> None:
        text = b"%020d %020d" % (self._last, self._given)
        # If this fails, `last` is behind until the next batch: it claims too little, never too much.
        with contextlib.suppress(OSError):
            os.pwrite(self._last_file, b"%b %08x\n" % (text, google_crc32c.value(text)), 0)

    def _recover(self) -> "tuple[tuple[Fault, ...], int, int, int]":
        """Repair the newest segment; return what was wrong, last, given, and the time before which no frame may be."""
        last, given = _read_last(self._beside("last")) or (0, 0)
        faults: list[Fault] = []
        time_us = 0
        paths = _segments_in(self.directory)
        if paths:
            last = 0
        for path in reversed(paths):
            found: list[Fault] = []
            newest = deque(_frames(path, found.append), maxlen=1)
            frame = newest[0] if newest else None
            faults += found
            torn = found[-1] if found and found[-1].kind is FaultKind.TORN else None
            if frame is None and found in ([], [torn]):
                os.unlink(path)  # Killed before its first frame was whole: there is nothing in it.
                continue
            if frame is not None and torn is not None:
                os.truncate(path, torn.offset)
            name_time, name_sequence = os.path.basename(path).removesuffix(".seg").split("-")
            time_us = max(time_us, int(name_time))
            given = max(given, int(name_sequence))
            if frame is not None:
                last = frame.sequence
                time_us = max(time_us, frame.time_us)
                break
            # Damaged from its header on, and not ours to repair: an older one says where the log had come to.
        return tuple(faults), last, max(last, given), time_us

    def _beside(self, name: str) -> str:
        return os.path.join(self.directory, name)


class FaultKind(enum.Enum):
    TORN = "torn"  # The segment ends inside a frame, as a killed writer leaves it; nothing follows.
    CORRUPT = "corrupt"  # Bytes that are no frame, with frames after them, or a damaged segment header.
    FOREIGN = "foreign"  # No segment, or one of a later format.
    MISSING = "missing"  # Sequence numbers between two segments of a directory that no file has.


class Fault(msgspec.Struct, frozen=True):
    """Something in a log that could not be read: `length` bytes of the file from `offset` were passed over."""

    kind: FaultKind
    path: str
    offset: int
    length: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}: offset {self.offset}: {self.kind.value}: {self.text} ({self.length} bytes)"


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it stands in a segment; `rules` is None when the rules frame it names was damaged."""

    kind: int
    sequence: int
    time_us: int
    payload: bytes
    rules: bytes | None
    path: str
    offset: int


def read(paths: Iterable[StrPath], fault: Callable[[Fault], None]) -> Iterator[Frame]:
    """Yield the frames of any mix of segments and directories, in the order of time across all writers.

    Frames of one log keep the order in which they were written. What cannot be read is told to `fault`, and reading
    goes on behind it; nothing is modified. Memory and open files are bounded by the number of logs, not of segments.
    A segment still being written is read as far as it is whole, its unfinished end being a torn tail.
    Raises OSError, FileNotFoundError for a path that is not there.
    """
    starts: list[tuple[int, int, str]] = []
    for path in segments(paths):
        first = next(_frames(path, _ignore), None)
        if first is not None:
            starts.append((first.time_us, first.sequence, path))
        else:
            deque(_frames(path, fault), maxlen=0)
    starts.sort(reverse=True)

    ends: dict[str, int] = {}
    # The path makes an entry unique, so frames themselves are never compared.
    merge: list[tuple[int, int, str, Frame, Iterator[Frame]]] = []
    while starts or merge:
        if starts and (not merge or starts[-1] < merge[0][:3]):
            path = starts.pop()[2]
            frames = _frames(path, fault)
            first = next(frames, None)
            if first is not None:
                end = ends.get(os.path.dirname(path), first.sequence - 1)
                if first.sequence > end + 1:
                    fault(Fault(FaultKind.MISSING, path, 0, 0, f"frames {end + 1} to {first.sequence - 1} are missing"))
                heapq.heappush(merge, (first.time_us, first.sequence, path, first, frames))
            continue
        _, _, path, frame, frames = merge[0]
        yield frame
        following = next(frames, None)
        if following is not None:
            heapq.heapreplace(merge, (following.time_us, following.sequence, path, following, frames))
        else:
            heapq.heappop(merge)
            ends[os.path.dirname(path)] = frame.sequence


def segments(paths: Iterable[StrPath]) -> list[str]:
    """Name the segments in any mix of files and directories, each once; directories are searched all the way down.

    A file is taken under any name, in a directory only what is named as a segment. Raises FileNotFoundError.
    """
    found: dict[str, None] = {}
    for path in paths:
        real = os.path.realpath(path, strict=True)
        if os.path.isdir(real):
            for directory, _, _ in sorted(os.walk(real)):
                found |= dict.fromkeys(_segments_in(directory))
        else:
            found[real] = None
    return list(found)


def last_written(directory: StrPath) -> int:
    """Read the sequence number that a log's writer published last; 0 for none. Any process may ask at any time."""
    return (_read_last(os.path.join(directory, "last")) or (0, 0))[0]


def create_segment(path: str) -> SegmentFile:
    """Create a segment on the disk; raises OSError, FileExistsError if there is one."""
    return DiskFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644))


class DiskFile:
    """A SegmentFile on a file descriptor, which it owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: memoryview) -> int:
        return os.write(self._descriptor, data)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


MAGIC = b"AUCLOG\r\n"
VERSION = 1
_SEGMENT = struct.Struct("<8sI4sI")
_FRAME = struct.Struct("<4sIIIQQQ")
# All of a frame's header that its CRC covers: what stands behind the mark and the CRC itself.
_COVERED = struct.Struct("<IIQQQ")
_CRC = struct.Struct("<I")
_SEGMENT_NAME = re.compile(r"\d{16}-\d{20}\.seg")
# 256 KiB: one read fetches some thirty frames of 8 KB.
_READ_BYTES = 256 * 1024
# `last` is replaced by one small write; a reader that meets it half-way meets it whole the next time.
_LAST_READS = 3


def _segment_header(mark: bytes) -> bytes:
    covered = _SEGMENT.pack(MAGIC, VERSION, mark, 0)[:-4]
    return covered + _CRC.pack(google_crc32c.value(covered))


def _frame(mark: bytes, kind: int, sequence: int, time_us: int, of_rules: int, payload: bytes) -> tuple[bytes, ...]:
    assert len(payload) <= PAYLOAD_BYTES_MAX
    covered = _COVERED.pack(len(payload), kind, sequence, time_us, of_rules)
    return mark, _CRC.pack(google_crc32c.extend(google_crc32c.value(covered), payload)), covered, payload


def _frames(path: str, fault: Callable[[Fault], None]) -> Iterator[Frame]:
    """Yield the frames of one segment in the order of the file."""
    try:
        file = open(path, "rb", buffering=_READ_BYTES)  # noqa: SIM115 (closed by the `with` below)
    except FileNotFoundError:
        fault(Fault(FaultKind.MISSING, path, 0, 0, "deleted while the log was read"))
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_SEGMENT.size)
        if not MAGIC.startswith(header[: len(MAGIC)]):
            fault(Fault(FaultKind.FOREIGN, path, 0, size, "not a segment of an event log"))
            return
        if len(header) < _SEGMENT.size:
            fault(Fault(FaultKind.TORN, path, 0, size, "ends inside the segment's header"))
            return
        _, version, mark, crc = _SEGMENT.unpack(header)
        if google_crc32c.value(header[:-4]) != crc:
            fault(Fault(FaultKind.CORRUPT, path, 0, _SEGMENT.size, "the segment's header has a wrong checksum"))
            mark = file.read(len(mark))  # As the first frame has it; the frame's own checksum then decides.
        elif version != VERSION:
            fault(Fault(FaultKind.FOREIGN, path, 0, size, f"format version {version}; this software reads {VERSION}"))
            return

        rules: dict[int, bytes] = {}
        offset = _SEGMENT.size
        before = 0  # The sequence number of the frame before, 0 when there is none to go by.
        while offset < size:
            found = _frame_at(file, offset, size, mark)
            if isinstance(found, str) or (before and found[1] != before + 1):
                text = found if isinstance(found, str) else f"frame {found[1]} follows {before}"
                behind = _find_frame(file, offset, size, mark, before)
                if behind is None:
                    fault(Fault(FaultKind.TORN, path, offset, size - offset, text))
                    return
                fault(Fault(FaultKind.CORRUPT, path, offset, behind - offset, text))
                offset = behind
                before = 0
                continue
            kind, sequence, time_us, of_rules, payload = found
            if kind == RULES:
                rules[sequence] = payload
                if len(rules) > RULES_KEPT:
                    del rules[next(iter(rules))]
            yield Frame(kind, sequence, time_us, payload, rules.get(of_rules), path, offset)
            offset += _FRAME.size + len(payload)
            before = sequence


def _frame_at(file: BinaryIO, offset: int, size: int, mark: bytes) -> tuple[int, int, int, int, bytes] | str:
    """Read kind, sequence, time, rules and payload of the frame at an offset, or say why there is none.

    Never reads beyond `size` nor allocates more than PAYLOAD_BYTES_MAX, whatever the bytes claim.
    """
    file.seek(offset)
    header = file.read(_FRAME.size)
    if len(header) < _FRAME.size:
        return f"{len(header)} bytes are no frame header"
    found_mark, crc, length, kind, sequence, time_us, of_rules = _FRAME.unpack(header)
    if found_mark != mark:
        return "no frame begins here"
    if length > PAYLOAD_BYTES_MAX:
        return f"a payload of {length} bytes is over the limit of {PAYLOAD_BYTES_MAX}"
    if offset + _FRAME.size + length > size:
        return f"a payload of {length} bytes ends behind the end of the file"
    payload = file.read(length)
    if google_crc32c.extend(google_crc32c.value(header[8:]), payload) != crc:
        return "wrong checksum"
    return kind, sequence, time_us, of_rules, payload


def _find_frame(file: BinaryIO, offset: int, size: int, mark: bytes, before: int) -> int | None:
    """Find the first valid frame at or behind an offset whose sequence number is above `before`."""
    while offset + _FRAME.size <= size:
        file.seek(offset)
        window = file.read(_READ_BYTES)
        if len(window) < _FRAME.size:
            return None  # Its writer has cut the file off since we looked.
        at = window.find(mark)
        while at >= 0:
            found = _frame_at(file, offset + at, size, mark)
            if not isinstance(found, str) and found[1] > before:
                return offset + at
            at = window.find(mark, at + 1)
        # A mark may lie across the border of two windows.
        offset += max(1, len(window) - len(mark) + 1)
    return None


def _ignore(fault: Fault) -> None:
    pass


def _segments_in(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if _SEGMENT_NAME.fullmatch(name)]


def _read_last(path: str) -> tuple[int, int] | None:
    for _ in range(_LAST_READS):
        try:
            with open(path, "rb") as file:
                text = file.read(51)
        except FileNotFoundError:
            return None
        if len(text) == 51 and text[41:] == b" %08x\n" % google_crc32c.value(text[:41]):
            return int(text[:20]), int(text[21:41])
    return None


def _lock(directory: str) -> int:
    """Take the lock of a directory, to be kept until the descriptor is closed or the process ends, however it ends."""
    path = os.path.join(directory, "lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise LogInUse(
            f"{directory}: process {owner} writes this log; give each process a directory of its own"
        ) from None
    with contextlib.suppress(OSError):  # The number is a courtesy, and a full disk no reason not to start.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor

# What the event log promises, held against real files, a real full device and real kills.

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from auction.edge.eventlog import (
    AUCTION,
    PAYLOAD_BYTES_MAX,
    RULES,
    RULES_KEPT,
    DiskFile,
    EventLog,
    Fault,
    FaultKind,
    Frame,
    LogInUse,
    SegmentFile,
    create_segment,
    last_written,
    read,
    segments,
)

SEGMENT_HEADER = 20
FRAME_HEADER = 40
OLD_RULES = b"rules: increment 0.01"
NEW_RULES = b"rules: increment 0.02"


class Clock:
    """Stands still until told otherwise."""

    def __init__(self, wall_us: int = 1_700_000_000_000_000) -> None:
        self.now_s = 100.0
        self.now_us = wall_us

    def monotonic(self) -> float:
        return self.now_s

    def wall_us(self) -> int:
        return self.now_us


def open_log(directory: Path, clock: Clock | None = None, **settings: object) -> EventLog:
    clock = clock or Clock()
    return EventLog(directory, monotonic=clock.monotonic, wall_us=clock.wall_us, **settings)  # type: ignore[arg-type]


def write(directory: Path, *payloads: bytes, clock: Clock | None = None, **settings: object) -> EventLog:
    """Append each payload as a batch of its own, under the old rules, and leave the log open."""
    log = open_log(directory, clock, **settings)
    for payload in payloads:
        log.append([(AUCTION, payload, OLD_RULES)])
    return log


def auctions(*paths: Path) -> tuple[list[Frame], list[Fault]]:
    faults: list[Fault] = []
    frames = [frame for frame in read(paths, faults.append) if frame.kind == AUCTION]
    return frames, faults


def payloads(*paths: Path) -> list[bytes]:
    frames, faults = auctions(*paths)
    assert not faults
    return [frame.payload for frame in frames]


def unexpected(fault: Fault) -> None:
    raise AssertionError(fault)


def segment_of(directory: Path) -> Path:
    (path,) = segments([directory])
    return Path(path)


def test_frames_come_back_as_written(tmp_path: Path) -> None:
    clock = Clock(wall_us=1_700_000_000_000_000)
    log = open_log(tmp_path, clock)
    log.append([(AUCTION, b"first", OLD_RULES), (7, b"", OLD_RULES)])
    clock.now_us += 5
    assert log.append([(AUCTION, b"third", OLD_RULES)]) == 4
    log.close()

    faults: list[Fault] = []
    frames = list(read([tmp_path], faults.append))

    assert not faults
    assert [RULES, AUCTION, 7, AUCTION] == [frame.kind for frame in frames]
    assert [1, 2, 3, 4] == [frame.sequence for frame in frames]
    assert [OLD_RULES, b"first", b"", b"third"] == [frame.payload for frame in frames]
    assert [0, 0, 0, 5] == [frame.time_us - 1_700_000_000_000_000 for frame in frames]
    assert {OLD_RULES} == {frame.rules for frame in frames}
    assert SEGMENT_HEADER == frames[0].offset
    assert SEGMENT_HEADER + FRAME_HEADER + len(OLD_RULES) == frames[1].offset


def independent_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def independent_frames(path: Path) -> Iterator[tuple[int, int, int, bytes, bytes]]:
    """Read a segment by nothing but the comment that opens eventlog.py."""
    data = path.read_bytes()
    magic, version, mark, crc = struct.unpack_from("<8sI4sI", data, 0)
    assert magic == b"AUCLOG\r\n"
    assert version == 1
    assert crc == independent_crc32c(data[:16])
    rules = {}
    offset = 20
    while offset < len(data):
        found, crc, length, kind, sequence, time_us, of_rules = struct.unpack_from("<4sIIIQQQ", data, offset)
        assert found == mark
        assert length <= 16_777_216
        end = offset + 40 + length
        assert crc == independent_crc32c(data[offset + 8 : end])
        payload = data[offset + 40 : end]
        if kind == 1:
            rules[sequence] = payload
        yield kind, sequence, time_us, payload, rules[of_rules]
        offset = end


def test_a_reader_written_from_the_format_comment_alone_agrees(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([(AUCTION, bytes(range(256)), OLD_RULES), (AUCTION, b"", NEW_RULES), (AUCTION, b"x", OLD_RULES)])
    log.close()

    ours = [(f.kind, f.sequence, f.time_us, f.payload, f.rules) for f in read([tmp_path], unexpected)]

    assert list(independent_frames(segment_of(tmp_path))) == ours
    assert segment_of(tmp_path).name == "1700000000000000-00000000000000000001.seg"
    text = (tmp_path / "last").read_bytes()
    assert text == b"%020d %020d %08x\n" % (5, 5, independent_crc32c(text[:41]))


# A segment cut at any byte: what a killed writer or a lost page leaves. Every whole frame before the cut is read by a
# reader that changes nothing, and the next writer cuts the rest off, goes on, and leaves a log without faults.
def test_segment_cut_at_every_byte_keeps_every_whole_frame(tmp_path: Path) -> None:
    written = tmp_path / "written"
    log = write(written, b"one", b"two", b"three")
    log.close()
    whole = segment_of(written).read_bytes()
    frames = list(read([written], unexpected))
    ends = [frame.offset + FRAME_HEADER + len(frame.payload) for frame in frames]

    for cut in range(len(whole)):
        kept = [frame.payload for frame, end in zip(frames, ends, strict=True) if end <= cut and frame.kind == AUCTION]
        directory = tmp_path / str(cut)
        directory.mkdir()
        path = directory / segment_of(written).name
        path.write_bytes(whole[:cut])

        found, faults = auctions(directory)
        assert kept == [frame.payload for frame in found]
        assert ([] if cut in (SEGMENT_HEADER, *ends) else [FaultKind.TORN]) == [fault.kind for fault in faults]
        assert whole[:cut] == path.read_bytes()

        write(directory, b"after").close()
        assert [*kept, b"after"] == payloads(directory)
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 5000, b"\xff" * 39, random.Random(1).randbytes(300_000), b"AUCLOG\r\n" * 20],
    ids=["zeros", "ones", "random", "magic"],
)
def test_garbage_tail_is_cut_off(tmp_path: Path, garbage: bytes) -> None:
    write(tmp_path, b"one", b"two").close()
    path = segment_of(tmp_path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + garbage)

    log = open_log(tmp_path)
    log.close()

    assert size == path.stat().st_size
    assert [(FaultKind.TORN, str(path), size, len(garbage))] == [
        (fault.kind, fault.path, fault.offset, fault.length) for fault in log.recovered
    ]
    assert [b"one", b"two"] == payloads(tmp_path)


def test_tail_that_repeats_an_older_frame_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path, b"one", b"two").close()
    path = segment_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[SEGMENT_HEADER:])

    open_log(tmp_path).close()

    assert whole == path.read_bytes()


def test_flipped_bit_in_the_middle_is_told_from_a_torn_tail(tmp_path: Path) -> None:
    write(tmp_path, b"one", b"two", b"three").close()
    path = segment_of(tmp_path)
    whole = path.read_bytes()
    middle = auctions(tmp_path)[0][1]
    length = FRAME_HEADER + len(middle.payload)

    for at in range(middle.offset, middle.offset + length):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)

        found, faults = auctions(tmp_path)
        assert [b"one", b"three"] == [frame.payload for frame in found]
        assert [(FaultKind.CORRUPT, str(path), middle.offset, length)] == [
            (fault.kind, fault.path, fault.offset, fault.length) for fault in faults
        ]

    log = write(tmp_path, b"after")
    log.close()
    assert [FaultKind.CORRUPT] == [fault.kind for fault in log.recovered]
    assert bytes(damaged) == path.read_bytes()
    assert [b"one", b"three", b"after"] == [frame.payload for frame in auctions(tmp_path)[0]]


@pytest.mark.parametrize("length", [262_000, *range(262_140, 262_150), 600_000])
def test_frames_behind_long_damage_are_found(tmp_path: Path, length: int) -> None:
    write(tmp_path, b"one", bytes(length), b"three").close()
    path = segment_of(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[auctions(tmp_path)[0][1].offset + FRAME_HEADER + 5] = 1
    path.write_bytes(damaged)

    found, faults = auctions(tmp_path)

    assert [b"one", b"three"] == [frame.payload for frame in found]
    assert [(FaultKind.CORRUPT, FRAME_HEADER + length)] == [(fault.kind, fault.length) for fault in faults]


def test_frames_after_a_damaged_rules_frame_have_no_rules_rather_than_wrong_ones(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([(AUCTION, b"one", OLD_RULES), (AUCTION, b"two", NEW_RULES), (AUCTION, b"three", OLD_RULES)])
    log.close()
    path = segment_of(tmp_path)
    damaged = path.read_bytes().replace(NEW_RULES, NEW_RULES.upper())
    path.write_bytes(damaged)

    found, faults = auctions(tmp_path)

    assert [FaultKind.CORRUPT] == [fault.kind for fault in faults]
    assert [(b"one", OLD_RULES), (b"two", None), (b"three", OLD_RULES)] == [(f.payload, f.rules) for f in found]


def test_damaged_segment_header_is_reported_and_its_frames_are_read(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    path = segment_of(tmp_path)
    for at in range(8, SEGMENT_HEADER):
        damaged = bytearray(path.read_bytes())
        damaged[at] ^= 1
        path.write_bytes(damaged)

        found, faults = auctions(tmp_path)

        assert [b"one"] == [frame.payload for frame in found]
        assert [(FaultKind.CORRUPT, 0)] == [(fault.kind, fault.offset) for fault in faults]
        damaged[at] ^= 1
        path.write_bytes(damaged)


def test_what_is_no_segment_of_this_format_is_reported_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    later = tmp_path / "1700000000000001-00000000000000000009.seg"
    header = struct.pack("<8sI4s", b"AUCLOG\r\n", 2, b"mark")
    later.write_bytes(header + struct.pack("<I", independent_crc32c(header)) + b"a later format")
    foreign = tmp_path / "1700000000000002-00000000000000000010.seg"
    foreign.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    before = later.read_bytes(), foreign.read_bytes()

    log = write(tmp_path, b"two")
    log.close()

    found, faults = auctions(tmp_path)
    assert [b"one", b"two"] == [frame.payload for frame in found]
    assert {FaultKind.FOREIGN} == {fault.kind for fault in log.recovered}
    assert 2 == sum(fault.kind is FaultKind.FOREIGN for fault in faults)
    assert before == (later.read_bytes(), foreign.read_bytes())


@pytest.mark.parametrize("length", [0xFFFFFFFF, 2 * PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX])
def test_corrupt_length_does_not_allocate_what_it_claims(tmp_path: Path, length: int) -> None:
    write(tmp_path, b"one", b"two").close()
    path = segment_of(tmp_path)
    damaged = bytearray(path.read_bytes())
    struct.pack_into("<I", damaged, auctions(tmp_path)[0][0].offset + 8, length)
    path.write_bytes(damaged)

    tracemalloc.start()
    found, faults = auctions(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [b"two"] == [frame.payload for frame in found]
    assert [FaultKind.CORRUPT] == [fault.kind for fault in faults]
    assert peak < 4 * 1024 * 1024


def test_corrupt_length_in_a_long_file_does_not_allocate_more_than_a_frame_may_have(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    path = segment_of(tmp_path)
    one = auctions(tmp_path)[0][0]
    with path.open("r+b") as file:
        file.seek(one.offset + 8)
        file.write(struct.pack("<I", 2 * PAYLOAD_BYTES_MAX))
        file.truncate(3 * PAYLOAD_BYTES_MAX)

    tracemalloc.start()
    found, faults = auctions(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not found
    assert [(FaultKind.TORN, one.offset)] == [(fault.kind, fault.offset) for fault in faults]
    assert peak < 4 * 1024 * 1024


def test_segments_rotate_by_size_and_each_opens_with_the_rules(tmp_path: Path) -> None:
    log = write(tmp_path, *[b"%d" % n * 100 for n in range(10)], segment_bytes=500)
    log.close()

    paths = segments([tmp_path])

    assert len(paths) == 5
    assert paths == sorted(paths)
    for path in paths:
        assert os.path.getsize(path) <= 500
        frames = list(read([path], unexpected))
        assert RULES == frames[0].kind
        assert {OLD_RULES} == {frame.rules for frame in frames}
    assert [b"%d" % n * 100 for n in range(10)] == payloads(tmp_path)


def test_a_batch_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    log = write(tmp_path, b"small", b"large" * 200, b"small", segment_bytes=500)
    log.close()

    assert 3 == len(segments([tmp_path]))
    assert [b"small", b"large" * 200, b"small"] == payloads(tmp_path)


def test_segments_rotate_by_age(tmp_path: Path) -> None:
    clock = Clock()
    log = write(tmp_path, b"one", clock=clock, segment_s=60.0, fsync="never")
    assert 60.0 == log.tick()
    clock.now_s += 59.0
    log.append([(AUCTION, b"two", OLD_RULES)])
    assert 1.0 == log.tick()
    clock.now_s += 1.0
    log.append([(AUCTION, b"three", OLD_RULES)])
    clock.now_s += 60.0
    assert log.tick() is None
    log.append([(AUCTION, b"four", OLD_RULES)])
    log.close()

    by_segment = [payloads(Path(path)) for path in segments([tmp_path])]

    assert [[b"one", b"two"], [b"three"], [b"four"]] == by_segment


def test_log_without_records_has_no_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    assert log.tick() is None
    log.close()
    assert [] == segments([tmp_path])
    assert 0 == last_written(tmp_path)


def test_rules_are_repeated_on_change_and_not_for_auctions_still_in_flight(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([(AUCTION, b"1", OLD_RULES), (AUCTION, b"2", NEW_RULES), (AUCTION, b"3", OLD_RULES)])
    log.append([(AUCTION, b"4", bytes(bytearray(OLD_RULES)))])
    log.append([(AUCTION, b"5", NEW_RULES)])
    log.close()

    frames = list(read([tmp_path], unexpected))

    assert [RULES, AUCTION, RULES, AUCTION, AUCTION, AUCTION, AUCTION] == [frame.kind for frame in frames]
    assert [OLD_RULES, NEW_RULES, OLD_RULES, OLD_RULES, NEW_RULES] == [f.rules for f in frames if f.kind == AUCTION]


def test_rules_older_than_a_reader_keeps_are_written_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    rules = [b"rules %d" % number for number in range(RULES_KEPT + 1)]
    log.append([(AUCTION, b"", one) for one in rules])
    log.append([(AUCTION, b"", rules[1]), (AUCTION, b"", rules[0]), (AUCTION, b"", rules[2])])
    log.close()

    frames = list(read([tmp_path], unexpected))

    assert [*rules, rules[1], rules[0], rules[2]] == [frame.rules for frame in frames if frame.kind == AUCTION]
    assert [*rules, rules[0]] == [f.payload for f in frames if f.kind == RULES][: RULES_KEPT + 2]


def test_two_writers_cannot_share_a_directory(tmp_path: Path) -> None:
    log = write(tmp_path, b"one")

    with pytest.raises(LogInUse, match=f"process {os.getpid()} writes this log"):
        open_log(tmp_path)

    log.close()
    write(tmp_path, b"two").close()
    assert [b"one", b"two"] == payloads(tmp_path)


def test_writer_restarted_continues_the_sequence_in_a_new_segment(tmp_path: Path) -> None:
    for payload in (b"one", b"two", b"three"):
        write(tmp_path, payload).close()

    found, faults = auctions(tmp_path)

    assert not faults
    assert [2, 4, 6] == [frame.sequence for frame in found]
    assert 6 == last_written(tmp_path)
    assert 3 == len(segments([tmp_path]))


def test_sequence_goes_on_when_the_segments_were_taken_away(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    segment_of(tmp_path).unlink()
    open_log(tmp_path).close()
    assert 2 == last_written(tmp_path)

    write(tmp_path, b"two").close()

    assert [4] == [frame.sequence for frame in auctions(tmp_path)[0]]


# A machine that crashed may have lost records that `last` covered. They are not claimed any longer, and their numbers
# are not given to other records: the hole is the evidence.
def test_published_records_lost_with_the_machine_leave_a_hole(tmp_path: Path) -> None:
    write(tmp_path, b"one", b"two", b"three").close()
    path = segment_of(tmp_path)
    lost = auctions(tmp_path)[0][1]
    os.truncate(path, lost.offset + 3)

    open_log(tmp_path).close()
    assert 2 == last_written(tmp_path)
    write(tmp_path, b"four").close()

    found, faults = auctions(tmp_path)
    assert [(2, b"one"), (6, b"four")] == [(frame.sequence, frame.payload) for frame in found]
    assert [(FaultKind.MISSING, "frames 3 to 4 are missing")] == [(fault.kind, fault.text) for fault in faults]
    assert 6 == last_written(tmp_path)


def test_first_segment_lost_with_the_machine_is_claimed_no_longer(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    os.truncate(segment_of(tmp_path), 10)

    open_log(tmp_path).close()
    assert 0 == last_written(tmp_path)
    write(tmp_path, b"two").close()

    assert [(4, b"two")] == [(frame.sequence, frame.payload) for frame in auctions(tmp_path)[0]]


def test_numbers_of_an_unreadable_segment_are_not_given_again_even_without_the_last_file(tmp_path: Path) -> None:
    write(tmp_path, b"one", b"two", b"three", b"four", segment_bytes=150).close()
    newest = Path(segments([tmp_path])[-1])
    newest.write_bytes(bytes(newest.stat().st_size))
    (tmp_path / "last").unlink()

    write(tmp_path, b"after").close()

    assert int(newest.stem.split("-")[1]) < auctions(tmp_path)[0][-1].sequence - 1


def test_unreadable_last_file_is_made_anew(tmp_path: Path) -> None:
    write(tmp_path, b"one").close()
    (tmp_path / "last").write_bytes(b"\x00" * 51)
    assert 0 == last_written(tmp_path)

    open_log(tmp_path).close()

    assert 2 == last_written(tmp_path)
    assert 0 == last_written(tmp_path / "no such log")


def test_logs_of_several_writers_are_read_in_time_order(tmp_path: Path) -> None:
    clock = Clock()
    logs = {name: open_log(tmp_path / name, clock, segment_bytes=300) for name in ("a", "b", "c")}
    expected = []
    for number, name in enumerate("abcabbacccabacbbbacabcaabbcc"):
        clock.now_us += 1
        payload = b"%d %b" % (number, name.encode())
        logs[name].append([(AUCTION, payload, OLD_RULES)])
        expected.append(payload)
    for log in logs.values():
        log.close()

    assert expected == payloads(tmp_path)
    assert expected == payloads(tmp_path / "c", *map(Path, segments([tmp_path / "b"])), tmp_path / "a", tmp_path / "b")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(segments([tmp_path / "a", tmp_path / "b", tmp_path / "c"])):
        shutil.copy(path, flat / f"copy{number}")
    assert expected == [frame.payload for frame in auctions(*flat.iterdir())[0]]


def test_clock_set_back_does_not_reorder_a_log(tmp_path: Path) -> None:
    clock = Clock()
    log = open_log(tmp_path, clock, segment_bytes=250)
    for number in range(8):
        log.append([(AUCTION, b"%d" % number, OLD_RULES)])
        clock.now_us -= 1_000_000
    log.close()
    write(tmp_path, b"8", clock=clock).close()

    assert [b"%d" % number for number in range(9)] == payloads(tmp_path)
    assert segments([tmp_path]) == sorted(segments([tmp_path]))


def test_reading_many_segments_keeps_few_files_open(tmp_path: Path) -> None:
    write(tmp_path, *[b"x" * 100] * 50, segment_bytes=300).close()
    assert 50 == len(segments([tmp_path]))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    most = 0
    for _ in read([tmp_path], unexpected):
        most = max(most, len(os.listdir("/proc/self/fd")) if before else 0)

    assert most <= before + 2


def test_segment_deleted_while_the_log_is_read_is_reported(tmp_path: Path) -> None:
    write(tmp_path, b"one", b"two", b"three", segment_bytes=150).close()
    faults: list[Fault] = []
    reader = read([tmp_path], faults.append)
    next(reader)
    os.unlink(segments([tmp_path])[1])

    rest = [frame.payload for frame in reader if frame.kind == AUCTION]

    assert [b"one", b"three"] == rest
    assert {FaultKind.MISSING} == {fault.kind for fault in faults}


def test_path_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read([tmp_path / "nothing"], unexpected))


def test_retention_deletes_the_oldest_segments_and_stays_within_its_bound(tmp_path: Path) -> None:
    log = open_log(tmp_path, segment_bytes=1000, keep_bytes=3000)
    for number in range(100):
        log.append([(AUCTION, b"%03d" % number * 50, OLD_RULES)])
        assert sum(map(os.path.getsize, segments([tmp_path]))) <= 3000
    log.close()

    kept = payloads(tmp_path)

    assert len(kept) >= 8
    assert [b"%03d" % number * 50 for number in range(100)][-len(kept) :] == kept
    with pytest.raises(ValueError, match="keep_bytes"):
        open_log(tmp_path, segment_bytes=1000, keep_bytes=1999)


class Disk:
    """A disk that refuses on demand: the files are real, the errors are made here."""

    def __init__(self) -> None:
        self.room = 1 << 60
        self.broken: set[str] = set()
        self.calls: list[str] = []
        # What `last` said at each fsync: the claim must not come before the deed.
        self.claims: list[int] = []

    def open(self, path: str) -> SegmentFile:
        return DiskUnderTest(self, path)

    def check(self, call: str) -> None:
        self.calls.append(call)
        if call in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class DiskUnderTest:
    def __init__(self, disk: Disk, path: str) -> None:
        disk.check("open")
        self.disk = disk
        self.directory = os.path.dirname(path)
        self.file = create_segment(path)

    def write(self, data: memoryview) -> int:
        self.disk.check("write")
        if not self.disk.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = self.file.write(data[: self.disk.room])
        self.disk.room -= count
        return count

    def truncate(self, size: int) -> None:
        self.disk.check("truncate")
        self.file.truncate(size)

    def sync(self) -> None:
        self.disk.check("sync")
        self.disk.claims.append(last_written(self.directory))
        self.file.sync()

    def close(self) -> None:
        self.file.close()


def test_write_cut_short_by_a_full_disk_leaves_nothing_and_succeeds_later(tmp_path: Path) -> None:
    for room in range(0, 200, 7):
        directory = tmp_path / str(room)
        disk = Disk()
        log = write(directory, b"one", open_segment=disk.open)
        size = segment_of(directory).stat().st_size
        batch = [(AUCTION, b"two" * 20, OLD_RULES), (AUCTION, b"three", NEW_RULES)]

        disk.room = room
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                log.append(batch)
            assert size == segment_of(directory).stat().st_size
            assert 2 == last_written(directory)
            disk.room = room
        disk.room = 1 << 60
        log.append(batch)
        log.close()

        found, faults = auctions(directory)
        assert not faults
        assert [(2, b"one"), (3, b"two" * 20), (5, b"three")] == [(f.sequence, f.payload) for f in found]


def test_first_write_of_a_segment_refused_leaves_no_file_behind(tmp_path: Path) -> None:
    disk = Disk()
    disk.room = 30
    log = open_log(tmp_path, open_segment=disk.open)
    with pytest.raises(OSError, match="No space"):
        log.append([(AUCTION, b"one", OLD_RULES)])
    log.close()

    assert [] == segments([tmp_path])


# The batch that failed may have whole frames in it. As long as they cannot be cut off, nothing may be written behind
# them: the caller will send the batch again, and it would be there twice.
def test_nothing_is_appended_behind_what_could_not_be_cut_off(tmp_path: Path) -> None:
    disk = Disk()
    log = write(tmp_path, b"one", open_segment=disk.open)
    disk.room, disk.broken = 100, {"truncate"}
    batch = [(AUCTION, b"two", OLD_RULES), (AUCTION, b"three" * 20, OLD_RULES)]
    for _ in range(3):
        with pytest.raises(OSError, match=r"No space|Input/output"):
            log.append(batch)
        disk.room = 1 << 60
    assert log.tick() is None

    disk.broken = set()
    log.append(batch)
    log.close()

    assert [b"one", b"two", b"three" * 20] == payloads(tmp_path)


def test_batch_whose_fsync_failed_is_not_claimed_and_is_written_once(tmp_path: Path) -> None:
    disk = Disk()
    log = write(tmp_path, b"one", open_segment=disk.open, fsync="always")
    disk.broken = {"sync"}
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output"):
            log.append([(AUCTION, b"two", OLD_RULES)])
        assert 2 == last_written(tmp_path)

    disk.broken = set()
    log.append([(AUCTION, b"two", OLD_RULES)])
    log.close()

    assert [b"one", b"two"] == payloads(tmp_path)
    assert 2 == len(segments([tmp_path]))


def test_segment_whose_interval_fsync_failed_is_given_up(tmp_path: Path) -> None:
    disk, clock = Disk(), Clock()
    log = write(tmp_path, b"one", clock=clock, open_segment=disk.open, fsync_interval_s=1.0)
    clock.now_s += 1.0
    disk.broken = {"sync"}
    with pytest.raises(OSError, match="Input/output"):
        log.tick()
    assert log.tick() is None
    disk.broken = set()
    log.append([(AUCTION, b"two", OLD_RULES)])
    log.close()

    assert [b"one", b"two"] == payloads(tmp_path)
    assert 2 == len(segments([tmp_path]))


def test_fsync_always_comes_before_the_claim(tmp_path: Path) -> None:
    disk = Disk()
    write(tmp_path, b"one", b"two", open_segment=disk.open, fsync="always").close()
    assert [0, 2] == disk.claims


def test_fsync_interval_comes_once_an_interval_and_at_the_end(tmp_path: Path) -> None:
    disk, clock = Disk(), Clock()
    log = write(tmp_path, b"one", b"two", clock=clock, open_segment=disk.open, fsync_interval_s=5.0)
    assert 5.0 == log.tick()
    clock.now_s += 4.0
    log.append([(AUCTION, b"three", OLD_RULES)])
    assert 1.0 == log.tick()
    assert [] == disk.claims
    clock.now_s += 1.0
    log.tick()
    assert [4] == disk.claims
    clock.now_s += 50.0
    log.tick()
    assert [4] == disk.claims
    log.append([(AUCTION, b"four", OLD_RULES)])
    log.close()
    assert [4, 5] == disk.claims


def test_fsync_never_is_never(tmp_path: Path) -> None:
    disk, clock = Disk(), Clock()
    log = write(tmp_path, b"one", clock=clock, open_segment=disk.open, fsync="never")
    clock.now_s += 1e9
    log.tick()
    log.append([(AUCTION, b"two", OLD_RULES)])
    log.close()
    assert "sync" not in disk.calls


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_device_refuses_a_batch_and_the_next_disk_takes_it(tmp_path: Path) -> None:
    opened: list[str] = []

    def open_segment(path: str) -> SegmentFile:
        opened.append(path)
        return DiskFile(os.open("/dev/full", os.O_WRONLY))

    log = open_log(tmp_path, open_segment=open_segment)
    for _ in range(3):
        with pytest.raises(OSError, match="No space") as refusal:
            log.append([(AUCTION, b"one", OLD_RULES)])
        assert errno.ENOSPC == refusal.value.errno
    log.close()

    assert 1 == len(opened)
    write(tmp_path, b"one").close()
    assert [b"one"] == payloads(tmp_path)


PROLOGUE = """
import os, resource, signal, sys, time
from auction.edge.eventlog import AUCTION, EventLog

def open_log(**settings):
    return EventLog(sys.argv[1], monotonic=time.monotonic, wall_us=lambda: time.time_ns() // 1000, **settings)
"""


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a process of its own, which is gone at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_writer_in_another_process_is_refused_and_named(tmp_path: Path) -> None:
    with child("log = open_log(); print('open', flush=True); sys.stdin.read()", str(tmp_path)) as process:
        assert process.stdout is not None
        assert b"open\n" == process.stdout.readline()
        with pytest.raises(LogInUse, match=f"process {process.pid} writes this log"):
            open_log(tmp_path)
    open_log(tmp_path).close()


# The kernel itself stops a write half-way here: a limit on the size of files is a full disk that any user can make.
LIMITED = """
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
log = open_log()
refused = 0
for number in range(50):
    entry = [(AUCTION, b"%d" % number * 1000, b"rules")]
    size = sum(os.path.getsize(os.path.join(sys.argv[1], name)) for name in os.listdir(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size - 200, 700), hard))
    try:
        log.append(entry)
    except OSError:
        refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.append(entry)
log.close()
print(refused)
"""


def test_write_that_the_kernel_stops_half_way_is_undone(tmp_path: Path) -> None:
    with child(LIMITED, str(tmp_path)) as process:
        output, _ = process.communicate(timeout=60)

    assert 50 == int(output)
    assert [b"%d" % number * 1000 for number in range(50)] == payloads(tmp_path)


# One process imports once and forks a writer for each round; the writer opens the log, appends in a loop as fast as it
# can, saying so after each batch, and is killed from here after some number of batches, wherever it then is.
KILLED = """
for line in sys.stdin:
    if not os.fork():
        log = open_log(segment_bytes=300_000, fsync=line.strip())
        number = 0
        while True:
            if number == 0:
                print(os.getpid(), flush=True)
            rules = line.encode()
            log.append([(AUCTION, b"%d " % n + bytes(n % 20 * 1000), rules) for n in range(number, number + 20)])
            number += 20
            print("written", log.last, flush=True)
    os.wait()
    print("dead", flush=True)
"""


def test_killed_twenty_times_the_log_opens_and_has_every_published_record(tmp_path: Path) -> None:
    chance = random.Random(20)
    claimed = 0
    with child(KILLED, str(tmp_path)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for kill in range(20):
            process.stdin.write((b"never\n", b"interval\n", b"always\n")[kill % 3])
            process.stdin.flush()
            victim = int(process.stdout.readline())
            for _ in range(chance.randrange(8)):
                claimed = int(process.stdout.readline().split()[1])
            os.kill(victim, signal.SIGKILL)
            line = process.stdout.readline()
            while line != b"dead\n":
                assert line, "the writer ended by itself"
                line = process.stdout.readline()

            published = last_written(tmp_path)
            assert published >= claimed
            sequences = [frame.sequence for frame in read([tmp_path], _expect_torn)]
            assert list(range(1, len(sequences) + 1)) == sequences
            assert len(sequences) >= published

    log = open_log(tmp_path)
    assert log.last >= claimed
    log.append([(AUCTION, b"0 after", OLD_RULES)])
    log.close()
    numbers = [int(payload.split()[0]) for payload in payloads(tmp_path)]
    assert len(numbers) > 20
    assert all(number == before + 1 or number == 0 for before, number in itertools.pairwise(numbers))


def _expect_torn(fault: Fault) -> None:
    assert FaultKind.TORN is fault.kind, fault

# The demo as its visitor meets it: a command that shows auctions, ends cleanly whatever happens, and leaves a log that
# can be read. Everything here is a real process; each run is found again by a mark in its environment.

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auction import replay
from auction.commands.scene import RATES
from auction.core.auction import open_auction
from auction.core.record import decode_result
from auction.edge import eventlog
from auction.model.money import MICROS
from bidders.bundled import bundled, told_in

ROOT = Path(__file__).parent.parent
MARK = "DEMO_TEST_MARK"
DEMO = [sys.executable, "-m", "auction", "demo"]


@contextmanager
def marked() -> Iterator[dict[str, str]]:
    """Give an environment that marks a run; afterwards no process of it may be left."""
    mark = uuid.uuid4().hex
    try:
        yield {**os.environ, MARK: mark, "COLUMNS": "100"}
    finally:
        left = processes(mark)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert [] == left


def processes(mark: str, words: str = "") -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            ours = f"{MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")
            if ours and words.encode() in (directory / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(directory.name))
    return found


def demo(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *words], env=environ, capture_output=True, text=True, timeout=120)


def verify(log: Path, at_least: int) -> int:
    """Read a log that nobody writes any more: whole, without faults, and every auction the same again."""
    faults: list[eventlog.Fault] = []
    frames = list(eventlog.read([log], faults.append))
    assert [] == faults
    assert eventlog.last_written(log) == frames[-1].sequence
    logged = list(replay.auctions(frames))
    assert len(logged) >= at_least
    assert [] == [difference for each in logged if (difference := replay.difference(each))]
    return len(logged)


def test_demo_shows_auctions_explains_one_and_replays_all(tmp_path: Path) -> None:
    with marked() as environ:
        ended = demo("--auctions", "80", "--rate", "80", "--dir", str(tmp_path), environ=environ)
    assert ("", 0) == (ended.stderr, ended.returncode)
    rows = re.findall(r"^(dsp-[a-f]) +(gRPC|JSON) +\S.* +(80) +\d+ +\d+", ended.stdout, re.MULTILINE)
    assert ["dsp-a", "dsp-b", "dsp-c", "dsp-d", "dsp-e", "dsp-f"] == [row[0] for row in rows]
    assert re.search(r"80 of 80 auctions +[1-9]\d\.\d% of \d+ impressions sold +\d+\.\d\d USD", ended.stdout)
    assert re.search(r"^Impression \S+: dsp-[a-f] wins at", ended.stdout, re.MULTILINE)
    assert "\n80 of 80 byte-identical\n" in ended.stdout
    assert 80 == verify(tmp_path / "log", 80)


def test_demo_in_yen_takes_bids_in_three_currencies_and_replays(tmp_path: Path) -> None:
    words = ["--currency", "JPY", "--auctions", "160", "--rate", "80", "--dir", str(tmp_path)]
    with marked() as environ:
        ended = demo(*words, environ=environ)
    assert ("", 0) == (ended.stderr, ended.returncode)
    assert re.search(r"160 of 160 auctions +[1-9]\d\.\d% of \d+ impressions sold +[1-9]\d* JPY\n", ended.stdout)
    assert "\n160 of 160 byte-identical\n" in ended.stdout
    assert 160 == verify(tmp_path / "log", 160)
    bids = []
    for logged in replay.auctions(eventlog.read([tmp_path / "log"], print)):
        assert logged.rules is not None
        assert ("JPY", 1_000_000) == (logged.rules.rules.exchange.currency, logged.rules.increment)
        request = open_auction(logged.recorded.arrival, logged.rules).request
        assert ("JPY", "USD", "EUR") == request.cur
        bids += decode_result(logged.recorded.result).outcomes
    assert {"USD", "EUR", "JPY"} == {bid.currency for bid in bids}
    # Between yen nothing is converted: whole floors stay whole, and a winner pays the clearing price.
    in_yen = [bid for bid in bids if bid.currency == "JPY" and bid.floor is not None]
    assert in_yen
    assert all((bid.floor or 0) % MICROS == 0 and bid.clearing_price == bid.pays for bid in in_yen)


def test_requests_told_in_yen_have_every_floor_in_whole_yen_and_mean_the_same() -> None:
    for plain in bundled():
        yen = told_in(plain, "JPY", RATES).message
        assert ["JPY", "USD", "EUR"] == list(yen.cur)
        for was, now in zip(plain.message.imp, yen.imp, strict=True):
            for old, new in zip((was, *was.pmp.deals), (now, *now.pmp.deals), strict=True):
                rate = {"USD": 1.0, **{code: float(rate) for code, rate in RATES.items()}}[old.bidfloorcur or "USD"]
                assert "JPY" == new.bidfloorcur
                assert abs(new.bidfloor - old.bidfloor / rate * 150) < 0.501  # half a yen, and what a double adds
                assert new.bidfloor.is_integer()
            assert all(row.bidfloor.is_integer() for row in (*now.video.durfloors, *now.audio.durfloors))
            assert now.video.mincpmpersec.is_integer()


def test_interrupted_demo_drains_and_leaves_a_log_that_replays(tmp_path: Path) -> None:
    words = ["--auctions", "100000", "--rate", "50", "--dir", str(tmp_path)]
    with (
        marked() as environ,
        subprocess.Popen([*DEMO, *words], env=environ, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        # A line of progress: auctions are under way.
        assert any("of 100000 auctions" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert 130 == process.wait(60)
    assert "Draining" in rest
    verify(tmp_path / "log", 20)


def test_demo_on_a_terminal_stays_up_and_says_how_to_call_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["--auctions", "20", "--rate", "40", "--dir", str(tmp_path)]
    with (
        marked() as environ,
        subprocess.Popen(
            [*DEMO, *words], env={**environ, "TERM": "xterm"}, stdin=theirs, stdout=theirs, start_new_session=True
        ) as process,
    ):
        os.close(theirs)
        shown = ""
        while "Ctrl-C drains" not in shown and process.poll() is None:
            shown += os.read(ours, 65536).decode(errors="replace")
        lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).strip() for line in shown.splitlines()]
        assert "20 of 20 byte-identical" in lines
        calls = [line for line in lines if re.search(r" call .*--explain$", line)]
        posts = [line for line in lines if line.startswith("curl") and "openrtb2" in line]
        called = subprocess.run(shlex.split(calls[0]), cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert 0 == called.returncode
        assert "auction " in called.stdout
        url = shlex.split(posts[0])[2]
        body = Path(shlex.split(posts[0])[-1].removeprefix("@")).read_bytes()
        assert b"HTTP/1.1 200" in posted(url, body)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(60)
        os.close(ours)
    assert 22 == verify(tmp_path / "log", 22)


def posted(url: str, body: bytes) -> bytes:
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    head = f"POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    with socket.create_connection((name, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return connection.recv(65536)


def test_taken_port_is_a_clear_message(tmp_path: Path) -> None:
    with marked() as environ, socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = demo("--auctions", "5", "--http-port", port, "--dir", str(tmp_path), environ=environ)
    assert 1 == ended.returncode
    assert port in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


def test_dying_process_is_named_and_ends_the_demo(tmp_path: Path) -> None:
    words = ["--auctions", "100000", "--rate", "50", "--dir", str(tmp_path)]
    with (
        marked() as environ,
        subprocess.Popen([*DEMO, *words], env=environ, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert any("of 100000 auctions" in line for line in process.stdout)
        (pid,) = processes(environ[MARK], "--name dsp-b")
        os.kill(pid, signal.SIGKILL)
        rest = process.stdout.read()
        assert 1 == process.wait(60)
    assert "dsp-b ended with exit code -9" in rest


def test_directory_with_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with marked() as environ:
        ended = demo("--dir", str(tmp_path), environ=environ)
    assert 2 == ended.returncode
    assert "log already" in ended.stderr

# What a server tells other processes of this machine: whoever looks finds all of it, at any moment.

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from auction.presence import Presence, Sign, running

SHORT = Presence(os.getpid(), "127.0.0.1:1", "http://127.0.0.1:2", None, "rules-1")
LONG = msgspec.structs.replace(SHORT, faults=("exchange.tmax_ms: expected a number, was 'soon'",) * 50)
LOOKS = 3000


def test_a_server_is_found_while_it_tells_something_new(tmp_path: Path) -> None:
    directory = tmp_path / "presence"
    sign = Sign(directory)
    sign.tell(SHORT)
    enough = threading.Event()

    def tell() -> None:
        while not enough.is_set():
            sign.tell(LONG)
            sign.tell(SHORT)

    telling = threading.Thread(target=tell)
    telling.start()
    try:
        found = [running(directory) for _ in range(LOOKS)]
    finally:
        enough.set()
        telling.join()
    assert [] == [missed for missed in found if missed not in ([SHORT], [LONG])]
    sign.close()
    assert [] == running(directory)


def test_what_a_dead_server_left_is_no_server(tmp_path: Path) -> None:
    directory = tmp_path / "presence"
    sign = Sign(directory)
    sign.tell(SHORT)
    left = directory / "4711.json"
    left.write_bytes(msgspec.json.encode(msgspec.structs.replace(SHORT, pid=4711)))
    assert [SHORT] == running(directory)
    sign.close()


def test_a_server_that_has_not_told_anything_yet_is_not_found(tmp_path: Path) -> None:
    directory = tmp_path / "presence"
    sign = Sign(directory)
    assert [] == running(directory)
    sign.close()

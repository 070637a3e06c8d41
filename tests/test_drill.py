# What `make drill` concludes from calls and logs: that each of its claims would notice.

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from pathlib import Path

import pytest

from benchmarks.drill.__main__ import main, settings_of
from benchmarks.drill.drills import Outcome, in_flight_at, missing, nothing_lost, shares
from benchmarks.drill.endpoints import answer
from benchmarks.drill.fleet import ID, Fleet, Pod
from benchmarks.drill.traffic import Call, Traffic, single


def call(number: int, fault: str = "", sent: float = 0.0, ended: float = 0.1) -> Call:
    return Call(f"drill-envoy-{number:08}", sent, ended, fault)


def pods(*names: str) -> list[Pod]:
    return [Pod(name, "127.0.0.1", Path()) for name in names]


def verdict(calls: list[Call], logged: dict[str, str], unheard: int = 0) -> bool:
    outcome, way = Outcome(), Traffic("envoy", [], 1.0)
    way.calls = calls
    way.sent = len(calls) + unheard
    nothing_lost(outcome, [way], logged)
    (claim,) = outcome.claims
    return claim.holds


def test_answered_and_logged_calls_are_not_lost() -> None:
    assert verdict([call(1), call(2)], {call(1).id: "a", call(2).id: "b"})


def test_a_failed_call_is_lost() -> None:
    assert not verdict([call(1), call(2, "UNAVAILABLE: ")], {call(1).id: "a", call(2).id: "b"})


def test_an_answer_that_is_in_no_log_is_lost() -> None:
    assert [call(2)] == missing([call(1), call(2), call(3, "CANCELLED: ")], {call(1).id: "a"})
    assert not verdict([call(1), call(2)], {call(1).id: "a"})


def test_a_call_that_never_ended_is_lost() -> None:
    assert not verdict([call(1)], {call(1).id: "a"}, unheard=1)


def test_traffic_counts_what_it_sends_and_hides_no_end_of_its_sending() -> None:
    async def traffic(targets: list[str]) -> Traffic:
        way = Traffic("envoy", [single(target) for target in targets], 1000.0)
        way.start()
        for _ in range(5):  # turns of the event loop, until the first call is out
            await asyncio.sleep(0)
        await way.close()
        return way

    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        way = asyncio.run(traffic([f"127.0.0.1:{nobody.getsockname()[1]}"]))
    assert 1 <= way.sent == len(way.calls) == len(way.faults)
    with pytest.raises(ZeroDivisionError):  # of no channel to send on
        asyncio.run(traffic([]))


def test_a_server_that_ends_by_itself_is_a_loss(tmp_path: Path) -> None:
    async def losses() -> list[str]:
        fleet = Fleet(tmp_path, "127.0.0", {}, 1.0)
        (pod,) = fleet.pods = pods("server-1")
        pod.process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
        await pod.process.wait()
        await fleet.stop(pod)
        await fleet.stop_all()
        return fleet.losses

    assert ["server-1 ended by itself with 3"] == asyncio.run(losses())


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rate", "0"], ["--rate", "nan"]])
def test_a_drill_without_rounds_or_calls_is_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["drill", *words])
    with pytest.raises(SystemExit, match="2"):
        main()


def test_no_calls_prove_nothing() -> None:
    assert not verdict([], {})


def test_shares_are_of_what_was_answered_and_what_is_in_no_log_is_nobodys() -> None:
    calls = [call(1), call(2), call(3), call(4), call(5, "UNAVAILABLE: ")]
    logged = {calls[0].id: "a", calls[1].id: "a", calls[2].id: "b", calls[4].id: "b"}
    assert {"a": 50.0, "b": 25.0} == shares(calls, logged, pods("a", "b"))


@pytest.mark.parametrize(
    ("sent", "ended", "caught"), [(1.0, 2.1, True), (1.0, 2.0, True), (2.1, 2.2, False), (1.0, 1.2, False)]
)
def test_a_call_was_in_flight_if_it_was_sent_before_and_ended_no_sooner(
    sent: float, ended: float, caught: bool
) -> None:
    assert caught == in_flight_at(call(1, "UNAVAILABLE: ", sent, ended), [2.0])


def test_ids_of_calls_are_found_in_what_servers_log() -> None:
    found = ID.search(b"\x0a\x14" + call(7).id.encode() + b"\x12\x01")
    assert found is not None
    assert call(7).id.encode() == found[0]


def test_the_name_server_tells_every_address_to_who_asks_for_them() -> None:
    name = b"\x07auction\x05drill\x00"
    asked = b"\x12\x34" + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + name
    told = answer(asked + struct.pack(">HH", 1, 1), ["127.0.0.1", "127.0.0.2"])
    assert (b"\x12\x34", 2) == (told[:2], struct.unpack_from(">H", told, 6)[0])
    assert told.endswith(socket.inet_aton("127.0.0.2"))
    none = answer(asked + struct.pack(">HH", 28, 1), ["127.0.0.1"])  # there are none of IPv6
    assert 0 == struct.unpack_from(">H", none, 6)[0]


def test_settings_of_the_command_line_are_yaml_under_their_section() -> None:
    words = ["server.notice_ms=0", "server.connection_age_s=null", "log.fsync=never"]
    assert {"server": {"notice_ms": 0, "connection_age_s": None}, "log": {"fsync": "never"}} == settings_of(words)
    with pytest.raises(ValueError, match=r"SECTION\.NAME=VALUE"):
        settings_of(["notice_ms"])

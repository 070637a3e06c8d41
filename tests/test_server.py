# An exchange as a process: what its callers, its operator and its orchestrator see. Real sockets, real signals, a
# bidder that holds its answer until the test lets it go, so that "while an auction is in flight" is a fact, no guess.

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from processes import (
    METHOD,
    Bidder,
    ExchangeProcess,
    a_request,
    bidder,
    bids,
    bids_nothing,
    command,
    configure,
    exchange,
    message_of,
    packed,
    rates_server,
    read_response,
)

from auction import replay
from auction.config import load
from auction.core.record import RULES, decode_rules
from auction.edge import eventlog
from auction.model.fx import Fx
from auction.model.rules import rules_from_canonical

# Longer than any test waits: whoever answers before it was not waiting for it.
PATIENT = {"tmax_ms": 60_000, "tmax_max_ms": 60_000}
# A tenth of any budget is kept for answering: no test is lost because the machine is busy for a moment.
UNHURRIED = {**PATIENT, "reply_reserve_ms": 60_000}


class Place:
    """An exchange and its one bidder, dsp-a, which bids 2.00 for everything."""

    def __init__(self, served: ExchangeProcess, dsp_a: Bidder, log: Path) -> None:
        self.served = served
        self.dsp_a = dsp_a
        self.log = log


def settings(*bidders: dict[str, Any], log: Path | None = None, **sections: Any) -> dict[str, Any]:
    return {"bidders": list(bidders), "log": {"dir": str(log)} if log else {}, **sections}


@pytest.fixture(scope="module", params=["wire", "grpcio"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    with bidder(bids(2.0)) as dsp_a:
        server = {"transport": request.param}
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=folder / "log", exchange=UNHURRIED, server=server)
        with exchange(folder, given) as served:
            yield Place(served, dsp_a, folder / "log")


def logged(log: Path) -> list[replay.Logged]:
    faults: list[eventlog.Fault] = []
    auctions = list(replay.auctions(eventlog.read([log], faults.append)))
    assert [] == faults
    return auctions


# What callers see.


def test_both_edges_hold_the_same_auction(place: Place) -> None:
    over_grpc = place.served.grpc(a_request())
    over_json = place.served.post(a_request())
    assert 200 == over_json.status
    assert "application/json" == over_json.headers["content-type"]
    mine, yours = over_grpc.pop("bidid"), over_json.json.pop("bidid")
    assert mine < yours  # ids sort by arrival
    assert over_grpc == {key: value for key, value in over_json.json.items() if key != "bidid"}
    assert 0 == over_grpc["seatbid"][0]["bid"][0]["price"]  # no floor and no rival


def test_json_edge_takes_gzip(place: Place) -> None:
    assert 200 == place.served.post(packed(a_request()), {"content-encoding": "gzip"}).status


def test_nothing_sold_is_204_with_the_reason_in_a_header(place: Place) -> None:
    dear = a_request(imp=[{"id": "1", "banner": {}, "bidfloor": 5.0}])
    answer = place.served.post(dear)
    assert (204, b"", "0") == (answer.status, answer.body, answer.headers["x-openrtb-nbr"])
    assert 32 == len(answer.headers["x-auction-id"])
    assert {"id": "r1", "nbr": 0} == {key: place.served.grpc(dear)[key] for key in ("id", "nbr")}


def test_explanation_is_given_to_who_asks_for_it(place: Place) -> None:
    over_json = place.served.post(a_request(), {"x-auction-explain": "1"}).json["ext"]["auction"]
    over_grpc = place.served.grpc(a_request(), explain=True)["ext"]["auction"]
    for explanation in (over_json, over_grpc):
        assert 0 == explanation["imp"][0]["bid"][0]["loss_reason"]
    assert "ext" not in place.served.grpc(a_request())


def test_refused_request_names_the_field(place: Place) -> None:
    wrong = a_request(imp=[{"id": "1", "banner": {}}, {"id": "2", "banner": {}, "bidfloor": -0.5}])
    answer = place.served.post(wrong)
    assert 400 == answer.status
    error = answer.json["error"]
    assert ("INVALID_ARGUMENT", "imp[1].bidfloor") == (error["code"], error["path"])
    with pytest.raises(grpc.RpcError) as refused:
        place.served.grpc(wrong)
    assert grpc.StatusCode.INVALID_ARGUMENT is refused.value.code()
    assert f"imp[1].bidfloor: {error['message']}" == refused.value.details()


def test_nonsense_gets_an_error_and_no_stack_trace(place: Place) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        place.served.channel.unary_unary("/auction.v1.Exchange/Auction")(b"\xff\xff", timeout=20)
    assert grpc.StatusCode.INVALID_ARGUMENT is refused.value.code()
    answer = place.served.post(b"<html>")
    assert (400, "INVALID_ARGUMENT") == (answer.status, answer.json["error"]["code"])
    assert b"Traceback" not in answer.body


def test_health_readiness_and_metrics_are_pages(place: Place) -> None:
    assert (200, b"ok\n") == place.served.get("/healthz")[::2]
    assert (200, b"ready\n") == place.served.get("/readyz")[::2]
    before = place.served.metric('auction_auctions_total{outcome="sold"}')
    place.served.grpc(a_request())
    assert before + 1 == place.served.metric('auction_auctions_total{outcome="sold"}')
    assert 0 == place.served.metric("auction_in_flight")
    health = health_pb2_grpc.HealthStub(place.served.channel)
    for service in ("", "auction"):
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
        assert health_pb2.HealthCheckResponse.SERVING == status


def test_contract_is_found_by_asking(place: Place) -> None:
    found = ProtoReflectionDescriptorDatabase(place.served.channel)
    assert "auction.v1.Exchange" in found.get_services()
    file = found.FindFileContainingSymbol("auction.v1.Exchange")
    assert ["Auction"] == [method.name for method in file.service[0].method]
    assert "auction/v1/openrtb.proto" == found.FindFileByName(file.dependency[0]).name


def test_callers_deadline_is_kept_and_told_to_bidders(place: Place) -> None:
    place.dsp_a.hold()
    try:
        answer = place.served.grpc(a_request(), timeout=3.0)  # DEADLINE_EXCEEDED if it had waited for its own
        assert "seatbid" not in answer
        posted = place.served.post(a_request(), {"x-auction-timeout-ms": "200"})
        assert 204 == posted.status
    finally:
        place.dsp_a.release()
    told = [place.dsp_a.asked.get()["tmax"] for _ in range(place.dsp_a.asked.qsize())][-2:]
    assert 0 < told[1] < 200 < told[0] < 3_000


def test_cancelled_call_is_counted_and_let_go(place: Place) -> None:
    before = place.served.metric('auction_auctions_total{outcome="cancelled"}')
    place.dsp_a.hold()
    try:
        while place.dsp_a.asked.qsize():
            place.dsp_a.asked.get()
        call = place.served.ask(a_request())
        place.dsp_a.asked.get(timeout=20)
        assert 1 == place.served.metric("auction_in_flight")
        call.cancel()
        while place.served.metric("auction_in_flight"):
            pass
    finally:
        place.dsp_a.release()
    assert before + 1 == place.served.metric('auction_auctions_total{outcome="cancelled"}')


def test_what_was_answered_is_in_the_log_and_replays(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=tmp_path / "log")
        with exchange(tmp_path, given) as served:
            ids = [served.grpc(a_request())["bidid"], served.post(a_request()).json["bidid"]]
            served.post(a_request(id=""))
            assert 0 == served.end()
    auctions = logged(tmp_path / "log")
    assert ids == [auction.recorded.arrival.id for auction in auctions]
    assert [None, None] == [replay.difference(auction) for auction in auctions]
    kinds = [frame.kind for frame in eventlog.read([tmp_path / "log"], print)]
    assert [1, 2, 2, 3] == kinds


# Too many callers.


def test_one_auction_too_many_is_refused_at_once(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, exchange=PATIENT, server={"in_flight": 1})
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            first = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            with pytest.raises(grpc.RpcError) as refused:
                served.grpc(a_request())
            answer = served.post(a_request())
            dsp_a.release()
            assert grpc.StatusCode.RESOURCE_EXHAUSTED is refused.value.code()
            assert (503, "1") == (answer.status, answer.headers["retry-after"])
            assert "RESOURCE_EXHAUSTED" == answer.json["error"]["code"]
            assert first.result()
            assert 200 == served.post(a_request()).status
            assert 2 == served.metric('auction_auctions_total{outcome="overload"}')


# Starting.


def test_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option, setting in (("--port", "server.port"), ("--http-port", "server.http_port")):
            other = "--http-port" if option == "--port" else "--port"
            ended = command("serve", option, port, other, "0")
            assert 1 == ended.returncode
            assert f"cannot start: {setting}: cannot listen on 127.0.0.1:{port}" in ended.stderr
            assert "Traceback" not in ended.stderr


def test_wrong_configuration_ends_with_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("exchange: {tmax_ms: soon}\nserver: {prot: 7400}\n")
    ended = command("serve", "--config", file)
    assert 2 == ended.returncode
    assert "exchange.tmax_ms" in ended.stderr
    assert "server.prot" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_log_of_another_exchange_is_not_touched(place: Place, tmp_path: Path) -> None:
    ended = command("serve", "--log", place.log, "--port", "0", "--http-port", "0")
    assert 1 == ended.returncode
    assert f"cannot start: log.dir: {place.log}: process {place.served.process.pid} writes this log" in ended.stderr


def test_bidder_that_is_down_keeps_nobody_from_starting(tmp_path: Path) -> None:
    with socket.socket() as nobody, bidder(bids(2.0)) as dsp_a:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        down = f"127.0.0.1:{nobody.getsockname()[1]}"
        bidders = (
            {"name": "down-grpc", "grpc": down},
            {"name": "down-http", "http": f"http://{down}/"},
            {"name": "dsp-a", "http": dsp_a.url},
        )
        with exchange(tmp_path, settings(*bidders)) as served:
            assert "seatbid" in served.grpc(a_request())
            for name in ("down-grpc", "down-http"):
                sample = f'auction_bidder_replies_total{{bidder="{name}",status="unreachable"}}'
                assert 1 == served.metric(sample)


# A program that serves and writes a line whenever numba compiles anything, from inside the process that must not.
COMPILE_WATCH = """
import sys
from numba.core import event
from auction.__main__ import main

class Watch(event.Listener):
    def on_start(self, compiled):
        print("COMPILED", compiled.data, file=sys.stderr, flush=True)
    def on_end(self, compiled):
        pass

event.register("numba:compile", Watch())
sys.exit(main())
"""


def test_nothing_is_compiled_after_ready(tmp_path: Path) -> None:
    deals = [{"id": "d1", "bidfloor": 1.0, "at": 3}, {"id": "d2"}]
    shapes = [
        a_request(),
        a_request(at=1),
        a_request(imp=[{"id": str(row), "banner": {}, "bidfloor": row / 2} for row in range(9)]),
        a_request(imp=[{"id": "1", "video": {"mimes": ["video/mp4"]}, "pmp": {"deals": deals}}]),
        a_request(id=""),
    ]
    with bidder(bids(2.0)) as dsp_a, bidder(bids(2.0)) as dsp_b, bidder(bids_nothing) as dsp_c:
        given = settings(*({"name": each.url[-8:-4], "http": each.url} for each in (dsp_a, dsp_b, dsp_c)))
        with exchange(tmp_path, given, program=("-c", COMPILE_WATCH)) as served:
            before = len(served.lines)
            for shape in shapes:
                served.post(shape, {"x-auction-explain": "1"})
                if shape["id"]:
                    served.grpc(shape)
            configure(served.config, {**given, "exchange": {"deal_mode": "deals_first"}})
            served.until("configuration applied")
            served.grpc(shapes[3])
            assert 0 == served.end()
    after = served.lines[before:]
    assert [] == [line for line in after if "unstructured" in line]


def test_waiting_auctions_are_nothing_that_the_collector_looks_for(tmp_path: Path) -> None:
    waves = 24  # of sixty auctions that wait: with Python's own thresholds a hundred passes over the young
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(4096)
        silent = {"name": "dsp-a", "http": f"http://127.0.0.1:{hung.getsockname()[1]}/"}
        with exchange(tmp_path, settings(silent, exchange={"tmax_ms": 50}, server={"transport": "wire"})) as served:
            before = _collections(served)
            for _ in range(waves):
                for call in [served.ask(a_request()) for _ in range(60)]:
                    call.result()
            after = _collections(served)
    assert after[0] - before[0] < waves
    assert before[2] == after[2]


def _collections(served: ExchangeProcess) -> list[float]:
    return [served.metric(f'python_gc_collections_total{{generation="{generation}"}}') for generation in range(3)]


# Stopping.


def test_drain_answers_what_is_in_flight_and_writes_it_down(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=tmp_path / "log", exchange=PATIENT)
        with exchange(tmp_path, given) as served:
            health = health_pb2_grpc.HealthStub(served.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="auction"), timeout=20)
            assert health_pb2.HealthCheckResponse.SERVING == next(watch).status
            dsp_a.hold()
            call = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            served.kill(signal.SIGTERM)
            assert health_pb2.HealthCheckResponse.NOT_SERVING == next(watch).status
            watch.cancel()
            dsp_a.release()
            assert call.result()
            assert 0 == served.wait()
    (auction,) = logged(tmp_path / "log")
    assert "r1" in auction.recorded.arrival.body.decode(errors="replace")


def test_a_stop_goes_on_as_before_until_callers_have_had_notice(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, server={"notice_ms": 600_000})
        with exchange(tmp_path, given) as served:
            health = health_pb2_grpc.HealthStub(served.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="auction"), timeout=20)
            assert health_pb2.HealthCheckResponse.SERVING == next(watch).status
            assert "connection" not in served.post(a_request()).headers
            served.kill(signal.SIGTERM)
            assert health_pb2.HealthCheckResponse.NOT_SERVING == next(watch).status
            assert 503 == served.get("/readyz").status
            assert "seatbid" in served.grpc(a_request())
            answer = served.post(a_request())
            assert (200, "close") == (answer.status, answer.headers["connection"])
            with grpc.insecure_channel(served.ready["grpc"], [("grpc.use_local_subchannel_pool", 1)]) as late:
                assert late.unary_unary(METHOD)(message_of(a_request()), timeout=20)
            watch.cancel()


def test_drain_waits_no_longer_than_its_setting(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, exchange=PATIENT, server={"drain_s": 0})
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            call = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            assert 0 == served.end()
            assert call.exception() is not None


def test_second_signal_ends_it_where_it_stands(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, exchange=PATIENT)
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            call = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            served.kill(signal.SIGINT)
            served.until("draining")
            assert 128 + signal.SIGTERM == served.end(signal.SIGTERM)
            assert call.exception() is not None


# Connections, as the frames of HTTP/2 show them.

BOTH = pytest.mark.parametrize("transport", ["grpcio", "wire"])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # and empty SETTINGS
SETTINGS, PING, GOAWAY = 4, 6, 7


class Wire:
    """A connection of a caller that answers nothing by itself."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(PREFACE)
        self._read = self.socket.makefile("rb")

    def until(self, kind: int) -> bytes:
        """Read up to the next frame of a kind that is no acknowledgement, and give what is in it."""
        while True:
            head = self._read.read(9)
            assert len(head) == 9, "the connection ended"
            body = self._read.read(int.from_bytes(head[:3]))
            if head[3] == kind and not head[4] & 1:
                return body

    def rest(self) -> bytes:
        return self._read.read()

    def close(self) -> None:
        self._read.close()
        self.socket.close()


@contextmanager
def wire(folder: Path, server: dict[str, Any]) -> Iterator[Wire]:
    with exchange(folder, {"server": server}) as served:
        connected = Wire(served.ready["grpc"])
        try:
            yield connected
        finally:
            connected.close()


@BOTH
def test_a_connection_that_is_too_old_is_told_to_go(transport: str, tmp_path: Path) -> None:
    with wire(tmp_path, {"transport": transport, "connection_age_s": 1, "keepalive_s": 3600}) as connected:
        last_id, error = struct.unpack(">II", connected.until(GOAWAY)[:8])
        assert (2**31 - 1, 0) == (last_id, error)  # calls that are on their way still count


@BOTH
def test_a_call_on_a_connection_that_was_told_to_go_is_answered(transport: str, tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        server = {"transport": transport, "connection_age_s": 1}
        given = settings({"name": "dsp-a", "http": dsp_a.url}, exchange=PATIENT, server=server)
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            call = served.ask(a_request())
            dsp_a.asked.get(timeout=20)
            # Two lives of other connections, one after the other, are longer than the caller's, give or take a tenth.
            for _ in range(2):
                other = Wire(served.ready["grpc"])
                other.until(GOAWAY)
                other.close()
            dsp_a.release()
            assert "seatbid" in json_of(call)


@BOTH
def test_a_silent_connection_is_asked_and_dropped(transport: str, tmp_path: Path) -> None:
    server = {"transport": transport, "keepalive_s": 1, "keepalive_timeout_s": 1, "connection_age_s": None}
    with wire(tmp_path, server) as connected:
        connected.until(PING)
        connected.rest()  # until the server closes it, or a timeout


@BOTH
def test_calls_that_one_connection_may_have_open_are_told(transport: str, tmp_path: Path) -> None:
    with wire(tmp_path, {"transport": transport, "connection_streams": 7}) as connected:
        told = connected.until(SETTINGS)
        assert (3, 7) in [struct.unpack_from(">HI", told, at) for at in range(0, len(told), 6)]


@BOTH
def test_a_connection_is_cut_off_after_its_grace(transport: str, tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a:
        server = {"transport": transport, "connection_age_s": 1, "connection_grace_s": 1}
        given = settings({"name": "dsp-a", "http": dsp_a.url}, server=server)
        with exchange(tmp_path, given) as served:
            health = health_pb2_grpc.HealthStub(served.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="auction"), timeout=20)
            with pytest.raises(grpc.RpcError) as cut:
                list(watch)
            assert grpc.StatusCode.UNAVAILABLE is cut.value.code()


# Another configuration.


def test_reload_takes_hold_with_the_next_auction_and_spares_those_in_flight(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, bidder(bids(3.0)) as dsp_b:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=tmp_path / "log", exchange=PATIENT)
        with exchange(tmp_path, given) as served:
            dsp_a.hold()
            old = served.ask(a_request(id="old"), explain=True)
            dsp_a.asked.get(timeout=20)
            configure(served.config, {**given, "bidders": [{"name": "dsp-b", "http": dsp_b.url}]})
            applied = served.command("reload")
            new = served.grpc(a_request(id="new"), explain=True)
            dsp_a.release()
            assert (0, "") == (applied.returncode, applied.stderr)
            assert "applied: rules " in applied.stdout
            assert ["dsp-b"] == winners(new)
            assert ["dsp-a"] == winners(json_of(old))
            assert 0 == served.end()
    auctions = logged(tmp_path / "log")
    assert [None, None] == [replay.difference(auction) for auction in auctions]
    assert 2 == len({auction.recorded.rules_digest for auction in auctions})


def test_wrong_configuration_is_refused_whole_and_the_old_one_stays(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, exchange(tmp_path, settings({"name": "dsp-a", "http": dsp_a.url})) as served:
        wrong = settings({"name": "dsp-b", "http": dsp_a.url}, exchange={"tmax_ms": -1, "increment": "x"})
        configure(served.config, wrong)
        refused = served.command("reload", "--pid", str(served.process.pid))
        assert 1 == refused.returncode
        assert "exchange.tmax_ms" in refused.stderr
        assert "exchange.increment" in refused.stderr
        assert ["dsp-a"] == winners(served.grpc(a_request(), explain=True))
        assert 0 == served.metric("auction_reload_last_success")
        assert 0 == served.metric('auction_reloads_total{result="applied"}')


def test_what_cannot_be_reloaded_refuses_all_the_rest_too(tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, exchange(tmp_path, settings({"name": "dsp-a", "http": dsp_a.url})) as served:
        for section, path in (
            ({"server": {"in_flight": 7}}, "server.in_flight"),
            ({"limits": {"request_bytes": 7000}}, "limits.request_bytes"),
        ):
            configure(served.config, settings({"name": "dsp-b", "http": dsp_a.url}, **section))
            refused = served.command("reload")
            assert 1 == refused.returncode
            assert f"{path}: a change needs a restart" in refused.stderr
        assert ["dsp-a"] == winners(served.grpc(a_request(), explain=True))
        configure(served.config, settings({"name": "dsp-b", "http": dsp_a.url}))
        assert 0 == served.command("reload").returncode
        assert 1 == served.metric("auction_reload_last_success")


def test_configuration_is_read_again_when_its_link_is_swapped(tmp_path: Path) -> None:
    # As Kubernetes mounts a ConfigMap: config.yaml -> ..data/config.yaml, ..data -> a folder per version.
    with bidder(bids(2.0)) as dsp_a:
        for version, name in (("v1", "dsp-a"), ("v2", "dsp-b")):
            (tmp_path / version).mkdir()
            configure(tmp_path / version / "config.yaml", settings({"name": name, "http": dsp_a.url}))
        mounted = tmp_path / "mounted"
        mounted.mkdir()
        (mounted / "..data").symlink_to(tmp_path / "v1")
        (mounted / "config.yaml").symlink_to("..data/config.yaml")
        with exchange(tmp_path, None, config=mounted / "config.yaml") as served:
            (mounted / "..next").symlink_to(tmp_path / "v2")
            os.replace(mounted / "..next", mounted / "..data")
            served.until("configuration applied")
            assert ["dsp-b"] == winners(served.grpc(a_request(), explain=True))


def test_reload_without_an_exchange_says_so(tmp_path: Path) -> None:
    ended = command("reload", environment={**os.environ, "TMPDIR": str(tmp_path)})
    assert (2, "no such exchange of this user is running here\n") == (ended.returncode, ended.stderr)


# Exchange rates. The bidder offers 300 JPY, and its price is its bid: 2.00 USD at 150.

FRESH = datetime.now(UTC).isoformat()
PER_BID = {"at": 1, "cur": ["USD", "JPY"]}


def snapshot(yen: str, id: str = "", time: str = FRESH) -> dict[str, Any]:
    return {"id": id or f"at {yen}", "time": time, "rates": {"JPY": yen}}


def price(response: Any) -> float:
    return float(response["seatbid"][0]["bid"][0]["price"])


def until_rates(served: ExchangeProcess, id: str) -> dict[str, Any]:
    """Wait until these rates count."""
    while (line := served.until("exchange rates applied"))["id"] != id:
        pass
    return line


def test_another_snapshot_changes_the_next_auctions_and_none_in_flight_and_the_log_replays(tmp_path: Path) -> None:
    with rates_server(snapshot("150")) as source, bidder(bids(300, "JPY")) as dsp_a:
        fx = {"url": source.url, "refresh_s": 1}
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=tmp_path / "log", fx=fx, exchange=UNHURRIED)
        with exchange(tmp_path, given) as served:
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))
            while dsp_a.asked.qsize():
                dsp_a.asked.get()
            dsp_a.hold()
            old = [served.ask(a_request(**PER_BID, tmax=50_000)) for _ in range(4)]
            for _ in old:
                dsp_a.asked.get(timeout=20)
            source.snapshot = snapshot("100")
            told = until_rates(served, "at 100")
            dsp_a.release()
            assert [2.0] * 4 == [price(json_of(call)) for call in old]
            # Calls without a pause while the next snapshot comes: each has one price or the other, and none the first
            # once all had the second.
            source.snapshot = snapshot("75")
            prices: list[set[float]] = []
            while {4.0} not in prices:
                calls = [served.ask(a_request(**PER_BID)) for _ in range(8)]
                prices.append({price(json_of(call)) for call in calls})
            assert {3.0, 4.0} == set().union(*prices)
            assert all(max(before) <= min(after) for before, after in pairwise(prices))
            assert served.metric('auction_fx_refreshes_total{outcome="changed"}') == 3
            assert 0 <= served.metric("auction_fx_age_seconds") < 3600
            assert 0 == served.end()
    auctions = logged(tmp_path / "log")
    assert [None] * len(auctions) == [replay.difference(auction) for auction in auctions]
    by_digest = {auction.recorded.rules_digest.hex()[:12]: auction.recorded.rules_digest for auction in auctions}
    assert (3, True) == (len(by_digest), told["rules"] in by_digest)
    frames = eventlog.read([tmp_path / "log"], print)
    written = [rules_from_canonical(decode_rules(frame.payload).canonical) for frame in frames if frame.kind == RULES]
    # One of those in flight may come after the first under the next rates, and its rules with it, again.
    told_of = dict.fromkeys((each.fx.id, each.fx.time) for each in written)
    assert [("at 150", FRESH), ("at 100", FRESH), ("at 75", FRESH)] == list(told_of)


def test_ready_only_with_the_first_snapshot_where_there_are_no_other_rates(tmp_path: Path) -> None:
    with rates_server(snapshot("150")) as source, exchange(tmp_path, {"fx": {"url": source.url}}) as served:
        fx = Fx("at 150", FRESH, {"JPY": "150"})
        rules = msgspec.structs.replace(load(served.config, {}).rules(), fx=fx)
        assert rules.digest().hex()[:12] == served.ready["rules"]


def test_ready_without_rates_where_their_source_is_down(tmp_path: Path) -> None:
    with rates_server(None) as source, bidder(bids(300, "JPY")) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, fx={"url": source.url, "refresh_s": 1})
        with exchange(tmp_path, given) as served:
            assert served.until("exchange rates are not refreshed: expected HTTP 200, was 503")
            answer = served.post(a_request(cur=["JPY"]))
            assert (400, "cur") == (answer.status, answer.json["error"]["path"])
            assert [1] == losses(served.grpc(a_request(**PER_BID), explain=True))
            assert b"\nauction_fx_age_seconds " not in served.get("/metrics").body
            source.snapshot = snapshot("150")
            until_rates(served, "at 150")
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))


def test_rates_of_the_configuration_count_until_the_first_snapshot(tmp_path: Path) -> None:
    with rates_server(snapshot("150")) as source, bidder(bids(300, "JPY")) as dsp_a:
        source.hold()
        fx = {"url": source.url, "id": "ours", "rates": {"JPY": "100"}}
        with exchange(tmp_path, settings({"name": "dsp-a", "http": dsp_a.url}, fx=fx)) as served:
            assert 3.0 == price(served.grpc(a_request(**PER_BID)))
            source.release()
            until_rates(served, "at 150")
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))


def test_rates_in_a_file_are_taken_when_it_changes_and_kept_when_it_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    configure(file, snapshot("150"))
    with bidder(bids(300, "JPY")) as dsp_a:
        given = settings({"name": "dsp-a", "http": dsp_a.url}, fx={"file": str(file), "refresh_s": 1})
        with exchange(tmp_path, given) as served:
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))
            configure(file, {"dataAsOf": "2026-01-30", "conversions": {"USD": {"JPY": 100}}})
            until_rates(served, "prebid-2026-01-30")
            assert 3.0 == price(served.grpc(a_request(**PER_BID)))
            file.unlink()
            served.until("exchange rates are not refreshed: No such file or directory")
            assert 3.0 == price(served.grpc(a_request(**PER_BID)))
            assert 1 <= served.metric('auction_fx_refreshes_total{outcome="unreachable"}')


def test_reload_keeps_the_snapshot_of_the_same_source_and_asks_another(tmp_path: Path) -> None:
    with (
        rates_server(snapshot("150")) as source,
        rates_server(snapshot("100")) as other,
        bidder(bids(300, "JPY")) as dsp_a,
    ):
        given = settings({"name": "dsp-a", "http": dsp_a.url})
        with exchange(tmp_path, {**given, "fx": {"url": source.url}}) as served:
            source.snapshot = None  # asked again, it would have nothing
            again = {"url": source.url, "refresh_s": 600, "id": "ours", "rates": {"JPY": "75"}}
            configure(served.config, {**given, "exchange": {"min_price": 1}, "fx": again})
            assert 0 == served.command("reload").returncode
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))
            configure(served.config, {**given, "fx": {"url": other.url}})
            assert 0 == served.command("reload").returncode
            assert 3.0 == price(served.grpc(a_request(**PER_BID)))
            configure(served.config, {**given, "fx": {"id": "ours", "rates": {"JPY": "75"}}})
            assert 0 == served.command("reload").returncode
            assert 4.0 == price(served.grpc(a_request(**PER_BID)))
            configure(served.config, given)
            assert 0 == served.command("reload").returncode
            assert 400 == served.post(a_request(cur=["JPY"])).status


def test_stale_snapshot_counts_or_is_dropped_as_set(tmp_path: Path) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    with rates_server(snapshot("150", time=yesterday)) as source, bidder(bids(300, "JPY")) as dsp_a:
        fx = {"url": source.url, "refresh_s": 1, "max_age_s": 7200}
        given = settings({"name": "dsp-a", "http": dsp_a.url}, log=tmp_path / "log")
        with exchange(tmp_path, {**given, "fx": fx}) as served:
            assert 2.0 == price(served.grpc(a_request(**PER_BID)))
            assert 24 * 3600 <= served.metric("auction_fx_age_seconds")
            configure(served.config, {**given, "fx": {**fx, "stale": "drop"}})
            assert 0 == served.command("reload").returncode
            served.until("nothing is converted: the rates are stale")
            assert 400 == served.post(a_request(cur=["JPY"])).status
            assert [1] == losses(served.grpc(a_request(**PER_BID), explain=True))
            assert 24 * 3600 <= served.metric("auction_fx_age_seconds")
            source.snapshot = snapshot("100")
            until_rates(served, "at 100")
            assert 3.0 == price(served.grpc(a_request(**PER_BID)))
            assert 0 == served.end()
    auctions = logged(tmp_path / "log")
    assert [None] * 3 == [replay.difference(auction) for auction in auctions]
    fx_of = [auction.rules.rules.fx for auction in auctions]
    assert [{"JPY": "150"}, {}, {"JPY": "100"}] == [fx.rates for fx in fx_of]
    assert [yesterday, yesterday, FRESH] == [fx.time for fx in fx_of]


def test_snapshot_is_dropped_when_it_grows_stale(tmp_path: Path) -> None:
    aged = (datetime.now(UTC) - timedelta(seconds=56)).isoformat()
    fx = {"id": "ours", "time": aged, "rates": {"JPY": "150"}, "max_age_s": 60, "stale": "drop"}
    with exchange(tmp_path, {"fx": fx}) as served:
        served.until("nothing is converted: the rates are stale")
        assert 60 <= served.metric("auction_fx_age_seconds")
        assert 400 == served.post(a_request(cur=["JPY"])).status


# Calling.


@pytest.mark.parametrize("edge", ["grpc", "http"])
def test_call_prints_what_was_sold_and_why(place: Place, tmp_path: Path, edge: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(a_request()))
    option = ["--target", place.served.ready["grpc"]] if edge == "grpc" else ["--http", place.served.ready["http"]]
    readable = command("call", file, *option, "--explain")
    assert (0, "") == (readable.returncode, readable.stderr)
    assert "dsp-a" in readable.stdout
    assert "won at 0" in readable.stdout
    data = command("call", file, *option, "--json")
    assert "r1" == json.loads(data.stdout)["id"]


def test_call_says_in_one_line_why_there_is_no_answer(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(a_request(id="")))
    refused = command("call", file, "--http", place.served.ready["http"])
    assert (1, 1) == (refused.returncode, refused.stderr.count("\n"))
    assert "HTTP 400: id: " in refused.stderr
    nobody = command("call", file, "--target", "127.0.0.1:1")
    assert (1, 1) == (nobody.returncode, nobody.stderr.count("\n"))
    assert 2 == command("call", tmp_path / "absent.json").returncode


def winners(response: Any) -> list[str]:
    return [bid["bidder"] for imp in response["ext"]["auction"]["imp"] for bid in imp["bid"] if not bid["loss_reason"]]


def losses(response: Any) -> list[int]:
    return [bid["loss_reason"] for imp in response["ext"]["auction"]["imp"] for bid in imp["bid"]]


def json_of(call: Any) -> Any:
    return read_response(call.result())

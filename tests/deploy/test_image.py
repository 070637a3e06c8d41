# The image, built by `make image` and run as the chart has it run: without a name, a right, or a place to write.

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import container
import grpc
import pytest
from container import Image, built, limits, missing, started
from processes import METHOD, a_request, bidder, bids, message_of, read_response

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

# A caller that watches health leaves a server as soon as it says that it stops. One that does not learns it when its
# connection ends, and a call that is on its way then can come back CANCELLED: so it was in one stop of 18 here.
CLIENT = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "auction"}})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with built(tmp_path_factory.mktemp("image")) as image:
        yield image


def settings(url: str, **sections: Any) -> dict[str, Any]:
    return {
        "server": {"port": 0, "http_port": 0},
        "log": {"dir": "/var/lib/auction/log"},
        "bidders": [{"name": "dsp-a", "http": url}],
        **sections,
    }


def address(port: str) -> str:
    """Reach on loopback what listens everywhere."""
    return f"127.0.0.1:{port.rpartition(':')[2]}"


def call(channel: grpc.Channel, **fields: Any) -> Any:
    return read_response(channel.unary_unary(METHOD)(message_of(a_request(**fields)), timeout=20, wait_for_ready=True))


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_names_a_user_by_number_and_a_program_without_a_shell(image: Image) -> None:
    assert "65532:65532" == image.config["User"]
    assert ["auction"] == image.config["Entrypoint"]
    assert {"7400/tcp", "7480/tcp"} == set(image.config["ExposedPorts"])
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.config["Labels"].items()}
    assert "0.1.0" == labels["version"]
    assert len(labels["revision"]) == 40


def test_nothing_of_the_build_is_left_in_it(image: Image) -> None:
    assert not (image.root / "src").exists()
    assert not (image.root / "opt/build").exists()
    # A secret would be a line of a pip.conf.
    assert not (image.root / "etc/pip.conf").exists()
    assert not any((image.root / "run/secrets").glob("*"))
    assert [] == [str(each) for each in (image.root / "opt/auction").rglob("pip") if each.is_dir()]


def test_it_answers_without_rights_under_limits_and_compiles_nothing(image: Image, tmp_path: Path) -> None:
    with bidder(bids(2.0)) as dsp_a, started(image, tmp_path / "a", settings(dsp_a.url)) as served:
        ready = served.until_ready()
        pid = served.pid()
        is_ = status(pid)
        assert ["65532"] * 4 == is_["Uid"].split() == is_["Gid"].split()
        assert {"0000000000000000"} == {is_[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert "1" == is_["NoNewPrivs"]
        root = next(line for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if line.split()[4] == "/")
        assert "ro" in root.split()[5].split(",")
        assert {"memory": container.MEMORY_BYTES, "cpu": container.CPU_QUOTA_US} == limits(pid)

        with grpc.insecure_channel(address(ready["grpc"])) as channel:
            sold = call(channel, at=1)
        assert 2.0 == sold["seatbid"][0]["bid"][0]["price"]
        web = HTTPConnection(address(ready["http"]), timeout=20)
        web.request("POST", "/openrtb2/auction", json.dumps(a_request(at=1)), {"content-type": "application/json"})
        assert 2.0 == json.loads(web.getresponse().read())["seatbid"][0]["bid"][0]["price"]
        web.close()
        assert dsp_a.asked.get(timeout=20)["imp"]

        served.kill(signal.SIGTERM)
        assert 0 == served.wait()
        assert any((served.log / "log").rglob("*")), "no log was written"
    assert [] == served.compiled()


def test_compiling_would_be_seen(image: Image, tmp_path: Path) -> None:
    # Another directory for numba's cache, an empty one: what an operator can set, and what the test above must notice.
    given = {"server": {"port": 0, "http_port": 0}}
    with started(image, tmp_path / "a", given, NUMBA_CACHE_DIR="/tmp/numba") as served:
        served.until_ready()
        served.kill(signal.SIGTERM)
        assert 0 == served.wait()
    assert served.compiled()


def test_code_for_another_processor_is_refused_at_the_start(image: Image, tmp_path: Path) -> None:
    given = {"server": {"port": 0, "http_port": 0}}
    with started(image, tmp_path / "a", given, NUMBA_CPU_NAME="nocona") as served:
        assert 1 == served.wait()
    said = served.lines[-1]
    assert said.startswith("cannot start: ")
    assert "NUMBA_CACHE_DIR" in said


def test_no_call_of_a_caller_that_watches_health_fails_while_one_of_two_stops(image: Image, tmp_path: Path) -> None:
    failures: list[str] = []
    answered = {"before": 0, "after": 0}
    over, stopped, enough = threading.Event(), threading.Event(), threading.Event()
    with (
        bidder(bids(2.0)) as dsp_a,
        started(image, tmp_path / "a", settings(dsp_a.url)) as first,
        started(image, tmp_path / "b", settings(dsp_a.url)) as second,
    ):
        addresses = ",".join(address(each.until_ready()["grpc"]) for each in (first, second))
        options = [("grpc.service_config", CLIENT)]
        with grpc.insecure_channel(f"ipv4:{addresses}", options=options) as channel:
            warm = threading.Barrier(5)

            def calls() -> None:
                for number in range(100_000):
                    if over.is_set():
                        break
                    try:
                        call(channel)
                        answered["after" if stopped.is_set() else "before"] += 1
                    except grpc.RpcError as failure:
                        failures.append(f"{failure.code()}: {failure.details()}")
                    # As many again as before, so that what the stop broke has had its time to show.
                    if answered["after"] >= 100 or failures:
                        enough.set()
                    if number == 25:
                        warm.wait(60)

            callers = [threading.Thread(target=calls) for _ in range(4)]
            for each in callers:
                each.start()
            try:
                warm.wait(60)
                first.kill(signal.SIGTERM)
                code = first.wait()
                stopped.set()
                assert enough.wait(60)
            finally:
                over.set()
                for each in callers:
                    each.join(60)
        second.kill(signal.SIGTERM)
        assert 0 == second.wait()
    assert [] == failures
    assert 0 == code
    assert answered["before"] >= 4 * 25
    assert [] == first.compiled() + second.compiled()

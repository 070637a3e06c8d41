# The dashboard: every query of it is of metrics that exist, and gives something where an exchange runs.
#
# The exchange is the demo's: six bidders, of which one is late, one talks nonsense and one is down at times. Prometheus
# scrapes it as the chart's monitor would have it, and also evaluates the chart's rules.

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
import yaml
from charts import ci, one, render

from auction.commands.scene import Scene
from auction.edge.metrics import TABLE
from deploy.values import CHART

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']}, {target['legendFormat']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
# What prometheus_client tells of any process (auction/edge/metrics.py, ProcessCollector).
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
# What the chart's monitor adds, and what Prometheus knows of a pod.
OF_PODS = {"namespace", "release", "track", "pod"}

PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="prometheus is not here; Debian's package is `prometheus`"
)

# Some scrapes and evaluations, each a quarter of a second apart; far more than it takes.
PATIENCE_S = 60.0
SCRAPE_S = 0.25


def test_every_metric_of_a_query_is_in_the_table_with_its_labels() -> None:
    labels: dict[str, set[str]] = {name: set() for name in OF_PROCESSES}
    for metric in TABLE:
        if metric.kind == "histogram":
            labels |= {f"{metric.name}_{part}": {*metric.labels} for part in ("count", "sum")}
            labels[f"{metric.name}_bucket"] = {*metric.labels, "le"}
        else:
            labels[metric.name] = {*metric.labels}
    for query in QUERIES.values():
        selected = re.findall(r"([a-z_]+)\{([^}]*)\}", query)
        assert selected
        for name, matchers in selected:
            assert set(re.findall(r'(\w+)(?:=~|!=|=)"', matchers)) <= labels[name] | OF_PODS
        # Grouped by what one of its metrics has.
        known = set().union(*(labels[name] for name, _ in selected)) | OF_PODS
        for group in re.findall(r"\b(?:by|ignoring) \(([^)]*)\)", query):
            assert {label.strip() for label in group.split(",")} <= known


def test_every_series_is_of_the_release_that_was_chosen() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {"datasource", "namespace", "release", "track"} == variables
    for query in QUERIES.values():
        for _, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query):
            assert matchers.startswith('namespace="$namespace",release="$release",track=~"$track"')


def test_the_chart_hands_it_to_grafana() -> None:
    found = one(render(ci("podmonitor")), "ConfigMap", "auction-dashboard")
    assert json.loads(found["data"]["auction.json"]) == DASHBOARD
    assert "1" == found["metadata"]["labels"]["grafana_dashboard"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


class Prometheus(NamedTuple):
    """A Prometheus on loopback that scrapes a demo."""

    port: int

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise ConnectionError("not ready")
            told = json.loads(response.read())
        finally:
            connection.close()
        assert "success" == told["status"], told
        return told["data"]

    def values(self, query: str) -> list[float]:
        """Evaluate a query now; what is not a number is left out."""
        found = self.get(f"/api/v1/query?query={quote(query)}")["result"]
        return [value for value in (float(sample["value"][1]) for sample in found) if value == value]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("demo")
    rates = folder / "rates.json"
    rates.write_text(json.dumps({"id": "today", "time": _now(), "rates": {"EUR": "0.92", "GBP": "0.79", "JPY": 150}}))
    # The port is free now; nobody else here takes one by chance in the moment before Prometheus binds it.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with asyncio.Runner() as runner:
        scene = Scene(folder)
        processes: list[subprocess.Popen[bytes]] = []
        try:
            runner.run(scene.start())
            _write(folder, urlsplit(scene.http).netloc)
            assert PROMETHEUS is not None
            options = {
                "config.file": folder / "prometheus.yaml",
                "storage.tsdb.path": folder / "tsdb",
                "web.listen-address": f"127.0.0.1:{port}",
                "log.level": "warn",
            }
            words = [f"--{name}={value}" for name, value in options.items()]
            with (folder / "prometheus.err").open("wb") as said:
                processes.append(subprocess.Popen([PROMETHEUS, *words], stdout=said, stderr=said))
            # Rates from a source, so that their age and refreshes are there: the exchange reads its file again.
            configuration = yaml.safe_load((folder / "exchange.yaml").read_text())
            configuration["fx"] |= {"file": str(rates), "refresh_s": 1}
            (folder / "exchange.yaml").write_text(yaml.safe_dump(configuration))
            words = ["load", "--target", scene.grpc, "--rate", "100", "--seconds", str(int(PATIENCE_S))]
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "auction", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            _until_it_answers(port, processes[0], folder)
            yield Prometheus(port)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(PATIENCE_S)
            runner.run(scene.stop())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))


def _write(folder: Path, target: str) -> None:
    """Write what Prometheus is told: the labels that the chart's monitor gives a stable pod, and the chart's rules."""
    spec = one(render(ci("podmonitor")), "PrometheusRule")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    labels = {"namespace": "ads", "release": "auction", "track": "stable", "pod": "auction-0"}
    job = {"job_name": "ads/auction", "static_configs": [{"targets": [target], "labels": labels}]}
    every = {"scrape_interval": f"{int(SCRAPE_S * 1000)}ms", "evaluation_interval": "1s"}
    told = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": [job]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(told))


def _until_it_answers(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            Prometheus(port).get("/api/v1/status/buildinfo")
        except OSError:
            threading.Event().wait(SCRAPE_S)
        else:
            return
    raise AssertionError((folder / "prometheus.err").read_text())


def evaluated(query: str) -> str:
    """Fill in what Grafana would."""
    for variable, value in {
        "$namespace": "ads",
        "$release": "auction",
        "$track": ".*",
        "$__rate_interval": "10s",
    }.items():
        query = query.replace(variable, value)
    return query


@needs_prometheus
def test_every_query_gives_something_where_an_exchange_runs(prometheus: Prometheus) -> None:
    waiting = {name: evaluated(query) for name, query in QUERIES.items()}
    deadline = time.monotonic() + PATIENCE_S / 2
    while waiting and time.monotonic() < deadline:
        waiting = {name: query for name, query in waiting.items() if not prometheus.values(query)}
        threading.Event().wait(SCRAPE_S)
    assert {} == waiting


@needs_prometheus
def test_shares_are_shares_and_rates_are_what_was_sent(prometheus: Prometheus) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            values = prometheus.values(evaluated(target["expr"]))
            assert all(value >= 0 for value in values), panel["title"]
            if panel["fieldConfig"]["defaults"]["unit"] == "percentunit":
                assert all(value <= 1 for value in values), panel["title"]
    answered = prometheus.values(evaluated(QUERIES["Auctions by outcome, {{outcome}}"]))
    assert sum(answered) > 0


@needs_prometheus
def test_every_rule_of_the_chart_can_be_evaluated(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + PATIENCE_S / 2
    rules: list[Any] = []
    while time.monotonic() < deadline:
        rules = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        known = rules and all(rule["health"] != "unknown" for rule in rules)
        if known and prometheus.values("auction:missed:ratio_rate5m"):
            break
        threading.Event().wait(SCRAPE_S)
    assert rules
    assert [] == [rule["name"] for rule in rules if rule["health"] != "ok"]
    assert prometheus.values("auction:missed:ratio_rate5m")

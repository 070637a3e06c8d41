# The chart, feature by feature: what it renders by default, what each value changes, and what is refused.

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CI, ci, configuration, every, one, pod, refused, render, server
from helm_python import Chart, HelmError

from auction import __version__
from auction.config import ConfigFaults, every_setting, load, what_needs_restart
from auction.core.openrtb.json import request_bytes
from auction.server import LOG_SHARE
from deploy.values import CHART, OWN

DEFAULT = render()
# KEDA's own query asks for series that a monitor has labelled.
SCRAPED: dict[str, Any] = {"monitoring": {"kind": "podMonitor"}}
BIDDERS: list[dict[str, Any]] = [
    {"name": "dsp-a", "grpc": "dsp-a:7501"},
    {"name": "dsp-b", "http": "https://dsp-b.example/bid"},
]


# 1, Deployment


def test_a_rollout_never_has_fewer_ready_pods_than_before() -> None:
    spec = one(DEFAULT, "Deployment")["spec"]
    assert {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}} == spec["strategy"]
    assert spec["minReadySeconds"] > 0
    assert spec["revisionHistoryLimit"] > 0


@pytest.mark.parametrize("none", [0, "0%"])
def test_a_rollout_that_could_replace_no_pod_or_has_failed_before_it_began_is_refused(none: int | str) -> None:
    assert "rollout.maxSurge: expected more than 0" in refused({"rollout": {"maxSurge": none}})
    assert render({"rollout": {"maxSurge": none, "maxUnavailable": 1}})
    assert "rollout.progressDeadlineSeconds" in refused({"rollout": {"minReadySeconds": 300}})


@pytest.mark.parametrize(("kind", "replicas"), [("none", 3), ("hpa", None), ("keda", None)])
def test_replicas_are_rendered_only_where_nothing_scales_them(kind: str, replicas: int | None) -> None:
    rendered = render({**SCRAPED, "replicas": 3, "autoscaling": {"kind": kind}})
    assert replicas == one(rendered, "Deployment")["spec"].get("replicas")


# 2, probes


def test_readiness_asks_grpc_health_and_liveness_the_process_alone() -> None:
    container = server(DEFAULT)
    assert {"port": 7400, "service": "auction"} == container["readinessProbe"]["grpc"]
    assert {"path": "/healthz", "port": "http"} == container["livenessProbe"]["httpGet"]
    assert {"path": "/healthz", "port": "http"} == container["startupProbe"]["httpGet"]


def test_beside_somebody_elses_tls_every_probe_is_a_tcp_connection() -> None:
    container = server(render({"probes": {"kind": "tcp"}}))
    probes = [container[f"{name}Probe"] for name in ("readiness", "liveness", "startup")]
    assert [{"port": "grpc"}] * 3 == [probe["tcpSocket"] for probe in probes]
    assert not any("grpc" in probe or "httpGet" in probe for probe in probes)


def test_readiness_over_http_notices_draining_as_well() -> None:
    assert "/readyz" == server(render({"probes": {"kind": "http"}}))["readinessProbe"]["httpGet"]["path"]


def test_a_probe_has_three_seconds_at_least() -> None:
    assert 3 == server(DEFAULT)["readinessProbe"]["timeoutSeconds"]
    assert "timeoutSeconds" in refused({"probes": {"timeoutSeconds": 2}})


# 3, drain


def test_by_default_a_stop_is_ten_and_twenty_and_five_seconds_and_all_fit_into_forty(tmp_path: Path) -> None:
    drain_s = configuration(DEFAULT, tmp_path).server.drain_s
    assert {"sleep": {"seconds": 10}} == server(DEFAULT)["lifecycle"]["preStop"]
    assert 40 == pod(DEFAULT)["terminationGracePeriodSeconds"]
    assert 20 <= drain_s * (1 - LOG_SHARE)
    assert 5 <= drain_s * LOG_SHARE


@pytest.mark.parametrize(
    "drain",
    [
        {"preStopSeconds": 0, "graceSeconds": 1, "flushSeconds": 1},
        {"preStopSeconds": 15, "graceSeconds": 30, "flushSeconds": 10},
        {"preStopSeconds": 5, "graceSeconds": 10, "flushSeconds": 60},
        {"preStopSeconds": 60, "graceSeconds": 299, "flushSeconds": 7},
    ],
)
def test_the_server_is_told_a_drain_that_covers_both_parts_and_the_kubelet_waits_longer(
    drain: dict[str, int], tmp_path: Path
) -> None:
    rendered = render({"drain": drain})
    drain_s = configuration(rendered, tmp_path).server.drain_s
    assert drain["graceSeconds"] <= drain_s * (1 - LOG_SHARE)
    assert drain["flushSeconds"] <= drain_s * LOG_SHARE
    assert 1000 == configuration(rendered, tmp_path).server.notice_ms
    assert drain["preStopSeconds"] + 1 + drain_s < pod(rendered)["terminationGracePeriodSeconds"]
    assert (drain["preStopSeconds"] > 0) == ("lifecycle" in server(rendered))


def test_a_termination_grace_that_is_too_small_is_refused_with_the_least() -> None:
    assert "terminationGracePeriodSeconds: expected more than 38" in refused({"terminationGracePeriodSeconds": 38})
    assert 39 == pod(render({"terminationGracePeriodSeconds": 39}))["terminationGracePeriodSeconds"]


def test_the_sleep_before_a_stop_can_be_a_command() -> None:
    container = server(render({"drain": {"preStop": "exec"}}))
    assert {"exec": {"command": ["sleep", "10"]}} == container["lifecycle"]["preStop"]


def test_the_grace_is_longer_than_the_longest_auction() -> None:
    longest = {"config": {"exchange": {"tmax_max_ms": 2000}}}
    assert "drain.graceSeconds: expected more than" in refused({**longest, "drain": {"graceSeconds": 2}})
    assert render({**longest, "drain": {"graceSeconds": 3}})


# 4, Services


def test_one_service_has_an_address_and_one_has_those_of_all_pods() -> None:
    address, headless = one(DEFAULT, "Service"), one(DEFAULT, "Service", "auction-headless")
    assert "None" == headless["spec"]["clusterIP"]
    assert "clusterIP" not in address["spec"]
    for service in (address, headless):
        protocols = {port["name"]: port["appProtocol"] for port in service["spec"]["ports"]}
        assert {"grpc": "kubernetes.io/h2c", "http": "http"} == protocols
        assert {"grpc", "http"} == {port["targetPort"] for port in service["spec"]["ports"]}


def test_ports_of_services_are_those_the_server_listens_on(tmp_path: Path) -> None:
    listening = configuration(DEFAULT, tmp_path).server
    ports = {port["name"]: port["containerPort"] for port in server(DEFAULT)["ports"]}
    assert {"grpc": listening.port, "http": listening.http_port} == ports
    assert "0.0.0.0" == listening.host


def test_a_route_sends_the_exchanges_calls_to_the_service() -> None:
    assert [] == every(DEFAULT, "GRPCRoute")
    (rule,) = one(render(ci("grpcroute")), "GRPCRoute")["spec"]["rules"]
    assert {"type": "Exact", "service": "auction.v1.Exchange", "method": "Auction"} == rule["matches"][0]["method"]
    assert [{"name": "auction", "port": 7400}] == rule["backendRefs"]
    assert "grpcRoute.parentRefs" in refused({"grpcRoute": {"enabled": True}})


# 5 and 14, the server's settings; ConfigMaps


def test_every_setting_of_the_server_can_be_given_but_those_the_chart_sets() -> None:
    own = {f"server.{name}" for name in ("host", "port", "http_port", "workers", "notice_ms", "drain_s")} | {"log.dir"}
    own |= {f"server.{name}" for name in CONNECTIONS.values()}
    own |= {f"server.{port}.{name}" for port in ("tls", "http_tls") for name in ("certificate", "key", "authorities")}
    with Chart.load(CHART) as chart:
        schema = chart.schema
    assert schema is not None
    assert {name for name, _ in every_setting()} - own == set(_settings(schema, schema["definitions"]["Config"]))


def _settings(schema: dict[str, Any], node: dict[str, Any], written: str = "") -> list[str]:
    found = []
    for name, below in node["properties"].items():
        path = f"{written}.{name}" if written else name
        item = _resolved(schema, below.get("items", {}))
        below = _resolved(schema, below)
        if "properties" in below:
            found += _settings(schema, below, path)
        elif "properties" in item:
            found += _settings(schema, item, f"{path}[]")
        else:
            found.append(path)
    return found


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for reference in [node, *node.get("allOf", []), *node.get("anyOf", [])]:
        if "$ref" in reference:
            resolved: dict[str, Any] = schema["definitions"][reference["$ref"].rpartition("/")[2]]
            return resolved
    return node


@pytest.mark.parametrize("setting", ["max_connection_age_s", "max_concurrent_streams", "workers"])
def test_a_setting_that_the_server_does_not_have_is_refused_and_never_rendered(setting: str) -> None:
    assert setting in refused({"config": {"server": {setting: 60}}})


CONNECTIONS = {
    "ageSeconds": "connection_age_s",
    "graceSeconds": "connection_grace_s",
    "keepaliveSeconds": "keepalive_s",
    "keepaliveTimeoutSeconds": "keepalive_timeout_s",
    "streams": "connection_streams",
}


@pytest.mark.parametrize("value", CONNECTIONS)
def test_how_connections_live_reaches_the_server(value: str, tmp_path: Path) -> None:
    assert 300 == configuration(render(), tmp_path).server.connection_age_s
    config = configuration(render({"connections": {value: 61}}), tmp_path)
    assert 61 == getattr(config.server, CONNECTIONS[value])


def test_connections_may_live_for_ever(tmp_path: Path) -> None:
    assert configuration(render({"connections": {"ageSeconds": None}}), tmp_path).server.connection_age_s is None


def test_a_connection_is_not_cut_off_before_the_longest_auction_ends() -> None:
    longest = {"config": {"exchange": {"tmax_max_ms": 2000}}}
    assert "connections.graceSeconds: expected more than" in refused({**longest, "connections": {"graceSeconds": 2}})
    assert render({**longest, "connections": {"graceSeconds": 3}})


def test_what_the_chart_sets_itself_is_not_taken() -> None:
    for setting in CONNECTIONS.values():
        assert setting in refused({"config": {"server": {setting: 60}}})
    assert "drain_s" in refused({"config": {"server": {"drain_s": 5}}})
    assert "'dir'" in refused({"config": {"log": {"dir": "/elsewhere"}}})


def test_workers_reach_the_server_and_their_logs_fit_into_the_volume(tmp_path: Path) -> None:
    assert 1 == configuration(DEFAULT, tmp_path).server.workers
    room = {"resources": {"limits": {"memory": "8Gi"}}}
    config = configuration(render({"workers": 8, **room}), tmp_path)
    assert 8 == config.server.workers
    keep = config.log.keep_bytes
    assert keep is not None
    assert 2 * 8 * config.log.segment_bytes <= keep <= 4096 * 2**20 - 8 * config.log.segment_bytes
    assert "raise eventLog.sizeMi" in refused({"workers": 32, **room})


def test_workers_that_memory_would_not_hold_are_refused() -> None:
    assert render({"workers": 2})
    assert "resources.limits.memory: expected at least 610Mi for 3 workers, was 512Mi" in refused({"workers": 3})
    assert render({"workers": 3, "resources": {"limits": {"memory": "1Gi"}}})


@pytest.mark.parametrize("setting", [f"{section}.{name}" for section, own in OWN.items() for name in own])
def test_no_variable_takes_the_place_of_what_the_chart_sets(setting: str) -> None:
    name = f"AUCTION_{setting.replace('.', '__').upper()}"
    assert f"expected nothing that the chart sets itself, was {name}" in refused({"extraEnv": [{"name": name}]})


def test_bidders_floors_and_rules_reach_the_server_as_they_were_written(tmp_path: Path) -> None:
    values = ci("bidders")
    config = configuration(render(values), tmp_path)
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump(values["config"]))
    assert load(given, {}).rules() == config.rules()
    assert [bidder.name for bidder in config.bidders] == ["dsp-a", "dsp-b"]
    assert 128 == config.server.in_flight
    assert "never" == config.log.fsync


def test_amounts_survive_as_decimals(tmp_path: Path) -> None:
    exchange = {"min_price": 0.000001, "max_cpm": "1000000000", "soft_floor": 0.1, "increment": {"USD": 0.123456}}
    rules = configuration(render({"config": {"exchange": exchange}}), tmp_path).rules().exchange
    assert (1, 10**15, 100_000, {"USD": 123_456}) == (
        rules.min_price,
        rules.max_cpm,
        rules.soft_floor,
        {"USD": rules.increment["USD"]},
    )


def test_the_configuration_is_mounted_as_a_directory_whose_file_changes() -> None:
    container, volumes = server(DEFAULT), pod(DEFAULT)["volumes"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    assert "subPath" not in mount
    assert f"{mount['mountPath']}/auction.yaml" == container["args"][container["args"].index("--config") + 1]
    assert {"name": "config", "configMap": {"name": "auction"}} in volumes


# One change each; whether it needs a restart is the server's word.
CHANGES: dict[str, dict[str, Any]] = {
    "a bidder": {"bidders": BIDDERS[:1]},
    "a floor": {"floors": {"default": 0.5}},
    "a rule": {"exchange": {"tmax_ms": 90}},
    "rates": {"fx": {"rates": {"EUR": 0.9}}},
    "a limit": {"limits": {"imps": 10}},
    "in flight": {"server": {"in_flight": 32}},
    "fsync": {"log": {"fsync": "always"}},
    "request bytes": {"limits": {"request_bytes": 1000}},
    "inflation": {"limits": {"inflation_ratio": 10}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pods_are_replaced_only_for_what_the_server_does_not_read_again(change: dict[str, Any], tmp_path: Path) -> None:
    changed = render({"config": change})
    before, after = configuration(DEFAULT, tmp_path), configuration(changed, tmp_path)
    assert before != after
    template = one(DEFAULT, "Deployment")["spec"]["template"]
    assert bool(list(what_needs_restart(before, after))) == (template != one(changed, "Deployment")["spec"]["template"])


def test_rules_that_no_configmap_takes_are_refused() -> None:
    rules = [{"floor": 1, "domain": f"{row:05}.{'x' * 200}.example"} for row in range(5000)]
    assert "config: expected at most 1000000 bytes" in refused({"config": {"floors": {"rules": rules}}})


# 6 to 8, scaling


@pytest.mark.parametrize(
    ("kind", "rendered"),
    [("none", []), ("hpa", ["HorizontalPodAutoscaler"]), ("keda", ["ScaledObject"])],
)
def test_there_is_never_more_than_one_autoscaler(kind: str, rendered: list[str]) -> None:
    kinds = [found["kind"] for found in render({**SCRAPED, "autoscaling": {"kind": kind}})]
    assert rendered == [kind for kind in kinds if kind in ("HorizontalPodAutoscaler", "ScaledObject")]


def test_the_hpa_goes_by_the_servers_own_cpu_fast_up_and_slowly_down() -> None:
    spec = one(DEFAULT, "HorizontalPodAutoscaler")["spec"]
    (metric,) = spec["metrics"]
    assert ("server", "cpu") == (metric["containerResource"]["container"], metric["containerResource"]["name"])
    assert "cpu" in server(DEFAULT)["resources"]["requests"]
    assert 0 == spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"]
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_the_hpa_can_go_by_a_metric_of_the_pods() -> None:
    (metric,) = one(render(ci("hpa-metric")), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert "auction_auctions_per_second" == metric["pods"]["metric"]["name"]


def test_fewer_pods_at_most_than_at_least_are_refused() -> None:
    assert "autoscaling.maxReplicas" in refused({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}})


def test_keda_asks_for_the_total_of_stable_pods() -> None:
    (trigger,) = one(render(ci("keda")), "ScaledObject")["spec"]["triggers"]
    assert "AverageValue" == trigger["metricType"]
    expected = 'sum(rate(auction_auctions_total{namespace="ads",release="auction",track="stable"}[2m]))'
    assert expected == trigger["metadata"]["query"]


@pytest.mark.parametrize(
    "query",
    ["avg(rate(auction_auctions_total[2m]))", "sum(rate(auction_auctions_total[2m])) / count(auction_build_info)"],
)
def test_a_query_that_divides_what_keda_divides_is_refused(query: str) -> None:
    keda: dict[str, Any] = {"kind": "keda", "keda": {"query": query}}
    assert "expected the total over all pods" in refused({"autoscaling": keda})
    keda["keda"]["metricType"] = "Value"
    assert render({"autoscaling": keda})


def test_an_autoscaler_that_could_never_scale_is_refused() -> None:
    assert "autoscaling.keda.query: expected one, or monitoring.kind" in refused({"autoscaling": {"kind": "keda"}})
    without = {"resources": {"requests": {"cpu": None}}}
    assert "resources.requests.cpu: expected one" in refused(without)
    assert render({**without, "autoscaling": {"kind": "none"}})


@pytest.mark.parametrize(
    ("values", "budgets"),
    [
        ({}, 1),
        ({"autoscaling": {"minReplicas": 1}}, 0),
        ({"autoscaling": {"kind": "none"}, "replicas": 1}, 0),
        ({"autoscaling": {"kind": "none"}, "replicas": 2}, 1),
        ({"podDisruptionBudget": {"enabled": False}}, 0),
        ({"podDisruptionBudget": {"maxUnavailable": 2}}, 1),
    ],
)
def test_a_budget_never_stands_over_a_single_pod(values: dict[str, Any], budgets: int) -> None:
    assert budgets == len(every(render(values), "PodDisruptionBudget"))


def test_a_budget_lets_one_pod_go_at_a_time_and_those_that_are_ill() -> None:
    spec = one(DEFAULT, "PodDisruptionBudget")["spec"]
    assert 1 == spec["maxUnavailable"]
    assert "AlwaysAllow" == spec["unhealthyPodEvictionPolicy"]
    assert "stable" == spec["selector"]["matchLabels"]["track"]


@pytest.mark.parametrize("none", [0, "0%"])
def test_a_budget_that_would_block_every_drain_is_refused(none: int | str) -> None:
    assert "podDisruptionBudget.maxUnavailable" in refused({"podDisruptionBudget": {"maxUnavailable": none}})


# 9, scheduling


def test_pods_are_spread_over_zones_and_hosts() -> None:
    (zones,) = pod(DEFAULT)["topologySpreadConstraints"]
    assert ["pod-template-hash"] == zones["matchLabelKeys"]
    assert "topology.kubernetes.io/zone" == zones["topologyKey"]
    anti = pod(DEFAULT)["affinity"]["podAntiAffinity"]
    (hosts,) = anti["preferredDuringSchedulingIgnoredDuringExecution"]
    assert "kubernetes.io/hostname" == hosts["podAffinityTerm"]["topologyKey"]
    labels = one(DEFAULT, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (zones["labelSelector"], hosts["podAffinityTerm"]["labelSelector"]):
        assert selector["matchLabels"].items() <= labels.items()


def test_priority_nodes_and_taints_are_taken() -> None:
    spec = pod(render(ci("extra")))
    assert "high" == spec["priorityClassName"]
    assert {"kubernetes.io/arch": "amd64"} == spec["nodeSelector"]
    assert [{"operator": "Exists"}] == spec["tolerations"]
    assert "DoNotSchedule" == spec["topologySpreadConstraints"][0]["whenUnsatisfiable"]


# 10, security


def test_every_pod_is_as_restricted_as_kubernetes_can_ask() -> None:
    # The profile `restricted` of the Pod Security Standards, and a root that cannot be written.
    for spec in (pod(DEFAULT), one(DEFAULT, "Pod", "auction-test")["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert 65532 == spec["securityContext"]["runAsUser"]
        assert {"type": "RuntimeDefault"} == spec["securityContext"]["seccompProfile"]
        assert spec["automountServiceAccountToken"] is False
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            contained = container["securityContext"]
            assert contained["allowPrivilegeEscalation"] is False
            assert contained["readOnlyRootFilesystem"] is True
            assert {"drop": ["ALL"]} == contained["capabilities"]


def test_what_the_server_writes_is_an_emptydir(tmp_path: Path) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in server(DEFAULT)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(DEFAULT)["volumes"]}
    assert configuration(DEFAULT, tmp_path).log.dir == mounts["log"]
    assert "/tmp" == mounts["tmp"]
    assert all("emptyDir" in volumes[name] for name in ("tmp", "log"))


def test_the_log_is_cut_before_the_pod_would_be_evicted(tmp_path: Path) -> None:
    rendered = render({"eventLog": {"sizeMi": 1024}})
    log = configuration(rendered, tmp_path).log
    assert log.keep_bytes is not None
    assert log.keep_bytes + log.segment_bytes <= 1024 * 2**20
    assert "the pod would be evicted" in refused({"config": {"log": {"keep_bytes": 2**32}}})
    small = {"log": {"segment_bytes": 2**28}}
    assert "config.log.keep_bytes: expected at least twice" in refused({"config": small, "eventLog": {"sizeMi": 600}})


def test_without_a_log_there_is_no_volume_for_one(tmp_path: Path) -> None:
    rendered = render(ci("nolog"))
    assert configuration(rendered, tmp_path).log.dir is None
    assert {"config", "tmp"} == {volume["name"] for volume in pod(rendered)["volumes"]}


def test_variables_that_kubernetes_makes_of_services_are_left_out() -> None:
    assert pod(DEFAULT)["enableServiceLinks"] is False


# 11, identity


def test_each_kind_of_work_has_a_service_account_whose_name_no_release_changes() -> None:
    names = {"auction-server", "auction-jobs", "auction-notebooks"}
    for rendered in (DEFAULT, render(name="another")):
        assert names == {account["metadata"]["name"] for account in every(rendered, "ServiceAccount")}
        assert all(account["automountServiceAccountToken"] is False for account in every(rendered, "ServiceAccount"))
    assert "auction-server" == pod(DEFAULT)["serviceAccountName"]


def test_two_releases_in_a_namespace_share_no_object_and_no_pod() -> None:
    borrowed = {"serviceAccounts": {work: {"create": False} for work in ("server", "jobs", "notebooks")}}
    first = render({**ci("podmonitor"), "canary": {"enabled": True}})
    second = render({**ci("podmonitor"), **borrowed, "canary": {"enabled": True}}, name="second")
    names = [{(found["kind"], found["metadata"]["name"]) for found in each} for each in (first, second)]
    assert not names[0] & names[1]
    for one_of, other in ((first, second), (second, first)):
        pods = [found["spec"]["template"]["metadata"]["labels"] for found in every(other, "Deployment")]
        selecting = [
            each
            for kind in ("Service", "Deployment", "PodDisruptionBudget", "PodMonitor")
            for each in every(one_of, kind)
        ]
        for found in selecting:
            selector = found["spec"]["selector"]
            chosen = selector.get("matchLabels", selector)
            assert chosen
            assert not any(chosen.items() <= labels.items() for labels in pods)


def test_irsa_names_the_role_of_each_service_account() -> None:
    rendered = render(ci("irsa"))
    for work in ("server", "jobs"):
        annotations = one(rendered, "ServiceAccount", f"auction-{work}")["metadata"]["annotations"]
        assert f"arn:aws:iam::111122223333:role/auction-{work}" == annotations["eks.amazonaws.com/role-arn"]
    assert 2 == len(every(rendered, "ServiceAccount"))


def test_irsa_without_a_role_is_refused_by_the_schema() -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError, match="roleArn"):
        chart.validate_schema({"aws": {"identity": "irsa"}})


@pytest.mark.parametrize("identity", ["none", "podIdentity"])
def test_a_role_that_would_mean_nothing_is_refused(identity: str) -> None:
    role = {"server": {"roleArn": "arn:aws:iam::111122223333:role/auction"}}
    assert "expected none with aws.identity" in refused({"aws": {"identity": identity}, "serviceAccounts": role})
    assert "roleArn" in refused({"aws": {"identity": "irsa"}, "serviceAccounts": {"server": {"roleArn": "auction"}}})


def test_pod_identity_annotates_nothing() -> None:
    for account in every(render(ci("podidentity")), "ServiceAccount"):
        assert "annotations" not in account["metadata"]


# 12, network


def ways(values: dict[str, Any], direction: str) -> list[tuple[str, set[Any]]]:
    spec = one(render(values), "NetworkPolicy")["spec"]
    peers = {"ingress": "from", "egress": "to"}[direction]
    return [(json.dumps(rule[peers]), {port["port"] for port in rule["ports"]}) for rule in spec[direction]]


def test_one_switch_closes_the_network() -> None:
    assert [] == every(DEFAULT, "NetworkPolicy")
    spec = one(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert ["Ingress", "Egress"] == spec["policyTypes"]
    labels = one(DEFAULT, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_callers_reach_both_ports_and_scrapers_one() -> None:
    callers, scrapers, _ = ways(ci("networkpolicy"), "ingress")
    assert {"grpc", "http"} == callers[1]
    assert {"http"} == scrapers[1]
    assert "monitoring" in scrapers[0]


def test_the_way_out_is_names_bidders_rates_redis_and_the_store() -> None:
    names, bidders, redis, store = ways(ci("networkpolicy"), "egress")
    assert {53} == names[1]
    # Of dsp-a by name, dsp-b and the rates by https, dsp-c by name.
    assert {7501, 443, 8080} == bidders[1]
    assert "169.254.0.0/16" in bidders[0]
    assert ("10.1.2.3/32" in redis[0], redis[1]) == (True, {6379})
    assert ("10.9.0.0/16" in store[0], store[1]) == (True, {443})


def test_a_bidder_of_the_canary_alone_is_let_through() -> None:
    values = {
        "networkPolicy": {"enabled": True},
        "canary": {"enabled": True, "config": {"bidders": [{"name": "new", "grpc": "new:9999"}]}},
    }
    assert any({9999} == ports for _, ports in ways(values, "egress"))


def test_the_agent_of_pod_identity_is_reached_only_with_it() -> None:
    agent = ('[{"ipBlock": {"cidr": "169.254.170.23/32"}}]', {80})
    assert agent in ways(ci("podidentity"), "egress")
    assert agent not in ways(ci("networkpolicy"), "egress")


NOBODY: dict[str, Any] = {"callers": [], "scrapers": [], "dns": [], "bidders": []}


def test_an_empty_list_of_peers_is_nobody_and_not_everybody() -> None:
    values = {"networkPolicy": {"enabled": True, **NOBODY}, "config": {"bidders": BIDDERS}, "test": {"enabled": False}}
    spec = one(render(values), "NetworkPolicy")["spec"]
    assert ["Ingress", "Egress"] == spec["policyTypes"]
    assert not spec["ingress"]
    assert not spec["egress"]


def test_the_pod_of_helm_test_may_call_whoever_else_may_not() -> None:
    rendered = render({"networkPolicy": {"enabled": True, **NOBODY}})
    (rule,) = one(rendered, "NetworkPolicy")["spec"]["ingress"]
    (peer,) = rule["from"]
    assert (
        peer["podSelector"]["matchLabels"].items() <= one(rendered, "Pod", "auction-test")["metadata"]["labels"].items()
    )
    assert {"grpc", "http"} == {port["port"] for port in rule["ports"]}


def test_irsa_reaches_sts_and_nobody_else_needs_to() -> None:
    closed = {"enabled": True, **NOBODY}
    assert [{443}] == [ports for _, ports in ways({**ci("irsa"), "networkPolicy": closed}, "egress")]
    assert not one(render({"networkPolicy": closed}), "NetworkPolicy")["spec"]["egress"]


# 13, monitoring; alerts and the dashboard have tests of their own


@pytest.mark.parametrize(
    ("values", "kind", "endpoints"),
    [("podmonitor", "PodMonitor", "podMetricsEndpoints"), ("servicemonitor", "ServiceMonitor", "endpoints")],
)
def test_a_monitor_scrapes_each_pod_once_and_labels_release_and_track(values: str, kind: str, endpoints: str) -> None:
    rendered = render(ci(values))
    spec = one(rendered, kind)["spec"]
    (endpoint,) = spec[endpoints]
    labels = {relabeling["targetLabel"]: relabeling for relabeling in endpoint["relabelings"]}
    assert "auction" == labels["release"]["replacement"]
    assert ["__meta_kubernetes_pod_label_track"] == labels["track"]["sourceLabels"]
    selector = spec["selector"]["matchLabels"].items()
    if kind == "PodMonitor":
        assert selector <= one(rendered, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    else:
        services = [found for found in every(rendered, "Service") if selector <= found["metadata"]["labels"].items()]
        assert ["auction"] == [service["metadata"]["name"] for service in services]
        assert endpoint["port"] in {port["name"] for port in services[0]["spec"]["ports"]}


def test_nothing_of_an_operator_is_rendered_by_default() -> None:
    assert all(found["apiVersion"].partition("/")[0] in BUILT_IN for found in DEFAULT)


BUILT_IN = {"v1", "apps", "autoscaling", "policy", "networking.k8s.io"}


# 15, secrets


def test_secrets_of_bidders_come_from_a_secret_that_is_there(tmp_path: Path) -> None:
    rendered = render(ci("secrets"))
    environ = environment(rendered, {"dsp-b": "k1", "dsp-b-token": "k2"})
    plain, secret = configuration(rendered, tmp_path, **environ).bidders
    assert {} == plain.headers
    assert {"x-api-key": "k1", "authorization": "k2"} == secret.headers


def environment(objects: list[dict[str, Any]], secrets: Mapping[str, str]) -> dict[str, str]:
    """Give the server's environment as the kubelet would."""
    return {
        entry["name"]: entry["value"] if "value" in entry else secrets[entry["valueFrom"]["secretKeyRef"]["key"]]
        for entry in server(objects).get("env", [])
    }


@pytest.mark.parametrize(
    "rows",
    [[1, 0], [1], [0], [], [0, 2], [2, 0]],
    ids=["swapped", "alone", "gone", "none", "replaced", "replaced, swapped"],
)
def test_a_secret_never_reaches_another_bidder_whatever_the_file_says_later(rows: list[int], tmp_path: Path) -> None:
    bidders = [*BIDDERS, {"name": "dsp-c", "http": "https://dsp-c.example/bid"}]
    before = render(
        {
            "config": {"bidders": bidders},
            "bidderSecrets": [{"bidder": "dsp-b", "header": "x-api-key", "key": "dsp-b"}],
            "secrets": {"existingSecret": "bidders"},
        }
    )
    # The pod's environment is that of its start; its file is already the next one.
    file = tmp_path / "auction.yaml"
    file.write_text(yaml.safe_dump({"bidders": [bidders[row] for row in rows]}))
    try:
        later = load(file, environment(before, {"dsp-b": "secret"})).bidders
    except ConfigFaults:
        return  # refused whole: the old configuration stays
    told = [(bidder.name, bidder.http) for bidder in later if "secret" in bidder.headers.values()]
    assert [("dsp-b", BIDDERS[1]["http"])] == told


def test_a_secret_for_nobody_or_from_nowhere_is_refused() -> None:
    entry = [{"bidder": "dsp-x", "header": "x-api-key", "key": "k"}]
    config = {"bidders": BIDDERS}
    assert "expected secrets.existingSecret" in refused({"config": config, "bidderSecrets": entry})
    somewhere = {"config": config, "bidderSecrets": entry, "secrets": {"existingSecret": "s"}}
    assert "expected the name of a bidder in config.bidders, was dsp-x" in refused(somewhere)


def test_an_external_secret_is_what_the_server_reads() -> None:
    rendered = render(ci("externalsecret"))
    spec = one(rendered, "ExternalSecret")["spec"]
    (entry,) = [entry for entry in server(rendered)["env"] if "valueFrom" in entry]
    assert {"name": spec["target"]["name"], "key": spec["data"][0]["secretKey"]} == entry["valueFrom"]["secretKeyRef"]
    both = {**ci("externalsecret"), "secrets": {**ci("externalsecret")["secrets"], "existingSecret": "s"}}
    assert "were both" in refused(both)


@pytest.mark.parametrize("file", CI, ids=lambda path: path.name)
def test_no_secret_is_made_and_rendering_twice_gives_the_same(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    assert [] == every(render(values), "Secret")
    assert render(values) == render(values)


# TLS

TLS_PORTS: dict[str, Any] = {"grpc": {"certificateSecret": "a"}, "http": {"certificateSecret": "b"}}
WITH_TLS = render(ci("tls"))


def test_certificates_reach_the_server_where_their_secrets_are_mounted(tmp_path: Path) -> None:
    config = configuration(WITH_TLS, tmp_path)
    mounted, volumes = secrets_mounted(WITH_TLS), "/etc/auction-tls"
    assert {volumes + "/" + secret: secret for secret in mounted.values()} == mounted
    grpc, http, dsp_a, dsp_b = config.server.tls, config.server.http_tls, config.bidders[0].tls, config.bidders[1].tls
    assert grpc is not None
    assert (f"{volumes}/auction-tls/tls.crt", f"{volumes}/auction-tls/tls.key") == (grpc.certificate, grpc.key)
    assert f"{volumes}/callers/ca.pem" == grpc.authorities
    assert http is not None
    assert (grpc.certificate, grpc.key, None) == (http.certificate, http.key, http.authorities)
    assert dsp_a is not None
    assert "bid.dsp-a.example" == dsp_a.name
    assert (f"{volumes}/dsp-a-client/tls.crt", f"{volumes}/dsp-a-client/tls.key") == (dsp_a.certificate, dsp_a.key)
    assert f"{volumes}/dsp-a-authorities/ca.crt" == dsp_a.authorities
    assert dsp_b is None
    assert {"auction-tls", "callers", "dsp-a-client", "dsp-a-authorities"} == set(mounted.values())


def secrets_mounted(objects: list[dict[str, Any]]) -> dict[str, str]:
    """Give the Secrets that the server sees, by where."""
    volumes = {volume["name"]: volume["secret"] for volume in pod(objects)["volumes"] if "secret" in volume}
    return {
        mount["mountPath"]: volumes[mount["name"]]["secretName"]
        for mount in server(objects)["volumeMounts"]
        if mount["name"] in volumes
    }


def test_a_secret_is_a_directory_that_the_server_alone_may_read_and_that_is_renewed() -> None:
    secrets = {volume["name"]: volume["secret"] for volume in pod(WITH_TLS)["volumes"] if "secret" in volume}
    mounts = [mount for mount in server(WITH_TLS)["volumeMounts"] if mount["name"] in secrets]
    assert len(secrets) == len(mounts) > 0
    for mount in mounts:
        assert mount["readOnly"]
        assert "subPath" not in mount
        # Below the configuration no directory could be made: it is mounted read-only.
        assert not mount["mountPath"].startswith("/etc/auction/")
    assert {0o440} == {secret["defaultMode"] for secret in secrets.values()}
    assert 65532 == pod(WITH_TLS)["securityContext"]["fsGroup"]


def test_without_tls_no_secret_is_mounted_and_nothing_says_tls(tmp_path: Path) -> None:
    assert {} == secrets_mounted(DEFAULT)
    listening = configuration(DEFAULT, tmp_path).server
    assert (None, None) == (listening.tls, listening.http_tls)


@pytest.mark.parametrize(
    ("ports", "readiness", "scheme"),
    [
        ([], "grpc", None),
        (["grpc"], "httpGet", None),
        (["http"], "grpc", "HTTPS"),
        (["grpc", "http"], "httpGet", "HTTPS"),
    ],
    ids=str,
)
def test_probes_ask_what_a_kubelet_can_ask(ports: list[str], readiness: str, scheme: str | None) -> None:
    container = server(render({"tls": {port: TLS_PORTS[port] for port in ports}}))
    assert readiness in container["readinessProbe"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        asked = container[probe].get("httpGet")
        assert asked is None or scheme == asked.get("scheme")
    assert {"path": "/readyz", "port": "http"}.items() <= container["readinessProbe"].get("httpGet", PLAIN).items()


PLAIN = {"path": "/readyz", "port": "http"}


def test_a_probe_of_the_json_port_never_needs_a_certificate() -> None:
    http = {**TLS_PORTS["http"], "authoritiesSecret": "callers"}
    assert "authoritiesSecret" in refused({"tls": {"http": http}})
    variable = "AUCTION_SERVER__HTTP_TLS__AUTHORITIES"
    assert f"expected nothing that the chart sets itself, was {variable}" in refused({"extraEnv": [{"name": variable}]})


def test_services_say_which_port_speaks_tls() -> None:
    for ports in ([], ["grpc"], ["http"]):
        rendered = render({"tls": {port: TLS_PORTS[port] for port in ports}})
        expected = {"grpc": "https" if "grpc" in ports else "kubernetes.io/h2c"}
        expected["http"] = "https" if "http" in ports else "http"
        for service in every(rendered, "Service"):
            assert expected == {port["name"]: port["appProtocol"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(
    ("kind", "endpoints"), [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]
)
def test_a_monitor_believes_the_authority_of_the_certificate_by_the_services_name(kind: str, endpoints: str) -> None:
    values: dict[str, Any] = {"monitoring": {"kind": kind[0].lower() + kind[1:]}, "tls": {"grpc": TLS_PORTS["grpc"]}}
    (plain,) = one(render(values), kind)["spec"][endpoints]
    assert not {"scheme", "tlsConfig"} & plain.keys()
    values["tls"] = TLS_PORTS
    (endpoint,) = one(render(values), kind)["spec"][endpoints]
    assert "https" == endpoint["scheme"]
    assert {"serverName": "auction.ads.svc", "ca": {"secret": {"name": "b", "key": "ca.crt"}}} == endpoint["tlsConfig"]
    values["tls"] = {"http": {**TLS_PORTS["http"], "authorityKey": ""}}
    (public,) = one(render(values), kind)["spec"][endpoints]
    assert {"serverName": "auction.ads.svc"} == public["tlsConfig"]


@pytest.mark.parametrize(
    ("ports", "where"),
    [
        (["grpc"], ["--http", "http://auction:7480"]),
        (["http"], ["--target", "auction:7400"]),
        (["grpc", "http"], ["--http", "https://auction.ads.svc:7480"]),
    ],
    ids=str,
)
def test_helm_test_calls_what_it_can_and_believes_the_authority(ports: list[str], where: list[str]) -> None:
    spec = one(render({"tls": {port: TLS_PORTS[port] for port in ports}}), "Pod", "auction-test")["spec"]
    (health,), (auction,) = spec["initContainers"], spec["containers"]
    assert ["call", "/etc/auction/request.json", *where, "--explain"] == auction["args"]
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    if "http" not in ports:
        assert (["http://auction:7480/readyz"], []) == (health["args"], secrets)
        return
    assert ["https://auction.ads.svc:7480/readyz"] == health["args"]
    # The authority, and never the key.
    assert [{"secretName": "b", "items": [{"key": "ca.crt", "path": "ca.crt"}]}] == secrets
    for container in [health, *([auction] if "grpc" in ports else [])]:
        (believed,) = container["env"]
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "authority"]
        assert ("SSL_CERT_FILE", f"{mount['mountPath']}/ca.crt") == (believed["name"], believed["value"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"tls": {"grpc": {"authoritiesSecret": "callers"}}},
            "tls.grpc.certificateSecret: expected one beside authoritiesSecret, was none",
        ),
        ({"tls": {"grpc": {"certificateSecret": "no/name"}}}, "certificateSecret"),
        ({"tls": {"bidders": [{"bidder": "dsp-b"}]}}, "tls"),
        (
            {"tls": {"bidders": [{"bidder": "dsp-x", "certificateSecret": "s"}]}, "config": {"bidders": BIDDERS}},
            "tls.bidders: expected the name of a bidder in config.bidders, was dsp-x",
        ),
        (
            {
                "tls": {"bidders": [{"bidder": "plain", "certificateSecret": "s"}]},
                "config": {"bidders": [{"name": "plain", "http": "http://plain.example/bid"}]},
            },
            "tls.bidders: expected a bidder with grpc or an https URL, was plain with http",
        ),
        (
            {
                "tls": {"bidders": [{"bidder": "own", "authoritiesSecret": "s"}]},
                "config": {"bidders": [{"name": "own", "grpc": "own:1", "tls": {"authorities": "/own.pem"}}]},
            },
            "tls.bidders: expected no tls.authorities in config.bidders of own",
        ),
    ],
)
def test_tls_that_could_not_work_is_refused(values: dict[str, Any], said: str) -> None:
    assert said in refused(values)


def test_a_running_pod_never_takes_another_secret_for_a_bidders() -> None:
    # Its volumes are those of its start; the file is already the next one.
    bidders = [{"name": name, "grpc": f"{name}:7501"} for name in ("dsp-a", "dsp-b")]
    shown = [{"bidder": name, "certificateSecret": f"{name}-client"} for name in ("dsp-a", "dsp-b")]
    before = secrets_mounted(render({"config": {"bidders": bidders}, "tls": {"bidders": shown}}))
    for later in (shown[::-1], shown[1:], [{**shown[0], "certificateSecret": "new"}]):
        text = one(render({"config": {"bidders": bidders}, "tls": {"bidders": later}}), "ConfigMap")["data"]
        for bidder in yaml.safe_load(text["auction.yaml"])["bidders"]:
            meant = {entry["bidder"]: entry["certificateSecret"] for entry in later}.get(bidder["name"])
            folder = bidder.get("tls", {}).get("certificate", "").removesuffix("/tls.crt")
            assert before.get(folder) == (meant if meant in before.values() else None)


def test_a_canary_shows_the_same_certificates(tmp_path: Path) -> None:
    rendered = render({**ci("tls"), "canary": {"enabled": True}})
    stable, canary = (configuration(rendered, tmp_path, name) for name in ("auction", "auction-canary"))
    assert (stable.server, stable.bidders) == (canary.server, canary.bidders)
    assert {volume["name"] for volume in pod(rendered)["volumes"]} - {"config"} == {
        volume["name"] for volume in pod(rendered, "auction-canary")["volumes"]
    } - {"config"}


# 16, canary


def test_a_canary_touches_no_stable_pod() -> None:
    values = ci("canary")
    with_canary = render(values)
    without = render({**values, "canary": {"enabled": False}})
    assert without == [found for found in with_canary if found["metadata"]["name"] != "auction-canary"]
    assert {"Deployment", "ConfigMap"} == {
        found["kind"] for found in with_canary if found["metadata"]["name"] == "auction-canary"
    }


def test_selectors_of_canary_and_stable_never_meet_and_services_select_both() -> None:
    rendered = render(ci("canary"))
    stable, canary = (one(rendered, "Deployment", name)["spec"] for name in ("auction", "auction-canary"))
    assert ("stable", "canary") == tuple(spec["selector"]["matchLabels"]["track"] for spec in (stable, canary))
    for spec in (stable, canary):
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        for service in every(rendered, "Service"):
            assert service["spec"]["selector"].items() <= labels.items()
            assert "track" not in service["spec"]["selector"]


def test_a_canary_has_its_own_image_rules_and_number_of_pods(tmp_path: Path) -> None:
    rendered = render(ci("canary"))
    assert "auction:0.2.0-rc.1" == server(rendered, "auction-canary")["image"]
    assert f"auction:{__version__}" == server(rendered)["image"]
    assert 1 == one(rendered, "Deployment", "auction-canary")["spec"]["replicas"]
    stable = configuration(rendered, tmp_path)
    canary = configuration(rendered, tmp_path, "auction-canary")
    assert (100, 90) == (stable.exchange.tmax_ms, canary.exchange.tmax_ms)
    assert stable.bidders == canary.bidders
    volumes = pod(rendered, "auction-canary")["volumes"]
    assert {"name": "config", "configMap": {"name": "auction-canary"}} in volumes


def test_nothing_scales_a_canary() -> None:
    assert "auction" == one(render(ci("canary")), "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]


# 18, helm test


def test_helm_test_asks_for_health_and_holds_an_auction() -> None:
    rendered = render()
    found = one(rendered, "Pod", "auction-test")
    assert "test" == found["metadata"]["annotations"]["helm.sh/hook"]
    (health,), (auction,) = found["spec"]["initContainers"], found["spec"]["containers"]
    assert ["http://auction:7480/readyz"] == health["args"]
    assert ["call", "/etc/auction/request.json", "--target", "auction:7400", "--explain"] == auction["args"]
    shared = one(rendered, "Service")["spec"]["selector"].items()
    assert not shared <= found["metadata"]["labels"].items(), "the Service would send it calls"
    hooked = one(rendered, "ConfigMap", "auction-test")
    assert request_bytes(hooked["data"]["request.json"].encode(), lenient=False, depth=32)


# 19, resources and what may be added


def test_a_pod_asks_for_a_core_without_a_limit_and_for_the_memory_that_it_may_take() -> None:
    resources = server(DEFAULT)["resources"]
    assert "1" == resources["requests"]["cpu"]
    assert "cpu" not in resources["limits"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_what_somebody_adds_is_there() -> None:
    values = ci("extra")
    rendered = render(values)
    container, spec = server(rendered), pod(rendered)
    assert values["extraEnv"][0] in container["env"]
    assert container["args"][-2:] == ["--port", "7400"]
    assert values["extraVolumeMounts"][0] in container["volumeMounts"]
    assert values["extraVolumes"][0] in spec["volumes"]
    assert values["extraContainers"][0] in spec["containers"]
    assert values["dnsConfig"] == spec["dnsConfig"]
    metadata = one(rendered, "Deployment")["spec"]["template"]["metadata"]
    assert "ads" == metadata["labels"]["team"]
    assert "false" == metadata["annotations"]["sidecar.example/inject"]
    assert {"by": "registry.example/auction"} == one(rendered, "ConfigMap", "auction-extra")["data"]
    assert one(rendered, "ConfigMap", "auction-more")
    assert container["image"].endswith("@sha256:" + "0" * 64)


def test_nobody_relabels_a_pod_out_of_its_selector() -> None:
    rendered = render({"podLabels": {"track": "mine", "app.kubernetes.io/instance": "mine"}})
    spec = one(rendered, "Deployment")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()

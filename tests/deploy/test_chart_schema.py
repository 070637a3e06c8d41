# What values the chart takes, and that all it renders of them is what Kubernetes, its operators and the server take.

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CI, KUBERNETES, ci, configuration, every, faults, one, refused, render
from helm_python import Chart, HelmError, lint

from auction import __version__
from deploy import values as described
from deploy.helmfile import laid_over
from deploy.values import CHART


def test_readme_and_schema_are_those_that_the_comments_give() -> None:
    assert described.table().strip() in (CHART / "README.md").read_text()
    assert described.schema() == (CHART / "values.schema.json").read_text()


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("a.c: expected a comment")):
        list(described.values("# A.\na:\n  # B.\n  b: 1\n\n  c: 2\n"))


@pytest.mark.parametrize(
    "path", [[], ["drain"], ["image"], ["autoscaling", "keda"], ["config"], ["monitoring", "rules"]]
)
def test_an_unknown_value_is_refused_by_name_at_every_level(path: list[str]) -> None:
    values: dict[str, Any] = {"unheardOf": 1}
    for name in reversed(path):
        values = {name: values}
    assert "unheardOf" in refused(values)


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "two"},
        {"autoscaling": {"kind": "both"}},
        {"config": {"bidders": [{"name": "dsp-a"}]}},
        {"config": {"bidders": [{"name": "dsp-a", "grpc": "a:1", "http": "http://a"}]}},
        {"config": {"exchange": {"tmax_ms": 0}}},
        {"config": {"floors": {"rules": [{"country": "GBR"}]}}},
        {"image": {"digest": "latest"}},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_before_anything_is_rendered(values: dict[str, Any]) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError):
        chart.validate_schema(values)


def test_the_chart_is_of_this_version_of_the_software() -> None:
    with Chart.load(CHART) as chart:
        assert __version__ == chart.metadata["appVersion"]
        assert ">=1.30.0-0" == chart.metadata["kubeVersion"]


@pytest.mark.parametrize("file", CI, ids=lambda path: path.name)
def test_what_is_rendered_fits_every_supported_kubernetes(file: Path) -> None:
    rendered = render(yaml.safe_load(file.read_text()))
    refusals = {
        (version, found["kind"], found["metadata"]["name"], fault)
        for version in KUBERNETES
        for found in rendered
        for fault in faults(found, version)
    }
    assert set() == refusals


@pytest.mark.parametrize("file", CI, ids=lambda path: path.name)
def test_helm_finds_nothing_to_say(file: Path) -> None:
    report = lint(CHART, yaml.safe_load(file.read_text()), strict=True)
    assert [] == [said for said in report["messages"] if said["severity"] > 1]


@pytest.mark.parametrize("file", CI, ids=lambda path: path.name)
def test_every_configuration_that_is_rendered_is_one_the_server_takes(file: Path, tmp_path: Path) -> None:
    rendered = render(yaml.safe_load(file.read_text()))
    for deployment in every(rendered, "Deployment"):
        configuration(rendered, tmp_path, deployment["metadata"]["name"])


def test_a_field_that_kubernetes_or_an_operator_does_not_know_is_found() -> None:
    rendered = render({**ci("podmonitor"), "autoscaling": {"kind": "keda"}})
    for kind in ("Deployment", "PodMonitor", "ScaledObject"):
        wrong = copy.deepcopy(one(rendered, kind))
        wrong["spec"]["unheardOf"] = 1
        assert [] == faults(one(rendered, kind), "1.37")
        assert any("unheardOf" in fault for fault in faults(wrong, "1.37"))


def test_each_value_that_switches_something_on_has_a_ci_file() -> None:
    # Every kind of object that the chart can render is rendered by one of them.
    templates = "".join(path.read_text() for path in CHART.rglob("templates/**/*.*"))
    kinds = set(re.findall(r"^kind: (\w+)", templates, re.MULTILINE))
    seen = {found["kind"] for file in CI for found in render(yaml.safe_load(file.read_text()))}
    assert kinds <= seen


@pytest.mark.parametrize("file", CI, ids=lambda path: path.name)
def test_a_release_and_a_namespace_may_be_called_a_number_where_objects_have_a_name(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    rendered = render({**values, "fullnameOverride": "auction"}, name="2026", namespace="11")
    assert [] == [fault for found in rendered for fault in faults(found, KUBERNETES[-1])]


@pytest.mark.parametrize("name", ["2026", "a.b"])
def test_a_name_that_no_service_could_have_is_refused(name: str) -> None:
    with pytest.raises(HelmError, match="fullnameOverride: expected a name"):
        render(name=name)


def test_the_longest_release_name_fits_into_every_name_and_label() -> None:
    rendered = render(EVERYTHING, name="r" * 53)
    assert [] == [fault for found in rendered for fault in faults(found, KUBERNETES[-1])]
    for found in rendered:
        # A pod of a Deployment has two hashes behind its name, of 10 and 5 characters.
        hashes = len("-0123456789-01234") if found["kind"] == "Deployment" else 0
        assert len(found["metadata"]["name"]) + hashes <= 63
        assert all(len(label) <= 63 for label in found["metadata"]["labels"].values())


# With every feature on that goes together, so that each value is somewhere in what is rendered.
EVERYTHING: dict[str, Any] = {
    name: value
    for file in ("bidders", "canary", "externalsecret", "grpcroute", "keda-value", "networkpolicy", "podmonitor")
    for name, value in ci(file).items()
} | {"config": ci("externalsecret")["config"]}
LEAVES = [value for value in described.values((CHART / "values.yaml").read_text()) if not value.section]


def test_everything_at_once_is_what_kubernetes_takes() -> None:
    rendered = render(EVERYTHING)
    assert len({found["kind"] for found in rendered}) >= 12
    assert [] == [fault for found in rendered for fault in faults(found, KUBERNETES[-1])]


def rendered_or_refused(path: tuple[str, ...], value: Any) -> list[dict[str, Any]]:
    given = value
    for name in reversed(path):
        given = {name: given}
    try:
        return render(laid_over(EVERYTHING, given))
    except HelmError:
        return []


def test_a_value_that_a_null_takes_away_is_named() -> None:
    for value in described.values((CHART / "values.yaml").read_text()):
        given: Any = None
        for name in reversed(value.path):
            given = {name: given}
        if "null" in value.schema.get("type", ()):
            assert render(given)
        else:
            assert f"missing property '{value.path[-1]}'" in refused(given)


@pytest.mark.parametrize("text", ["true", "1e3", "null"])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    faulty = {
        (".".join(value.path), fault)
        for value in LEAVES
        if isinstance(value.default, str)
        for found in rendered_or_refused(value.path, text)
        for fault in faults(found, KUBERNETES[-1])
    }
    assert set() == faulty


def test_a_large_number_is_refused_or_written_out() -> None:
    for value in LEAVES:
        if type(value.default) is int or value.path == ("terminationGracePeriodSeconds",):
            assert "e+" not in json.dumps(rendered_or_refused(value.path, 1_048_576)), value.path


def test_the_labels_of_somebody_stand_beside_ours_and_never_twice() -> None:
    ours = {"app.kubernetes.io/version": "mine", "app.kubernetes.io/instance": "mine", "track": "mine"}
    values = laid_over(
        EVERYTHING,
        {
            "podLabels": ours,
            "podAnnotations": {"checksum/config": "mine"},
            "monitoring": {"labels": ours, "dashboard": {"labels": ours}},
        },
    )
    with Chart.load(CHART) as chart:
        for text in chart.render(values, name="auction", namespace="ads").values():
            assert [] == list(twice(yaml.compose_all(text, Loader=yaml.SafeLoader)))


def twice(nodes: Iterable[Any]) -> Iterator[str]:
    """Name the keys that a mapping has more than once: YAML of the API server's strict kind takes none."""
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            yield from {key for key in keys if keys.count(key) > 1}
            yield from twice(below for _, below in node.value)
        elif isinstance(node, yaml.SequenceNode):
            yield from twice(node.value)


@pytest.mark.parametrize(
    "values",
    [
        {"networkPolicy": {"callers": [{"podSelector": {"matchLabel": {"app": "ads"}}}]}},
        {"networkPolicy": {"callers": [{"ipBlock": {"cidr": "10.0.0.0/8", "expect": []}}]}},
        {"networkPolicy": {"callers": [{"ipBlock": {"cidr": "10.0.0.1"}}]}},
        {"autoscaling": {"behavior": {"scaleup": {}}}},
        {"scheduling": {"tolerations": [{"efect": "NoSchedule"}]}},
        {"dnsConfig": {"ndots": 2}},
        {"imagePullSecrets": [{"name": "a", "key": "b"}]},
        {"monitoring": {"interval": "15"}},
        {"monitoring": {"rules": {"objective": 0.9}}},
        {"eventLog": {"path": "log"}},
        {"podDisruptionBudget": {"maxUnavailable": -1}},
    ],
    ids=str,
)
def test_a_word_spelt_wrong_is_refused_where_a_value_is_taken_as_a_whole(values: dict[str, Any]) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError):
        chart.validate_schema(values)

# What values the chart takes, and that all it renders of them is what Kubernetes, its operators and the server take.

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CI, KUBERNETES, ci, configuration, every, faults, one, refused, render
from helm_python import Chart, HelmError, lint

from auction import __version__
from deploy import values as described
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
def test_a_release_and_a_namespace_may_be_called_a_number(file: Path) -> None:
    rendered = render(yaml.safe_load(file.read_text()), name="2026", namespace="11")
    assert [] == [fault for found in rendered for fault in faults(found, KUBERNETES[-1])]

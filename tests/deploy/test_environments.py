# Environments: what they are made of, what a change of them changes, and what is decided before a cluster is touched.

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import KUBERNETES, configuration, every, faults, one, render
from helm_python import lint

from deploy.helmfile import DEPLOY, environments, laid_over, releases
from deploy.manifests import difference, rendered
from deploy.rollout import (
    HISTORY,
    SAFELY,
    TIMEOUT,
    CommandFailed,
    beyond_a_canary,
    earlier,
    image_of,
    pods_of,
    stable,
    untried,
    with_canary,
)
from deploy.values import CHART
from tests.cluster.trials import TRIALS

ROOT = DEPLOY.parent
VERSION = "0.1.0"
FILES = [DEPLOY / "helmfile.yaml", *sorted((DEPLOY / "environments").glob("*.yaml"))]


def objects(environment: str) -> list[dict[str, Any]]:
    return [found for release in releases(environment) for found in rendered(release)]


# What they are made of


def test_there_are_three_and_each_is_a_file_with_values_of_its_own() -> None:
    assert ["dev", "stg", "prd"] == environments()
    for environment in environments():
        (release,) = releases(environment)
        assert ("auction", environment) == (release.name, release.context)
        assert [f"{name}.yaml" for name in ("every", environment)] == [layer.name for layer in release.layers]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_of_helmfile_are_plain_yaml(file: Path) -> None:
    assert "{{" not in file.read_text()
    assert any(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("environment", environments())
def test_every_environment_is_what_kubernetes_and_its_operators_take(environment: str) -> None:
    found = {
        f"{version} {each['kind']} {each['metadata']['name']}: {fault}"
        for version in KUBERNETES
        for each in objects(environment)
        for fault in faults(each, version)
    }
    assert set() == found


@pytest.mark.parametrize("environment", environments())
def test_helm_has_nothing_against_an_environment(environment: str) -> None:
    (release,) = releases(environment)
    report = lint(release.chart, release.values(), strict=True)
    assert [] == [said for said in report["messages"] if said["severity"] > 1]


@pytest.mark.parametrize("environment", environments())
def test_the_server_takes_the_configuration_of_every_environment(environment: str, tmp_path: Path) -> None:
    assert configuration(objects(environment), tmp_path).bidders


def test_what_stg_tries_are_the_objects_that_prd_has() -> None:
    stg, prd = ({(found["kind"], found["metadata"]["name"]) for found in objects(name)} for name in ("stg", "prd"))
    assert prd == stg


@pytest.mark.parametrize("environment", ["stg", "prd"])
def test_an_image_that_counts_is_named_by_its_digest(environment: str) -> None:
    containers = one(objects(environment), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert all("@sha256:" in container["image"] for container in containers)


def test_no_environment_has_a_secret_in_its_files() -> None:
    assert [] == [found for environment in environments() for found in every(objects(environment), "Secret")]


def test_layers_lie_over_one_another_key_by_key_and_lists_as_a_whole() -> None:
    below = {"a": {"b": 1, "c": 2}, "list": [1, 2], "kept": True}
    assert {"a": {"b": 1, "c": 3}, "list": [3], "kept": True} == laid_over(below, {"a": {"c": 3}, "list": [3]})
    assert {"a": {"b": 1, "c": 2}, "list": [1, 2], "kept": True} == below


def test_an_environment_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="ENV: expected one of dev, stg, prd, was uat"):
        releases("uat")


# What a change changes


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with `deploy/` in it, committed."""
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def manifests(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.manifests", *words]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def headings(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.endswith((" is changed", " is added", " is removed"))]


def test_without_a_change_a_diff_says_so(project: Path) -> None:
    assert "# dev: release auction: no change since HEAD\n\n" == manifests(project, "diff", "dev").stdout


def test_another_image_changes_the_deployment_and_the_test_that_runs_it(project: Path) -> None:
    edit(project / "deploy/environments/values/dev.yaml", "tag: 0.1.0", "tag: 0.2.0")
    said = manifests(project, "diff", "dev").stdout
    assert ["Deployment.apps ads/auction is changed", "Pod ads/auction-test is changed"] == headings(said)
    assert "-        image: registry.example/auction:0.1.0\n" in said
    assert "+        image: registry.example/auction:0.2.0\n" in said
    assert "no change since HEAD" in manifests(project, "diff", "stg").stdout


def test_a_change_of_the_chart_is_a_change_of_every_environment(project: Path) -> None:
    edit(project / "deploy/charts/auction/templates/_deployment.tpl", "runAsGroup: 65532", "runAsGroup: 65533")
    said = manifests(project, "diff", "--out", "out").stdout
    assert len(environments()) == said.count("+        runAsGroup: 65533")
    assert {"dev.diff", "stg.diff", "prd.diff"} == {file.name for file in (project / "out").iterdir()}


def test_a_line_of_the_configuration_is_a_line_of_the_diff(project: Path) -> None:
    edit(project / "deploy/environments/values/every.yaml", "tmax_ms: 120", "tmax_ms: 110")
    said = manifests(project, "diff", "prd").stdout
    assert ["ConfigMap ads/auction is changed"] == headings(said), "the server reads it again by itself"
    assert "-      tmax_ms: 120\n+      tmax_ms: 110\n" in said


def test_what_is_switched_off_is_removed_and_a_new_environment_is_all_added(project: Path) -> None:
    edit(project / "deploy/environments/values/stg.yaml", "networkPolicy: {enabled: true}", "networkPolicy: {}")
    assert ["NetworkPolicy.networking.k8s.io ads/auction is removed"] == headings(
        manifests(project, "diff", "stg").stdout
    )
    file = project / "deploy/environments/uat.yaml"
    file.write_text(
        (project / "deploy/environments/dev.yaml")
        .read_text()
        .replace("dev: {kubeContext: dev}", "uat: {kubeContext: uat}")
    )
    edit(project / "deploy/helmfile.yaml", "  dev: {}\n", "  dev: {}\n  uat: {}\n")
    edit(
        project / "deploy/helmfile.yaml",
        "  - environments/dev.yaml\n",
        "  - environments/dev.yaml\n  - environments/uat.yaml\n",
    )
    added = headings(manifests(project, "diff", "uat").stdout)
    assert "Deployment.apps ads/auction is added" in added
    assert all(heading.endswith(" is added") for heading in added)


def test_a_base_or_key_that_means_nothing_is_refused_in_one_line(project: Path) -> None:
    refused = manifests(project, "diff", "dev", "--base", "nowhere")
    assert (1, "") == (refused.returncode, refused.stdout)
    assert "diff: BASE: expected a revision of this repository or 'released', was nowhere\n" == refused.stderr
    edit(project / "deploy/environments/dev.yaml", "    namespace: ads\n", "    namespace: ads\n    set: []\n")
    assert "expected only chart, createNamespace, name, namespace, values, was set as well" in (
        manifests(project, "render", "dev").stderr
    )


def test_a_value_of_a_secret_is_in_no_diff() -> None:
    before = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "b2xk"}}
    said = "\n".join(difference([before], [{**before, "data": {"key": "bmV3ZXI="}}], "ads"))
    assert "Secret ads/s is changed" in said
    assert "b2xk" not in said
    assert "bmV3ZXI=" not in said


# What is decided before a cluster is touched


RUNNING: dict[str, Any] = {
    "image": {"repository": "r/auction", "digest": "sha256:old"},
    "config": {"exchange": {"tmax_ms": 120}, "bidders": [{"name": "dsp-a"}]},
    "replicas": 9,
}


def wanted(**over: Any) -> dict[str, Any]:
    return laid_over(RUNNING, {"image": {"digest": "sha256:new"}, **over})


def test_a_canary_is_the_release_as_it_runs_with_the_wanted_image_and_configuration_beside_it() -> None:
    whole = with_canary(RUNNING, wanted(config={"exchange": {"tmax_ms": 90}}, replicas=20), 2, VERSION)
    canary = whole.pop("canary")
    assert RUNNING == whole
    assert (True, 2, {"tag": "", "digest": "sha256:new"}) == (canary["enabled"], canary["replicas"], canary["image"])
    assert {"exchange": {"tmax_ms": 90}, "bidders": [{"name": "dsp-a"}]} == canary["config"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (RUNNING, "there is nothing to try"),
        (wanted(image={"repository": "elsewhere/auction"}), "image.repository: expected r/auction, which runs"),
        ({**wanted(), "config": {"bidders": []}}, "config.exchange: a canary's configuration lies over the stable one"),
    ],
    ids=["the same", "another repository", "a key less"],
)
def test_what_no_canary_can_try_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(CommandFailed, match=said):
        with_canary(RUNNING, asked, 1, VERSION)


def test_only_what_a_canary_tried_is_promoted() -> None:
    tried = wanted(config={"exchange": {"tmax_ms": 90}})
    running = with_canary(RUNNING, tried, 1, VERSION)
    assert "" == untried(running, tried, VERSION)
    assert "no canary is running" in untried(RUNNING, tried, VERSION)
    assert "the files say r/auction@sha256:newer" in untried(
        running, laid_over(tried, {"image": {"digest": "sha256:newer"}}), VERSION
    )
    assert "another configuration" in untried(running, wanted(), VERSION)


def test_a_tag_of_the_files_is_tried_beside_a_digest_that_runs_and_a_version_stands_for_neither() -> None:
    by_tag = {"image": {"repository": "r/auction", "tag": "1.2.3", "digest": ""}, "config": RUNNING["config"]}
    running = with_canary(RUNNING, by_tag, 1, VERSION)
    assert {"tag": "1.2.3", "digest": ""} == running["canary"]["image"]
    assert "" == untried(running, by_tag, VERSION)
    assert {"repository": "auction", "tag": VERSION, "digest": ""} == image_of({}, VERSION)


def test_what_comes_with_a_promotion_though_no_canary_tried_it_is_named() -> None:
    running = with_canary(RUNNING, wanted(), 1, VERSION)
    assert [] == beyond_a_canary(running, wanted())
    assert ["replicas", "resources"] == beyond_a_canary(running, wanted(replicas=20, resources={}))


@pytest.mark.parametrize(
    ("weight", "stable_pods", "pods"), [(10, 9, 1), (10, 18, 2), (50, 4, 4), (1, 5, 1), (25, 6, 2), (90, 1, 9)]
)
def test_a_weight_is_the_number_of_pods_whose_share_is_nearest(weight: float, stable_pods: int, pods: int) -> None:
    assert pods == pods_of(weight, stable_pods)


@pytest.mark.parametrize("weight", [0, 100, -1])
def test_a_weight_is_a_part_of_all_pods(weight: float) -> None:
    with pytest.raises(CommandFailed, match="WEIGHT: expected more than 0 and less than 100 percent"):
        pods_of(weight, 4)


def history(*said: str) -> list[dict[str, Any]]:
    """Give what `helm history` does: of each revision its status and what was done, from the first on."""
    return [
        {"revision": row + 1, "status": each.partition(" ")[0], "description": each.partition(" ")[2]}
        for row, each in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("revisions", "canaries", "target"),
    [
        (("superseded Install complete", "deployed Upgrade complete"), {}, 1),
        (("superseded Install complete", "deployed Upgrade complete"), {2}, 1),
        # Promoted: the revision before is the canary's.
        (("superseded Install complete", "superseded Upgrade complete", "deployed Upgrade complete"), {2}, 1),
        # What failed is nothing to go back to.
        (("superseded Install complete", "failed Upgrade failed", "deployed Upgrade complete"), {}, 1),
        # The last one failed: the one before it is still in force.
        (("superseded Install complete", "deployed Upgrade complete", "failed Upgrade failed"), {}, 2),
        # Killed half way: what it was to replace is still in force.
        (("deployed Install complete", "pending-upgrade Preparing upgrade"), {}, 1),
        # Rolled back from 3 to 2: once more is 1, and not 3.
        (
            ("superseded Install complete", "superseded Upgrade complete", "superseded Upgrade complete",
             "deployed Rollback to 2"), {}, 1,
        ),
    ],
    ids=["the last", "under a canary", "over a canary", "over a failure", "after a failure", "killed", "further back"],
)  # fmt: skip
def test_a_rollback_goes_to_the_last_revision_that_came_up_without_a_canary(
    revisions: tuple[str, ...], canaries: set[int], target: int
) -> None:
    assert target == earlier(history(*revisions), lambda number: number in canaries)


def test_a_first_release_has_nothing_to_go_back_to() -> None:
    with pytest.raises(CommandFailed, match="nothing to go back to"):
        earlier(history("deployed Install complete"), lambda number: False)


def test_stable_pods_are_told_from_the_canarys() -> None:
    (release,) = releases("dev")
    values = with_canary(release.values(), laid_over(release.values(), {"image": {"tag": "9"}}), 1, VERSION)
    # Somebody's own Deployment has no such label, or none at all.
    own = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "own"}}
    manifest = yaml.safe_dump_all([own, *render(values)])
    assert "registry.example/auction:0.1.0" == stable(manifest)["spec"]["containers"][0]["image"]
    assert "registry.example/auction:9" in manifest


@pytest.mark.parametrize("step", ["deploy", "smoke", "canary", "promote", "rollback", "drift"])
def test_where_a_program_is_not_there_a_step_says_so_in_one_line_and_does_nothing(step: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.rollout", step, "prd"]
    environ = {**os.environ, "PATH": str(tmp_path)}
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (1, "") == (ran.returncode, ran.stdout)
    assert f"{step}: needs helm, which is not here; nothing was changed\n" == ran.stderr


def test_helm_is_called_alike_by_helmfile_and_by_steps() -> None:
    defaults = yaml.safe_load((DEPLOY / "environments/helm.yaml").read_text())["helmDefaults"]
    assert (f"{defaults['timeout']}s", str(defaults["historyMax"])) == (TIMEOUT, HISTORY)
    assert defaults["atomic"] is True
    assert "--atomic" in SAFELY


# What is said of all that


SAID = {path: path.read_text() for path in [DEPLOY / "README.md", *sorted((DEPLOY / "runbooks").glob("*.md"))]}


@pytest.mark.parametrize("path", SAID, ids=lambda path: path.name)
def test_every_target_that_a_page_names_is_one(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", SAID[path], re.MULTILINE))
    assert named
    assert set() == named - targets


@pytest.mark.parametrize("path", SAID, ids=lambda path: path.name)
def test_every_file_that_a_page_names_is_there(path: Path) -> None:
    linked = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", SAID[path])
    assert [] == [link for link in linked if not link.startswith("http") and not (path.parent / link).exists()]


def test_every_alert_and_every_panel_that_is_to_be_watched_is_there() -> None:
    rows = [line for line in SAID[DEPLOY / "README.md"].splitlines() if line.startswith("|")]
    watched = "\n".join(row.split("|")[1] for row in rows)
    (rules,) = every(objects("prd"), "PrometheusRule")
    alerts = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    named = set(re.findall(r"`(Auction[A-Za-z]+)", watched))
    assert len(named) >= 10
    assert set() == {name for name in named if not any(alert.startswith(name) for alert in alerts)}
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    panels = {panel["title"] for panel in dashboard["panels"]}
    assert set() == set(re.findall(r"\*([A-Z][^*]+)\*", watched)) - panels


def test_what_was_tried_on_a_cluster_is_what_is_said_of_it() -> None:
    begun, _, rest = SAID[DEPLOY / "README.md"].partition("<!-- make test-cluster -->\n")
    rows = [line.strip("| ").split(" | ") for line in rest.partition("<!-- end -->")[0].strip().splitlines()[2:]]
    assert begun
    assert [trial.claim for trial in TRIALS] == [claim for claim, *_ in rows]
    assert {"holds"} == {holds for _, holds, *_ in rows}


def test_without_a_go_toolchain_no_cluster_is_tried_and_it_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cluster"]
    environ = {**os.environ, "PATH": str(tmp_path)}
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert 1 == ran.returncode
    assert ran.stderr.startswith("test-cluster: not run: it needs a Go toolchain, ")

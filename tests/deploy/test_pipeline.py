# The pipeline: CircleCI's own schema takes it, it only says `make`, and nothing reaches production unasked.

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helmfile import environments

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / ".circleci" / "config.yml"
PIPELINE: dict[str, Any] = yaml.safe_load(FILE.read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
JOBS: dict[str, Any] = PIPELINE["jobs"]


def commands(job: str) -> list[str]:
    """Give what a job runs, word for word."""
    return [step["run"] for step in JOBS[job]["steps"] if isinstance(step, dict) and "run" in step]


def invoked(workflow: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give a workflow's jobs by the names they have in it."""
    for entry in PIPELINE["workflows"][workflow]["jobs"]:
        job, given = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        yield given.get("name", job), {**given, "job": job}


def refusals(file: Path) -> str:
    """Say what CircleCI's schema has against a file; nothing if it takes it."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.circle-ci", str(file)]
    checked = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return "" if checked.returncode == 0 else checked.stdout + checked.stderr


def test_circleci_takes_it() -> None:
    assert "" == refusals(FILE)


def test_a_pipeline_that_circleci_would_not_take_is_seen(tmp_path: Path) -> None:
    broken = tmp_path / "config.yml"
    broken.write_text(yaml.safe_dump({**PIPELINE, "jobs": {**JOBS, "check": {"steps": "make test"}}}))
    assert "check" in refusals(broken)


@pytest.mark.parametrize("command", sorted({command for job in JOBS for command in commands(job)}))
def test_each_step_is_one_make_target_that_there_is_with_variables_that_are_read(command: str) -> None:
    said = re.fullmatch(r"make(?: --silent)? ([a-z-]+)((?: [A-Z]+=(?:<< parameters\.[a-z]+ >>|[\w./-]+))*)", command)
    assert said, "expected `make TARGET NAME=value ...` and nothing else"
    target, given = said.groups()
    (rule,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert re.search(rf"^\.PHONY:(?:.*\\\n)*.*\b{target}\b", MAKEFILE, re.MULTILINE), "a folder would stand for it"
    for name in re.findall(r"([A-Z]+)=", given):
        assert re.search(rf"\$\((or )?{name}\b", rule), f"{target} does not read {name}"


def test_steps_are_checkout_make_and_artefacts() -> None:
    for job in JOBS.values():
        assert {"checkout"} == {step for step in job["steps"] if isinstance(step, str)}
        assert {"run", "store_artifacts"} >= {name for step in job["steps"] if isinstance(step, dict) for name in step}


def test_every_job_that_a_workflow_names_is_there_and_every_job_is_named() -> None:
    named = {
        given["job"] for workflow in PIPELINE["workflows"] for _, given in invoked(workflow) if "type" not in given
    }
    assert set(JOBS) == named


def test_a_workflow_waits_only_for_what_it_has() -> None:
    for workflow in PIPELINE["workflows"]:
        jobs = dict(invoked(workflow))
        assert {name for given in jobs.values() for name in given.get("requires", [])} <= set(jobs)


def test_a_pull_request_reaches_no_cluster_and_shows_every_manifest() -> None:
    jobs = {given["job"] for _, given in invoked("pull-request")}
    assert {"check", "manifests"} == jobs
    render, diff = commands("manifests")
    (artefacts,) = (step["store_artifacts"] for step in JOBS["manifests"]["steps"] if "store_artifacts" in step)
    assert render.endswith(f"OUT={artefacts['path']}")
    assert diff.endswith(f"OUT={artefacts['path']}")
    assert "BASE=origin/main" in diff
    assert "ENV=" not in render + diff, "every environment is shown"


def test_a_merge_can_reach_every_environment_and_only_those() -> None:
    reached = {given["environment"] for _, given in invoked("merge") if "environment" in given}
    assert set(environments()) == reached


@pytest.mark.parametrize("environment", ["stg", "prd"])
def test_nothing_reaches_an_environment_before_somebody_approved_it_and_the_one_before_has_it(environment: str) -> None:
    jobs = dict(invoked("merge"))
    before = environments()[environments().index(environment) - 1]
    for name, given in jobs.items():
        if given.get("environment") == environment:
            behind = list(_behind(jobs, name))
            assert any(jobs[each].get("type") == "approval" for each in given["requires"])
            assert f"deploy-{before}" in behind


def _behind(jobs: dict[str, dict[str, Any]], name: str) -> Iterator[str]:
    for each in jobs[name].get("requires", []):
        yield each
        yield from _behind(jobs, each)


def test_each_step_on_a_cluster_has_the_secrets_of_its_environment_alone() -> None:
    for workflow in ("merge", "drift"):
        for _, given in invoked(workflow):
            if "environment" in given:
                assert f"auction-{given['environment']}" == given["context"]


def test_whatever_is_brought_to_a_cluster_is_tried_there() -> None:
    for job in ("deploy", "canary", "promote"):
        *_, last = commands(job)
        assert last.startswith("make smoke ENV=")


def test_a_schedule_looks_for_drift_and_does_nothing_else() -> None:
    assert {"equal": ["drift", "<< pipeline.schedule.name >>"]} == PIPELINE["workflows"]["drift"]["when"]
    assert ["make drift ENV=<< parameters.environment >>"] == commands("drift")
    assert {"not": "<< pipeline.schedule.name >>"} in PIPELINE["workflows"]["merge"]["when"]["and"]

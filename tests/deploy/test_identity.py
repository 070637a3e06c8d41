# Policies and trusts of service accounts, as Terraform renders them, against the table of deploy/identity/README.md.

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
IDENTITY = ROOT / "deploy" / "identity"
WORKS = ("server", "jobs", "notebooks")
BUCKET, RAW, CURATED = "b", "logs/raw", "logs/curated"
ISSUER = "oidc.eks.eu-west-1.amazonaws.com/id/1"
GIVEN = {
    "bucket": BUCKET,
    "raw": RAW,
    "curated": CURATED,
    "namespace": "ads",
    "cluster": "c",
    "oidc_provider_arn": f"arn:aws:iam::1:oidc-provider/{ISSUER}",
}
PREFIXES = {"the log prefix": RAW, "the curated prefix": CURATED}
# What a program is that calls AWS, whatever it calls.
CLIENTS = ("boto3", "botocore", "aioboto3", "aiobotocore", "obstore", "s3fs", "fsspec", "minio", "amazonaws")


class Row(NamedTuple):
    """A row of the table."""

    work: str
    action: str
    prefix: str
    call: str
    made_in: str


def table() -> list[Row]:
    lines = (line for line in (IDENTITY / "README.md").read_text().splitlines() if line.startswith("| "))
    rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    return [Row(*cells) for cells in rows if cells[0] in WORKS]


def sources() -> dict[str, str]:
    """Read what could call AWS: the product, and what is deployed beside it."""
    paths = (path for folder in ("auction", "bidders", "deploy") for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        ["terraform", *words], cwd=folder, env={**quiet, "CHECKPOINT_DISABLE": "1"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="needs terraform")


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity") / "policies"
    shutil.copytree(IDENTITY / "policies", folder)
    begun = terraform(folder, "init", "-input=false", "-backend=false")
    assert begun.returncode == 0, begun.stderr
    return folder


def applied(folder: Path, **given: Any) -> subprocess.CompletedProcess[str]:
    values = [f"-var={name}={value}" for name, value in {**GIVEN, **given}.items()]
    return terraform(folder, "apply", "-auto-approve", "-input=false", "-no-color", *values)


@pytest.fixture(scope="module")
def rendered(policies: Path) -> dict[str, dict[str, Any]]:
    done = applied(policies)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(terraform(policies, "output", "-json").stdout)
    return {
        name: {work: json.loads(text) for work, text in outputs[name]["value"].items()}
        for name in ("policies", "irsa_trusts", "pod_identity_trusts")
    }


def allowed(policy: dict[str, Any]) -> set[tuple[str, str]]:
    """List what a policy allows: an action and the prefix it is held to. Anything not known here is an error."""
    found = set()
    for statement in policy["Statement"]:
        assert {"Sid", "Effect", "Action", "Resource"} <= set(statement) <= {
            "Sid", "Effect", "Action", "Resource", "Condition",
        }  # fmt: skip
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                found.add((action, held_to(action, resource, statement.get("Condition"))))
    return found


def held_to(action: str, resource: str, condition: dict[str, Any] | None) -> str:
    bucket = f"arn:aws:s3:::{BUCKET}"
    if action == "s3:ListBucket":
        assert bucket == resource
        assert condition is not None
        (pattern,) = condition["StringLike"]["s3:prefix"]
    else:
        assert condition is None
        assert resource.startswith(f"{bucket}/")
        pattern = resource.removeprefix(f"{bucket}/")
    prefix, wildcard = pattern[:-2], pattern[-2:]
    assert "/*" == wildcard
    assert "*" not in prefix
    assert "?" not in prefix
    return str(prefix)


@needs_terraform
@pytest.mark.parametrize("work", WORKS)
def test_each_service_account_may_do_what_the_table_says_and_nothing_else(
    work: str, rendered: dict[str, dict[str, Any]]
) -> None:
    told = {(row.action, PREFIXES[row.prefix]) for row in table() if row.work == work}
    assert told == allowed(rendered["policies"][work])


def test_each_action_is_one_that_the_code_calls_or_that_nobody_calls_yet() -> None:
    code = sources()
    rows = table()
    assert rows
    for row in rows:
        if row.made_in == "nobody yet":
            # Where any client of AWS is in use, or the call is made by some other means, the row is out of date.
            callers = [
                path for path, text in code.items() if f".{row.call}(" in text or any(c in text for c in CLIENTS)
            ]
            assert [] == callers, f"{row.work} {row.action}: name who calls {row.call}"
        else:
            assert f".{row.call}(" in code[row.made_in], f"{row.work} {row.action}: no {row.call} in {row.made_in}"


def test_the_server_reads_and_deletes_nothing() -> None:
    assert {"s3:PutObject"} == {row.action for row in table() if row.work == "server"}


@needs_terraform
@pytest.mark.parametrize("work", WORKS)
def test_a_role_is_for_one_service_account_of_the_chart(work: str, rendered: dict[str, dict[str, Any]]) -> None:
    values = yaml.safe_load((ROOT / "deploy/charts/auction/values.yaml").read_text())
    name = values["serviceAccounts"][work]["name"]
    (by_irsa,) = rendered["irsa_trusts"][work]["Statement"]
    assert {
        f"{ISSUER}:aud": "sts.amazonaws.com",
        f"{ISSUER}:sub": f"system:serviceaccount:ads:{name}",
    } == by_irsa["Condition"]["StringEquals"]
    assert {"Federated": GIVEN["oidc_provider_arn"]} == by_irsa["Principal"]
    assert "sts:AssumeRoleWithWebIdentity" == by_irsa["Action"]
    (by_association,) = rendered["pod_identity_trusts"][work]["Statement"]
    assert {
        "aws:RequestTag/eks-cluster-name": "c",
        "aws:RequestTag/kubernetes-namespace": "ads",
        "aws:RequestTag/kubernetes-service-account": name,
    } == by_association["Condition"]["StringEquals"]
    assert {"Service": "pods.eks.amazonaws.com"} == by_association["Principal"]
    assert ["sts:AssumeRole", "sts:TagSession"] == by_association["Action"]


@needs_terraform
@pytest.mark.parametrize("raw", ["logs", "logs/curated/raw", "", "*", "/raw", "raw/"])
def test_a_prefix_that_would_let_one_read_the_others_is_refused(raw: str, policies: Path) -> None:
    refused = applied(policies, raw=raw)
    assert refused.returncode == 1
    assert "expected a prefix" in refused.stderr.replace("\n", " ")


@needs_terraform
def test_terraform_is_formatted() -> None:
    checked = terraform(IDENTITY, "fmt", "-check", "-recursive", "-diff")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("way", ["irsa", "pod-identity"])
def test_roles_are_made_of_the_tested_policies_alone(way: str) -> None:
    text = (IDENTITY / way / "main.tf").read_text()
    assert 'source = "../policies"' in " ".join(text.split())
    assert "jsonencode" not in text
    assert "policy_arn" not in text
    assert f"module.policies.{way.replace('-', '_')}_trusts[each.key]" in text
    assert "module.policies.policies[each.key]" in text

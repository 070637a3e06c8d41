# The chart as Helm renders it, and what Kubernetes' own schemas say of the result.

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError

from auction.config import Config, load
from deploy.values import CHART

CRDS = Path(__file__).with_name("crds")
# What Chart.yaml supports, and what the schemas here know: every version in between as well.
KUBERNETES = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CI = sorted((CHART / "ci").glob("*-values.yaml"))

# Whose schemas are in crds/.
OPERATORS = ("monitoring.coreos.com", "keda.sh", "external-secrets.io", "gateway.networking.k8s.io")

Object = dict[str, Any]


def render(values: dict[str, Any] | None = None, *, name: str = "auction", namespace: str = "ads") -> list[Object]:
    """Render the chart; every object of it, hooks included. Raises HelmError."""
    with Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=name, namespace=namespace)
    texts = (text for path, text in sorted(files.items()) if path.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def ci(name: str) -> dict[str, Any]:
    """Read ci/NAME-values.yaml."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return values


def refused(values: dict[str, Any]) -> str:
    """Say why Helm does not render these values."""
    with pytest.raises(HelmError) as refusal:
        render(values)
    return str(refusal.value)


def configuration(objects: list[dict[str, Any]], folder: Path, name: str = "auction", **environ: str) -> Config:
    """Load what the server of this Deployment would."""
    file = folder / f"{name}.yaml"
    file.write_text(one(objects, "ConfigMap", name)["data"]["auction.yaml"])
    return load(file, environ)


def every(objects: list[Object], kind: str) -> list[Object]:
    return [found for found in objects if found["kind"] == kind]


def one(objects: list[Object], kind: str, name: str = "auction") -> Object:
    """Give the only object of this kind and name."""
    (found,) = [found for found in every(objects, kind) if found["metadata"]["name"] == name]
    return found


def pod(objects: list[Object], name: str = "auction") -> Object:
    """Give the pod's spec in a Deployment."""
    spec: Object = one(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def server(objects: list[Object], name: str = "auction") -> Object:
    """Give the server's container in a Deployment."""
    (found,) = [container for container in pod(objects, name)["containers"] if container["name"] == "server"]
    return dict(found)


def faults(found: Object, version: str) -> list[str]:
    """Say what the schemas refuse in an object: those of a Kubernetes version, or of its operator."""
    group = found["apiVersion"].rpartition("/")[0]
    if group in OPERATORS:
        return list(_custom(found))
    return _built_in(json.dumps(found, sort_keys=True), version)


@functools.cache
def _built_in(found: str, version: str) -> list[str]:
    # Most objects are the same whatever is switched on, and reading a version's schemas takes longest.
    try:
        kubernetes_validate.validate(json.loads(found), version, strict=True)
    except kubernetes_validate.ValidationError as refusal:
        return [f"{'.'.join(map(str, refusal.path))}: {refusal.message}"]
    return []


def _custom(found: Object) -> Iterator[str]:
    version = found["apiVersion"].partition("/")[2]
    checker = _schema(f"{found['kind']}.{version}.json")
    for refusal in checker.iter_errors(found):
        yield f"{'.'.join(map(str, refusal.path))}: {refusal.message}"


@functools.cache
def _schema(file: str) -> jsonschema.Draft202012Validator:
    """Read a custom resource's schema, and make it as strict as the API server is with `--validate=strict`."""
    described = json.loads((CRDS / file).read_text())
    described["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(_strict(described))


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _strict(below) for key, below in node.items()}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if node.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed

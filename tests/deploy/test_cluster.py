# What `make test-cluster` concludes from what it sees: that a watch which went blind would be noticed.

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.plane import Ready
from tests.cluster.programs import HELM, KUBERNETES, TOOLS


def pod(uid: str, *, ready: bool, going: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"uid": uid, **({"deletionTimestamp": "now"} if going else {})},
        "status": {"conditions": conditions},
    }


def event(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode()


def test_the_least_of_ready_pods_is_kept_though_it_is_over_at_once() -> None:
    def stream() -> Iterator[bytes]:
        yield event("MODIFIED", pod("a", ready=True, going=True))
        yield event("ADDED", pod("c", ready=True))
        yield event("DELETED", pod("a", ready=True))
        seen.over = True
        yield event("DELETED", pod("b", ready=True))  # after what was to be seen

    seen = Ready([pod("a", ready=True), pod("b", ready=True)])
    seen.follow(stream())
    assert (2, 1, False) == (seen.first, seen.least, seen.ended_early)


@pytest.mark.parametrize(
    "lines",
    [[], [b"half a li"], [event("ERROR", {"kind": "Status", "metadata": {}, "code": 410})]],
    ids=["ended", "broken off", "given up by the API server"],
)
def test_a_watch_that_ends_before_what_it_was_to_see_is_noticed(lines: list[bytes]) -> None:
    seen = Ready([pod("a", ready=True)])
    seen.follow(lines)
    assert seen.ended_early


@pytest.mark.parametrize(
    ("tools", "module", "version"),
    [("kubernetes", "k8s.io/kubernetes", KUBERNETES), ("helm", "helm.sh/helm/v3", HELM)],
)
def test_what_is_built_is_the_version_that_is_told(tools: str, module: str, version: str) -> None:
    required = re.findall(
        rf"^\s*(?:require )?{re.escape(module)} v(\S+)", (TOOLS / tools / "go.mod").read_text(), re.MULTILINE
    )
    assert [version] == required

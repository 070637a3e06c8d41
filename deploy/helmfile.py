# What each environment is: the releases that helmfile.yaml names for it, and the values that lie over one another.
#
# The program helmfile is not needed for that, because its files are plain YAML here: the few keys that are read are
# those in use, and another one is refused rather than passed over. So a diff needs no cluster and no plugin of Helm.

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

DEPLOY: Final = Path(__file__).resolve().parent

# What is read here of a release; the rest of helmfile's keys would change what is deployed without showing in a diff.
_KEYS: Final = {"name", "namespace", "createNamespace", "chart", "values"}


class Release(NamedTuple):
    """A release of a chart in an environment."""

    environment: str
    context: str
    name: str
    namespace: str
    chart: Path
    layers: tuple[Path, ...]

    def values(self) -> dict[str, Any]:
        """Lay the files of values over one another, as Helm does."""
        whole: dict[str, Any] = {}
        for layer in self.layers:
            whole = laid_over(whole, yaml.safe_load(layer.read_text()) or {})
        return whole


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: mappings key by key, all else as a whole."""
    both = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both[key] = laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


def environments(deploy: Path = DEPLOY) -> list[str]:
    """List the environments in the order of helmfile.yaml; none where a revision has no such file."""
    file = deploy / "helmfile.yaml"
    return list(_state(file)["environments"]) if file.is_file() else []


def releases(environment: str, deploy: Path = DEPLOY) -> list[Release]:
    """Give an environment's releases. Raises ValueError where the files do not say them."""
    known = environments(deploy)
    if environment not in known:
        raise ValueError(f"ENV: expected one of {', '.join(known)}, was {environment or 'nothing'}")
    found = []
    for path in _state(deploy / "helmfile.yaml")["helmfiles"]:
        state = _state(deploy / path)
        if environment in state["environments"]:
            context = state["environments"][environment]["kubeContext"]
            found += [_release(environment, context, each, (deploy / path).parent) for each in state["releases"]]
    return found


def _state(file: Path) -> dict[str, Any]:
    """Read a helmfile: its documents lie over one another."""
    whole: dict[str, Any] = {}
    for document in yaml.safe_load_all(file.read_text()):
        whole = laid_over(whole, document or {})
    return whole


def _release(environment: str, context: str, said: dict[str, Any], folder: Path) -> Release:
    unread = sorted(set(said) - _KEYS)
    if unread:
        raise ValueError(
            f"{environment}.yaml: releases: expected only {', '.join(sorted(_KEYS))}, was {unread[0]} as well"
        )
    layers = tuple((folder / layer).resolve() for layer in said["values"])
    return Release(environment, context, said["name"], said["namespace"], (folder / said["chart"]).resolve(), layers)

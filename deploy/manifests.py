# What an environment would send to its cluster, and what a change of these files changes in it. Helm's own engine
# renders and no cluster is asked, so the answer is the same in a pull request, in a pipeline and on a desk.
#
#     python -m deploy.manifests render prd
#     python -m deploy.manifests diff --base origin/main

from __future__ import annotations

import argparse
import difflib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from helm_python import Chart, HelmError

from deploy.helmfile import DEPLOY, Release, environments, releases
from deploy.rollout import CommandFailed, released

Object = dict[str, Any]

# The last release in the cluster, where a revision is expected.
RELEASED: Final = "released"
# Lines around a change: a container's name is rarely further from what is changed in it.
CONTEXT: Final = 5


class Key(NamedTuple):
    """What tells an object from all others of a cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def rendered(release: Release) -> list[Object]:
    """Render a release as an upgrade would, hooks included. Raises HelmError."""
    with Chart.load(release.chart) as chart:
        files = chart.render(release.values(), name=release.name, namespace=release.namespace, is_upgrade=True)
    texts = (text for path, text in sorted(files.items()) if path.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def difference(before: list[Object], after: list[Object], namespace: str) -> Iterator[str]:
    """Tell an object a time what is changed, added and removed; nothing where all is the same."""
    old, new = ({_key(found, namespace): found for found in objects} for objects in (before, after))
    for key in sorted({*old, *new}):
        was, becomes = (_lines(side.get(key)) for side in (old, new))
        if old.get(key) == new.get(key):
            continue
        change = "is changed" if key in old and key in new else "is added" if key in new else "is removed"
        yield f"{key} {change}"
        # The first two lines of a unified diff name files, which these are not.
        yield from list(difflib.unified_diff(was, becomes, lineterm="", n=CONTEXT))[2:]
        yield ""


def _key(found: Object, namespace: str) -> Key:
    # Two versions of one API are one object: the group alone would be a part of its name.
    group, _, _ = found["apiVersion"].rpartition("/")
    kind = f"{found['kind']}.{group}" if group else str(found["kind"])
    metadata = found["metadata"]
    return Key(kind, metadata.get("namespace", namespace), metadata["name"])


def _lines(found: Object | None) -> list[str]:
    if found is None:
        return []
    if found["kind"] == "Secret":
        # A diff is read by more people than a secret: keys are told, and of values the length.
        hidden = {key: f"({len(str(value))} characters)" for key, value in (found.get("data") or {}).items()}
        found = {**found, "data": hidden, "stringData": "(hidden)"}
    return _text(found).splitlines()


class _Readable(yaml.SafeDumper):
    """Text of several lines as several lines."""


def _str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _str)


def _text(value: Any) -> str:
    return yaml.dump(value, Dumper=_Readable, width=1000, sort_keys=False)


@contextmanager
def tree(revision: str) -> Iterator[Path]:
    """Lay out `deploy/` of a revision while the block runs. Raises ValueError where there is no such revision."""
    root = DEPLOY.parent
    if subprocess.run(["git", "rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}"], cwd=root,
                      capture_output=True).returncode:  # fmt: skip
        raise ValueError(f"BASE: expected a revision of this repository or {RELEASED!r}, was {revision}")
    packed = subprocess.run(["git", "archive", revision], cwd=root, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            # The server's schema is in the chart, so its folder is all that a render reads.
            archive.extractall(folder, [file for file in archive if file.name.split("/")[0] == "deploy"], filter="data")
        yield Path(folder) / "deploy"


def compared(environment: str, base: str) -> list[str]:
    """Tell what the files here change in an environment since a revision, or since its last release."""
    said = []
    after = {release.name: release for release in releases(environment)}
    with tree("HEAD" if base == RELEASED else base) as folder:
        known = base != RELEASED and environment in environments(folder)
        before = {release.name: release for release in releases(environment, folder)} if known else {}
        for name in dict.fromkeys([*before, *after]):
            here, there = after.get(name), before.get(name)
            new = rendered(here) if here else []
            if base == RELEASED:
                assert here
                old = [found for found in yaml.safe_load_all(released(here)) if found]
                # Helm keeps hooks apart from what a release consists of.
                new = [found for found in new if "helm.sh/hook" not in found["metadata"].get("annotations", {})]
            else:
                old = rendered(there) if there else []
            some = here or there
            assert some
            lines = list(difference(old, new, some.namespace))
            said += [f"# {environment}: release {name}: {'' if lines else 'no '}change since {base}", "", *lines]
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.manifests", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("render", "diff"):
        words = verbs.add_parser(verb)
        words.add_argument("environment", nargs="?", default="", help="one environment; none: all of them")
        words.add_argument("--out", type=Path, help="write a file an environment into this folder as well")
        if verb == "diff":
            words.add_argument("--base", default="HEAD", help=f"a revision, or {RELEASED!r} for what is in the cluster")
    given = parser.parse_args()
    try:
        for environment in [given.environment] if given.environment else environments():
            if given.verb == "render":
                objects = (found for release in releases(environment) for found in rendered(release))
                text, kind = "".join(f"---\n{_text(found)}" for found in objects), "yaml"
            else:
                text, kind = "\n".join(compared(environment, given.base)) + "\n", "diff"
            print(text, end="")
            if given.out:
                given.out.mkdir(parents=True, exist_ok=True)
                (given.out / f"{environment}.{kind}").write_text(text)
    except (ValueError, HelmError, CommandFailed) as refusal:
        print(f"{given.verb}: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

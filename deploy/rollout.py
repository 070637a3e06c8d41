# The steps of a release on a cluster: deploy, smoke, canary, promote, rollback, drift. Each prints the command that it
# runs, so that it can be run again by hand; each refuses before it has changed anything.
#
# What the files say is where a release is to go. A canary gets there first: it is the release as it runs, with a few
# pods of what the files say beside it. `promote` takes the rest there if image and configuration in the files are still
# the canary's, and names what else comes with them; `rollback` goes to the last revision that was no canary. Nothing is
# remembered but by Helm, in the cluster.
#
#     python -m deploy.rollout canary prd --weight 10

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import yaml

from deploy.helmfile import DEPLOY, Release, laid_over, releases

# As `timeout` in environments/helm.yaml, with its reason there.
TIMEOUT: Final = "900s"
# A test is two requests; the rest is pulling the image.
TEST_TIMEOUT: Final = "120s"
# As `historyMax` in environments/helm.yaml.
HISTORY: Final = "10"
# Up with what is asked for and back by itself where it does not come up.
SAFELY: Final = ("--atomic", "--wait", "--timeout", TIMEOUT, "--history-max", HISTORY)

Values = dict[str, Any]


class CommandFailed(Exception):
    """A command that is not there, or that did not succeed."""


def deploy(release: Release) -> None:
    """Bring an environment to what the files say, showing the difference first."""
    needs("helm", "helmfile")
    if "diff" not in told("helm", "plugin", "list").split():
        raise CommandFailed("needs helm's plugin diff, which is not here; nothing was changed")
    file = str((DEPLOY / "helmfile.yaml").relative_to(DEPLOY.parent))
    # A three-way diff asks the cluster too: what somebody changed by hand shows.
    run("helmfile", "--file", file, "--environment", release.environment, "apply", "--suppress-secrets",
        "--diff-args=--three-way-merge")  # fmt: skip


def smoke(release: Release) -> None:
    """Run the chart's own test: health, and one auction."""
    needs("helm")
    run(*helm(release, "test"), "--timeout", TEST_TIMEOUT)


def canary(release: Release, replicas: int | None = None, weight: float | None = None) -> None:
    """Set a few pods of what the files say beside the release as it runs, which stays as it is."""
    needs("helm", *(["kubectl"] if weight is not None else []))
    running = running_values(release)
    pods = replicas if replicas is not None else 1
    if weight is not None:
        pods = pods_of(weight, stable_pods(release))
    wanted = release.values()
    whole = with_canary(running, wanted, pods, app_version(release))
    words = [*helm(release, "upgrade"), str(release.chart), "--reset-values", "--values", "-"]
    text = yaml.safe_dump(whole, sort_keys=False)
    planned = json.loads(told(*words, "--dry-run=server", "--output", "json", stdin=text))["manifest"]
    if stable(planned) != stable(released(release)):
        raise CommandFailed(
            "the chart here would replace stable pods, which a canary must not; deploy that change first"
        )
    for name in beyond_a_canary(running, wanted):
        print(f"# not tried by a canary, because it has the stable one's: {name}")
    print(f"# values: those of the last release, and {json.dumps({'canary': whole['canary']})}")
    run(*words, *SAFELY, stdin=text)


def promote(release: Release) -> None:
    """Bring the release to what its canary has been trying, and end the canary."""
    needs("helm")
    wanted = release.values()
    running = running_values(release)
    differs = untried(running, wanted, app_version(release))
    if differs:
        raise CommandFailed(differs)
    for name in beyond_a_canary(running, wanted):
        print(f"# changed as well, though no canary tried it: {name}")
    layers = [word for layer in release.layers for word in ("--values", str(layer))]
    run(*helm(release, "upgrade"), str(release.chart), "--reset-values", *layers, *SAFELY)


def rollback(release: Release, revision: int | None = None) -> None:
    """Go back to a revision; to the last one without a canary, if none is named."""
    needs("helm")
    history = json.loads(told(*helm(release, "history"), "--output", "json"))
    target = revision or earlier(history, lambda number: has_canary(running_values(release, number)))
    run(*helm(release, "rollback"), str(target), "--wait", "--timeout", TIMEOUT, "--cleanup-on-fail")


def drift(release: Release) -> None:
    """Tell what the cluster has otherwise than the last release left it; fail where it has something."""
    needs("helm", "kubectl")
    # Asked of the server, so that what it fills in by itself is no difference.
    words = ["kubectl", "--context", release.context, "--namespace", release.namespace, "diff", "--server-side",
             "--force-conflicts", "--filename", "-"]  # fmt: skip
    code = run(*words, stdin=released(release), fine=(0, 1))
    if code:
        raise CommandFailed(f"{release.name} in {release.environment} is not as its last release left it")
    print(f"# {release.name} in {release.environment} is as its last release left it")


# What is decided, apart from what is called.


def with_canary(running: Values, wanted: Values, pods: int, version: str) -> Values:
    """Give the running release's values with a canary of what is wanted. Raises CommandFailed where none can try it."""
    image, stable_image = (image_of(values, version) for values in (wanted, running))
    if image["repository"] != stable_image["repository"]:
        raise CommandFailed(
            f"image.repository: expected {stable_image['repository']}, which runs, was {image['repository']}: "
            "stable pods and canary share it; deploy that change first"
        )
    config, stable_config = (values.get("config") or {} for values in (wanted, running))
    gone = next(removed(stable_config, config), None)
    if gone:
        raise CommandFailed(f"config.{gone}: a canary's configuration lies over the stable one and cannot lack a key")
    if (image, config) == (stable_image, stable_config):
        raise CommandFailed("the files name the image and the configuration that run: there is nothing to try")
    section = {
        "enabled": True,
        "replicas": pods,
        "image": {"tag": image["tag"], "digest": image["digest"]},
        "config": config if config != stable_config else {},
    }
    return {**running, "canary": section}


def untried(running: Values, wanted: Values, version: str) -> str:
    """Say why what is wanted is not what a canary tries; nothing if it is."""
    if not has_canary(running):
        return "no canary is running: `make canary` begins one, `make deploy` goes without"
    section = running["canary"]
    tried = image_of({"image": {**(running.get("image") or {}), **section["image"]}}, version)
    image = image_of(wanted, version)
    if tried != image:
        return f"the canary runs {named(tried)}, the files say {named(image)}: begin a canary of it first"
    config = laid_over(running.get("config") or {}, section.get("config") or {})
    if config != (wanted.get("config") or {}):
        return "the canary has another configuration than the files: begin a canary of it first"
    return ""


def beyond_a_canary(running: Values, wanted: Values) -> list[str]:
    """Name what the files change and a canary does not try."""
    return sorted(
        name for name in {*running, *wanted} - {"image", "config", "canary"} if running.get(name) != wanted.get(name)
    )


def earlier(history: list[dict[str, Any]], canary_in: Callable[[int], bool]) -> int:
    """Choose the revision to go back to: the last before this one that came up and was no canary.

    A release that was rolled back already goes on back from where it is now, not forward to what it was taken from.
    """
    by_number = {int(each["revision"]): each for each in history}
    here = max(by_number)
    while (said := str(by_number[here].get("description", ""))).startswith("Rollback to "):
        origin = int(said.removeprefix("Rollback to "))
        if origin not in by_number:
            break
        here = origin
    for number in sorted((number for number in by_number if number < here), reverse=True):
        if by_number[number]["status"] in ("deployed", "superseded") and not canary_in(number):
            return number
    raise CommandFailed(f"no revision before {here} came up without a canary: nothing to go back to")


def pods_of(weight: float, stable_pods: int) -> int:
    """Give the pods whose share, beside the stable ones, is nearest to a weight in percent; one at least."""
    if not 0 < weight < 100:
        raise CommandFailed(f"WEIGHT: expected more than 0 and less than 100 percent, was {weight:g}")
    return max(1, round(stable_pods * weight / (100 - weight)))


def removed(before: Values, after: Values, path: str = "") -> Iterator[str]:
    """Name what one mapping has and the other lacks."""
    for key, value in before.items():
        if key not in after:
            yield f"{path}{key}"
        elif isinstance(value, dict) and isinstance(after[key], dict):
            yield from removed(value, after[key], f"{path}{key}.")


def has_canary(values: Values) -> bool:
    return bool((values.get("canary") or {}).get("enabled"))


def image_of(values: Values, version: str) -> dict[str, str]:
    """Tell which image values mean: a digest counts before a tag, and the chart's version where there is neither."""
    said = values.get("image") or {}
    digest = said.get("digest") or ""
    tag = "" if digest else str(said.get("tag") or version)
    return {"repository": said.get("repository") or "auction", "tag": tag, "digest": digest}


def named(image: dict[str, str]) -> str:
    return f"{image['repository']}@{image['digest']}" if image["digest"] else f"{image['repository']}:{image['tag']}"


def stable(manifest: str) -> Any:
    """Take the pods of the stable Deployment out of a manifest."""
    (found,) = [
        found
        for found in yaml.safe_load_all(manifest)
        if found and found["kind"] == "Deployment" and (found["metadata"].get("labels") or {}).get("track") == "stable"
    ]
    return found["spec"]["template"]


# What is called.


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise CommandFailed(f"needs {program}, which is not here; nothing was changed")


def helm(release: Release, verb: str) -> list[str]:
    return ["helm", verb, release.name, "--namespace", release.namespace, "--kube-context", release.context]


def released(release: Release) -> str:
    """Read the manifest of the last release."""
    needs("helm")
    return told(*_get(release, "manifest"))


def running_values(release: Release, revision: int | None = None) -> Values:
    """Read the values of the last release, or of a revision."""
    at = ["--revision", str(revision)] if revision else []
    values: Values = json.loads(told(*_get(release, "values"), "--output", "json", *at)) or {}
    return values


def _get(release: Release, what: str) -> list[str]:
    return ["helm", "get", what, *helm(release, "")[2:]]


def stable_pods(release: Release) -> int:
    """Count the pods that the stable Deployment is to have now."""
    counted = told("kubectl", "--context", release.context, "--namespace", release.namespace, "get", "deployment",
                   "--selector", f"app.kubernetes.io/instance={release.name},track=stable",
                   "--output", "jsonpath={.items[*].spec.replicas}")  # fmt: skip
    if not counted.isdigit():
        raise CommandFailed(f"expected one stable Deployment of {release.name}, was {counted or 'none'}")
    return int(counted)


def app_version(release: Release) -> str:
    return str(yaml.safe_load((release.chart / "Chart.yaml").read_text())["appVersion"])


def told(*words: str, stdin: str = "") -> str:
    """Ask a program. Raises CommandFailed with what it said."""
    ran = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CommandFailed(f"{shlex.join(words)}: {ran.stderr.strip()}")
    return ran.stdout


def run(*words: str, stdin: str | None = None, fine: tuple[int, ...] = (0,)) -> int:
    """Print a command and run it. Raises CommandFailed where it ends otherwise than is fine."""
    print(f"+ {shlex.join(words)}", flush=True)
    code = subprocess.run(words, input=stdin, text=True, cwd=DEPLOY.parent, check=False).returncode
    if code not in fine:
        raise CommandFailed(f"{words[0]} ended with {code}")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.rollout", description="Steps of a release on a cluster.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    steps: dict[str, Callable[..., None]] = {
        step.__name__: step for step in (deploy, smoke, promote, drift, canary, rollback)
    }
    for name, step in steps.items():
        words = verbs.add_parser(name, help=step.__doc__)
        words.add_argument("environment", nargs="?", default="")
        if step is canary:
            share = words.add_mutually_exclusive_group()
            share.add_argument("--replicas", type=int, help="pods; 1, if neither is given")
            share.add_argument("--weight", type=float, help="percent of all pods")
        elif step is rollback:
            words.add_argument("--revision", type=int, help="none: the last one without a canary")
    given = vars(parser.parse_args())
    verb, environment = given.pop("verb"), given.pop("environment")
    try:
        (release,) = (each for each in releases(environment) if each.chart.name == "auction")
        steps[verb](release, **given)
    except (ValueError, CommandFailed) as refusal:
        print(f"{verb}: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

# What the chart promises of a cluster, each tried on one. A trial tells what it saw, or raises AssertionError where it
# is not what is claimed. Where a watch saw nothing bad, a control shows that it would have seen it.

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from deploy.helmfile import releases
from tests.cluster.plane import BROKEN, NODES, Cluster, Object, pause

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CHART: Final = ROOT / "deploy" / "charts" / "auction"
FILES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
# Releases at the same time: they wait more than they work.
AT_ONCE: Final = 5
# For a rollout of a handful of pods, each with the chart's five seconds of minReadySeconds.
WAIT: Final = ("--wait", "--timeout", "240s")
# A bad image is given up after this: a good one is ready in a tenth of it.
GIVE_UP: Final = "20s"
# Looks, half a second apart, at what a controller is to do by itself.
LOOKS: Final = 60

STABLE: Final = "track=stable"
FIXED: Final = ("--set", "autoscaling.kind=none", "--set", "replicas=4")


class Trial(NamedTuple):
    """What is claimed, and the function that tries it."""

    tried: Callable[[Cluster], str]
    claim: str

    @property
    def name(self) -> str:
        return self.tried.__name__


class Release:
    """A release of the chart in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str, values: Path | None = None) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._values = ("--values", str(values)) if values else ()

    def upgrade(self, *words: str, chart: Path = CHART, wait: Iterable[str] = WAIT) -> subprocess.CompletedProcess[str]:
        return self.helm("upgrade", str(chart), "--install", "--create-namespace", *self._values, *words, *wait)

    def up(self, *words: str, chart: Path = CHART) -> None:
        """Install or upgrade, and wait for the last pod that comes or goes."""
        succeeded(self.upgrade(*words, chart=chart))
        self.settle()

    def helm(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        what, *more = verb.split()
        name = ["auction"] if not more else [*more, "auction"]
        return self.cluster.run("helm", what, *name, *words, "--namespace", self.namespace)

    def pods(self, selector: str = STABLE) -> dict[str, str]:
        """Give each pod's image."""
        pods = self.cluster.pods(self.namespace, selector)
        return {pod["metadata"]["uid"]: pod["spec"]["containers"][0]["image"] for pod in pods}

    def history(self) -> list[Object]:
        history: list[Object] = json.loads(succeeded(self.helm("history", "--output", "json")))
        return history

    def settle(self) -> None:
        """Wait until the autoscaler has its least number of pods, and they are all there, new, and alone."""
        scalers = f"/apis/autoscaling/v2/namespaces/{self.namespace}/horizontalpodautoscalers"
        deployments = f"/apis/apps/v1/namespaces/{self.namespace}/deployments?labelSelector={STABLE}"
        for _ in range(LOOKS):
            least = max((each["spec"]["minReplicas"] for each in self.cluster.ask(scalers)["items"]), default=0)
            (found,) = self.cluster.ask(deployments)["items"]
            wanted, status = found["spec"]["replicas"], found["status"]
            counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            if seen and wanted >= least and {wanted} == {*counts}:
                return
            pause(0.5)
        raise AssertionError(f"{self.namespace}: {wanted} pods were expected, {least} at least; there are {counts}")

    def objects(self) -> dict[str, Object]:
        """Read what the release consists of, less what changes by itself."""
        manifest = succeeded(self.helm("get manifest"))
        words = ("get", "--filename", "-", "--output", "json", "--namespace", self.namespace)
        listed = json.loads(succeeded(self.cluster.run("kubectl", *words, stdin=manifest)))
        found = {}
        for each in listed["items"]:
            each.pop("status", None)
            for key in ("resourceVersion", "managedFields"):
                each["metadata"].pop(key, None)
            found[f"{each['kind']}/{each['metadata']['name']}"] = each
        return found


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{' '.join(done.args[:3])}: {(done.stderr or done.stdout).strip()[-600:]}"
    return done.stdout


def of_each(files: list[Path], tried: Callable[[Path], str]) -> list[str]:
    """Try a thing with each file of values; tell all that failed at once."""

    def one(file: Path) -> tuple[str, str]:
        try:
            return "", tried(file)
        except AssertionError as refusal:
            return f"{file.name}: {refusal}", ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(one, files))
    failed = [said for said, _ in results if said]
    assert not failed, "; ".join(failed)
    return [seen for _, seen in results]


# Every file of ci/


def installed(cluster: Cluster) -> str:
    def tried(file: Path) -> str:
        release = Release(cluster, f"ci-{file.name.removesuffix('-values.yaml')}", file)
        release.up()
        succeeded(release.helm("test", "--timeout", "60s"))
        before, pods = release.objects(), release.pods("track")
        release.up()
        assert pods == release.pods("track"), "pods were replaced"
        after = release.objects()
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        assert not changed, f"an upgrade without a change changed {', '.join(sorted(changed))}"
        return str(len(before))

    objects = of_each(FILES, tried)
    return f"{len(objects)} files, {sum(map(int, objects))} objects"


def predecessor() -> tuple[str, str]:
    """Name the chart to upgrade from: the newest tag's, or the first one in the history while nothing is released."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    path = str((CHART / "Chart.yaml").relative_to(ROOT))
    for tag in git("tag", "--list", "v*", "--sort=-version:refname", "--merged", "HEAD").splitlines():
        if git("ls-tree", tag, "--", path):
            return tag, f"release {tag}"
    assert git("rev-parse", "--is-shallow-repository") == "false", (
        "a shallow clone has no earlier chart to upgrade from"
    )
    first = git("log", "--diff-filter=A", "--format=%H", "--", path).splitlines()
    return first[-1], f"the chart as first committed, {first[-1][:7]}, for none was released yet"


def unpacked(revision: str, folder: Path) -> Path:
    """Lay out the chart of a revision."""
    packed = folder / "chart.tar"
    chart = str(CHART.relative_to(ROOT))
    subprocess.run(["git", "archive", "--output", packed, revision, chart], cwd=ROOT, check=True)
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "previous", filter="data")
    return folder / "previous" / chart


def upgraded(cluster: Cluster) -> str:
    revision, said = predecessor()
    previous = unpacked(revision, cluster.folder)
    both = [file for file in FILES if (previous / "ci" / file.name).exists()]

    def tried(file: Path) -> str:
        release = Release(cluster, f"up-{file.name.removesuffix('-values.yaml')}")
        release.up("--values", str(previous / "ci" / file.name), chart=previous)
        before = release.objects()
        with cluster.watching(release.namespace, STABLE) as seen:
            release.up("--values", str(file))
            after = release.objects()
            succeeded(release.helm("rollback", "1", *WAIT))
            release.settle()
        again = release.objects()
        kept = [name for name in before if name in after]
        anew = [name for name in kept if before[name]["metadata"]["uid"] != after[name]["metadata"]["uid"]]
        assert not anew, f"made anew: {', '.join(anew)}"
        assert seen.least >= seen.first, f"{seen.least} of {seen.first} pods were ready"
        differs = [name for name in before if _content(before[name]) != _content(again.get(name, {}))]
        assert not differs, f"not as before after a rollback: {', '.join(differs)}"
        assert not set(again) - set(before), "left over"
        return file.name

    return f"{len(of_each(both, tried))} files, from {said}"


def _content(found: Object) -> Object:
    # A Deployment counts its rollouts, and going back is one more.
    revision = "deployment.kubernetes.io/revision"
    metadata = found.get("metadata", {})
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != revision}
    return {
        **{key: value for key, value in found.items() if key != "metadata"},
        "metadata": {**metadata, "annotations": annotations, "generation": None},
    }


# Pods that are ready


def rolled(cluster: Cluster) -> str:
    least, first = _least_in_rollout(cluster, "rolling")
    assert (first, least) == (4, 4), f"{least} of {first} pods were ready"
    control, _ = _least_in_rollout(cluster, "rolling-control", "--set", "rollout.maxUnavailable=100%")
    assert control < 4, "the control saw nothing: the watch is blind"
    return f"at least {least} of 4; control, with maxUnavailable 100 %: {control}"


def _least_in_rollout(cluster: Cluster, namespace: str, *words: str) -> tuple[int, int]:
    release = Release(cluster, namespace)
    release.up(*FIXED, *words)
    before = release.pods()
    with cluster.watching(namespace, STABLE) as seen:
        release.up(*FIXED, *words, "--set", "podAnnotations.try=again")
    assert not set(before) & set(release.pods()), "pods were not replaced"
    return seen.least, seen.first


def taken_back(cluster: Cluster) -> str:
    release = Release(cluster, "atomic")
    release.up(*FIXED)
    before = release.pods()
    bad = ("--set", f"image.tag={BROKEN}")
    with cluster.watching("atomic", STABLE) as seen:
        failed = release.upgrade(*FIXED, *bad, wait=("--atomic", "--timeout", GIVE_UP))
    assert failed.returncode != 0, "an image that never comes up was taken"
    last = release.history()[-1]
    assert (last["status"], last["description"]) == ("deployed", "Rollback to 1"), last
    assert before == release.pods(), "pods that were there were replaced"
    assert seen.least == 4, f"{seen.least} of 4 pods were ready"
    return f'helm exits {failed.returncode}, revision {last["revision"]} is "{last["description"]}", 4 of 4 pods stayed'


def drained(cluster: Cluster) -> str:
    least = _least_in_drain(cluster, "drain")
    assert least >= 3, f"{least} of 4 pods were ready"
    control = _least_in_drain(cluster, "drain-control", "--set", "podDisruptionBudget.enabled=false")
    assert control < 3, "the control saw nothing: the watch is blind"
    return f"at least {least} of 4; control, without the budget: {control}"


def _least_in_drain(cluster: Cluster, namespace: str, *words: str) -> int:
    release = Release(cluster, namespace)
    node, *others = NODES
    succeeded(cluster.run("kubectl", "cordon", *others))
    try:
        release.up(*FIXED, *words)
    finally:
        succeeded(cluster.run("kubectl", "uncordon", *others))
    try:
        with cluster.watching(namespace, STABLE) as seen:
            assert seen.first == 4
            succeeded(cluster.run(
                "kubectl", "drain", node, "--delete-emptydir-data", "--timeout=240s",
                f"--pod-selector=app.kubernetes.io/instance=auction,{STABLE}",
            ))  # fmt: skip
        left = [pod for pod in cluster.pods(namespace) if pod["spec"].get("nodeName") == node]
        assert not left, "pods are still on the node"
    finally:
        succeeded(cluster.run("kubectl", "uncordon", node))
        release.helm("uninstall", "--wait")
    return seen.least


def scaled(cluster: Cluster) -> str:
    release = Release(cluster, "scaled")
    release.up()
    # As an HPA does, by the same subresource; without metrics the one here leaves what is above its least.
    succeeded(cluster.run("kubectl", "scale", "deployment/auction", "--replicas=5", "--namespace", "scaled"))
    release.settle()
    release.up("--set", "podAnnotations.try=again")
    assert len(release.pods()) == 5, f"{len(release.pods())} pods, of 5"
    return "5 pods stayed 5"


# Steps of an environment


class Steps:
    """The environment prd, from a copy of `deploy/` whose files a trial may change."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.release = Release(cluster, "ads")
        self.root = cluster.folder / "project"
        if self.root.exists():
            return  # as the trial before left it
        shutil.copytree(ROOT / "deploy", self.root / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a beginning"]):
            who = ("-c", "user.name=trial", "-c", "user.email=trial@example.com", "-c", "commit.gpgsign=false")
            subprocess.run(["git", *who, *words], cwd=self.root, check=True, capture_output=True)

    def step(self, *words: str, module: str = "rollout") -> subprocess.CompletedProcess[str]:
        """Run what `make` runs."""
        return self.cluster.run(sys.executable, "-m", f"deploy.{module}", *words, cwd=self.root)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / "deploy" / file
        text = path.read_text()
        assert old in text, f"{old} is not in {file}"
        path.write_text(text.replace(old, new))

    def image(self, old: str, new: str) -> None:
        self.edit("environments/values/prd.yaml", f"sha256:{old * 64}", f"sha256:{new * 64}")

    def images(self) -> set[str]:
        """Tell the stable pods' images by the first digit of their digest."""
        return {image.partition("sha256:")[2][:1] for image in self.release.pods().values()}

    def canaries(self) -> int:
        return len(self.release.pods("track=canary"))

    def addresses(self) -> int:
        """Count the pods that the Service sends calls to."""
        path = (
            "/apis/discovery.k8s.io/v1/namespaces/ads/endpointslices?labelSelector=kubernetes.io/service-name=auction"
        )
        slices = self.cluster.ask(path)["items"]
        return sum(each["conditions"]["ready"] for found in slices for each in found.get("endpoints") or [])


def from_nothing(cluster: Cluster) -> str:
    steps = Steps(cluster)
    (prd,) = releases("prd", steps.root / "deploy")
    layers = [word for layer in prd.layers for word in ("--values", str(layer))]
    steps.release.up(*layers, chart=prd.chart)
    succeeded(steps.step("smoke", "prd"))
    succeeded(steps.step("drift", "prd"))
    said = succeeded(steps.step("diff", "prd", "--base", "released", module="manifests"))
    assert "no change since released" in said, said[:600]
    return f"{len(steps.release.pods())} pods, {len(steps.release.objects())} objects"


def canaried(cluster: Cluster) -> str:
    steps = Steps(cluster)
    before = steps.release.pods()
    steps.image("0", "1")
    succeeded(steps.step("canary", "prd", "--weight", "25"))
    assert (before, 2) == (steps.release.pods(), steps.canaries()), (
        "stable pods were touched, or the canary is not there"
    )
    addresses = steps.addresses()
    assert addresses == len(before) + 2, f"the Service has {addresses} addresses"
    succeeded(steps.step("canary", "prd", "--replicas", "4"))
    assert (before, 4) == (steps.release.pods(), steps.canaries())
    with cluster.watching("ads", STABLE) as seen:
        succeeded(steps.step("promote", "prd"))
        steps.release.settle()
    _until(lambda: not steps.canaries())
    assert {"1"} == steps.images()
    assert seen.least >= len(before), f"{seen.least} of {len(before)} pods were ready"
    promoted = steps.release.pods()
    steps.image("1", "2")
    succeeded(steps.step("canary", "prd"))
    assert steps.canaries() == 1
    with cluster.watching("ads", STABLE) as still:
        succeeded(steps.step("rollback", "prd"))
    _until(lambda: not steps.canaries())
    assert promoted == steps.release.pods(), "ending a canary touched stable pods"
    assert still.least == len(promoted)
    return f"2 and 4 canaries beside {len(before)} pods; at least {seen.least} ready while promoted"


def rolled_back(cluster: Cluster) -> str:
    steps = Steps(cluster)
    assert {"1"} == steps.images()
    said = succeeded(steps.step("rollback", "prd"))
    steps.release.settle()
    assert {"0"} == steps.images(), said
    *_, last = steps.release.history()
    return f"revision {last['revision']}: {last['description']}"


def refused(cluster: Cluster) -> str:
    steps = Steps(cluster)
    before = steps.release.history()
    steps.image("2", "0")
    nothing = steps.step("canary", "prd")
    none = steps.step("promote", "prd")
    steps.image("0", "3")
    steps.edit("charts/auction/templates/_deployment.tpl", "runAsGroup: 65532", "runAsGroup: 65531")
    touching = steps.step("canary", "prd")
    steps.edit("charts/auction/templates/_deployment.tpl", "runAsGroup: 65531", "runAsGroup: 65532")
    reasons = ("nothing to try", "no canary is running", "would replace stable pods")
    for done, reason in zip((nothing, none, touching), reasons, strict=True):
        assert done.returncode == 1, f"not refused: {reason}"
        assert reason in done.stderr, done.stderr
    assert before == steps.release.history()
    return "three refusals, no revision"


def drifted(cluster: Cluster) -> str:
    steps = Steps(cluster)
    succeeded(steps.step("drift", "prd"))
    succeeded(cluster.run("kubectl", "scale", "deployment/auction", "--replicas=7", "--namespace", "ads"))
    succeeded(steps.step("drift", "prd"))
    by_hand = json.dumps({"spec": {"ports": [{"port": 7400, "name": "grpc", "appProtocol": "http"}]}})
    succeeded(cluster.run("kubectl", "patch", "service/auction", "--namespace", "ads", "--patch", by_hand))
    found = steps.step("drift", "prd")
    assert found.returncode == 1, "a Service changed by hand was not seen"
    assert "appProtocol: kubernetes.io/h2c" in found.stdout, found.stdout
    return "a Service changed by hand is found, 7 pods in place of 6 are not"


def cleared(cluster: Cluster) -> str:
    """Kill an upgrade half way, and go back."""
    steps = Steps(cluster)
    before = steps.release.pods()
    words = (
        "upgrade",
        "auction",
        str(CHART),
        "--namespace",
        "ads",
        "--reuse-values",
        "--set",
        f"image.tag={BROKEN},image.digest=",
    )
    upgrade = cluster.begin("helm", *words, *WAIT)
    _until(lambda: steps.release.history()[-1]["status"] == "pending-upgrade")
    _until(lambda: len(steps.release.pods()) > len(before))
    upgrade.kill()
    upgrade.wait()
    blocked = steps.release.upgrade()
    assert "another operation" in blocked.stderr, blocked.stderr
    succeeded(steps.step("rollback", "prd"))
    steps.release.settle()
    assert before == steps.release.pods(), "pods that were there were replaced"
    return f"{len(before)} of {len(before)} pods stayed"


def lacking(cluster: Cluster) -> str:
    """Install what names a kind that the cluster does not have."""
    kind = "podmonitors.monitoring.coreos.com"
    succeeded(cluster.run("kubectl", "delete", "customresourcedefinition", kind))
    # What Helm remembers of a cluster's kinds for some minutes.
    shutil.rmtree(cluster.folder / ".kube", ignore_errors=True)
    release = Release(cluster, "lacking", CHART / "ci" / "podmonitor-values.yaml")
    failed = release.upgrade()
    assert failed.returncode != 0, "it was installed"
    assert 'no matches for kind "PodMonitor"' in failed.stderr, failed.stderr
    assert not release.pods("track"), "some of it was installed"
    return 'helm says: no matches for kind "PodMonitor"'


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(LOOKS):
        if holds():
            return
        pause(0.5)
    raise AssertionError("what a controller was to do was not done")


TRIALS: Final = (
    Trial(
        installed,
        "Every `ci/*-values.yaml` is installed, comes up, has its `helm test` taken, and the same upgrade again "
        "changes nothing",
    ),
    Trial(
        upgraded,
        "The previous chart is upgraded and rolled back with each of its `ci` files: nothing is made anew but "
        "pods, ready ones are never fewer, and what is rolled back to is what was there",
    ),
    Trial(rolled, "A rolling update never has fewer ready pods than replicas"),
    Trial(
        taken_back, "A bad image with `--atomic` is rolled back by itself, without touching the pods that were there"
    ),
    Trial(
        drained, "A node drain never takes a release below its PodDisruptionBudget (4 pods on the node, 1 may be away)"
    ),
    Trial(scaled, "An upgrade leaves the number of pods that an autoscaler chose"),
    Trial(
        from_nothing,
        "prd is there from an empty namespace with its files alone; smoke passes, nothing drifts, nothing differs",
    ),
    Trial(
        canaried,
        "Canary up, promote, canary up, down: stable pods are touched by the promotion alone, and never too few",
    ),
    Trial(
        rolled_back, "After a promotion and a canary taken back, one more rollback goes past both to the release before"
    ),
    Trial(
        refused,
        "A canary that would replace stable pods or has nothing to try, and a promotion without one, are refused "
        "and change nothing",
    ),
    Trial(cleared, "An upgrade that was killed half way blocks the next one until a rollback, which touches no pod"),
    Trial(drifted, "Drift is what somebody changed by hand, and not what an autoscaler did"),
    Trial(lacking, "A release that names an operator's kind which is not there fails and installs nothing"),
)


def tried(cluster: Cluster, only: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """Run the trials one after another: of each whether it holds, its claim, and what was seen."""
    results = []
    for trial in TRIALS:
        if only and trial.name not in only:
            continue
        try:
            holds, seen = "holds", trial.tried(cluster)
        except AssertionError as refusal:
            holds, seen = "FAILS", str(refusal)
        print(f"{holds}: {trial.name}: {trial.claim}: {seen}", flush=True)
        results.append((holds, trial.claim, seen))
    return results

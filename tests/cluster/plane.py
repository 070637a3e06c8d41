# A Kubernetes of its own, on loopback alone: etcd, the API server, controllers and the scheduler are real, nodes
# and pods are simulated by kwok. A pod becomes ready if nothing is said against its image; nothing runs in it, no probe
# asks it and no traffic reaches it.

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import yaml

Object = dict[str, Any]

SERVER: Final = ("127.0.0.1", 6443)
STORE: Final = "http://127.0.0.1:2379"
TOKEN: Final = "loopback"
# Contexts of the kubeconfig, each the same cluster: environments name theirs.
CONTEXTS: Final = ("dev", "stg", "prd")
# Two a zone, so that a drained node leaves its zone another.
NODES: Final = {f"node-{zone}{row}": f"zone-{zone}" for zone in "abc" for row in (1, 2)}
# A pod with an image of this tag never becomes ready.
BROKEN: Final = "broken"
# How long a simulated pod takes, in milliseconds: something, so that a rollout has moments to be seen in.
READY_MS, READY_JITTER_MS, GONE_MS = 300, 700, 800
# As a kubelet's. Without a lease a node counts as lost after 50 s, and no pod on it as ready.
LEASE_S: Final = 40
# The slowest of five to answer takes some seconds on a busy machine.
START_S: Final = 120
# To end by itself after SIGTERM; the API server waits for its watches.
STOP_S: Final = 30

_KINDS: Final = {
    "ExternalSecret": "external-secrets.io",
    "GRPCRoute": "gateway.networking.k8s.io",
    "PodMonitor": "monitoring.coreos.com",
    "PrometheusRule": "monitoring.coreos.com",
    "ScaledObject": "keda.sh",
    "ServiceMonitor": "monitoring.coreos.com",
}


class Cluster:
    """A control plane that lives while the block runs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._running: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        self._trust = ssl.create_default_context()
        # Its certificate is made by itself, for this run, and nobody else is on this loopback.
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def _start(self) -> None:
        subprocess.run(["openssl", "genrsa", "-out", "accounts.key", "2048"], cwd=self.folder, capture_output=True,
                       check=True)  # fmt: skip
        (self.folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig()))
        (self.folder / "stages.yaml").write_text(stages(self.programs / "stages"))
        self._run(
            "etcd", "--data-dir=etcd", f"--listen-client-urls={STORE}", f"--advertise-client-urls={STORE}",
            "--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync",
        )  # fmt: skip
        self._run(
            "kube-apiserver", f"--etcd-servers={STORE}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={SERVER[1]}", "--cert-dir=certificates", "--service-cluster-ip-range=10.0.0.0/16",
            "--token-auth-file=tokens.csv", "--authorization-mode=AlwaysAllow", "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes", "--service-account-key-file=accounts.key",
            "--service-account-signing-key-file=accounts.key",
        )  # fmt: skip
        self._until("the API server is ready", lambda: self.ask("/readyz") is not None)
        known = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        # An autoscaler that looks once in 15 s would be most of what a trial waits for.
        self._run("kube-controller-manager", *known, "--service-account-private-key-file=accounts.key",
                  "--horizontal-pod-autoscaler-sync-period=1s")  # fmt: skip
        self._run("kube-scheduler", *known)
        self._run("kwok", known[0], "--manage-all-nodes=true", "--config=stages.yaml", "--cidr=10.244.0.0/16",
                  "--node-ip=127.0.0.1", f"--node-lease-duration-seconds={LEASE_S}")  # fmt: skip
        self.apply(*(_node(name, zone) for name, zone in NODES.items()), *map(_definition, sorted(_KINDS)))
        # One of ci/*-values.yaml names it.
        self.apply(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1}
        )
        self._until("every node is ready", lambda: len(self._ready("/api/v1/nodes")) == len(NODES))

    def _run(self, program: str, *words: str) -> None:
        log = (self.folder / f"{program}.log").open("wb")
        self._running.append((program, subprocess.Popen(
            [self.programs / program, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # an interrupt at the terminal is for us, who then stop them in order
        ), log))  # fmt: skip

    def _stop(self) -> None:
        """End them in reverse: whoever still has something to write finds the one it writes to."""
        while self._running:
            _, process, log = self._running.pop()
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()

    def _until(self, said: str, holds: Callable[[], bool]) -> None:
        for _ in range(START_S * 5):
            for program, process, _log in self._running:
                if process.poll() is not None:
                    tail = (self.folder / f"{program}.log").read_text().splitlines()[-5:]
                    raise RuntimeError("\n".join([f"{program} ended with {process.returncode}", *tail]))
            try:
                if holds():
                    return
            except OSError:
                pass
            pause(0.2)
        raise RuntimeError(f"waited {START_S} s in vain until {said}")

    def ask(self, path: str) -> Any:
        """GET from the API; text, or what its JSON says. Raises OSError."""
        connection, reply = self._open(path)
        with closing(connection):
            text = reply.read()
        if reply.status != 200:
            raise OSError(f"{path}: {reply.status} {text.decode()}")
        return json.loads(text) if text[:1] == b"{" else text.decode()

    def _open(self, path: str, timeout: float = 30) -> tuple[HTTPSConnection, HTTPResponse]:
        connection = HTTPSConnection(*SERVER, timeout=timeout, context=self._trust)
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection, connection.getresponse()

    def _ready(self, path: str) -> list[Object]:
        return [found for found in self.ask(path)["items"] if is_ready(found)]

    def run(
        self, program: str, *words: str, stdin: str | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the cluster's programs, or another one that may call them."""
        known = self.programs / program
        return subprocess.run(
            [str(known) if known.exists() else program, *words], input=stdin, cwd=cwd, env=self.environ(),
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    def begin(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start one of the cluster's programs, for somebody to end it."""
        silent = subprocess.DEVNULL
        return subprocess.Popen([self.programs / program, *words], env=self.environ(), stdout=silent, stderr=silent)

    def environ(self) -> dict[str, str]:
        """Give an environment in which these programs and this cluster come first, and no other cluster is known."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}

    def apply(self, *objects: Object) -> None:
        done = self.run("kubectl", "apply", "--server-side", "--filename", "-", stdin=yaml.safe_dump_all(objects))
        if done.returncode:
            raise RuntimeError(done.stderr)

    def pods(self, namespace: str, selector: str = "track") -> list[Object]:
        """List pods that are not about to go."""
        found = self.ask(f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @contextmanager
    def watching(self, namespace: str, selector: str) -> Iterator[Ready]:
        """Follow how many of these pods are ready, at every change that there is."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"
        listed = self.ask(path)
        seen = Ready(listed["items"])
        connection, stream = self._open(
            f"{path}&watch=1&resourceVersion={listed['metadata']['resourceVersion']}", timeout=900
        )
        reader = threading.Thread(target=seen.follow, args=(stream,), daemon=True)
        reader.start()
        try:
            yield seen
            # The API server tells watchers within milliseconds; this is a hundred times that.
            pause(0.5)
            assert not seen.ended_early, "the watch ended before what it was to see"
        finally:
            seen.over = True
            # The reader holds the stream until something comes, and nothing may come any more.
            connection.sock.shutdown(socket.SHUT_RDWR)
            reader.join()
            connection.close()


class Ready:
    """How many pods were ready, from event to event."""

    def __init__(self, pods: list[Object]) -> None:
        self._ready = {pod["metadata"]["uid"]: is_ready(pod) for pod in pods}
        self.first = self.least = sum(self._ready.values())
        self.over = False
        self.ended_early = False

    def follow(self, stream: Iterable[bytes]) -> None:
        try:
            for line in stream:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    break
                pod = event["object"]
                self._ready[pod["metadata"]["uid"]] = event["type"] != "DELETED" and is_ready(pod)
                if not self.over:
                    self.least = min(self.least, sum(self._ready.values()))
        except (OSError, ValueError, AttributeError):
            pass  # the connection was shut under us, which is how a watch ends
        finally:
            # Also by what is no pod: the API server says so in the stream when it gives a watch up.
            self.ended_early = not self.over


def is_ready(found: Object) -> bool:
    """Tell whether a node or a pod is ready; one that is being taken down is not, whatever it says."""
    conditions = found.get("status", {}).get("conditions") or []
    said = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return said and "deletionTimestamp" not in found["metadata"]


def pause(seconds: float) -> None:
    """Wait for what tells nobody when it is done."""
    threading.Event().wait(seconds)


def stages(folder: Path) -> str:
    """Give kwok's own stages, with the times above, images that never come up, and an end for pods of `helm test`."""
    found = {
        stage["metadata"]["name"]: stage
        for file in sorted(folder.iterdir())
        for stage in [yaml.safe_load(file.read_text())]
    }
    ready, complete, delete = (found[f"pod-{name}"]["spec"] for name in ("ready", "complete", "delete"))
    # Jobs are what it completes; the only pods here that end by themselves are those of a test.
    hooked = {"key": '.metadata.annotations["helm.sh/hook"]', "operator": "In", "values": ["test"]}
    complete["selector"]["matchExpressions"][-1] = hooked
    image = f'.spec.containers.[] | select( .image | endswith(":{BROKEN}") ) | .image'
    ready["selector"]["matchExpressions"].append({"key": image, "operator": "DoesNotExist"})
    ready["delay"] = {"durationMilliseconds": READY_MS, "jitterDurationMilliseconds": READY_MS + READY_JITTER_MS}
    delete["delay"] = {"durationMilliseconds": GONE_MS}
    return yaml.safe_dump_all(found.values())


def _kubeconfig() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXTS[0],
        "clusters": [
            {
                "name": "loopback",
                "cluster": {"server": f"https://{SERVER[0]}:{SERVER[1]}", "insecure-skip-tls-verify": True},
            }
        ],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": name, "context": {"cluster": "loopback", "user": "admin"}} for name in CONTEXTS],
    }


def _node(name: str, zone: str) -> Object:
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "kubernetes.io/arch": "amd64"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def _definition(kind: str) -> Object:
    """Define an operator's kind by the schema that the chart's tests check against."""
    (file,) = (Path(__file__).parent.parent / "deploy" / "crds").glob(f"{kind}.*.json")
    group, plural, version = _KINDS[kind], f"{kind.lower()}s", file.name.split(".")[1]
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    described = json.loads(file.read_text())
    # Where it is from: JSON Schema has a word for that, and Kubernetes' part of it does not.
    described.pop("$comment", None)
    schema = {"openAPIV3Schema": described}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Groups of k8s.io are only taken with a word on who approved them.
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a trial on loopback"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }

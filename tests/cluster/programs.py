# The programs of a cluster, built from source: versions stand in tools/*/go.mod, checksums of all of it in go.sum. They
# are built once into the cache of the user, and again when one of these files, or Go, is another one.

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).with_name("tools")
KUBERNETES: Final = "1.36.3"
HELM: Final = "3.22.0"

# A Kubernetes without a version refuses clients, and Helm's charts ask for it.
_FLAGS: Final = {
    "kubernetes": (
        f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES}",
        "-X k8s.io/component-base/version.gitMajor=1",
        f"-X k8s.io/component-base/version.gitMinor={KUBERNETES.split('.')[1]}",
    ),
    "helm": (
        f"-X helm.sh/helm/v3/internal/version.version=v{HELM}",
        "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={KUBERNETES.split('.')[1]}",
    ),
}
# What kwok does to nodes and pods, from its own module.
STAGES: Final = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)


def absent() -> list[str]:
    """List what this machine would need for a cluster and does not have."""
    needed = {"go": "a Go toolchain", "unshare": "unshare of util-linux", "openssl": "openssl", "git": "git"}
    return [said for program, said in needed.items() if shutil.which(program) is None]


def built() -> Path:
    """Give the folder with the programs and kwok's stages, building them if they are not there."""
    version = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(version.encode())
    for file in sorted(TOOLS.glob("*/go.*")):
        digest.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "auction"
    folder = cache / f"cluster-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    print(f"building a Kubernetes and a Helm into {folder}, once; some minutes ...", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    # Nobody sees half a folder, and two who build at once each end with a whole one.
    growing = Path(tempfile.mkdtemp(prefix="cluster-", dir=cache))
    try:
        _build(growing)
        growing.chmod(0o755)
        if not folder.is_dir():
            growing.rename(folder)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return folder


def _build(folder: Path) -> None:
    environ = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    for tools, flags in _FLAGS.items():
        words = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(("-s -w", *flags)),
                 "-o", f"{folder}/", "tool"]  # fmt: skip
        subprocess.run(words, cwd=TOOLS / tools, env=environ, check=True)
    # Its module is called server, and so is what Go makes of it.
    (folder / "server").rename(folder / "etcd")
    words = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    source = subprocess.run(words, cwd=TOOLS / "kubernetes", env=environ, capture_output=True, text=True, check=True)
    (folder / "stages").mkdir()
    for stage in STAGES:
        # Files of a module are read-only, and so would be their copies.
        text = (Path(source.stdout.strip()) / "kustomize" / "stage" / stage).read_text()
        (folder / "stages" / Path(stage).name).write_text(text)

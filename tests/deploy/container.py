# The image as `make image` builds it, and containers of it, without a registry and without an engine.
#
# Where no registry can be asked, the Dockerfile's FROM name is given to a base made of Debian's packages: another
# Python 3.13 on the same Debian, so everything but the base is what it is elsewhere. buildah builds, runc runs. A
# container has the host's network, so that bidders and callers are outside of it and yet on loopback.
#
# `python -m tests.deploy.container` measures the image: docs/benchmarks.md, "Image".

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("buildah", "mmdebstrap", "runc")
# What python:3.13-slim has and a build needs: Python with venv and pip, certificates, and the libstdc++ of its apt.
BASE_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,libstdc++6"
BASE_NAME, NAME = "docker.io/library/python:3.13-slim", "localhost/auction:test"

# A container gets what the chart gives a pod, and limits that a test can see held.
USER = 65532
MEMORY_BYTES = 512 * 1024 * 1024
CPU_PERIOD_US, CPU_QUOTA_US = 100_000, 100_000
# The chart's emptyDir for /tmp.
TMP_BYTES = 16 * 1024 * 1024
# How long anything may take before a test fails; nothing takes a fifth of it on two shared cores.
PATIENCE_S = 60.0

# Tells of each compile in any Python that starts, the program unchanged.
COMPILE_WATCH = """
import sys
from numba.core import event

class Watch(event.Listener):
    def on_start(self, compiled):
        print("COMPILED", compiled.data, file=sys.stderr, flush=True)
    def on_end(self, compiled):
        pass

event.register("numba:compile", Watch())
"""


class Image:
    """A built image: its files, mounted, and what it says of how to run them."""

    def __init__(self, root: Path, config: dict[str, Any]) -> None:
        self.root, self.config = root, config

    def bytes(self, below: str = "") -> int:
        """Count the bytes of its files, unpacked, hard links once."""
        files = (each.lstat() for each in (self.root / below).rglob("*") if each.is_symlink() or not each.is_dir())
        return sum({each.st_ino: each.st_size for each in files}.values())


def missing() -> str:
    """Say why no image can be built and run here; nothing if it can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root, to drop capabilities and to set limits"


def run(*words: str, **options: Any) -> str:
    """Run a program to its end; give what it printed, and raise with all it said if it failed."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, f"{' '.join(words)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """Build the image in a store of its own and mount it; take both away at the end."""
    store, storage = folder / "store", folder / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{store}"\nrunroot = "{folder / "run"}"\n')
    environ = {**os.environ, "BUILDAH_ISOLATION": "chroot", "CONTAINERS_STORAGE_CONF": str(storage)}
    recipe = folder / "base.Dockerfile"
    recipe.write_text("FROM scratch\nADD base.tar /\n")
    flags = ["--network=host", "--pull=never", "--layers=false", *secrets(folder)]
    make = [
        "make",
        "--no-print-directory",
        "image",
        "BUILDER=buildah",
        f"IMAGE={NAME}",
        f"BUILD_FLAGS={' '.join(flags)}",
    ]
    try:
        run("buildah", "build", "--quiet", "--tag", BASE_NAME, "--file", str(recipe), str(base()), env=environ)
        run(*make, env=environ, cwd=ROOT)
        told = json.loads(run("buildah", "inspect", "--type", "image", NAME, env=environ))
        work = run("buildah", "from", "--pull-never", NAME, env=environ).strip()
        yield Image(Path(run("buildah", "mount", work, env=environ).strip()), told["OCIv1"]["config"])
    finally:
        subprocess.run(["buildah", "umount", "--all"], env=environ, check=False, capture_output=True)
        subprocess.run(["buildah", "rm", "--all"], env=environ, check=False, capture_output=True)
        # Where a layer is still mounted, nothing below it may be deleted.
        subprocess.run(["umount", str(store / "overlay")], check=False, capture_output=True)
        shutil.rmtree(store)


def base() -> Path:
    """Make the base once, in the user's cache; give the folder with base.tar. Two minutes the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "auction"
    folder = cache / f"base-{hashlib.sha256(BASE_PACKAGES.encode()).hexdigest()[:12]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=cache))
        beside.chmod(0o755)
        try:
            leave = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "locale", "man")]
            run("mmdebstrap", "--quiet", "--variant=essential", *leave, f"--include={BASE_PACKAGES}", "trixie",
                str(beside / "base.tar"))  # fmt: skip
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def secrets(folder: Path) -> list[str]:
    """Hand pip's configuration here into the build, so that its wheels come from where they do outside of it."""
    listed = run(sys.executable, "-m", "pip", "config", "list")
    told = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    settings = {name.rpartition(".")[2]: value.strip("'\"") for name, value in told.items()}
    certificates = settings.get("cert", "/etc/ssl/certs/ca-certificates.crt")
    passed = {name: settings[name] for name in ("index-url", "extra-index-url", "trusted-host") if name in settings}
    lines = [f"{name} = {value}" for name, value in {**passed, "cert": "/run/secrets/ca"}.items()]
    config = folder / "pip.conf"
    config.write_text("\n".join(["[global]", *lines, ""]))
    return [f"--secret=id=pip,src={config}", f"--secret=id=ca,src={certificates}"]


class Container:
    """`auction serve` in a container of the image, ready; `lines` is what it wrote to stderr."""

    def __init__(self, image: Image, folder: Path, settings: dict[str, Any], environ: dict[str, str]) -> None:
        folder.mkdir()
        self.name = f"auction-{os.getpid()}-{folder.name}"
        self.lines: list[str] = []
        self.ready: dict[str, Any] | None = None
        config, log, watch = folder / "config", folder / "log", folder / "watch"
        for each in (config, log, watch):
            each.mkdir()
        os.chown(log, USER, USER)
        # pytest's folders are its user's alone; mounted into the container, these are all that can be seen of them.
        (config / "auction.yaml").write_text(json.dumps(settings))
        (watch / "sitecustomize.py").write_text(COMPILE_WATCH)
        mounts = {"/etc/auction": (config, "ro"), "/var/lib/auction": (log, "rw"), "/watch": (watch, "ro")}
        (folder / "config.json").write_text(json.dumps(specification(image, self.name, mounts, environ)))
        self.folder, self.log = folder, log
        self._runc = ["runc", "--root", str(folder / "runc")]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [*self._runc, "run", "--bundle", str(folder), self.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._readers = [threading.Thread(target=self._read_ready), threading.Thread(target=self._read)]
        for each in self._readers:
            each.start()

    def until_ready(self) -> dict[str, Any]:
        """Wait for its ready line; give what it says."""
        line = self._said.get(timeout=PATIENCE_S)
        assert line, f"not ready; it said {self.lines}"
        self.ready_s = time.monotonic() - self.begun
        ready: dict[str, Any] = json.loads(line)
        return ready

    def pid(self) -> int:
        """Find its first process, as the host counts."""
        return int(json.loads(run(*self._runc, "state", self.name))["pid"])

    def kill(self, number: signal.Signals) -> None:
        run(*self._runc, "kill", self.name, number.name.removeprefix("SIG"))

    def wait(self) -> int:
        """Wait for its end; give the exit code."""
        code = self.process.wait(PATIENCE_S)
        for each in self._readers:
            each.join(PATIENCE_S)
        return code

    def compiled(self) -> list[str]:
        """List what was compiled in it, from its first instruction on."""
        return [line for line in self.lines if line.startswith("COMPILED")]

    def close(self) -> None:
        subprocess.run([*self._runc, "delete", "--force", self.name], check=False, capture_output=True)
        self.wait()

    def _read_ready(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._said.put(line)
        self._said.put("")

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.lines.extend(line.rstrip() for line in lines)


@contextmanager
def started(image: Image, folder: Path, settings: dict[str, Any], **environ: str) -> Iterator[Container]:
    """A container for as long as the block runs; killed if the block fails to end it."""
    container = Container(image, folder, settings, environ)
    try:
        yield container
    finally:
        container.close()


def specification(
    image: Image, name: str, mounts: dict[str, tuple[Path, str]], environ: dict[str, str]
) -> dict[str, Any]:
    """Say to runc what Kubernetes would: the image's program as its user, and nothing that it does not need."""
    given = [f"{key}={value}" for key, value in {"PYTHONPATH": "/watch", **environ}.items()]
    user, group = map(int, image.config["User"].split(":"))
    nothing: list[str] = []
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    made = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", f"size={TMP_BYTES}"]},
    ]
    bound = [
        {"destination": inside, "type": "bind", "source": str(outside), "options": ["rbind", mode]}
        for inside, (outside, mode) in mounts.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": [*image.config["Entrypoint"], "serve", "--config", "/etc/auction/auction.yaml"],
            "env": [*image.config["Env"], *given],
            "cwd": image.config.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(kinds, nothing),
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "hostname": "auction",
        "mounts": [*made, *bound],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "cgroupsPath": f"/{name}",
            "resources": {
                "memory": {"limit": MEMORY_BYTES},
                "cpu": {"quota": CPU_QUOTA_US, "period": CPU_PERIOD_US},
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/sysrq-trigger"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }


def limits(pid: int) -> dict[str, int]:
    """Read the limits that hold for a process, from whichever cgroups this machine has."""
    groups = dict(line.split(":")[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    top = Path("/sys/fs/cgroup")
    if "memory" not in groups:
        quota = (top / groups[""].lstrip("/") / "cpu.max").read_text().split()[0]
        return {"memory": int((top / groups[""].lstrip("/") / "memory.max").read_text()), "cpu": int(quota)}
    memory = top / "memory" / groups["memory"].lstrip("/") / "memory.limit_in_bytes"
    cpu = next(name for name in groups if "cpu" in name.split(","))
    quota = (top / cpu / groups[cpu].lstrip("/") / "cpu.cfs_quota_us").read_text()
    return {"memory": int(memory.read_text()), "cpu": int(quota)}


def measure(starts: Sequence[int] = range(7)) -> None:
    """Print the size of the image, and the time and CPU time that it takes to be ready."""
    seconds, cpu_seconds = [], []
    with tempfile.TemporaryDirectory() as name, built(Path(name)) as image:
        for start in starts:
            with started(image, Path(name) / str(start), {"server": {"port": 0, "http_port": 0}}) as container:
                container.until_ready()
                seconds.append(container.ready_s)
                # utime and stime, counted from behind the program's name.
                told = Path(f"/proc/{container.pid()}/stat").read_text().rpartition(")")[2].split()
                cpu_seconds.append(sum(map(int, told[11:13])) / os.sysconf("SC_CLK_TCK"))
        print(f"image.bytes {image.bytes()}, of which {image.bytes('opt/auction')} above the base")
    for unit, values in (("s", seconds), ("cpu_s", cpu_seconds)):
        print(f"image.ready.{unit} {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    assert not missing(), missing()
    measure()

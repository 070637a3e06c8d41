# `make test-cluster`: builds a Kubernetes, starts it where only loopback is, tries the chart and the steps of a release
# on it, prints a table and leaves nothing behind.

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster import programs
from tests.cluster.plane import Cluster
from tests.cluster.trials import ROOT, TRIALS, tried

README = ROOT / "deploy" / "README.md"
BEGIN, END = "<!-- make test-cluster -->\n", "<!-- end -->\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.cluster", description="Try the chart on a real Kubernetes API.")
    parser.add_argument(
        "trials", nargs="*", metavar="trial", help=f"of {', '.join(each.name for each in TRIALS)}; none: all"
    )
    parser.add_argument("--write", action="store_true", help="put the table into deploy/README.md")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.trials) - {each.name for each in TRIALS}
    if unknown:
        parser.error(f"expected {', '.join(each.name for each in TRIALS)}, was {', '.join(sorted(unknown))}")
    if given.within:
        return within(given.within, given.trials, given.write)
    absent = programs.absent()
    if absent:
        print(f"test-cluster: not run: it needs {', '.join(absent)}", file=sys.stderr)
        return 1
    folder = programs.built()
    # A network of its own with nothing but loopback, and processes that end with the first of them, whatever happens.
    # Without root, the same in a user namespace, where the system lets users have one.
    own = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--net", "--pid", "--fork"]
    words = [*own, "--kill-child=TERM", sys.executable, "-m", "tests.cluster", "--within", str(folder), *sys.argv[1:]]
    # The other end closes when what is within has ended, also where unshare ends before it.
    alive, held = os.pipe()
    process = subprocess.Popen(words, pass_fds=(held,))
    os.close(held)
    for number in (signal.SIGTERM, signal.SIGINT):
        # unshare itself ignores both; its end is what tells its child.
        signal.signal(number, lambda *_: process.kill())
    code = process.wait()
    os.read(alive, 1)
    return code


def stopped(number: int, _: object) -> None:
    """End once: what is stopped in order is not to be stopped out of it."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def within(folder: Path, only: list[str], write: bool) -> int:
    """Run trials inside the namespace."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    loopback_up()
    scratch = Path(tempfile.mkdtemp(prefix="auction-cluster-"))
    began = time.monotonic()
    try:
        with Cluster(folder, scratch) as cluster:
            took = time.monotonic() - began
            print(f"Kubernetes {programs.KUBERNETES} is up after {took:.0f} s, with Helm {programs.HELM}", flush=True)
            results = tried(cluster, only)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = [f"| {claim} | {holds} | {seen} |" for holds, claim, seen in results]
    table = "\n".join(["| claim | | seen |", "|---|---|---|", *(row.replace("\n", " ") for row in rows)]) + "\n"
    print(f"\n{table}\n{len(results)} claims in {time.monotonic() - began:.0f} s")
    failed = any(holds != "holds" for holds, _, _ in results)
    if write and not failed and not only:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
    return int(failed)


def loopback_up() -> None:
    """Switch on `lo`, as `ip link set lo up` does, which not every machine has."""
    flags, request, running = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        now = fcntl.ioctl(asked, flags, struct.pack("16sh14x", b"lo", 0))
        (bits,) = struct.unpack_from("h", now, 16)
        fcntl.ioctl(asked, request, struct.pack("16sh14x", b"lo", bits | running))


if __name__ == "__main__":
    sys.exit(main())

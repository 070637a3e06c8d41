# Arbitrary octets against the wire, guided by coverage:
#
#   python -m tests.wirefuzz [--seconds 60] [--target NAME ...] [--keep]
#
# The time is divided among the targets (targets.py says what they are and what must hold). Each starts from its corpus,
# which `make test` replays. A find is printed and added to the corpus of its target, so that it is replayed from then
# on; `--keep` also adds what reached something new.

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.wirefuzz import corpus
from tests.wirefuzz.targets import TARGETS

# Longer inputs reach nothing that these do not: limits are small there.
INPUT_BYTES_MAX = 4_096
# A thousand times what the slowest input takes, so that other work beside it is no hang.
HANG_S = 20
# Ten times what the process holds; the connection is weighed by its own bound.
RESIDENT_MB_MAX = 1_024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wirefuzz", description="Arbitrary octets against the wire.")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only these")
    parser.add_argument("--keep", action="store_true", help="add what reached something new to the corpus")
    args = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris is not here, which has no build for this Python or platform")
        return 0
    names: list[str] = args.target or list(TARGETS)
    faults = [name for name in names if not fuzzed(name, max(1, args.seconds // len(names)), args.keep)]
    print(f"wirefuzz: {len(names) - len(faults)} of {len(names)} targets held" + "".join(f", not {n}" for n in faults))
    return 1 if faults else 0


def fuzzed(name: str, seconds: int, keep: bool) -> bool:
    """Run one target; tell whether everything held."""
    with tempfile.TemporaryDirectory(prefix="wirefuzz-") as folder:
        found, finds = (Path(folder, each) for each in ("found", "finds"))
        for each in (found, finds):
            each.mkdir()
        for number, data in enumerate(corpus.kept(name)):
            (found / str(number)).write_bytes(data)
        limits = [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={HANG_S}", f"-rss_limit_mb={RESIDENT_MB_MAX}"]
        code, said = engine(name, *limits, f"-max_total_time={seconds}", f"-artifact_prefix={finds}/", str(found))
        runs = next((line for line in reversed(said) if "cov:" in line), "nothing was run")
        print(f"{name:14} {seconds} s: {runs.partition('	')[2] or runs}", flush=True)
        broken = [each.read_bytes() for each in sorted(finds.iterdir())]
        if code:
            print("\n".join(said[-60:]))
            corpus.keep(name, [*corpus.kept(name), *broken])
        elif keep:
            corpus.keep(name, [each.read_bytes() for each in found.iterdir()])
        return not code


def engine(name: str, *words: str) -> tuple[int, list[str]]:
    """Run atheris with words for libFuzzer; give its code and what it said."""
    command = [sys.executable, "-m", "tests.wirefuzz.engine", name, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())

# `make mutants`: how many small faults in money, floors and kernels the tests see.
#
# The tree is copied first and tried there, so that editing it meanwhile changes nothing, and nothing here changes it.
# Fails below 90 % of the sample, where a test fails without a fault, and where survivors.toml is stale: an entry names
# no mutant any more, or one that was killed. docs/decisions/mutants.md says why no tool of others does this.

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutants.mutations import Mutant, mutants, mutated

if TYPE_CHECKING:
    from tests.mutants.trial import Mutated

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
RESULT = ROOT / "var" / "mutants.json"
COPIED = ("auction", "bidders", "benchmarks", "conformance", "docs", "tests", "pyproject.toml")

LEAST_KILLED = 0.9
SAMPLE_MAX = 500  # so that a run ends within an hour on two cores
SEED = 1

VECTORS = "tests/test_conformance.py::test_product_decides_as_expected"
# What holds each file, by what sees most in the least time. A rule that only a server would see broken is not in them.
TESTS: dict[str, tuple[str, ...]] = {
    "auction/core/kernels/clear.py": ("tests/test_kernel.py", VECTORS),
    "auction/core/kernels/sieve.py": ("tests/test_sieve.py", "tests/test_sieve_places.py", VECTORS),
    "auction/core/kernels/survey.py": ("tests/test_survey_cells.py", "tests/test_survey.py", VECTORS),
    "auction/core/kernels/wire.py": ("tests/test_survey.py", "tests/test_sieve.py", VECTORS),
    "auction/core/kernels/fold.py": ("tests/test_kernel.py", VECTORS),
    "auction/core/listings.py": ("tests/test_listings.py", VECTORS),
    "auction/model/money.py": ("tests/test_money.py", VECTORS),
    "auction/model/fx.py": ("tests/test_money.py", "tests/test_fx.py", VECTORS),
    "auction/model/draws.py": ("tests/test_money.py", VECTORS),
    "auction/core/floors.py": ("tests/test_floors.py", "tests/test_views.py", VECTORS),
    "auction/core/floor_rules.py": ("tests/test_floor_rules.py", VECTORS),
    "auction/core/adjustments.py": ("tests/test_adjustments.py", VECTORS),
}

# What a trial needs and no mutant is in, imported once for all of them.
PRELOADED = (
    "google.protobuf.json_format", "grpc", "hypothesis.strategies", "msgspec", "numba", "numpy.random",
    "pydantic", "uvloop", "yaml", "auction.v1.openrtb_pb2",
)  # fmt: skip


@dataclass
class Verdict:
    """What became of a mutant: seen by a test, by one that went astray, or by none."""

    outcome: str
    by: str
    cpu_s: float


def module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Try the tests on code with faults.")
    parser.add_argument("--sample", type=int, default=SAMPLE_MAX, help="how many mutants, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="which ones (%(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time (%(default)s)")
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--json", type=Path, default=RESULT, help="where the result is written for machines")
    arguments = parser.parse_args()
    arguments.json = arguments.json.absolute()  # the trials are elsewhere
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave neither trials nor the copy behind
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        return Run(arguments, Path(scratch)).run()


class Run:
    """One run: a copy of the tree, the tests without a fault, the sample, the report."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.out = arguments, scratch / "out"
        self.tree = scratch / "tree"
        self.out.mkdir()
        self.tree.mkdir()
        unwanted = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.tree / name, ignore=unwanted)
            else:
                shutil.copy(ROOT / name, self.tree / name)
        self.files = [file for file in TESTS if arguments.only in file]
        self.sources = {file: (self.tree / file).read_text() for file in self.files}
        self.usual_s: dict[str, float] = {}

    def run(self) -> int:
        began = time.monotonic()
        self.preload()
        every = [mutant for file, source in self.sources.items() for mutant in mutants(file, source)]
        entries = [entry for entry in accepted(SURVIVORS) if entry["file"] in self.files]
        known = {mutant.identity for mutant in every}
        stale = [f"names no mutant: {told(entry)}" for entry in entries if identity(entry) not in known]

        if not self.passes_without_a_fault():
            return 1
        number = min(self.arguments.sample, len(every))
        random.Random(self.arguments.seed).shuffle(every)
        sample = every[:number]  # so that a smaller sample is the beginning of a larger one
        print(
            f"mutants: {number} of {len(every)}, seed {self.arguments.seed}, {self.arguments.jobs} at a time",
            flush=True,
        )
        verdicts = self.verdicts(sample)

        reasons = {identity(entry): str(entry["reason"]) for entry in entries}
        stale += [
            f"was killed by {verdict.by}: {described(mutant)}"
            for mutant, verdict in verdicts.items()
            if verdict.outcome != "survived" and mutant.identity in reasons
        ]
        took_s = time.monotonic() - began
        return self.report(verdicts, reasons, stale, took_s)

    def preload(self) -> None:
        os.chdir(self.tree)
        os.environ["NUMBA_DISABLE_JIT"] = "1"
        sys.path[:] = [str(self.tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
        for name in ("tests", "auction"):  # this package is the work tree's; what is tried is the copy's
            for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                if not loaded.startswith("tests.mutants"):
                    del sys.modules[loaded]
        for name in PRELOADED:
            __import__(name)
        import auction

        assert auction.__file__ is not None
        assert Path(auction.__file__).is_relative_to(self.tree)
        assert not {module(file) for file in TESTS} & set(sys.modules)

    def passes_without_a_fault(self) -> bool:
        """Run every test once on the code as it is, to know that it passes and how long it takes."""
        wanted = list(dict.fromkeys(test for file in self.files for test in TESTS[file]))
        faults: list[str] = []

        def ended(test: str, code: int, report: dict[str, Any], log: str, cpu_s: float) -> None:
            self.usual_s.update(report.get("took_s", {}))
            print(f"  {test}: {cpu_s:.1f} s without a fault", flush=True)
            if code != 0:
                faults.append(f"{test}: fails without a fault, with code {code}\n{log}")

        self.each(wanted, lambda test: ((test,), None), ended)
        for fault in faults:
            print(fault, file=sys.stderr)
        return not faults

    def verdicts(self, sample: Sequence[Mutant]) -> dict[Mutant, Verdict]:
        from tests.mutants.trial import ASTRAY, FAILED, INTERRUPTED, PASSED, Mutated

        verdicts: dict[Mutant, Verdict] = {}
        outcomes = {PASSED: "survived", FAILED: "killed", INTERRUPTED: "killed", ASTRAY: "astray"}
        began = time.monotonic()

        def trial(mutant: Mutant) -> tuple[Sequence[str], Mutated]:
            tree = mutated(self.sources[mutant.file], mutant.number)
            return TESTS[mutant.file], Mutated(self.tree / mutant.file, module(mutant.file), tree)

        def ended(mutant: Mutant, code: int, report: dict[str, Any], log: str, cpu_s: float) -> None:
            # Out of processor time for good, which only a call that no signal stops can be.
            outcome = "astray" if code < 0 else outcomes.get(code)
            if outcome is None:
                raise SystemExit(f"{described(mutant)}: ended with {code}\n{log}")
            verdicts[mutant] = Verdict(outcome, report.get("by", ""), cpu_s)
            done, survived = len(verdicts), sum(one.outcome == "survived" for one in verdicts.values())
            if outcome == "survived" or done % 20 == 0:
                line = f"{time.monotonic() - began:5.0f} s  {done:3}/{len(sample)}  {survived} survived"
                print(f"{line}  {described(mutant) if outcome == 'survived' else ''}".rstrip(), flush=True)

        self.each(sample, trial, ended)
        return verdicts

    def each(
        self,
        subjects: Sequence[Any],
        trial: Callable[[Any], tuple[Sequence[str], Mutated | None]],
        ended: Callable[[Any, int, dict[str, Any], str, float], None],
    ) -> None:
        """Run one process for each subject, `jobs` at a time, and tell how each ended; stop them all on the way out."""
        from tests.mutants.trial import fork

        running: dict[int, tuple[Any, Path]] = {}
        waiting = list(enumerate(subjects))[::-1]
        try:
            while waiting or running:
                while waiting and len(running) < self.arguments.jobs:
                    number, subject = waiting.pop()
                    out = self.out / str(number)
                    tests, mutant = trial(subject)
                    running[fork(tests, out, self.usual_s, mutant)] = subject, out
                child, status, usage = os.wait4(-1, 0)
                subject, out = running.pop(child)
                report, log = out.with_suffix(".json"), out.with_suffix(".txt")
                told = json.loads(report.read_text()) if report.exists() else {}
                ended(
                    subject,
                    os.waitstatus_to_exitcode(status),
                    told,
                    log.read_text(errors="replace"),
                    usage.ru_utime + usage.ru_stime,
                )
                report.unlink(missing_ok=True)
                log.unlink()
        finally:
            for child in running:
                os.kill(child, 9)
                os.waitpid(child, 0)

    def report(
        self, verdicts: dict[Mutant, Verdict], reasons: dict[Any, str], stale: Sequence[str], took_s: float
    ) -> int:
        survivors = sorted(
            (m for m, v in verdicts.items() if v.outcome == "survived"), key=lambda m: (m.file, m.number)
        )
        print("\nsurvivors:")
        for mutant in survivors:
            print(f"  {described(mutant)}\n    {reasons.get(mutant.identity, 'no reason is known')}")
        print("\n  sampled  killed  file")
        by_file = Counter(mutant.file for mutant in verdicts)
        alive = Counter(mutant.file for mutant in survivors)
        for file, sampled in by_file.items():
            print(f"  {sampled:7}  {(sampled - alive[file]) / sampled:6.1%}  {file}")
        rate = 1 - len(survivors) / max(1, len(verdicts))
        print(f"\n{len(verdicts)} sampled, {len(verdicts) - len(survivors)} killed ({rate:.1%}), "
              f"{len(survivors)} survived, {took_s / 60:.1f} minutes, "
              f"{sum(one.cpu_s for one in verdicts.values()) / 60:.1f} of processor time")  # fmt: skip
        for fault in stale:
            print(f"survivors.toml is stale, {fault}", file=sys.stderr)
        self.arguments.json.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "sampled": len(verdicts),
            "killed": len(verdicts) - len(survivors),
            "rate": rate,
            "seed": self.arguments.seed,
            "took_s": round(took_s),
            "stale": stale,
            "mutants": [
                {**asdict(mutant), **asdict(verdict), "reason": reasons.get(mutant.identity)}
                for mutant, verdict in verdicts.items()
            ],
        }
        self.arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        if rate < LEAST_KILLED:
            print(f"fewer than {LEAST_KILLED:.0%} were killed", file=sys.stderr)
        return int(rate < LEAST_KILLED or bool(stale))


def accepted(path: Path) -> list[dict[str, Any]]:
    """Read the survivors that are known, each with its reason."""
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text()).get("survivor", []) if path.exists() else []
    for entry in entries:
        assert entry.keys() - {"nth"} == {"file", "function", "before", "after", "reason"}, entry
    return entries


def identity(entry: dict[str, Any]) -> tuple[str, str, str, str, int]:
    return entry["file"], entry["function"], entry["before"], entry["after"], entry.get("nth", 1)


def told(entry: dict[str, Any]) -> str:
    return f"{entry['file']} {entry['function']}: {entry['before']} -> {entry['after']}"


def described(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line} {mutant.function}: {mutant.before} -> {mutant.after}"

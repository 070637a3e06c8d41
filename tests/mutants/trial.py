# One mutant's tests, in a process of its own, forked from one that has imported whatever is not on trial.
#
# The mutant is on no disk: a finder gives it to whoever imports its module. Kernels run interpreted, for a compiler
# would take longer than all the tests. A test that takes several times the processor time it took without a fault has
# seen the mutant, too: it runs in circles.

from __future__ import annotations

import ast
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import hypothesis
import pytest

# Processor seconds of one test beyond which it has gone astray: a few times its usual time, and never less than these.
TIMES, LEAST_S = 5, 3.0
# For what a signal does not stop. More than a whole trial takes.
TRIAL_S_MAX = 300
# Several times what a trial needs; a list that grows without end is stopped before the machine is.
MEMORY_MAX = 8 * 2**30

PASSED, FAILED, INTERRUPTED = 0, 1, 2
ASTRAY = 100


class Mutated:
    """Find one module, and load it from a tree instead of its file."""

    def __init__(self, file: Path, module: str, tree: ast.Module) -> None:
        self.file, self.module, self.tree = file, module, tree

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.module:
            return None
        return spec_from_file_location(name, self.file, loader=_Loader(name, str(self.file), self.tree))


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self.tree = tree

    def get_code(self, fullname: str) -> CodeType:
        code = compile(self.tree, self.path, "exec")
        assert isinstance(code, CodeType)
        return code


class Watch:
    """Take the time of each test, stop one that goes astray, and say which was the first to fail."""

    def __init__(self, report: Path, usual_s: Mapping[str, float]) -> None:
        self.report, self.usual_s = report, usual_s
        self.took_s: dict[str, float] = {}
        self.failed = self.running = ""

    def start(self, limit_s: float) -> None:
        signal.signal(signal.SIGVTALRM, self._astray)
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)

    def _astray(self, number: int, frame: FrameType | None) -> None:
        self.failed = self.running
        self.write()
        os._exit(ASTRAY)

    def write(self) -> None:
        self.report.write_text(json.dumps({"by": self.failed, "took_s": self.took_s}))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.running = item.nodeid
        self.start(max(LEAST_S, TIMES * self.usual_s.get(item.nodeid, TRIAL_S_MAX)))
        began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.took_s[item.nodeid] = resource.getrusage(resource.RUSAGE_SELF).ru_utime - began

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # The quickest first, within a file: what sees a mutant soon spares the rest.
        order = list(dict.fromkeys(item.nodeid.partition("::")[0] for item in items))
        items.sort(key=lambda item: (order.index(item.nodeid.partition("::")[0]), self.usual_s.get(item.nodeid, 0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def fork(tests: Sequence[str], out: Path, usual_s: Mapping[str, float], mutant: Mutated | None) -> int:
    """Start a trial and give its process; it writes `out` with .json and .txt and ends with pytest's code or ASTRAY."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        code = _tried(tests, out, usual_s, mutant)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # whatever happened, the parent's own code must not run on here


def _tried(tests: Sequence[str], out: Path, usual_s: Mapping[str, float], mutant: Mutated | None) -> int:
    log = os.open(out.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_S_MAX, TRIAL_S_MAX + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    if mutant is not None:
        assert mutant.module not in sys.modules
        sys.meta_path.insert(0, mutant)
    # The first failure is enough, as it was found.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", phases=phases, report_multiple_bugs=False, database=None)
    hypothesis.settings.load_profile("mutants")
    watch = Watch(out.with_suffix(".json"), usual_s)
    watch.start(TRIAL_S_MAX if mutant is None else 10 * LEAST_S)  # importing, too, can go astray
    # What was imported before pytest started is not rewritten, and need not be.
    options = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    code = PASSED
    for test in tests:  # one after the other, for most mutants do not live to see the second
        code = code or int(pytest.main([*options, test], plugins=[watch]))
    watch.write()
    sys.stdout.flush()
    return code

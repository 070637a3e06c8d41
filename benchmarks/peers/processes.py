# Processes of a benchmark: each on the core that it was given, ended with the run, and what CPU time it took.

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

# The engine has one core to itself; bidders and load share the other, so that neither takes time from it.
ENGINE_CORE: Final = 1
OTHER_CORE: Final = 0

# An exchange writes its log out and lets connections go before it ends; nobody needs as long.
STOP_S: Final = 30


def child(stack: ExitStack, arguments: list[str], core: int) -> dict[str, str]:
    """Start a process of ours on one core and wait for its line of JSON; it ends with `stack`."""
    return announced(stack, [sys.executable, *arguments], core)


def announced(stack: ExitStack, command: list[str], core: int) -> dict[str, str]:
    """Start any program that says in one line of JSON when it is ready; RuntimeError where it ends without one."""
    process = spawned(stack, command, core, stdout=subprocess.PIPE)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(command)}: ended before it was ready")
    said: dict[str, str] = json.loads(line)
    return said


def spawned(
    stack: ExitStack,
    command: list[str],
    core: int,
    *,
    stdout: int = subprocess.DEVNULL,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start any program on one core, with all its threads, and `environment` beside ours; it ends with `stack`."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)}),
    )

    def stop() -> None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    return process


def cpu_ns(process: int) -> int:
    """Give the CPU time that a process has used, user and system, in nanoseconds (Linux).

    Of all its threads, those that have ended as well, which /proc/PID/task forgets.
    """
    return time.clock_gettime_ns(~process << 3 | CPUCLOCK_SCHED)


# Linux names the clock of another process by its inverted number and what is counted: here, time on a core.
CPUCLOCK_SCHED: Final = 2

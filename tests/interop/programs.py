# Programs that are not ours: run, ended whatever happens, and built here where they are Go's. go.mod and go.sum name
# every version of theirs and of what they stand on, with checksums.

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.interop.echo import Absent, Fault

HERE = Path(__file__).parent
BUILT = HERE.parent.parent / "var" / "interop"

PEER = "."
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"
GHZ = "github.com/bojand/ghz/cmd/ghz"

_current: set[Path] = set()


@asynccontextmanager
async def started(*words: str | Path, said: int | None = PIPE, erred: int | None = STDOUT) -> AsyncIterator[Process]:
    """Run a program for as long as the block runs."""
    # A session of its own: Ctrl-C reaches us alone, and we end it.
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        cwd=HERE,
        env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"},
        stdout=said,
        stderr=erred,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run(*words: str | Path) -> tuple[int, str]:
    """Run a program to its end; give its code and all that it said."""
    async with started(*words) as process:
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")


async def built(package: str) -> Path:
    """Build a program of Go, once; that does nothing where it is there as it would be built."""
    if shutil.which("go") is None:
        raise Absent("Go is not here, and it is built with that (https://go.dev/dl)")
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / ("peer" if package == PEER else package.rpartition("/")[2])
    if program in _current:
        return program
    if not program.exists():
        print(f"building {program.name} ...", file=sys.stderr, flush=True)
    code, said = await run("go", "build", "-o", program, package)
    if code:
        raise Fault(f"{program.name} cannot be built: {said[-600:]}")
    _current.add(program)
    return program


def found(name: str, package: str) -> Path:
    """Find a program on the path or beside this Python."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise Absent(f"{name} is not here ({package})")
    return Path(path)

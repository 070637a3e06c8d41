# Exchanges as a cluster runs them: each an own process on an address of its own, all on the same port, with a log of
# its own. Addresses are of 127.0.0.0/8, which Linux answers on without being told: no network namespace is needed.

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from auction.core import record
from auction.edge import eventlog

PORT, HTTP_PORT = 7400, 7480
# A start costs two seconds of a core; the machine may be busy with nine others.
READY_S = 90.0
# What a stop may take at most: notice, grace and log, each a few seconds here.
STOP_S = 60.0
# Starts at a time: more only wait for each other on two cores.
STARTS = 2
# The ids that traffic gives its requests.
ID = re.compile(rb"drill-[a-z-]+-[0-9]{8}")


class Broken(Exception):
    """Why a drill cannot go on, in a line for whoever wanted it."""


class Pod:
    """One exchange: its address, its process, and the directory of its log."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.log = folder / "log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        return f"{self.address}:{PORT}"


class Fleet:
    """Exchanges with one bidder; whatever happens, none of its processes outlives it.

    `settings` are laid over what a drill needs, for who wants to see it fail.
    """

    def __init__(self, folder: Path, net: str, settings: Mapping[str, Mapping[str, Any]], latency_ms: float) -> None:
        self._folder = folder
        self._net = net
        self._settings = settings
        self._latency_ms = latency_ms
        self._numbers = itertools.count(1)
        self._bidder = ""
        self._processes: list[asyncio.subprocess.Process] = []
        self.pods: list[Pod] = []
        self.losses: list[str] = []
        self._told_to_end: set[str] = set()

    async def __aenter__(self) -> Self:
        self._folder.mkdir()
        thinking = {"latency_ms": {"median": self._latency_ms, "sigma": 0.2}}
        words = ("--name", "dsp-a", "--strategy", "fixed", "--grpc", "0", "--until-eof")
        process = await self._spawn(
            self._folder / "dsp-a.err", "bidders", *words, "--settings", msgspec.json.encode(thinking).decode()
        )
        self._bidder = f"127.0.0.1:{(await _first_line('the bidder', process))['grpc']}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def expect(self, count: int) -> list[Pod]:
        """Say which pods the next starts will be: a balancer of layer 4 is told before they are there."""
        numbers = list(itertools.islice(self._numbers, count))
        return [
            Pod(f"server-{number}", f"{self._net}.{number}", self._folder / f"server-{number}") for number in numbers
        ]

    async def start(self, count: int = 1, **server: Any) -> list[Pod]:
        """Start so many exchanges, with these settings of `server`; return when all are ready."""
        return await self.bring_up(self.expect(count), **server)

    async def bring_up(self, pods: Sequence[Pod], **server: Any) -> list[Pod]:
        """Start these."""
        slots = asyncio.Semaphore(STARTS)

        async def start(pod: Pod) -> None:
            async with slots:
                await self._start(pod, server)

        async with asyncio.TaskGroup() as group:
            for pod in pods:
                group.create_task(start(pod))
        self.pods += pods
        return list(pods)

    async def stop(self, pod: Pod) -> None:
        """Ask one to stop and wait for its end; a code other than 0 is kept. Raises Broken if it does not end."""
        assert pod.process is not None
        if pod.process.returncode is not None:
            return  # by itself, which stop_all tells
        self._told_to_end.add(pod.name)
        pod.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                code = await pod.process.wait()
        except TimeoutError:
            raise Broken(f"{pod.name} did not end within {STOP_S:g} s of SIGTERM") from None
        if code:
            self.losses.append(f"{pod.name} ended with {code}")

    async def kill(self, pod: Pod) -> None:
        """Kill one where it stands; return when it is gone, its connections with it."""
        assert pod.process is not None
        if pod.process.returncode is not None:
            raise Broken(f"{pod.name} ended with {pod.process.returncode} before it was killed")
        self._told_to_end.add(pod.name)
        pod.process.kill()
        await pod.process.wait()

    async def stop_all(self) -> None:
        """Stop those that still run, all at once; one that nobody told to end and that has ended is a loss as well."""
        for pod in self.pods:
            if pod.name not in self._told_to_end and pod.process is not None and pod.process.returncode is not None:
                self.losses.append(f"{pod.name} ended by itself with {pod.process.returncode}")
        running = [pod for pod in self.pods if pod.process is not None and pod.process.returncode is None]
        await asyncio.gather(*(self.stop(pod) for pod in running))

    def logged(self) -> dict[str, str]:
        """Give the ids of all requests in the logs, and the pod that wrote each."""
        found: dict[str, str] = {}
        for pod in self.pods:
            for id in logged(pod.log):
                found[id] = pod.name
        return found

    async def _start(self, pod: Pod, server: Mapping[str, Any]) -> None:
        pod.folder.mkdir()
        sections: dict[str, dict[str, Any]] = {
            # Long enough, and enough at a time, that no call is refused because this machine is busy.
            "exchange": {"tmax_ms": 2000, "tmax_max_ms": 2000},
            "server": {"host": pod.address, "port": PORT, "http_port": HTTP_PORT, "in_flight": 4096, **server},
            "log": {"dir": str(pod.log)},
        }
        for section, given in self._settings.items():
            sections[section] = {**sections.get(section, {}), **given}
        config = pod.folder / "auction.yaml"
        config.write_bytes(msgspec.json.encode({**sections, "bidders": [{"name": "dsp-a", "grpc": self._bidder}]}))
        pod.process = await self._spawn(pod.folder / "said", "auction", "serve", "--config", str(config))
        try:
            await _first_line(pod.name, pod.process)
        except Broken as broken:
            raise Broken(f"{broken}: {_last_words(pod.folder / 'said')}") from None

    async def _spawn(self, said: Path, module: str, *words: str) -> asyncio.subprocess.Process:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("AUCTION_")}
        with said.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={**environ, "TMPDIR": str(self._folder)},
                # A Ctrl-C on the terminal is for us; we end the others in order.
                start_new_session=True,
            )
        self._processes.append(process)
        return process


def logged(log: Path) -> list[str]:
    """Give the ids of the requests in one log, as far as it can be read."""
    if not log.exists():
        return []
    found = []
    # A fault is no news here: what it took is missing from the ids, which is what the drills look for.
    for frame in eventlog.read([log], lambda fault: None):
        if frame.kind == record.AUCTION:
            id = ID.search(record.decode_auction(frame.payload).arrival.body)
            if id is not None:
                found.append(id[0].decode())
    return found


async def _first_line(name: str, process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            line = await process.stdout.readline()
    if not line:
        raise Broken(f"{name} was not ready within {READY_S:g} s")
    return msgspec.json.decode(line, type=dict[str, Any])


def _last_words(said: Path) -> str:
    lines = said.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"

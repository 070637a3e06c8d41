# Several exchanges on one machine that are one to everybody else: `server.workers` processes on the same two ports.
#
# Each worker is an `auction serve` of its own, with its own event loop, its own log in a directory below log.dir, and
# its own limits. The kernel gives each of them connections (SO_REUSEPORT); nothing is shared while an auction runs.
# What is told of them together is told here, through files in a directory of ours: how their reloads went (the files
# of presence.py) and what they count. The page of metrics is put together here, every second, so that a scrape
# costs no worker's event loop anything and a total never falls, whichever worker is asked.
#
# A worker that ends by itself is begun again, later each time. Its counters are kept. When we end, however that comes,
# the workers' standard input ends, and they drain. Why processes and not threads, and when to have them at all:
# docs/decisions/workers.md.

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from auction.config import Config
from auction.edge.pages import PAGE, SHARE_S, counted, merged, plain
from auction.model.clock import SystemClock
from auction.presence import Presence, Sign, running

# A worker that dies at once is begun again ten times in the first minute, and from then on every ten seconds: often
# enough for a fault that passes, too seldom to take the machine from the others.
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0
# Whoever lived for a minute did not die of its start.
STEADY_S: Final = 60.0
# How often we look at what workers tell; `auction reload` waits for it.
LOOK_S: Final = 0.1
_log = logging.getLogger("auction.supervisor")


class Unsupervisable(Exception):
    """Why workers cannot be started, in one line."""


def run(path: Path | None, environ: Mapping[str, str], config: Config, announce: Callable[[Presence], None]) -> int:
    """Keep `server.workers` workers until SIGTERM or SIGINT; give the exit code: the worst of the workers' last ones.

    As `server.run` otherwise: SIGHUP reloads all, a second SIGTERM or SIGINT ends everything where it stands. Raises
    Unsupervisable.
    """
    server = config.server
    with contextlib.ExitStack() as held:
        grpc = held.enter_context(reserved("server.port", server.host, server.port))
        http = held.enter_context(reserved("server.http_port", server.host, server.http_port))
        try:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="auction-workers-"))
        except OSError as refusal:
            raise Unsupervisable(f"server.workers: more than one need a temporary directory: {refusal}") from refusal
        ports = (grpc.getsockname()[1], http.getsockname()[1])
        supervisor = Supervisor(path, environ, config, ports, Path(folder))
        return asyncio.run(_supervise(supervisor, announce))


async def _supervise(supervisor: Supervisor, announce: Callable[[Presence], None]) -> int:
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if supervisor.stopping.is_set():
            supervisor.abandon()
            os._exit(128 + number)
        _log.info("draining", extra={"fields": {"signal": number.name}})
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    return await supervisor.run(announce)


class Supervisor:
    """Workers, and what is told of all of them together."""

    def __init__(
        self, path: Path | None, environ: Mapping[str, str], config: Config, ports: tuple[int, int], folder: Path
    ) -> None:
        self.stopping = asyncio.Event()
        self._path = path
        self._environ = environ
        self._config = config
        self._ports = ports
        self._folder = folder
        self._clock = SystemClock()
        self._numbers = range(1, config.server.workers + 1)
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._ready: set[int] = set()
        self._told_late: set[int] = set()
        self._all_ready = asyncio.Event()
        self._pages: dict[int, bytes] = {}
        self._gone = b""
        self._restarts = 0
        self._reloads = 0
        self._asked: list[dict[int, int]] = []
        self._sign: Sign | None = None
        self._told: Presence | None = None

    async def run(self, announce: Callable[[Presence], None]) -> int:
        """Keep the workers until `stop`; return the worst exit code, or that of one that could not start."""
        self.share()
        keeping = [asyncio.create_task(self._keep(number)) for number in self._numbers]
        looking = asyncio.create_task(self._look())
        telling = asyncio.create_task(self._tell_ready(announce))
        try:
            return max(await asyncio.gather(*keeping))
        finally:
            for task in (looking, telling):
                task.cancel()
            await asyncio.gather(looking, telling, return_exceptions=True)
            if self._sign is not None:
                self._sign.close()

    def stop(self) -> None:
        """Have all workers drain."""
        self.stopping.set()
        self._signal(signal.SIGTERM, self._workers)

    def reload(self) -> None:
        """Have all workers read the configuration again; those that are only beginning, when they have begun."""
        self._asked.append({told.pid: told.reloads for told in running(self._folder)})
        # Before it is ready, SIGHUP would end it.
        self._told_late |= set(self._numbers) - self._ready
        self._signal(signal.SIGHUP, self._ready)

    def abandon(self) -> None:
        """End all workers where they stand, and leave no files."""
        self._signal(signal.SIGKILL, self._workers)
        shutil.rmtree(self._folder, ignore_errors=True)

    def share(self) -> None:
        """Write the page of all workers, those that are gone included."""
        alive = [self._page(number) for number in self._workers]
        beside = self._folder / f"{PAGE}.new"
        beside.write_bytes(merged([self._own(), *alive, self._gone]))
        beside.replace(self._folder / PAGE)

    def _signal(self, number: signal.Signals, workers: Iterable[int]) -> None:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                self._workers[worker].send_signal(number)

    async def _keep(self, number: int) -> int:
        """Have this worker run, again and again, until we stop; give its last exit code."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            begun = self._clock.monotonic()
            code = await self._live(number)
            was_ready = number in self._ready
            self._ready.discard(number)
            if self.stopping.is_set():
                # A signal's end is no loss for one that had not begun.
                return code if code >= 0 else int(was_ready)
            if not was_ready and not self._all_ready.is_set():
                # It never worked; what is wrong with it is wrong with all, and it has said what.
                self.stop()
                return max(code, 1)
            self._bury(number)
            if self._clock.monotonic() - begun > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            _log.error("a worker ended", extra={"fields": {"worker": number, "code": code, "again_s": backoff_s}})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self.stopping.wait()
                    return 1  # it lost what was in its queue
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            self._restarts += 1

    async def _live(self, number: int) -> int:
        """Have this worker run once; give its exit code."""
        try:
            process = await self._spawn(number)
        except OSError as refusal:  # no memory, too many processes: what may pass
            _log.error("a worker cannot be begun: %s", refusal)
            return 1
        self._workers[number] = process
        if self.stopping.is_set():  # while it was begun
            process.terminate()
        await self._hear(number, process)
        return await process.wait()

    async def _spawn(self, number: int) -> asyncio.subprocess.Process:
        words = ["serve", "--worker", str(self._folder / f"{number}.prom")]
        if self._path is not None:
            words += ["--config", str(self._path)]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "auction", *words),
            env={**self._environ, **self._settings(number)},
            stdin=asyncio.subprocess.PIPE,  # which ends when we do
            stdout=asyncio.subprocess.PIPE,
            # A Ctrl-C on the terminal is for us; a second signal would end a worker where it stands.
            start_new_session=True,
        )

    def _settings(self, number: int) -> dict[str, str]:
        """What is this worker's own, over the file."""
        log, grpc_port, http_port = self._config.log, *self._ports
        settings = {"AUCTION_SERVER__PORT": str(grpc_port), "AUCTION_SERVER__HTTP_PORT": str(http_port)}
        if log.dir is not None:
            settings["AUCTION_LOG__DIR"] = os.path.join(os.path.abspath(log.dir), f"worker-{number}")
        if log.keep_bytes is not None:
            settings["AUCTION_LOG__KEEP_BYTES"] = str(log.keep_bytes // self._config.server.workers)
        return settings

    async def _hear(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Wait until a worker is ready or has ended."""
        assert process.stdout is not None
        if await process.stdout.readline():
            self._ready.add(number)
            if number in self._told_late:
                self._told_late.discard(number)
                self._signal(signal.SIGHUP, [number])
            if len(self._ready) == self._config.server.workers:
                self._all_ready.set()

    async def _tell_ready(self, announce: Callable[[Presence], None]) -> None:
        await self._all_ready.wait()
        try:
            self._sign = Sign()
        except OSError as refusal:
            _log.warning("`auction reload` will not find this process: %s", refusal)
        presence = self._presence(running(self._folder))
        self._tell(presence)
        announce(presence)

    async def _look(self) -> None:
        """Tell what workers tell, and put together what they count."""
        shared = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            # A disk that is full, or no file to be opened, for a while: what is told is older then.
            with contextlib.suppress(OSError):
                told = running(self._folder)
                answered = [asked for asked in self._asked if _answered(asked, told)]
                self._reloads += len(answered)
                self._asked = [asked for asked in self._asked if asked not in answered]
                self._tell(self._presence(told))
            if self._clock.monotonic() - shared >= SHARE_S:
                shared = self._clock.monotonic()
                with contextlib.suppress(OSError):
                    self.share()

    def _presence(self, told: Iterable[Presence]) -> Presence:
        host, log = self._config.server.host, self._config.log.dir
        told = list(told)
        faults = {fault: None for each in told for fault in each.faults}
        return Presence(
            pid=os.getpid(),
            grpc=f"{host}:{self._ports[0]}",
            http=f"http://{host}:{self._ports[1]}",
            log=os.path.abspath(log) if log is not None else None,
            # One, unless they are just changing.
            rules=", ".join(sorted({each.rules for each in told})),
            reloads=self._reloads,
            faults=tuple(faults),
        )

    def _tell(self, presence: Presence) -> None:
        if self._sign is not None and presence != self._told:
            self._told = presence
            self._sign.tell(presence)

    def _bury(self, number: int) -> None:
        """Keep what a worker that is gone has counted."""
        self._gone = merged([self._gone, counted(self._page(number))])
        (self._folder / f"{number}.prom").unlink(missing_ok=True)
        self._pages.pop(number, None)
        self._workers.pop(number, None)

    def _page(self, number: int) -> bytes:
        """Read what a worker counts; as it was last read, where that cannot be done."""
        with contextlib.suppress(OSError):
            self._pages[number] = (self._folder / f"{number}.prom").read_bytes()
        return self._pages.get(number, b"")

    def _own(self) -> bytes:
        return plain({"auction_workers": len(self._ready), "auction_worker_restarts_total": self._restarts})


def reserved(setting: str, host: str, port: int) -> socket.socket:
    """Hold a port for the workers, without listening; 0 takes a free one. Raises Unsupervisable for one that is in use.

    Sockets that share a port are not refused one by another server that shares it as well, so it is tried alone first.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    try:
        with socket.socket(family, kind) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        shared = socket.socket(family, kind)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(address)
    except OSError as refusal:
        where = f"{host}:{port}"
        raise Unsupervisable(
            f"{setting}: cannot listen on {where}, which is in use or not ours; choose another"
        ) from refusal
    return shared


def _answered(asked: Mapping[int, int], told: Iterable[Presence]) -> bool:
    """Tell whether all who were asked to reload have, or are gone."""
    return all(each.reloads > asked[each.pid] for each in told if each.pid in asked)

# An exchange and its bidders as processes on this machine: for the demo, for load and for soaking.
#
# They are real processes, started with the commands that anybody would use, and found through what they print; nothing
# here reaches into them. A scene is a directory: the configuration that it wrote, the log, and what each process said.
# Whatever happens to the one who made it, no process is left behind: the exchange is asked to drain and waited for,
# bidders hang on a pipe to us, and what does not end by itself is killed.

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

# The first start after an installation compiles the kernels, which takes a slow machine half a minute.
READY_S = 90.0
# An exchange answers what is in flight and writes its log; server.drain_s is 20 by default.
DRAIN_S = 30.0
# Lines of a dead process that are worth repeating.
LAST_WORDS = 8

# Rounded, and old: the demo needs a rate for each currency of the bundled requests, not today's.
RATES = {"EUR": "0.92", "GBP": "0.79", "JPY": "150", "KRW": "1350"}
FX = {"id": "demo", "rates": RATES}


class Player(msgspec.Struct, frozen=True):
    """One bidder of a scene; `manner` says for people what to expect of it."""

    name: str
    protocol: Literal["grpc", "http"]
    strategy: str
    manner: str
    settings: dict[str, Any] = {}
    up_s: float = 0.0
    down_s: float = 0.0


# Three over gRPC, three over HTTP. The one that fails in each way is never the only one that could have won.
SIX = (
    Player("dsp-a", "grpc", "fixed", "one price"),
    Player("dsp-b", "grpc", "value-noise", "market price"),
    Player("dsp-c", "grpc", "slow", "late at times", {"faults": {"late": 0.05}}),
    Player("dsp-d", "http", "truncated", "above the floor"),
    Player("dsp-e", "http", "malformed", "talks nonsense"),
    Player("dsp-f", "http", "value-noise", "goes and returns", up_s=3.0, down_s=1.5),
)


def bidding_in(players: Sequence[Player], currencies: Sequence[str]) -> tuple[Player, ...]:
    """Give the players with a currency each, in turn."""
    return tuple(
        msgspec.structs.replace(
            player,
            manner=f"{player.manner}, in {currency}",
            settings={**player.settings, "currency": currency},
        )
        for player, currency in zip(players, itertools.cycle(currencies), strict=False)
    )


class Broken(Exception):
    """Why a scene cannot go on, in lines for whoever wanted it."""


class Scene:
    """Start with `start`, end with `stop`, always; in between `fallen` waits for what must not happen.

    `config` holds settings of the exchange, section by section, beside those that a scene needs. `between` is given a
    bidder and its port, and gives the port to call instead: for what stands in between.
    """

    def __init__(
        self,
        directory: Path,
        players: Sequence[Player] = SIX,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        between: Callable[[Player, int], Awaitable[int]] | None = None,
    ) -> None:
        self.directory = directory
        self.players = tuple(players)
        self.log = directory / "log"
        self.grpc = ""
        self.http = ""
        self.exchange_pid = 0
        self._config = dict(config or {})
        self._between = between
        self._bidders: dict[str, asyncio.subprocess.Process] = {}
        self._exchange: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start the bidders, then the exchange; return when auctions can be held. Raises Broken; `stop` is due."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.TaskGroup() as group:
                starting = {player.name: group.create_task(self._start_bidder(player)) for player in self.players}
        except ExceptionGroup as faults:
            raise next((fault for fault in faults.exceptions if isinstance(fault, Broken)), faults) from None
        config = self._written({name: start.result() for name, start in starting.items()})
        self._exchange = await self._spawn("exchange", "auction", "serve", "--config", str(config))
        self.exchange_pid = self._exchange.pid
        told = await self._first_line("exchange", self._exchange)
        self.grpc, self.http = told["grpc"], told["http"]

    @property
    def bidder_pids(self) -> list[int]:
        """The processes of the bidders."""
        return [process.pid for process in self._bidders.values()]

    async def fallen(self) -> None:
        """Wait until a process ends that was not asked to, and raise Broken."""
        processes = {**self._bidders, **({"exchange": self._exchange} if self._exchange else {})}
        waits = {asyncio.ensure_future(process.wait()): name for name, process in processes.items()}
        try:
            ended, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            raise self._died(waits[ended.pop()])
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> int | None:
        """Drain the exchange, then end the bidders; give the exchange's exit code, None if it never started.

        Called again while it waits, it kills instead.
        """
        if self._stopping:
            self.kill()
        self._stopping = True
        code = None
        if self._exchange is not None:
            code = await _end(self._exchange, signal.SIGTERM, DRAIN_S)
        await asyncio.gather(*(_end(process, signal.SIGTERM, 5.0) for process in self._bidders.values()))
        return code

    def kill(self) -> None:
        """End everything where it stands."""
        for process in (*self._bidders.values(), *((self._exchange,) if self._exchange else ())):
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _start_bidder(self, player: Player) -> int:
        words = ["--name", player.name, "--strategy", player.strategy, f"--{player.protocol}", "0", "--until-eof"]
        if player.settings:
            words += ["--settings", msgspec.json.encode(player.settings).decode()]
        if player.up_s:
            words += ["--up", str(player.up_s), "--down", str(player.down_s)]
        self._bidders[player.name] = process = await self._spawn(player.name, "bidders", *words)
        port: int = (await self._first_line(player.name, process))[player.protocol]
        return port if self._between is None else await self._between(player, port)

    async def _spawn(self, name: str, module: str, *words: str) -> asyncio.subprocess.Process:
        # What the caller's environment says about an exchange is about another one.
        environ = {key: value for key, value in os.environ.items() if not key.startswith("AUCTION_")}
        with (self.directory / f"{name}.err").open("wb") as said:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
                env=environ,
                # A Ctrl-C on the terminal is for us; we end the others in order.
                start_new_session=True,
            )

    async def _first_line(self, name: str, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await process.stdout.readline()
                if not line:
                    await process.wait()
        except TimeoutError:
            raise Broken(f"{name} was not ready within {READY_S:g} s") from None
        if not line:
            raise self._died(name)
        return msgspec.json.decode(line, type=dict[str, Any])

    def _died(self, name: str) -> Broken:
        process = self._exchange if name == "exchange" else self._bidders[name]
        assert process is not None
        words = (self.directory / f"{name}.err").read_text(errors="replace").strip().splitlines()[-LAST_WORDS:]
        return Broken("\n  ".join([f"{name} ended with exit code {process.returncode}", *words]))

    def _written(self, ports: Mapping[str, int]) -> Path:
        """Write the exchange's configuration as a person would."""
        bidders = []
        for player in self.players:
            target = f"127.0.0.1:{ports[player.name]}"
            way = {"grpc": target} if player.protocol == "grpc" else {"http": f"http://{target}/openrtb2/bid"}
            bidders.append({"name": player.name, **way})
        sections: dict[str, Any] = {
            "fx": FX,
            "bidders": bidders,
            "server": {"port": 0, "http_port": 0, **self._config.get("server", {})},
            "log": {"dir": str(self.log), **self._config.get("log", {})},
        }
        for name, settings in self._config.items():
            sections.setdefault(name, dict(settings))
        path = self.directory / "exchange.yaml"
        path.write_text(yaml.safe_dump(sections, sort_keys=False))
        return path


async def _end(process: asyncio.subprocess.Process, number: signal.Signals, grace_s: float) -> int:
    """Ask a process to end, and kill it if it does not within the grace; either way it has been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
    try:
        async with asyncio.timeout(grace_s):
            return await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()

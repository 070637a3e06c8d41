# Callers that call at a steady pace, whatever comes back: a server that is slow or gone does not slow them down.

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
from grpc import aio

from auction.edge.transports.caller import METHOD
from bidders.bundled import bundled

# Long enough that whoever fails did not merely wait: answers take a few tens of milliseconds.
TIMEOUT_S = 5.0
REQUEST = "site-banner-2kb"
# How often a caller asks its resolver again at most. grpc's own half a minute is longer than a rollout here takes for
# all its servers; what it means for a slower one is in docs/decisions/stopping.md.
RESOLVE_MS = 500

Method = aio.UnaryUnaryMultiCallable[bytes, bytes]

_ROUND_ROBIN: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
_WATCHING = {**_ROUND_ROBIN, "healthCheckConfig": {"serviceName": "auction"}}


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call: when it was sent and ended, by the clock of the event loop, and what failed ("": nothing)."""

    id: str
    sent: float
    ended: float
    fault: str


class Traffic:
    """Callers of one kind: `rate` calls a second over these channels in turn, from `start` to `stop`.

    `sent` counts calls that were begun, `calls` are those that ended: the same number, or something was lost here.
    """

    def __init__(self, name: str, channels: Sequence[aio.Channel], rate: float) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.sent = 0
        self._channels = channels
        self._rate = rate
        self._request = next(request for request in bundled() if request.name == REQUEST)
        self._under_way: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None

    @property
    def faults(self) -> list[Call]:
        return [call for call in self.calls if call.fault]

    async def open(self) -> None:
        """Connect, so that the first call finds a connection."""
        async with asyncio.timeout(TIMEOUT_S * 2):
            await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    def start(self) -> None:
        self._sending = asyncio.get_running_loop().create_task(self._send())

    async def stop(self) -> None:
        """Send nothing more, and wait for what is under way. Raises what ended the sending before."""
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        await self.stop()
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        methods: list[Method] = [cast("Method", channel.unary_unary(METHOD)) for channel in self._channels]
        number = 0
        while True:
            await asyncio.sleep(max(0.0, begun + number / self._rate - loop.time()))
            task = loop.create_task(self._call(methods[number % len(methods)], f"drill-{self.name}-{number:08}"))
            self.sent += 1
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            number += 1

    async def _call(self, method: Method, id: str) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        fault = ""
        try:
            body = await method(self._request.body(id, json=False), timeout=TIMEOUT_S)
            if id.encode() not in body:
                fault = "an answer to something else"
        except aio.AioRpcError as failure:
            fault = f"{failure.code().name}: {failure.details() or ''}"
        self.calls.append(Call(id, sent, loop.time(), fault))


def round_robin(target: str, *, watching: bool = True) -> aio.Channel:
    """A caller with a connection to each address of a name, that watches their health or does not."""
    config = json.dumps(_WATCHING if watching else _ROUND_ROBIN)
    resolving = [
        ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_MS),
        ("grpc.service_config_disable_resolution", 1),
    ]
    return _channel(target, [("grpc.service_config", config), *resolving])


def single(target: str) -> aio.Channel:
    """A caller with one connection."""
    return _channel(target, [])


def several(target: str, count: int) -> list[aio.Channel]:
    """So many callers with one connection each."""
    return [single(target) for _ in range(count)]


def _channel(target: str, options: Iterable[tuple[str, Any]]) -> aio.Channel:
    own = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    backoff = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
    return aio.insecure_channel(target, options=[*own, *backoff, *options])

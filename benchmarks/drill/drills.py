# The drills: what is done to the servers while calls go on, and what must be so afterwards.
#
# Every claim is made of two lists: the calls as their callers saw them, and the ids in the logs of the servers. Which
# server answered is read from the logs as well, so nothing has to be told by the servers for the drill's sake.

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from auction.config.process import Server
from benchmarks.drill import proxies, traffic
from benchmarks.drill.endpoints import Endpoints
from benchmarks.drill.fleet import Fleet, Pod
from benchmarks.drill.traffic import Call, Traffic

# Age of connections where one is to be short: long enough for a hundred calls, short enough to be waited for.
AGE_S = 3
# grpc varies an age by a tenth; two more tenths for the connection to come back on a busy machine.
SOONEST, LATEST = 0.9, 1.3
# What the cluster waits before a pod is told to stop, and the pod before it refuses: shorter than in production, as the
# callers here look more often.
PRE_STOP_S = 1.0
NOTICE_MS = 1000
# Calls under way at the end of a drill are awaited; what a bidder takes is this.
LATENCY_MS = 15.0
# While a server is killed calls should be under way on it.
LATENCY_KILLED_MS = 60.0


class Claim(msgspec.Struct, frozen=True):
    """What must be so, what was, and whether it is."""

    text: str
    found: str
    holds: bool


class Figure(msgspec.Struct, frozen=True):
    """A number that was measured: its name behind `drill.`, and its unit."""

    name: str
    value: float
    unit: str


class Outcome(msgspec.Struct):
    """What came of one drill. `said` is worth telling and claims nothing."""

    claims: list[Claim] = []
    figures: list[Figure] = []
    said: list[str] = []

    def claim(self, text: str, found: str, holds: bool) -> None:
        self.claims.append(Claim(text, found, holds))

    def figure(self, name: str, value: float, unit: str) -> None:
        self.figures.append(Figure(name, value, unit))


class Stage(msgspec.Struct, frozen=True):
    """What a drill is given: a directory, the first three numbers of its addresses, settings, a pace, who listens."""

    folder: Path
    net: str
    settings: Mapping[str, Mapping[str, Any]]
    rate: float
    rounds: int
    tell: Callable[[str], None]

    def address(self, number: int) -> str:
        """An address that is no server's."""
        return f"{self.net}.{200 + number}"

    @contextlib.asynccontextmanager
    async def fleet(self, latency_ms: float = LATENCY_MS) -> AsyncIterator[tuple[Fleet, Endpoints]]:
        """An empty fleet, and the list of its endpoints."""
        async with Fleet(self.folder / "fleet", self.net, self.settings, latency_ms) as fleet:
            published = self.folder / "eds"
            published.mkdir()
            endpoints = Endpoints(published / "auction.json")
            await endpoints.open()
            try:
                yield fleet, endpoints
            finally:
                endpoints.close()


@contextlib.asynccontextmanager
async def calling(*all_traffic: Traffic) -> AsyncIterator[None]:
    """Have these call for as long as the block runs, and wait for the last answers."""
    try:
        await asyncio.gather(*(each.open() for each in all_traffic))
        for each in all_traffic:
            each.start()
        yield
    finally:
        await asyncio.gather(*(each.close() for each in all_traffic))


@contextlib.asynccontextmanager
async def opened(*all_proxies: proxies.Proxy) -> AsyncIterator[None]:
    try:
        for each in all_proxies:
            await each.open()
        yield
    finally:
        await asyncio.gather(*(each.close() for each in all_proxies))


def by_client_and_by_proxy(endpoints: Endpoints, envoy: proxies.Proxy, rate: float) -> list[Traffic]:
    """Give the two ways by which nothing may be lost: a client that balances and watches health; one behind Envoy."""
    return [
        Traffic("round-robin", [traffic.round_robin(endpoints.target)], rate),
        Traffic("envoy", [traffic.single(envoy.target)], rate),
    ]


async def balance(stage: Stage) -> Outcome:
    """Two servers, four ways to them."""
    outcome = Outcome()
    async with stage.fleet() as (fleet, endpoints):
        for_ever = await fleet.start(2, connection_age_s=None)
        short = await fleet.start(2, connection_age_s=AGE_S)
        endpoints.publish(for_ever)
        plain = proxies.haproxy("haproxy", stage.address(1), for_ever, stage.folder)
        aged = proxies.haproxy("haproxy-aged", stage.address(2), short, stage.folder)
        envoy = proxies.envoy(stage.address(3), endpoints.file, stage.folder)
        async with opened(plain, aged, envoy):
            ways = [
                Traffic("layer-four", [traffic.single(plain.target)], stage.rate / 4),
                Traffic("layer-four-aged", [traffic.single(aged.target)], stage.rate / 4),
                *by_client_and_by_proxy(endpoints, envoy, stage.rate / 4),
            ]
            async with calling(*ways):
                await asyncio.sleep(8 * AGE_S)
        await fleet.stop_all()
        logged = fleet.logged()
        _stopped_well(outcome, fleet)
    for way, pods, least, most in (
        (ways[0], for_ever, 0.0, 0.0),
        (ways[1], short, 25.0, 50.0),
        (ways[2], for_ever, 47.0, 50.0),
        (ways[3], for_ever, 47.0, 50.0),
    ):
        smaller, larger = sorted(shares(way.calls, logged, pods).values())
        text = f"{way.name}: the less used of two servers gets " + (f"{least:g} % or more" if least else "nothing")
        found = f"{smaller:.1f} and {larger:.1f} % of {len(way.calls)}"
        # Together all of it: shares of what is in no log prove nothing.
        outcome.claim(text, found, least <= smaller <= most and smaller + larger > 99.9)
        outcome.figure(f"balance.{_joined(way.name)}.smaller_share", smaller, "%")
    nothing_lost(outcome, ways, logged)
    return outcome


async def rollout(stage: Stage) -> Outcome:
    """Three servers, replaced one after the other, again and again: first the new one, then the old one goes."""
    outcome = Outcome()
    async with stage.fleet() as (fleet, endpoints):
        serving = await fleet.start(3, notice_ms=NOTICE_MS)
        endpoints.publish(serving)
        envoy = proxies.envoy(stage.address(1), endpoints.file, stage.folder)
        async with opened(envoy):
            held = by_client_and_by_proxy(endpoints, envoy, stage.rate / 3)
            blind = Traffic("blind", [traffic.round_robin(endpoints.target, watching=False)], stage.rate / 3)
            async with calling(*held, blind):
                leaving: asyncio.Task[None] | None = None
                for number in range(stage.rounds):
                    for _ in range(3):
                        (fresh,) = await fleet.start(notice_ms=NOTICE_MS)
                        if leaving is not None:
                            await leaving
                        serving.append(fresh)
                        endpoints.publish(serving)
                        old = serving.pop(0)
                        leaving = asyncio.create_task(_leave(fleet, endpoints, old, list(serving)))
                    failed = sum(len(each.faults) for each in held)
                    stage.tell(f"rolling restart {number + 1} of {stage.rounds}: {failed} failed calls")
                assert leaving is not None
                await leaving
        await fleet.stop_all()
        logged = fleet.logged()
        _stopped_well(outcome, fleet)
    stops = 3 * stage.rounds
    outcome.figure("rollout.stops", stops, "servers")
    nothing_lost(outcome, held, logged)
    for way in held:
        outcome.figure(f"rollout.{_joined(way.name)}.calls", len(way.calls), "calls")
        outcome.figure(f"rollout.{_joined(way.name)}.failed", len(way.faults), "calls")
        outcome.figure(f"rollout.{_joined(way.name)}.missing", len(missing(way.calls, logged)), "auctions")
    reached = {logged[call.id] for each in held for call in each.calls if call.id in logged}
    started = 3 + stops
    outcome.claim("every server is called", f"{len(reached)} of {started}", len(reached) == started)
    outcome.figure("rollout.blind.failed", len(blind.faults), "calls")
    if stage.settings.get("server", {}).get("transport", Server().transport) == "wire":
        nothing_lost(outcome, [blind], logged)
    else:
        # grpcio cancels what arrives as its port closes (docs/decisions/stopping.md), so nothing can be claimed.
        lost = f"{len(blind.faults)} of {len(blind.calls)} calls in {stops} stops"
        kinds = f": {_kinds(blind.faults)}" if blind.faults else ""
        outcome.said.append(f"Round robin that does not watch health lost {lost}{kinds}")
    return outcome


async def _leave(fleet: Fleet, endpoints: Endpoints, pod: Pod, left: Collection[Pod]) -> None:
    """Take a pod away as a cluster does: from the endpoints first, and after a while from among the living."""
    endpoints.publish(left)
    await asyncio.sleep(PRE_STOP_S)
    await fleet.stop(pod)


async def scale(stage: Stage) -> Outcome:
    """Two servers become four."""
    outcome = Outcome()
    async with stage.fleet() as (fleet, endpoints):
        pods = fleet.expect(4)
        await fleet.bring_up(pods[:2], connection_age_s=AGE_S)
        endpoints.publish(pods[:2])
        balancer = proxies.haproxy("haproxy", stage.address(1), pods, stage.folder)
        envoy = proxies.envoy(stage.address(2), endpoints.file, stage.folder)
        async with opened(balancer, envoy):
            ways = [
                # A connection is on one server, so it takes a dozen of them to be on four.
                Traffic("layer-four", traffic.several(balancer.target, 12), stage.rate / 3),
                *by_client_and_by_proxy(endpoints, envoy, stage.rate / 3),
            ]
            async with calling(*ways):
                await asyncio.sleep(AGE_S)
                await fleet.bring_up(pods[2:], connection_age_s=AGE_S)
                endpoints.publish(pods)
                grown = asyncio.get_running_loop().time()
                await asyncio.sleep(AGE_S * LATEST * 2)
        await fleet.stop_all()
        logged = fleet.logged()
        _stopped_well(outcome, fleet)
    since = grown + AGE_S * LATEST
    for way in ways:
        later = [call for call in way.calls if call.sent >= since]
        found = shares(later, logged, pods)
        smaller = min(found[pod.name] for pod in pods[2:])
        text = f"{way.name}: each new server gets 15 % or more once all connections are of age"
        outcome.claim(text, f"{smaller:.1f} % of {len(later)}", smaller >= 15.0)
        outcome.figure(f"scale.{_joined(way.name)}.new_share", smaller, "%")
    nothing_lost(outcome, ways, logged)
    return outcome


async def canary(stage: Stage) -> Outcome:
    """Nine servers and one canary behind the same endpoints."""
    outcome = Outcome()
    async with stage.fleet() as (fleet, endpoints):
        stage.tell("starting ten servers")
        pods = await fleet.start(10)
        endpoints.publish(pods)
        envoy = proxies.envoy(stage.address(1), endpoints.file, stage.folder)
        async with opened(envoy):
            ways = by_client_and_by_proxy(endpoints, envoy, stage.rate / 2)
            async with calling(*ways):
                await asyncio.sleep(1000 / stage.rate)  # five hundred calls each
        await fleet.stop_all()
        logged = fleet.logged()
        _stopped_well(outcome, fleet)
    for way in ways:
        share = shares(way.calls, logged, pods)[pods[-1].name]
        text = f"{way.name}: the canary, one of ten, gets 7 to 13 %"
        outcome.claim(text, f"{share:.1f} % of {len(way.calls)}", 7.0 <= share <= 13.0)
        outcome.figure(f"canary.{_joined(way.name)}.share", share, "%")
    nothing_lost(outcome, ways, logged)
    return outcome


async def kill(stage: Stage) -> Outcome:
    """One of three servers is killed where it stands, a few times."""
    outcome = Outcome()
    gone: list[tuple[Pod, float]] = []
    async with stage.fleet(LATENCY_KILLED_MS) as (fleet, endpoints):
        serving = await fleet.start(3)
        endpoints.publish(serving)
        envoy = proxies.envoy(stage.address(1), endpoints.file, stage.folder)
        async with opened(envoy):
            ways = by_client_and_by_proxy(endpoints, envoy, stage.rate / 2)
            async with calling(*ways):
                for _ in range(KILLS):
                    await asyncio.sleep(1.0)
                    victim = serving.pop(0)
                    await fleet.kill(victim)
                    gone.append((victim, asyncio.get_running_loop().time()))
                    stage.tell(f"{victim.name} killed: {sum(len(each.faults) for each in ways)} failed calls so far")
                    endpoints.publish(serving)
                    serving += await fleet.start()
                    endpoints.publish(serving)
                await asyncio.sleep(1.0)
        await fleet.stop_all()
        logged = fleet.logged()
        _stopped_well(outcome, fleet)
    for way in ways:
        elsewhere = [call for call in way.faults if not in_flight_at(call, (at for _, at in gone))]
        dead = {pod.name for pod, _ in gone}
        others = [call for call in way.faults if logged.get(call.id, "") not in (dead | {""})]
        text = f"{way.name}: only calls in flight on a killed server fail"
        found = f"{len(way.faults)} failed of {len(way.calls)}; {len(elsewhere)} not in flight, {len(others)} elsewhere"
        outcome.claim(text, found, not elsewhere and not others)
        outcome.figure(f"kill.{_joined(way.name)}.failed", len(way.faults), "calls")
    failed = sum(len(way.faults) for way in ways)
    outcome.claim("there were calls in flight to lose", f"{failed} lost in {KILLS} kills", failed > 0)
    outcome.figure("kill.kills", KILLS, "servers")
    return outcome


KILLS = 5

DRILLS = {"balance": balance, "rollout": rollout, "scale": scale, "canary": canary, "kill": kill}


def shares(calls: Iterable[Call], logged: Mapping[str, str], pods: Iterable[Pod]) -> dict[str, float]:
    """Give the percentage of the answered calls that each pod held; 0 to all where none was answered."""
    held = Counter(logged.get(call.id, "") for call in calls if not call.fault)
    return {pod.name: 100 * held[pod.name] / (held.total() or 1) for pod in pods}


def missing(calls: Iterable[Call], logged: Collection[str]) -> list[Call]:
    """Name the calls that were answered and are in no log."""
    return [call for call in calls if not call.fault and call.id not in logged]


def in_flight_at(call: Call, moments: Iterable[float]) -> bool:
    """Tell whether a call had been sent and not answered by one of these moments."""
    return any(call.sent <= moment <= call.ended + BUSY_S for moment in moments)


# A connection that breaks ends its calls before the kernel has told us that its process is gone; and the two are told
# by the same busy event loop.
BUSY_S = 0.25


def nothing_lost(outcome: Outcome, ways: Iterable[Traffic], logged: Collection[str]) -> None:
    """Claim of each of these that all its calls were answered and that the logs have them."""
    for way in ways:
        lost = missing(way.calls, logged)
        unheard = way.sent - len(way.calls)
        text = f"{way.name}: no call fails, no auction is missing from the logs"
        found = f"{len(way.faults)} failed, {len(lost)} missing, of {len(way.calls)}"
        if way.faults:
            found += f" ({_kinds(way.faults)})"
        if unheard:
            found += f"; {unheard} more were sent and never ended"
        outcome.claim(text, found, bool(way.calls) and not way.faults and not lost and not unheard)


def _stopped_well(outcome: Outcome, fleet: Fleet) -> None:
    stops = sum(pod.process is not None and pod.process.returncode != -signal.SIGKILL for pod in fleet.pods)
    found = f"{stops} stops" + (f"; {', '.join(fleet.losses)}" if fleet.losses else "")
    outcome.claim("servers end when they are told to, with 0", found, not fleet.losses)


def _kinds(faults: Iterable[Call]) -> str:
    kinds = Counter(call.fault for call in faults)
    return "; ".join(f"{count} x {fault}" for fault, count in kinds.most_common(3))


def _joined(name: str) -> str:
    return name.replace("-", "_")

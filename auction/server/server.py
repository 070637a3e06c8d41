# The steps of a process's life, one after the other; the opening comment of this package tells them.

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from auction import __version__
from auction.config import FILE_BYTES_MAX, Config, ConfigFaults, load, what_needs_restart
from auction.core.auction import compile_rules
from auction.core.kernels import warm_up
from auction.core.record import encode_rules
from auction.edge.admission import Admission
from auction.edge.eventlog import EventLog
from auction.edge.metrics import CONTENT_TYPE, Metrics
from auction.edge.outbox import Outbox
from auction.edge.pages import PAGE, SHARE_S
from auction.edge.rates import OUTCOMES, Feed, Source, taken_us
from auction.edge.tls import Newest
from auction.edge.transports import BidderConnection
from auction.edge.transports.http import Page
from auction.exchange import Exchange, Market
from auction.model.clock import SystemClock
from auction.model.fx import Fx
from auction.model.rules import SOFTWARE
from auction.presence import Presence, Sign
from auction.server.journal import open_log
from auction.server.ports import Ports
from auction.server.ways import Way, ways_to

# Half a second, and twice the same: a change is in force within about a second, and a reading costs 20 us.
WATCH_S: Final = 0.5

# When the collector looks: at objects more than before, at passes over the young, at passes over the middle-aged. An
# auction leaves no cycle, so these only find what a reload or a fault left. 64 auctions that wait hold some 5 000
# objects: with fewer, every burst of them made a pass, and survivors of passes made full ones. A pass over 5 000 takes
# a quarter of a millisecond; a full one comes after 2 000 of those.
COLLECT_AFTER: Final = (5_000, 20, 100)

_log = logging.getLogger("auction.server")


class Server:
    """An exchange with all that it needs, on one event loop. Raises ConfigFaults."""

    def __init__(self, path: Path | None, environ: Mapping[str, str], worker: Path | None = None) -> None:
        self.ready = False
        self.worker = worker
        self._path = path
        self._environ = environ
        # Before it is loaded, so that a change in between is seen as one.
        self._content = self._read()
        self._config = config = load(path, environ)
        self._clock = SystemClock()
        self._admission = Admission(config.server.in_flight)
        self._metrics = Metrics()
        self._exchange: Exchange | None = None
        self._eventlog: EventLog | None = None
        self._outbox: Outbox | None = None
        self._ports: Ports | None = None
        self._sign: Sign | None = None
        self._ways: dict[str, Way] = {}
        self._open: set[BidderConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._feed: Feed | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._fx_told = Fx()
        self._refreshes = dict.fromkeys(OUTCOMES, 0)
        self._reload_asked = asyncio.Event()
        self._reloads = {"applied": 0, "refused": 0}
        self._faults: tuple[str, ...] = ()
        self._applied_us = self._clock.wall_us()

    async def start(self) -> None:
        """Become ready, or raise Unstartable; `stop` is due either way."""
        config = self._config
        warm_up()
        self._feed = await self._feed_of(config)
        market = await self._market(config, self._feed)
        if config.log.dir is None:
            _log.info("no log is written: log.dir is not set")
        else:
            self._eventlog, self._outbox = open_log(config.log, config.log.dir, self._clock)
        self._exchange = Exchange(
            market, clock=self._clock, admission=self._admission, metrics=self._metrics, journal=self._outbox
        )
        self._read_metrics()
        self._ports = Ports(self._exchange, config, self._clock, self._pages(), shared=self.worker is not None)
        await self._ports.open()
        try:
            self._sign = Sign(self.worker.parent if self.worker is not None else None)
        except OSError as refusal:
            _log.warning("`auction reload` will not find this process: %s", refusal)
        # What exists now stays until the end; a full collection through it would cost an auction tens of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        self.ready = True
        await self._ports.grpc.serving(True)
        self._tell()
        self._quoted(market)
        self._refresh()
        self._own(self._watch())
        if self.worker is not None:
            self._own(self._share(self.worker))

    async def stop(self) -> bool:
        """Answer what is in flight, write what is queued, let go of everything; return whether no record was lost."""
        was_ready, self.ready = self.ready, False
        for task in self._tasks:
            task.cancel()
        if was_ready:
            assert self._ports is not None
            await self._ports.leave()
            await asyncio.sleep(self._config.server.notice_ms / 1000)
        drain_s = self._config.server.drain_s
        end = self._clock.monotonic() + drain_s
        grace_s = drain_s * (1 - LOG_SHARE)
        if self._ports is not None:
            await self._ports.close(grace_s)
        complete = True
        if self._outbox is not None:
            complete = await asyncio.to_thread(self._outbox.drain, end)
            if not complete:
                _log.error("records were lost: the log could not be written in %d s", drain_s)
        await asyncio.gather(*(connection.close() for connection in self._open))
        if self._sign is not None:
            self._sign.close()
        if was_ready:
            _log.info("stopped")
        return complete

    @property
    def presence(self) -> Presence:
        """What this process tells others of itself."""
        assert self._exchange is not None
        assert self._ports is not None
        host = self._config.server.host
        return Presence(
            pid=os.getpid(),
            grpc=f"{host}:{self._ports.grpc.port}",
            http=f"{'https' if self._config.server.http_tls else 'http'}://{host}:{self._ports.http.port}",
            log=self._eventlog.directory if self._eventlog else None,
            rules=_digest(self._exchange.market),
            reloads=sum(self._reloads.values()),
            faults=self._faults,
        )

    def ask_to_reload(self) -> None:
        """Have the configuration read again soon, whether or not its file has changed."""
        self._reload_asked.set()

    async def reload(self) -> None:
        """Read the configuration again; apply all of it, or none and say why."""
        try:
            config = await asyncio.to_thread(load, self._path, self._environ)
            faults = refusals(self._config, config)
            if not faults:
                await self._apply(config)
        except ConfigFaults as refusal:
            faults = tuple(map(str, refusal.faults))
        self._faults = faults
        self._reloads["refused" if faults else "applied"] += 1
        if faults:
            _log.warning("configuration refused, the old one stays", extra={"fields": {"faults": list(faults)}})
        else:
            self._applied_us = self._clock.wall_us()
            _log.info("configuration applied", extra={"fields": {"rules": self.presence.rules}})
        self._tell()

    async def _apply(self, config: Config) -> None:
        assert self._exchange is not None
        before = self._ways
        # An auction in flight keeps the market that it began with, and no auction is longer than this.
        longest_s = self._config.exchange.tmax_max_ms / 1000
        feed = await self._feed_of(config)
        market = await self._market(config, feed)
        same = feed is self._feed and config.fx.refresh_s == self._config.fx.refresh_s
        self._config, self._feed = config, feed
        self._exchange.market = market
        self._quoted(market)
        if not same:
            self._refresh()
        gone = [way.connection for name, way in before.items() if self._ways.get(name) is not way]
        if gone:
            self._own(self._close_after(longest_s, gone))

    async def _feed_of(self, config: Config) -> Feed | None:
        """Give what asks the source of rates: the one at work if the source is the same, snapshot and all.

        Another source is asked once before this returns, unless there are rates to begin with.
        """
        source = Source(config.fx.file, config.fx.url)
        if source == Source():
            return None
        if self._feed is not None and self._feed.source == source:
            return self._feed
        feed = Feed(source, self._clock, self._refreshes)
        if not config.fx.rates:
            await feed.refresh()
        return feed

    def _refresh(self) -> None:
        """Have the source asked in the background, as often as is now set."""
        if self._refreshing is not None:
            self._refreshing.cancel()
        self._refreshing = self._own(self._feed.run(self._config.fx.refresh_s)) if self._feed is not None else None

    def _fx(self, config: Config, feed: Feed | None) -> Fx:
        """Give the snapshot that counts now; of one that is dropped as stale only its name."""
        fx = _snapshot(config, feed)
        age_s, most = self._age_s(fx), config.fx.max_age_s
        if config.fx.stale == "drop" and age_s is not None and most is not None and age_s > most:
            return Fx(fx.id, fx.time)
        return fx

    def _age_s(self, fx: Fx) -> float | None:
        taken = taken_us(fx.time) if fx.rates else None
        return None if taken is None else (self._clock.wall_us() - taken) / 1e6

    async def _quote(self) -> None:
        """Have the next auction convert by the snapshot that counts now, if that is another."""
        assert self._exchange is not None
        market = self._exchange.market
        fx, rules = self._fx(self._config, self._feed), market.rules.rules
        if fx == rules.fx:
            return
        rules = msgspec.structs.replace(rules, fx=fx)
        # In a thread: the tables of ten thousand floors take longer than an auction may be held up.
        compiled = await asyncio.to_thread(compile_rules, rules)
        self._exchange.market = market = Market(compiled, encode_rules(rules, SOFTWARE), market.connections)
        self._quoted(market)
        self._tell()

    def _quoted(self, market: Market) -> None:
        """Tell which snapshot counts, if it is another than the one told before."""
        fx = market.rules.rules.fx
        if fx == self._fx_told:
            return
        self._fx_told = fx
        fields = {"id": fx.id, "time": fx.time, "rules": _digest(market)}
        if fx.rates:
            _log.info("exchange rates applied", extra={"fields": fields})
        else:
            why = "the rates are stale" if fx.time else "there are no rates"
            _log.warning("nothing is converted: %s", why, extra={"fields": fields})

    async def _market(self, config: Config, feed: Feed | None) -> Market:
        """Compile the rules and connect whom they name; connections that still fit are kept. Raises ConfigFaults."""
        rules = msgspec.structs.replace(config.rules(), fx=self._fx(config, feed))
        # Twenty thousand floor rules take most of a second; auctions go on meanwhile.
        compiled, written = await asyncio.to_thread(lambda: (compile_rules(rules), encode_rules(rules, SOFTWARE)))
        # In a thread as well: reading all of a system's authorities takes milliseconds.
        ways = await asyncio.to_thread(ways_to, config, self._clock, self._ways)
        fresh = [way.connection for way in ways.values() if way.connection not in self._open]
        self._open.update(fresh)
        await asyncio.gather(*(connection.open() for connection in fresh))
        self._ways = ways
        self._metrics.name_bidders(ways)
        return Market(compiled, written, {name: way.connection for name, way in ways.items()})

    async def _close_after(self, seconds: float, connections: list[BidderConnection]) -> None:
        await asyncio.sleep(seconds)
        for connection in connections:
            self._open.discard(connection)
            await connection.close()

    def _read_metrics(self) -> None:
        read, exchange, outbox, eventlog = self._metrics.read, self._exchange, self._outbox, self._eventlog
        assert exchange is not None
        read("auction_in_flight", lambda: self._admission.in_flight)
        read("auction_in_flight_limit", lambda: self._admission.limit)
        read("auction_rules_info", lambda: [((_digest(exchange.market),), 1)])
        read("auction_build_info", lambda: [((__version__, platform.python_version()), 1)])
        read("auction_reloads_total", lambda: [((result,), count) for result, count in self._reloads.items()])
        read("auction_reload_last_success", lambda: 0 if self._faults else 1)
        read("auction_reload_last_applied_timestamp_seconds", lambda: self._applied_us / 1e6)
        read("auction_tls_certificate_expiry_timestamp_seconds", self._read_expiries)
        read("auction_tls_refused_renewals_total", self._read_refused)
        read("auction_fx_age_seconds", self._read_age)
        read("auction_fx_refreshes_total", lambda: [((outcome,), count) for outcome, count in self._refreshes.items()])
        if outbox is not None and eventlog is not None:
            read("auction_outbox_records", lambda: outbox.depth)
            read("auction_outbox_bytes", lambda: outbox.depth_bytes)
            read("auction_outbox_written_total", lambda: outbox.written)
            read("auction_outbox_dropped_total", lambda: [((why,), n) for why, n in _fields(outbox.dropped)])
            read("auction_outbox_failing", lambda: int(outbox.failing))
            read("auction_outbox_disk_errors_total", lambda: outbox.disk_errors)
            read("auction_log_bytes_total", lambda: eventlog.bytes_written)
            read("auction_log_last_sequence", lambda: eventlog.last)

    def _pages(self) -> dict[str, Callable[[], Page]]:
        return {
            "/healthz": lambda: Page(b"ok\n"),
            "/readyz": lambda: Page(b"ready\n") if self.ready else Page(b"not ready\n", status=503),
            "/metrics": lambda: Page(self._page(), content_type=CONTENT_TYPE),
        }

    def _page(self) -> bytes:
        """Give the page of metrics: this process's, or what the supervisor has put together of all."""
        return self._metrics.page() if self.worker is None else self.worker.with_name(PAGE).read_bytes()

    async def _share(self, file: Path) -> None:
        """Write down what this worker counts, again and again, so that nobody has to ask it."""
        beside = file.with_suffix(".new")
        while True:
            # A disk that is full for a while: the counts are older then.
            with contextlib.suppress(OSError):
                beside.write_bytes(self._metrics.page())
                beside.replace(file)
            await asyncio.sleep(SHARE_S)

    def _secured(self) -> Iterator[tuple[str, Newest[Any]]]:
        """Give what is secured, by its setting or the name of its bidder, as the next connection would have it."""
        assert self._ports is not None
        of = {f"server.{setting}": newest for setting, newest in self._ports.secured.items()}
        of |= {f"bidders.{name}": way.secured for name, way in self._ways.items() if way.secured is not None}
        for newest in of.values():
            newest()
        yield from of.items()

    def _read_expiries(self) -> list[tuple[tuple[str, ...], float]]:
        return [((of,), newest.expires) for of, newest in self._secured() if newest.expires is not None]

    def _read_refused(self) -> list[tuple[tuple[str, ...], float]]:
        return [((of,), newest.refused) for of, newest in self._secured()]

    def _read_age(self) -> list[tuple[tuple[str, ...], float]]:
        age_s = self._age_s(_snapshot(self._config, self._feed))
        return [] if age_s is None else [((), age_s)]

    async def _watch(self) -> None:
        """Change what is in force, one change at a time: by a file that differs and holds still, a call, a snapshot."""
        before = self._content
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_S):
                    await self._reload_asked.wait()
            content = self._read()
            if self._reload_asked.is_set() or (content != self._content and content == before):
                self._reload_asked.clear()
                self._content = content
                await self.reload()
            before = content
            await self._quote()

    def _read(self) -> bytes | None:
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                return file.read(FILE_BYTES_MAX + 1)
        except OSError:
            return None  # Being swapped, or gone; the reload says so if it lasts.

    def _tell(self) -> None:
        if self._sign is not None:
            self._sign.tell(self.presence)

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _snapshot(config: Config, feed: Feed | None) -> Fx:
    """Give the last good snapshot, or what stands in the configuration until there is one."""
    return feed.snapshot if feed is not None and feed.snapshot is not None else config.fx.snapshot()


def refusals(before: Config, after: Config) -> tuple[str, ...]:
    """Name what a reload cannot change, one line each."""
    return tuple(f"{path}: a change needs a restart" for path in what_needs_restart(before, after))


# The part of server.drain_s that is kept for the log: calls that hang must not cost the records of those that did not.
LOG_SHARE: Final = 0.25


def _digest(market: Market) -> str:
    # Twelve digits tell any two versions apart that one operator will ever see.
    return market.rules.digest.hex()[:12]


def _fields(counters: msgspec.Struct) -> list[tuple[str, int]]:
    return list(msgspec.structs.asdict(counters).items())

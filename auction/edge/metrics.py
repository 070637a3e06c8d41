# What the exchange counts: one table of names, kinds, labels and meanings, and the tallies behind it.
#
# The tallies are plain integers of the event loop, because a counter of prometheus_client takes a lock and a dictionary
# look-up, and an auction touches some thirty of them. The library does what it is good at, the format, when somebody
# scrapes. Labels are bounded: outcomes, statuses and reasons are fixed lists, bidders are those of the configuration.
# No impression, deal, publisher, caller or user is ever a label.

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, cast

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family

from auction.model.auction import AuctionResult
from auction.model.reasons import NonBidStatus
from auction.model.reply import Reply, ReplyStatus

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

# An answer is worth something until tmax, 100 ms by default and 500 at most: fine steps below and around those two.
ANSWER_BUCKETS_MS: Final = (
    1,
    2,
    5,
    10,
    20,
    30,
    40,
    50,
    60,
    70,
    80,
    90,
    95,
    100,
    105,
    110,
    120,
    150,
    200,
    300,
    500,
    1000,
)
BIDDER_BUCKETS_MS: Final = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100, 120, 150, 200, 300, 500, 1000)
# exchange.reply_reserve_ms, 5 by default, must cover what is seen here.
OVERRUN_BUCKETS_MS: Final = (0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 7, 10, 20, 50, 100)

OUTCOMES: Final = ("sold", "unsold", "refused", "overload", "cancelled", "error")
REPLIES: Final = ("bid", "no_bid", "timed_out", "unreachable", "invalid")


class Metric(msgspec.Struct, frozen=True):
    """A row of the table; `buckets_ms` belong to histograms, whose values are exposed in seconds.

    `over` is what becomes of it where several workers are one exchange.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets_ms: tuple[float, ...] = ()
    over: Literal["sum", "most", "least"] = "sum"


# Units are in the names, last; counters end in _total.
TABLE: Final = (
    Metric(
        "auction_auctions_total",
        "counter",
        ("outcome",),
        "Requests by how they ended: sold, unsold (answered without bids), refused (invalid), overload (too many in"
        " flight), cancelled (the caller went away), error (ours).",
    ),
    Metric(
        "auction_duration_seconds",
        "histogram",
        (),
        "From the arrival of a whole request to its answer, for sold and unsold.",
        ANSWER_BUCKETS_MS,
    ),
    Metric(
        "auction_deadline_overrun_seconds",
        "histogram",
        (),
        "How long after the bidders' deadline an answer left, for those that waited so long; exchange.reply_reserve_ms"
        " must cover it.",
        OVERRUN_BUCKETS_MS,
    ),
    Metric("auction_impressions_total", "counter", ("outcome",), "Impressions auctioned, sold or unsold."),
    Metric("auction_in_flight", "gauge", (), "Auctions that have arrived and are not answered."),
    Metric("auction_in_flight_limit", "gauge", (), "Auctions in flight beyond which a request is refused."),
    Metric("auction_bidder_asked_total", "counter", ("bidder",), "Requests sent to a bidder, or tried to."),
    Metric(
        "auction_bidder_replies_total",
        "counter",
        ("bidder", "status"),
        "How those ended: bid (a readable reply with bids), no_bid, timed_out, unreachable, invalid.",
    ),
    Metric("auction_bidder_bids_total", "counter", ("bidder",), "Bids received, accepted or not."),
    Metric("auction_bidder_wins_total", "counter", ("bidder",), "Bids that won."),
    Metric(
        "auction_bidder_clearing_price_cpm_micros_total",
        "counter",
        ("bidder",),
        "Clearing prices of the bids that won, summed: micros CPM of the auction currency. A thousandth of it is"
        " revenue, if every impression is shown.",
    ),
    Metric(
        "auction_bidder_latency_seconds",
        "histogram",
        ("bidder",),
        "From asking a bidder to its reply, its failure or the deadline.",
        BIDDER_BUCKETS_MS,
    ),
    Metric("auction_outbox_records", "gauge", (), "Records waiting to be written to the log."),
    Metric("auction_outbox_bytes", "gauge", (), "What they keep in memory, about."),
    Metric("auction_outbox_written_total", "counter", (), "Records written to the log."),
    Metric(
        "auction_outbox_dropped_total",
        "counter",
        ("reason",),
        "Records that will never be in the log: full (more than the disk takes), disk (it refuses to write),"
        " oversized, closed (after draining began), given_up (draining took too long).",
    ),
    Metric("auction_outbox_failing", "gauge", (), "1 while the disk refuses to write, else 0.", over="most"),
    Metric("auction_outbox_disk_errors_total", "counter", (), "Times the disk refused to write, to sync or to close."),
    Metric("auction_log_bytes_total", "counter", (), "Bytes written to segments of the log."),
    Metric("auction_log_last_sequence", "gauge", (), "Sequence number of the last record in the log.", over="most"),
    Metric("auction_reloads_total", "counter", ("result",), "Configurations read again: applied, or refused whole."),
    Metric(
        "auction_reload_last_success",
        "gauge",
        (),
        "1 if the configuration last read is the one in force, 0 if it was refused.",
        over="least",
    ),
    Metric(
        "auction_reload_last_applied_timestamp_seconds",
        "gauge",
        (),
        "When the configuration in force was read, in seconds since 1970.",
        over="least",
    ),
    Metric(
        "auction_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        ("of",),
        "When a certificate that we show ends, in seconds since 1970: `server.tls`, `server.http_tls` or"
        " `bidders.NAME`. It is the one that the next connection shows, whatever stands in its file.",
        over="least",
    ),
    Metric(
        "auction_tls_refused_renewals_total",
        "counter",
        ("of",),
        "Times that files of TLS had changed and could not be used, so that the ones before stayed in use.",
    ),
    Metric(
        "auction_fx_age_seconds",
        "gauge",
        (),
        "How long ago the exchange rates were taken, by their own time; also of a snapshot that no longer counts."
        " Absent without rates, or if they do not say when.",
        over="most",
    ),
    Metric(
        "auction_fx_refreshes_total",
        "counter",
        ("outcome",),
        "Times the source of exchange rates was asked: changed (another snapshot), unchanged, unreachable (no answer,"
        " or one without a snapshot), refused (one that cannot be used). After the last two the snapshot before stays.",
    ),
    Metric(
        "auction_rules_info",
        "gauge",
        ("digest",),
        "Always 1; the rules in force, by the start of their digest.",
        over="most",
    ),
    Metric(
        "auction_build_info",
        "gauge",
        ("version", "python"),
        "Always 1; the software and what runs it.",
        over="most",
    ),
    Metric("auction_workers", "gauge", (), "Worker processes that are ready; absent with one."),
    Metric(
        "auction_worker_restarts_total",
        "counter",
        (),
        "Times that a worker process ended by itself and was begun again; absent with one.",
    ),
)

_NAMES = frozenset(metric.name for metric in TABLE)


class Histogram:
    """Durations counted by bucket; a value equal to a bound belongs below it."""

    __slots__ = ("bounds_us", "counts", "sum_us")

    def __init__(self, bounds_ms: Sequence[float]) -> None:
        self.bounds_us = [round(bound * 1000) for bound in bounds_ms]
        self.counts = [0] * (len(self.bounds_us) + 1)
        self.sum_us = 0

    def observe(self, duration_us: int) -> None:
        self.counts[bisect_left(self.bounds_us, duration_us)] += 1
        self.sum_us += duration_us


class _Bidder:
    __slots__ = ("asked", "bids", "clearing_price", "latency", "replies", "wins")

    def __init__(self) -> None:
        self.asked = self.bids = self.wins = self.clearing_price = 0
        # By ReplyStatus, whose numbers begin at 1.
        self.replies = [0] * (len(REPLIES) + 1)
        self.latency = Histogram(BIDDER_BUCKETS_MS)


# What a metric reads when somebody scrapes: one number, or one for each combination of its labels.
Sample = tuple[tuple[str, ...], float | Histogram]
Reading = Callable[[], float | Iterable[Sample]]


class Metrics:
    """The tallies of one exchange, fed from its event loop, and the page that shows them.

    `bidders` is the bound of that label: a reply of any other bidder (one that a reload took away meanwhile) is not
    counted.
    """

    def __init__(self, bidders: Iterable[str] = ()) -> None:
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.duration = Histogram(ANSWER_BUCKETS_MS)
        self.overrun = Histogram(OVERRUN_BUCKETS_MS)
        self._imps_sold = self._imps_unsold = 0
        self._bidders: dict[str, _Bidder] = {}
        self.name_bidders(bidders)
        self._readings: dict[str, Reading] = {
            "auction_auctions_total": lambda: [((outcome,), count) for outcome, count in self.outcomes.items()],
            "auction_duration_seconds": lambda: [((), self.duration)],
            "auction_deadline_overrun_seconds": lambda: [((), self.overrun)],
            "auction_impressions_total": lambda: [(("sold",), self._imps_sold), (("unsold",), self._imps_unsold)],
            "auction_bidder_asked_total": lambda: self._per_bidder(lambda bidder: bidder.asked),
            "auction_bidder_replies_total": lambda: [
                ((name, status), bidder.replies[row])
                for name, bidder in self._bidders.items()
                for row, status in enumerate(REPLIES, 1)
            ],
            "auction_bidder_bids_total": lambda: self._per_bidder(lambda bidder: bidder.bids),
            "auction_bidder_wins_total": lambda: self._per_bidder(lambda bidder: bidder.wins),
            "auction_bidder_clearing_price_cpm_micros_total": lambda: self._per_bidder(
                lambda bidder: bidder.clearing_price
            ),
            "auction_bidder_latency_seconds": lambda: self._per_bidder(lambda bidder: bidder.latency),
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        # Memory, CPU time, open files and garbage collections under the names that every dashboard knows; they are not
        # in the table.
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def name_bidders(self, bidders: Iterable[str]) -> None:
        """Count these from now on; those named before keep their tallies, the others lose them."""
        self._bidders = {name: self._bidders.get(name) or _Bidder() for name in bidders}

    def read(self, name: str, reading: Reading) -> None:
        """Show under this name of the table what `reading` gives whenever somebody scrapes."""
        assert name in _NAMES
        self._readings[name] = reading

    def settled(
        self, imps: int, replies: Sequence[Reply], result: AuctionResult, duration_us: int, overrun_us: int
    ) -> None:
        """Count an answered auction; `overrun_us` <= 0 for one that did not wait until its deadline."""
        self.outcomes["unsold" if result.nbr is not None else "sold"] += 1
        self.duration.observe(duration_us)
        if overrun_us > 0:
            self.overrun.observe(overrun_us)
        bidders = self._bidders
        sold = 0
        offering: set[str] = set()
        for outcome in result.outcomes:
            offering.add(outcome.bidder)
            bidder = bidders.get(outcome.bidder)
            price = outcome.clearing_price
            if price is not None:
                sold += 1
            if bidder is not None:
                bidder.bids += 1
                if price is not None:
                    bidder.wins += 1
                    bidder.clearing_price += price
        self._imps_sold += sold
        self._imps_unsold += imps - sold
        for reply in replies:
            bidder = bidders.get(reply.bidder)
            if bidder is not None:
                bidder.asked += 1
                bidder.latency.observe(reply.latency_us)
                status = reply.status
                if status is ReplyStatus.BID and reply.bidder not in offering:
                    status = _read_as(reply.bidder, result)
                bidder.replies[status] += 1

    def page(self) -> bytes:
        """Write everything in the format that Prometheus scrapes; its type is CONTENT_TYPE."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """Give what the page is made of; prometheus_client calls it."""
        for metric in TABLE:
            reading = self._readings.get(metric.name)
            if reading is not None:
                samples = reading()
                yield _family(metric, [((), samples)] if isinstance(samples, int | float) else samples)

    def _per_bidder(self, sample: Callable[[_Bidder], float | Histogram]) -> Iterator[Sample]:
        return (((name,), sample(bidder)) for name, bidder in self._bidders.items())


def markdown() -> str:
    """Write the table for docs/operations.md."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in TABLE
    ]
    return "\n".join(lines) + "\n"


def _read_as(bidder: str, result: AuctionResult) -> ReplyStatus:
    """Tell what became of a body that brought no bids: a no-bid, or nothing that could be read."""
    invalid = any(
        non_bid.status == NonBidStatus.INVALID_RESPONSE and non_bid.bidder == bidder and non_bid.bid is None
        for non_bid in result.non_bids
    )
    return ReplyStatus.INVALID if invalid else ReplyStatus.NO_BID


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    family: Any = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        if isinstance(value, Histogram):
            family.add_metric(labels, *_cumulative(value))
        else:
            family.add_metric(labels, value)
    return cast(Family, family)


_FAMILIES: Final = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound_us, count in zip([*histogram.bounds_us, None], histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound_us is None else repr(bound_us / 1e6), below))
    return buckets, histogram.sum_us / 1e6

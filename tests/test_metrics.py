# What is counted, under which names, and that the names, the page and the documentation are one table.

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from auction.edge import metrics
from auction.edge.metrics import TABLE, Histogram, Metrics, markdown
from auction.model.auction import AuctionResult, NonBid, Outcome
from auction.model.money import CpmMicros
from auction.model.reasons import LossReason, NonBidStatus, PriceSetter
from auction.model.reply import Reply, ReplyStatus

OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"
BIDDERS = ("dsp-a", "dsp-b")


def sample(counted: Metrics, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(counted.page().decode()):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    raise AssertionError(f"no {name} {labels}")


def outcome(bidder: str, price: int | None = None) -> Outcome:
    """A bid that won at this clearing price, or lost."""
    won = price is not None
    reason = LossReason.WON if won else LossReason.LOST_TO_HIGHER_BID
    clearing = CpmMicros(price) if price is not None else None
    return Outcome(bidder, "s", "b", 0, "1", "", 2.0, "USD", None, reason, None, clearing, clearing, PriceSetter.FLOOR)


def result(*outcomes: Outcome, non_bids: tuple[NonBid, ...] = ()) -> AuctionResult:
    sold = any(bid.clearing_price is not None for bid in outcomes)
    return AuctionResult(b"", None if sold else 0, False, outcomes, non_bids, ())


def bid(bidder: str, latency_us: int = 1000) -> Reply:
    return Reply(bidder, ReplyStatus.BID, b"reply", latency_us)


def test_sold_auction_counts_bids_wins_and_revenue_of_its_bidders() -> None:
    counted = Metrics(BIDDERS)
    closed = result(outcome("dsp-a", 1_500_000), outcome("dsp-b"), outcome("dsp-b"))
    counted.settled(2, [bid("dsp-a"), bid("dsp-b")], closed, 5_000, 0)
    assert 1 == sample(counted, "auction_auctions_total", outcome="sold")
    assert 1 == sample(counted, "auction_impressions_total", outcome="sold")
    assert 1 == sample(counted, "auction_impressions_total", outcome="unsold")
    expected = {"asked": (1, 1), "bids": (1, 2), "wins": (1, 0), "clearing_price_cpm_micros": (1_500_000, 0)}
    for what, values in expected.items():
        names = [sample(counted, f"auction_bidder_{what}_total", bidder=bidder) for bidder in BIDDERS]
        assert list(values) == names
    assert 1 == sample(counted, "auction_bidder_replies_total", bidder="dsp-a", status="bid")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply("dsp-a", ReplyStatus.NO_BID), "no_bid"),
        (Reply("dsp-a", ReplyStatus.TIMED_OUT), "timed_out"),
        (Reply("dsp-a", ReplyStatus.UNREACHABLE), "unreachable"),
        (Reply("dsp-a", ReplyStatus.INVALID), "invalid"),
        (bid("dsp-a"), "no_bid"),  # a body without a bid in it
    ],
)
def test_reply_without_bids_counts_under_its_status(reply: Reply, status: str) -> None:
    counted = Metrics(BIDDERS)
    counted.settled(1, [reply], result(), 5_000, 0)
    assert 1 == sample(counted, "auction_bidder_replies_total", bidder="dsp-a", status=status)
    assert 0 == sample(counted, "auction_bidder_replies_total", bidder="dsp-a", status="bid")
    assert 1 == sample(counted, "auction_auctions_total", outcome="unsold")


def test_body_that_could_not_be_read_counts_as_invalid() -> None:
    counted = Metrics(BIDDERS)
    unread = NonBid("dsp-a", None, "1", None, NonBidStatus.INVALID_RESPONSE)
    counted.settled(1, [bid("dsp-a"), bid("dsp-b")], result(non_bids=(unread,)), 5_000, 0)
    assert 1 == sample(counted, "auction_bidder_replies_total", bidder="dsp-a", status="invalid")
    assert 1 == sample(counted, "auction_bidder_replies_total", bidder="dsp-b", status="no_bid")


def test_bidder_that_is_not_named_makes_no_label() -> None:
    counted = Metrics(BIDDERS)
    counted.settled(1, [bid("stranger")], result(outcome("stranger", 1)), 5_000, 0)
    assert b"stranger" not in counted.page()


def test_bidder_named_again_keeps_its_tally_and_one_that_is_gone_has_none() -> None:
    counted = Metrics(BIDDERS)
    counted.settled(1, [bid("dsp-a"), bid("dsp-b")], result(), 5_000, 0)
    counted.name_bidders(["dsp-b", "dsp-c"])
    assert b"dsp-a" not in counted.page()
    assert 1 == sample(counted, "auction_bidder_asked_total", bidder="dsp-b")
    assert 0 == sample(counted, "auction_bidder_asked_total", bidder="dsp-c")


def test_duration_equal_to_a_bound_is_below_it() -> None:
    histogram = Histogram([1, 2])
    for duration_us in (0, 1000, 1001, 2000, 2001):
        histogram.observe(duration_us)
    assert [2, 2, 1] == histogram.counts


def test_durations_are_shown_in_seconds_and_add_up() -> None:
    counted = Metrics(BIDDERS)
    for duration_us in (900, 99_000, 2_000_000):
        counted.settled(1, [], result(), duration_us, 0)
    name = "auction_duration_seconds"
    below = [sample(counted, f"{name}_bucket", le=le) for le in ("0.001", "0.095", "0.1", "1.0", "+Inf")]
    assert [1, 1, 2, 2, 3] == below
    assert 3 == sample(counted, f"{name}_count")
    assert 2.0999 == pytest.approx(sample(counted, f"{name}_sum"))


def test_overrun_is_only_counted_for_auctions_that_waited_for_their_deadline() -> None:
    counted = Metrics(BIDDERS)
    for overrun_us in (-20_000, 0, 300):
        counted.settled(1, [], result(), 5_000, overrun_us)
    assert 1 == sample(counted, "auction_deadline_overrun_seconds_count")
    assert 1 == sample(counted, "auction_deadline_overrun_seconds_bucket", le="0.0005")


def test_reading_is_taken_when_somebody_scrapes() -> None:
    counted, waiting = Metrics(BIDDERS), [3]
    counted.read("auction_outbox_records", lambda: waiting[0])
    counted.read("auction_outbox_dropped_total", lambda: [(("full",), 2), (("disk",), 0)])
    waiting[0] = 4
    assert 4 == sample(counted, "auction_outbox_records")
    assert 2 == sample(counted, "auction_outbox_dropped_total", reason="full")


def test_every_metric_of_the_table_has_the_name_that_its_kind_asks_for() -> None:
    for metric in TABLE:
        assert metric.name.startswith("auction_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets_ms)
        assert list(metric.buckets_ms) == sorted(metric.buckets_ms)
        assert metric.help.endswith(".")
    assert len(TABLE) == len({metric.name for metric in TABLE})


def test_labels_are_bounded_lists() -> None:
    # `of` is a setting: one of the ports', or of a bidder.
    assert {"outcome", "bidder", "status", "reason", "result", "digest", "version", "python", "of"} == {
        label for metric in TABLE for label in metric.labels
    }


def test_nothing_is_shown_that_the_table_does_not_name() -> None:
    counted = Metrics(BIDDERS)
    shown = {family.name for family in text_string_to_metric_families(counted.page().decode())}
    named = {metric.name.removesuffix("_total") for metric in TABLE}
    assert {name for name in shown if not name.startswith(("process_", "python_gc_"))} <= named


def test_table_in_the_documentation_is_this_one() -> None:
    assert markdown() in OPERATIONS.read_text()


def test_names_are_counted_from_the_reply_statuses() -> None:
    assert [status.name.lower() for status in ReplyStatus] == list(metrics.REPLIES)

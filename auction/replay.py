# Logged auctions again: as they were, or under other rules.
#
# The same functions, with replies read from the log. There is no replay mode to get wrong: what differs between a live
# auction and this one is who hands the replies over.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import msgspec

from auction.config import laid_over, rules_of_case, settings_of
from auction.core import record
from auction.core.auction import CompiledRules, close_auction, compile_rules, open_auction
from auction.core.openrtb import json, requests
from auction.core.record import RecordedAuction, RecordedRules
from auction.edge.eventlog import Frame
from auction.model.auction import AuctionResult, Encoding, Outcome
from auction.model.errors import InvalidRequest, OtherData
from auction.model.money import CpmMicros
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import Rules

# As many rules as a log may alternate between: the format lets a frame name one of the 8 nearest before it.
RULES_KEPT = 8
# A changed winner changes some twenty fields; a page of them explains it, a hundred bids would bury it.
FIELDS_MAX = 40


class Logged(msgspec.Struct, frozen=True):
    """One auction of a log with the rules it was decided by, and the software that wrote it."""

    recorded: RecordedAuction
    rules: CompiledRules | None
    software: str
    sequence: int


class Field(msgspec.Struct, frozen=True):
    """One field of a result, as it was logged and as it came out now; "-" where there is none."""

    name: str
    before: str
    after: str


class Difference(msgspec.Struct, frozen=True):
    """One auction that came out otherwise, and in which fields: at least one, at most FIELDS_MAX, decisions first."""

    id: str
    sequence: int
    software: str
    fields: tuple[Field, ...]


def auctions(frames: Iterable[Frame]) -> Iterator[Logged]:
    """Give the auctions of a log in its order, each with its rules; Unreadable for a record that cannot be one."""
    known: dict[bytes, tuple[RecordedRules, CompiledRules | None]] = {}
    for frame in frames:
        if frame.kind != record.AUCTION:
            continue
        recorded = record.decode_auction(frame.payload)
        if frame.rules is None:
            # Damage took the rules; the log's reader has said where.
            yield Logged(recorded, None, "", frame.sequence)
            continue
        if frame.rules not in known:
            if len(known) >= RULES_KEPT:
                known.pop(next(iter(known)))
            written = record.decode_rules(frame.rules)
            known[frame.rules] = (written, _compiled(written))
        written, compiled = known[frame.rules]
        if written.digest != recorded.rules_digest:
            raise record.Unreadable(f"auction {recorded.arrival.id} names other rules than its frame")
        yield Logged(recorded, compiled, written.software, frame.sequence)


def _compiled(written: RecordedRules) -> CompiledRules | None:
    """Compile rules as written; None where this software cannot, as when another knew more currencies.

    A data file that is not theirs stops the replay: with it every auction may come out otherwise.
    """
    try:
        return None if written.rules is None else compile_rules(written.rules)
    except OtherData as other:
        raise record.Unreadable(str(other)) from other
    except ValueError:
        return None


def again(recorded: RecordedAuction, rules: CompiledRules) -> AuctionResult:
    """Run a logged auction once more, by its own rules.

    InvalidRequest if they refuse it, Unreadable if they ask others than those who answered; neither can be, unless
    other software wrote the record.
    """
    auction = open_auction(recorded.arrival, rules)
    asked, answered = ([row.bidder for row in rows] for rows in (auction.invitations, recorded.replies))
    if asked != answered:
        raise record.Unreadable(f"answers of {', '.join(answered)} where {', '.join(asked)} would be asked")
    return close_auction(auction, recorded.replies)


def difference(logged: Logged) -> Difference | None:
    """Run a logged auction as it was; None where the result is the same bytes."""
    recorded = logged.recorded

    def differs(field: str, before: str, after: str) -> Difference:
        return several([Field(field, before, after)])

    def several(changed: Sequence[Field]) -> Difference:
        return Difference(recorded.arrival.id, logged.sequence, logged.software, tuple(changed[:FIELDS_MAX]))

    if logged.rules is None:
        return differs("rules", logged.software or "lost", "not readable by this software")
    try:
        result = again(recorded, logged.rules)
        encoded = record.encode_result(result)
        if encoded == recorded.result:
            return None
        before, after = fields(record.decode_result(recorded.result)), fields(result)
    except InvalidRequest as refusal:
        return differs("request", "accepted", f"refused: {refusal}")
    except record.Unreadable as error:
        return differs("record", "written", str(error))
    changed = [
        Field(name, before.get(name, "-"), after.get(name, "-"))
        for name in before | after
        if before.get(name) != after.get(name)
    ]
    return several(changed) if changed else differs("bytes", recorded.result.hex()[:64], encoded.hex()[:64])


def fields(result: AuctionResult) -> dict[str, str]:
    """Write a result as path -> text, decisions before the response, so that the first difference tells most."""
    flat: dict[str, str] = {}
    for group, rows in (("bid", result.outcomes), ("non_bid", result.non_bids), ("warning", result.warnings)):
        for place, row in enumerate(rows):
            for name, value in msgspec.structs.asdict(row).items():
                flat[f"{group}[{place}].{name}"] = str(value)
    flat["nbr"] = str(result.nbr)
    flat["explained"] = str(result.explained)
    flat["response"] = result.response.hex()
    return flat


class Total(msgspec.Struct):
    """Sales of one group before and after; revenue sums clearing prices, micros CPM of the group's currency."""

    sold_before: int = 0
    sold_after: int = 0
    revenue_before: int = 0
    revenue_after: int = 0

    def add(self, before: Sequence[CpmMicros], after: Sequence[CpmMicros]) -> None:
        self.sold_before += len(before)
        self.sold_after += len(after)
        self.revenue_before += sum(before)
        self.revenue_after += sum(after)


class Counterfactual(msgspec.Struct):
    """What other rules would have made of a log. Totals are keyed by (currency, name); a total's name is empty."""

    auctions: int = 0
    refused: int = 0
    unreadable: int = 0
    imps: int = 0
    totals: dict[tuple[str, str], Total] = {}
    bidders: dict[tuple[str, str], Total] = {}
    placements: dict[tuple[str, str], Total] = {}


# A placement is an impression's tagid. A log may hold more of them than anybody reads; the rest share one row.
PLACEMENTS_MAX = 1000
OTHER_PLACEMENTS = "(other)"

ASSUMPTIONS = (
    "Bids do not react: every bidder offers what it offered.",
    "Bids below the old floor and replies after the old deadline were never seen, and are not here either.",
    "A bidder that was not asked then does not answer now.",
    "Under an earlier deadline a reply counts if its latency was below it.",
)


def counterfactual(log: Iterable[Logged], change: Change) -> Counterfactual:
    """Run a log again under changed rules and add up both; a request that the new rules refuse sells nothing.

    What this software cannot read as it was, be it rules, request or result, is counted and left out.
    """
    sums = Counterfactual()
    changed: dict[bytes, CompiledRules] = {}
    for logged in log:
        recorded = logged.recorded
        if logged.rules is None:
            sums.unreadable += 1
            continue
        if recorded.rules_digest not in changed:
            if len(changed) >= RULES_KEPT:
                changed.pop(next(iter(changed)))
            changed[recorded.rules_digest] = compile_rules(change.rules(logged.rules.rules))
        rules = changed[recorded.rules_digest]
        before_currency = logged.rules.rules.exchange.currency
        try:
            before = record.decode_result(recorded.result)
            then = open_auction(recorded.arrival, logged.rules)
        except (record.Unreadable, InvalidRequest):
            sums.unreadable += 1
            continue
        sums.auctions += 1
        sums.imps += len(then.request.imps)
        after: tuple[Outcome, ...] = ()
        try:
            after = _otherwise(recorded, rules, change, then.budget_us).outcomes
        except InvalidRequest:
            sums.refused += 1
        placements = [imp.tagid or imp.id for imp in then.request.imps]
        _add(sums, before_currency, before.outcomes, placements, is_after=False)
        _add(sums, rules.rules.exchange.currency, after, placements, is_after=True)
    return sums


def _otherwise(recorded: RecordedAuction, rules: CompiledRules, change: Change, budget_us: int) -> AuctionResult:
    arrival = recorded.arrival
    if change.floor_scale != 1:
        exchange, limits = rules.rules.exchange, rules.rules.limits
        body = arrival.body
        if arrival.encoding is Encoding.JSON:
            body = json.request_bytes(body, lenient=exchange.json == "lenient", depth=limits.depth).message
        body = requests.scale_floors(body, change.floor_scale)
        arrival = msgspec.structs.replace(arrival, encoding=Encoding.PROTOBUF, body=body)
    auction = open_auction(arrival, rules)
    logged = {reply.bidder: reply for reply in recorded.replies}
    replies = []
    for invitation in auction.invitations:
        reply = logged.get(invitation.bidder)
        # What was in time then is in time now, unless the deadline came forward.
        if reply is None or budget_us > auction.budget_us <= reply.latency_us:
            reply = Reply(invitation.bidder, ReplyStatus.TIMED_OUT)
        replies.append(reply)
    return close_auction(auction, replies)


def _add(
    sums: Counterfactual, currency: str, outcomes: Sequence[Outcome], placements: Sequence[str], is_after: bool
) -> None:
    sums.totals.setdefault((currency, ""), Total())
    for bid in outcomes:
        if bid.clearing_price is None:
            continue
        place = (currency, placements[bid.imp])
        if place not in sums.placements and len(sums.placements) >= PLACEMENTS_MAX:
            place = (currency, OTHER_PLACEMENTS)
        prices = [bid.clearing_price]
        for group, key in (
            (sums.totals, (currency, "")),
            (sums.bidders, (currency, bid.bidder)),
            (sums.placements, place),
        ):
            group.setdefault(key, Total()).add([] if is_after else prices, prices if is_after else [])


class Change(msgspec.Struct, frozen=True):
    """How a counterfactual differs: settings as KEY=VALUE, bidders left out, floors scaled."""

    settings: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()
    floor_scale: Fraction = Fraction(1)

    def rules(self, rules: Rules) -> Rules:
        """Apply the change to one version of the rules; ConfigFaults names what cannot be."""
        changed = rules
        if self.settings:
            settings = settings_of(rules)
            laid_over(settings, self.settings)
            read = rules_of_case(settings, [])
            bidders = tuple(
                msgspec.structs.replace(bidder, encoding=was.encoding)
                for bidder, was in zip(read.bidders, rules.bidders, strict=True)
            )
            fx = msgspec.structs.replace(rules.fx, rates=read.fx.rates)
            changed = msgspec.structs.replace(read, bidders=bidders, fx=fx)
        left = tuple(bidder for bidder in changed.bidders if bidder.name not in self.dropped)
        return msgspec.structs.replace(changed, bidders=left)

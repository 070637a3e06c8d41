# The two pure functions with the waiting between them.
#
#     auction = open_auction(arrival, rules)          # bytes in -> whom to ask, with what bytes, until when
#     replies = ...                                   # somebody waits
#     result  = close_auction(auction, replies)       # replies -> winners, prices, reasons, bytes out
#
# Everything they know stands in their arguments, so a replay calls the same two with replies from a log. Nothing here
# waits, reads a clock, draws a number or remembers the auction before.

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from auction.core import adjustments, categories, clearing, eligibility, floor_rules, floors, listings
from auction.core.floors import Floors
from auction.core.listings import Listings
from auction.core.offers import Heard, Offers, offers
from auction.core.openrtb import json, requests, responses, views
from auction.core.openrtb.replies import decode_reply, is_empty
from auction.core.openrtb.responses import Sale
from auction.core.validation import Checks, Offerer
from auction.model.auction import Arrival, Auction, AuctionResult, Encoding, Invitation, NonBid, Outcome, Terms, Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidReply, InvalidRequest, OtherData
from auction.model.fx import Rates
from auction.model.money import MICROS, CpmMicros
from auction.model.reasons import LossReason, NoBidReason, NonBidStatus, rejected_status
from auction.model.reply import Reply, ReplyStatus
from auction.model.request import Audience, BidRequest, Told, Whose
from auction.model.rules import BidderRules, Rules


class Profile(msgspec.Struct, frozen=True):
    """What decides how a bidder is asked: bidders of one profile are asked alike, and that is worked out once.

    `media` are formats as flags; `group` see CompiledRules; the rest is as in BidderRules.
    """

    media: int
    encoding: Encoding
    group: int
    currency: str | None
    min_ms: int
    network_ms: int
    timeout_ms: int | None


class CompiledRules(msgspec.Struct, frozen=True):
    """Rules with the tables that are made once per version, not once per auction.

    Bidders whom no floor rule and no adjustment names share a group, and with it every floor: `groups` has each
    bidder's, `group_names` a bidder of each (of those it stands for nobody, empty). `profile_of` has each bidder's row
    in `profiles`, `rows` its place in the rules by name, `offerers` what its bids are checked by.
    """

    rules: Rules
    digest: bytes
    rates: Rates
    increment: CpmMicros
    floors: Floors
    market: clearing.Market
    profiles: tuple[Profile, ...]
    profile_of: tuple[int, ...]
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    rows: dict[str, int]
    offerers: tuple[Offerer, ...]
    listings: Listings


def compile_rules(rules: Rules) -> CompiledRules:
    """Make the tables of one version of the rules; ValueError where they contradict themselves."""
    names = [bidder.name for bidder in rules.bidders]
    if len(set(names)) < len(names):
        raise ValueError(f"bidders: expected distinct names, were {', '.join(names)}")
    exchange = rules.exchange
    if exchange.currency not in ISO_4217:
        raise ValueError(f"exchange.currency: expected an ISO 4217 code, was {exchange.currency}")
    written_with = rules.data.get(categories.FILE, categories.DIGEST)
    if exchange.category_match == "parents" and written_with != categories.DIGEST:
        here, there = categories.DIGEST[:12], written_with[:12]
        raise OtherData(f"{categories.FILE}: these rules were written with the file {there}..., here is {here}...")
    minor_unit = CpmMicros(MICROS // 10 ** ISO_4217[exchange.currency])
    increment = exchange.increment.get(exchange.currency, minor_unit)
    rates = rules.fx.compiled()
    table = floor_rules.compiled(rules.floors)
    weighings = adjustments.compiled(exchange.bid_adjustments)
    named = table.bidders | {one.bidder for one in weighings if one.bidder is not None}
    group_names = ["", *(name for name in names if name in named)]
    groups = tuple(group_names.index(name) if name in named else 0 for name in names)
    profiles = [_profile(bidder, group) for bidder, group in zip(rules.bidders, groups, strict=True)]
    distinct = list(dict.fromkeys(profiles))
    return CompiledRules(
        rules=rules,
        digest=rules.digest(),
        rates=rates,
        increment=increment,
        floors=floors.floors(exchange.currency, exchange.min_price, rates, table, weighings),
        market=clearing.market(exchange, increment, names),
        profiles=tuple(distinct),
        profile_of=tuple(distinct.index(profile) for profile in profiles),
        groups=groups,
        group_names=tuple(group_names),
        rows={name: row for row, name in enumerate(names)},
        offerers=tuple(
            Offerer(bidder.name, frozenset(bidder.seats), frozenset(bidder.blocked_creatives))
            for bidder in rules.bidders
        ),
        listings=listings.listings(rules.bidders),
    )


def _profile(bidder: BidderRules, group: int) -> Profile:
    return Profile(
        eligibility.media_mask(bidder),
        Encoding.JSON if bidder.encoding == "json" else Encoding.PROTOBUF,
        group,
        bidder.currency,
        bidder.min_ms,
        bidder.network_ms,
        bidder.timeout_ms,
    )


def open_auction(arrival: Arrival, rules: CompiledRules) -> Auction[CompiledRules]:
    """Decide whom to ask, with what bytes, until when; InvalidRequest names the field that forbids it."""
    limits, exchange = rules.rules.limits, rules.rules.exchange
    size = len(arrival.body)
    if size > limits.request_bytes:
        raise InvalidRequest("", f"expected at most {limits.request_bytes} bytes, were {size}")
    body, warnings = arrival.body, []
    if arrival.encoding is Encoding.JSON:
        encoded = json.request_bytes(body, lenient=exchange.json == "lenient", depth=limits.depth)
        body = encoded.message
        warnings = [Warning(repair.path, repair.text) for repair in encoded.repairs]
    message = requests.parse_request(body)
    survey, cells = requests.survey_request(message, limits)
    request, tolerated = requests.decode_request(message, survey.body, cells, limits)
    if request.cur and all(rules.rates.ratio(exchange.currency, code) is None for code in request.cur):
        listed = ", ".join(code[:16] for code in request.cur[:8])
        raise InvalidRequest("cur", f"expected a currency with a rate, was {listed}")
    audience = requests.audience(survey.body, cells) if rules.floors.table.models else _ANYWHERE
    raised = rules.floors.raised(arrival.id, request, audience, rules.group_names)
    open_terms = [
        rules.floors.open_terms(request, name, raised[group] if raised else ())
        for group, name in enumerate(rules.group_names)
    ]
    budget_us = _budget_us(request, arrival, rules)

    def view(imps: Sequence[int], tmax_ms: int, told: dict[Whose, Told]) -> bytes:
        return views.view(message, survey.body, cells, imps, tmax_ms, told)

    invitations, not_asked = _invite(view, request, raised, open_terms, budget_us, rules)
    return Auction(
        arrival, rules, request, survey, raised, open_terms, budget_us, invitations, not_asked, (*warnings, *tolerated)
    )


_ANYWHERE = Audience("", "", "")


def _budget_us(request: BidRequest, arrival: Arrival, rules: CompiledRules) -> int:
    """Give the time from arrival to the deadline: the least of what request, caller and we allow, less our own part."""
    exchange = rules.rules.exchange
    whole = min(request.tmax_ms or exchange.tmax_ms, exchange.tmax_max_ms)
    if arrival.timeout_ms is not None:
        whole = min(whole, max(0, arrival.timeout_ms))
    return whole * 1000 - min(exchange.reply_reserve_ms * 1000, whole * 100)


View = Callable[[Sequence[int], int, dict[Whose, Told]], bytes]
"""Write the request as a bidder sees it: rows of impressions, its tmax in milliseconds, floors told otherwise."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """How the bidders of one profile are asked: `body` None where they are not; each impression kept from them, why."""

    body: bytes | None
    imps: tuple[int, ...]
    kept: tuple[tuple[str, NonBidStatus], ...]


def _invite(
    view: View,
    request: BidRequest,
    raised: list[list[int]],
    open_terms: list[list[Terms | None]],
    budget_us: int,
    rules: CompiledRules,
) -> tuple[tuple[Invitation, ...], tuple[NonBid, ...]]:
    asked = _asked(view, request, raised, open_terms, budget_us, rules)
    invitations = []
    not_asked = []
    for bidder, row in zip(rules.rules.bidders, rules.profile_of, strict=True):
        profile = asked[row]
        if profile.body is not None:
            invitations.append(Invitation(bidder.name, rules.profiles[row].encoding, profile.body, profile.imps))
        for imp, status in profile.kept:
            not_asked.append(NonBid(bidder.name, None, imp, None, status))
    return tuple(invitations), tuple(not_asked)


def _asked(
    view: View,
    request: BidRequest,
    raised: list[list[int]],
    open_terms: list[list[Terms | None]],
    budget_us: int,
    rules: CompiledRules,
) -> list[Asked]:
    # Bidders that see the same thing share one encoding of it; most auctions have one or two views.
    views: dict[tuple[tuple[int, ...], int, Encoding, int, str | None], bytes] = {}
    told: dict[tuple[int, str | None], dict[Whose, Told]] = {}
    every = []
    for profile in rules.profiles:
        group = profile.group
        tmax_ms = eligibility.tmax_told_ms(budget_us, profile.network_ms, profile.timeout_ms)
        imps, kept = eligibility.asked(request.imps, profile.media, tmax_ms, profile.min_ms)
        body = None
        if imps:
            key = (imps, tmax_ms, profile.encoding, group, profile.currency)
            body = views.get(key)
            if body is None:
                whose = (group, profile.currency)
                if whose not in told:
                    name = rules.group_names[group]
                    asks = raised[group] if raised else ()
                    told[whose] = rules.floors.told(request, name, profile.currency, asks, open_terms[group])
                body = view(imps, tmax_ms, told[whose])
                if profile.encoding is Encoding.JSON:
                    body = json.request_json(body, rest=False)
                views[key] = body
        every.append(Asked(body, imps, kept))
    return every


def close_auction(auction: Auction[CompiledRules], replies: Sequence[Reply]) -> AuctionResult:
    """Decide who wins, what each pays and why the rest lost; `replies` are in the order of the invitations."""
    rules, request = auction.rules, auction.request
    exchange = rules.rules.exchange
    assert [reply.bidder for reply in replies] == [invitation.bidder for invitation in auction.invitations]

    checks = Checks(request, exchange, rules.floors, auction.raised, auction.open_terms, rules.groups)
    read = [
        _read(invitation, reply, request.id, rules)
        for invitation, reply in zip(auction.invitations, replies, strict=True)
    ]
    heard = [one for one in read if isinstance(one, Heard)]
    made = offers(
        heard, request, auction.survey, exchange, checks, rules.market.order, rules.listings, rules.rules.limits
    )
    outcomes, winners = clearing.settle(request, made, rules.market)

    non_bids = _non_bids(auction, read, made, outcomes)
    currency = _response_currency(request, rules)
    sales = _sales(made, outcomes, winners, currency, rules)
    nbr = None if sales else _nbr(auction)
    warnings = (*auction.warnings, *checks.warnings) if checks.warnings else auction.warnings
    body = responses.response(request.id, auction.arrival.id, currency, sales, nbr)
    explained = exchange.explain == "always" or (exchange.explain == "on_request" and auction.arrival.explain)
    if explained:
        imps = [imp.id for imp in request.imps]
        body = responses.explain(body, auction.arrival.id, exchange.currency, imps, outcomes, non_bids, warnings)
    if auction.arrival.encoding is Encoding.JSON:
        body = json.response_json(body, rest=True)
    return AuctionResult(body, nbr, explained, tuple(outcomes), tuple(non_bids), warnings)


def _non_bids(
    auction: Auction[CompiledRules], read: Sequence[Heard | int], made: Offers, outcomes: Sequence[Outcome]
) -> list[NonBid]:
    """Say of every impression that a bidder has no bid for, and of every bid that was rejected, why."""
    imps, non_bids = auction.request.imps, list(auction.not_asked)
    rows = iter(made.replies)
    for invitation, one in zip(auction.invitations, read, strict=True):
        with_bid: set[int] = set()
        if isinstance(one, Heard):
            reply = next(rows)
            with_bid = {outcome.imp for outcome in outcomes[reply.first : reply.first + reply.count]}
            if with_bid.issuperset(invitation.imps):
                continue
            status = int(NonBidStatus.INVALID_RESPONSE if reply.excessive else NonBidStatus.NO_BID)
        else:
            status = int(one)
        non_bids += [
            NonBid(invitation.bidder, None, imps[row].id, None, status)
            for row in invitation.imps
            if row not in with_bid
        ]
    for reply in made.replies:
        for row in range(reply.first, reply.first + reply.count):
            outcome = outcomes[row]
            if outcome.reason not in _ACCEPTED:
                duplicate = row in reply.held and reply.held[row].duplicate
                status = NonBidStatus.DUPLICATE if duplicate else rejected_status(outcome.reason)
                non_bids.append(NonBid(outcome.bidder, outcome.seat, outcome.impid, outcome.id, status))
    return non_bids


# Accepted bids leave with one of these; every other reason is a rejection.
_ACCEPTED = (LossReason.WON, LossReason.LOST_TO_HIGHER_BID, LossReason.LOST_TO_DEAL)


def _sales(
    made: Offers, outcomes: Sequence[Outcome], winners: Sequence[int], currency: str, rules: CompiledRules
) -> list[Sale]:
    """Give what leaves with the answer: the winner of each impression, at its price in the answer's currency."""
    to_response = rules.rates.ratio(rules.rules.exchange.currency, currency)
    assert to_response is not None
    sales = []
    for row in winners:
        if row >= 0:
            won = outcomes[row]
            assert won.clearing_price is not None
            bid, price_at = made.sent(row)
            reopened = not won.deal and made.names_deal(row)
            sales.append(Sale(won.bidder, won.seat, bid, price_at, to_response.down(won.clearing_price), reopened))
    return sales


_STATUS = {
    ReplyStatus.NO_BID: NonBidStatus.NO_BID,
    ReplyStatus.TIMED_OUT: NonBidStatus.TIMEOUT,
    ReplyStatus.UNREACHABLE: NonBidStatus.UNREACHABLE,
    ReplyStatus.INVALID: NonBidStatus.INVALID_RESPONSE,
}


def _read(invitation: Invitation, reply: Reply, request_id: str, rules: CompiledRules) -> Heard | int:
    """Read one reply; a number is the non-bid status of every impression that its bidder was asked for."""
    if reply.status is not ReplyStatus.BID:
        return _STATUS[reply.status]
    body, limits = reply.body, rules.rules.limits
    if not body:
        return NonBidStatus.NO_BID
    if len(body) > limits.reply_bytes:
        return NonBidStatus.INVALID_RESPONSE
    try:
        if invitation.encoding is Encoding.JSON:
            lenient = rules.rules.exchange.json == "lenient"
            body = json.response_bytes(body, lenient=lenient, depth=limits.depth).message
        answer = decode_reply(body)
    except InvalidReply:
        return NonBidStatus.INVALID_RESPONSE
    if answer.nbr is not None:
        return answer.nbr
    if answer.id != request_id and (answer.id or rules.rules.exchange.strict_ids):
        return NonBidStatus.NO_BID if is_empty(answer.wire) else NonBidStatus.INVALID_RESPONSE
    row = rules.rows[reply.bidder]
    return Heard(row, rules.offerers[row], invitation.imps, body, answer.wire, answer.currency)


def _response_currency(request: BidRequest, rules: CompiledRules) -> str:
    """Give the currency of the answer: ours if the request allows it, else the first it lists that has a rate."""
    ours = rules.rules.exchange.currency
    if not request.cur or ours in request.cur:
        return ours
    return next(code for code in request.cur if rules.rates.ratio(ours, code) is not None)


def _nbr(auction: Auction[CompiledRules]) -> NoBidReason:
    """Tell why nothing was sold: 15 when nobody could be asked in time, else 0."""
    if not auction.invitations and any(
        non_bid.status == NonBidStatus.INSUFFICIENT_TIME for non_bid in auction.not_asked
    ):
        return NoBidReason.INSUFFICIENT_TIME
    return NoBidReason.UNKNOWN

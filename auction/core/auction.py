# The two pure functions with the waiting between them.
#
#     auction = open_auction(arrival, rules)          # bytes in -> whom to ask, with what bytes, until when
#     replies = ...                                   # somebody waits
#     result  = close_auction(auction, replies)       # replies -> winners, prices, reasons, bytes out
#
# Everything they know stands in their arguments, so a replay calls the same two with replies from a log. Nothing here
# waits, reads a clock, draws a number or remembers the auction before.

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from auction.core import clearing, eligibility
from auction.core.floors import least_told
from auction.core.openrtb import json, protobuf
from auction.core.openrtb.protobuf import Sale, Told
from auction.core.validation import Checks, Verdict
from auction.model.auction import Arrival, Auction, AuctionResult, Encoding, Invitation, NonBid, Outcome, Warning
from auction.model.currencies import ISO_4217
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.fx import Rates
from auction.model.money import MICROS, CpmMicros, cpm
from auction.model.reasons import LossReason, NoBidReason, NonBidStatus, PriceSetter, rejected_status
from auction.model.reply import Answer, Reply, ReplyStatus
from auction.model.request import BidRequest
from auction.model.rules import BidderRules, Rules
from auction.v1.openrtb_pb2 import BidRequest as RequestMessage


class CompiledBidder(msgspec.Struct, frozen=True):
    """A bidder ready to be asked: `media` as flags, `order` its name's place in byte order."""

    rules: BidderRules
    media: int
    encoding: Encoding
    order: int


class CompiledRules(msgspec.Struct, frozen=True):
    """Rules with the tables that are made once per version, not once per auction."""

    rules: Rules
    digest: bytes
    rates: Rates
    increment: CpmMicros
    bidders: tuple[CompiledBidder, ...]
    rows: dict[str, int]
    name_order: tuple[int, ...]


def compile_rules(rules: Rules) -> CompiledRules:
    """Make the tables of one version of the rules; ValueError where they contradict themselves."""
    names = [bidder.name for bidder in rules.bidders]
    if len(set(names)) < len(names):
        raise ValueError(f"bidders: expected distinct names, were {', '.join(names)}")
    order = {name: place for place, name in enumerate(sorted(names, key=str.encode))}
    currency = rules.exchange.currency
    if currency not in ISO_4217:
        raise ValueError(f"exchange.currency: expected an ISO 4217 code, was {currency}")
    minor_unit = CpmMicros(MICROS // 10 ** ISO_4217[currency])
    return CompiledRules(
        rules=rules,
        digest=rules.digest(),
        rates=rules.fx.compiled(),
        increment=rules.exchange.increment.get(currency, minor_unit),
        bidders=tuple(
            CompiledBidder(
                bidder,
                eligibility.media_mask(bidder),
                Encoding.JSON if bidder.encoding == "json" else Encoding.PROTOBUF,
                order[bidder.name],
            )
            for bidder in rules.bidders
        ),
        rows={name: row for row, name in enumerate(names)},
        name_order=tuple(order[name] for name in names),
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
    message = protobuf.parse_request(body)
    request, tolerated = protobuf.decode_request(message, limits)
    if request.cur and all(rules.rates.ratio(exchange.currency, code) is None for code in request.cur):
        listed = ", ".join(code[:16] for code in request.cur[:8])
        raise InvalidRequest("cur", f"expected a currency with a rate, was {listed}")
    budget_us = _budget_us(request, arrival, rules)
    invitations, not_asked = _invite(message, request, budget_us, rules)
    return Auction(arrival, rules, request, budget_us, invitations, not_asked, (*warnings, *tolerated))


def _budget_us(request: BidRequest, arrival: Arrival, rules: CompiledRules) -> int:
    """Give the time from arrival to the deadline: the least of what request, caller and we allow, less our own part."""
    exchange = rules.rules.exchange
    whole = min(request.tmax_ms or exchange.tmax_ms, exchange.tmax_max_ms)
    if arrival.timeout_ms is not None:
        whole = min(whole, max(0, arrival.timeout_ms))
    return whole * 1000 - min(exchange.reply_reserve_ms * 1000, whole * 100)


def _invite(
    message: RequestMessage, request: BidRequest, budget_us: int, rules: CompiledRules
) -> tuple[tuple[Invitation, ...], tuple[NonBid, ...]]:
    invitations = []
    not_asked = []
    floors, deals = _told_floors(request, message, rules)
    # Bidders that see the same thing share one encoding of it; most auctions have one or two views.
    views: dict[tuple[tuple[int, ...], int, Encoding], bytes] = {}
    for bidder in rules.bidders:
        name = bidder.rules.name
        tmax_ms = eligibility.tmax_told_ms(budget_us, bidder.rules)
        asked = []
        for row, imp in enumerate(request.imps):
            status = eligibility.why_not_asked(imp, bidder.media, tmax_ms, bidder.rules.min_ms)
            if status is None:
                asked.append(row)
            else:
                not_asked.append(NonBid(name, None, imp.id, None, status))
        if not asked:
            continue
        imps = tuple(asked)
        key = (imps, tmax_ms, bidder.encoding)
        body = views.get(key)
        if body is None:
            view = protobuf.view(message, imps, tmax_ms, floors, deals)
            in_json = bidder.encoding is Encoding.JSON
            body = views[key] = json.request_json(view, rest=False) if in_json else protobuf.view_bytes(view)
        invitations.append(Invitation(name, bidder.encoding, body, imps))
    return tuple(invitations), tuple(not_asked)


def _told_floors(
    request: BidRequest, message: RequestMessage, rules: CompiledRules
) -> tuple[dict[int, Told], dict[tuple[int, int], Told]]:
    """Give the floors that views state otherwise than the request: what is enforced is what bidders are told."""
    floors: dict[int, Told] = {}
    deals: dict[tuple[int, int], Told] = {}
    for row, (imp, sent) in enumerate(zip(request.imps, message.imp, strict=True)):
        told = _told_floor(imp.floor, imp.currency, rules)
        if told[0] > sent.bidfloor:
            floors[row] = told
        if not imp.deals:
            continue
        for place, sent_deal in enumerate(sent.pmp.deals):
            deal = imp.deals[sent_deal.id]
            if deal.floor is None:
                continue
            told = _told_floor(deal.floor, deal.currency, rules)
            if told[0] > sent_deal.bidfloor:
                deals[row, place] = told
    return floors, deals


def _told_floor(floor: CpmMicros, currency: str, rules: CompiledRules) -> Told:
    """Raise a floor, whole micros already, by the least price of any sale."""
    exchange = rules.rules.exchange
    if exchange.min_price:
        least = least_told(exchange.min_price, currency, exchange.currency, rules.rates)
        if least is not None:
            floor = max(floor, least)
        elif not floor:
            # No floor needs no rate, but the least price is not told in a currency that it cannot be brought to.
            floor, currency = exchange.min_price, exchange.currency
    return cpm(floor), currency


def close_auction(auction: Auction[CompiledRules], replies: Sequence[Reply]) -> AuctionResult:
    """Decide who wins, what each pays and why the rest lost; `replies` are in the order of the invitations."""
    rules, request = auction.rules, auction.request
    exchange = rules.rules.exchange
    assert [reply.bidder for reply in replies] == [invitation.bidder for invitation in auction.invitations]

    checks = Checks(request, exchange, rules.rates)
    verdicts: list[Verdict] = []
    non_bids = list(auction.not_asked)
    for invitation, reply in zip(auction.invitations, replies, strict=True):
        answer = _read(invitation, reply, request.id, rules)
        if isinstance(answer, int):
            non_bids += [NonBid(reply.bidder, None, request.imps[row].id, None, answer) for row in invitation.imps]
            continue
        offered = checks.verdicts(rules.rows[reply.bidder], invitation.imps, answer.currency, answer.bids)
        verdicts += offered
        with_bid = {verdict.imp for verdict in offered}
        non_bids += [
            NonBid(reply.bidder, None, request.imps[row].id, None, NonBidStatus.NO_BID)
            for row in invitation.imps
            if row not in with_bid
        ]

    standing = [verdict for verdict in verdicts if verdict.reason is None]
    settled, winners = clearing.settle(request, standing, exchange, rules.increment, rules.name_order)
    outcomes = _outcomes(verdicts, settled, rules)
    for verdict, outcome in zip(verdicts, outcomes, strict=True):
        if outcome.reason not in _ACCEPTED:
            status = NonBidStatus.DUPLICATE if verdict.duplicate else rejected_status(outcome.reason)
            non_bids.append(NonBid(outcome.bidder, outcome.seat, outcome.impid, outcome.id, status))

    currency = _response_currency(request, rules)
    to_response = rules.rates.ratio(exchange.currency, currency)
    assert to_response is not None
    sales = []
    for row in winners:
        if row >= 0:
            price = settled[row].clearing_price
            assert price is not None
            bidder = rules.bidders[standing[row].bidder].rules.name
            sales.append(Sale(bidder, standing[row].bid, to_response.down(price)))
    nbr = None if sales else _nbr(auction)
    message = protobuf.response(request.id, auction.arrival.id, currency, sales, nbr)
    explained = exchange.explain == "always" or (exchange.explain == "on_request" and auction.arrival.explain)
    if explained:
        imps = [imp.id for imp in request.imps]
        protobuf.explain(message, auction.arrival.id, exchange.currency, imps, outcomes, non_bids, auction.warnings)
    in_json = auction.arrival.encoding is Encoding.JSON
    body = json.response_json(message, rest=True) if in_json else protobuf.serialise(message)
    return AuctionResult(body, nbr, explained, tuple(outcomes), tuple(non_bids), auction.warnings)


# Accepted bids leave with one of these; every other reason is a rejection.
_ACCEPTED = (LossReason.WON, LossReason.LOST_TO_HIGHER_BID, LossReason.LOST_TO_DEAL)

_STATUS = {
    ReplyStatus.NO_BID: NonBidStatus.NO_BID,
    ReplyStatus.TIMED_OUT: NonBidStatus.TIMEOUT,
    ReplyStatus.UNREACHABLE: NonBidStatus.UNREACHABLE,
    ReplyStatus.INVALID: NonBidStatus.INVALID_RESPONSE,
}


def _read(invitation: Invitation, reply: Reply, request_id: str, rules: CompiledRules) -> Answer | int:
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
        answer = protobuf.decode_reply(body, limits)
    except InvalidReply:
        return NonBidStatus.INVALID_RESPONSE
    if answer.nbr is not None:
        return answer.nbr
    if not answer.bids:
        return NonBidStatus.NO_BID
    if answer.id != request_id and (answer.id or rules.rules.exchange.strict_ids):
        return NonBidStatus.INVALID_RESPONSE
    return answer


def _outcomes(verdicts: Sequence[Verdict], settled: Sequence[clearing.Settled], rules: CompiledRules) -> list[Outcome]:
    outcomes = []
    settlements = iter(settled)
    for verdict in verdicts:
        bid = verdict.bid
        reason, floor, least, price, pays, setter = verdict.reason, None, None, None, None, PriceSetter.NONE
        if reason is None:
            settlement = next(settlements)
            reason, least, price = settlement.reason, settlement.min_to_win, settlement.clearing_price
            setter = settlement.setter
            assert verdict.floor is not None
            floor = verdict.ranked if verdict.at == 3 else verdict.floor.counted
            if reason in _ACCEPTED:
                floor = min(floor, verdict.ranked)
            if price is not None:
                pays = clearing.buyer_pays(verdict, settlement, rules.rules.exchange, rules.rates)
        outcomes.append(
            Outcome(
                rules.bidders[verdict.bidder].rules.name,
                bid.seat,
                bid.id,
                verdict.imp,
                bid.impid,
                bid.dealid,
                bid.price,
                verdict.currency,
                floor,
                reason,
                least,
                price,
                pays,
                setter,
            )
        )
    return outcomes


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

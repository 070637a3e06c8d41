# One set of replies, decided three ways: with the sieve, with every bid held back by it, and from the parsed messages
# without a walk over bytes. They must agree in every row, outcome and warning.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auction.core import clearing
from auction.core.auction import CompiledRules, close_auction
from auction.core.kernels.clear import BIDDER, COLUMNS, COMPETITOR, DEAL, IMP, PRICE, RANK
from auction.core.kernels.sieve import PLACE, PLACE_CELLS, REPLY, SEATBID
from auction.core.offers import UNREACHABLE, Heard, Offers, offers
from auction.core.openrtb import json as codec
from auction.core.openrtb.replies import bids_of, decode_reply
from auction.core.validation import Checks
from auction.model.auction import Auction, AuctionResult, Encoding, Warning
from auction.model.errors import InvalidReply
from auction.model.reply import Reply, ReplyStatus

Row = tuple[Any, ...]


def read(auction: Auction[CompiledRules], replies: Sequence[Reply]) -> list[Heard]:
    """Read the replies that close_auction would read bid by bid."""
    rules = auction.rules.rules
    heard = []
    for invitation, reply in zip(auction.invitations, replies, strict=True):
        body = reply.body
        if reply.status is not ReplyStatus.BID or not body or len(body) > rules.limits.reply_bytes:
            continue
        try:
            if invitation.encoding is Encoding.JSON:
                lenient = rules.exchange.json == "lenient"
                body = codec.response_bytes(body, lenient=lenient, depth=rules.limits.depth).message
            answer = decode_reply(body)
        except InvalidReply:
            continue
        if answer.nbr is not None or (answer.id != auction.request.id and (answer.id or rules.exchange.strict_ids)):
            continue
        row = auction.rules.rows[invitation.bidder]
        heard.append(Heard(row, auction.rules.offerers[row], invitation.imps, body, answer.wire, answer.currency))
    return heard


def checks_of(auction: Auction[CompiledRules]) -> Checks:
    rules = auction.rules
    return Checks(auction.request, rules.rules.exchange, rules.floors, auction.raised, auction.open_terms, rules.groups)


def walked(auction: Auction[CompiledRules], heard: Sequence[Heard], *, sieved: bool) -> tuple[Offers, list[Warning]]:
    """Read all bids by a walk over the bytes; give the warnings too."""
    checks, rules = checks_of(auction), auction.rules
    exchange, limits = rules.rules.exchange, rules.rules.limits
    made = offers(
        heard,
        auction.request,
        auction.survey,
        exchange,
        checks,
        rules.market.order,
        rules.listings,
        limits,
        sieved=sieved,
    )
    return made, checks.warnings


def by_message(auction: Auction[CompiledRules], heard: Sequence[Heard]) -> tuple[list[list[Row] | None], list[Warning]]:
    """Give the rows of each reply as the rules say, None where it has too many bids or names them too long."""
    checks, rules = checks_of(auction), auction.rules.rules
    every: list[list[Row] | None] = []
    competitors: dict[tuple[int, str], int] = {}
    for place, reply in enumerate(heard):
        seatbids = reply.wire.seatbid
        currency_bytes = len(reply.currency.encode())
        unfolded = sum(len(one.bid) * (len(one.seat.encode()) + currency_bytes) for one in seatbids)
        count = sum(len(one.bid) for one in seatbids)
        if count > rules.limits.bids_per_reply or unfolded > rules.limits.reply_bytes:
            every.append(None)
            continue
        verdicts = iter(checks.verdicts(reply.bidder, reply.rules, reply.asked, reply.currency, bids_of(reply.wire)))
        rows: list[Row] = []
        for seatbid, one in enumerate(seatbids):
            for bid in range(len(one.bid)):
                verdict = next(verdicts)
                seat = one.seat if rules.exchange.competitor == "seat" else ""
                competitor = competitors.setdefault((place, seat), len(competitors))
                named = (one.seat, verdict.bid.id, seatbid, bid, repr(verdict.bid.price))
                terms = verdict.terms
                if terms is None:
                    rows.append((*named, competitor, verdict.reason, verdict.duplicate, verdict.imp, verdict.dealid))
                    continue
                told, deal_told = min(terms.told, UNREACHABLE), min(terms.deal_told, UNREACHABLE)
                floor = terms.counted if terms.agreed < 0 else terms.agreed
                money = (verdict.price, told, deal_told, verdict.ranked, floor, terms.at, int(terms.deal))
                order = auction.rules.market.order[reply.bidder]
                rows.append((*named, competitor, verdict.imp, verdict.dealid, *money, 0, order, terms))
        every.append(rows)
    return every, checks.warnings


def rows_of(made: Offers) -> list[list[Row] | None]:
    """Say what a walk made of each reply in the words of `by_message`."""
    every: list[list[Row] | None] = []
    competitors: dict[int, int] = {}
    columns = made.columns.tolist()
    for reply in made.replies:
        if reply.excessive:
            assert not reply.count
            every.append(None)
            continue
        rows: list[Row] = []
        for row in range(reply.first, reply.first + reply.count):
            cells = columns[row * COLUMNS : (row + 1) * COLUMNS]
            at = row * PLACE_CELLS
            assert made.replies[made.places[at + REPLY]] is reply
            place = (made.places[at + SEATBID], made.places[at + PLACE])
            competitor = competitors.setdefault(cells[COMPETITOR], len(competitors))
            verdict = reply.held.get(row)
            price = made.prices[row] if verdict is None else verdict.bid.price
            named = (made.seat(row), made.id(row), *place, repr(price), competitor)
            if verdict is not None and verdict.terms is None:
                assert cells[IMP] == -1
                rows.append((*named, verdict.reason, verdict.duplicate, verdict.imp, verdict.dealid))
                continue
            terms = reply.terms[cells[IMP]] if verdict is None else verdict.terms
            dealid = "" if verdict is None else verdict.dealid
            money = cells[PRICE : DEAL + 1]
            rows.append((*named, cells[IMP], dealid, *money, cells[RANK], cells[BIDDER], terms))
        every.append(rows)
    return every


def agreed(auction: Auction[CompiledRules], replies: Sequence[Reply]) -> tuple[Offers, AuctionResult]:
    """Decide three ways, hold the answers to be one, and give what the sieve made, and the result."""
    heard = read(auction, replies)
    expected, warnings = by_message(auction, heard)
    made, warned = walked(auction, heard, sieved=False)
    assert expected == rows_of(made), "held back"
    assert warnings == warned, "held back"
    outcomes, _ = clearing.settle(auction.request, made, auction.rules.market)
    made, warned = walked(auction, heard, sieved=True)
    assert expected == rows_of(made), "sieved"
    assert warnings == warned, "sieved"
    result = close_auction(auction, replies)
    assert repr(outcomes) == repr(list(result.outcomes))  # as text, in which NaN is NaN
    assert (*auction.warnings, *warnings) == result.warnings
    return made, result

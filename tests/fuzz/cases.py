# One execution: an auction from arrival to replies, made from a seed and a number, and written to a file where it is
# kept.

from __future__ import annotations

import base64
import json
import re
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from auction.core.auction import CompiledRules, compile_rules, open_auction
from auction.core.openrtb import json as codec
from auction.model.auction import Arrival, Auction, Encoding
from auction.model.errors import InvalidReply, InvalidRequest
from auction.model.reply import Reply, ReplyStatus
from auction.model.rules import rules_from_canonical
from tests.corpus import accepted, refused
from tests.fuzz import auctions, mutations
from tests.fuzz.auctions import pick, seldom

FINDS = Path(__file__).parents[1] / "finds"

_SILENCES = (ReplyStatus.NO_BID, ReplyStatus.TIMED_OUT, ReplyStatus.UNREACHABLE, ReplyStatus.INVALID)


class Case(msgspec.Struct, frozen=True):
    """An auction: its rules, what arrives, and what comes back from each bidder that is asked (none: nothing)."""

    rules: CompiledRules
    arrival: Arrival
    replies: dict[str, Reply]

    def answers(self, auction: Auction[CompiledRules]) -> list[Reply]:
        """Give a reply for each invitation, in their order."""
        return [
            self.replies.get(invitation.bidder, Reply(invitation.bidder, ReplyStatus.NO_BID))
            for invitation in auction.invitations
        ]


@cache
def _bodies() -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Give the corpus: requests that are accepted, those that are refused, and the former as messages."""
    sound = list(accepted().values())
    messages = [codec.request_bytes(body, lenient=True, depth=32).message for body in sound]
    return sound, [case.body for case in refused() if len(case.body) < 65_536], messages


def made(seed: int, number: int) -> Case:
    """Make the case of a number: the same on every machine."""
    r = Random(f"{seed}/{number}")
    rules = auctions.rules(r.randrange(auctions.RULES))
    arrival = _arrival(r, rules)
    try:
        auction = open_auction(arrival, rules)
    except InvalidRequest:
        return Case(rules, arrival, {})
    asked = auctions.asked(auction.request)
    replies = {}
    for invitation in auction.invitations:
        if seldom(r, 20):
            replies[invitation.bidder] = Reply(invitation.bidder, pick(r, _SILENCES))
            continue
        body = _reply(r, auction, asked)
        if invitation.encoding is Encoding.JSON:
            body = _reply_in_json(r, body)
        replies[invitation.bidder] = Reply(invitation.bidder, ReplyStatus.BID, body)
    return Case(rules, arrival, replies)


def _arrival(r: Random, rules: CompiledRules) -> Arrival:
    sound, faulty, messages = _bodies()
    kind = r.randrange(10)
    in_json = kind != 9 and (kind < 5 or seldom(r, 2))
    if kind < 6:
        body = json.dumps(auctions.request(r, rules.rules.exchange.currency)).encode()
        if kind < 2:
            body = mutations.of_json(r, body)
    elif kind < 9:
        body = pick(r, faulty) if seldom(r, 4) else pick(r, sound)
        body = mutations.of_bytes(r, body, sound) if seldom(r, 3) else mutations.of_json(r, body)
    else:
        body = pick(r, messages)
    if not in_json and kind != 9:
        try:
            body = codec.request_bytes(body, lenient=True, depth=32).message
        except InvalidRequest:
            in_json = True
    if not in_json and not seldom(r, 3):
        body = mutations.of_bytes(r, body, messages) if seldom(r, 4) else mutations.of_message(r, body)
    timeout_ms = pick(r, (0, 1, 30, -5)) if seldom(r, 30) else None
    return Arrival("A", 0, Encoding.JSON if in_json else Encoding.PROTOBUF, body, timeout_ms, explain=seldom(r, 2))


def _reply(r: Random, auction: Auction[CompiledRules], asked: auctions.Json) -> bytes:
    rules = auction.rules.rules
    ours = rules.exchange.currency
    currency = ours if not auction.request.cur or ours in auction.request.cur else pick(r, auction.request.cur)
    body = auctions.reply(r, asked, currency, rules.limits.bids_per_reply)
    if seldom(r, 3):
        body = mutations.of_bytes(r, body, [body]) if seldom(r, 4) else mutations.of_message(r, body)
    return body


def _reply_in_json(r: Random, body: bytes) -> bytes:
    try:
        told = codec.response_json(body, rest=True)
    except InvalidReply:
        return body
    if seldom(r, 2):
        told = mutations.of_bytes(r, told, [told]) if seldom(r, 4) else mutations.of_json(r, told)
    return told


# ------------------------------------------------------------ files


def write(case: Case, why: str, name: str, folder: Path = FINDS) -> Path:
    """Keep a case as a file that `read` reads; its name says what it shows."""
    folder.mkdir(exist_ok=True)
    arrival = case.arrival
    told = {
        "why": why,
        "arrival": {
            "encoding": arrival.encoding.name,
            **_told(arrival.body),
            "timeout_ms": arrival.timeout_ms,
            "explain": arrival.explain,
        },
        "replies": [
            {"bidder": bidder, "status": reply.status.name, **_told(reply.body)}
            for bidder, reply in case.replies.items()
        ],
        "rules": json.loads(case.rules.rules.canonical()),
    }
    path = folder / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] + ".json")
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Case:
    """Read a case back from its file."""
    told = json.loads(path.read_text(encoding="utf-8"))
    arrival = told["arrival"]
    return Case(
        compile_rules(rules_from_canonical(json.dumps(told["rules"]).encode())),
        Arrival(
            "A", 0, Encoding[arrival["encoding"]], _body(arrival), arrival["timeout_ms"], explain=arrival["explain"]
        ),
        {
            reply["bidder"]: Reply(reply["bidder"], ReplyStatus[reply["status"]], _body(reply))
            for reply in told["replies"]
        },
    )


def _told(body: bytes) -> dict[str, str]:
    # Text that a person can read stays so; the rest is bytes.
    text = body.decode(errors="replace")
    if text.encode(errors="replace") == body and text.isprintable():
        return {"text": text}
    return {"base64": base64.b64encode(body).decode()}


def _body(told: dict[str, Any]) -> bytes:
    text: str | None = told.get("text")
    return base64.b64decode(told["base64"]) if text is None else text.encode()

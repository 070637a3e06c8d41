# Reads tests/scenarios/*.txt: one auction on one screen, and what must come of it.
#
# A file is a case and its expectations in rows of words; the file's name is the claim it makes. What is not written
# is not said: an impression is a banner, bids have ids b1, b2 ... in the order of the file, everything else is as
# absent as it is in the file. `|` parts what goes in from what comes out. `-` is nothing.
#
#     rules    KEY VALUE ...                       settings of the exchange; `at` is the request's
#     limits   KEY VALUE ...
#     fx       CODE RATE ...                       units per USD
#     floors   KEY VALUE ...                       the exchange's own: floor_min, skip_rate, default
#     model    NAME KEY VALUE ...                  one of its models, weight and default; the rows below belong to it
#     floor    KEY VALUE ... cpm AMOUNT            one of its rules
#     adjust   KEY VALUE ...                       bidder, deal, media; multiplier or subtract
#     bidder   NAME KEY VALUE ...                  an entry of the configuration
#     request  KEY VALUE ...                       members of the request
#     imp      ID KEY VALUE ...                    floor, cur, media, private; other keys are members of the impression
#     deal     IMP ID KEY VALUE ...                floor, cur, at, wseat, wadomain, durfloors, mincpmpersec
#     bid      BIDDER SEAT IMP PRICE DEAL KEY VALUE ...  |  OUTCOME PAYS MIN_TO_WIN KEY VALUE ...
#     reply    BIDDER STATUS KEY VALUE ...         |  status of every impression that the bidder was asked for
#     nonbid   BIDDER IMP                          |  status of that one
#     warning  PATH                                what was tolerated: all there is, or - for nothing
#     sold     CODE PRICE ...                      what the ad server is sent: currency, then the price of each winner
#     nbr      NUMBER                              given with an answer in which nothing is sold
#     refused  PATH                                the request is refused, naming this field, or - for the whole
#
# A key with dots is a path, a value is JSON without blanks or else a string; lists may be written a,b. `durfloors` may
# be written 6-15=2.00,16-=3.00 and banner.format 300x250,16:9@320 (a ratio from a least width). In a format - takes
# away what it has by itself, such as 300x250. Keys of a bid are its id and members of the creative; in `adm` a blank is
# written ~. A bid without `crid` is warned of by default, which counts only where a `warning` is claimed.
#
# PAYS is what the buyer is told, in its currency. After MIN_TO_WIN may stand `clearing` (the price in the auction
# currency, where that is not PAYS), `setter`, `floor` and `id` (what is told, where that is not what was sent). OUTCOME
# is a loss reason by name; DUPLICATE is INVALID_BID with its own non-bid status, UNPLACED one on an impression that was
# not asked.

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

SCENARIOS = Path(__file__).parent / "scenarios"

OUTCOMES = {
    "WON": 0,
    "INTERNAL_ERROR": 1,
    "INVALID_BID": 3,
    "DUPLICATE": 3,
    "UNPLACED": 3,
    "INVALID_DEAL": 4,
    "MISSING_MARKUP": 7,
    "MISSING_CREATIVE_ID": 8,
    "MISSING_PRICE": 9,
    "BELOW_AUCTION_FLOOR": 100,
    "BELOW_DEAL_FLOOR": 101,
    "LOST_TO_HIGHER_BID": 102,
    "LOST_TO_DEAL": 103,
    "SEAT_BLOCKED": 104,
    "CREATIVE_FILTERED": 200,
    "CREATIVE_DISAPPROVED": 202,
    "WRONG_SIZE": 203,
    "WRONG_FORMAT": 204,
    "ADVERTISER_BLOCKED": 205,
    "NOT_SECURE": 207,
    "WRONG_LANGUAGE": 208,
    "CATEGORY_BLOCKED": 209,
    "ATTRIBUTE_BLOCKED": 210,
    "NOT_IN_DEAL": 213,
    "APP_BLOCKED": 215,
}
ACCEPTED = ("WON", "LOST_TO_HIGHER_BID", "LOST_TO_DEAL")

STATUSES = {
    "NO_BID": 0,
    "INSUFFICIENT_TIME": 15,
    "TIMEOUT": 101,
    "INVALID_RESPONSE": 102,
    "UNREACHABLE": 103,
    "MEDIA_TYPE": 202,
    "REJECTED": 300,
    "BELOW_FLOOR": 301,
    "DUPLICATE": 302,
    "BELOW_DEAL_FLOOR": 304,
    "INVALID_CREATIVE": 350,
    "WRONG_SIZE": 351,
    "NOT_SECURE": 352,
    "WRONG_FORMAT": 353,
    "ADVERTISER_BLOCKED": 356,
    "CATEGORY_BLOCKED": 357,
}
# The outcomes that the publisher learns of by another name, or only as REJECTED.
REJECTED_AS = {
    "BELOW_AUCTION_FLOOR": "BELOW_FLOOR",
    "CREATIVE_DISAPPROVED": "INVALID_CREATIVE",
    **{
        name: name
        for name in (
            "BELOW_DEAL_FLOOR", "DUPLICATE", "WRONG_SIZE", "NOT_SECURE", "WRONG_FORMAT", "ADVERTISER_BLOCKED",
            "CATEGORY_BLOCKED",
        )
    },
}  # fmt: skip

MEDIA: dict[str, Json] = {
    "banner": {"w": 300, "h": 250},
    "video": {"mimes": ["video/mp4"]},
    "audio": {"mimes": ["audio/mp4"]},
    "native": {"request": "{}"},
}
LISTS = (
    "cur", "wseat", "bseat", "media", "seats", "blocked_creatives", "badv", "bcat", "bapp", "wlang", "wlangb",
    "wadomain", "adomain", "cat",
)  # fmt: skip
NUMBERS = ("attr", "battr", "rqddurs")
TEXTS = ("adm", "nurl", "crid", "bundle", "language", "langb", "tagid", "currency", "default", "floor_min", "skip_rate")
CREATIVE = (
    "adm", "nurl", "adomain", "cat", "cattax", "attr", "crid", "bundle", "w", "h", "mtype", "dur", "language", "langb",
)  # fmt: skip
# Amounts stay text, which is how a decimal is read exactly.
AMOUNTS = ("increment", "min_price", "max_cpm", "soft_floor")


@dataclass
class ExpectedBid:
    """What must become of one bid: `pays` and the optional three only of a winner, `min_to_win` None for none."""

    bidder: str
    seat: str
    id: str
    imp: str
    outcome: str
    pays: str | None
    min_to_win: str | None
    clearing: str | None
    setter: str | None
    floor: str | None


@dataclass
class Scenario:
    """A case as `auction explain` takes it, and what must come of it. `refused`: the path of the field at fault."""

    name: str
    case: Json
    bids: list[ExpectedBid] = field(default_factory=list)
    non_bids: list[tuple[str, str | None, str, str | None, int]] = field(default_factory=list)
    warnings: set[str] | None = None
    nbr: int | None = None
    refused: str | None = None
    sold: tuple[str, list[str | None]] | None = None

    def faults(self, answer: Json) -> list[str]:
        """Compare an answer of the public shape with what is expected; each difference is one line."""
        if self.refused is not None or "error" in answer:
            return list(_differ("refused", self.refused, answer.get("error", {}).get("path")))
        return list(self._faults(answer))

    def _faults(self, answer: Json) -> Iterator[str]:
        told: dict[tuple[str, str, str, str], list[Json]] = {}
        for where, bid in [(imp["id"], b) for imp in answer["imp"] for b in imp["bids"]] + [
            ("", b) for b in answer["unplaced"]
        ]:
            told.setdefault((where, bid["bidder"], bid["seat"], bid["id"]), []).append(bid)
        winners = {(imp["id"], w["bidder"], w["seat"], w["bid"]): w for imp in answer["imp"] for w in imp["winners"]}
        for expected in self.bids:
            key = ("" if expected.outcome == "UNPLACED" else expected.imp, expected.bidder, expected.seat, expected.id)
            what = f"{expected.bidder} {expected.id}"
            if not told.get(key):
                yield f"{what}: expected on impression {key[0]!r}, is not there"
                continue
            was = told[key].pop(0)  # bids that share a name are told in the order sent
            yield from _differ(f"{what} loss_reason", OUTCOMES[expected.outcome], was["loss_reason"])
            yield from _differ(f"{what} min_to_win", expected.min_to_win, was["min_to_win"])
            if expected.floor is not None:
                yield from _differ(f"{what} floor", expected.floor, was["floor"])
            if expected.outcome == "WON" and key in winners:
                winner = winners.pop(key)
                yield from _differ(f"{what} pays", expected.pays, winner["pays"])
                yield from _differ(
                    f"{what} clearing_price", expected.clearing or expected.pays, winner["clearing_price"]
                )
                if expected.setter is not None:
                    yield from _differ(f"{what} price_setter", expected.setter, winner["price_setter"])
        yield from _differ("bids nobody expected", [], [bid for bids in told.values() for bid in bids])
        yield from _differ("winners nobody expected", [], list(winners))
        non_bids = sorted(map(repr, self.non_bids))
        were = sorted(
            repr(tuple(n[key] for key in ("bidder", "seat", "imp", "bid", "status"))) for n in answer["non_bids"]
        )
        yield from _differ("non_bids", non_bids, were)
        if self.warnings is not None:
            tolerated = {warning["path"] for warning in answer["warnings"]}
            yield from _differ("warnings", sorted(self.warnings), sorted(tolerated))
        yield from _differ("nbr", self.nbr, answer["nbr"])
        if self.sold is not None:
            response = answer["response"]
            prices = [_amount(f"{bid['price']}") for seatbid in response.get("seatbid", []) for bid in seatbid["bid"]]
            yield from _differ("sold", self.sold, (response.get("cur"), prices))


def _differ(what: str, expected: object, was: object) -> Iterator[str]:
    if expected != was:
        yield f"{what}: expected {expected}, was {was}"


def scenarios() -> list[Path]:
    """Give every scenario, in the order of names."""
    return sorted(SCENARIOS.glob("*.txt"))


def read(path: Path) -> Scenario:
    """Read a scenario; ValueError names the line that makes no sense."""
    reader = _Reader(path.stem)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            before, after = words[1:], []
            if "|" in before:
                bar = before.index("|")
                before, after = before[:bar], before[bar + 1 :]
            rows = {
                "rules": reader.rules,
                "limits": reader.limits,
                "fx": reader.fx,
                "floors": reader.floors,
                "model": reader.model,
                "floor": reader.floor,
                "adjust": reader.adjust,
                "bidder": reader.bidder,
                "request": reader.request,
                "imp": reader.imp,
                "deal": reader.deal,
                "bid": reader.bid,
                "reply": reader.reply,
                "nonbid": reader.nonbid,
                "warning": reader.warning,
                "sold": reader.sold,
                "nbr": reader.nbr,
                "refused": reader.refused,
            }
            rows[words[0]](before, after)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ValueError(f"{path.name}:{number}: {line.strip()}: {error!r}") from error
    return reader.finished()


class _Reader:
    def __init__(self, name: str) -> None:
        self.case: Json = {"request": {"id": "auc-0", "imp": []}, "replies": []}
        self.scenario = Scenario(name, self.case)
        self.imps: dict[str, Json] = {}
        self.statuses: dict[tuple[str, str], int] = {}
        self.status_of: dict[str, int] = {}
        self.ids = itertools.count(1)

    def rules(self, words: list[str], _: list[str]) -> None:
        for key, text in _pairs(words):
            if key == "at":
                self.case["request"]["at"] = json.loads(text)
            elif key == "increment" and ":" in text:
                listed = dict(pair.split(":") for pair in text.split(","))
                self.case.setdefault("exchange", {})["increment"] = listed
            else:
                value = text if key in (*AMOUNTS, "tie_key") else _value(text)
                self.case.setdefault("exchange", {})[key] = value

    def limits(self, words: list[str], _: list[str]) -> None:
        self.case["limits"] = {key: int(text) for key, text in _pairs(words)}

    def fx(self, words: list[str], _: list[str]) -> None:
        self.case["fx"] = dict(_pairs(words))

    def floors(self, words: list[str], _: list[str]) -> None:
        for key, text in _pairs(words):
            _put(self.case.setdefault("floors", {}), key, text)

    def model(self, words: list[str], _: list[str]) -> None:
        model: Json = {"name": words[0], "rules": []}
        for key, text in _pairs(words[1:]):
            _put(model, key, text)
        self.case.setdefault("floors", {}).setdefault("models", []).append(model)

    def floor(self, words: list[str], _: list[str]) -> None:
        rule = dict(_pairs(words))
        rule["floor"] = rule.pop("cpm")
        floors = self.case.setdefault("floors", {})
        (floors["models"][-1] if "models" in floors else floors).setdefault("rules", []).append(rule)

    def adjust(self, words: list[str], _: list[str]) -> None:
        self.case.setdefault("exchange", {}).setdefault("bid_adjustments", []).append(dict(_pairs(words)))

    def bidder(self, words: list[str], _: list[str]) -> None:
        entry: Json = {"name": words[0]}
        for key, text in _pairs(words[1:]):
            _put(entry, key, text)
        self.case.setdefault("bidders", []).append(entry)

    def request(self, words: list[str], _: list[str]) -> None:
        for key, text in _pairs(words):
            if text == "-":
                del self.case["request"][key]
            else:
                _put(self.case["request"], key, text)

    def imp(self, words: list[str], _: list[str]) -> None:
        imp: Json = {} if words[0] == "-" else {"id": words[0]}
        media = ["banner"]
        for key, text in _pairs(words[1:]):
            if key == "media":
                media = [] if text == "-" else text.split(",")
            elif key == "private":
                imp.setdefault("pmp", {})["private_auction"] = int(text)
                imp["pmp"].setdefault("deals", [])
            else:
                _put(imp, {"floor": "bidfloor", "cur": "bidfloorcur"}.get(key, key), text)
        for medium in media:
            members = {**MEDIA[medium], **imp.get(medium, {})}
            imp[medium] = {key: value for key, value in members.items() if value != "-"}
        self.case["request"]["imp"].append(imp)
        self.imps[words[0]] = imp

    def deal(self, words: list[str], _: list[str]) -> None:
        deal: Json = {} if words[1] == "-" else {"id": words[1]}
        for key, text in _pairs(words[2:]):
            _put(deal, {"floor": "bidfloor", "cur": "bidfloorcur"}.get(key, key), text)
        self.imps[words[0]].setdefault("pmp", {}).setdefault("deals", []).append(deal)

    def bid(self, words: list[str], after: list[str]) -> None:
        bidder, seat, imp, price, deal = words[:5]
        options = {"id": f"b{next(self.ids)}", **dict(_pairs(words[5:]))}
        bid: Json = {"id": options["id"], "impid": imp, "price": price, "dealid": deal}
        if price != "-":
            # JSON has no word for these; a case writes them as strings.
            bid["price"] = price if price in ("NaN", "Infinity", "-Infinity", "-0.0") else json.loads(price)
        bid = {key: value for key, value in bid.items() if value != "-"}
        del options["id"]
        for key, text in options.items():
            assert key in CREATIVE, key
            _put(bid, key, text)
        reply = self.replied(bidder, "BID")
        seatbids = reply["body"].setdefault("seatbid", [])
        if not seatbids or seatbids[-1].get("seat", "-") != seat:
            seatbids.append({"bid": []} if seat == "-" else {"seat": seat, "bid": []})
        seatbids[-1]["bid"].append(bid)
        if after == ["IGNORED"]:
            return
        outcome, pays, least = after[:3]
        assert outcome in OUTCOMES, outcome
        more = dict(_pairs(after[3:]))
        told = more.pop("id", bid.get("id", ""))
        seat, id = "" if seat == "-" else seat, "" if told == "-" else told
        self.scenario.bids.append(
            ExpectedBid(
                bidder=bidder,
                seat=seat,
                id=id,
                imp=imp,
                outcome=outcome,
                pays=_amount(pays),
                min_to_win=_amount(least),
                clearing=_amount(more.pop("clearing", "-")),
                setter=more.pop("setter", None),
                floor=_amount(more.pop("floor", "-")),
            )
        )
        assert not more, more
        if outcome not in ACCEPTED:
            status = STATUSES[REJECTED_AS.get(outcome, "REJECTED")]
            self.scenario.non_bids.append((bidder, seat, bid.get("impid", ""), id, status))

    def reply(self, words: list[str], after: list[str]) -> None:
        reply = self.replied(words[0], words[1])
        for key, text in _pairs(words[2:]):
            if key == "body":
                reply["body"] = json.loads(text)
            elif text == "-":
                reply["body"].pop(key, None)
            else:
                reply["body"][key] = _value(text)
        if after:
            self.status_of[words[0]] = _status(after[0])

    def nonbid(self, words: list[str], after: list[str]) -> None:
        self.statuses[words[0], words[1]] = _status(after[0])

    def warning(self, words: list[str], _: list[str]) -> None:
        warnings = self.scenario.warnings = self.scenario.warnings or set()
        if words[0] != "-":
            warnings.add(words[0])

    def nbr(self, words: list[str], _: list[str]) -> None:
        self.scenario.nbr = int(words[0])

    def refused(self, words: list[str], _: list[str]) -> None:
        self.scenario.refused = "" if words[0] == "-" else words[0]

    def sold(self, words: list[str], _: list[str]) -> None:
        self.scenario.sold = (words[0], [_amount(price) for price in words[1:]])

    def replied(self, bidder: str, status: str) -> Json:
        for reply in self.case["replies"]:
            if reply["bidder"] == bidder:
                assert isinstance(reply, dict)
                return reply
        reply = {"bidder": bidder, "status": status}
        if status == "BID":
            reply["body"] = {"id": self.case["request"].get("id")}
        self.case["replies"].append(reply)
        return reply

    def finished(self) -> Scenario:
        """Add the statuses that need no saying: of a bidder that answered and has no bid on an impression."""
        names = [entry["name"] for entry in self.case.get("bidders", [])]
        names += [reply["bidder"] for reply in self.case["replies"] if reply["bidder"] not in names]
        with_bid = {(bid.bidder, bid.imp) for bid in self.scenario.bids if bid.outcome != "UNPLACED"}
        for name in names:
            for imp in self.imps:
                if (name, imp) not in with_bid:
                    status = self.statuses.get((name, imp), self.status_of.get(name, STATUSES["NO_BID"]))
                    self.scenario.non_bids.append((name, None, imp, None, status))
        return self.scenario


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    if len(words) % 2:
        raise ValueError(f"expected pairs of key and value, were {' '.join(words)}")
    return zip(words[::2], words[1::2], strict=True)


def _status(name: str) -> int:
    return STATUSES[name] if name in STATUSES else int(name)


def _amount(text: str) -> str | None:
    """Write an amount as answers do, without trailing zeros."""
    if text == "-":
        return None
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _put(members: Json, path: str, text: str) -> None:
    """Set a member by its path; names that hold lists in the standard may be written a,b."""
    *parents, last = path.split(".")
    for parent in parents:
        members = members.setdefault(parent, {})
    members[last] = _member(last, text)


def _member(name: str, text: str) -> Any:
    if name in TEXTS:
        return text.replace("~", " ") if name == "adm" else text
    if text.startswith("["):
        return _value(text)
    if name in LISTS:
        return text.split(",")
    if name in NUMBERS:
        return [int(number) for number in text.split(",")]
    if name == "durfloors":
        return [_floor_by_duration(entry) for entry in text.split(",")]
    if name == "format":
        return [_size(entry) for entry in text.split(",")]
    return _value(text)


def _floor_by_duration(entry: str) -> Json:
    range, _, floor = entry.partition("=")
    least, _, most = range.partition("-")
    members = {"mindur": least, "maxdur": most, "bidfloor": floor}
    return {name: json.loads(text) for name, text in members.items() if text}


def _size(entry: str) -> Json:
    if "x" in entry:
        return dict(zip(("w", "h"), map(int, entry.split("x")), strict=True))
    ratio, _, least = entry.partition("@")
    members = dict(zip(("wratio", "hratio"), map(int, ratio.split(":")), strict=True))
    return {**members, "wmin": int(least)} if least else members

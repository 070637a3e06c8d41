# What a sender wrote sloppily but clearly: read as what it means, or refused, as the exchange is told.
#
# Of all the slips that JSON allows these are the ones that cases make: a number as text, an id as a number, a flag as
# true or false, one text for a list of one.

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .requests import Refused
from .rules import Exchange, Json

NUMBERS = ("at", "tmax", "bidfloor", "mincpmpersec", "w", "h", "minduration", "maxduration")
IDS = ("id", "impid", "dealid", "crid", "tagid")
FLAGS = ("secure", "test", "private_auction")
LISTS = ("cur", "wseat", "bseat", "badv", "bcat", "bapp", "wlang", "wlangb", "wadomain")

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def slips(members: Json, path: str = "") -> Iterator[tuple[Json, str, str, Any]]:
    """Find each slip: the object it stands in, its name there, its path, and what it means."""
    for name, value in members.items():
        where = f"{path}.{name}" if path else name
        if name in NUMBERS and isinstance(value, str) and NUMBER.fullmatch(value):
            yield members, name, where, float(value) if set(value) & set(".eE") else int(value)
        elif name in IDS and type(value) is int:
            yield members, name, where, str(value)
        elif name in FLAGS and type(value) is bool:
            yield members, name, where, int(value)
        elif name in LISTS and isinstance(value, str):
            yield members, name, where, [value]
        elif isinstance(value, dict) and name != "ext":
            yield from slips(value, where)
        elif isinstance(value, list):
            for place, element in enumerate(value):
                if isinstance(element, dict):
                    yield from slips(element, f"{where}[{place}]")


def read_request(request: Json, exchange: Exchange) -> list[str]:
    """Put the request right, in place, and give the path of each slip; strict, the first one refuses the request."""
    paths = []
    for members, name, path, meant in list(slips(request)):
        if exchange.json == "strict":
            raise Refused(path)
        members[name] = meant
        paths.append(path)
    return paths


def read_bids(body: Json, exchange: Exchange) -> None:
    """Put the bids of a reply right, in place; strict, a slip costs the bid it stands in its id, and so the bid."""
    for seatbid in body.get("seatbid") or []:
        for bid in seatbid.get("bid") or []:
            found = [slip for slip in slips(bid) if slip[0] is bid and slip[1] in (*IDS, *NUMBERS)]
            for _, name, _, meant in found:
                bid[name] = meant
            if found and exchange.json == "strict":
                del bid["id"]

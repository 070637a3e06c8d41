# What a sender wrote sloppily but clearly: read as what it means, or refused, as the exchange is told.
#
# Of all the slips that JSON allows these are the ones that cases make: a number as text, an id as a number, a flag as
# true or false, one text for a list of one.

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
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


def read_request(request: Json, exchange: Exchange) -> tuple[Json, list[str]]:
    """Give the request as it is meant, and the path of each slip; strict, the first one refuses the request."""
    paths = [path for _, _, path, _ in slips(request)]
    if paths and exchange.json == "strict":
        raise Refused(paths[0])
    return put_right(request) if paths else request, paths


def read_bid(bid: Json, exchange: Exchange) -> Json:
    """Give a bid as it is meant; strict, a slip costs it its id, and so itself."""
    if not any(slips(bid)):
        return bid
    bid = put_right(bid)
    if exchange.json == "strict":
        del bid["id"]
    return bid


def put_right(value: Json) -> Json:
    value = deepcopy(value)
    for members, name, _, meant in list(slips(value)):
        members[name] = meant
    return value

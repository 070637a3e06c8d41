# Mutations of bodies: of their bytes, of a JSON value in place, and of a message field by field.
#
# A mutation of bytes finds what parsers trip over; few of the bodies it makes are still bodies. The other two keep the
# form and change what it says, so that they come as far as the rules.

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz import wire
from tests.fuzz.auctions import PRICES, pick, seldom

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 5, -1, -0.0, 0.5, 1e-7, 1e9, 1e308, 10**9 + 1, 2**31 - 1, 2**31, 2**32, 2**63, 2**64,
    10**400, -(2**31) - 1, "", " ", "0", "1", "1.5", "-1", "NaN", "Infinity", "1e3", "true", "null", "USD", "usd",
    "JPY", "XXX", "EUR", "é", "\0", "\ud83d\ude00", "ford.com", "[1]", [], {}, [None], [[]], [{}], {"": None},
    {"id": "1"}, ["USD"], ["a", "a"], [1, "2"], [-1], "x" * 300,
)  # fmt: skip
# Members that mean something somewhere, put where they may not.
MEMBERS = (
    "id", "imp", "at", "tmax", "cur", "bidfloor", "bidfloorcur", "banner", "video", "audio", "native", "pmp",
    "deals", "private_auction", "wseat", "bseat", "badv", "bcat", "cattax", "bapp", "wlang", "wlangb", "battr",
    "secure", "w", "h", "format", "wratio", "hratio", "wmin", "minduration", "maxduration", "rqddurs", "poddur",
    "durfloors", "mindur", "maxdur", "mincpmpersec", "wadomain", "site", "app", "dooh", "device", "user", "ext",
    "test", "seatbid", "bid", "seat", "price", "impid", "dealid", "adm", "nurl", "crid", "adomain", "cat", "attr",
    "mtype", "dur", "language", "langb", "bundle", "group", "nbr", "bidid", "tagid",
)  # fmt: skip
# What is deeper than any reader goes.
DEPTHS = (8, 31, 33, 99, 101, 2000)


def of_bytes(r: Random, body: bytes, others: list[bytes]) -> bytes:
    """Change a few places of a body, or take a part of another."""
    made = bytearray(body)
    for _ in range(pick(r, (1, 1, 2, 3, 8))):
        at = r.randint(0, len(made))
        size = pick(r, (1, 1, 1, 2, 4, r.randint(0, 64)))
        match r.randrange(8):
            case 0 if at < len(made):
                made[at] ^= 1 << r.randrange(8)
            case 1 if at < len(made):
                made[at] = pick(r, (0, 1, 10, 32, 34, 44, 91, 92, 123, 125, 127, 128, 255))
            case 2:
                del made[at : at + size]
            case 3:
                made[at:at] = r.randbytes(size)
            case 4:
                start = r.randint(0, len(made))
                made[at:at] = made[start : start + size]
            case 5:
                other = pick(r, others)
                start = r.randint(0, len(other))
                made[at : at + size] = other[start : start + size]
            case 6 if seldom(r, 3):
                del made[at:]
            case _:
                made[at : at + size] = wire.varint(pick(r, (0, 1, 127, 128, 2**31, 2**32, 2**63, -1)))
    return bytes(made)


def of_json(r: Random, body: bytes) -> bytes:
    """Change a few values of a JSON body, or give it back where it is none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body
    for _ in range(pick(r, (1, 1, 1, 2, 3))):
        value = _changed(r, value)
    text = json.dumps(value, ensure_ascii=seldom(r, 2))
    return text.encode(errors="replace")


def _changed(r: Random, value: Any) -> Any:
    """Change one place of a value, the deeper the likelier; what is given stays what it was."""
    if isinstance(value, dict) and value and not seldom(r, 8):
        made = dict(value)
        name = pick(r, list(made))
        match r.randrange(12):
            case 0:
                del made[name]
            case 1:
                made[pick(r, MEMBERS)] = made.pop(name)
            case 2:
                made[pick(r, MEMBERS)] = _odd(r)
            case 3:
                made[name] = made[pick(r, list(made))]
            case _:
                made[name] = _changed(r, made[name])
        return made
    if isinstance(value, list) and value and not seldom(r, 8):
        listed = list(value)
        at = r.randrange(len(listed))
        match r.randrange(10):
            case 0:
                del listed[at]
            case 1:
                listed.insert(at, listed[r.randrange(len(listed))])
            case 2 if seldom(r, 4):
                listed = listed * pick(r, (2, 40, 70))
            case 3:
                listed.append(_odd(r))
            case _:
                listed[at] = _changed(r, listed[at])
        return listed
    if isinstance(value, float | int) and not isinstance(value, bool) and seldom(r, 2):
        return pick(r, (value + 1, value - 1, -value, value * 2, str(value), float(value) if abs(value) < 2**63 else 0))
    if isinstance(value, str) and seldom(r, 2):
        return pick(r, (value.upper(), value + " ", value[:-1], value + ".", value * 2, f"www.{value}"))
    return _odd(r)


def _odd(r: Random) -> Any:
    if seldom(r, 60):
        nested: Any = 1
        for _ in range(pick(r, DEPTHS) % 500):
            nested = {"ext": nested} if seldom(r, 2) else [nested]
        return nested
    return pick(r, ODD) if not seldom(r, 6) else pick(r, PRICES)


Fields = list[tuple[int, int, bytes]]


def fields(body: bytes) -> Fields | None:
    """Split a message into its fields: number, wire type and the bytes behind the tag; None for what is none.

    Groups are left whole to whoever wrote them: a message with one counts as none.
    """
    found: Fields = []
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        if at < 0:
            return None
        number, wire_type = tag >> 3, tag & 7
        start = at
        if wire_type == wire.VARINT:
            _, at = _varint(body, at)
        elif wire_type == wire.LEN:
            size, at = _varint(body, at)
            at = at + size if at >= 0 else at
        elif wire_type in (wire.I64, wire.I32):
            at += 8 if wire_type == wire.I64 else 4
        else:
            return None
        if not number or at < 0 or at > len(body):
            return None
        found.append((number, wire_type, body[start:at]))
    return found


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while at < len(body) and shift < 70:
        number |= (body[at] & 127) << shift
        if body[at] < 128:
            return number, at + 1
        at, shift = at + 1, shift + 7
    return 0, -1


def of_message(r: Random, body: bytes) -> bytes:
    """Change a field or two of a message, at any depth; what is no message is changed byte by byte."""
    for _ in range(pick(r, (1, 1, 1, 2, 3))):
        body = _of_message(r, body)
    return body


def _of_message(r: Random, body: bytes) -> bytes:
    found = fields(body)
    if not found:
        return of_bytes(r, body, [body or b"\0"])
    at = r.randrange(len(found))
    number, wire_type, value = found[at]
    if wire_type == wire.LEN and not seldom(r, 4):
        _, start = _varint(value, 0)
        inner = value[start:]
        # Text may well look like a message; what does is changed as one, and now and then that is what breaks it.
        found[at] = (number, wire_type, wire.text(1, _of_message(r, inner) if fields(inner) else _text(r, inner))[1:])
        return _joined(found)
    match r.randrange(10):
        case 0:
            del found[at]
        case 1:
            found.insert(r.randint(0, len(found)), found[at])
        case 2:
            r.shuffle(found)
        case 3:
            found[at] = (pick(r, (number + 1, number - 1 or 1, r.randint(1, 120), 536_870_911)), wire_type, value)
        case 4:
            return _joined(found[:at]) + wire.group(pick(r, (number, 60)), _joined(found[at:])) + _joined(found[:at])
        case 5:
            return _joined(found[:at]) + wire.key(number, wire_type, r.randint(1, 5)) + value + _joined(found[at + 1 :])
        case 6:
            return _joined(found[:at]) + r.randbytes(r.randint(1, 3)) + _joined(found[at:])
        case 7 if seldom(r, 4):
            found[at:at] = [found[at]] * pick(r, (3, 70, 101))
        case _:
            found[at] = _revalued(r, number, wire_type)
    return _joined(found)


def _revalued(r: Random, number: int, wire_type: int) -> tuple[int, int, bytes]:
    if seldom(r, 5):
        wire_type = pick(r, (wire.VARINT, wire.I64, wire.LEN, wire.I32))
    if wire_type == wire.VARINT:
        odd = (0, 1, 2, 3, 4, 5, 6, -1, 300, 2**31 - 1, 2**31, 2**32 + 1, -(2**31), 2**63)
        return number, wire_type, wire.varint(pick(r, odd), pick(r, (0, 0, 0, 1, 4)))
    if wire_type == wire.I64:
        return number, wire_type, wire.double(1, pick(r, PRICES))[1:]
    if wire_type == wire.I32:
        return number, wire_type, r.randbytes(4)
    return (
        number,
        wire_type,
        wire.text(1, pick(r, (b"", b"\x80", b"\x08\x01", "é".encode(), b"1", r.randbytes(3))))[1:],
    )


def _text(r: Random, inner: bytes) -> bytes:
    options = (inner[:-1], inner + b".", inner.upper(), b"", b"www." + inner, inner * 2, b"\xff" + inner, b"USD", b"1")
    return pick(r, options)


def _joined(found: Fields) -> bytes:
    return b"".join(wire.key(number, wire_type) + value for number, wire_type, value in found)

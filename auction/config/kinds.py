# What one value may be: a money amount, a currency, an address, a header. Each is read once, checked, and from there on
# what its type says; each knows its JSON Schema, and how it is written where people may see it.
#
# Amounts are read as exact decimals, never through a double, and are micros from here on. Headers and the query of a
# URL may carry secrets: nothing here writes them, nor quotes them in a fault.

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from auction.config.faults import Unfit, shown
from auction.model import money
from auction.model.currencies import ISO_4217
from auction.model.money import CpmMicros
from auction.model.rules import Medium

# Ten digits before the point and six after it are an amount, eighteen a rate; more is noise. It also keeps a product
# with a million within the 28 digits that a Decimal is exact to.
DIGITS_MAX = 20
# A thousand times the weakest currency on the list, in units per US dollar.
RATE_MAX = 1_000_000_000
# A name becomes a label of a time series and a column of a table.
NAME_CHARS_MAX = 64
# The longest name that DNS takes, and about the longest path and URL that everything else does.
HOST_CHARS_MAX, TEXT_CHARS_MAX = 253, 1024
# HTTP servers commonly refuse headers of more than 8 KiB in all.
HEADERS_MAX, HEADER_CHARS_MAX = 16, 4096

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
# What gRPC allows in the name of metadata; HTTP would allow a little more.
_HEADER = re.compile(r"[0-9a-z_.-]+")
# The transport writes these itself; one of ours beside them would break the message or the connection.
_TRANSPORT_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host", "keep-alive"}
    | {"te", "trailer", "transfer-encoding", "upgrade", "user-agent"}
)
HIDDEN = "***"
# A bid that counts ten times what it says is a mistake.
MULTIPLIER_MAX = 10
# What a floor rule may write for a key that it leaves open.
ANY = "*"

_SIZE = re.compile("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")
_COUNTRY = re.compile("[A-Za-z]{3}")
_DEVICE = re.compile("[1-9][0-9]?")


def _exact(value: object) -> Decimal:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Unfit(f"expected a decimal, was {shown(value)}")
    exact = Decimal(value)
    if not exact.is_finite():
        raise Unfit(f"expected a decimal, was {shown(value)}")
    _, digits, exponent = exact.as_tuple()
    if len(digits) > DIGITS_MAX or abs(int(exponent)) > DIGITS_MAX:
        raise Unfit(f"expected at most {DIGITS_MAX} digits, was {shown(value)}")
    return exact


def _amount(value: object) -> CpmMicros:
    return money.decimal_micros(_exact(value))


def _multiplier(value: object) -> str:
    exact = _exact(value)
    if not 0 < exact <= MULTIPLIER_MAX:
        raise Unfit(f"expected more than 0, at most {MULTIPLIER_MAX}, was {exact:f}")
    return plain_text(exact)


def _share(value: object) -> str:
    exact = _exact(value)
    if not 0 <= exact <= 1:
        raise Unfit(f"expected 0 to 1, was {exact:f}")
    return plain_text(exact)


def plain_text(exact: Decimal) -> str:
    """Write a decimal so that equal ones are equal text: no exponent, no zeros at the end."""
    text = f"{exact:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _any(value: object) -> object:
    """Read what a key of a floor rule says when it says nothing."""
    return None if value == ANY else value


def _size(size: str) -> str:
    if _SIZE.fullmatch(size):
        return size
    raise Unfit(f"expected a size such as 300x250, was {shown(size)}")


def _domain(domain: str) -> str:
    if folded := domain.lower().removesuffix("."):
        return folded
    raise Unfit(f"expected a domain, was {shown(domain)}")


def _country(country: str) -> str:
    if _COUNTRY.fullmatch(country):
        return country.upper()
    raise Unfit(f"expected three letters of ISO 3166, was {shown(country)}")


def _device_type(value: object) -> object:
    """Take the number of a device type, written as a number or as text."""
    return str(value) if type(value) is int else value


def _device(number: str) -> str:
    if _DEVICE.fullmatch(number):
        return number
    raise Unfit(f"expected the number of a device type, was {shown(number)}")


def _rate(value: object) -> str:
    exact = _exact(value)
    if not 0 < exact <= RATE_MAX:
        raise Unfit(f"expected more than 0, at most {RATE_MAX}, was {exact:f}")
    return plain_text(exact)


def _currency(code: str) -> str:
    if code in ISO_4217:
        return code
    raise Unfit(f"expected an ISO 4217 code, was {shown(code)}", code.upper() if code.upper() in ISO_4217 else "")


def _name(name: str) -> str:
    if name.isprintable() and name == name.strip():
        return name
    raise Unfit(f"expected a name that prints, without space around it, was {shown(name)}")


def _time(time: str) -> str:
    try:
        if time:
            datetime.fromisoformat(time)
    except ValueError as refused:
        raise Unfit(f"expected a time such as 2026-01-31T12:00:00Z, was {shown(time)}") from refused
    return time


def _host(host: str) -> str:
    if _HOST.fullmatch(host):
        return host
    raise Unfit(f"expected an address or a name to listen on, was {shown(host)}")


def _target(target: str) -> str:
    host, _, port = target.rpartition(":")
    fits = _HOST.fullmatch(host) and (":" not in host or host.startswith("["))
    if fits and re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65_535:
        return target
    raise Unfit(f"expected host:port, was {shown(target)}")


def _url(url: str) -> str:
    # The message names no part of a URL that may hold a password.
    if "@" in url or not url.isprintable() or " " in url:
        raise Unfit("expected a URL without user, password and space; secrets belong in headers")
    try:
        parts = urlsplit(url)
        fits: object = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "")
        fits = fits and parts.port != 0 and not parts.fragment
    except ValueError:
        fits = False
    if not fits:
        raise Unfit(f"expected http://host:port/path or https://host/path, was {shown(hidden_query(url))}")
    return url


def hidden_query(url: str) -> str:
    """Write a URL for people, without its query: bidders have been seen to take keys there."""
    before, mark, _ = url.partition("?")
    return before + mark + HIDDEN if mark else before


def _headers(headers: object) -> object:
    """Fold names to lower case, as gRPC demands and HTTP does not mind."""
    if not isinstance(headers, dict):
        return headers
    folded = {str(name).lower(): value for name, value in headers.items()}
    if len(folded) < len(headers):
        raise Unfit("expected each header once, was one in two spellings")
    return folded


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise Unfit(f"expected the name of a header, was {shown(name)}")
    if name in _TRANSPORT_HEADERS or name.startswith("grpc-") or name.endswith("-bin"):
        raise Unfit(f"expected a header of your own, was {name}, which the transport writes")
    return name


def _header_value(value: str) -> str:
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    raise Unfit("expected printable ASCII without space around it")


def _against_usd(rates: dict[str, str]) -> dict[str, str]:
    if rates.get("USD", "1") != "1":
        raise Unfit(f"expected USD at 1, was {rates['USD']}")
    return rates


def _key(pattern: re.Pattern[str], words: str, kind: str | list[str] = "string") -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "pattern": rf"^({pattern.pattern}|\{ANY})$", "$comment": words})


def _by_currency(amount: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "patternProperties": {"^[A-Z]{3}$": amount}, "additionalProperties": False}


_AMOUNT = {
    "type": ["number", "string"],
    "minimum": 0,
    "maximum": money.LIMIT // money.MICROS,
    "pattern": r"^[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$",
}
_RATE = {**_AMOUNT, "exclusiveMinimum": 0, "maximum": RATE_MAX}

Currency = Annotated[str, AfterValidator(_currency), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$"})]
"""A code of ISO 4217."""

Amount = Annotated[
    CpmMicros, PlainValidator(_amount), PlainSerializer(money.text, when_used="json"), WithJsonSchema(_AMOUNT)
]
"""CPM, a decimal of at most six places."""

Amounts = Annotated[dict[Currency, Amount], WithJsonSchema({"anyOf": [_by_currency(_AMOUNT), _AMOUNT]})]
"""An amount per currency; its schema allows one amount instead, which its owner must read."""

Rates = Annotated[
    dict[Currency, Annotated[str, PlainValidator(_rate)]],
    AfterValidator(_against_usd),
    WithJsonSchema(_by_currency(_RATE)),
]
"""Units per US dollar, plain decimal text."""

Time = Annotated[str, AfterValidator(_time)]
"""ISO 8601, or empty."""

Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX), AfterValidator(_name)]
"""What a bidder is called."""

Host = Annotated[str, Field(max_length=HOST_CHARS_MAX), AfterValidator(_host)]
"""An address or a name to listen on."""

Target = Annotated[str, Field(max_length=TEXT_CHARS_MAX), AfterValidator(_target)]
"""host:port, an IPv6 address in brackets."""

Url = Annotated[
    str, Field(max_length=TEXT_CHARS_MAX), AfterValidator(_url), PlainSerializer(hidden_query, when_used="json")
]
"""An http or https URL without credentials."""

Headers = Annotated[
    dict[
        Annotated[str, AfterValidator(_header_name)],
        Annotated[
            str,
            Field(max_length=HEADER_CHARS_MAX),
            AfterValidator(_header_value),
            PlainSerializer(lambda _: HIDDEN, when_used="json"),
        ],
    ],
    Field(max_length=HEADERS_MAX),
    BeforeValidator(_headers),
]
"""HTTP headers or gRPC metadata, names in lower case."""

Multiplier = Annotated[
    str, PlainValidator(_multiplier), WithJsonSchema({**_AMOUNT, "exclusiveMinimum": 0, "maximum": MULTIPLIER_MAX})
]
"""A factor, plain decimal text."""

Share = Annotated[str, PlainValidator(_share), WithJsonSchema({**_AMOUNT, "maximum": 1})]
"""A part of all, plain decimal text."""

Text = Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX)]

Texts = Annotated[tuple[Text, ...], AfterValidator(lambda texts: tuple(dict.fromkeys(texts))), Field(strict=False)]
"""Texts, each once."""

Of = TypeVar("Of")
OrAny = Annotated[Of | None, BeforeValidator(_any)]
"""A key of a floor rule; `*` is none, which the schemas of the kinds below allow."""

OnlyMedium = Annotated[
    Medium, WithJsonSchema({"anyOf": [{"type": "string", "enum": list(get_args(Medium))}, {"const": ANY}]})
]

Size = Annotated[str, AfterValidator(_size), _key(_SIZE, "a size such as 300x250")]
"""Width and height in pixels, 300x250."""

Domain = Annotated[Text, AfterValidator(_domain)]
"""Lower case, without the dot of the root."""

Country = Annotated[str, AfterValidator(_country), _key(_COUNTRY, "three letters of ISO 3166")]
"""Three letters of ISO 3166, upper case."""

DeviceType = Annotated[
    str,
    BeforeValidator(_device_type),
    AfterValidator(_device),
    _key(_DEVICE, "the number of a device type", kind=["integer", "string"]),
]
"""The number of a device type, as text."""

Media = Annotated[
    tuple[Medium, ...],
    AfterValidator(lambda media: tuple(dict.fromkeys(media))),
    Field(strict=False),
]
"""Formats, each once."""

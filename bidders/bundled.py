# The requests that travel with the package: what an ad server sends, in shape and size, for whoever needs traffic.
#
# Each auction of a run gets an id of its own. Ids break ties, name auctions in logs and steer the demo bidders, so
# sending one request a thousand times would be one auction a thousand times.

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from importlib import resources
from typing import Any

import msgspec

from auction.core.openrtb.json import request_bytes
from auction.model.currencies import ISO_4217
from auction.v1.openrtb_pb2 import BidRequest

# As the corpus tests read them.
_DEPTH = 64


class Request(msgspec.Struct, frozen=True):
    """One bundled request; `text` is as it stands in its file."""

    name: str
    text: bytes
    value: dict[str, Any]
    message: BidRequest

    def body(self, id: str, json: bool) -> bytes:
        """Write it under another id, as OpenRTB JSON or as a message."""
        if json:
            return msgspec.json.encode({**self.value, "id": id})
        named = BidRequest()
        named.CopyFrom(self.message)
        named.id = id
        return named.SerializeToString()


def bundled() -> list[Request]:
    """Read all bundled requests, in the order of their names."""
    return [
        read(file.name.removesuffix(".json"), file.read_bytes())
        for file in sorted(resources.files("bidders").joinpath("requests").iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    ]


def told_in(request: Request, currency: str, rates: Mapping[str, str]) -> Request:
    """Give a request with its floors in one currency, whole in the minor unit, that takes bids in it, USD and EUR.

    `rates` are units per USD as decimal text, with every currency that the request names.
    """
    value = msgspec.json.decode(request.text)
    per_usd = {"USD": Decimal(1), **{code: Decimal(rate) for code, rate in rates.items()}}
    unit = Decimal(1).scaleb(-ISO_4217[currency])

    def amount(given: object, source: str) -> int | float:
        told = (Decimal(str(given)) * per_usd[currency] / per_usd[source]).quantize(unit)
        return float(told) if ISO_4217[currency] else int(told)

    for imp in value["imp"]:
        deals = imp.get("pmp", {}).get("deals", [])
        for told in (imp, *deals):
            source = told.get("bidfloorcur") or "USD"
            # The floors of a format are in the currency of the impression that offers it.
            formats = [told[name] for name in ("video", "audio") if name in told]
            for priced in (told, *formats):
                rows = [row for row in priced.get("durfloors", ()) if "bidfloor" in row]
                for row, name in ((priced, "bidfloor"), (priced, "mincpmpersec"), *((row, "bidfloor") for row in rows)):
                    if name in row:
                        row[name] = amount(row[name], source)
            told["bidfloorcur"] = currency
    value["cur"] = list(dict.fromkeys((currency, "USD", "EUR")))
    return read(request.name, msgspec.json.encode(value))


def read(name: str, text: bytes) -> Request:
    """Read one request from OpenRTB JSON; InvalidRequest where it is none."""
    encoded = request_bytes(text, lenient=True, depth=_DEPTH)
    return Request(name, text, msgspec.json.decode(text), BidRequest.FromString(encoded.message))

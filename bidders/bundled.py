# The requests that travel with the package: what an ad server sends, in shape and size, for whoever needs traffic.
#
# Each auction of a run gets an id of its own. Ids break ties, name auctions in logs and steer the demo bidders, so
# sending one request a thousand times would be one auction a thousand times.

from __future__ import annotations

from importlib import resources
from typing import Any

import msgspec

from auction.core.openrtb.json import request_bytes
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


def read(name: str, text: bytes) -> Request:
    """Read one request from OpenRTB JSON; InvalidRequest where it is none."""
    encoded = request_bytes(text, lenient=True, depth=_DEPTH)
    return Request(name, text, msgspec.json.decode(text), BidRequest.FromString(encoded.message))

# What programs of others have found, `make interop` first of all: each with the least that shows it.

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2

from auction.edge.transports.descriptors import described
from auction.v1 import exchange_pb2, json_rest_pb2, openrtb_pb2

EXCHANGE = exchange_pb2.DESCRIPTOR
FILES = [module.DESCRIPTOR.serialized_pb for module in (struct_pb2, openrtb_pb2, json_rest_pb2, exchange_pb2)]


# ghz asks reflection for the method that it is to call, where grpcurl asks for the service.
@pytest.mark.parametrize("symbol", ["Exchange", "Exchange.Auction", "Explanation.id"])
def test_reflection_finds_the_file_of_services_methods_and_fields(symbol: str) -> None:
    assert EXCHANGE.name == described(FILES).FindFileContainingSymbol(f"auction.v1.{symbol}").name


@pytest.mark.parametrize("symbol", ["Exchange.Bid", "Nobody.Auction", "Explanation.Auction"])
def test_reflection_finds_no_file_for_what_is_not_declared(symbol: str) -> None:
    with pytest.raises(KeyError):
        described(FILES).FindFileContainingSymbol(f"auction.v1.{symbol}")

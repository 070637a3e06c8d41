# An ad server that calls an exchange, in plain grpcio.
#
# Nothing here comes from the exchange but its two proto files; the package auction.v1 is generated from them, by the
# commands in ../README.md. It refuses to retry: an auction that missed its moment has no buyer any more.

import sys

import grpc

from auction.v1 import exchange_pb2, exchange_pb2_grpc, openrtb_pb2

# Seconds for the whole call. The exchange asks its bidders for no longer than what is left of it. Two are generous, for
# a first call that has to connect; an ad server gives what its page can wait.
PATIENCE_S = 2.0


def main(target: str = "127.0.0.1:7400") -> int:
    # One channel for the life of the process: opening one costs more than an auction.
    with grpc.insecure_channel(target) as channel:
        exchange = exchange_pb2_grpc.ExchangeStub(channel)
        try:
            # Waiting for the connection is part of the patience; without it a first call could come too early.
            response = exchange.Auction(
                request(), timeout=PATIENCE_S, metadata=(("x-auction-explain", "1"),), wait_for_ready=True
            )
        except grpc.RpcError as error:
            # INVALID_ARGUMENT names the field at fault; RESOURCE_EXHAUSTED means fewer at once.
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    show(response)
    return 0


def request() -> openrtb_pb2.BidRequest:
    message = openrtb_pb2.BidRequest(id="hello", cur=["USD"])
    message.imp.add(id="1", banner={"w": 300, "h": 250}, bidfloor=0.5)
    message.imp.add(id="2", video={"mimes": ["video/mp4"], "maxduration": 30}, bidfloor=1000)
    message.site.domain = "news.example"
    return message


def show(response: openrtb_pb2.BidResponse) -> None:
    for seatbid in response.seatbid:
        for bid in seatbid.bid:
            print(f"imp {bid.impid} sold to seat {seatbid.seat} at {bid.price:g} {response.cur}")
    if response.HasField("nbr"):
        print(f"nothing sold: {response.nbr}")
    if not response.ext.HasExtension(exchange_pb2.Explanation.auction):
        return  # An exchange may be set never to explain.
    explanation = response.ext.Extensions[exchange_pb2.Explanation.auction]
    print(f"auction {explanation.id}")
    for imp in explanation.imp:
        for bid in imp.bid:
            fate = f"lost for reason {bid.loss_reason}"
            if bid.loss_reason == 0:
                fate = f"won at {amount(bid.clearing_price_cpm_micros)}, set by {bid.price_setter}"
            print(f"imp {imp.id}: {bid.bidder} bid {bid.price:g} {bid.currency}, {fate}")


def amount(micros: int) -> str:
    """Write integer micros: an explanation has no others, so that nothing is lost on the way."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

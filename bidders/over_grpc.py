# A bidder over gRPC: bytes in, an answer looked up, a wait, bytes out.
#
# Its own few lines on grpc.aio rather than the exchange's transport, on purpose: a counterpart that shared the code
# under test would share its faults. Handlers take and give raw bytes, so the time spent here is gRPC's.

from __future__ import annotations

import asyncio

import grpc

from auction.model.auction import Encoding
from auction.v1.bidder_pb2 import NoticeReceipt
from bidders.answers import PROMPT_S, NotARequest, answer
from bidders.settings import Fault, Settings

# Enough for ENORMOUS answers, and for requests above what the exchange takes.
_MESSAGE_BYTES_MAX = 8 * 1024 * 1024

_OPTIONS = (
    # Two bidders on one port are a mistake, not a pool.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
)

_RECEIPT = NoticeReceipt().SerializeToString()

Context = grpc.aio.ServicerContext[bytes, bytes]


async def listen(settings: Settings, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """Serve auction.v1.Bidder; give the server and the port it got. OSError where that is impossible."""

    async def bid(body: bytes, context: Context) -> bytes:
        try:
            told = answer(settings, body, Encoding.PROTOBUF)
        except NotARequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if told.delay_s > PROMPT_S:
            await asyncio.sleep(told.delay_s)
        if told.fault in _CODES:
            await context.abort(_CODES[told.fault], told.fault.value)
        return told.body[: len(told.body) // 2] if told.fault is Fault.HALF else told.body

    async def notify(body: bytes, context: Context) -> bytes:
        return _RECEIPT

    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Bid": grpc.unary_unary_rpc_method_handler(bid),
        "Notify": grpc.unary_unary_rpc_method_handler(notify),
    }
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("auction.v1.Bidder", methods),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}:{port}") from error
    await server.start()
    return server, bound


_CODES = {
    Fault.REFUSE: grpc.StatusCode.UNAVAILABLE,
    Fault.RESET: grpc.StatusCode.ABORTED,
    Fault.WRONG_TYPE: grpc.StatusCode.INTERNAL,
}

"""HTTP/1.1 over asyncio: a pool of kept connections to one server, and a listener, both around parsers without I/O.

pool = Pool(address("http://127.0.0.1:8080/echo"), Limits(body_bytes=65_536), connections_max=8)
head = request_head("POST", address("http://127.0.0.1:8080/echo"), [("content-type", "text/plain")])
cancel = pool.ask(head, b"hello", print)
"""
# It knows nothing of auctions. A connection without I/O takes bytes and gives what they complete (client.py,
# server.py); what waits, writes and times out is around it (pool.py, listener.py and
# conversation.py).
#
# Unsupported on purpose: redirects, cookies, proxies, trailers, upgrades, transfer codings but chunked, streaming of
# bodies in either direction, CONNECT, and pipelining towards servers.

from auction.edge.wire.http1.conversation import Application, Patience
from auction.edge.wire.http1.errors import Failure, Fault, Refused
from auction.edge.wire.http1.listener import Listener
from auction.edge.wire.http1.messages import Address, Answer, Fields, Limits, Request, Response, address, request_head
from auction.edge.wire.http1.pool import Pool, fetch

__all__ = [
    "Address",
    "Answer",
    "Application",
    "Failure",
    "Fault",
    "Fields",
    "Limits",
    "Listener",
    "Patience",
    "Pool",
    "Refused",
    "Request",
    "Response",
    "address",
    "fetch",
    "request_head",
]

# A server behind TLS that may speak HTTP/2 or HTTP/1.1, and another tomorrow: each of its connections agrees on one of
# them (RFC 7301). A channel connects first. What agrees on HTTP/1.1 is handed to a pool, which from then on connects
# when it is needed, and hands back what agrees on HTTP/2. So no handshake is lost, also where servers of both kinds
# stand behind one address while they are being replaced.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from auction.edge.wire.channel import Channel
from auction.edge.wire.http1.client import every
from auction.edge.wire.http1.errors import MOVED, Failure
from auction.edge.wire.http1.messages import Address, Answer, Limits, request_head
from auction.edge.wire.http1.pool import CONNECT_S, Cancel, Done, Pool
from auction.edge.wire.queries import Resource


class Origin:
    """Ask one https server, over HTTP/2 while any connection speaks it, else over HTTP/1.1.

    `tls` gives contexts that offer what is to be spoken. `fields` are those of every request; `connections_max` is that
    of HTTP/1.1. A body is read where its status is `wanted`.
    """

    def __init__(
        self,
        to: Address,
        fields: Sequence[tuple[str, str]],
        limits: Limits,
        *,
        connections_max: int,
        wanted: Callable[[int], bool] = every,
        tls: Callable[[], ssl.SSLContext],
        tls_name: str | None = None,
        connect_s: float = CONNECT_S,
    ) -> None:
        assert to.secure
        self._head = request_head("POST", to, fields)
        self._resource = Resource(to, fields, limits, wanted)
        self._connect_s = connect_s
        self._older = False  # HTTP/1.1 is what was agreed on last
        self._channel = Channel(to.host, to.port, context=tls, tls_name=tls_name, other=self._to_pool)
        self._pool = Pool(
            to,
            limits,
            connections_max=connections_max,
            wanted=wanted,
            tls=tls,
            tls_name=tls_name,
            connect_s=connect_s,
            other=self._to_channel,
        )

    async def open(self, warm: int) -> None:
        """Connect, over HTTP/1.1 `warm` times; return when that is done or has plainly failed."""
        await self._channel.open(self._connect_s)
        if self._older and not self._channel.ready:
            await self._pool.warm(warm - self._pool.connected)

    def ask(self, body: bytes, done: Done) -> Cancel:
        """POST a body; `done` is told once how that ended, unless cancelled. It must not raise."""
        return _Asked(self, body, done).cancel

    async def close(self) -> None:
        """Close every connection; requests under way fail as unreachable."""
        await asyncio.gather(self._channel.close(), self._pool.close())

    def send(self, body: bytes, done: Done) -> Cancel:
        """Send a request over what is spoken now; it ends as MOVED where that changed before it was sent."""
        if self._older and not self._channel.ready:
            return self._pool.ask(self._head, body, done)
        return self._channel.query(self._resource, body, done).cancel

    def _to_pool(self, transport: asyncio.Transport) -> None:
        self._older = True
        self._pool.adopt(transport)

    def _to_channel(self, transport: asyncio.Transport) -> None:
        self._older = False
        self._channel.adopt(transport)


class _Asked:
    """One request, which may find that another protocol is spoken while it waits for a connection."""

    __slots__ = ("_body", "_done", "_origin", "_withdraw")

    def __init__(self, origin: Origin, body: bytes, done: Done) -> None:
        self._origin: Origin | None = origin
        self._body = body
        self._done = done
        self._withdraw = origin.send(body, self._ended)

    def cancel(self) -> None:
        self._withdraw()

    def _ended(self, ending: Answer | Failure) -> None:
        # Once: servers that cannot make up their minds are not followed. Neither room says MOVED before it returns.
        origin, self._origin = self._origin, None
        if ending is MOVED and origin is not None:
            self._withdraw = origin.send(self._body, self._done)
        else:
            self._done(ending)

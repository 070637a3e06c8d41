"""A listening socket for HTTP/1.1 on asyncio: conversations with whoever connects, and an orderly end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from auction.edge.wire.http1.conversation import Application, Conversation, Patience
from auction.edge.wire.http1.messages import Heads, Limits

# Connections at a time. At 20 KiB each an army of silent ones costs 200 MiB, and leaves descriptors for bidders.
CONNECTIONS_MAX: Final = 10_000
# Connections that the system may hold until we take them: a reconnecting fleet in one burst.
BACKLOG: Final = 1024
# Whoever takes longer for a handshake is no ad server. asyncio would allow a minute.
HANDSHAKE_S: Final = 5.0


class Listener:
    """Serve an application at one address. `now_s` gives seconds since 1970 for dates."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        now_s: Callable[[], float],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        patience: Patience | None = None,
        reuse_port: bool = False,
        tls: ssl.SSLContext | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.port = port
        self.application = application
        self.limits = limits
        self.patience = patience or Patience()
        self.heads = Heads()
        self.open: set[Conversation] = set()
        self.leaving = self.stopping = False
        self.connections_max = connections_max
        self._now_s = now_s
        self._date_s = -1
        self._date = b""
        self._host = host
        self._reuse_port = reuse_port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._empty: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Bind and listen; OSError names the address where that is impossible."""
        self._server = await asyncio.get_running_loop().create_server(
            self.conversation,
            self._host,
            self.port,
            backlog=BACKLOG,
            reuse_port=self._reuse_port or None,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_S,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def leave(self) -> None:
        """Go on as before, but end each connection with its next answer, so that callers go elsewhere."""
        self.leaving = True

    async def stop(self, grace_s: float, flush_s: float = 0.25) -> None:
        """Accept nothing more, send idle callers away, let the others finish for `grace_s`, then cancel what is left.

        Answers that were given are on their way for `flush_s` more.
        """
        if self._server is None:
            return
        self._server.close()
        self.leaving = self.stopping = True
        for conversation in tuple(self.open):
            conversation.leave()
        await self._emptied(grace_s)
        for conversation in tuple(self.open):
            conversation.cancel()
        await self._emptied(flush_s)
        for conversation in tuple(self.open):
            conversation.abort()
        await self._emptied(None)
        await self._server.wait_closed()

    async def _emptied(self, seconds: float | None) -> None:
        if self.open:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=seconds)
            self._empty = None

    def conversation(self) -> asyncio.Protocol:
        """Make what talks to one caller."""
        return Conversation(self)

    def lost(self, conversation: Conversation) -> None:
        """Forget a connection that is gone."""
        self.open.discard(conversation)
        if not self.open and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def date(self) -> bytes:
        """Give the line with the date (RFC 9110 section 6.6.1), made once a second."""
        now_s = int(self._now_s())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date = f"date: {formatdate(now_s, usegmt=True)}\r\n".encode()
        return self._date

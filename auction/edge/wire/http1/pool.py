"""Kept connections to one server on asyncio: requests out, an answer or a failure by callback."""
# A request costs no task, no future and no timer: it is written to a kept connection, and the read that completes its
# answer calls back. Only connecting takes a task, one for each connection.
#
# Nothing is asked twice. A request that met a connection which its server was just closing has failed, because nobody
# can tell whether it was heard.
#
# A server that cannot be reached is tried again when somebody asks and some time has passed, by one attempt that all
# who ask meanwhile share; until then a request fails at once, with the reason of the last attempt.

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from auction.edge.wire.http1.client import ClientConnection, every
from auction.edge.wire.http1.errors import MOVED, Failure, Fault
from auction.edge.wire.http1.messages import Address, Answer, Limits, address, request_head

# Requests that wait for a connection. Whoever limits what is under way is far below; beyond it somebody leaks.
WAITING_MAX: Final = 10_000
# How long a connection may take to come up, its name and TLS included.
CONNECT_S: Final = 1.0
# Unused connections are dropped before most servers do it to us (Node 5 s is the exception, nginx and Go take minutes):
# a request that meets a closing connection is lost.
IDLE_S: Final = 15.0
# What the addresses of a name are good for: services move within seconds, and nobody's DNS likes more questions.
RESOLVED_S: Final = 10.0
# Between attempts at a server that cannot be reached: doubled each time, and each a little different, so that many
# processes do not come back together.
BACKOFF_MIN_S: Final = 0.02
BACKOFF_MAX_S: Final = 1.0

Cancel = Callable[[], None]
Done = Callable[[Answer | Failure], None]


class Pool:
    """Ask one server over at most `connections_max` connections; a body is read where its status is `wanted`.

    `tls_name` is the name that is asked for and verified, where it is not the host's. `other` is given connections that
    agreed on HTTP/2; what waited for one ends as MOVED.
    """

    def __init__(
        self,
        to: Address,
        limits: Limits,
        *,
        connections_max: int,
        wanted: Callable[[int], bool] = every,
        tls: Callable[[], ssl.SSLContext] | None = None,
        tls_name: str | None = None,
        connect_s: float = CONNECT_S,
        idle_s: float = IDLE_S,
        other: Callable[[asyncio.Transport], None] | None = None,
    ) -> None:
        assert tls is not None or not to.secure
        self.limits = limits
        self.wanted = wanted
        self._to = to
        self._tls = tls if to.secure else None
        self._tls_name = tls_name or to.host
        self._connections_max = connections_max
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._other = other
        self._loop = asyncio.get_running_loop()
        self._open: set[_Channel] = set()
        # The one that was used last goes first, so that what is not needed grows old at the other end.
        self._kept: list[_Channel] = []
        self._waiting: deque[_Call] = deque()
        self._attempts: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._resolving: asyncio.Future[list[tuple[Any, ...]]] | None = None
        self._resolved: list[str] = []
        self._resolved_at = float("-inf")
        self._next = 0
        self._retry_at = float("-inf")
        self._backoff_s = BACKOFF_MIN_S
        self._reason = "not connected"
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._open)

    async def warm(self, count: int) -> None:
        """Open `count` connections ahead; return when they are there, or have plainly failed.

        Whoever asks first afterwards is not made to wait for it: only a failure that met a request is one to back off
        from.
        """
        attempts = [self._attempt(ahead=True) for _ in range(min(count, self._connections_max))]
        if attempts:
            await asyncio.wait(attempts)

    def ask(self, head: bytes, body: bytes, done: Done) -> Cancel:
        """Send a request by its head (`request_head`) and body; `done` is told once how it ended, unless cancelled.

        It may be told before this returns, and must not raise. Cancelling closes the connection of a request that has
        left.
        """
        octets = b"%b%d\r\n\r\n%b" % (head, len(body), body)
        call = _Call(self, octets, done)
        if self._kept:
            self._kept.pop().ask(call)
        elif self._closed:
            call.end(Failure(Fault.UNREACHABLE, "closed"))
        elif len(self._waiting) >= WAITING_MAX:
            call.end(Failure(Fault.UNREACHABLE, f"expected at most {WAITING_MAX} requests to wait for a connection"))
        elif not self._open and not self._attempts and self._loop.time() < self._retry_at:
            call.end(Failure(Fault.UNREACHABLE, self._reason))
        else:
            self._waiting.append(call)
            self._grow()
        return call.cancel

    async def close(self) -> None:
        """Drop every socket; requests under way fail as unreachable."""
        self._closed = True
        for attempt in self._attempts:
            attempt.cancel()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._fail(Failure(Fault.UNREACHABLE, "closed"))
        for channel in tuple(self._open):
            channel.fail(Failure(Fault.UNREACHABLE, "closed"))
        if self._resolving is not None:
            self._resolving.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts)
        if self._open:
            self._empty = self._loop.create_future()
            await self._empty

    # Connections come.

    def _grow(self) -> None:
        """Connect as often as requests wait for it; to a server that could not be reached, once."""
        failed = self._retry_at > float("-inf")
        if failed and self._loop.time() < self._retry_at:
            return
        room = 1 if failed else self._connections_max - len(self._open)
        while len(self._attempts) < min(room, len(self._waiting)):
            self._attempt()

    def _attempt(self, *, ahead: bool = False) -> asyncio.Task[None]:
        task = self._loop.create_task(self._connect())
        self._attempts.add(task)
        task.add_done_callback(partial(self._attempted, ahead))
        return task

    def _attempted(self, ahead: bool, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if task.cancelled() or self._closed:
            return
        failure = task.exception()
        if failure is None:
            self._backoff_s, self._retry_at = BACKOFF_MIN_S, float("-inf")
            self._grow()
            return
        self._reason = f"Cannot connect to {self._to.host}:{self._to.port}: {str(failure) or type(failure).__name__}"
        if ahead and not self._waiting:
            return
        chance = int.from_bytes(os.urandom(2), "big") / 65_536
        self._retry_at = self._loop.time() + self._backoff_s * (0.5 + chance / 2)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        if not self._open and not self._attempts:
            self._fail(Failure(Fault.UNREACHABLE, self._reason))

    async def _connect(self) -> None:
        """Open one connection, to the addresses of the name in turn; raise the OSError of the last."""
        last: OSError | None = None
        try:
            async with asyncio.timeout(self._connect_s):
                addresses = await self._addresses()
                self._next += 1
                for shift in range(len(addresses)):
                    try:
                        await self._loop.create_connection(
                            lambda: _Channel(self),
                            addresses[(self._next + shift) % len(addresses)],
                            self._to.port,
                            ssl=self._tls() if self._tls is not None else None,
                            server_hostname=self._tls_name if self._tls is not None else None,
                        )
                        return
                    except OSError as failure:
                        last = failure
        except TimeoutError:
            raise last or TimeoutError(f"expected a connection within {self._connect_s:g} s") from None
        self._resolved_at = float("-inf")
        assert last is not None
        raise last

    async def _addresses(self) -> list[str]:
        if self._loop.time() >= self._resolved_at + RESOLVED_S:
            # A resolver that hangs keeps one thread, not one more each time.
            if self._resolving is None or self._resolving.done():
                asked = self._loop.getaddrinfo(self._to.host, self._to.port, type=socket.SOCK_STREAM)
                self._resolving = asyncio.ensure_future(asked)
                # What comes of it when nobody waits any longer is of no interest.
                self._resolving.add_done_callback(lambda each: each.cancelled() or each.exception())
            found = await asyncio.shield(self._resolving)
            self._resolved = list(dict.fromkeys(str(each[4][0]) for each in found))
            self._resolved_at = self._loop.time()
        return self._resolved

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a connection that agreed on HTTP/1.1 although it was not ours."""
        channel = _Channel(self)
        transport.set_protocol(channel)
        channel.connection_made(transport)

    def opened(self, channel: _Channel, transport: asyncio.Transport) -> None:
        """Use a connection that came up."""
        if self._closed or len(self._open) >= self._connections_max:
            channel.drop()
            return
        secured = transport.get_extra_info("ssl_object") if self._other is not None else None
        if secured is not None and secured.selected_alpn_protocol() == "h2":
            assert self._other is not None
            channel.part()
            self._other(transport)
            self._fail(MOVED)
            return
        self._open.add(channel)
        self.keep(channel)

    # Connections are used, and go.

    def keep(self, channel: _Channel) -> None:
        """Give a connection that is free to who waits longest, or keep it."""
        if self._waiting:
            channel.ask(self._waiting.popleft())
            return
        channel.free_since = self._loop.time()
        self._kept.append(channel)
        if self._idle is None:
            self._idle = self._loop.call_later(self._idle_s, self._expire)

    def unkeep(self, channel: _Channel) -> None:
        """Give a connection to nobody any more."""
        if channel in self._kept:
            self._kept.remove(channel)

    def lost(self, channel: _Channel) -> None:
        """Forget a connection that is gone."""
        self._open.discard(channel)
        self.unkeep(channel)
        if self._closed:
            if not self._open and self._empty is not None and not self._empty.done():
                self._empty.set_result(None)
        elif self._waiting and not self._attempts:
            self._grow()
            if not self._open and not self._attempts:
                self._fail(Failure(Fault.UNREACHABLE, self._reason))

    def withdraw(self, call: _Call) -> None:
        """Forget a request that has not left."""
        self._waiting.remove(call)

    def _expire(self) -> None:
        self._idle = None
        now = self._loop.time()
        while self._kept and self._kept[0].free_since + self._idle_s <= now:
            self._kept.pop(0).drop()
        if self._kept:
            self._idle = self._loop.call_at(self._kept[0].free_since + self._idle_s, self._expire)

    def _fail(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.end(failure)


class _Call:
    """One request, waiting or under way."""

    __slots__ = ("_done", "_pool", "channel", "octets")

    def __init__(self, pool: Pool, octets: bytes, done: Done) -> None:
        self._pool = pool
        self._done: Done | None = done
        self.octets = octets
        self.channel: _Channel | None = None

    def end(self, ending: Answer | Failure) -> None:
        done, self._done, self.channel = self._done, None, None
        if done is not None:
            done(ending)

    def cancel(self) -> None:
        if self._done is None:
            return
        self._done = None
        channel, self.channel = self.channel, None
        if channel is None:
            self._pool.withdraw(self)
        else:
            channel.drop()


class _Channel(asyncio.Protocol):
    """One connection to the server."""

    __slots__ = ("_call", "_connection", "_pool", "_transport", "free_since")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection = ClientConnection(pool.limits, pool.wanted)
        self._transport: asyncio.Transport | None = None
        self._call: _Call | None = None
        self.free_since = 0.0

    def ask(self, call: _Call) -> None:
        assert self._transport is not None
        self._call = call
        call.channel = self
        self._connection.ask()
        self._transport.write(call.octets)

    def drop(self) -> None:
        """Close at once; what is under way ends without a word."""
        self._call = None
        self._connection.close()
        self._pool.unkeep(self)
        if self._transport is not None:
            self._transport.abort()

    def part(self) -> None:
        """Leave the socket to somebody else."""
        self._transport = None
        self._connection.close()

    def fail(self, failure: Failure) -> None:
        """Close at once; what is under way has failed."""
        call = self._call
        self.drop()
        if call is not None:
            call.end(failure)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened(self, self._transport)

    def data_received(self, data: bytes) -> None:
        self._ended(self._connection.receive(data))

    def eof_received(self) -> bool:
        self._ended(self._connection.eof())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._call is not None:
            ending = self._connection.eof(cut=True)
            detail = f": {exc}" if exc is not None else ""
            if isinstance(ending, Failure):
                ending = Failure(ending.fault, ending.detail + detail)
            self._ended(ending)
        self._connection.close()
        self._transport = None
        self._pool.lost(self)

    def _ended(self, ending: Answer | Failure | None) -> None:
        if ending is None:
            if not self._connection.fit:  # spoken to between exchanges
                self.drop()
            return
        call, self._call = self._call, None
        if self._connection.fit:
            self._pool.keep(self)
        else:
            self.drop()
        if call is not None:
            call.end(ending)


async def fetch(
    url: str,
    fields: tuple[tuple[str, str], ...],
    limits: Limits,
    *,
    tls: Callable[[], ssl.SSLContext],
    connect_s: float = CONNECT_S,
) -> Answer | Failure:
    """GET one URL over a connection of its own; ValueError for a URL that cannot be asked for."""
    to = address(url)
    pool = Pool(to, limits, connections_max=1, tls=tls, connect_s=connect_s)
    ended: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()

    def done(ending: Answer | Failure) -> None:
        if not ended.done():
            ended.set_result(ending)

    cancel = pool.ask(request_head("GET", to, (*fields, ("connection", "close"))), b"", done)
    try:
        return await ended
    finally:
        cancel()
        await pool.close()

# A gRPC server on asyncio: what one read brought is taken in with one pass, and what is due leaves in one write.
#
# No task, no future and no timer is made for a call. A call is handed to a plain function, which answers at once or
# keeps it and answers later; it is told when nobody waits any more.

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Final, cast

from auction.edge.wire.calls import Call, Handler
from auction.edge.wire.control import Event, Over
from auction.edge.wire.fields import block
from auction.edge.wire.frames import Code
from auction.edge.wire.h2 import Connection
from auction.edge.wire.heads import RequestHead
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds
from auction.edge.wire.portions import Portions
from auction.edge.wire.settings import Lives
from auction.edge.wire.statuses import Status, trailers_only
from auction.edge.wire.streams import Arrival, State
from auction.edge.wire.ticks import Ticking
from auction.edge.wire.wheel import Wheel

# Connections at a time. A connection that is silent costs some 20 KiB, so an army of them costs 200 MiB.
CONNECTIONS_MAX: Final = 10_000

# Connections that the system may hold until we take them: a reconnecting fleet in one burst.
BACKLOG: Final = 1_024

# A client says its preface and settings at once; whoever has not by then speaks something else, or nothing.
GREETING_TICKS: Final = 10

# What may wait for a caller that does not read its socket, beside what the system holds. Reading from it stops at
# once, so this is only what was already being answered.
HELD_BYTES_MAX: Final = 8_388_608

# What the socket may hold before we stop reading from a caller that does not read from us: some round trips' worth.
WRITE_BUFFER_BYTES: Final = 1_048_576

# What is kept of messages that are not whole, of one connection and of all: sixteen of the largest size, and what a
# process can spare. Who starts many large messages and ends none is refused here.
UNFINISHED_BYTES_MAX: Final = 16_777_216
UNFINISHED_BYTES_OF_ALL_MAX: Final = 268_435_456

# A message that was begun must be there by then: ten auctions' time, as at the JSON edge.
MESSAGE_S: Final = 5.0

_PING: Final = b"anybody?"
_NOT_GRPC, _NOT_READ, _NO_PAGE = (block([(b":status", status)]) for status in (b"415", b"405", b"404"))


class Server:
    """Serve unary `methods` and streaming `dialogues`, each by its path, "/package.Service/Method".

    A dialogue's handler is called when the call begins, and sets what is to be called for each message. `pages` answer
    GET. `now` is the clock in whose terms deadlines are given, the loop's own where there is none.
    """

    def __init__(
        self,
        methods: Mapping[str, Handler],
        *,
        dialogues: Mapping[str, Handler] | None = None,
        pages: Mapping[str, bytes] | None = None,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        lives: Lives | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.methods = dict(methods)
        self.dialogues = dict(dialogues or {})
        self.pages = {path.encode(): body for path, body in (pages or {}).items()}
        self.bounds = bounds or Bounds()
        self.limits = limits or Limits()
        self.lives = lives or Lives()
        self.port = 0
        self.now: Callable[[], float] = now or (lambda: asyncio.get_running_loop().time())
        self.wheel = Wheel(self.now)
        self.connections: set[Served] = set()
        self.stopping = False
        self.unfinished = 0
        self._own_clock = now is None
        self._listener: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Bind and listen; OSError names the address where that is impossible."""
        loop = asyncio.get_running_loop()
        if self._own_clock:
            self.now = loop.time  # the same, sooner
        self._listener = await loop.create_server(
            lambda: Served(self, loop),
            host,
            port,
            ssl=context,
            backlog=BACKLOG,
            reuse_port=reuse_port or None,
            ssl_handshake_timeout=GREETING_TICKS if context else None,
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        self._tick()

    async def stop(self, grace_s: float) -> None:
        """Take no more connections and calls; let those under way finish for `grace_s`, then cancel what is left."""
        if self._listener is None:
            return
        self._listener.close()
        self.stopping = True
        for served in list(self.connections):
            served.drain()
        try:
            async with asyncio.timeout(grace_s):
                while self.connections:
                    self._gone.clear()
                    await self._gone.wait()
        except TimeoutError:
            pass
        for served in list(self.connections):
            served.cut()
        while self.connections:
            self._gone.clear()
            await self._gone.wait()
        if self._ticking is not None:
            self._ticking.cancel()
        self.wheel.stop()
        await self._listener.wait_closed()

    def left(self, served: Served) -> None:
        """Hear that a connection is gone."""
        self.connections.discard(served)
        self._gone.set()

    def _tick(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(1.0, self._tick)
        for served in list(self.connections):
            served.tick()


class Served(Ticking):
    """One caller's connection."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._server = server
        self._connection = Connection(False, server.limits)
        self._ahead = b""
        self._portions = Portions()
        self._held_check = 0
        self._unfinished = 0
        self._age_ticks = 0
        self._quiet_ticks = 0
        self._asked = False
        self._drained_ticks = 0
        age_s = server.lives.age_s
        self._age_max = None if age_s is None else max(1, round(age_s * (0.9 + os.urandom(1)[0] / 1275)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        self._transport = transport
        secured = transport.get_extra_info("ssl_object")
        # RFC 9113 section 3.3: behind TLS HTTP/2 has to be agreed on, also by who knows that nothing else is spoken.
        wrong = secured is not None and secured.selected_alpn_protocol() != "h2"
        if wrong or self._server.stopping or len(self._server.connections) >= CONNECTIONS_MAX:
            transport.abort()
            return
        self._server.connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._quiet_ticks = 0
        self._asked = False
        if self._ahead:
            self._ahead += data
        elif len(data) <= self._portions.size:
            self._measured(data)
        else:
            self._ahead = data
            self._turn()

    def _turn(self) -> None:
        """Take in a portion of what was read, and the next one when others had their turn."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self._ahead = b""
            return
        size = self._portions.size
        portion, self._ahead = self._ahead[:size], self._ahead[size:]
        self._measured(portion)
        if self._ahead:
            transport.pause_reading()
            self._loop.call_soon(self._turn)
        elif not self._paused and not transport.is_closing():
            transport.resume_reading()

    def _measured(self, portion: bytes) -> None:
        began = self._server.now()
        self._take_in(portion)
        self._portions.took(len(portion), self._server.now() - began)

    def _take_in(self, data: bytes) -> None:
        self._reading = True
        now = self._server.now()
        for event in self._connection.receive(data):
            if event.__class__ is Arrival:
                self._arrived(event, now)
            else:
                self._hear(event)
        self._reading = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connection.over = True
        self._abandon()
        self._server.left(self)

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._held_check = 0
        self.flush()
        ready = not self._ahead and not self._paused  # what was sent just now may be too much again
        if self._transport is not None and ready and not self._transport.is_closing():
            self._transport.resume_reading()

    def flush(self) -> None:
        """Send what is due, in one write."""
        transport, connection = self._transport, self._connection
        if transport is None:
            return
        if self._paused and not connection.over:
            self._hold(transport)
            return
        if connection.out:
            transport.write(connection.take())
        if connection.over or connection.drained:
            transport.close()

    def _hold(self, transport: asyncio.Transport) -> None:
        """Keep what is due for a caller that does not read, within bounds."""
        out = self._connection.out
        if len(out) > self._held_check:
            if sum(map(len, out)) > HELD_BYTES_MAX:
                transport.abort()
            self._held_check = 2 * len(out)

    def _arrived(self, arrival: Arrival, now: float) -> None:
        stream, fields = arrival.stream, arrival.fields
        if fields is None:
            call = stream.context
            if isinstance(call, Call):
                call.more(arrival)
            elif isinstance(call, RequestHead) and arrival.ended:
                self._refuse(arrival, call)
            return
        if arrival.reset is not None:
            return  # taken back before anybody heard of it
        head = fields.meaning
        if head is None:
            head = fields.meaning = RequestHead(fields, self._server.methods, self._server.dialogues)
        assert isinstance(head, RequestHead)
        if head.handler is None:
            if head.http and not arrival.ended:
                stream.context = head  # HTTP is answered when all was said, and so may still be found at fault
            else:
                self._refuse(arrival, head)
            return
        call = stream.context = Call(self, self._connection, stream, head, self._server.bounds)
        timeout_s = head.timeout_s
        if timeout_s is not None:
            call.deadline = now + timeout_s
            call.bucket = self._server.wheel.add(call.deadline, call)
        call.begin(arrival)
        if call.waiting:
            by = now + MESSAGE_S
            self._expect(call, by if call.deadline is None else min(by, call.deadline))

    def _expect(self, call: Call, deadline: float) -> None:
        if call.bucket is not None:
            call.bucket.discard(call)
        call.bucket = self._server.wheel.add(deadline, call)

    def whole(self, call: Call) -> None:
        """Give a call whose message has come the time that its caller gives it."""
        if call.deadline is not None:
            self._expect(call, call.deadline)
        elif call.bucket is not None:
            call.bucket.discard(call)

    def holds(self, octets: int) -> bool:
        """Count what is kept of messages that are not whole."""
        self._unfinished += octets
        self._server.unfinished += octets
        within = self._server.unfinished <= UNFINISHED_BYTES_OF_ALL_MAX
        return octets <= 0 or (within and self._unfinished <= UNFINISHED_BYTES_MAX)

    def _refuse(self, arrival: Arrival, head: RequestHead) -> None:
        stream, connection = arrival.stream, self._connection
        page = self._server.pages.get(head.path)
        if not head.http:
            connection.end(stream, trailers_only(head.status, head.message))
        elif head.verb == b"POST":
            connection.end(stream, _NOT_GRPC)
        elif head.verb != b"GET":
            connection.end(stream, _NOT_READ)
        elif page is None:
            connection.end(stream, _NO_PAGE)
        else:
            shown = [(b":status", b"200"), (b"content-length", b"%d" % len(page)), (b"content-type", b"text/plain")]
            connection.send(stream, block(shown), page)
        if stream.state is State.HALF_CLOSED_LOCAL:
            connection.reset(stream, Code.NO_ERROR)  # it need not go on sending

    def _hear(self, event: Event) -> None:
        if isinstance(event, Over):
            self._abandon()

    def _abandon(self) -> None:
        """Tell every call that nobody waits for it."""
        for stream in list(self._connection.streams.values()):
            call = stream.context
            if isinstance(call, Call):
                call.abandon()

    def drain(self) -> None:
        """Take no further calls, and close when those under way have ended."""
        if not self._connection.settled and self._transport is not None:
            self._transport.abort()  # it has said nothing yet
            return
        self._connection.drain()
        for stream in list(self._connection.streams.values()):
            call = stream.context
            if isinstance(call, Call) and call.on_drain is not None:
                call.on_drain()
        self.flush()

    def cut(self) -> None:
        """Close now, whatever is under way; callers are told UNAVAILABLE."""
        for stream in list(self._connection.streams.values()):
            call = stream.context
            if isinstance(call, Call):
                call.break_off(Status.UNAVAILABLE, "the server is stopping")
        transport = self._transport
        if transport is not None:
            if self._connection.out and not self._paused:
                transport.write(self._connection.take())
            if self._connection.outbound.queued or self._paused:
                transport.abort()
            else:
                transport.close()

    def tick(self) -> None:
        """Count a second: of age, of silence, of being about to go."""
        connection, lives, transport = self._connection, self._server.lives, self._transport
        if transport is None:
            return
        if transport.is_closing():
            self._drained_ticks += 1
            if self._drained_ticks > lives.keepalive_timeout_s:
                transport.abort()  # it was to close, and the other side does not read
            return
        for event in connection.tick():
            self._hear(event)
        self._age_ticks += 1
        self._quiet_ticks += 1
        if not connection.settled and self._age_ticks > GREETING_TICKS:
            transport.abort()
        elif connection.draining:
            self._drained_ticks += 1
            silent = not connection.streams and self._drained_ticks > lives.keepalive_timeout_s
            if silent or self._drained_ticks > lives.grace_s:
                self.cut()
        elif self._age_max is not None and self._age_ticks >= self._age_max:
            self.drain()
        if self._asked and self._quiet_ticks >= lives.keepalive_timeout_s:
            transport.abort()
        elif not self._asked and self._quiet_ticks >= lives.keepalive_s:
            self._asked, self._quiet_ticks = True, 0
            connection.ping(_PING)
        self.flush()

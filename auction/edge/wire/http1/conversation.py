"""One connection of a caller: requests to an application, answers in order, and an end to every wait."""
# Everything that arrived in one read is one pass, and everything that is due after it is one write. Requests of one
# connection are answered one after the other; beside its connection a request costs no task, no future and no timer.
#
# A connection has one timer, which is set again only when it fires: what it may wait for moves with every message, and
# moving a timer costs more than the message. Every wait has an end: for a request, its rest, a reader, a goodbye.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

import msgspec

from auction.edge.wire.http1.errors import Refused
from auction.edge.wire.http1.messages import Request, Response
from auction.edge.wire.http1.server import Begun, ServerConnection, Whole

if TYPE_CHECKING:
    from auction.edge.wire.http1.listener import Listener

# Requests of one connection that wait for their turn before we stop reading from it.
WAITING_MAX: Final = 8

# Answers to requests that came together leave together up to here: what asyncio calls a full buffer.
WRITE_BYTES: Final = 64 * 1024

Cancel = Callable[[], None]


class Patience(msgspec.Struct, frozen=True):
    """How long a connection is waited for, in seconds: without a request, for the rest of one, for somebody to read
    what was written, and for the rest of what nobody will read, so that an answer is seen before the reset."""

    idle_s: float = 75.0
    request_s: float = 5.0
    stall_s: float = 30.0
    linger_s: float = 2.0


class Application(Protocol):
    """What a listener hands requests to. Nothing of it may raise."""

    def accept(self, request: Request, /) -> Response | None:
        """Look at a head, perhaps before the body is there; give an answer to refuse it, or None."""
        ...

    def answer(self, request: Request, done: Callable[[Response | None], None], /) -> Cancel:
        """Call `done` exactly once, perhaps before this returns, unless cancelled first; None hangs up."""
        ...

    def refuse(self, refused: Refused, /) -> Response:
        """Word the answer to what is no request; the connection is closed behind it."""
        ...


class Conversation(asyncio.Protocol):
    """One connection of a caller."""

    __slots__ = (
        "_busy",
        "_cancel",
        "_connection",
        "_continue",
        "_due",
        "_last",
        "_listener",
        "_loop",
        "_out",
        "_out_bytes",
        "_paused",
        "_pumping",
        "_stalled",
        "_timer",
        "_transport",
        "_turn",
        "_waiting",
    )

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._connection = ServerConnection(listener.limits)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request | None, Response | None]] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._busy: Request | None = None
        self._cancel: Cancel | None = None
        self._turn = 0
        self._pumping = False
        self._last = False  # nothing that comes is read any more
        self._continue = False
        self._paused = False
        self._stalled = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        listener = self._listener
        if listener.stopping or len(listener.open) >= listener.connections_max:
            self._last = True
            self._transport.abort()
            return
        listener.open.add(self)
        self._within(listener.patience.idle_s)

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        connection, number = self._connection, self._connection.number
        application, waiting = self._listener.application, self._waiting
        for event in connection.receive(data):
            if isinstance(event, Whole):
                request = event.request
                if not waiting or waiting[-1][0] is not request:  # otherwise it was refused by its head
                    waiting.append((request, None))
                self._last = not request.keep
            elif isinstance(event, Begun):
                request = event.request
                refusal = application.accept(request)
                if refusal is not None:
                    waiting.append((request, refusal))
                    self._last = request.body is None
                elif request.expects and request.body is None:
                    self._continue = True
            else:
                waiting.append((None, application.refuse(event)))
                self._last = True
            if self._last:
                break
        self._pump()
        if connection.partial and connection.number != number and not self._last:
            self._within(self._listener.patience.request_s)

    def eof_received(self) -> bool:
        # A caller that has hung up waits for nothing, and neither does the auction it asked for.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._last = True
        self._connection.close()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        self._listener.lost(self)
        self._withdraw()

    def pause_writing(self) -> None:
        self._stalled = True
        self._read(False)
        self._within(self._listener.patience.stall_s)

    def resume_writing(self) -> None:
        self._stalled = False
        self._within(self._listener.patience.idle_s)
        self._pump()

    # What the listener asks for.

    def leave(self) -> None:
        """Close now if nothing is under way, else behind the answer."""
        if self._busy is None and not self._waiting and not self._connection.partial and self._transport is not None:
            self._last = True
            self._transport.close()

    def cancel(self) -> None:
        """Give up what is under way; answers given before are still sent."""
        self._waiting.clear()
        self._withdraw()
        self._last = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever has not been read."""
        if self._transport is not None:
            self._transport.abort()

    # Answers.

    def _pump(self) -> None:
        """Answer what waits, as far as answers are there; one write for all of them."""
        if self._pumping or self._transport is None:
            return
        self._pumping = True
        application = self._listener.application
        while self._waiting and self._busy is None and not self._stalled:
            request, response = self._waiting.popleft()
            if response is not None:
                self._write(request, response)
                continue
            assert request is not None
            self._busy = request
            self._turn += 1
            cancel = application.answer(request, partial(self._answered, self._turn))
            if self._busy is request:
                self._cancel = cancel
        self._pumping = False
        if self._busy is None and not self._waiting:
            if self._continue and self._connection.partial and not self._last:
                self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._continue = False
        self._flush()
        self._close()
        if self._transport is not None:
            self._read(not self._stalled and len(self._waiting) < WAITING_MAX)

    def _answered(self, turn: int, response: Response | None) -> None:
        assert turn == self._turn, "answered twice"
        request, self._busy, self._cancel = self._busy, None, None
        if request is None or self._transport is None:
            return
        if response is None:
            self._waiting.clear()
            self._last = True
            self._transport.abort()
            return
        self._write(request, response)
        self._pump()

    def _write(self, request: Request | None, response: Response) -> None:
        """Put an answer where the next write takes it; `request` is None where there was none to be understood."""
        listener = self._listener
        keep = response.keep and request is not None and request.keep and request.body is not None
        keep = keep and not listener.leaving
        if not keep:
            connection = b"connection: close\r\n"
            self._waiting.clear()
            self._last = True
        else:
            connection = b"" if request is None or not request.old else b"connection: keep-alive\r\n"
        self._out.append(listener.heads.encode(response, listener.date(), connection))
        if response.body and response.status != 204 and (request is None or request.method != "HEAD"):
            self._out.append(response.body)
            self._out_bytes += len(response.body)
            if self._out_bytes > WRITE_BYTES:
                # Only what was written can tell that nobody reads it.
                self._flush()
        self._connection.unanswered -= 1
        if not self._stalled:
            self._due = self._loop.time() + listener.patience.idle_s

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            out, self._out, self._out_bytes = self._out, [], 0
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _close(self) -> None:
        """Say goodbye if the last answer has left."""
        if self._last and self._busy is None and not self._waiting:
            self._goodbye()

    def _goodbye(self) -> None:
        """Close, but not under an answer that its caller has not read for still sending."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._read(True)
        if self._connection.partial or self._connection.closed:
            if transport.can_write_eof():
                transport.write_eof()
            self._within(self._listener.patience.linger_s)
        else:
            transport.close()

    def _withdraw(self) -> None:
        cancel, self._busy, self._cancel = self._cancel, None, None
        if cancel is not None:
            cancel()

    def _read(self, on: bool) -> None:
        assert self._transport is not None
        if on == self._paused and not self._transport.is_closing():
            self._paused = not on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # Time.

    def _within(self, seconds: float) -> None:
        """Expect something new within `seconds`."""
        self._due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._expired)

    def _expired(self) -> None:
        self._timer = None
        transport = self._transport
        if transport is None:
            return
        left_s = self._due - self._loop.time()
        if left_s > 0:
            self._within(left_s)
        elif self._stalled:
            transport.abort()
        elif self._busy is not None or self._waiting:
            self._within(self._listener.patience.idle_s)  # ours to answer, and what was asked has an end of its own
        elif self._last:
            transport.abort()
        elif self._connection.partial:
            text = f"expected the body within {self._listener.patience.request_s:g} s"
            self._waiting.append((None, self._listener.application.refuse(Refused(408, text))))
            self._last = True
            self._pump()
        else:
            self._last = True
            self._within(self._listener.patience.stall_s)  # for what may still be on its way out
            transport.close()

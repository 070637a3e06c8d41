# A call as a client has it: from asking to the one ending that it gets.

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from auction.edge.wire.fields import Fields, block
from auction.edge.wire.frames import Code
from auction.edge.wire.heads import ENCODINGS, ResponseHead
from auction.edge.wire.messages import PREFIX_BYTES, Reader, Unreadable, packed, whole
from auction.edge.wire.sent import Sent
from auction.edge.wire.statuses import CONTENT_TYPE, Ending, Status, of_reset, timeout_text, written
from auction.edge.wire.streams import Arrival

Done = Callable[[Status, bytes, str, bool], None]
"""How a call ended: status, message, a sentence for people, and whether it was this side that found it so."""

# Distinct timeouts of a method whose header blocks are kept: every millisecond of four seconds.
TIMEOUTS_KEPT: Final = 4_096

# Below it a timeout is told in smaller parts than milliseconds.
TIMEOUT_MS_KEPT: Final = 10


class Method:
    """A method of a peer with all that its calls have in common: their header block, but for the timeout."""

    def __init__(
        self,
        path: str,
        authority: str,
        *,
        scheme: str = "http",
        metadata: Iterable[tuple[str, str | bytes]] = (),
        gzip: bool = False,
        agent: str = "wire",
    ) -> None:
        pairs = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"content-type", CONTENT_TYPE),
            (b"te", b"trailers"),
            (b"user-agent", agent.encode()),
            (b"grpc-accept-encoding", ENCODINGS),
        ]
        if gzip:
            pairs.append((b"grpc-encoding", b"gzip"))
        self.gzip = gzip
        self.path = path
        self._block = block([*pairs, *written(metadata)])
        self._blocks: dict[int, bytes] = {}

    def block(self, timeout_s: float | None) -> bytes:
        """Give the header block of a call that may take so long."""
        if timeout_s is None:
            return self._block
        ms = int(timeout_s * 1000)
        known = self._blocks.get(ms)
        if known is None:
            known = self._block + block([(b"grpc-timeout", timeout_text(timeout_s))])
            if ms >= TIMEOUT_MS_KEPT:
                if len(self._blocks) >= TIMEOUTS_KEPT:
                    self._blocks.clear()
                self._blocks[ms] = known
        return known


class Ask(Sent, eq=False):
    """One unary call.

    `ending` has the peer's trailers, with their metadata, by the time that `done` is called.
    """

    method: Method | None = None
    ending: Ending | None = None
    _head: ResponseHead | None = None
    _reader: Reader | None = None
    _message: bytes | None = None

    def waited(self) -> None:
        if self.deadline is not None and self.method is not None:
            self.block = self.method.block(max(0.0, self.deadline - self.channel.now()))

    def expire(self) -> None:
        done = self.done
        self.cancel()
        if done is not None:
            done(Status.DEADLINE_EXCEEDED, b"", "the deadline has passed", True)

    def arrived(self, arrival: Arrival) -> None:
        fields, ended = arrival.fields, arrival.trailers
        if ended is not None and fields is not None:  # all of it at once, as nearly always
            head, ending = head_of(fields), ending_of(ended)
            if head.plain and not ending.status and ending.said:
                body = whole(arrival.data)
                if body is not None and len(body) <= self.channel.bounds.octets:
                    self.ending = ending
                    self.end(Status.OK, body, "", False)
                    return
        if fields is not None:
            self._head = head_of(fields)
        if arrival.data and not self._read(arrival.data):
            return
        if arrival.ended:
            self._end(arrival.trailers)
        elif arrival.reset is not None:
            self._reset(arrival, arrival.reset)

    def _read(self, data: bytes | bytearray) -> bool:
        """Take in octets; False where they ended the call."""
        head = self._head
        if head is None or head.fault is not None:
            return True  # a page of a proxy, say: what it says is of no use
        if self._reader is None:
            self._reader = Reader(self.channel.bounds, head.encoding)
        try:
            for message in self._reader.feed(data):
                if self._message is not None:
                    raise Unreadable(Status.INTERNAL, "expected one message, were more")
                self._message = message
        except Unreadable as fault:
            self._break_off(fault.status, str(fault))
            return False
        return True

    def _break_off(self, status: Status, message: str) -> None:
        done = self.done
        self.cancel()
        if done is not None:
            done(status, b"", message, True)

    def _end(self, trailers: Fields | None) -> None:
        head = self._head
        if head is None:
            self.end(Status.INTERNAL, b"", "an end without header fields", True)
            return
        self.ending = ending = head.ending if trailers is None else ending_of(trailers)
        if head.fault is not None and not head.ending.said:
            self.end(head.fault, b"", head.message, True)
        elif not ending.said:
            self.end(Status.INTERNAL, b"", "no grpc-status", True)
        elif ending.status:
            self.end(ending.status, b"", ending.message, False)
        elif self._reader is not None and self._reader.rest:
            self.end(Status.INTERNAL, b"", f"truncated: a message of {self._reader.rest - PREFIX_BYTES} octets", True)
        elif self._message is None:
            self.end(Status.INTERNAL, b"", "truncated: no whole message", True)
        else:
            self.end(Status.OK, self._message, "", False)

    def _reset(self, arrival: Arrival, code: int) -> None:
        if self._head is None and self.once_more(arrival):
            return
        name = Code(code).name if code in Code.__members__.values() else str(code)
        self.end(of_reset(code), b"", f"stream reset: {name}", False)

    def cut(self, broken: bool, reason: str) -> None:
        self.end(Status.INTERNAL if broken else Status.UNAVAILABLE, b"", reason, True)

    def end(self, status: Status, body: bytes, message: str, ours: bool) -> None:
        """End the call, once."""
        done = self.let_go()
        if done is not None:
            done(status, body, message, ours)


def head_of(fields: Fields) -> ResponseHead:
    """Read the first header fields of an answer, or remember what they meant."""
    known: Any = fields.meaning
    if known.__class__ is not ResponseHead:
        known = fields.meaning = ResponseHead(fields)
    head: ResponseHead = known
    return head


def ending_of(fields: Fields) -> Ending:
    """Read trailers, or remember what they meant."""
    known: Any = fields.meaning
    if known.__class__ is not Ending:
        known = fields.meaning = Ending(fields)
    ending: Ending = known
    return ending


def message_of(body: bytes, method: Method) -> bytes:
    """Frame a message as the method's calls send it."""
    return packed(body, method.gzip)

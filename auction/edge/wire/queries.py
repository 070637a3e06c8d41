# A plain HTTP request over HTTP/2, as a client has it. How it ends is told in the words of HTTP/1.1's room, so that
# whoever asks need not know which of the two was spoken.

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from auction.edge.wire.fields import OF_CONNECTIONS, Fields, block
from auction.edge.wire.frames import Code
from auction.edge.wire.http1.client import every
from auction.edge.wire.http1.errors import MOVED, Failure, Fault
from auction.edge.wire.http1.messages import Address, Answer, Limits
from auction.edge.wire.http1.messages import Fields as Named
from auction.edge.wire.sent import Sent
from auction.edge.wire.streams import Arrival

Done = Callable[[Answer | Failure], None]

# Distinct lengths of bodies whose header blocks are kept: requests of one shape differ by some thousand octets.
LENGTHS_KEPT: Final = 4_096

# Said by the protocol itself, or by the request's address.
_NOT_OURS: Final = OF_CONNECTIONS | {b"te", b"host", b"content-length"}


class Resource:
    """What is asked for, with all that its requests have in common: their header block, but for the length.

    A body is waited for where its status is `wanted`.
    """

    def __init__(
        self,
        to: Address,
        fields: Iterable[tuple[str, str]],
        limits: Limits,
        wanted: Callable[[int], bool] = every,
    ) -> None:
        pairs = [
            (b":method", b"POST"),
            (b":scheme", b"https" if to.secure else b"http"),
            (b":path", to.target.encode()),
            (b":authority", to.authority.encode()),
        ]
        named = [(name.lower().encode(), text.strip().encode()) for name, text in fields]
        self.limits = limits
        self.wanted = wanted
        self._block = block([*pairs, *(pair for pair in named if pair[0] not in _NOT_OURS)])
        self._blocks: dict[int, bytes] = {}

    def block(self, length: int) -> bytes:
        """Give the header block of a request with so many octets."""
        known = self._blocks.get(length)
        if known is None:
            if len(self._blocks) >= LENGTHS_KEPT:
                self._blocks.clear()
            known = self._blocks[length] = self._block + block([(b"content-length", b"%d" % length)])
        return known


class Head:
    """What the header fields of an answer say, read once for all the answers that repeat them."""

    __slots__ = ("fields", "status")

    def __init__(self, fields: Fields) -> None:
        self.status = int(fields.pairs[0][1])
        raw: dict[bytes, bytes] = {}
        for name, value in fields.pairs[1:]:
            raw.setdefault(name, value)
        self.fields = Named(raw)


class Query(Sent, eq=False, kw_only=True):
    """One request. It ends as an Answer, or as a Failure that says what HTTP/1.1 would say of the same fault."""

    resource: Resource
    _head: Head | None = None
    _body: bytes | bytearray = b""

    def arrived(self, arrival: Arrival) -> None:
        fields, limits = arrival.fields, self.resource.limits
        ended = arrival.ended or arrival.reset is not None
        if fields is not None:
            self._head = head = _head_of(fields)
            if not self.resource.wanted(head.status):
                self._stop(Answer(head.status, head.fields), ended)
                return
            if head.status < 200:
                self._stop(Failure(Fault.NO_HTTP, f"expected an answer, was a last {head.status}"), ended)
                return
            if len(head.fields) > limits.fields:
                self._stop(Failure(Fault.TOO_LARGE, f"expected at most {limits.fields} fields"), ended)
                return
            if fields.length > limits.body_bytes:
                self._stop(self._too_large(), ended)
                return
        if arrival.data:
            if not self._body:
                self._body = arrival.data
            else:
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += arrival.data
            if len(self._body) > limits.body_bytes:
                self._stop(self._too_large(), ended)
                return
        if arrival.ended:
            assert self._head is not None
            self._end(Answer(self._head.status, self._head.fields, bytes(self._body)))
        elif arrival.reset is not None:
            self._reset(arrival, arrival.reset)

    def _too_large(self) -> Failure:
        return Failure(Fault.TOO_LARGE, f"expected at most {self.resource.limits.body_bytes} bytes")

    def _reset(self, arrival: Arrival, code: int) -> None:
        link, stream = self.link, self.stream
        assert link is not None
        assert stream is not None
        if self._head is None and self.once_more(arrival):
            return
        name = Code(code).name if code in Code.__members__.values() else str(code)
        if self._head is not None:
            self._end(Failure(Fault.TRUNCATED, f"{len(self._body)} bytes of a body, then stream reset: {name}"))
        elif link.connection.outbound.reset_by_us(stream.id):
            self._end(Failure(Fault.NO_HTTP, f"stream reset by us: {name}"))  # for what was in its head
        else:
            self._end(Failure(Fault.UNREACHABLE, f"stream reset: {name}"))

    def cut(self, broken: bool, reason: str) -> None:
        if self._head is not None:
            self._end(Failure(Fault.TRUNCATED, f"{len(self._body)} bytes of a body, then: {reason}"))
        else:
            self._end(Failure(Fault.NO_HTTP if broken else Fault.UNREACHABLE, reason))

    def move(self) -> None:
        self._end(MOVED)

    def _stop(self, ending: Answer | Failure, ended: bool) -> None:
        """End before the stream does: nobody waits for the rest of it."""
        if ended:
            self._end(ending)
            return
        done = self.done
        self.cancel()
        if done is not None:
            done(ending)

    def _end(self, ending: Answer | Failure) -> None:
        done = self.let_go()
        if done is not None:
            done(ending)


def _head_of(fields: Fields) -> Head:
    known: Any = fields.meaning
    if known.__class__ is not Head:
        known = fields.meaning = Head(fields)
    head: Head = known
    return head

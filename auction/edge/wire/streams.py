# The life of a stream as a table (RFC 9113 section 5.1). Nothing else in this room knows which state follows which.

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

from auction.edge.wire.fields import Fields
from auction.edge.wire.frames import Code


class State(IntEnum):
    """Where a stream stands. There is no reserved state: push is refused in both roles."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2  # we have said all; the peer goes on
    HALF_CLOSED_REMOTE = 3  # the peer has said all; we go on
    CLOSED = 4


class Step(IntEnum):
    """What happens to a stream. Frames that change nothing are listed too, because they may be faults."""

    RECV_HEADERS = 0
    RECV_HEADERS_END = 1
    RECV_DATA = 2
    RECV_DATA_END = 3
    RECV_WINDOW_UPDATE = 4
    RECV_RST = 5
    SEND_HEADERS = 6
    SEND_HEADERS_END = 7
    SEND_DATA = 8
    SEND_DATA_END = 9
    SEND_RST = 10


class Scope(IntEnum):
    """How far a fault of the peer reaches."""

    STREAM = 0
    CONNECTION = 1


Fault = tuple[Scope, Code]

_IDLE: Final[Fault] = (Scope.CONNECTION, Code.PROTOCOL_ERROR)
_ENDED: Final[Fault] = (Scope.STREAM, Code.STREAM_CLOSED)
_CLOSED: Final[Fault] = (Scope.CONNECTION, Code.STREAM_CLOSED)
# What we may not do ourselves: an assertion of ours, never the peer's doing.
_OURS: Final = None

# One row a state, one column a step, in the order of the enumerations. A cell is the next state, the peer's fault, or
# None where it is us who must not.
TABLE: Final[tuple[tuple[State | Fault | None, ...], ...]] = (
    (  # IDLE
        State.OPEN,
        State.HALF_CLOSED_REMOTE,
        _IDLE,
        _IDLE,
        _IDLE,
        _IDLE,
        State.OPEN,
        State.HALF_CLOSED_LOCAL,
        _OURS,
        _OURS,
        _OURS,
    ),
    (  # OPEN
        State.OPEN,
        State.HALF_CLOSED_REMOTE,
        State.OPEN,
        State.HALF_CLOSED_REMOTE,
        State.OPEN,
        State.CLOSED,
        State.OPEN,
        State.HALF_CLOSED_LOCAL,
        State.OPEN,
        State.HALF_CLOSED_LOCAL,
        State.CLOSED,
    ),
    (  # HALF_CLOSED_LOCAL
        State.HALF_CLOSED_LOCAL,
        State.CLOSED,
        State.HALF_CLOSED_LOCAL,
        State.CLOSED,
        State.HALF_CLOSED_LOCAL,
        State.CLOSED,
        _OURS,
        _OURS,
        _OURS,
        _OURS,
        State.CLOSED,
    ),
    (  # HALF_CLOSED_REMOTE
        _ENDED,
        _ENDED,
        _ENDED,
        _ENDED,
        State.HALF_CLOSED_REMOTE,
        State.CLOSED,
        State.HALF_CLOSED_REMOTE,
        State.CLOSED,
        State.HALF_CLOSED_REMOTE,
        State.CLOSED,
        State.CLOSED,
    ),
    (  # CLOSED: a late WINDOW_UPDATE or RST_STREAM is nobody's fault
        _CLOSED,
        _CLOSED,
        _CLOSED,
        _CLOSED,
        State.CLOSED,
        State.CLOSED,
        _OURS,
        _OURS,
        _OURS,
        _OURS,
        State.CLOSED,
    ),
)


class Arrival(msgspec.Struct, eq=False):
    """All that one read brought on one stream: its header fields, octets, trailers, end, or its reset.

    `reset` is the peer's code, or ours where the peer broke a rule; `sent_away`: by GOAWAY, so the peer never began it.
    A stream is heard of once a read, so a whole unary call is one of these when it arrived at once. `data` is a
    bytearray when it came in several frames.
    """

    stream: Stream
    fields: Fields | None = None
    data: bytes | bytearray = b""
    trailers: Fields | None = None
    ended: bool = False
    reset: int | None = None
    sent_away: bool = False


class Stream(msgspec.Struct, eq=False):
    """One stream of a connection. `context` belongs to whoever uses it."""

    id: int
    state: State
    send_window: int
    recv_window: int
    headed: bool = False
    """The peer's final header fields have come; what follows are data and trailers."""
    expected: int = -1
    """Octets that its content-length still promises; -1 promises nothing."""
    context: Any = None
    arrival: Arrival | None = None
    """Of the read that is being taken in."""
    muted: bool = False
    """Nobody listens any more: what comes is counted and dropped."""
    queue: list[bytes] | None = None
    """What waits for a window."""
    queue_end: bytes | None = None
    """What ends it: a header block of trailers, or nothing but the flag."""

# What arbitrary octets are thrown at, and what must hold whatever they are:
#
#   only what a protocol names    nothing is raised but the protocol's own faults, which end up as events
#   bounded work                  calls of functions, ours and C's, at most so many for each octet: no hang
#   bounded memory                what the connection still refers to afterwards, at most so much: no growth
#   cut anywhere                  the same events and the same octets due, in whatever reads they came
#
# A target takes the octets in pieces, and tells what it heard as plain values, and what is to be weighed.

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from hpack.exceptions import HPACKError
from hpack.hpack import Decoder

from auction.edge.wire import frames
from auction.edge.wire.calls import Call
from auction.edge.wire.control import Event
from auction.edge.wire.fields import LIST_GRACE, Blocks, block
from auction.edge.wire.frames import ACK, ConnectionFault
from auction.edge.wire.h2 import Connection
from auction.edge.wire.heads import RequestHead
from auction.edge.wire.http1.client import ClientConnection
from auction.edge.wire.http1.errors import Failure, Refused
from auction.edge.wire.http1.messages import Answer
from auction.edge.wire.http1.messages import Limits as HttpLimits
from auction.edge.wire.http1.server import ServerConnection, Whole
from auction.edge.wire.messages import Reader, Unreadable
from auction.edge.wire.statuses import Ending
from auction.edge.wire.streams import Arrival, State
from tests.wirefuzz import clients
from tests.wirefuzz.clients import BOUNDS, SMALL

Told = tuple[list[Any], object]
Target = Callable[[list[bytes]], Told]

# Small, so that short inputs reach them.
HTTP = HttpLimits(body_bytes=2_000, head_bytes=300, fields=20, chunks=50)

# Calls of functions. An octet may be a field of a header block, decoded, matched and kept; a frame is nine.
CALLS_AT_LEAST: Final = 20_000
CALLS_PER_OCTET: Final = 100

# A remembered header block is an octet long at the least and a kilobyte as objects, and 256 are remembered; beside
# that there are 32 KiB of a block that is not whole, a frame of 16 KiB, and what ten streams may send ahead.
HELD_BYTES_MAX: Final = 600_000

REQUEST = block(
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b"content-type", b"application/grpc")]
)
ANSWER = block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = block([(b"grpc-status", b"0")])


def h2_server(pieces: list[bytes], answers: bool = False) -> Told:
    """Be asked over HTTP/2, and answer all that ended or, so that reads can be cut, nothing."""
    connection = Connection(False, SMALL)
    connection.receive(frames.PREFACE + frames.settings({}) + frames.head(0, frames.SETTINGS, ACK, 0))
    return _h2(connection, pieces, answers), connection


def h2_raw(pieces: list[bytes]) -> Told:
    """Be connected to by anybody, from the first octet on."""
    connection = Connection(False, SMALL)
    return _h2(connection, pieces, False), connection


def h2_client(pieces: list[bytes]) -> Told:
    """Ask over HTTP/2: once with a body that does not fit into the window, once without, once as a dialogue."""
    connection = Connection(True, SMALL)
    connection.receive(frames.settings({}))
    connection.request(REQUEST, b"x" * 70_000)
    connection.request(REQUEST, b"")
    connection.send_data(connection.request(REQUEST), b"abc")
    return _h2(connection, pieces, False), connection


def _h2(connection: Connection, pieces: list[bytes], answers: bool) -> list[Any]:
    streams: dict[int, list[Any]] = {}
    others: list[Any] = []
    due = connection.take()
    for piece in pieces:
        for event in connection.receive(piece):
            _join(event, streams, others)
            if not answers or not isinstance(event, Arrival) or not event.ended:
                continue
            if event.stream.state is State.HALF_CLOSED_REMOTE:
                connection.send(event.stream, ANSWER, b"y" * 2_000, TRAILERS)
        due += connection.take()
        assert len(connection.streams) <= SMALL.streams
    return [streams, others, due]


def _join(event: Event, streams: dict[int, list[Any]], others: list[Any]) -> None:
    if not isinstance(event, Arrival):
        others.append(event)
        return
    one = streams.setdefault(event.stream.id, [None, b"", None, False, None])
    assert one[0] is None or event.fields is None, "header fields twice"
    assert not one[3] or event.reset is not None, "something after the end"
    one[0] = event.fields.pairs if event.fields is not None else one[0]
    one[1] += event.data
    one[2] = event.trailers.pairs if event.trailers is not None else one[2]
    one[3] |= event.ended
    one[4] = event.reset if event.reset is not None else one[4]


def framed(octets: bytes) -> bytes:
    """Make frames whose lengths hold of any octets: kind, flags, stream, length, then the payload."""
    out, at = [], 0
    while at + 4 <= len(octets):
        kind, flags, stream_id, length = octets[at : at + 4]
        payload = octets[at + 4 : at + 4 + length]
        out.append(frames.head(len(payload), kind % 12, flags, stream_id % 16) + payload)
        at += 4 + length
    return b"".join(out)


def blocks(pieces: list[bytes]) -> Told:
    """Decode header blocks, each behind its length, with the memory of blocks and without."""
    octets = b"".join(pieces)
    ours, theirs = Blocks(SMALL.header_list_bytes), Decoder(max_header_list_size=LIST_GRACE * SMALL.header_list_bytes)
    told: list[Any] = []
    at = 0
    while at < len(octets):
        one = octets[at + 1 : at + 1 + octets[at]]
        at += 1 + octets[at]
        try:
            fields = ours.read(one)
        except ConnectionFault as fault:
            told.append(fault.code)
            break
        told.append(fields.pairs)
        told.append([fields.fault(kind) for kind in ("request", "response", "trailers")])
        try:
            plain = tuple((bytes(name), bytes(value)) for name, value in theirs.decode(one, raw=True))
        except (HPACKError, IndexError, ValueError) as fault:
            raise AssertionError(f"remembered as a block, and is none: {fault}") from fault
        assert plain == fields.pairs
    return told, ours


def messages(pieces: list[bytes], encoding: bytes = b"gzip") -> Told:
    """Read gRPC messages."""
    reader = Reader(BOUNDS, encoding)
    told: list[Any] = []
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                assert len(message) <= BOUNDS.octets
                told.append(message)
        told.append(reader.rest)
    except Unreadable as fault:
        told.append((fault.status, str(fault)))
    return told, reader


class Callee:
    """Takes calls of one connection, and holds what it heard."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.kept = 0

    def due(self) -> None: ...

    def holds(self, octets: int) -> bool:
        self.kept += octets
        return self.kept <= BOUNDS.octets * 2

    def whole(self, call: Call) -> None: ...

    def unary(self, call: Call) -> None:
        self.told.append(call.body)
        call.answer(call.body)

    def dialogue(self, call: Call) -> None:
        call.on_message, call.on_end = self.told.append, call.finish


def calls(pieces: list[bytes], dialogue: bool = False) -> Told:
    """Be asked by a caller whose messages are these octets, and answer when all was said."""
    client, server, callee = Connection(True), Connection(False), Callee()
    for one, other in ((client, server), (server, client), (client, server)):
        other.receive(one.take())
    stream = client.request(REQUEST)
    ending: Ending | None = None
    for piece in [*pieces, None]:
        if stream.state in (State.OPEN, State.HALF_CLOSED_REMOTE):
            client.send_data(stream, piece or b"", piece is None)
        for event in server.receive(client.take()):
            if isinstance(event, Arrival):
                _called(event, server, callee, dialogue)
        for event in client.receive(server.take()):
            if isinstance(event, Arrival) and (last := event.trailers or event.fields) is not None and event.ended:
                ending = Ending(last)
    assert ending is not None, "a call without an end"
    return [callee.told, ending.status, ending.message], server


def _called(arrival: Arrival, server: Connection, callee: Callee, dialogue: bool) -> None:
    if arrival.fields is not None:
        methods = ({}, {"/a": callee.dialogue}) if dialogue else ({"/a": callee.unary}, {})
        head = RequestHead(arrival.fields, *methods)
        arrival.stream.context = Call(callee, server, arrival.stream, head, BOUNDS)
        arrival.stream.context.begin(arrival)
    elif arrival.stream.context is not None:
        arrival.stream.context.more(arrival)


def http1_server(pieces: list[bytes]) -> Told:
    """Be asked over HTTP/1.1; everything is answered as soon as it is whole."""
    connection = ServerConnection(HTTP)
    told: list[Any] = []
    for piece in pieces:
        for event in connection.receive(piece):
            if isinstance(event, Refused):
                told.append((event.status, event.reason))
                continue
            request = event.request
            if isinstance(event, Whole):
                assert request.body is not None
                assert len(request.body) <= HTTP.body_bytes
                told.append(request.body)
            else:
                told.append((request.method, request.target, dict(request.fields), request.length, request.keep))
    return told, connection


def http1_client(pieces: list[bytes]) -> Told:
    """Ask over HTTP/1.1 again and again, as long as the connection is fit for it."""
    connection = ClientConnection(HTTP)
    connection.ask()
    endings: list[Any] = [*map(connection.receive, pieces), connection.eof()]
    told: list[Any] = []
    for ending in endings:
        if isinstance(ending, Answer):
            assert len(ending.body) <= HTTP.body_bytes
            told.append((ending.status, dict(ending.fields), ending.body))
        elif isinstance(ending, Failure):
            told.append((ending.fault, ending.detail))
    assert 1 == len(told), "one exchange has one end"
    assert not connection.fit
    return told, connection


# With what makes octets of an input: frames with lengths that hold, or what is there.
TARGETS: dict[str, tuple[Callable[[bytes], bytes], Target]] = {
    "h2_raw": (bytes, h2_raw),
    "h2_server": (framed, h2_server),
    "h2_client": (framed, h2_client),
    "blocks": (bytes, blocks),
    "messages": (bytes, messages),
    "calls": (bytes, calls),
    "dialogues": (bytes, partial(calls, dialogue=True)),
    "http1_server": (bytes, http1_server),
    "http1_client": (bytes, http1_client),
    "asks": (framed, clients.asks),
    "away": (framed, clients.away),
    "talks": (framed, clients.talks),
}


def check(name: str, data: bytes) -> None:
    """Throw an input at a target; AssertionError, or whatever was raised, is a find."""
    made, target = TARGETS[name]
    octets = made(data)
    with Counted() as work:
        told, held = target([octets])
    assert work.calls <= CALLS_AT_LEAST + CALLS_PER_OCTET * len(octets), f"{work.calls} calls for {len(octets)} octets"
    weight = weighed(held)
    assert weight <= HELD_BYTES_MAX, f"{weight} octets are held after {len(octets)}"
    for pieces in cuts(octets):
        again, _ = target(pieces)
        assert told == again, f"cut into {[len(piece) for piece in pieces][:20]}: {again!r:.300}, whole: {told!r:.300}"
    if name == "h2_server":
        h2_server([octets], True)
    if name == "talks":
        for pieces in ([octets], *cuts(octets)):
            clients.talks(pieces, True)


def cuts(octets: bytes) -> Iterator[list[bytes]]:
    """Cut octets in two, in small pieces of a few sizes, and one by one where that is not long."""
    half = len(octets) // 2
    yield [octets[:half], octets[half:]]
    for size in (1,) if len(octets) <= 300 else (7, 1_000):
        yield [octets[at : at + size] for at in range(0, len(octets), size)]


class Counted:
    """Counts calls of functions while it is entered."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Counted:
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")


_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def weighed(root: object) -> int:
    """Add up what is reachable from an object, but for code."""
    seen, queue, total = {id(root)}, [root], 0
    while queue:
        one = queue.pop()
        total += sys.getsizeof(one)
        for inner in gc.get_referents(one):
            if id(inner) not in seen and not isinstance(inner, _SHARED):
                seen.add(id(inner))
                queue.append(inner)
    return total

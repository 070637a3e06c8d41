# The sending half of a connection: frames into one list, as far as the peer's windows allow, the rest in queues.

from __future__ import annotations

from typing import Final

from auction.edge.wire import frames
from auction.edge.wire.fields import NO_TABLE
from auction.edge.wire.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Code
from auction.edge.wire.limits import ENDED_REMEMBERED, QUEUED_BYTES_MAX
from auction.edge.wire.streams import TABLE, State, Step, Stream

_head: Final = frames.HEAD.pack
_CLOSED, _HEADERS_END, _DATA_END = State.CLOSED, Step.SEND_HEADERS_END, Step.SEND_DATA_END

# A frame of queued data this long counts as a message when idle frames are weighed against messages: it may have been
# worth a WINDOW_UPDATE or two. What is shorter was let out octet by octet.
WORTH_BYTES: Final = 1_024


class Outbound:
    """What leaves a connection. `out` is what is due; `queued` octets wait for the peer to open a window.

    Whoever sends on a stream sees to it that it has not ended; a reset may end it at any time.
    """

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.streams: dict[int, Stream] = {}
        self.send_window = frames.WINDOW_DEFAULT
        self.peer_window = frames.WINDOW_DEFAULT
        self.peer_frame = frames.FRAME_DEFAULT
        self.peer_streams = frames.STREAM_MAX
        self.lead = True  # the next header block is the first
        self.queued = 0
        self.progress = False  # something left a queue since the last tick
        self.useful = 0  # what left that is worth an answer
        self._waiting: dict[int, Stream] = {}  # those whose own window is open, in turn
        self._ended: dict[int, bool] = {}  # streams that did not end in order: True where it was us who reset them
        self._forgotten = 0  # up to here such streams may be forgotten

    def take(self) -> bytes:
        """Give what is due, and forget it."""
        out = self.out
        if len(out) == 1:
            octets = out[0]
            out.clear()
            return octets
        octets = b"".join(out)
        out.clear()
        return octets

    def fits(self, size: int, window: int, block: int) -> bool:
        """Whether a header block and so many octets may leave now, each in one frame."""
        most = self.peer_frame
        return size <= window and size <= self.send_window and size <= most and block <= most and not self.lead

    def send(self, stream: Stream, block: bytes, data: bytes | None = None, trailers: bytes | None = None) -> None:
        """Send header fields; with `data` the whole message, ended by `trailers` where there are some."""
        if (
            data
            and trailers
            and stream.queue is None
            and self.fits(len(data), stream.send_window, max(len(block), len(trailers)))
        ):
            # All of it at once, as nearly always.
            stream_id, size = stream.id, len(data)
            stream.send_window -= size
            self.send_window -= size
            self.useful += 1
            self.out += (
                _head(0, len(block), HEADERS, END_HEADERS, stream_id),
                block,
                _head(0, size, DATA, 0, stream_id),
                data,
                _head(0, len(trailers), HEADERS, END_HEADERS | END_STREAM, stream_id),
                trailers,
            )
            self.step(stream, _HEADERS_END)
            return
        if self.lead:
            block, self.lead = NO_TABLE + block, False
        out = self.out
        if len(block) <= self.peer_frame:
            out.append(_head(0, len(block), HEADERS, END_HEADERS, stream.id))
            out.append(block)
        else:
            self._long_block(stream.id, block, 0)
        if data is not None:
            self.send_data(stream, data, True, trailers)

    def end(self, stream: Stream, block: bytes) -> None:
        """End a stream by a header block: trailers, or a response that is nothing else."""
        if stream.queue is not None:
            stream.queue_end = block
            return
        if self.lead:
            block, self.lead = NO_TABLE + block, False
        self._long_block(stream.id, block, END_STREAM)
        self.useful += 1
        self.step(stream, _HEADERS_END)

    def send_data(self, stream: Stream, data: bytes, end: bool = False, trailers: bytes | None = None) -> bool:
        """Send octets now, or as the peer's windows open; False: more would wait than may, and the stream is reset."""
        size = len(data)
        if stream.queue is not None or (
            size and (size > stream.send_window or size > self.send_window or size > self.peer_frame)
        ):
            return self._enqueue(stream, data, end, trailers)
        stream.send_window -= size
        self.send_window -= size
        out = self.out
        if trailers is not None:
            if size:
                out.append(_head(size >> 16, size & 0xFFFF, DATA, 0, stream.id))
                out.append(data)
            if len(trailers) <= self.peer_frame:
                out.append(_head(0, len(trailers), HEADERS, END_HEADERS | END_STREAM, stream.id))
                out.append(trailers)
            else:
                self._long_block(stream.id, trailers, END_STREAM)
            self.useful += 1
            self.step(stream, _HEADERS_END)
        else:
            out.append(_head(size >> 16, size & 0xFFFF, DATA, END_STREAM if end else 0, stream.id))
            out.append(data)
            if end:
                self.useful += 1
                self.step(stream, _DATA_END)
        return True

    def opened(self, stream: Stream | None) -> None:
        """Send what a larger window lets out: of one stream, or of all that wait for the connection's."""
        if stream is not None and stream.queue and stream.send_window > 0:
            self._waiting[stream.id] = stream
        waiting = self._waiting
        while waiting and self.send_window > 0:
            stream_id = next(iter(waiting))
            stream = waiting.pop(stream_id)
            if stream.send_window > 0:
                self._let_out(stream)
            if stream.queue and stream.send_window > 0:
                waiting[stream_id] = stream  # behind the others: a long message does not hold up short ones

    def reset(self, stream: Stream, code: int = Code.CANCEL) -> None:
        """Take a stream back; nothing more is heard of it. One that has ended is left alone."""
        if stream.state is not State.CLOSED:
            self.out.append(frames.rst_stream(stream.id, code))
            self.remember(stream.id, True)
            self.drop(stream)

    def remember(self, stream_id: int, by_us: bool) -> None:
        """Note that a stream did not end in order, as frames may still be under way."""
        ended = self._ended
        if len(ended) >= ENDED_REMEMBERED:
            oldest = next(iter(ended))
            del ended[oldest]
            self._forgotten = max(self._forgotten, oldest)
        ended[stream_id] = by_us

    def reset_by_us(self, stream_id: int) -> bool | None:
        """Tell whose reset ended a stream; None where neither's did. What is long ago was ours."""
        ended = self._ended.get(stream_id)
        return True if ended is None and stream_id <= self._forgotten else ended

    def drop(self, stream: Stream) -> None:
        """Forget a stream that was reset, and what of it has not left."""
        stream.state = State.CLOSED
        self.streams.pop(stream.id, None)
        if stream.queue is not None:
            self.queued -= sum(map(len, stream.queue))
            stream.queue = stream.queue_end = None
            self._waiting.pop(stream.id, None)

    def step(self, stream: Stream, step: Step) -> None:
        """Move a stream on, and forget it once both sides have said all."""
        after = TABLE[stream.state][step]
        assert isinstance(after, State), (stream.state, step)
        stream.state = after
        if after is _CLOSED:
            del self.streams[stream.id]

    def _enqueue(self, stream: Stream, data: bytes, end: bool, trailers: bytes | None) -> bool:
        if self.queued and self.queued + len(data) > QUEUED_BYTES_MAX:
            self.reset(stream, Code.ENHANCE_YOUR_CALM)
            return False
        if stream.queue is None:
            stream.queue = []
        if data:
            stream.queue.append(data)
        self.queued += len(data)
        if end:
            stream.queue_end = trailers or b""
        if stream.send_window > 0:
            self._waiting[stream.id] = stream
            self.opened(None)
        return True

    def _let_out(self, stream: Stream) -> None:
        """Send one frame of a queue, and the end behind the last."""
        queue = stream.queue
        assert queue is not None
        size = min(len(queue[0]), stream.send_window, self.send_window, self.peer_frame)
        octets, rest = queue[0][:size], queue[0][size:]
        if rest:
            queue[0] = rest
        else:
            del queue[0]
        stream.send_window -= size
        self.send_window -= size
        self.queued -= size
        self.progress = True
        if size >= WORTH_BYTES:
            self.useful += 1
        last = not queue and stream.queue_end is not None
        flag = END_STREAM if last and not stream.queue_end else 0
        self.out.append(frames.head(size, DATA, flag, stream.id) + octets)
        if queue:
            return
        stream.queue = None
        if flag:
            self.useful += 1
            self.step(stream, _DATA_END)
        elif last:
            block, stream.queue_end = stream.queue_end, None
            assert block is not None
            self.end(stream, block)

    def _long_block(self, stream_id: int, block: bytes, flags: int) -> None:
        """Write a header block of any length, cut where the peer wants it."""
        parts = [block[at : at + self.peer_frame] for at in range(0, len(block), self.peer_frame)] or [b""]
        for number, part in enumerate(parts):
            kind = CONTINUATION if number else HEADERS
            ends = END_HEADERS if number == len(parts) - 1 else 0
            self.out.append(frames.head(len(part), kind, ends | (0 if number else flags), stream_id) + part)

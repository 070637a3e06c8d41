# Our side of a trial: a server that says everything back, and a channel that asks for every size in every way.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from auction.edge.tls import ClientContexts, Files, ServerContexts
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds
from auction.edge.wire.server import Server
from auction.edge.wire.statuses import Status

TLS = Path(__file__).parent.parent / "data" / "tls"
AUTHORITY = TLS / "authority.pem"
# Ours, and the other side's where both show who they are.
CERTIFICATE, KEY = TLS / "first.pem", TLS / "first.key"
OTHER_CERTIFICATE, OTHER_KEY = TLS / "second.pem", TLS / "second.key"

SAY, TALK = "/interop.Echo/Say", "/interop.Echo/Talk"

# Nothing, one octet, a frame, a window of RFC 9113, several windows, the limit. As peer.go has them.
LARGEST = 4_194_304
SIZES = (0, 1, 16_384, 65_536, 1_000_000, LARGEST)
# The pattern below is squeezed to a thousandth; what a bomb is, is not the question here.
BOUNDS = Bounds(octets=LARGEST, ratio=2_000)

# All sizes of one way together, on a machine that is busy with other things.
PATIENCE_S = 60.0


class Way(StrEnum):
    """How two sides are connected."""

    PLAINTEXT = "plaintext"
    TLS = "TLS"
    MUTUAL = "mutual TLS"


class Fault(Exception):
    """A peer and we disagree: on what, or what the peer said of it."""


class Absent(Exception):
    """A program is not here: which, and where it comes from."""


def pattern(size: int) -> bytes:
    """Make a message whose every octet has its place. It is peer.go's."""
    return bytes(at * at >> 3 & 0xFF for at in range(2_048)) * (size // 2_048) + bytes(
        at * at >> 3 & 0xFF for at in range(size % 2_048)
    )


class Echo:
    """Our server and how many calls of `SAY` it has answered."""

    def __init__(self) -> None:
        self.said = 0
        self.server = Server(
            {SAY: self._say},
            dialogues={TALK: self._talk},
            pages={"/": b"x" * 1_024},  # so large that no case of h2spec is skipped
            bounds=BOUNDS,
            limits=Limits(streams=100),
        )

    def _say(self, call: Call) -> None:
        self.said += 1
        call.answer(call.body)

    def _talk(self, call: Call) -> None:
        call.on_message, call.on_end = call.write, call.finish

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def echoing(way: Way) -> AsyncIterator[Echo]:
    """Serve for as long as the block runs."""
    echo = Echo()
    files = Files(CERTIFICATE, KEY, AUTHORITY if way is Way.MUTUAL else None)
    await echo.server.start(context=None if way is Way.PLAINTEXT else ServerContexts(["h2"], files)())
    try:
        yield echo
    finally:
        await echo.server.stop(0)


async def ask(port: int, way: Way) -> None:
    """Ask whoever listens there for every size, plain and gzip, unary and as a dialogue; Fault is the first difference.

    What is larger than the limit comes back to us, who refuse it.
    """
    ours = Files(OTHER_CERTIFICATE, OTHER_KEY, AUTHORITY) if way is Way.MUTUAL else Files(authorities=AUTHORITY)
    context = None if way is Way.PLAINTEXT else ClientContexts(["h2"], ours)
    channel = Channel("127.0.0.1", port, context=context, bounds=BOUNDS)
    await channel.open()
    try:
        for gzip in (False, True):
            await _ask(channel, gzip)
    finally:
        await channel.close()


async def _ask(channel: Channel, gzip: bool) -> None:
    heard: asyncio.Queue[bytes | tuple[Status, str]] = asyncio.Queue()
    say, talk = (channel.method(path, gzip=gzip) for path in (SAY, TALK))
    deadline = channel.now() + PATIENCE_S

    def answered(status: Status, body: bytes, words: str, ours: bool) -> None:
        heard.put_nowait((status, words) if status else body)

    dialogue = channel.dialogue(
        talk, heard.put_nowait, lambda status, words: heard.put_nowait((status, words)), deadline
    )
    if dialogue is None:
        raise Fault(f"no dialogue: {await heard.get()!r}")
    for size in SIZES:
        body = pattern(size)
        channel.unary(say, body, answered, deadline)
        same(body, await heard.get(), "", gzip)
        dialogue.write(body)
        same(body, await heard.get(), " of a dialogue", gzip)
    dialogue.finish()
    end = await heard.get()
    if end[0] is not Status.OK:
        raise Fault(f"the dialogue ended with {end!r:.200}")
    channel.unary(say, pattern(LARGEST + 1), answered, deadline)
    end = await heard.get()
    if end[0] is not Status.RESOURCE_EXHAUSTED:
        raise Fault(f"more than the largest message, gzip {gzip}: {end!r:.200}")


def same(body: bytes, answer: object, where: str, gzip: bool) -> None:
    """Compare what was said and what was heard."""
    if answer != body:
        heard = f"{len(answer)} octets, or others" if isinstance(answer, bytes) else repr(answer)
        raise Fault(f"{len(body)} octets{where}, gzip {gzip}: came back as {heard:.200}")

# `make interop`: the wire against programs that are not ours and not in Python. h2spec walks through the standard,
# grpc-go serves and asks. Both are built here from pinned versions where Go is present; where it is not, that is said.

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from auction.edge.tls import ClientContexts, Files, ServerContexts
from auction.edge.wire.calls import Call
from auction.edge.wire.channel import Channel
from auction.edge.wire.limits import Limits
from auction.edge.wire.messages import Bounds
from auction.edge.wire.server import Server
from auction.edge.wire.statuses import Status

HERE = Path(__file__).parent
BUILT = HERE.parent.parent / "var" / "interop"
TLS = HERE.parent / "data" / "tls"
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

# As the client of the other language does.
SIZES = (0, 1, 16_384, 65_536, 1_000_000, 4_000_000)
BOUNDS = Bounds(octets=4_194_304, ratio=2_000)

# h2spec waits so long for an answer; on a busy machine 4000 of them take more than its two seconds.
PATIENCE_S = 10


def echo_all(call: Call) -> None:
    """Say every message back."""
    call.on_message, call.on_end = call.write, call.finish


async def serving(tls: bool) -> Server:
    """Serve both methods, and a page of 1 KiB so that no case of h2spec is skipped."""
    server = Server(
        {"/interop.Echo/Say": lambda call: call.answer(call.body)},
        dialogues={"/interop.Echo/Talk": echo_all},
        pages={"/": b"x" * 1_024},
        bounds=BOUNDS,
        limits=Limits(streams=100),
    )
    files = Files(TLS / "first.pem", TLS / "first.key")
    await server.start(context=ServerContexts(["h2"], files)() if tls else None)
    return server


async def run(*words: str | Path) -> tuple[int, str]:
    """Run a program; give its code and all that it said."""
    environment = {**os.environ, "GOBIN": str(BUILT), "GOFLAGS": "-mod=mod"}
    process = await asyncio.create_subprocess_exec(
        *map(str, words), cwd=HERE, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")


async def built(name: str, *words: str | Path) -> Path:
    """Build a program where it is not there yet."""
    program = BUILT / name
    if not program.exists():
        print(f"building {name} ...", file=sys.stderr, flush=True)
        code, said = await run(*words)
        if code:
            raise SystemExit(f"cannot build {name}: {said}")
    return program


async def the_standard(tls: bool) -> str:
    """Have h2spec walk through generic, http2 and hpack; "" where every case passes."""
    program = await built("h2spec", "go", "install", H2SPEC)
    server = await serving(tls)
    try:
        secured = ("-t", "-k") if tls else ()
        where = ("-h", "127.0.0.1", "-p", str(server.port))
        code, said = await run(program, "--strict", *where, "-o", str(PATIENCE_S), *secured)
    finally:
        await server.stop(0)
    tally = next((line for line in said.splitlines() if " tests, " in line), "")
    print(f"    {tally}")
    return "" if not code and " 0 skipped, 0 failed" in tally else said[said.find("Failures") :]


async def a_client_in_go(tls: bool) -> str:
    """Have grpc-go ask us, plain and gzip, unary and dialogue."""
    program = await built("peer", "go", "build", "-o", BUILT / "peer", ".")
    server = await serving(tls)
    try:
        code, said = await run(program, "ask", f"localhost:{server.port}", *([TLS / "authority.pem"] if tls else []))
    finally:
        await server.stop(1)
    return said if code else ""


async def a_server_in_go(tls: bool) -> str:
    """Ask grpc-go, plain and gzip, unary and dialogue."""
    program = await built("peer", "go", "build", "-o", BUILT / "peer", ".")
    files = [TLS / "first.pem", TLS / "first.key"] if tls else []
    process = await asyncio.create_subprocess_exec(
        str(program), "serve", *map(str, files), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        context = ClientContexts(["h2"], Files(authorities=TLS / "authority.pem")) if tls else None
        channel = Channel("localhost", port, context=context, bounds=BOUNDS)
        await channel.open()
        try:
            return await asked(channel)
        finally:
            await channel.close()
    finally:
        process.terminate()
        await process.wait()


async def asked(channel: Channel) -> str:
    """Ask for every size in every way; give what came back otherwise."""
    heard: asyncio.Queue[bytes | Status] = asyncio.Queue()
    for gzip in (False, True):
        say, talk = (channel.method(f"/interop.Echo/{name}", gzip=gzip) for name in ("Say", "Talk"))
        deadline = channel.now() + 60
        dialogue = channel.dialogue(talk, heard.put_nowait, lambda status, words: heard.put_nowait(status), deadline)
        if dialogue is None:
            return f"no dialogue: {await heard.get()!r}"
        for size in SIZES:
            body = bytes(at * at >> 3 & 0xFF for at in range(size))
            channel.unary(
                say, body, lambda status, body, words, ours: heard.put_nowait(status if status else body), deadline
            )
            if (answer := await heard.get()) != body:
                return f"{size} octets, gzip {gzip}: {answer!r:.100}"
            dialogue.write(body)
            if (answer := await heard.get()) != body:
                return f"{size} octets of a dialogue, gzip {gzip}: {answer!r:.100}"
        dialogue.finish()
        if (end := await heard.get()) is not Status.OK:
            return f"the dialogue ended with {end!r:.100}"
    return ""


TRIALS: dict[str, Callable[[bool], Awaitable[str]]] = {
    "h2spec, strict": the_standard,
    "a client of grpc-go": a_client_in_go,
    "a server of grpc-go": a_server_in_go,
}


async def main() -> int:
    """Run every trial over plaintext and TLS; print a line each."""
    if shutil.which("go") is None:
        print("skipped: Go is not here, and h2spec and grpc-go are built with it")
        return 0
    BUILT.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, trial in TRIALS.items():
        for tls in (False, True):
            fault = await trial(tls)
            failed += bool(fault)
            print(f"{'FAILED' if fault else 'passed'}: {name}, {'TLS' if tls else 'plaintext'}", flush=True)
            if fault:
                print(fault)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))

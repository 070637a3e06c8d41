# One exchange as a process: started in order, told its rules anew while it runs, and stopped without losing anything.
#
# Start: configuration -> kernels loaded -> rates asked for, where there are none -> rules compiled -> bidders connected
# -> log opened -> ports bound -> serving.
# Whoever asks before the last step hears "not serving"; whatever may fail has failed before it, so that a rollout stops
# at the first bad process. Nothing is compiled afterwards, neither rules during an auction nor kernels ever.
#
# Reload: the next auction sees the new configuration whole, or nobody sees any of it. The file is read again and
# compared, because a ConfigMap is swapped by a symbolic link and sends no signal; it counts as changed when two
# readings in a row agree, since half a file that an editor is writing may be a valid file with fewer bidders.
#
# Rates: their source is asked in the background, and what it gives becomes other rules for the next auction. One task
# changes what is in force, so that a reload and a snapshot never overtake each other; why a reload keeps a snapshot and
# what a stale one is: docs/decisions/fx.md.
#
# Stop: not serving, and for a while as before -> ports closed -> auctions in flight answered -> log flushed ->
# connections dropped -> exit. What callers see of each step: docs/decisions/stopping.md.


from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from auction.presence import Presence
from auction.server.ports import Unstartable
from auction.server.server import LOG_SHARE, Server

__all__ = ["LOG_SHARE", "Unstartable", "run"]

_log = logging.getLogger("auction.server")


def run(
    path: Path | None,
    environ: Mapping[str, str],
    announce: Callable[[Presence], None],
    worker: Path | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 0, or 1 where records were lost on the way out.

    `announce` is told once, when the exchange is ready. SIGHUP reloads; a second SIGTERM or SIGINT ends the process
    where it stands. A worker shares its ports with others, tells its supervisor what it counts in the file `worker` and
    of itself beside it, and drains when standard input ends. Raises ConfigFaults and Unstartable before anything is
    served.
    """
    server = Server(path, environ, worker)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(server, announce))


async def _serve(server: Server, announce: Callable[[Presence], None]) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        _log.info("draining", extra={"fields": {"signal": number.name}})
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    # Before start as well: somebody who signals too early must not end the process with it.
    loop.add_signal_handler(signal.SIGHUP, server.ask_to_reload)
    if server.worker is not None:

        def orphaned() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin)
                if not stopping.is_set():
                    stop(signal.SIGTERM)

        loop.add_reader(sys.stdin, orphaned)
    try:
        await server.start()
        announce(server.presence)
        await stopping.wait()
    finally:
        complete = await server.stop()
    return 0 if complete else 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Not on every platform; the loop of the standard library does the same, slower.
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

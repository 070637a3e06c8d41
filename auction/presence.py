# How another process of this machine finds a running exchange, and learns what became of what it asked.
#
# A signal carries no answer, and a port for commands would be one more door to guard. So a server keeps one small file,
# DIRECTORY/PID.json, in a directory that only its own user may enter, and locks it while it lives: a file that nobody
# locks was left by a process that is gone, and a signal to its number would hit a stranger. Whoever wants more than
# this file says asks for metrics.

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import msgspec


class Presence(msgspec.Struct, frozen=True):
    """What a server tells: where it listens, and how the last of its `reloads` went (`faults` empty: applied)."""

    pid: int
    grpc: str
    http: str
    log: str | None
    rules: str
    reloads: int = 0
    faults: tuple[str, ...] = ()


class Sign:
    """The file of this process. Raises OSError where it cannot be made, or its directory is somebody else's."""

    def __init__(self, directory: Path | None = None) -> None:
        directory = directory or default_directory()
        directory.mkdir(mode=0o700, exist_ok=True)
        owner = directory.stat()
        if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
            raise PermissionError(f"{directory}: expected a directory that only this user may enter")
        self._path = directory / f"{os.getpid()}.json"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Waits for a reader that is just looking, and for nobody else: a process id has one owner.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._longest = 0

    def tell(self, presence: Presence) -> None:
        """Write what there is to tell."""
        # In place, not beside it and renamed: the lock is the file's. And in one write, with spaces over what was
        # longer: a reader that comes between two would take us for gone.
        text = msgspec.json.encode(presence).ljust(self._longest)
        self._longest = len(text)
        os.pwrite(self._file, text, 0)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def running(directory: Path | None = None) -> list[Presence]:
    """List the exchanges that this user runs here, by process id."""
    found = []
    for path in sorted((directory or default_directory()).glob("*.json")):
        presence = _read(path)
        if presence is not None:
            found.append(presence)
    return found


def default_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"auction-{os.getuid()}"


# A write is one call of the system; not every file system keeps a reader out of its middle.
_READS = 10


def _read(path: Path) -> Presence | None:
    for _ in range(_READS):
        try:
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return msgspec.json.decode(file.read(), type=Presence)
                return None  # Nobody holds it: left behind.
        except OSError:
            return None
        except msgspec.DecodeError:
            continue
    return None

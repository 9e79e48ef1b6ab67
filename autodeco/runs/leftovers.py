"""What runs leave in a folder when they are killed: unfinished files and folders, which the next run there removes.

Each is locked by the process that writes it. Locks are the operating system's and end with the process, however that
ends: what no process holds is a leftover.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from autodeco.runs.names import beside
from autodeco.terminal import say

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.(part|scratch)", re.DOTALL)
_seen: set[str] = set()  # folders that this process has looked through


def make_held(path: Path, make: Callable[[Path], None], kind: str) -> tuple[Path, int]:
    """Make a file or folder for what will become ``path``, ``make`` is given its path; return that, and a descriptor
    that holds its lock until it is closed.

    ``kind`` is "part" or "scratch", and ends the name. What killed runs left in the folder is removed first, and named
    on stderr, once a process."""
    remove_leftovers(path.parent)
    while True:
        made = beside(path, ".", f".{secrets.token_hex(4)}.{kind}")
        make(made)
        descriptor = _held(made)
        if descriptor is not None:
            return made, descriptor


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left in ``folder`` and name it on stderr, the first time that this process asks."""
    place = os.path.realpath(folder)
    if place in _seen:
        return
    _seen.add(place)
    removed, size = [], 0
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if _UNFINISHED.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(OSError):
                    size += _removed(Path(entry.path))
                    removed.append(entry.name)
    if removed:
        names = ", ".join(removed)
        say(f"{folder}: removed what killed runs had left ({size / 1e6:.1f} MB): {names}", file=sys.stderr)


def _removed(path: Path) -> int:
    """Remove a leftover and return its bytes; raises BlockingIOError while a process holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        else:
            size = path.stat().st_size
            path.unlink()
        return size
    finally:
        os.close(descriptor)


def _held(path: Path) -> int | None:
    """Return a descriptor that holds the lock of a new file; None if another process took it for a leftover."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks: nothing there is ever taken for a leftover
        return descriptor
    if os.path.lexists(path):  # no other process removes it now
        return descriptor
    os.close(descriptor)
    return None

"""What runs leave in a folder when they are killed: unfinished files and folders, which the next run there removes.

Each is held by the process that writes it (``holds``): what no process holds is a leftover.
"""

import contextlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from autodeco.runs.holds import hold
from autodeco.runs.names import beside
from autodeco.terminal import say

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.(part|scratch)", re.DOTALL)
_seen: set[str] = set()  # folders that this process has looked through


def make_held(path: Path, make: Callable[[Path], None], kind: str) -> tuple[Path, Callable[[], None]]:
    """Make a file or folder for what will become ``path``, ``make`` is given its path; return that, and what lets go
    of it.

    ``kind`` is "part" or "scratch", and ends the name. What killed runs left in the folder is removed first, and named
    on stderr, once a process."""
    remove_leftovers(path.parent)
    while True:
        made = beside(path, ".", f".{secrets.token_hex(4)}.{kind}")
        make(made)
        let_go = _held(made)
        if let_go is not None:
            return made, let_go


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
    let_go = hold(path)
    try:
        if path.is_dir():
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            shutil.rmtree(path)
        else:
            size = path.stat().st_size
            path.unlink()
        return size
    finally:
        let_go()


def _held(path: Path) -> Callable[[], None] | None:
    """Hold a new file or folder and return what lets it go; None if another process took it for a leftover."""
    try:
        let_go = hold(path)
    except (FileNotFoundError, BlockingIOError):
        return None
    except OSError:  # a file system without locks: nothing there is ever taken for a leftover
        return lambda: None
    if os.path.lexists(path):  # no other process removes it now
        return let_go
    let_go()
    return None

"""One process at a time where a long command writes.

Locks are the operating system's, on files of their own: they end with the process, however that ends.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

from autodeco.errors import InputError
from autodeco.runs.names import beside

OPEN_FILES_STAY = sys.platform == "win32"  # there a held lock's file cannot be removed


@contextlib.contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Make ``folder`` if it is not there, and hold its lock, the file ``.lock`` in it, while the body runs.

    Raises InputError if another process holds it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with _held(Path(folder) / ".lock", folder):
        yield


@contextlib.contextmanager
def locked_file(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of the file ``path``, which need not exist, while the body runs; its folder is made.

    The lock is a hidden file beside it, and goes when the body has ended without an exception: ``path`` then exists,
    and who gets the lock next must look for it. Raises InputError if another process holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = beside(path, ".", ".lock")
    with _held(place, path):
        yield
        if not OPEN_FILES_STAY:
            place.unlink()
    if OPEN_FILES_STAY:
        with contextlib.suppress(OSError):  # another process holds it already
            place.unlink()


@contextlib.contextmanager
def _held(place: Path, what: str | os.PathLike) -> Iterator[None]:
    lock = filelock.FileLock(place)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"{what}: another process writes there; wait until it ends, or name another place") from None
    try:
        yield
    finally:
        lock.release()

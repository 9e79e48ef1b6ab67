"""One process at a time where a long command writes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from autodeco.errors import InputError


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of the file or folder ``path`` while the body runs; it need not exist, but its folder must.

    Raises InputError if another process holds it. The lock is one of the operating system, on a file that stays: in a
    folder it is ``.lock``, beside a file it is named for the file. It ends with the process, however that ends.
    """
    path = Path(path)
    place = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    lock = filelock.FileLock(place)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"{path}: another process writes there; wait until it ends, or name another place") from None
    try:
        yield
    finally:
        lock.release()

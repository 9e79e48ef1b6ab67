"""Holds on what a process is writing: locks of the operating system, which end with the process, however that ends."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]


def hold(path: Path) -> Callable[[], None]:
    """Hold the file or folder ``path`` and return what lets it go.

    Raises BlockingIOError while another holds it, FileNotFoundError where nothing is there, OSError where the file
    system has no locks.
    """
    return _hold_beside(path) if fcntl is None else _hold_itself(path)


def _hold_itself(path: Path) -> Callable[[], None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return lambda: os.close(descriptor)


def _hold_beside(path: Path) -> Callable[[], None]:
    """The same by a lock file among this machine's temporary ones: what is open cannot be renamed on Windows."""
    import filelock  # here: cmake/llama_cpp_source.py, which runs before anything is installed, imports this module

    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"autodeco-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(f"{path}: another process holds it") from None
    if not os.path.lexists(path):
        lock.release()
        raise FileNotFoundError(path)

    def release() -> None:
        lock.release()
        with contextlib.suppress(OSError):  # some versions of filelock leave it, and some other process may hold it
            os.unlink(lock.lock_file)

    return release

"""One use of a context at a time: llama.cpp's contexts belong to one thread at a time, and to one process."""

import contextlib
import os
import threading
from collections.abc import Iterator

from autodeco.base.forks import check_process
from autodeco.errors import InputError


class Turn:
    """While it is entered, the context of the model at ``path`` is used by this thread, which may enter it again.

    Entering raises InputError in another thread meanwhile, in a process forked from the one that made this, and in a
    logits processor, which runs while llama.cpp samples.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._sampling = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether this is a process forked from the one that opened the model."""
        return os.getpid() != self._process

    def check_process(self) -> None:
        """Raise InputError in a process forked from the one that opened the model."""
        check_process(self._path, self._process)

    def __enter__(self) -> None:
        self.check_process()
        if not self._lock.acquire(blocking=False):
            raise InputError(
                f"{self._path}: is in use by another thread; let one thread at a time use it, or open it once a thread"
            )
        self._check_sampling()

    def __exit__(self, *raised) -> None:
        self._lock.release()

    def _check_sampling(self) -> None:
        if self._sampling:
            self._lock.release()
            raise InputError(
                f"{self._path}: is sampling a token, so that a logits processor cannot use it; open the model twice"
            )

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Enter as soon as no other thread uses the context: for generations that go on."""
        self.check_process()
        with self._lock:
            yield

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        """What runs in this, within the turn, may be called back by llama.cpp and must not enter again."""
        self._sampling = True
        try:
            yield
        finally:
            self._sampling = False

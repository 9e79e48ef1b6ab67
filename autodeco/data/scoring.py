"""Scores of answers, found beside the program's other work by processes that cannot hang it or eat its memory.

What an answer says is not under our control: ``10^{10^{10}}`` is a short text and no number that a computer can hold. A
checker that reads more than letters therefore runs in worker processes. An answer whose scoring takes longer than
``SECONDS`` or more than ``MEMORY`` ends its worker, scores 0 and is counted.
"""

import contextlib
import importlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from pebble import ProcessExpired, ProcessPool

from autodeco.data.checkers import Checker, check, checker
from autodeco.errors import InputError

SECONDS = 10.0
MEMORY = 2**30  # beyond what a worker has once its checker is loaded
# These read a text once, in time and memory that grow with its length; a process would cost more than they do.
HARMLESS = ("exact", "number", "choice")

# Importing these takes seconds, which no answer should pay for; a function of a module names its own by ``imports``.
_IMPORTED = {"math": "math_verify", "reasoning-gym": "reasoning_gym"}

_worker_checker: Checker | None = None


class Scorer:
    """The checker ``spec``, to be closed after use; raises InputError for an unknown one.

    ``exceeded`` counts the answers that were given up. Workers start with the first answer.
    """

    def __init__(self, spec: str, workers: int | None = None, seconds: float = SECONDS, memory: int = MEMORY):
        self._checker, self._seconds, self.exceeded = checker(spec), seconds, 0
        self._pool: ProcessPool | None = None
        if spec not in HARMLESS:
            # A forked child of a process with threads, as torch and llama.cpp have, may hang.
            self._pool = ProcessPool(
                max_workers=workers or max(1, (os.cpu_count() or 1) - 1),
                initializer=_prepare,
                initargs=(spec, memory),
                context=multiprocessing.get_context("spawn"),
            )

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def start(self, problem: dict, text: str) -> Future:
        """Begin to score the answer ``text``; ``scores`` waits for it."""
        if self._pool is not None:
            return self._pool.schedule(_score, args=(problem, text), timeout=self._seconds)
        future: Future = Future()
        try:
            future.set_result(check(self._checker, problem, text))
        except InputError as error:
            future.set_exception(error)
        return future

    def scores(self, started: Sequence[Future]) -> np.ndarray:
        """Return the scores [n], float64, of what ``start`` gave; raises InputError for a checker that fails."""
        return np.array([self._score_of(future) for future in started], np.float64)

    def score(self, answers: Iterable[tuple[dict, str]]) -> np.ndarray:
        """Return the scores [n] of ``answers``, each a problem and a text."""
        return self.scores([self.start(problem, text) for problem, text in answers])

    def _score_of(self, future: Future) -> float:
        try:
            return future.result()
        except (TimeoutError, MemoryError, ProcessExpired):
            self.exceeded += 1
            return 0.0
        except BrokenProcessPool:
            raise InputError(
                "the processes that score answers do not start; a script that has answers scored must do so behind "
                "if __name__ == '__main__':, as each of them imports it"
            ) from None


def given_up(count: int) -> str:
    """Return the line that tells of ``count`` answers that were given up."""
    answers = "1 answer" if count == 1 else f"{count} answers"
    return f"{answers} took more than {SECONDS:g} seconds or {MEMORY >> 30} GiB to score and count as wrong"


def _prepare(spec: str, memory: int) -> None:
    """Load the checker in a worker, and limit the memory that it may take from here on."""
    global _worker_checker
    _worker_checker = checker(spec)
    module = _IMPORTED.get(spec, getattr(_worker_checker, "imports", None))
    if module:
        # some scorers evaluate an answer, which may print
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # warns that it has no limits: ours are around it
        with contextlib.suppress(ImportError):  # told where it is used
            importlib.import_module(module)
    with contextlib.suppress(ImportError, OSError, ValueError):  # systems without such limits
        import resource

        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + memory if most == resource.RLIM_INFINITY else min(used + memory, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _score(problem: dict, text: str) -> float:
    try:
        return check(_worker_checker, problem, text)
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError from None
        raise InputError(str(error)) from None  # without the cause, which may not travel between processes

"""Processes that each hold something large, a model say, and take the next of many jobs when they are done with one."""

import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from autodeco.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"

# What a process makes of a job: any number of results.
Run = Callable[..., Iterator[Any]]


class Workers:
    """``number`` processes, each of which calls ``begin(*given)`` once, and what that returns with each of its jobs.

    Of ``gpus`` GPUs, the first or those that CUDA_VISIBLE_DEVICES names, each process sees one; 0: all see all. What
    travels between the processes is of this program alone. A context that ends them.
    """

    def __init__(self, number: int, gpus: int, begin: Callable[..., Run], *given: Any):
        self.number, self._gpus, self._begin, self._given = number, gpus, begin, given
        self._started: dict[Connection, Any] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they do."""
        for connection, process in self._started.items():
            process.terminate()
            process.join()
            connection.close()
        self._started = {}

    def results(self, jobs: Iterable[tuple]) -> Iterator[Any]:
        """Yield what the processes make of ``jobs``, each a tuple of arguments, as it comes; jobs begin in order.

        Raises what a job raised, and InputError for a process that was ended; then, and when this iterator is closed
        early, all are ended.
        """
        jobs = iter(jobs)
        self._start()
        busy: list[Connection] = []
        try:
            for connection in self._started:
                self._give(connection, jobs, busy)
            while busy:
                for connection in wait(busy):
                    kind, value = self._received(connection)
                    if kind == "result":
                        yield value
                    elif kind == "error":
                        raise value
                    else:
                        busy.remove(connection)
                        self._give(connection, jobs, busy)
        finally:
            if busy:
                self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked child of a process with threads may hang
        for i in range(len(self._started), self.number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._begin, self._given), daemon=True)
            with _seeing(self._gpus, i):
                process.start()
            theirs.close()
            self._started[ours] = process

    def _give(self, connection: Connection, jobs: Iterator[tuple], busy: list[Connection]) -> None:
        job = next(jobs, None)
        if job is not None:
            busy.append(connection)
            with contextlib.suppress(OSError):  # the end of the process is told when its results are read
                connection.send(job)

    def _received(self, connection: Connection) -> tuple[str, Any]:
        try:
            return connection.recv()
        except (EOFError, OSError):
            process = self._started[connection]
            process.join()
            code = process.exitcode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise InputError(
                f"a process that ran the model was ended ({how}); start fewer processes if memory is short; a script "
                "that starts processes does so behind if __name__ == '__main__':, as each of them imports it"
            ) from None


@contextlib.contextmanager
def _seeing(gpus: int, number: int) -> Iterator[None]:
    """Let a process that starts meanwhile see one GPU, before it loads any library that looks for them."""
    before = os.environ.get(VISIBLE)
    if gpus:
        names = before.split(",") if before else [str(i) for i in range(gpus)]
        os.environ[VISIBLE] = names[number % min(gpus, len(names))]
    try:
        yield
    finally:
        if gpus:
            os.environ.pop(VISIBLE)
            if before is not None:
                os.environ[VISIBLE] = before


def _work(connection: Connection, begin: Callable[..., Run], given: tuple) -> None:
    """Do jobs until there is nobody who gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    begun = functools.cache(lambda: begin(*given))
    with contextlib.suppress(EOFError, OSError):  # of the connection: what a job raises is told
        while True:
            for told in _outcome(lambda *job: begun()(*job), connection.recv()):
                connection.send(told)


def _outcome(run: Run, job: tuple) -> Iterator[tuple[str, Any]]:
    try:
        for result in run(*job):
            yield "result", result
    except Exception as error:
        yield "error", error
    else:
        yield "done", None

"""Which process may compute with llama.cpp: its threads (OpenMP) do not survive a fork, and a child would wait for them
for ever."""

import os

from autodeco.errors import InputError

ADVICE = 'start processes with multiprocessing\'s "spawn" instead of "fork", and open the model there'

_threaded: set[int] = set()  # processes, this one or those it was forked from, that opened a model with several threads


def check_threads(path: str | os.PathLike, n_threads: int | None, n_threads_batch: int | None) -> None:
    """Note that this process opens the model at ``path`` with so many threads (None: those of the machine).

    Raises InputError if it is to use several, and was forked from a process that opened a model so.
    """
    if n_threads == n_threads_batch == 1:
        return
    if _threaded - {os.getpid()}:
        raise InputError(
            f"{path}: this process was forked from one that opened a model, and llama.cpp's threads do not survive "
            f"that; {ADVICE}, or open it with n_threads=1 and n_threads_batch=1"
        )
    _threaded.add(os.getpid())


def check_process(path: str | os.PathLike, opened_in: int) -> None:
    """Raise InputError unless this is the process ``opened_in``, which opened the model at ``path``."""
    if os.getpid() != opened_in:
        raise InputError(
            f"{path}: was opened in process {opened_in}, of which this is a forked child without llama.cpp's threads; "
            f"{ADVICE}"
        )

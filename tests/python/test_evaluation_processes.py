"""An evaluation whose answers are drawn by processes that each have the model."""

import contextlib
import json
import os
import signal

import pytest

from autodeco import cli
from autodeco.errors import InputError
from autodeco.evaluation.drawing import InProcesses, begin, shares
from autodeco.evaluation.folders import describe
from autodeco.evaluation.head_sets import ALONE
from autodeco.evaluation.running import Runner
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import Task, TaskSpec, TrainedOn
from autodeco.llama.opening import open_llama
from autodeco.runs.workers import Workers
from builders.commands import refused
from builders.random_heads import write_random_heads
from builders.word_models import write_llama

OPENING = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1}
SLOTS = 4


def write_problems(folder, *prompts, **others):
    file = folder / "asked.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt, "answer": "a", **others}) + "\n" for prompt in prompts))
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("model") / "words.gguf")


@pytest.fixture(scope="module")
def heads(model):
    return write_random_heads(model.parent / "heads.gguf", model)


@pytest.fixture
def asked(model, heads, tmp_path):
    """asked(begin, number of processes, folder) -> answers by split and method; of 0 processes, in this one."""
    file = write_problems(tmp_path, *(f"{word} she" for word in ("Hello", "once", "upon", "a", "time", "dog")))
    spec = TaskSpec("asked", str(file))
    settings = Settings(
        (spec,), validation=2, test=4, samples=2, ks=(1,), max_tokens=5, temperatures=(0.5,), top_ps=(0.9,),
        slots=SLOTS, without=("stock-defaults", "dynatemp", "top-n-sigma"),
    )  # fmt: skip
    description, task = describe(settings, model, heads, TrainedOn()), Task(spec, 0, 4, 2)

    def ask(begun, number, folder):
        with contextlib.ExitStack() as stack:
            if number:
                workers = stack.enter_context(Workers(number, 0, begun, model, {ALONE: heads}, SLOTS, OPENING))
                source = InProcesses(model, {ALONE: heads}, OPENING["n_ctx"], workers)
                llm = source.llm
            else:
                llm, source = open_llama(model, heads, **OPENING), None
            stack.callback(llm.close)
            runner = Runner(llm, settings, folder, description, source)
            runner.check([task])
            (passes,) = runner.run([task])
        return {(split, name): of.rows for split in ("validation", "test") for name, of in vars(passes)[split].items()}

    return ask


def dies_after_thirty_answers(*given):
    run = begin(*given)

    def some(*job):
        for number, answer in enumerate(run(*job)):
            if number == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            yield answer

    return some


def assert_alike(ours, theirs):
    """The answers are the same, and their values but for rounding, which depends on who shares a batch."""
    rounded = ("temperature", "top_p", "entropy", "top_probability")
    assert ours.keys() == theirs.keys()
    for name, rows in ours.items():
        for one, other in zip(rows, theirs[name], strict=True):
            assert one == {k: pytest.approx(v, abs=2e-4) if k in rounded else v for k, v in other.items()}


def test_the_number_of_processes_changes_nothing(asked, tmp_path):
    here, one, two = (asked(begin, number, tmp_path / str(number)) for number in (0, 1, 2))
    assert here == one
    assert_alike(two, one)
    assert {"AutoDeco", "shuffle", "binned shuffle", "mean shift in 1/T"} <= {name for _, name in here}
    texts = {row["text"] for row in here["test", "AutoDeco"]}
    assert len(texts) > 4, "the answers are too alike to test anything"
    assert len(here["validation", "AutoDeco"][0]["entropy"]) == 5


def test_what_a_killed_process_had_answered_is_kept(asked, tmp_path):
    with pytest.raises(InputError, match=r"a process that ran the model was ended \(signal 9\); start fewer processes"):
        asked(dies_after_thirty_answers, 1, tmp_path / "stopped")
    kept = [len(file.read_text().splitlines()) for file in (tmp_path / "stopped").rglob("validation.*.jsonl")]
    assert sum(kept) >= 30, "what was answered is lost"
    files = {file: file.read_text() for file in (tmp_path / "stopped").rglob("*.jsonl")}
    again = asked(begin, 2, tmp_path / "stopped")
    assert_alike(again, asked(begin, 0, tmp_path / "whole"))
    assert all(file.read_text().startswith(text) for file, text in files.items()), "answers are drawn again"


def test_answers_to_a_prompt_are_drawn_by_one_process():
    rows = [type("Asked", (), {"index": index}) for index in (0, 0, 1, 1, 1, 1, 2)]
    found = [[row.index for row in share] for share in shares(rows, 2)]
    assert found == [[0, 0, 2], [1, 1, 1, 1]]
    assert shares(rows[:2], 3) == [rows[:2]], "nobody is given nothing"


def test_a_prompt_that_fills_the_context_is_refused_before_any_process_starts(model, tmp_path):
    file = tmp_path / "long.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"{i} Hello" + " she" * 300, "answer": "a"}) + "\n" for i in range(2))
    )
    settings = [
        "--test",
        1,
        "--validation",
        1,
        "--samples",
        1,
        "--context",
        256,
        "--processes",
        2,
        "-o",
        tmp_path / "o",
    ]
    error = refused("eval", model, "--tasks", file, *settings)
    assert "fills the context of 256" in error


def test_the_command_draws_in_processes_and_reports_by_family(model, heads, tmp_path, capsys):
    prompts = [f"{word} she" for word in ("Hello", "once", "upon", "a", "time", "dog")]
    asked = [(f"{one} {prompt}", family) for prompt in prompts for one, family in (("a", "short|er"), ("the", "other"))]
    file = tmp_path / "asked.jsonl"
    problems = [{"prompt": text, "answer": family, "family": family} for text, family in asked]
    file.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    settings = [
        "--test",
        8,
        "--validation",
        4,
        "--samples",
        2,
        "--ks",
        1,
        2,
        "--context",
        256,
        "--max-tokens",
        12,
        "--stop",
        "e",
    ]
    settings += ["--temperatures", 0.5, "--top-ps", 0.9, "--without", "rivals", "--slots", 4, "--threads", 1]
    settings += ["--processes", 2, "--heads", heads, "-o", tmp_path / "output"]
    task = f"{file}:python:test_evaluation_processes:is_of_the_other_family"
    assert cli.main([str(one) for one in ("eval", model, "--tasks", task, *settings)]) == 0
    (folder,) = (file.parent for file in (tmp_path / "output").glob("*/report.json"))
    (found,) = json.loads((folder / "report.json").read_text())["tasks"]
    numbers = {family: of["problems"] for family, of in found["families"].items()}
    assert sorted(numbers) == ["other", "short|er"]
    assert sum(numbers.values()) == 8
    finished = {name: method["finished"] for name, method in found["methods"].items()}
    assert found["families"]["short|er"]["pass_at_1"] == dict.fromkeys(finished, 0.0)
    whole = {name: method["pass_at"]["1"]["value"] for name, method in found["methods"].items()}
    ours = {name: numbers["other"] * rate / 8 for name, rate in found["families"]["other"]["pass_at_1"].items()}
    assert ours == pytest.approx(whole)
    assert any(whole.values()), "nothing is right: this tests nothing"
    assert (
        f"| method | other, {numbers['other']} | short\\|er, {numbers['short|er']} |"
        in (folder / "report.md").read_text()
    )
    assert (
        f"<th>other, {numbers['other']}</th><th>short|er, {numbers['short|er']}</th>"
        in (folder / "report.html").read_text()
    )


def is_of_the_other_family(problem, text):
    """A checker: named by python:test_evaluation_processes:is_of_the_other_family."""
    return float(problem["answer"] == "other")


def test_servers_take_no_processes(model, tmp_path):
    file = write_problems(tmp_path, "Hello", "once")
    settings = ["--test", 1, "--validation", 1, "--samples", 1, "--processes", 2, "--server", "http://127.0.0.1:1"]
    assert "leave out --processes and --gpus" in refused("eval", model, "--tasks", file, *settings)

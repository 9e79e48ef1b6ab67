"""Evaluation: methods and their results, interruption, the report."""

import contextlib
import functools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from autodeco.batch import Sampling
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation import methods, report, running
from autodeco.evaluation.folders import claim, describe, describe_answers
from autodeco.evaluation.methods import AUTODECO, GREEDY, Method, mean_shift, static
from autodeco.evaluation.results import ONE_FOR_ALL, rates, together
from autodeco.evaluation.running import Pass, Runner, TaskPasses, mean_of
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import (
    Task,
    TaskSpec,
)
from autodeco.runs.locks import locked_folder
from builders.commands import refused

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})


# methods and results


METHODS = [
    "greedy",
    "default, T 1 P 1",
    "T 0.5 P 0.9",
    "AutoDeco",
    "temperature head alone",
    "top-p head alone",
    "mean shift",
]


def rows_of(right, samples):
    return [
        {"problem": i, "sample": s, "right": s < c, "tokens": 2, "temperature": [0.5, 1.0], "top_p": [0.25, 0.75]}
        for i, c in enumerate(right)
        for s in range(samples)
    ]


def test_rates_are_by_problem_and_greedy_answers_count_as_they_are():
    sampled = Pass(static(0.5, 0.9), rows_of([0, 2, 4], 4), 1.0)
    assert rates(sampled, 3, 1).tolist() == [0.0, 0.5, 1.0]
    assert rates(sampled, 3, 2)[1] == pytest.approx(1 - math.comb(2, 2) / math.comb(4, 2))
    assert rates(Pass(GREEDY, rows_of([0, 1], 1), 1.0), 2, 1).tolist() == [0.0, 1.0]
    assert mean_of(sampled) == (0.75, 0.5)
    assert mean_shift(*mean_of(sampled)).sampling == Sampling(0.75, 0.5, heads="none")


def test_tasks_together_are_all_problems_with_each_tasks_own_rival():
    static_one, n = static(0.5, 0.9), 2
    passes = [
        TaskPasses(
            None,
            {method.name: Pass(method, [], 0.0) for method in (GREEDY, static_one, AUTODECO)},
            {
                AUTODECO.name: Pass(AUTODECO, rows_of(ours, n), 0.0),
                static_one.name: Pass(static_one, rows_of(theirs, n), 0.0),
                GREEDY.name: Pass(GREEDY, rows_of(greedy, 1), 0.0),
            },
        )
        for ours, theirs, greedy in (([2, 1], [0, 2], [1, 0]), ([0, 2], [1, 1], [0, 0]))
    ]
    best = [{"greedy": {"method": "greedy"}, "best": {"method": name}} for name in ("greedy", static_one.name)]
    tasks, settings = [{"against": against} for against in best], SimpleNamespace(test=2, seed=0)
    found = together(passes, tasks, settings)
    assert (found["problems"], found["pass_at_1"]["value"]) == (4, 0.625)
    differences = {rival: d["difference"] for rival, d in found["against"].items()}
    assert differences == {"greedy": 0.375, "best": 0.125, ONE_FOR_ALL: 0.125}
    assert found["against"][ONE_FOR_ALL]["methods"] == [static_one.name] * 2
    assert together(passes[:1], tasks[:1], settings) is None


def test_the_vendors_setting_is_read_from_the_model():
    class Model:
        model_path = "model.gguf"
        metadata: ClassVar = {
            "general.sampling.temp": "0.600000",
            "general.sampling.top_k": "20",
            "general.sampling.top_p": "0.95",
        }

    assert methods.vendor(Model()) == Method("vendor", Sampling(0.6, 0.95, 20, 0.0, "none"))
    Model.metadata = {}
    assert methods.vendor(Model()) is None
    Model.metadata = {"general.sampling.temp": "warm"}
    with pytest.raises(InputError, match="are no numbers"):
        methods.vendor(Model())
    Model.metadata = {"general.sampling.penalty_repeat": "1.1", "general.sampling.mirostat": "0"}
    assert methods.vendor(Model()) is None
    assert methods.not_measured(Model()) == ["penalty_repeat 1.1"]


def test_settings_that_make_no_sense_are_refused():
    for wrong, message in (
        ({"samples": 0}, "samples 0"),
        ({"samples": 4, "ks": (1, 8)}, "pass@8 needs k from 1 to the 4 samples"),
        ({"ks": (4,)}, "keep 1 among the k"),
        ({"temperatures": ()}, "at least one temperature"),
        ({"temperatures": (float("nan"),)}, "temperatures nan: must be at least 0.0"),
        ({"top_ps": (0.9, 1.5)}, "top-ps 1.5: must be between 0.0 and 1.0"),
        ({"top_ps": (0.9, 0)}, "top-p 0 of the grid keeps no token"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"without": ("greedy",)}, "without greedy: must be one of default, vendor, temperature-head, top-p-head"),
    ):
        with pytest.raises(InputError, match=message):
            Settings(tasks=(SUMS,), **wrong)
    with pytest.raises(InputError, match="no task"):
        Settings(tasks=())


def test_other_settings_get_another_folder(tmp_path):
    first = claim(tmp_path, {"seed": 0})
    assert claim(tmp_path, {"seed": 0}) == first
    assert claim(tmp_path, {"seed": 1}) != first
    (first / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="was changed by hand"):
        claim(tmp_path, {"seed": 0})


def test_a_recommended_top_k_is_asked_too_and_all_methods_give_their_own_answers(llm, smollm2, tmp_path, monkeypatch):
    """Methods are told apart though they are asked together; the recommended one in batches of its own."""
    recommended = Method("vendor", Sampling(1.5, top_k=1, heads="none"))
    monkeypatch.setattr(methods, "vendor", lambda llm: recommended)
    settings = Settings(
        (SUMS,), validation=1, test=2, samples=2, ks=(1,), max_tokens=10, temperatures=(1.5,), top_ps=(1.0,), slots=8
    )
    description = describe(settings, smollm2, None, frozenset())
    task = Task(SUMS, 0, 2, 1)
    (passes,) = Runner(llm, settings, tmp_path, description).run([task])
    texts = {name: [row["text"] for row in answers.rows] for name, answers in passes.test.items()}
    assert set(texts) == {name for name in METHODS if name != "T 0.5 P 0.9"} | {"vendor", "T 1.5 P 1"}
    assert [len(found) for found in texts.values()] == [2, *[4] * (len(texts) - 1)]
    assert texts["vendor"] == [text for text in texts["greedy"] for _ in range(2)], "top-k 1 is greedy"
    assert len(set(texts["T 1.5 P 1"])) > 1
    rows = passes.test["AutoDeco"].rows
    assert all(len(row["temperature"]) == row["tokens"] for row in rows)
    assert len({t for row in rows for t in row["temperature"]}) > 3
    assert all("temperature" not in row for row in passes.test["vendor"].rows)
    assert [(row["problem"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def hangs(problem, text):  # named by python:test_evaluation:hangs
    while problem["answer"] == "hang":
        pass
    return 1.0


def test_an_answer_whose_scoring_hangs_is_given_up_and_counted(llm, smollm2, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "Scorer", functools.partial(Scorer, seconds=1.0))
    ask = "State the final answer to the following arithmetic problem: {} + 4 ="
    prompts = [[{"role": "user", "content": ask.format(i)}] for i in range(3)]
    problems = [{"prompt": prompt, "answer": "go"} for prompt in prompts]
    problems[1]["answer"] = "hang"
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    spec = TaskSpec("asked", str(tmp_path / "asked.jsonl"), checker="python:test_evaluation:hangs")
    settings = Settings(
        (spec,), validation=1, test=2, samples=1, ks=(1,), max_tokens=48, temperatures=(0.2,), top_ps=(1.0,), slots=8,
        without=("default", "temperature-head", "top-p-head", "vendor"),
    )  # fmt: skip
    runner = Runner(llm, settings, tmp_path, describe(settings, smollm2, None, frozenset()))
    task = Task(spec, 0, 2, 1)
    (passes,) = runner.run([task])
    greedy = [*passes.validation["greedy"].rows, *passes.test["greedy"].rows]
    assert all(row["finish"] != "length" for row in greedy)
    right = [row["right"] for row in greedy]
    assert right == [problem["answer"] == "go" for problem in [*task.validation, *task.test]]
    assert runner.given_up >= 1


# the command

ARGUMENTS = ["--validation", 2, "--test", 3, "--samples", 2, "--ks", 1, 2, "--max-tokens", 12, "--threads", 1]
ARGUMENTS += ["--temperatures", 0.5, "--top-ps", 0.9, "--slots", 4, "--context", 256]
TASK = "chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1"


def command(*arguments):
    start = [sys.executable, "-c", "import sys; from autodeco.cli import main; sys.exit(main())", "eval"]
    return [*start, *(str(argument) for argument in arguments)]


def run_folder(output):
    """The folder of the one run in ``output``."""
    (settings,) = output.glob("*/settings.json")
    return settings.parent


def logs(folder):
    """Files of answers of the one run ``folder`` beside it, by name."""
    return {file.name: file for file in sorted(folder.parent.glob("answers/*/*.jsonl"))}


def answers_of(folder):
    """What was answered, file by file, without the seconds it took."""
    found = {}
    for file in logs(folder).values():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found[file.name] = sorted((r["problem"], r["sample"], r["text"]) for r in rows if "seconds" not in r)
    return found


@pytest.fixture(scope="module")
def evaluated(smollm2, exported, tmp_path_factory):
    """An evaluation of the golden heads: (folder, arguments, standard output)."""
    output = tmp_path_factory.mktemp("evaluation")
    arguments = [smollm2, "--heads", exported("f32"), "--tasks", TASK, *ARGUMENTS, "-o", output]
    result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return run_folder(output), arguments, result.stdout


def test_the_report_has_every_method_and_the_figures_of_the_answers(evaluated):
    folder, _, stdout = evaluated
    found = json.loads((folder / "report.json").read_text())
    (task,) = found["tasks"]
    assert list(task["methods"]) == METHODS
    for name, method in task["methods"].items():
        file = logs(folder)[f"test.{name.replace(' ', '-').replace(',', '')}.jsonl"]
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [row for row in rows if "seconds" not in row]
        assert method["answers"] == len(rows) == (3 if name == "greedy" else 6)
        assert method["pass_at"]["1"]["value"] == pytest.approx(sum(row["right"] for row in rows) / len(rows))
        assert method["tokens"] == sum(row["tokens"] for row in rows)
        assert name in stdout
    values = [json.loads(line) for line in logs(folder)["validation.AutoDeco.jsonl"].read_text().splitlines()]
    temperatures = [t for row in values for t in row.get("temperature", [])]
    assert task["mean"]["temperature"] == pytest.approx(np.mean(temperatures))
    assert task["methods"]["mean shift"]["temperature"] == pytest.approx(np.mean(temperatures), abs=1e-4)
    assert set(task["against"]) == {
        "greedy",
        "default, T 1 P 1",
        "best on validation",
        "best on test (oracle)",
        "temperature head alone",
        "top-p head alone",
        "mean shift",
    }


def test_differences_are_paired_at_each_k_and_the_page_begins_with_them(evaluated):
    folder, _, _ = evaluated
    found = json.loads((folder / "report.json").read_text())
    (task,) = found["tasks"]
    for rival in task["against"].values():
        assert list(rival["pass_at"]) == ["1", "2"]
        assert rival["pass_at"]["1"] == {key: rival[key] for key in ("difference", "low", "high", "p")}
    mean = task["against"]["mean shift"]["pass_at"]["2"]["difference"]
    ours, theirs = (task["methods"][name]["pass_at"]["2"]["value"] for name in ("AutoDeco", "mean shift"))
    assert mean == pytest.approx(ours - theirs)
    page = (folder / "report.html").read_text()
    assert page.index("against mean shift") < page.index("<svg")
    low, high = task["spread"]["temperature"]
    assert low <= task["mean"]["temperature"] <= high


def test_a_report_says_how_it_was_made(evaluated):
    folder, arguments, _ = evaluated
    found = json.loads((folder / "report.json").read_text())
    assert str(arguments[-1]) in found["command"]
    assert {"autodeco", "python", "llama-cpp-python", "reasoning-gym"} <= found["versions"].keys()


def test_answers_and_seconds_of_a_method_are_read_back(tmp_path):
    with running.MethodLog(GREEDY, tmp_path / "answers.jsonl") as log:
        log.add({"problem": 1, "sample": 0, "right": True, "tokens": 1})
        log.add_seconds(1.23456)
    with running.MethodLog(GREEDY, tmp_path / "answers.jsonl") as log:
        log.add({"problem": 0, "sample": 0, "right": False, "tokens": 2})
        log.add_seconds(2)
    found = running.MethodLog(GREEDY, tmp_path / "answers.jsonl").result()
    assert found == log.result()
    assert [row["problem"] for row in found.rows] == [0, 1]
    assert found.seconds == 1.235 + 2
    (tmp_path / "answers.jsonl").write_text('{"problem": 1}\n')
    with pytest.raises(InputError, match=r"answers\.jsonl, line 1: is damaged"):
        running.MethodLog(GREEDY, tmp_path / "answers.jsonl")


def test_two_evaluations_do_not_write_the_same_answers(evaluated, tmp_path):
    folder, arguments, _ = evaluated
    shutil.copytree(folder.parent, tmp_path / "output")
    with contextlib.ExitStack() as stack:
        for answers in (tmp_path / "output" / "answers").iterdir():
            stack.enter_context(locked_folder(answers))
        assert "another process writes there; wait until it ends" in refused(
            "eval", *arguments[:-1], tmp_path / "output"
        )


def test_the_page_needs_nothing_beside_it(evaluated):
    page = (evaluated[0] / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"<(script|link|img)", page)
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    colors = re.findall(r'<span style="color:(#[0-9a-f]{6})" title="temperature', page)
    assert len(colors) > 10
    assert len(set(colors)) > 3, "tokens differ in colour"
    assert "mean shift" in (evaluated[0] / "report.md").read_text()


def test_an_evaluation_that_is_done_is_not_done_again(evaluated):
    folder, arguments, stdout = evaluated
    before = {name: file.read_bytes() for name, file in logs(folder).items()}
    reports = {name: (folder / name).read_bytes() for name in report.FILES}
    again = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert again.stdout == stdout
    assert {name: file.read_bytes() for name, file in logs(folder).items()} == before
    assert {name: (folder / name).read_bytes() for name in report.FILES} == reports


def test_other_heads_share_the_answers_that_need_none(evaluated, exported, tmp_path):
    """The same heads in 16 bits: a run of their own, in which only what depends on heads is answered again."""
    folder, arguments, _ = evaluated
    shutil.copytree(folder.parent, tmp_path / "output")
    folder = tmp_path / "output" / folder.name
    before = {file: file.read_bytes() for file in logs(folder).values()}
    arguments = [arguments[0], "--heads", exported("f16"), *arguments[3:-1], folder.parent]
    result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {file: file.read_bytes() for file in before} == before
    assert sorted(file.name for file in folder.parent.glob("answers/*/*.jsonl") if file not in before) == [
        "test.AutoDeco.jsonl",
        "test.mean-shift.jsonl",
        "test.temperature-head-alone.jsonl",
        "test.top-p-head-alone.jsonl",
        "validation.AutoDeco.jsonl",
    ]
    (other,) = (found.parent for found in folder.parent.glob("*/report.json") if found.parent != folder)
    ours, theirs = (json.loads((run / "report.json").read_text())["tasks"][0]["methods"] for run in (folder, other))
    for name in ("greedy", "default, T 1 P 1", "T 0.5 P 0.9"):
        assert ours[name] == theirs[name]


def test_methods_that_are_left_out_are_not_asked_and_other_answers_are_shared(evaluated, tmp_path):
    folder, arguments, _ = evaluated
    shutil.copytree(folder.parent, tmp_path / "output")
    for name in ("test.default-T-1-P-1.jsonl", "test.top-p-head-alone.jsonl"):
        next((tmp_path / "output").glob(f"answers/*/{name}")).unlink()
    before = {file: file.read_bytes() for file in (tmp_path / "output").glob("answers/*/*.jsonl")}
    result = subprocess.run(
        command(*arguments[:-1], tmp_path / "output", "--without", "default", "top-p-head"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "output").glob("answers/*/*.jsonl")} == before
    (other,) = (f.parent for f in tmp_path.glob("output/*/report.json") if f.parent.name != folder.name)
    (task,) = json.loads((other / "report.json").read_text())["tasks"]
    assert list(task["methods"]) == ["greedy", "T 0.5 P 0.9", "AutoDeco", "temperature head alone", "mean shift"]
    assert list(task["against"]) == [
        "greedy",
        "best on validation",
        "best on test (oracle)",
        "temperature head alone",
        "mean shift",
    ]


def test_answers_are_shared_only_where_all_they_depend_on_is_the_same(smollm2, exported, tmp_path):
    """All that decides them names their folder; grid, k, other tasks and, for those without heads, heads do not."""
    run = describe(
        Settings(tasks=(SUMS, TaskSpec("three", "chain_sum"))), smollm2, exported("f32"), frozenset({"a question"})
    )

    def folder(run, task=0, heads=True):
        return claim(tmp_path, describe_answers(run, task, heads))

    free = {"heads", "temperatures", "top_ps", "ks", "model", "without"}
    assert run["versions"].keys() == {"autodeco", "llama-cpp-python"}
    for name in run.keys() - {"tasks"}:
        other = {**run, name: "other"}
        assert (folder(other) == folder(run)) == (name in free), name
        assert (folder(other, heads=False) == folder(run, heads=False)) == (name in {*free, "heads_sha256"}), name
    assert folder({**run, "tasks": run["tasks"][:1]}) == folder(run)
    assert len({folder(run), folder(run, heads=False), folder(run, task=1)}) == 3


def test_an_interrupted_evaluation_keeps_its_answers_and_continues(evaluated, tmp_path):
    folder, arguments, _ = evaluated
    arguments = [*arguments[:-1], tmp_path]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not answers_of(tmp_path / folder.name).get("validation.greedy.jsonl") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    kept = answers_of(tmp_path / folder.name)
    assert not (tmp_path / folder.name / "report.json").exists()
    cut = logs(tmp_path / folder.name)["validation.greedy.jsonl"]
    lines = cut.read_bytes().splitlines(keepends=True)
    cut.write_bytes(lines[0] + lines[1][:20])  # as if the power had failed in the middle of a line
    result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    finished = answers_of(tmp_path / folder.name)
    assert {name: len(rows) for name, rows in finished.items()} == {
        name: len(rows) for name, rows in answers_of(folder).items()
    }
    for name, rows in kept.items():
        assert set(rows) <= set(finished[name])


def test_without_heads_static_settings_are_compared(smollm2, tmp_path):
    result = subprocess.run(
        command(smollm2, "--tasks", TASK, *ARGUMENTS, "-o", tmp_path), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (task,) = json.loads((run_folder(tmp_path) / "report.json").read_text())["tasks"]
    assert list(task["methods"]) == ["greedy", "default, T 1 P 1", "T 0.5 P 0.9"]
    assert (run_folder(tmp_path) / "report.html").read_text().count("<svg") == 2


def test_bad_input_is_named_and_leaves_no_folder(smollm2, exported, tmp_path):
    output = tmp_path / "out"
    start = ["eval", smollm2, *ARGUMENTS, "-o", output]
    assert "no such file" in refused("eval", tmp_path / "none.gguf", "--tasks", TASK, "-o", output)
    assert "cannot be drawn from reasoning-gym's nothing" in refused(*start, "--tasks", "nothing")
    assert "'terms' is no key=value" in refused(*start, "--tasks", "chain_sum:terms")
    assert "none.jsonl: no such file" in refused(*start, "--tasks", tmp_path / "none.jsonl")
    assert "none.yaml: cannot be read (No such file" in refused(*start, "--tasks", tmp_path / "none.yaml")
    assert "none.gguf: cannot be read" in refused(*start, "--tasks", TASK, "--heads", tmp_path / "none.gguf")
    assert "temperature 0 of the grid is greedy" in refused(*start, "--tasks", TASK, "--temperatures", 0)
    assert "exceed the context of 256" in refused(*start, "--tasks", TASK, "--max-tokens", 250)
    (tmp_path / "file").write_text("")
    assert "file/x/" in refused(*start[:-1], tmp_path / "file" / "x", "--tasks", TASK)
    assert not output.exists()

"""The command `eval`: the report it writes, which answers it asks for again, and what it refuses."""

import contextlib
import importlib.metadata
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.evaluation import report
from autodeco.evaluation.answer_logs import MethodLog
from autodeco.evaluation.folders import claim, describe, describe_answers
from autodeco.evaluation.methods import GREEDY
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import TaskSpec, TrainedOn
from autodeco.runs.locks import locked_folder
from builders.commands import refused

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
METHODS = [
    "greedy",
    "default, T 1 P 1",
    "T 0.5 P 0.9",
    "AutoDeco",
    "temperature head alone",
    "top-p head alone",
    "mean shift",
]
ARGUMENTS = ["--validation", 2, "--test", 3, "--samples", 2, "--ks", 1, 2, "--max-tokens", 12, "--threads", 1]
ARGUMENTS += ["--temperatures", 0.5, "--top-ps", 0.9, "--slots", 4, "--context", 256, "--without", "rivals"]
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


def test_both_reports_say_what_an_answer_takes(evaluated):
    folder, _, _ = evaluated
    (task,) = json.loads((folder / "report.json").read_text())["tasks"]
    rows = [line.split(" | ") for line in (folder / "report.md").read_text().splitlines() if line.startswith("| ")]
    head = next(row for row in rows if row[0] == "| method")
    cells = {row[0].removeprefix("| "): dict(zip(head, row, strict=False)) for row in reversed(rows)}
    page = (folder / "report.html").read_text()
    for name, method in task["methods"].items():
        tokens, seconds = f"{method['tokens_per_answer']:.1f}", f"{method['seconds'] / method['answers']:.3f}"
        assert (cells[name]["tokens an answer"], cells[name]["seconds an answer"]) == (tokens, seconds)
        assert f"<td>{tokens}</td><td>{seconds}</td><td>{method['tokens']}</td>" in page
    assert "<th>tokens an answer</th><th>seconds an answer</th><th>tokens</th>" in page


def test_a_report_says_how_it_was_made(evaluated):
    folder, arguments, _ = evaluated
    found = json.loads((folder / "report.json").read_text())
    assert str(arguments[-1]) in found["command"]
    assert {"autodeco", "python", "llama-cpp-python", "reasoning-gym"} <= found["versions"].keys()


def test_answers_and_seconds_of_a_method_are_read_back(tmp_path):
    with MethodLog(GREEDY, tmp_path / "answers.jsonl", 1) as log:
        log.add({"problem": 1, "sample": 0, "right": True, "tokens": 1})
        log.add_seconds(1.23456)
    with MethodLog(GREEDY, tmp_path / "answers.jsonl", 1) as log:
        log.add({"problem": 0, "sample": 0, "right": False, "tokens": 2})
        log.add_seconds(2)
    found = MethodLog(GREEDY, tmp_path / "answers.jsonl", 1).result()
    assert found == log.result()
    assert [row["problem"] for row in found.rows] == [0, 1]
    assert found.seconds == 1.235 + 2
    (tmp_path / "answers.jsonl").write_text('{"problem": 1}\n')
    with pytest.raises(InputError, match=r"answers\.jsonl, line 1: is damaged"):
        MethodLog(GREEDY, tmp_path / "answers.jsonl", 1)


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
    assert page.count("<svg") == 4
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
        command(*arguments[:-1], tmp_path / "output", "--without", "default", "top-p-head", "rivals", "diagnostics"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "output").glob("answers/*/*.jsonl")} == before
    (other,) = (f.parent for f in tmp_path.glob("output/*/report.json") if f.parent.name != folder.name)
    (task,) = json.loads((other / "report.json").read_text())["tasks"]
    assert list(task["methods"]) == ["greedy", "T 0.5 P 0.9", "AutoDeco", "temperature head alone", "mean shift"]
    assert "diagnostics" not in task
    shown = task["first"][0]["answers"]
    assert list(shown) == list(dict.fromkeys(("AutoDeco", "greedy", task["best on test (oracle)"])))
    assert (0, 0, shown["AutoDeco"]["text"]) == answers_of(other)["test.AutoDeco.jsonl"][0]
    assert len(shown["AutoDeco"]["temperature"]) == len(shown["AutoDeco"]["token_texts"]) > 0
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
        Settings(tasks=(SUMS, TaskSpec("three", "chain_sum"))),
        smollm2,
        exported("f32"),
        TrainedOn(frozenset({"a question"})),
    )

    def folder(run, task=0, heads=True):
        return claim(tmp_path, describe_answers(run, task, heads))

    (two, _) = run["tasks"]
    assert two["reasoning_gym"] == importlib.metadata.version("reasoning-gym")
    newer = {**run, "tasks": [{**two, "reasoning_gym": "9.9"}, *run["tasks"][1:]]}
    assert folder(newer) != folder(run)
    assert folder(newer, task=1) == folder(run, task=1)
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
    assert (run_folder(tmp_path) / "report.html").read_text().count("<svg") == 3


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
    said = refused(*start, "--tasks", TASK, "--max-tokens", 250)
    assert "task chain_sum, question 'State the final answer" in said
    assert "exceed the context of 256" in said
    lines = [{"prompt": "Hi" + " hi" * (300 if i == 3 else 1) + str(i), "answer": "a"} for i in range(6)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for seed in (1, 2):
        said = refused(*start, "--tasks", tmp_path / "mine.jsonl", "--seed", seed)
        assert "mine.jsonl, line 4: has 302 tokens and fills the context of 256" in said
    (tmp_path / "file").write_text("")
    assert "file/x/" in refused(*start[:-1], tmp_path / "file" / "x", "--tasks", TASK)
    assert not output.exists()

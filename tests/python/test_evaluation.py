"""Evaluation: problems and their splits, statistics against values worked out by hand, interruption, the report."""

import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from autodeco.batch import Sampling
from autodeco.checkers import checker
from autodeco.errors import InputError
from autodeco.evaluation import methods, report, running, statistics
from autodeco.evaluation.methods import AUTODECO, GREEDY, Method, mean_shift, static
from autodeco.evaluation.results import ONE_FOR_ALL, rates, together
from autodeco.evaluation.running import Pass, Runner, TaskPasses, mean_of
from autodeco.evaluation.settings import Settings, claim, describe, describe_answers
from autodeco.evaluation.tasks import (
    Task,
    TaskSpec,
    normalized,
    parse_specs,
    question_of,
    read_questions,
    write_training,
)
from autodeco.problem_files import read_problems
from test_commands import refused

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})


def questions(problems):
    return {normalized(question_of(problem)) for problem in problems}


# tasks


def test_splits_have_no_question_in_common_and_do_not_depend_on_each_others_size():
    task = Task(SUMS, 0, test=40, validation=30, training=60)
    splits = [questions(split) for split in (task.test, task.validation, task.training)]
    assert [len(split) for split in splits] == [40, 30, 60]
    assert len(set.union(*splits)) == 130
    assert Task(SUMS, 0, test=40, validation=30).test == task.test
    assert Task(SUMS, 1, test=40).test != task.test


def test_questions_that_were_trained_on_are_left_out(tmp_path):
    task = Task(SUMS, 0, test=20)
    trained = [{"prompt": p["prompt"], "completion": [{"role": "assistant", "content": "0"}]} for p in task.test[:5]]
    trained.append({"prompt": "  Another\nQUESTION ", "completion": "0"})
    file = tmp_path / "trained.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in trained))
    excluded = read_questions([file])
    assert "another question" in excluded
    clean = Task(SUMS, 0, test=20, excluded=excluded)
    assert not questions(clean.test) & excluded
    assert clean.left_out >= 5
    assert len(clean.test) == 20


def test_training_problems_are_written_for_rollouts(tmp_path):
    tasks = [Task(SUMS, 0, test=5, training=3), Task(TaskSpec("three", "chain_sum"), 0, test=5, training=2)]
    assert write_training(tasks, tmp_path / "problems.jsonl") == 5
    problems = read_problems(tmp_path / "problems.jsonl")
    assert [p["prompt"] for p in problems[:2]] == [tasks[0].training[0]["prompt"], tasks[1].training[0]["prompt"]]
    assert checker("reasoning-gym")(problems[0], f"It is {problems[0]['answer']}") == 1.0
    assert read_questions([tmp_path / "problems.jsonl"]) == questions(tasks[0].training + tasks[1].training)


def test_a_family_with_too_few_questions_is_refused():
    """Sums and differences of two digits: 2 x 10 x 10 questions."""
    with pytest.raises(InputError, match="task sums: has 200 different questions and 400 are wanted"):
        Task(SUMS, 0, test=400)


def test_answers_are_judged_by_the_familys_own_scorer():
    task = Task(SUMS, 0, test=10)
    problem = next(p for p in task.test if len(p["answer"]) == 1)
    text = f"{question_of(problem)} {problem['answer']}."
    assert task.is_right(problem, text, finished=True)
    assert not task.is_right(problem, text, finished=False), "cut off by the limit"
    assert not task.is_right(problem, f"{problem['answer']} or 99", finished=True)
    assert not task.is_right(problem, "I do not know", finished=True)


def test_files_of_problems_are_shuffled_by_the_seed(tmp_path):
    file = tmp_path / "capitals.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {i}?", "answer": f"A{i}"}) + "\n" for i in range(20)))
    (spec,) = parse_specs([f"{file}:exact"])
    task = Task(spec, 0, test=10, validation=5)
    assert questions(task.test) != {f"question {i}?" for i in range(10)}
    assert task.is_right(task.test[0], f" {task.test[0]['answer']} ", finished=True)
    with pytest.raises(InputError, match="has 20 different questions and 21 are wanted"):
        Task(spec, 0, test=21)
    with pytest.raises(InputError, match=r"problem 1: a problem's answer 'A\d+' is no number"):
        Task(replace(spec, checker="number"), 0, test=10)


def test_tasks_are_named_on_the_command_line_and_in_yaml(tmp_path):
    file = tmp_path / "tasks.yaml"
    file.write_text("- {name: small, source: chain_sum, config: {max_terms: 2}}\n- {name: mine, source: mine.jsonl}\n")
    specs = parse_specs(["chain_sum:min_terms=2,max_terms=3", str(file)])
    assert specs[0] == TaskSpec("chain_sum", "chain_sum", {"min_terms": 2, "max_terms": 3})
    assert specs[1] == TaskSpec("small", "chain_sum", {"max_terms": 2})
    assert specs[2].source == str(tmp_path / "mine.jsonl")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("- {name: a}", "a task has name; it needs name and source"),
        ("- {name: a, source: chain_sum, terms: 2}", "a task has name, source, terms"),
        ("{", "not valid YAML"),
        ("a: 1", "expected a list of tasks"),
        ("- {name: ../a, source: chain_sum}", "use letters, digits"),
        ("- {name: 3, source: chain_sum}", "its name 3 must be text"),
        ("- {name: a, source: 5}", "its source 5 must be text"),
        ("- {name: a, source: chain_sum, config: null}", "its config None must be a table"),
        ("- {name: a, source: chain_sum, checker: 5}", "its checker 5 must be text"),
        ("- {name: a, source: chain_sum}\n- {name: a, source: chain_sum}", "task a: is there twice"),
    ],
)
def test_bad_task_files_are_refused(tmp_path, yaml, message):
    (tmp_path / "tasks.yaml").write_text(yaml)
    with pytest.raises(InputError, match=message):
        parse_specs([str(tmp_path / "tasks.yaml")])


def test_a_choice_is_the_last_letter_that_stands_alone():
    right = checker("choice")
    assert right({"answer": "B"}, "A is near, but the answer is (B).") == 1
    assert right({"answer": "(c)"}, "**C**") == 1
    assert right({"answer": "A"}, "I think it is B") == 0
    assert right({"answer": "A"}, "no letter") == 0


# statistics


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer():
    """Against every subset of 3 of 6 answers, counted."""
    from itertools import combinations

    for right in range(7):
        answers = [True] * right + [False] * (6 - right)
        counted = np.mean([any(subset) for subset in combinations(answers, 3)])
        assert statistics.pass_at_k(right, 6, 3) == pytest.approx(counted)
    assert statistics.pass_at_k([2, 4], 8, 1).tolist() == [0.25, 0.5]
    with pytest.raises(ValueError, match="k must be from 1"):
        statistics.pass_at_k(1, 4, 5)


def test_the_interval_covers_the_truth_95_times_in_100():
    """400 samples of 60 problems with rates of a beta distribution of mean 0.3; binomial error of the coverage 1.1%,
    and percentiles of so few problems are a little narrow."""
    rng = np.random.default_rng(0)
    statistics_resamples, statistics.RESAMPLES = statistics.RESAMPLES, 500
    try:
        covered = [low <= 0.3 <= high for low, high in (statistics.interval(rng.beta(3, 7, 60), i) for i in range(400))]
    finally:
        statistics.RESAMPLES = statistics_resamples
    assert 0.91 <= np.mean(covered) <= 0.98
    assert statistics.interval(np.full(5, 0.25), 0) == (0.25, 0.25)


def test_the_interval_and_the_p_value_are_those_of_own_resampling():
    """Against 20,000 resamples and sign flips drawn here; the tolerances are their errors."""
    rng = np.random.default_rng(3)
    ours, theirs = (rng.binomial(16, rng.beta(1, b, 300)) / 16 for b in (2, 2.2))
    drawn = np.percentile([ours[rng.integers(0, 300, 300)].mean() for _ in range(20_000)], [2.5, 97.5])
    assert statistics.interval(ours, 0) == pytest.approx(tuple(drawn), abs=0.002)
    difference = ours - theirs
    flipped = np.abs((rng.choice([-1, 1], (20_000, 300)) * difference).mean(1))
    p = np.mean(flipped >= abs(difference.mean()) - 1e-12)
    assert statistics.paired(ours, theirs, 0)["p"] == pytest.approx(p, abs=0.02)


def test_the_permutation_test_counts_sign_flips():
    """Five differences of one sign: 2 of the 32 flips are as extreme."""
    found = statistics.paired(np.array([0.5, 0.6, 0.7, 0.8, 0.9]), np.zeros(5), seed=0)
    assert found["difference"] == pytest.approx(0.7)
    assert found["p"] == pytest.approx(2 / 32)
    assert found["low"] < 0.7 < found["high"]
    assert statistics.paired(np.ones(5), np.ones(5), 0) == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_equal_methods_are_rarely_found_different():
    rng = np.random.default_rng(1)
    ps = []
    resamples, statistics.RESAMPLES = statistics.RESAMPLES, 199
    try:
        for i in range(200):
            problems = rng.beta(1, 2, 40)
            ps.append(statistics.paired(rng.binomial(8, problems) / 8, rng.binomial(8, problems) / 8, i)["p"])
    finally:
        statistics.RESAMPLES = resamples
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.1


def test_distinct_n_counts_different_word_groups():
    assert statistics.distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert statistics.distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert statistics.distinct(["a"], 2) == 0.0


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
        ({"temperatures": (float("nan"),)}, "temperature nan of the grid"),
        ({"top_ps": (0.9, 1.5)}, "top-p 1.5 of the grid"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"without": ("greedy",)}, "without greedy: is none of default, vendor, temperature-head, top-p-head"),
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


def test_a_full_disk_names_the_answers_and_loses_none(tmp_path):
    file = tmp_path / "answers.jsonl"
    log = running._Log(GREEDY, file)
    with log:
        log.add({"problem": 0, "sample": 0, "right": True, "tokens": 1})
        log._file.close()
        log._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115
        with pytest.raises(OSError, match="No space left") as error:
            log.add({"problem": 1, "sample": 0, "right": True, "tokens": 1})
        assert error.value.filename == str(file)
        log._file = io.StringIO()
    assert list(running._read(file)[0]) == [(0, 0)]


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

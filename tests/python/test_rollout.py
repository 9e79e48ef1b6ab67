"""Rollouts keep the right answers to problems, the same ones however the work is split or interrupted."""

import functools
import json
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from autodeco import cli, rollouts
from autodeco.commands.rollout import parse_shard
from autodeco.data import checkers
from autodeco.data.checkers import check, checker
from autodeco.data.problems import read_problems
from autodeco.data.records import read_records
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.rollout_settings import RolloutSettings
from autodeco.rollouts import ScoredAnswers, rollout
from autodeco.runs.jsonl_log import JsonlLog
from autodeco.runs.locks import locked_file
from autodeco.tuning.anchors import other_prompts
from builders.file_reads import count_reads

SETTINGS = RolloutSettings(checker="number", n=3, max_tokens=6, least_score=0.0, seed=5)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("rollout") / "problems.jsonl"
    return write(path, [{"prompt": f"Question: 1 + {i} = ?\nAnswer:", "answer": str(1 + i)} for i in range(1, 6)])


@pytest.fixture(scope="module")
def whole(smollm2, problems, tmp_path_factory):
    path = tmp_path_factory.mktemp("rollout") / "whole.jsonl"
    return path, rollout(smollm2, problems, path, SETTINGS, threads=1, progress=False)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_answer_is_kept_with_what_it_came_from(whole):
    path, result = whole
    rows = rows_of(path)
    assert (result.problems, result.answers, result.kept) == (5, 15, 15)
    assert [(row["problem"], row["sample"]) for row in rows] == [(p, s) for p in range(5) for s in range(3)]
    assert len({row["seed"] for row in rows}) == 15
    assert rows[0]["setting"]["max_tokens"] == 6
    assert len({row["completion"] for row in rows}) > 1
    assert not list(path.parent.glob("*.partial"))


def test_only_finished_answers_that_the_checker_accepts_have_a_score(whole, problems):
    for row in rows_of(whole[0]):
        expected = checker("number")(read_problems(problems)[row["problem"]], row["completion"])
        assert row["score"] == (expected if row["finish"] != "length" else 0.0)


def test_shards_together_are_the_whole(whole, smollm2, problems, tmp_path):
    parts = []
    for index in (1, 2):
        part = tmp_path / f"{index}.jsonl"
        rollout(smollm2, problems, part, SETTINGS, shard=(index, 2), threads=1, progress=False)
        parts += rows_of(part)
    assert sorted(parts, key=lambda row: (row["problem"], row["sample"])) == rows_of(whole[0])


def test_an_interrupted_run_continues_to_the_same_answers(whole, smollm2, problems, tmp_path, monkeypatch):
    path = tmp_path / "data.jsonl"
    add, calls = JsonlLog.add, []

    def interrupted(self, row):
        if len(calls) == 2:
            with open(self.path, "ab") as file:
                file.write(b'{"problem": 2, "answers": []}')  # a line cut short, though it reads like a whole one
            raise KeyboardInterrupt
        calls.append(1)
        add(self, row)

    monkeypatch.setattr(JsonlLog, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollout(smollm2, problems, path, SETTINGS, threads=1, progress=False)
    assert not path.exists()
    monkeypatch.setattr(JsonlLog, "add", lambda self, row: calls.append(1) or add(self, row))
    other = RolloutSettings(**{**SETTINGS.__dict__, "seed": 6})
    with pytest.raises(InputError, match="another seed"):
        rollout(smollm2, problems, path, other, threads=1, progress=False)
    result = rollout(smollm2, problems, path, SETTINGS, threads=1, progress=False)
    assert len(calls) == 5  # none was answered twice
    assert result == whole[1]  # the score too is of all answers, those before the interruption among them
    assert rows_of(path) == rows_of(whole[0])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InputError, match="exists"):
        rollout(smollm2, problems, path, SETTINGS, threads=1, progress=False)


def test_the_model_is_read_once_and_opened_once_with_its_weights(smollm2, tmp_path, monkeypatch):
    counts, opened = count_reads(monkeypatch), []
    open_stock = llama_cpp.Llama.__init__
    monkeypatch.setattr(
        llama_cpp.Llama,
        "__init__",
        lambda llm, *arguments, **kwargs: opened.append(kwargs) or open_stock(llm, *arguments, **kwargs),
    )
    long = write(tmp_path / "long.jsonl", [{"prompt": "word " * 600, "answer": "1"}])
    settings = RolloutSettings(checker="exact", n=1, max_tokens=1)
    rollout(smollm2, long, tmp_path / "data.jsonl", settings, threads=1, progress=False)
    assert counts == {"read_gguf": 1, "fingerprint": 1}
    assert [kwargs.get("vocab_only", False) for kwargs in opened] == [True, False]
    assert opened[1]["n_ctx"] > 600


def test_the_mean_score_is_that_of_all_answers_while_they_grow_and_when_they_are_read_again(tmp_path):
    scores, log = [[1.0, 0.0], [0.25, 0.25], [1.0, 1.0]], JsonlLog(tmp_path / "log", {})
    with log:
        answers = ScoredAnswers(log)
        assert answers.mean_score() == 0
        for problem, pair in enumerate(scores):
            answers.add(problem, [{"problem": problem, "score": score} for score in pair])
            assert answers.mean_score() == pytest.approx(np.mean(scores[: problem + 1]), rel=1e-12)
    assert ScoredAnswers(JsonlLog(tmp_path / "log", {})).mean_score() == pytest.approx(np.mean(scores), rel=1e-12)


def test_two_processes_do_not_write_the_same_file(smollm2, problems, tmp_path):
    path = tmp_path / "data.jsonl"
    with locked_file(path), pytest.raises(InputError, match=r"data\.jsonl: another process writes there"):
        rollout(smollm2, problems, path, SETTINGS, threads=1, progress=False)
    assert not list(tmp_path.glob("*.partial"))


def test_the_command_makes_data_that_collect_reads(smollm2, tmp_path, capsys):
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(
        "- {task: chain_sum, size: 3, seed: 1, config: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}}\n"
    )
    out = tmp_path / "data.jsonl"
    flags = ["--checker", "reasoning-gym", "--n", "2", "--max-tokens", "8", "--least-score", "0", "--threads", "1"]
    assert cli.main(["rollout", str(smollm2), "--problems", str(tasks), "-o", str(out), *flags]) == 0
    said = capsys.readouterr().out
    assert "6 answers to 3 problems" in said
    assert f"next: autodeco collect {smollm2} --data {out} -o TRACES" in said
    records = list(read_records(out))
    assert len(records) == 6
    assert records[0].prompt[0]["role"] == "user"
    assert records[0].completion[0]["role"] == "assistant"


def test_answers_of_which_none_is_right_are_not_said_to_be_collected_next(smollm2, tmp_path, capsys):
    path, out = write(tmp_path / "problems.jsonl", [{"prompt": "Hello", "answer": "no"}]), tmp_path / "data.jsonl"
    command = ["rollout", smollm2, "--problems", path, "-o", out, "--n", "1", "--max-tokens", "1", "--threads", "1"]
    assert cli.main([str(part) for part in command]) == 0
    said = capsys.readouterr().out
    assert "0 of 1 answers to 1 problems" in said
    assert "nothing is there to learn from: give easier problems" in said
    assert "next:" not in said


def hangs(problem, text):  # named by python:test_rollout:hangs
    while problem["answer"] == "hang":
        pass
    return 1.0


def test_an_answer_whose_scoring_hangs_is_given_up_counted_and_told(smollm2, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rollouts, "Scorer", functools.partial(Scorer, seconds=1.0))
    ask = "State the final answer to the following arithmetic problem: {} + 4 ="
    prompts = [[{"role": "user", "content": ask.format(i)}] for i in range(2)]
    problems = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(prompts, ("hang", "go"), strict=True)]
    path, out = write(tmp_path / "problems.jsonl", problems), tmp_path / "data.jsonl"
    flags = ["--checker", "python:test_rollout:hangs", "--n", "1", "--max-tokens", "48", "--temperature", "0"]
    command = ["rollout", smollm2, "--problems", path, "-o", out, *flags, "--threads", "1", "--least-score", "0"]
    assert cli.main([str(part) for part in command]) == 0
    rows = rows_of(out)
    assert all(row["finish"] != "length" for row in rows)  # else nothing is scored
    assert [row["score"] for row in rows] == [0.0, 1.0]
    assert "1 answer took more than 10 seconds or 1 GiB to score and count as wrong" in capsys.readouterr().out


def test_heads_draw_other_answers_than_none(whole, smollm2, problems, exported, tmp_path):
    path = tmp_path / "heads.jsonl"
    rollout(smollm2, problems, path, SETTINGS, exported("f32"), threads=1, progress=False)
    texts = [row["completion"] for row in rows_of(path)]
    assert texts != [row["completion"] for row in rows_of(whole[0])]


def weigh(problem, text):  # named by python:test_rollout:weigh
    return problem["weight"] * len(text)


@pytest.mark.parametrize(
    ("spec", "problem", "text", "score"),
    [
        ("exact", {"answer": "4"}, " 4\n", 1.0),
        ("exact", {"answer": "4"}, "It is 4", 0.0),
        ("number", {"answer": "4"}, "2 + 2 is 4.", 1.0),
        ("number", {"answer": "4"}, "4 is 2 + 2", 0.0),
        ("number", {"answer": "4"}, "four", 0.0),
        ("number", {"answer": "1,200"}, "= 1200.0", 1.0),
        ("number", {"answer": "1200"}, "It is 1,200.", 1.0),
        ("number", {"answer": "200"}, "It is 1,200.", 0.0),
        ("number", {"answer": "3"}, "one of 1,2,3", 1.0),
        ("number", {"answer": "-4"}, "5 - 9 = \u22124", 1.0),
        (r"regex:Answer: (\w+)", {"answer": "yes"}, "Answer: no. Answer: yes", 1.0),
        (r"regex:Answer: (\w+)", {"answer": "yes"}, "yes", 0.0),
        ("math", {"answer": "1/2"}, r"so \boxed{\frac{2}{4}}", 1.0),
        ("math", {"answer": "1/2"}, r"so \boxed{\frac{2}{3}}", 0.0),
        ("reasoning-gym", {"task": "chain_sum", "entry": {"answer": "7"}}, "3 + 4 = 7.", 1.0),
        ("reasoning-gym", {"task": "chain_sum", "entry": {"answer": "7"}}, "8", 0.0),
        ("python:test_rollout:weigh", {"weight": 0.25}, "ab", 0.5),
    ],
)
def test_checkers(spec, problem, text, score):
    assert check(checker(spec), problem, text) == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(
    "spec", ["", "exactly", "regex:", "regex:(", "python:nowhere:f", "python:json:absent", "python:json:__name__"]
)
def test_a_checker_that_is_none_is_refused(spec):
    with pytest.raises(InputError, match="checker"):
        checker(spec)


def fail(problem, text):  # named by python:test_rollout:fail
    return 1 / 0


@pytest.mark.parametrize("verb", ["rollout", "reward"])
def test_help_and_documents_name_every_checker(verb, capsys):
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{checkers.forms()} (default: exact)" in said
    documented = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for name in [*checkers.PLAIN, "regex:PATTERN", "python:MODULE:NAME"]:
        assert name in checkers.forms()
        assert f"| `{name}` |" in documented


def test_a_function_that_fails_ends_the_command_with_one_line_that_names_its_own():
    with pytest.raises(
        InputError, match=r"ZeroDivisionError: division by zero \(.*test_rollout.py, line \d+\)"
    ) as error:
        check(checker("python:test_rollout:fail"), {}, "abc")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "answer", "message"),
    [
        ("exact", None, "line 2: a problem has no answer"),
        ("exact", "null", "line 2: a problem has no answer"),
        ("exact", ["4"], "line 2: a problem's answer ['4'] is neither text nor a number"),
        ("exact", True, "line 2: a problem's answer True is neither text nor a number"),
        ("number", "four", "line 2: a problem's answer 'four' is no number"),
        ("choice", "both", "line 2: a problem's answer 'both' is no letter"),
        ("reasoning-gym", "4", "line 2: a problem has no task"),
    ],
)
def test_problems_that_no_answer_to_can_be_judged_are_refused_before_the_work(
    smollm2, tmp_path, capsys, spec, answer, message
):
    entry = {"task": "chain_sum", "entry": {"answer": "4"}}
    rows = [{"prompt": "a", "answer": "A" if spec == "choice" else "4"} | entry, {"prompt": "b", "answer": answer}]
    if answer is None:
        del rows[1]["answer"]
    elif answer == "null":
        rows[1]["answer"] = None
    problems = write(tmp_path / "problems.jsonl", rows)
    command = ["rollout", str(smollm2), "--problems", str(problems), "-o", str(tmp_path / "d.jsonl"), "--checker", spec]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["problems.jsonl"]


def test_a_score_out_of_range_and_a_problem_without_an_answer_are_refused():
    with pytest.raises(InputError, match="from 0 to 1"):
        check(checker("python:test_rollout:weigh"), {"weight": 1}, "abc")
    with pytest.raises(InputError, match="no answer"):
        check(checker("exact"), {}, "abc")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", "", "the file is empty"),
        ("p.jsonl", '{"prompt": "a \\ud83d"}\n', "line 1: holds half a surrogate pair, .ud83d"),
        ("p.jsonl", '{"prompt": [{"role": "user", "content": null}]}\n', "line 1: each of prompt must be an object"),
        ("p.jsonl", '{"answer": 1}\n', "line 1: expected a JSON object with a prompt"),
        ("p.jsonl", "{\n", "line 1: not valid JSON"),
        ("p.yaml", "- [", "not valid YAML"),
        ("p.yaml", "a: 1", "expected a list of tasks"),
        ("p.yaml", "- {task: no_such_task}", "cannot be drawn"),
        ("p.yaml", "- {task: chain_sum, min_terms: 2}", "no setting min_terms"),
    ],
)
def test_files_of_problems_that_cannot_be_used_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_problems(tmp_path / name)


def test_tools_of_a_problem_reach_the_prompt_and_the_training_data(smollm2, tmp_path, monkeypatch):
    tool = {"type": "function", "function": {"name": "add"}}
    asked = [{"role": "user", "content": "Hi"}]
    lines = [{"prompt": asked, "answer": "a", "tools": tools} for tools in (None, [], [tool], json.dumps([tool]))]
    path, out, given = write(tmp_path / "p.jsonl", lines), tmp_path / "data.jsonl", []
    prompt_ids = rollouts.Tokenizer.prompt_ids
    monkeypatch.setattr(
        rollouts.Tokenizer,
        "prompt_ids",
        lambda self, prompt, tools=None: given.append(tools) or prompt_ids(self, prompt, tools),
    )
    settings = RolloutSettings(n=1, max_tokens=1, least_score=0.0)
    rollout(smollm2, path, out, settings, threads=1, progress=False)
    assert given == [None, None, [tool], [tool]]
    assert [record.tools for record in read_records(out)] == given
    write(path, [{"prompt": "a", "tools": 3}])
    with pytest.raises(InputError, match="line 1: tools must be a list of objects"):
        read_problems(path)


def test_families_that_print_while_they_draw_are_not_heard(tmp_path, capsys):
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("- {task: bf, size: 3}\n")
    assert len(read_problems(tasks)) == 3
    others = pytest.importorskip("reasoning_gym.factory").DATASETS.keys() - {"bf"}
    assert len(other_prompts(others, seed=0, drawn=2, longest=10_000, most=2)) == 2
    assert capsys.readouterr().out == ""


def test_tasks_are_mixed_evenly(tmp_path):
    (tmp_path / "p.yaml").write_text("- {task: chain_sum, size: 4}\n- {task: basic_arithmetic, size: 4}\n")
    assert [p["task"] for p in read_problems(tmp_path / "p.yaml")] == ["chain_sum", "basic_arithmetic"] * 4


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/"])
def test_shards_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="I/N"):
        parse_shard(text)

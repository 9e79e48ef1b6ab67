"""Evaluation: problems, their splits, and who is right."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from autodeco.data.checkers import checker
from autodeco.data.draws import drawn_entries
from autodeco.data.problems import read_problems
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation import tasks
from autodeco.evaluation.tasks import (
    Task,
    TaskSpec,
    TrainedOn,
    normalized,
    parse_specs,
    question_of,
    read_questions,
    write_training,
)

SUMS = TaskSpec("sums", "chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})


def questions(problems):
    return {normalized(question_of(problem)) for problem in problems}


def test_splits_have_no_question_in_common_and_do_not_depend_on_each_others_size():
    task = Task(SUMS, 0, test=40, validation=30, training=60)
    splits = [questions(split) for split in (task.test, task.validation, task.training)]
    assert [len(split) for split in splits] == [40, 30, 60]
    assert len(set.union(*splits)) == 130
    assert Task(SUMS, 0, test=40, validation=30).test == task.test
    assert Task(SUMS, 1, test=40).test != task.test


@pytest.mark.parametrize("name", ["gsm_symbolic", "list_functions"])
def test_a_family_that_plans_ahead_is_asked_for_no_more_than_may_be_drawn(monkeypatch, name):
    """For a billion, it takes a minute and 8 GB; the first problems are the same, for whatever number."""
    sizes = []

    def drawn(task, size, *given):
        sizes.append(size)
        return drawn_entries(task, size, *given)

    monkeypatch.setattr(tasks, "drawn_entries", drawn)
    spec = TaskSpec(name, name)
    few, many = Task(spec, 5, 3), Task(spec, 5, 2, 6, excluded=TrainedOn(frozenset({"another question"})))
    assert sizes == [50 * 3 + 1, 50 * (8 + 1) + 1]
    assert few.test == [*many.test, *many.validation][:3]


def test_questions_that_were_trained_on_are_left_out(tmp_path):
    task = Task(SUMS, 0, test=20)
    trained = [{"prompt": p["prompt"], "completion": [{"role": "assistant", "content": "0"}]} for p in task.test[:5]]
    trained.append({"prompt": "  Another\nQUESTION ", "completion": "0"})
    file = tmp_path / "trained.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in trained))
    excluded = read_questions([file])
    assert "another question" in excluded
    assert "another" not in excluded
    clean = Task(SUMS, 0, test=20, excluded=excluded)
    assert not questions(clean.test) & excluded.questions
    assert clean.left_out >= 5
    assert len(clean.test) == 20


def test_training_problems_are_written_for_rollouts(tmp_path):
    tasks = [Task(SUMS, 0, test=5, training=3), Task(TaskSpec("three", "chain_sum"), 0, test=5, training=2)]
    assert write_training(tasks, tmp_path / "problems.jsonl") == 5
    problems = read_problems(tmp_path / "problems.jsonl")
    assert [p["prompt"] for p in problems[:2]] == [tasks[0].training[0]["prompt"], tasks[1].training[0]["prompt"]]
    assert checker("reasoning-gym")(problems[0], f"It is {problems[0]['answer']}") == 1.0
    assert read_questions([tmp_path / "problems.jsonl"]).questions == questions(tasks[0].training + tasks[1].training)


def test_training_problems_with_fractions_are_written(tmp_path):
    """gsm_symbolic describes some of its problems with Fraction, which JSON has not."""
    task = Task(SUMS, 0, test=5, training=3)
    task.training[1]["entry"]["metadata"]["ratio"] = Fraction(3, 2)
    assert write_training([task], tmp_path / "problems.jsonl") == 3
    assert read_problems(tmp_path / "problems.jsonl")[1]["entry"]["metadata"]["ratio"] == "3/2"


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
    with pytest.raises(InputError, match=r"capitals.jsonl, line \d+: a problem's answer 'A\d+' is no number"):
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


def test_an_error_names_the_line_of_the_problem_not_its_place_after_shuffling(tmp_path):
    file = tmp_path / "sums.jsonl"
    lines = [{"prompt": f"What is {i} + 1?", "answer": "many" if i == 13 else str(i + 1)} for i in range(20)]
    file.write_text("\n" + "".join(json.dumps(line) + "\n" for line in lines))
    for seed in range(4):
        with pytest.raises(InputError, match=r"sums.jsonl, line 15: a problem's answer 'many' is no number"):
            Task(TaskSpec("sums", str(file), checker="number"), seed, test=20)
    task = Task(TaskSpec("sums", str(file), checker="python:test_evaluation_tasks:divide"), 0, test=20)
    with (
        Scorer(task.checker, workers=1) as scorer,
        pytest.raises(InputError, match=r"sums.jsonl, line 15: the checker"),
    ):
        scorer.score([(problem, "text") for problem in task.test if problem["answer"] == "many"])


def divide(problem, text):  # named by python:test_evaluation_tasks:divide
    return 1 / 0


ASKED = {"role": "user", "content": "Who?"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"messages": [ASKED, {"role": "assistant", "content": "I"}]}, ["who?"]),
        ({"messages": None, "prompt": "Who?", "completion": "I", "text": None}, ["who?"]),
        ({"prompt": None, "messages": [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}]}, ["who?"]),
        ({"prompt": [ASKED], "completion": None, "text": ""}, ["who?"]),
        ({"text": "Question: Who?\nAnswer: I", "prompt": None}, ["who?"]),
        ({"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, ["who?"]),
    ],
)  # fmt: skip
def test_every_form_of_training_data_says_what_it_asks(tmp_path, line, found):
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(line).encode() + b"\r\n\n")
    excluded = read_questions([file])
    assert len(excluded) == 1
    assert all(question in excluded for question in found)
    assert "ho?" not in excluded
    assert excluded.digest() != read_questions([]).digest()


def test_data_that_say_no_question_are_refused_with_their_line(tmp_path):
    file = tmp_path / "data.jsonl"
    for line in ("{}", '{"prompt": 3}', '{"messages": [3]}', "[]", "{"):
        file.write_text(f'{{"prompt": "a"}}\n{line}\n')
        with pytest.raises(InputError, match=r"data\.jsonl, line 2"):
            read_questions([file])

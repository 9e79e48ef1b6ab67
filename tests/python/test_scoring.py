"""Scoring in processes: the same scores, and answers that would hang the program or eat its memory."""

import pickle
import time

import pytest

from autodeco.data.checkers import check, checker
from autodeco.data.draws import drawn_entries
from autodeco.data.problems import problem_of, read_problems
from autodeco.data.scoring import Scorer, given_up
from autodeco.errors import InputError


def strange(problem, text):  # named by python:test_scoring:strange
    if text == "hang":
        while True:
            pass
    if text == "endless power":  # one call into C, which no signal of Python interrupts
        return float(len(str(7 ** (7**12))) > 1)
    if text == "memory":
        return float(len(bytearray(2**34)) > 0)
    if text == "leave":
        raise SystemExit(3)
    if text == "fail":
        raise KeyError("no such thing")
    time.sleep(0.01 * (len(text) % 3))
    return (1 + len(text)) / 10


def test_scores_come_in_the_order_of_the_answers():
    texts = ["aaaa", "b", "ccc", "", "dd"] * 4
    with Scorer("python:test_scoring:strange", workers=2) as scorer:
        assert scorer.score([({}, text) for text in texts]).tolist() == [(1 + len(text)) / 10 for text in texts]
        assert scorer.exceeded == 0


@pytest.mark.parametrize("text", ["hang", "endless power", "memory"])
def test_an_answer_that_takes_too_much_scores_0_and_is_counted(text):
    with Scorer("python:test_scoring:strange", workers=1, seconds=1.0) as scorer:
        assert scorer.score([({}, "aa"), ({}, text), ({}, "bb")]).tolist() == [0.3, 0.0, 0.3]
        assert scorer.exceeded == 1


def test_a_checker_that_fails_is_told_in_one_line():
    with (
        Scorer("python:test_scoring:strange", workers=1) as scorer,
        pytest.raises(InputError, match="the checker fails on an answer, 'fail': KeyError"),
    ):
        scorer.score([({}, "fail")])
    with (
        Scorer("python:test_scoring:strange", workers=1) as scorer,
        pytest.raises(InputError, match="the checker fails on an answer, 'leave': SystemExit: 3"),
    ):
        scorer.score([({}, "leave")])


def test_a_power_tower_in_an_answer_ends(tmp_path):
    problem = {"answer": "7"}
    with Scorer("math", workers=1, seconds=4.0) as scorer:
        texts = ["$7$", "$10^{10^{10}}$", "$100000000!$", r"$\binom{1000000000}{500000000}$", "$7$"]
        assert scorer.score([(problem, text) for text in texts]).tolist() == [1, 0, 0, 0, 1]


def test_a_harmless_checker_needs_no_process():
    scorer = Scorer("number")
    assert scorer.score([({"answer": "7"}, "it is 7"), ({"answer": "7"}, "8")]).tolist() == [1, 0]
    with pytest.raises(InputError, match="is no number"):
        scorer.score([({"answer": "seven"}, "7")])


ODD = [
    "",
    "[",
    "{}",
    "1e999",
    "None",
    "a" * 5000,
    "\u00fcn\u00ef \u2192 \u65e5\u672c",
    "\x00",
    "[[",
    "[[]]",
    "(((",
    "\\frac{",
    "1/0",
]
ODD += ["nan", "-", "1 2 3", "1, 2", '{"a":', "[[1, 2], [3]]", "null", "True", "9" * 400, "P(1,2)", "2 \u00d7 x"]


# what a scorer that evaluates its answer may do with it
HOSTILE = [
    "exit()",
    "quit()",
    "print(1)",
    "raise ValueError",
    "(" * 2000,
    "9" * 5000,
    "None\x00",
    "%s {0}",
    "lambda: 0",
]
HOSTILE += [
    "x" * 20_000,
    "```\n5\n```",
    "<answer>5</answer>",
    "25:99:99",
    "\u221e",
    "zoo",
    "'",
    "\\",
    "a=b",
    "\u0661\u0662",
]
NOTHING = ["", "xxxx", "?", "nan", "-inf", "1e999", "[]", "null", "I do not know", "nan + nanj"]


def problems_of_every_family(reasoning_gym):
    """A problem of each family, and of the one that is made of others."""
    for family in sorted(reasoning_gym.factory.DATASETS):
        config = {"datasets": [{"name": "coin_flip"}, {"name": "gcd"}]} if family == "composite" else {}
        yield problem_of(family, next(drawn_entries(family, 1, 1, config)))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_no_scorer_of_reasoning_gym_ends_a_run_for_an_odd_answer():
    """Some of its families raise at answers that are not of the form they expect, and some find nonsense right."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    score, raised, families = checker("reasoning-gym"), set(), 0
    for problem in problems_of_every_family(reasoning_gym):
        family = problem["task"]
        families += 1
        assert pickle.loads(pickle.dumps(problem))["task"] == family  # it reaches the workers
        directly = None if family == "composite" else reasoning_gym.get_score_answer_fn(family)
        for text in ODD + HOSTILE:
            assert 0 <= check(score, problem, text) <= 1
            try:
                _ = directly and directly(text, problem["entry"])
            except (Exception, SystemExit):  # of whatever kind
                raised.add(family)
        for text in NOTHING:
            assert check(score, problem, text) < 0.3, (family, text)
    assert families == len(reasoning_gym.factory.DATASETS) >= 106
    assert {"coin_flip", "prime_factorization", "n_queens"} <= raised  # else this tests nothing


@pytest.mark.parametrize(("answer", "text", "right"), [
    ("True", "True", 1), ("True", "It does not halt: false", 0), ("False", "false.", 1), ("False", "anything", 0),
    ("True", "First I thought False, but it is true", 1), ("True", "", 0),
])  # fmt: skip
def test_a_family_whose_scorer_finds_all_right_is_judged_by_the_last_word(answer, text, right):
    problem = {"task": "game_of_life_halting", "entry": {"answer": answer}}
    assert check(checker("reasoning-gym"), problem, text) == right


def test_a_mixture_of_families_is_judged_by_that_of_the_problem(tmp_path):
    pytest.importorskip("reasoning_gym")
    tasks = "- {task: composite, size: 6, config: {datasets: [{name: chain_sum}, {name: gcd, weight: 2.0}]}}\n"
    (tmp_path / "tasks.yaml").write_text(tasks)
    problems = read_problems(tmp_path / "tasks.yaml")
    assert {problem["entry"]["metadata"]["source_dataset"] for problem in problems} == {"chain_sum", "gcd"}
    for problem in problems:
        assert check(checker("reasoning-gym"), problem, f"It is {problem['answer']}.") == 1
        assert check(checker("reasoning-gym"), problem, "It is 123456789.") < 0.3


@pytest.mark.parametrize(
    "config",
    [
        "{datasets: 3}",
        "{datasets: [3]}",
        "{datasets: [{nome: a}]}",
        "{datasets: [{name: nothing}]}",
        "3",
        "{a: 1}",
        "{}",
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused(tmp_path, config):
    pytest.importorskip("reasoning_gym")
    (tmp_path / "tasks.yaml").write_text(f"- {{task: composite, config: {config}}}\n")
    with pytest.raises(InputError, match=r"tasks\.yaml: task composite cannot be drawn"):
        read_problems(tmp_path / "tasks.yaml")


def test_an_answer_that_would_leave_or_print_does_neither(capfd):
    pytest.importorskip("reasoning_gym")
    with Scorer("reasoning-gym", workers=1) as scorer:
        for family in ("n_queens", "countdown"):
            problem = problem_of(family, next(drawn_entries(family, 1, 1, {})))
            answers = [(problem, text) for text in ("exit()", "print('printed')", "quit()")]
            assert scorer.score(answers).max() < 0.3
    assert "printed" not in capfd.readouterr().out


def test_a_problem_that_its_scorer_cannot_judge_is_told():
    problem = {"task": "prime_factorization", "entry": {"answer": "two times three"}}
    with pytest.raises(InputError, match=r"the checker fails on an answer, '2 \u00d7 3': ValueError"):
        check(checker("reasoning-gym"), problem, "2 \u00d7 3")


def test_what_a_checker_imports_costs_no_answer_its_time():
    with Scorer("reasoning-gym", workers=1, seconds=1.0) as scorer:
        problem = {"task": "chain_sum", "entry": {"answer": "5"}}
        assert scorer.score([(problem, "5")]).tolist() == [1.0]


def test_answers_that_were_given_up_are_told_in_words():
    assert given_up(1) == "1 answer took more than 10 seconds or 1 GiB to score and count as wrong"
    assert given_up(3).startswith("3 answers took more than 10 seconds")

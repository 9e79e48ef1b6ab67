"""Final answers, majority votes and the frontier of an evaluation."""

import pytest

from autodeco.batch import Sampling
from autodeco.evaluation import plots
from autodeco.evaluation.final_answers import final_answer, votes_of
from autodeco.evaluation.methods import AUTODECO, GREEDY, by_rule, static
from autodeco.evaluation.results import method_figures
from autodeco.evaluation.running import Pass
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import TaskSpec

SETTINGS = Settings((TaskSpec("sums", "chain_sum"),), samples=4, ks=(1, 4))


@pytest.mark.parametrize(
    ("problem", "alike", "other"),
    [
        ({"answer": "12"}, ("It is 12.", "3 + 9 = 12.0", "**12**"), "It is 13."),
        ({"answer": 1000}, ("1,000", "so 1000"), "1,001"),
        ({"answer": "B", "prompt": "Which?\nA. one\nB. two"}, ("The answer is B.", "(B)"), "The answer is A."),
        ({"answer": "x^2"}, (r"so \boxed{x^{2}}", r"\boxed{ x^{2} } it is"), r"\boxed{x}"),
        ({"answer": "Paris"}, ("Paris", " paris\n"), "In Paris"),
        ({"answer": None}, ("def f():\n  pass", "def f(): pass"), "def g(): pass"),
    ],
)
def test_texts_with_the_same_final_answer_count_together(problem, alike, other):
    problem = {"prompt": "?", **problem}
    found = {final_answer(problem, text) for text in alike}
    assert len(found) == 1
    assert final_answer(problem, other) not in found


def test_answers_that_were_cut_off_have_no_vote():
    rows = [
        {"text": text, "finish": finish}
        for text, finish in (("1", "end"), ("2", "stop"), ("1", "length"), ("2", "end"))
    ]
    assert votes_of({"prompt": "?", "answer": "2"}, rows).tolist() == [0, 1, -1, 1]


def answered(method, texts, known=("1", "2")):
    """Answers to problems whose known answers are ``known``."""
    rows = [
        {"problem": i, "sample": s, "text": text, "right": text == known[i], "tokens": 3, "finish": "end"}
        for i, of_one in enumerate(texts)
        for s, text in enumerate(of_one)
    ]
    return Pass(method, rows, 1.0)


PROBLEMS = [{"prompt": "?", "answer": "1"}, {"prompt": "?", "answer": "2"}]


def test_majority_and_entropy_of_answers_are_figures_of_a_method():
    found = method_figures(answered(static(0.5, 0.9), ["1112", "2345"]), PROBLEMS, SETTINGS)
    assert found["pass_at"]["1"]["value"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found["maj_at"]["4"]["value"] == pytest.approx((1 + 1 / 4) / 2)
    assert list(found["maj_at"]) == ["4"]
    assert found["answer_entropy"] == pytest.approx((0.5623351 + 1.3862944) / 2)
    greedy = method_figures(answered(GREEDY, ["1", "2"]), PROBLEMS, SETTINGS)
    assert (greedy["maj_at"], greedy["answer_entropy"]) == ({}, None)


def test_the_frontier_has_every_method_and_lines_of_static_settings_from_greedy_on():
    methods = [GREEDY, static(0.8, 0.9), static(0.5, 0.9), static(0.5, 1.0), AUTODECO]
    rule = Sampling(heads="none").rule
    methods += [by_rule(name, rule, "min-p") for name in ("min-p 0.1 T 1", "min-p 0.2 T 1")]
    sampled = ["1112", "2345"]
    figures = {
        m.name: method_figures(answered(m, ["1", "3"] if m is GREEDY else sampled), PROBLEMS, SETTINGS) for m in methods
    }
    assert [m["kind"] for m in figures.values()][:5] == ["greedy", "static", "static", "static", "single"]
    page = plots.frontier({"methods": figures})
    for label in ("static, by temperature", "greedy", "min-p", "AutoDeco", "pass@4, %"):
        assert label in page
    alone = {name: m | {"pass_at": {"1": m["pass_at"]["1"]}} for name, m in figures.items()}
    assert plots.frontier({"methods": alone}) is None

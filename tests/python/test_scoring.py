"""Scoring in processes: the same scores, and answers that would hang the program or eat its memory."""

import time

import pytest

from autodeco.data.scoring import Scorer
from autodeco.errors import InputError


def strange(problem, text):  # named by python:test_scoring:strange
    if text == "hang":
        while True:
            pass
    if text == "endless power":  # one call into C, which no signal of Python interrupts
        return float(len(str(7 ** (7**12))) > 1)
    if text == "memory":
        return float(len(bytearray(2**34)) > 0)
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

"""Targets of training on rewards: exact in the values, unbiased in what answers say of them."""

from itertools import product

import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.rewards.targets import Target, parse_target

TARGETS = [Target(), Target(0.0, 1.0, 4), Target(1.0, 0.5, 3)]


def outcomes(n: int, v: float):
    """Return every outcome [2^n, n] of ``n`` answers that are right with probability ``v``, and its probability."""
    rewards = np.array(list(product((0.0, 1.0), repeat=n)))
    return rewards, np.prod(np.where(rewards == 1, v, 1 - v), axis=1)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_derivative_is_that_of_finite_differences(target):
    v, step = np.linspace(0.05, 0.95, 7), 1e-6
    by_difference = (target.value(v + step) - target.value(v - step)) / (2 * step)
    np.testing.assert_allclose(target.derivative(v), by_difference, rtol=1e-7)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("v", [0.1, 0.5, 0.8])
def test_estimates_are_right_on_average_over_all_outcomes(target, v):
    rewards, probability = outcomes(6, v)
    assert probability @ target.estimate(rewards) == pytest.approx(target.value(v))
    for place in range(6):
        assert probability @ target.slopes(rewards)[:, place] == pytest.approx(target.derivative(v))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_slopes_times_rewards_above_a_baseline_give_the_derivative(target):
    """With answers right with probability v = sigmoid(x), sum of slope (R - b) dlog pi(answer)/dx is n dtarget/dx."""
    v, n = 0.3, 6
    rewards, probability = outcomes(n, v)
    baseline = (rewards.sum(1, keepdims=True) - rewards) / (n - 1)
    score = rewards - v  # dlog pi / dx of each answer
    found = probability @ (target.slopes(rewards) * (rewards - baseline) * score).sum(1) / n
    assert found == pytest.approx(target.derivative(v) * v * (1 - v))


def test_fewer_answers_than_k_are_taken_to_be_alike():
    assert Target(0.0, 1.0, 8).estimate(np.array([[1.0], [0.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("pass@1", Target()),
        ("pass@8", Target(0.0, 1.0, 8)),
        ("pass@1+0.5*pass@8", Target(1.0, 0.5, 8)),
        ("2 * pass@1 + pass@4", Target(2.0, 1.0, 4)),
    ],
)
def test_targets_are_read(text, target):
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize("text", ["", "pass", "pass@0", "pass@1+pass@1", "pass@2+pass@4", "-1*pass@1", "0*pass@1"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(InputError, match="target"):
        parse_target(text)

"""Baselines from shared prefixes, by hand, and that no token has a say in its own."""

import numpy as np
import pytest

from autodeco.rewards.baselines import PRIOR, prefix_baselines


def drawn_towards(mean, m, before):
    return (mean * m + PRIOR * before) / (m + PRIOR)


def test_baselines_by_hand():
    answers = [np.array(tokens) for tokens in ([1, 2, 3], [1, 2, 4, 5], [1, 7], [9])]
    found = prefix_baselines(answers, np.array([1.0, 0.0, 1.0, 0.0]))
    everyone = drawn_towards(1 / 3, 3, 1 / 3)
    behind_1 = drawn_towards(0.5, 2, everyone)
    behind_12 = drawn_towards(0.0, 1, behind_1)
    assert found[0].tolist() == pytest.approx([everyone, behind_1, behind_12])
    second = [2 / 3, drawn_towards(1.0, 2, 2 / 3)]
    second.append(drawn_towards(1.0, 1, second[1]))
    assert found[1].tolist() == pytest.approx([*second, second[2]])  # alone behind 1 2 4
    assert found[3].tolist() == pytest.approx([2 / 3])


def test_no_token_and_nothing_behind_it_has_a_say_in_its_baseline():
    rng = np.random.default_rng(0)
    answers = [rng.integers(0, 2, rng.integers(3, 12)) for _ in range(12)]
    rewards = rng.integers(0, 2, 12).astype(float)
    found = prefix_baselines(answers, rewards)
    for place in range(12):
        for t in range(len(answers[place])):
            changed = list(answers)
            changed[place] = np.concatenate((answers[place][:t], [5, 5]))  # another token t, and another end
            assert prefix_baselines(changed, rewards)[place][: t + 1] == pytest.approx(found[place][: t + 1])


def test_equal_answers_are_each_others_baseline():
    found = prefix_baselines([np.array([4, 4])] * 3, np.array([1.0, 1.0, 1.0]))
    assert all(each.tolist() == pytest.approx([1.0, 1.0]) for each in found)

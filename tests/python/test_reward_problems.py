"""Which problems a round has: those that say more about the target more often, without bias."""

import numpy as np
import pytest

pytest.importorskip("torch")

from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.problems import MOST_COUNT, Problems, chances, drawn_with


def test_chances_are_in_proportion_until_one_is_sure():
    np.testing.assert_allclose(chances(np.array([1.0, 2.0, 1.0]), 2), [0.5, 1.0, 0.5])
    np.testing.assert_allclose(chances(np.array([1.0, 3.0, 4.0, 8.0]), 2), [0.125, 0.375, 0.5, 1.0])
    np.testing.assert_allclose(chances(np.array([1.0, 50.0, 1.0, 60.0]), 3), [0.5, 1.0, 0.5, 1.0])
    np.testing.assert_allclose(chances(np.array([5.0, 0.1]), 2), [1.0, 1.0])


def test_places_are_drawn_as_often_as_their_chances_say():
    rng = np.random.default_rng(0)
    shares = chances(np.array([1.0, 2.0, 3.0, 0.5, 9.0]), 3)
    times, rounds = np.zeros(5), 20_000
    for _ in range(rounds):
        drawn = drawn_with(shares, rng)
        assert len(set(drawn.tolist())) == 3
        times[drawn] += 1
    assert np.abs(times / rounds - shares).max() < 4 * 0.5 / rounds**0.5


class Answers:
    """Problems of which only how often they are answered right is known."""

    def __init__(self, rates: dict[int, float], batch: int, target: str):
        self.rates, self.training = rates, list(rates)
        self._arguments = RewardArguments(target=target, batch_problems=batch)

    chosen = Problems.chosen


@pytest.mark.parametrize("target", ["pass@1", "pass@1+pass@8"])
def test_a_round_estimates_the_sum_over_all_problems(target):
    rng = np.random.default_rng(1)
    rates = dict(enumerate(rng.choice([0.02, 0.1, 0.3, 0.5, 0.9], 200).tolist()))
    what = rng.normal(size=200) + 3 * np.array(list(rates.values()))  # any figure of a problem
    some = Answers(rates, 40, target)
    sums = []
    for number in range(3000):
        chosen, counts = some.chosen(number)
        assert len(chosen) == 40
        assert counts.max() < MOST_COUNT
        sums.append((what[chosen] * counts).sum() / 40)
    assert np.mean(sums) == pytest.approx(what.mean(), abs=4 * np.std(sums) / len(sums) ** 0.5)


def test_rarely_right_problems_are_preferred_where_one_right_answer_of_eight_counts():
    rates = dict(enumerate([0.05] * 100 + [0.5] * 100))
    share = {}
    for target in ("pass@1", "pass@8"):
        drawn = np.concatenate([Answers(rates, 20, target).chosen(number)[0] for number in range(300)])
        share[target] = (drawn < 100).mean()
    assert share["pass@1"] == pytest.approx(np.sqrt(0.0575) / (np.sqrt(0.0575) + np.sqrt(0.26)), abs=0.02)
    assert share["pass@8"] > 0.9


def test_a_round_of_all_problems_counts_each_once():
    chosen, counts = Answers({0: 0.1, 1: 0.5, 2: 0.9}, 64, "pass@1").chosen(0)
    assert sorted(chosen) == [0, 1, 2]
    np.testing.assert_allclose(counts, 1.0)

"""What problems say of heads: against values worked out by hand."""

import sys

import numpy as np
import pytest

from autodeco.data import statistics


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


def test_the_majority_is_that_of_every_subset():
    """Against all subsets of 3 of 6 answers, counted; two of them were cut off, and ties are shared."""
    from itertools import combinations

    votes, right = [0, 0, 1, 1, -1, -1], [True, True, False, False, False, False]
    won = []
    for subset in combinations(range(6), 3):
        ours, theirs = (sum(votes[i] == kind for i in subset) for kind in (0, 1))
        won.append(1.0 if ours > theirs else 0.5 if ours == theirs and ours else 0.0)
    random = np.random.default_rng(0)
    found = np.mean([statistics.majority_at_k(votes, right, 3, random) for _ in range(50)])
    assert found == pytest.approx(np.mean(won), abs=4 * np.std(won) / np.sqrt(50 * statistics.SUBSETS))
    assert statistics.majority_at_k([0, 0, 0, 1, 2], [False] * 3 + [True] * 2, 5, random) == 0.0
    assert statistics.majority_at_k([0, 0, 1, 2, 2], [True, True, False, False, False], 5, random) == 0.5
    assert statistics.majority_at_k([-1, -1], [False, False], 2, random) == 0.0
    without_vote = statistics.majority_at_k([-1, -1, -1, 3], [False] * 3 + [True], 2, random)
    assert without_vote == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(statistics.SUBSETS)), "none voted: none is right"
    assert statistics.majority_at_k([-1, -1, 3], [False, False, True], 3, random) == 1.0
    with pytest.raises(ValueError, match="k must be from 1"):
        statistics.majority_at_k([0], [True], 2, random)


def test_the_entropy_of_answers_is_that_of_their_shares():
    assert statistics.entropy_of([0, 0, 1, 1]) == pytest.approx(np.log(2))
    assert statistics.entropy_of([5, 5, 5]) == 0.0
    assert statistics.entropy_of([0, 0, 0, -1]) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


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


def test_training_on_rewards_has_the_same_interval_without_scipy(monkeypatch):
    """scipy comes with [eval], not with [train]."""
    pytest.importorskip("torch")
    from autodeco.rewards.measuring import compare

    rng = np.random.default_rng(5)
    ours, theirs = rng.binomial(8, 0.5, 2000) / 8, rng.binomial(8, 0.4, 2000) / 8
    expected = statistics.paired(ours, theirs, 0)
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = compare(ours, theirs, 0)
    assert found.difference == expected["difference"]
    assert (found.low, found.high) == pytest.approx((expected["low"], expected["high"]), abs=0.001)


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

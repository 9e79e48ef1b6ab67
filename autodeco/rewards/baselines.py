"""The baseline of each token of an answer: its expected reward, estimated from the other answers to the problem.

Before token t, an answer has a prefix of t tokens. Other answers with the same prefix estimate its value: at low
temperatures many of a problem's answers share a prefix for a while. The mean of their rewards does not depend on token
t, so the policy gradient stays unbiased. After answers have branched, it has less variance than the mean of all
answers. Where few answers are left, it is shrunk towards the baseline of the token before:

    b_t = (sum of R_j over the m others with this prefix + PRIOR b_(t-1)) / (m + PRIOR)        b_(-1) = their mean

An answer that shares its prefix with no other keeps the baseline it had when it left the others.
"""

from collections.abc import Sequence

import numpy as np

PRIOR = 2.0


def prefix_baselines(answers: Sequence[np.ndarray], rewards: np.ndarray) -> list[np.ndarray]:
    """Return the baseline [tokens] of every token of ``answers`` to one problem, with ``rewards`` [n], n at least 2."""
    n, lengths = len(answers), np.array([len(answer) for answer in answers])
    width = lengths.max(initial=1)
    grid = np.full((n, width), -1, np.int64)
    for row, answer in zip(grid, answers, strict=True):
        row[: len(answer)] = answer
    means = (rewards.sum() - rewards) / (n - 1)
    baselines = []
    for i, answer in enumerate(answers):
        same = grid[:, : lengths[i]] == answer
        # tokens in common with each other answer, which is up to where its prefix is the same
        shared = np.where(same.all(1), lengths[i], same.argmin(1)) if lengths[i] else np.zeros(n, int)
        shared[i] = -1
        ends = np.minimum(shared, lengths[i] - 1)
        counts, sums = np.zeros(lengths[i] + 1), np.zeros(lengths[i] + 1)
        with_some = ends >= 0
        np.add.at(counts, ends[with_some], 1.0)
        np.add.at(sums, ends[with_some], rewards[with_some])
        # an answer that shares s tokens has the prefix of tokens 0 to s
        counts, sums = counts[::-1].cumsum()[::-1][:-1], sums[::-1].cumsum()[::-1][:-1]
        baseline, before = np.empty(lengths[i]), means[i]
        changes = np.flatnonzero(np.diff(counts, prepend=-1.0))  # between these nobody leaves
        for begin, end in zip(changes, [*changes[1:], lengths[i]], strict=True):
            before = (sums[begin] + PRIOR * before) / (counts[begin] + PRIOR)
            baseline[begin:end] = before
        baselines.append(baseline)
    return baselines

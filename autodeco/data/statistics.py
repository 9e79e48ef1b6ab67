"""Pass@k, majority votes, intervals, paired differences and diversity.

Rows are problems, because problems are the random sample.
"""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

RESAMPLES, AT_A_TIME = 9999, 1000
NORMAL_95 = 1.959963984540054  # 97.5% of a normal distribution lie below it
SUBSETS = 200  # of a problem's answers, for majority votes
Rates = npt.NDArray[np.float64]


def pass_at_k(right: npt.ArrayLike, samples: int, k: int) -> Rates:
    """The unbiased estimate, for each problem, that one of ``k`` answers is right, of ``right`` right ones among
    ``samples``: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374)."""
    if not 1 <= k <= samples:
        raise ValueError(f"k must be from 1 to the number of samples {samples}, not {k}")
    return np.array([1.0 - math.comb(samples - int(c), k) / math.comb(samples, k) for c in np.atleast_1d(right)])


def majority_at_k(votes: npt.ArrayLike, right: npt.ArrayLike, k: int, random: np.random.Generator) -> float:
    """The chance that the most frequent of ``k`` answers is right (maj@k, Wang et al. 2022, arXiv 2203.11171), over
    subsets of the answers of one problem, at most ``SUBSETS`` of them drawn at random.

    Answers with the same number in ``votes`` [n] are the same; those with -1 do not vote. Where several are equally
    frequent, each of them wins its share; ``right`` [n] says which answers are right.
    """
    votes, right = np.asarray(votes), np.asarray(right, bool)
    if not 1 <= k <= len(votes):
        raise ValueError(f"k must be from 1 to the number of samples {len(votes)}, not {k}")
    kinds = np.unique(votes[votes >= 0])
    if not len(kinds):
        return 0.0
    is_kind = (votes[:, None] == kinds).astype(np.int64)
    shares = (right @ is_kind) / is_kind.sum(0)
    every = np.arange(len(votes))
    subsets = [every] if k == len(votes) else random.permuted(np.tile(every, (SUBSETS, 1)), axis=1)[:, :k]
    counts = is_kind[subsets].sum(1)  # [subsets, kinds]
    wins = (counts == counts.max(1, keepdims=True)) & (counts > 0)
    return float(((wins @ shares) / np.maximum(1, wins.sum(1))).mean())


def entropy_of(votes: npt.ArrayLike) -> float:
    """The entropy, in nats, of the shares that each number has in ``votes``; 0 if there is none."""
    _, counts = np.unique(votes, return_counts=True)
    shares = counts / counts.sum()
    return float(max(0.0, -(shares @ np.log(shares)))) if len(counts) else 0.0


def interval(rates: Rates, seed: int | np.random.Generator) -> tuple[float, float]:
    """95% bootstrap interval (percentiles) of the mean of ``rates`` [problems], resampling problems with
    replacement."""
    rates = np.asarray(rates, np.float64)
    if np.ptp(rates) == 0:
        return float(rates[0]), float(rates[0])
    random, means = np.random.default_rng(seed), []
    for begin in range(0, RESAMPLES, AT_A_TIME):
        indices = random.integers(0, len(rates), (min(AT_A_TIME, RESAMPLES - begin), len(rates)))
        means.append(rates[indices].mean(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95% interval of a share of ``successes`` in ``n`` trials (Wilson 1927), which holds near 0 and 1 as well."""
    share, z2 = successes / n, NORMAL_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(rates: Rates, rival: Rates, seed: int) -> dict[str, float]:
    """The mean difference of two methods on the same problems, its 95% bootstrap interval, and the two-sided p-value of
    a permutation test (of scipy) that swaps the two methods at random within each problem."""
    from scipy import stats

    difference = np.asarray(rates, np.float64) - np.asarray(rival, np.float64)
    low, high = interval(difference, seed)
    if not difference.any():
        return {"difference": 0.0, "low": low, "high": high, "p": 1.0}
    test = stats.permutation_test(
        (difference,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
        batch=AT_A_TIME,
    )
    return {"difference": float(difference.mean()), "low": low, "high": high, "p": float(test.pvalue)}


def distinct(texts: list[str], n: int) -> float:
    """Distinct-n: different ``n``-grams of words over all of them, in all texts together (Li et al. 2016); 0 if none.

    It falls with the amount of text, so compare it only between as many answers to the same problem.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.split()
        counts.update(zip(*(words[i:] for i in range(n)), strict=False))
    total = sum(counts.values())
    return len(counts) / total if total else 0.0

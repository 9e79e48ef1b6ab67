"""The heads' own pairs of temperature and top-p, given to other tokens: by chance, and by chance among like tokens.

What AutoDeco gains over the shuffle comes from where a pair stands. What it gains over the binned shuffle is beyond any
rule of entropy and top probability.
"""

from collections.abc import Sequence

import numpy as np

from autodeco.batch.rules import Choice, Row, RuleWithoutMemory
from autodeco.evaluation.methods import Method, by_rule

NAME, BINNED = "shuffle", "binned shuffle"
BINS = 6  # of entropy; and in each of them, of the highest probability


class ShuffledPairs(RuleWithoutMemory):
    """Each token gets a pair drawn from ``pairs`` [n, 2], all alike likely."""

    def __init__(self, pairs: np.ndarray):
        self._pairs = pairs

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        temperature, top_p = self._pairs[random.integers(len(self._pairs))]
        return float(temperature), float(top_p)


class Bins:
    """Intervals whose inner ``edges`` are quantiles of values, so that none is without any of these values."""

    def __init__(self, values: np.ndarray, number: int):
        quantiles = np.quantile(values, np.arange(1, number) / number, method="lower")
        self._edges = np.unique(quantiles[quantiles > values.min()])

    def __call__(self, value):
        """The bin of ``value``, or of each of an array."""
        return np.searchsorted(self._edges, value, side="right")


class BinnedPairs(RuleWithoutMemory):
    """Each token gets a pair of a token like it: of the same bin of entropy, and in it of highest probability.

    ``pairs`` [n, 2] belong to tokens whose distributions have ``entropies`` [n] and highest probabilities ``tops``
    [n]."""

    def __init__(self, pairs: np.ndarray, entropies: np.ndarray, tops: np.ndarray):
        self._of_entropy = Bins(entropies, BINS)
        self._of_top: list[Bins] = []
        self._pairs: list[list[np.ndarray]] = []
        bins = self._of_entropy(entropies)
        for i in range(bins.max() + 1):
            inside = np.flatnonzero(bins == i)
            self._of_top.append(Bins(tops[inside], BINS))
            fine = self._of_top[i](tops[inside])
            self._pairs.append([pairs[inside[fine == j]] for j in range(fine.max() + 1)])

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        entropy, top = row.spread
        i = int(self._of_entropy(entropy))
        pairs = self._pairs[i][int(self._of_top[i](top))]
        temperature, top_p = pairs[random.integers(len(pairs))]
        return float(temperature), float(top_p)


def method(rows: list[dict]) -> Method:
    """The shuffle of what heads predicted in the answers ``rows``."""
    return by_rule(NAME, ShuffledPairs(_pairs(rows)), NAME, from_heads=True)


def binned(rows: list[dict]) -> Method:
    """The binned shuffle of what heads predicted in the answers ``rows``, which know the spread of distributions."""
    entropies, tops = _joined(rows, "entropy"), _joined(rows, "top_probability")
    return by_rule(BINNED, BinnedPairs(_pairs(rows), entropies, tops), BINNED, from_heads=True)


def _pairs(rows: list[dict]) -> np.ndarray:
    return np.stack([_joined(rows, "temperature"), _joined(rows, "top_p")], axis=1)


def _joined(rows: Sequence[dict], name: str) -> np.ndarray:
    return np.concatenate([row[name] for row in rows])

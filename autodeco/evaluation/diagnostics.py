"""What varying temperature and top-p over tokens is worth on given answers, token by token; docs/evaluation.md says how
each figure is defined.

With b = 1/T, the log-probability of a token is l(b) = b z_y - log sum exp(b z). It is concave in b: its slope g is z_y
minus the mean of z, and its curvature is minus the variance of z. A b that varies around its mean gains by following
the slopes (alignment), and pays for varying at all (curvature penalty).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.data.inverse_temperature import LEAST_TEMPERATURE

ENTROPY_BINS = 5


@dataclass(frozen=True)
class GivenToken:
    """A token of a given answer, seen from the distribution it was drawn from; ``answer`` is the answer's number.

    ``inverse`` is 1/T of the heads. The other fields with a ``_mean`` are at the mean of 1/T and, for the nucleus, of
    top-p over all tokens: ``gain`` is the log-probability at T less that at the mean, ``slope_at_mean`` that of the
    log-probability in 1/T. ``nucleus`` and ``nucleus_at_mean`` are numbers of tokens at the heads' temperature.
    """

    answer: int
    entropy: float
    inverse: float
    gain: float
    slope_at_mean: float
    nucleus: int
    nucleus_at_mean: int


def given_token(
    answer: int, logits: np.ndarray, token: int, setting: tuple[float, float], mean: tuple[float, float]
) -> GivenToken:
    """Return what ``token`` shows, drawn from ``logits`` [V]; ``setting`` is the heads' (T, P), ``mean`` those of all
    tokens, (1/T, P)."""
    z = logits.astype(np.float64)
    z = z - z.max()
    z[np.isneginf(z)] = -1e9  # banned; keeps products with probability 0 finite
    inverse = 1.0 / max(setting[0], LEAST_TEMPERATURE)
    log_p, log_p_mean, log_p_plain = (_log_softmax(b * z) for b in (inverse, mean[0], 1.0))
    below = np.cumsum(np.sort(np.exp(log_p))[::-1])
    return GivenToken(
        answer,
        float(-(np.exp(log_p_plain) @ log_p_plain)),
        inverse,
        float(log_p[token] - log_p_mean[token]),
        float(z[token] - np.exp(log_p_mean) @ z),
        _nucleus(below, setting[1]),
        _nucleus(below, mean[1]),
    )


def _log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z - z.max()).sum()) - z.max()


def _nucleus(below: np.ndarray, top_p: float) -> int:
    """The size of the smallest prefix, by probability, whose mass reaches ``top_p``."""
    return int(min(np.searchsorted(below, top_p), len(below) - 1)) + 1


def figures(tokens: list[GivenToken], seed: int) -> dict[str, Any]:
    """The diagnostics over ``tokens``, JSON-ready; intervals are over answers."""
    answer, entropy, inverse, gain, slope = (
        np.array([getattr(token, name) for token in tokens])
        for name in ("answer", "entropy", "inverse", "gain", "slope_at_mean")
    )
    moved = inverse - inverse.mean()
    alignment = moved * slope
    spread = float(np.sqrt((moved**2).mean() * (slope**2).mean()))
    crossed = np.array([token.nucleus != token.nucleus_at_mean for token in tokens])
    return {
        "answers": len(np.unique(answer)),
        "tokens": len(tokens),
        "gain": _over_answers(gain, answer, seed),
        "alignment": _over_answers(alignment, answer, seed),
        "curvature_penalty": _over_answers(alignment - gain, answer, seed),
        "alignment_efficiency": float(alignment.mean()) / spread if spread else 0.0,
        "crossed": _over_answers(crossed.astype(np.float64), answer, seed),
        "by_entropy": _by_entropy(entropy, gain, answer, seed),
    }


def _over_answers(values: np.ndarray, answer: np.ndarray, seed: int) -> dict[str, float]:
    """The mean over tokens, and its interval from resampling answers with all their tokens."""
    numbers = np.unique(answer)
    sums = np.array([values[answer == i].sum() for i in numbers])
    sizes = np.array([(answer == i).sum() for i in numbers])
    # the mean over tokens is a ratio of two sums over answers; its interval is that of its linear form
    mean = sums.sum() / sizes.sum()
    low, high = statistics.interval((sums - mean * sizes) / sizes.mean(), seed)
    return {"value": float(mean), "low": float(mean + low), "high": float(mean + high)}


def _by_entropy(entropy: np.ndarray, gain: np.ndarray, answer: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """The gain in bins of entropy, each with about the same number of tokens."""
    edges = np.unique(np.quantile(entropy, np.arange(1, ENTROPY_BINS) / ENTROPY_BINS))
    bins = np.searchsorted(edges, entropy, side="right")
    return [
        {
            "from": float(entropy[bins == i].min()),
            "to": float(entropy[bins == i].max()),
            "share": float((bins == i).mean()),
            **_over_answers(gain[bins == i], answer[bins == i], seed),
        }
        for i in np.unique(bins)
    ]

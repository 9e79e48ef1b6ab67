"""The exact losses on a CPU: the formulas of ``exact`` a token at a time, in arrays that fit its cache.

Two things make a token cheap. Sorting is most of the work, so only tokens that matter are sorted. The others together
have less than 1e-9 of the probability, which is below the rounding of float32. At T = 0.4 some hundreds of 49,152
tokens are left. Second, c rises along the sorted tokens, so a_i = 0 before one index and 1 after it. Sums over q before
that index are running sums that exist already, and the soft mask is needed only after it.
"""

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.export import schema
from autodeco.losses.plain import MINIMUM_TEMPERATURE, NUCLEUS_EPSILON

LEFT_OUT = 1e-9


@dataclass
class Distributions:
    """The distributions of n tokens, and the statistics that the top-p head wants of them."""

    tokens: list["Distribution"]
    stats: Tensor  # [n, 4], as heads.prob_stats

    @property
    def weight(self) -> Tensor:
        return torch.tensor([token.weight for token in self.tokens])

    @property
    def easy(self) -> Tensor:
        return torch.tensor([token.rank == 0 for token in self.tokens])


def prepare(z: Tensor, temperature: Tensor, labels: Tensor) -> Distributions:
    """Return what the losses need of ``z`` [n, V] at ``temperature`` [n] for ``labels`` [n], none of them -100."""
    rows, temperature, labels = z.numpy(), temperature.tolist(), labels.tolist()
    tokens = _in_threads(lambda i: _prepare_token(rows[i], temperature[i], labels[i]), len(rows))
    return Distributions(tokens, torch.tensor([token.stats for token in tokens]))


def losses_and_derivatives(distributions: Distributions, temperature: Tensor, top_p: Tensor, k: float) -> Tensor:
    """Return [5, n]: temperature loss, soft top-p loss, their derivatives by T, and of the second by P, unweighted."""
    temperature, top_p = temperature.tolist(), top_p.tolist()
    tokens = distributions.tokens
    rows = _in_threads(lambda i: _token_loss(tokens[i], temperature[i], top_p[i], k), len(tokens))
    return torch.tensor(rows, dtype=torch.float64).T


@dataclass
class Distribution:
    """What one token needs of its distribution; ``d`` are distances of logits to the largest one, ascending."""

    d: np.ndarray  # [kept] float32
    total: float  # sum over the whole vocabulary of exp(-d / T)
    mean: float  # of -d under softmax(z / T)
    weight: float  # softmax(z)[label]
    d_y: float  # the label's distance
    rank: int  # the label's place in ``d``; len(d) where it is left out
    cross_entropy: float  # of softmax(z / max(T, minimum)) at the label
    stats: tuple[float, float, float, float]  # max, entropy, unbiased variance, sum of the 5 largest probabilities


def _prepare_token(z: np.ndarray, temperature: float, label: int) -> Distribution:
    d = z.max() - z
    e = np.exp(-d)
    weight, d_y = float(e[label]) / float(e.sum()), float(d[label])
    b = 1 / temperature
    np.multiply(d, -b, out=e)
    np.exp(e, out=e)
    total, squares = float(e.sum()), float((e * e).sum())
    mean = -float((e * d).sum()) / total
    cut = temperature * math.log(len(z) / LEFT_OUT)
    kept = d[~(d > cut)]  # NaN stays, and makes the losses NaN
    kept.sort()
    rank = len(kept)
    if d_y <= cut:
        rank = int(np.searchsorted(kept, d_y))
        if rank + 1 < len(kept) and kept[rank + 1] == kept[rank]:
            # Tokens with the label's own logit keep the order of their ids, as in a stable sort.
            rank += int(np.count_nonzero(z[:label] == z[label]))
    if temperature >= MINIMUM_TEMPERATURE:
        cross_entropy = math.log(total) + d_y * b
    else:
        cross_entropy = math.log(float(np.exp(d / -MINIMUM_TEMPERATURE).sum())) + d_y / MINIMUM_TEMPERATURE
    q = np.exp(kept * -b) / total
    entropy = -float((q * np.log(q + np.float32(schema.STATS_EPSILON))).sum())
    variance = (squares / (total * total) - 1 / len(z)) / (len(z) - 1)
    return Distribution(
        kept, total, mean, weight, d_y, rank, cross_entropy, (float(q[0]), entropy, variance, float(q[:5].sum()))
    )


def _token_loss(token: Distribution, temperature: float, top_p: float, k: float) -> tuple[float, ...]:
    b, mean, s_y = 1 / temperature, token.mean, -token.d_y
    temperature_loss_by_b = mean - s_y if temperature >= MINIMUM_TEMPERATURE else 0.0
    p = (np.exp(token.d * -b) / token.total).astype(np.float64)
    ps = p * token.d
    np.negative(ps, out=ps)
    c, g = p.cumsum(), ps.cumsum()  # running sums in float32 would be off by 1e-5, and k makes that 3e-4
    edge = int(np.searchsorted(c, top_p, side="right"))  # the first place where c > P
    before_c, before_g = (float(c[edge - 1]), float(g[edge - 1])) if edge else (0.0, 0.0)
    beyond = c[edge:]
    q = np.exp((k * (top_p - beyond)).astype(np.float32)) * p[edge:]
    q_total = float(q.sum())
    s_total = before_c + q_total
    # (np.dot would do for these sums, but starts threads of its own beside ours)
    if token.rank < len(c):
        c_y, g_y = float(c[token.rank]), float(g[token.rank]) - mean * float(c[token.rank])
    else:
        c_y, g_y = 1.0, 0.0
    over_y = c_y - top_p
    a_y = float(over_y > 0)
    n = math.exp(max(s_y * b - k * max(over_y, 0.0), -700.0)) / token.total / (s_total + NUCLEUS_EPSILON)
    total_by_b = before_g - mean * before_c
    # sum_i q_i (s_i - mean - k g_i) after the edge, with g_i = G_i - mean c_i
    inner = g[edge:]
    inner -= mean * beyond
    inner *= -k
    inner -= token.d[edge:]
    inner -= mean
    inner *= q
    total_by_b += float(inner.sum())
    outer = -n / (n + NUCLEUS_EPSILON)
    top_p_loss_by_b = outer * (s_y - mean - k * a_y * g_y - total_by_b / (s_total + NUCLEUS_EPSILON))
    top_p_loss_by_p = outer * k * (a_y - q_total / (s_total + NUCLEUS_EPSILON))
    by_t = -b * b
    return (
        token.cross_entropy,
        -math.log(n + NUCLEUS_EPSILON),
        temperature_loss_by_b * by_t,
        top_p_loss_by_b * by_t,
        top_p_loss_by_p,
    )


def _in_threads(function, count: int) -> list:
    """Return ``[function(0), .., function(count - 1)]``; numpy releases the interpreter's lock in long operations."""
    if min(torch.get_num_threads(), count) < 2:
        return [function(i) for i in range(count)]
    return list(_pool(torch.get_num_threads(), os.getpid()).map(function, range(count)))


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process, which a forked one does not inherit."""
    return ThreadPoolExecutor(threads, thread_name_prefix="autodeco-losses")

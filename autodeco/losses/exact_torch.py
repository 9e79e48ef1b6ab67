"""The exact losses on any device and in any precision: the formulas of ``exact`` for all tokens of a chunk.

On a GPU, sorting the vocabulary would cost ten times everything else. Only the K likeliest tokens are sorted here.
Of the others, the tail, every p_i is at most p_K. What the formulas ask of them are integrals over c from c_K to 1, in
which m(c) = exp(-k relu(c - P)):

    sum of q_i in the tail      integral of m = relu(P - c_K) + B
    its part beyond P           B = (exp(-k relu(c_K - P)) - exp(-k (1 - P))) / k, and k B is the derivative by P
    derivative by b             -g_K m(c_K), since only c_K moves: c ends at 1

The sum takes m at the right end of each step p_i, so it is less than the integral by at most (k / 2) R p_K, R the
tail's mass. Rows in which that could matter have more tokens sorted, at worst the whole vocabulary, a few rows at a
time.

Sums over the vocabulary need five arrays [n, V] at once; CUDA with Triton does without (exact_triton).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from autodeco.export import schema
from autodeco.losses.plain import MINIMUM_TEMPERATURE, NUCLEUS_EPSILON

TOP_TOKENS = (1024, 8192)
LONG_ROWS = 16  # sorted whole at a time: ten arrays of 16 x 151,936 float64 are 195 MB
LARGEST_TAIL = {torch.float32: 3e-8, torch.float64: 1e-13}  # R p_K; at k = 30 the sum of q is then off by 5e-7


@dataclass
class Sums:
    """All that is summed over the vocabulary, columns [n, 1], float64 but for ``largest`` and ``rank``."""

    largest: Tensor  # of z
    weight_total: Tensor  # sum of exp(s), s = z - largest
    total: Tensor  # sum of exp(s / T)
    mean: Tensor  # of s under p = softmax(z / T)
    squares: Tensor  # sum of p^2
    entropy: Tensor  # of p
    s_y: Tensor  # the label's s
    rank: Tensor  # the label's place in descending order


@dataclass
class TopTokens:
    """The likeliest tokens of some rows in descending order; float64, as k makes 1e-5 in a running sum 3e-4."""

    rows: Tensor  # [r], which of the n tokens these are
    s: Tensor  # [r, K]
    p: Tensor  # [r, K]
    c: Tensor  # [r, K], running sums of p
    g: Tensor  # [r, K], derivatives of c by b
    c_y: Tensor  # [r, 1], c and g at the label, wherever it is
    g_y: Tensor  # [r, 1]

    def __getitem__(self, chosen: Tensor) -> "TopTokens":
        return TopTokens(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass
class Distributions:
    """The distributions of n tokens as far as the losses need them."""

    z: Tensor  # [n, V]
    temperature: Tensor  # [n, 1]
    labels: Tensor  # [n, 1]
    sums: Sums
    stats: Tensor  # [n, 4], as heads.prob_stats
    short: list[TopTokens]
    long: Tensor  # [rows that must be sorted whole]

    @property
    def weight(self) -> Tensor:
        return (torch.exp(self.sums.s_y) / self.sums.weight_total).squeeze(-1)

    @property
    def easy(self) -> Tensor:
        return self.sums.rank.squeeze(-1) == 0

    def prefixes(self) -> Iterator[TopTokens]:
        """Yield the likeliest tokens of all rows; whole vocabularies are sorted as they are asked for."""
        yield from self.short
        for rows in self.long.split(LONG_ROWS) if len(self.long) else ():
            yield _top_tokens(self.z, self.temperature, self.labels, self.sums, rows, self.z.shape[-1])


def prepare(z: Tensor, temperature: Tensor, labels: Tensor) -> Distributions:
    """Return what the losses need of ``z`` [n, V] at ``temperature`` [n] for ``labels`` [n], none of them -100."""
    z = z if z.dtype in LARGEST_TAIL else z.float()
    temperature, labels = temperature.to(z.dtype).unsqueeze(-1), labels.unsqueeze(-1)
    sums = _sums(z, temperature, labels)
    vocab, short, most_likely = z.shape[-1], [], None
    rows = torch.arange(len(z), device=z.device)
    for size in [size for size in TOP_TOKENS if 2 * size < vocab] or [vocab]:
        top = _top_tokens(z, temperature, labels, sums, rows, size)
        most_likely = top.p[:, :5] if most_likely is None else most_likely
        tail = (1 - top.c[:, -1]).clamp(min=0)
        enough = (tail * top.p[:, -1] < LARGEST_TAIL[z.dtype]) | (size == vocab)
        short.append(top[enough])
        rows = rows[~enough]
        if not len(rows):
            break
    variance = (sums.squares.squeeze(-1) - 1 / vocab) / (vocab - 1)
    stats = torch.stack([most_likely[:, 0], sums.entropy.squeeze(-1), variance, most_likely.sum(-1)], -1)
    return Distributions(z, temperature, labels, sums, stats.to(z.dtype), short, rows)


def losses_and_derivatives(distributions: Distributions, temperature: Tensor, top_p: Tensor, k: float) -> Tensor:
    """Return [5, n]: temperature loss, soft top-p loss, their derivatives by T, and of the second by P, unweighted."""
    temperature, top_p = (value.double().unsqueeze(-1) for value in (temperature, top_p))
    z, sums, b = distributions.z, distributions.sums, 1 / temperature
    s_y, mean, total = sums.s_y, sums.mean, sums.total
    temperature_loss = total.log() - s_y * b
    clamped = (temperature < MINIMUM_TEMPERATURE).squeeze(-1)
    if clamped.any():
        s = z[clamped] - sums.largest[clamped]
        at_minimum = torch.exp(s / MINIMUM_TEMPERATURE).sum(-1, keepdim=True, dtype=torch.float64)
        temperature_loss[clamped] = at_minimum.log() - s_y[clamped] / MINIMUM_TEMPERATURE
    temperature_loss_by_b = (mean - s_y).masked_fill(temperature < MINIMUM_TEMPERATURE, 0)
    q_total, q_beyond, q_by_b, c_y, g_y = (torch.empty_like(b) for _ in range(5))
    for top in distributions.prefixes():
        rows, cut = top.rows, top_p[top.rows]
        over = torch.relu(top.c - cut)
        inside = over == 0
        q = torch.exp(over * -k).mul_(top.p)
        at_end = torch.exp(over[:, -1:] * -k)
        beyond_tail = (at_end - torch.exp(-k * (1 - cut))).clamp(min=0) / k
        tail = torch.relu(cut - top.c[:, -1:]) + beyond_tail
        tail_by_b = -top.g[:, -1:] * at_end
        if top.c.shape[-1] == z.shape[-1]:
            tail, tail_by_b, beyond_tail = (torch.zeros_like(tail) for _ in range(3))
        q_total[rows] = q.sum(-1, keepdim=True) + tail
        q_beyond[rows] = q.masked_fill(inside, 0).sum(-1, keepdim=True) + beyond_tail
        terms = top.s - mean[rows] - k * top.g.masked_fill(inside, 0)
        q_by_b[rows] = (q * terms).sum(-1, keepdim=True) + tail_by_b
        c_y[rows], g_y[rows] = top.c_y, top.g_y

    over_y = torch.relu(c_y - top_p)
    a_y = (over_y > 0).double()
    n = torch.exp(s_y * b - k * over_y) / total / (q_total + NUCLEUS_EPSILON)
    outer = -n / (n + NUCLEUS_EPSILON)
    top_p_loss_by_b = outer * (s_y - mean - k * a_y * g_y - q_by_b / (q_total + NUCLEUS_EPSILON))
    top_p_loss_by_p = outer * k * (a_y - q_beyond / (q_total + NUCLEUS_EPSILON))
    by_t = -b * b
    derivatives = (temperature_loss_by_b * by_t, top_p_loss_by_b * by_t, top_p_loss_by_p)
    values = (temperature_loss, -torch.log(n + NUCLEUS_EPSILON), *derivatives)
    return torch.stack([value.squeeze(-1) for value in values])


def _sums(z: Tensor, temperature: Tensor, labels: Tensor) -> Sums:
    largest = z.amax(-1, keepdim=True)
    s = z - largest
    s_y = s.gather(-1, labels)
    # Tokens with the label's own logit keep the order of their ids, as in a stable sort.
    rank = ((s > s_y) | ((s == s_y) & (torch.arange(z.shape[-1], device=z.device) < labels))).sum(-1, keepdim=True)
    weight_total = torch.exp(s).sum(-1, keepdim=True, dtype=torch.float64)
    e = torch.exp(s / temperature)
    total = e.sum(-1, keepdim=True, dtype=torch.float64)
    mean = (e * s).sum(-1, keepdim=True, dtype=torch.float64) / total
    squares = (e * e).sum(-1, keepdim=True, dtype=torch.float64) / (total * total)
    q = e / total.to(e.dtype)
    entropy = -(q * torch.log(q + schema.STATS_EPSILON)).sum(-1, keepdim=True, dtype=torch.float64)
    return Sums(largest, weight_total, total, mean, squares, entropy, s_y.double(), rank)


def _top_tokens(z, temperature, labels, sums: Sums, rows: Tensor, size: int) -> TopTokens:
    """Return the ``size`` likeliest tokens of ``rows``."""
    chosen = z if len(rows) == len(z) else z[rows]
    whole = size == z.shape[-1]
    top = torch.sort(chosen, descending=True).values if whole else torch.topk(chosen, size).values
    s = top.double() - sums.largest[rows].double()
    p = torch.exp(s / temperature[rows].double()) / sums.total[rows]
    c = p.cumsum(-1)
    g = (p * s).cumsum(-1) - sums.mean[rows] * c
    at = sums.rank[rows].clamp(max=size - 1)
    c_y, g_y = c.gather(-1, at), g.gather(-1, at)
    beyond = (sums.rank[rows] >= size).squeeze(-1)
    if beyond.any():
        c_y[beyond], g_y[beyond] = _at_label(z, temperature, labels, sums, rows[beyond])
    return TopTokens(rows, s, p, c, g, c_y, g_y)


def _at_label(z, temperature, labels, sums: Sums, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return (c, g) at the labels of ``rows``, [r, 1] float64, by sums over what is likelier."""
    s = z[rows] - sums.largest[rows]
    s_y = s.gather(-1, labels[rows])
    before = (s > s_y) | ((s == s_y) & (torch.arange(z.shape[-1], device=z.device) <= labels[rows]))
    p = torch.exp(s / temperature[rows]).masked_fill_(~before, 0)
    c = p.sum(-1, keepdim=True, dtype=torch.float64) / sums.total[rows]
    return c, (p * s).sum(-1, keepdim=True, dtype=torch.float64) / sums.total[rows] - sums.mean[rows] * c

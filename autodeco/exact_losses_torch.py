"""The exact losses on any device and in any precision: the formulas of ``exact_losses`` for all tokens of a chunk."""

from dataclasses import dataclass

import torch
from torch import Tensor

from autodeco import heads
from autodeco.losses import EPSILON, MINIMUM_TEMPERATURE


@dataclass
class SortedTokens:
    """The distributions of n tokens, sorted in descending order; columns are [n, 1]."""

    s: Tensor  # [n, V], logits minus the largest
    p: Tensor  # [n, V], softmax(z / T)
    total: Tensor  # sum of exp(s / T)
    s_y: Tensor
    rank: Tensor  # the label's place
    weight: Tensor  # softmax(z)[label]
    stats: Tensor  # [n, 4], as heads.prob_stats

    @property
    def easy(self) -> Tensor:
        return self.rank.squeeze(-1) == 0


def sort_tokens(z: Tensor, temperature: Tensor, labels: Tensor) -> SortedTokens:
    """Return what the losses need of ``z`` [n, V] at ``temperature`` [n] for ``labels`` [n], none of them -100."""
    labels = labels.unsqueeze(-1)
    z_y = z.gather(-1, labels)
    # Tokens with the label's own logit keep the order of their ids, as in a stable sort.
    rank = (z > z_y).sum(-1, keepdim=True)
    rank += ((z == z_y) & (torch.arange(z.shape[-1], device=z.device) < labels)).sum(-1, keepdim=True)
    s = torch.sort(z, dim=-1, descending=True).values
    s_y = z_y - s[:, :1]
    s -= s[:, :1].clone()
    weight = torch.exp(s_y) / torch.exp(s).sum(-1, keepdim=True)
    p = torch.exp(s / temperature.to(z.dtype).unsqueeze(-1))
    total = p.sum(-1, keepdim=True)
    p /= total
    entropy = -(p * torch.log(p + heads.EPSILON)).sum(-1)
    stats = torch.stack([p[:, 0], entropy, p.var(-1), p[:, :5].sum(-1)], dim=-1)
    return SortedTokens(s, p, total, s_y, rank, weight, stats)


def losses_and_derivatives(tokens: SortedTokens, temperature: Tensor, top_p: Tensor, k: float) -> Tensor:
    """Return [5, n]: temperature loss, soft top-p loss, their derivatives by T, and of the second by P."""
    s, p, s_y, weight = tokens.s, tokens.p, tokens.s_y, tokens.weight
    temperature, top_p = (value.to(s.dtype).unsqueeze(-1) for value in (temperature, top_p))
    b = 1 / temperature
    ps = p * s
    mean = ps.sum(-1, keepdim=True)
    c = p.cumsum(-1)
    g = ps.cumsum_(-1)
    g -= mean * c

    first = tokens.total.log() - s_y * b
    first_by_b = mean - s_y
    clamped = temperature < MINIMUM_TEMPERATURE
    if clamped.any():
        at_minimum = torch.exp(s / MINIMUM_TEMPERATURE).sum(-1, keepdim=True).log() - s_y / MINIMUM_TEMPERATURE
        first = torch.where(clamped, at_minimum, first)
        first_by_b = first_by_b.masked_fill(clamped, 0)

    over = torch.relu_(c.sub_(top_p))
    a = (over > 0).to(s.dtype)
    over_y, a_y, g_y = (value.gather(-1, tokens.rank) for value in (over, a, g))
    q = torch.exp(over * -k).mul_(p)
    s_total = q.sum(-1, keepdim=True)
    n = torch.exp(s_y * b - k * over_y) / tokens.total / (s_total + EPSILON)
    q_inside_by_b = (q * (s - mean - k * a * g)).sum(-1, keepdim=True)
    outer = -n / (n + EPSILON)
    second = -torch.log(n + EPSILON)
    second_by_b = outer * (s_y - mean - k * a_y * g_y - q_inside_by_b / (s_total + EPSILON))
    second_by_p = outer * k * (a_y - (q * a).sum(-1, keepdim=True) / (s_total + EPSILON))
    by_t = -b * b
    values = (first, second, first_by_b * by_t, second_by_b * by_t, second_by_p)
    return weight.squeeze(-1) * torch.stack([value.squeeze(-1) for value in values])

"""Next-token distributions, compressed so that thousands of them fit beside their hidden states.

A distribution over V tokens is kept as its ``TOP`` likeliest tokens and a histogram of the others. With x = z_max - z
the gap of a token to the likeliest one, each kept token is an atom (x, 1), and each bin of the histogram an atom
(mean x of its tokens, their number). At temperature T an atom of n tokens has the mass

    p = n exp(-x / T) / sum of n exp(-x / T)

Within a bin of width w the error of exp is at most (w / T)^2 / 24 of its value, and the tail that the bins hold has
little mass wherever that is not small. Everything that decoding does with T and P follows from about 200 numbers
instead of V, exactly differentiable, so an update of the heads needs neither the model nor its output matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autodeco.export.schema import STATS_EPSILON

TOP = 128  # tokens kept one by one
BINS = 64
BIN_WIDTH = 0.25  # in logits; what lies further below the last kept token than 16 goes to the last bin

# Scale of the noise on logit(P). Half of the draws of a P of 0.9 lie between 0.88 and 0.92. More explores more, but
# heads then learn what is best with noise: in the world of the tests 0.3 reaches 94% of the best value, 0.2 97%.
BLUR = 0.2
LEAST_TEMPERATURE = 1e-3
_EDGE = 1e-6


@dataclass(frozen=True)
class Distributions:
    """n compressed distributions of K atoms each, the likeliest first."""

    gaps: Tensor  # [n, K] float, z_max - z, ascending
    counts: Tensor  # [n, K] float, tokens of the atom; 0: none
    vocabulary: int

    def __len__(self) -> int:
        return len(self.gaps)

    def __getitem__(self, indices) -> "Distributions":
        return Distributions(self.gaps[indices], self.counts[indices], self.vocabulary)


def compress(logits: Tensor) -> Distributions:
    """Return the distributions of ``logits`` [n, V], float16."""
    n, vocabulary = logits.shape
    top = logits.topk(min(TOP, vocabulary), dim=-1).values
    gaps, counts = top[:, :1] - top, torch.ones_like(top)
    if vocabulary > TOP:
        below = top[:, -1:] - logits  # positive behind the kept ones
        bins = (below / BIN_WIDTH).floor().clamp(0, BINS - 1).long()
        tail = (below > 0).float()
        number = logits.new_zeros(n, BINS).scatter_add_(1, bins, tail)
        mean = logits.new_zeros(n, BINS).scatter_add_(1, bins, below * tail) / number.clamp(min=1)
        centers = BIN_WIDTH * (torch.arange(BINS, device=logits.device) + 0.5)
        mean = torch.where(number > 0, mean, centers)
        gaps = torch.cat((gaps, gaps[:, -1:] + mean), 1)
        counts = torch.cat((counts, number), 1)
    return Distributions(gaps.half(), counts.float(), vocabulary)


def token_atoms(distributions: Distributions, gap: Tensor) -> Tensor:
    """Return the index [n] of the atom that holds a token ``gap`` [n] below the likeliest one."""
    distance = (distributions.gaps.float() - gap.unsqueeze(-1)).abs()
    return distance.masked_fill(distributions.counts == 0, torch.inf).argmin(-1)


def masses(distributions: Distributions, temperature: Tensor) -> Tensor:
    """Return the mass [n, K] of every atom of softmax(z / T), with a gradient to ``temperature`` [n]."""
    scaled = -distributions.gaps.float() / temperature.clamp(min=LEAST_TEMPERATURE).unsqueeze(-1)
    e = distributions.counts.float() * torch.exp(scaled)
    return e / e.sum(-1, keepdim=True)


def policy(distributions: Distributions, temperature: Tensor, top_p: Tensor, blur: float = BLUR) -> Tensor:
    """Return the mass [n, K] that decoding gives every atom, with gradients to ``temperature`` and ``top_p`` [n].

    The nucleus is a step function of P, whose derivative is 0 almost everywhere, so P is blurred: logit(P) gets
    logistic noise of scale ``blur``, tokens are sampled with the hard cut at the noisy P, and the noise is integrated
    out. With c_k the mass of the first k atoms, F_k = sigmoid((logit(c_k) - logit(P)) / blur) the probability that the
    cut comes at atom k or before it:

        pi_y = p_y A_y        A_y = sum over k >= y of (F_k - F_(k-1)) / c_k

    which sums up to 1 and tends to the hard cut as ``blur`` tends to 0.
    """
    p = masses(distributions, temperature)
    c = p.cumsum(-1)
    inside = c.clamp(_EDGE, 1 - _EDGE)
    logit_p = torch.logit(top_p.clamp(_EDGE, 1 - _EDGE)).unsqueeze(-1)
    cut = torch.sigmoid((torch.logit(inside) - logit_p) / blur)
    cut = torch.cat((cut[:, :-1], torch.ones_like(cut[:, :1])), 1)  # the mass of all tokens reaches every P
    steps = torch.diff(cut, dim=-1, prepend=torch.zeros_like(cut[:, :1])) / inside
    return p * steps.flip(-1).cumsum(-1).flip(-1)


@torch.no_grad()
def prob_stats(distributions: Distributions, temperature: Tensor) -> Tensor:
    """Return the statistics [n, 4] of softmax(z / T) that a top-p head reads, as ``autodeco.heads.prob_stats``."""
    p, n = masses(distributions, temperature + STATS_EPSILON), distributions.counts.float().clamp(min=1)
    q = p / n  # of one token
    size = distributions.vocabulary
    variance = ((p * q).sum(-1) - 1 / size) / (size - 1)
    entropy = -(p * torch.log(q + STATS_EPSILON)).sum(-1)
    return torch.stack((q[:, 0], entropy, variance, p[:, :5].sum(-1)), -1)

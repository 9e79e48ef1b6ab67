"""The probability of a token under the hard top-p that decoding cuts with, and its derivatives by T and P.

The smallest prefix of tokens whose mass reaches P is a step function of P: its derivative is 0 almost everywhere, and
the soft top-p of the likelihood loss, which has one, gives tokens behind the cut a probability that they do not have,
and rises with P for ever. So P is blurred instead of the cut: logit(P) gets logistic noise of a scale s, the token is
drawn with the hard cut at the P so drawn, and the noise is integrated out. With tokens in descending order, c_k the
mass of the first k, F_k = sigmoid((logit(c_k) - logit(P)) / s) the probability that the cut comes at k or before it:

    pi(y) = p_y A_y        A_y = sum over k >= y of (F_k - F_(k-1)) / c_k        the cut must not come before y

which is the exact probability of y with blurred P, sums up to 1 over the vocabulary, and tends to the hard cut as s
tends to 0. With b = 1/T and the names of ``exact`` (g_k = dc_k/db, mean = sum of p_i s_i), f = dF/dc and
h = F (1 - F) / s = -dF/dlogit(P):

    dlog pi/db        = s_y - mean + dA_y/db / A_y
    dA_y/db           = sum over k >= y of (f_k g_k - f_(k-1) g_(k-1)) / c_k - (F_k - F_(k-1)) g_k / c_k^2
    dlog pi/dlogit(P) = sum over k >= y of (h_(k-1) - h_k) / c_k / A_y

Only the likeliest tokens are sorted (``exact_torch``). Behind the last of them, at c = a, the sum becomes an
integral:

    integral from a to 1 of dF / c = 1 - F(a) / a + integral of F / c^2

whose integrand is smooth. No array as wide as the vocabulary is kept.
"""

import numpy as np
import torch
from torch import Tensor

from autodeco.losses.exact import SMALLEST_TEMPERATURE
from autodeco.losses.exact_torch import Distributions, TopTokens, prepare

# Scale of the noise on logit(P). Half of the draws of a P of 0.9 lie between 0.87 and 0.93.
BLUR = 0.3

LARGEST_P = 1 - 1e-6  # where the logit is still a number in float32
_EDGE = 1e-12
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def log_probability(logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, blur: float = BLUR) -> Tensor:
    """Return the log-probability [n] of ``labels`` [n] under top-p with blurred P, in nats.

    ``logits`` [n, V] without gradient, ``temperature``, ``top_p`` [n], which get exact gradients; a temperature below
    1e-8 and a top-p outside [1e-6, 1 - 1e-6] count as the limit.
    """
    z = logits.detach()
    tokens = prepare(z, temperature.detach().clamp(min=SMALLEST_TEMPERATURE), labels)
    return _Known.apply(temperature, top_p, _values(tokens, top_p.detach(), blur))


class _Known(torch.autograd.Function):
    """Gives a log-probability the derivatives that were computed with it."""

    @staticmethod
    def forward(ctx, temperature, top_p, values):
        log_p, by_t, by_p = values.to(temperature.dtype)
        ctx.save_for_backward(by_t, by_p)
        return log_p.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        by_t, by_p = ctx.saved_tensors
        return gradient * by_t, gradient * by_p, None


def _values(tokens: Distributions, top_p: Tensor, blur: float) -> Tensor:
    """Return [3, n]: log pi and its derivatives by T and P, float64."""
    sums, b = tokens.sums, 1 / tokens.temperature.double()
    cut = top_p.double().unsqueeze(-1).clamp(1 - LARGEST_P, LARGEST_P)
    a, a_by_b, a_by_logit = (torch.empty_like(b) for _ in range(3))
    for head in tokens.prefixes():
        whole = head.c.shape[-1] == tokens.z.shape[-1]
        a[head.rows], a_by_b[head.rows], a_by_logit[head.rows] = _sums(head, sums, b, cut[head.rows], blur, whole)
    # What is so unlikely that nothing is left in float64 has no say, but must not be infinite.
    a = a.clamp(min=1e-300)
    log_p = sums.s_y * b - sums.total.log() + a.log()
    by_b = sums.s_y - sums.mean + a_by_b / a
    by_p = a_by_logit / a / (cut * (1 - cut))
    return torch.stack([value.squeeze(-1) for value in (log_p, -b * b * by_b, by_p)])


def _sums(head: TopTokens, sums, b: Tensor, cut: Tensor, blur: float, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return A and its derivatives by b and logit(P), each [r, 1], of the rows of ``head``."""
    rank, size = sums.rank[head.rows], head.c.shape[-1]
    c = head.c.clamp(_EDGE, 1 - _EDGE)
    F, f, h = _cut_by(c, cut, blur)
    if whole:  # the mass of all tokens is 1, and reaches every P
        F[:, -1], f[:, -1], h[:, -1] = 1, 0, 0
    # nothing is cut before the first token
    before = [torch.nn.functional.pad(part[:, :-1], (1, 0)) for part in (F, f * head.g, h)]
    counted = torch.arange(size, device=c.device) >= rank
    w = (F - before[0]) * counted
    a = (w / c).sum(-1, keepdim=True)
    by_b = (((f * head.g - before[1]) * counted - w * head.g / c) / c).sum(-1, keepdim=True)
    by_logit = ((before[2] - h) * counted / c).sum(-1, keepdim=True)
    if not whole:
        # the tail begins at the end of the head, or at the label if that is behind it
        behind = rank >= size
        p_y = torch.exp(sums.s_y[head.rows] * b[head.rows]) / sums.total[head.rows]
        start = torch.where(behind, head.c_y - p_y, head.c[:, -1:]).clamp(_EDGE, 1 - _EDGE)
        g = torch.where(behind, head.g_y - p_y * (sums.s_y - sums.mean)[head.rows], head.g[:, -1:])
        tail, tail_by_start, tail_by_logit = _tail(start, cut, blur)
        a, by_b, by_logit = a + tail, by_b + tail_by_start * g, by_logit + tail_by_logit
    return a, by_b, by_logit


def _cut_by(c: Tensor, cut: Tensor, blur: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return F, dF/dc and -dF/dlogit(P) at masses ``c``."""
    F = torch.sigmoid((torch.logit(c) - torch.logit(cut)) / blur)
    h = F * (1 - F) / blur
    return F, h / (c * (1 - c)), h


def _tail(start: Tensor, cut: Tensor, blur: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the integral of dF / c from ``start`` [r, 1] to 1 and its derivatives by the start and by logit(P)."""
    points, weights = (torch.as_tensor(values, device=start.device) for values in (_POINTS, _WEIGHTS))
    half = (1 - start) / 2
    c = start + half * (1 + points)
    F, _, h = _cut_by(c.clamp(max=1 - _EDGE), cut, blur)
    at, slope, h_at = _cut_by(start, cut, blur)
    tail = 1 - at / start + (F / c**2 * weights).sum(-1, keepdim=True) * half
    by_logit = h_at / start - (h / c**2 * weights).sum(-1, keepdim=True) * half
    return tail, -slope / start, by_logit

"""Both losses and their derivatives in one pass over a chunk of tokens, without a graph over the vocabulary.

The base model is frozen, so the losses of a token reach the heads through two numbers only, its temperature T and its
top-p P. Automatic differentiation instead keeps every intermediate array of the vocabulary's width: about a dozen
float32 arrays, which for 12,288 tokens of a vocabulary of 151,936 are 7.5 GB each. Here a token leaves four numbers
behind, its two losses and their derivatives, and the wide arrays live for one chunk: 16 tokens of that vocabulary are
10 MB an array.

With b = 1/T, z sorted in descending order, s_i = z_i - z_1 <= 0 (the order does not depend on T), y the label's place
in that order and w = softmax(z)_y the weight, which has no gradient:

    p_i = exp(b s_i) / sum_j exp(b s_j)            mean = sum_i p_i s_i              dp_i/db = p_i (s_i - mean)
    c_i = p_1 + .. + p_i                           G_i = p_1 s_1 + .. + p_i s_i      dc_i/db = G_i - mean c_i = g_i
    a_i = 1 where c_i > P, else 0                  m_i = exp(-k relu(c_i - P))       dm_i/db = -k a_i g_i m_i
    q_i = p_i m_i    S = sum_i q_i                 n = q_y / (S + eps)               dm_i/dP = +k a_i m_i

    temperature loss   -w log p_y                  d/db = w (mean - s_y)
    soft top-p loss    -w log(n + eps)             d/db = -w n / (n + eps) * (dlog q_y/db - dS/db / (S + eps))
                                                   dlog q_y/db = s_y - mean - k a_y g_y
                                                   dS/db = sum_i q_i (s_i - mean - k a_i g_i)
                                                   d/dP = -w n / (n + eps) * (k a_y - k sum_i a_i q_i / (S + eps))

and d/dT = -b^2 d/db. The temperature loss uses max(T, 0.01), with no gradient below.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from autodeco.losses import EPSILON, IGNORED, MINIMUM_TEMPERATURE, STEEPNESS


def token_losses(
    logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, steepness: float = STEEPNESS
) -> tuple[Tensor, Tensor]:
    """Return each token's (temperature loss [n], soft top-p loss [n]) in nats, weighted, before any dropping or mean.

    ``logits`` [n, V] without gradient, ``temperature``, ``top_p`` [n], ``labels`` [n]; 0 where the label is
    -100. Both results carry gradients to ``temperature``, the second also to ``top_p``. Nothing of size V is kept.
    """
    return _TokenLosses.apply(temperature, top_p, logits.detach(), labels, steepness)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, temperature, top_p, logits, labels, steepness):
        losses, derivatives = _losses_and_derivatives(logits, temperature, top_p, labels, steepness)
        ctx.save_for_backward(*derivatives)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_temperature_loss, grad_top_p_loss):
        first_by_t, second_by_t, second_by_p = ctx.saved_tensors
        by_t = grad_temperature_loss * first_by_t + grad_top_p_loss * second_by_t
        return by_t, grad_top_p_loss * second_by_p, None, None, None


def _losses_and_derivatives(z: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, k: float):
    labelled = labels != IGNORED
    labels = labels.clamp(min=0).unsqueeze(-1)
    temperature, top_p = (value.detach().to(z.dtype).unsqueeze(-1) for value in (temperature, top_p))
    z_y = z.gather(-1, labels)
    # Tokens with the label's own logit keep the order of their ids, as in a stable sort.
    rank = (z > z_y).sum(-1, keepdim=True)
    rank += ((z == z_y) & (torch.arange(z.shape[-1], device=z.device) < labels)).sum(-1, keepdim=True)
    s = sort_descending(z)
    largest = s[:, :1].clone()
    s -= largest
    s_y = z_y - largest
    weight = torch.exp(s_y) / torch.exp(s).sum(-1, keepdim=True)

    b = 1 / temperature
    p = torch.exp(s * b)
    total = p.sum(-1, keepdim=True)
    p /= total
    ps = p * s
    mean = ps.sum(-1, keepdim=True)
    c = p.cumsum(-1)
    g = ps.cumsum_(-1)
    g -= mean * c

    first = weight * (total.log() - s_y * b)
    first_by_b = weight * (mean - s_y)
    clamped = temperature < MINIMUM_TEMPERATURE
    if clamped.any():
        at_minimum = weight * (
            torch.exp(s / MINIMUM_TEMPERATURE).sum(-1, keepdim=True).log() - s_y / MINIMUM_TEMPERATURE
        )
        first = torch.where(clamped, at_minimum, first)
        first_by_b = first_by_b.masked_fill(clamped, 0)

    a_y = (c.gather(-1, rank) > top_p).to(z.dtype)
    g_y = g.gather(-1, rank)
    over = c.sub_(top_p).relu_()
    g.mul_(over > 0)  # from here on a_i g_i
    m = torch.exp(over * -k)
    q_y_exponent = -k * over.gather(-1, rank)
    q = p.mul_(m)
    s_total = q.sum(-1, keepdim=True)
    aq_total = (q * (over > 0)).sum(-1, keepdim=True)
    q_y = torch.exp(s_y * b + q_y_exponent) / total
    n = q_y / (s_total + EPSILON)
    # sum_i q_i (s_i - mean - k a_i g_i)
    total_by_b = (q * (s - mean - k * g)).sum(-1, keepdim=True)
    outer = -weight * n / (n + EPSILON)
    second = -weight * torch.log(n + EPSILON)
    second_by_b = outer * (s_y - mean - k * a_y * g_y - total_by_b / (s_total + EPSILON))
    second_by_p = outer * k * (a_y - aq_total / (s_total + EPSILON))

    def per_token(value: Tensor) -> Tensor:
        return value.squeeze(-1).masked_fill(~labelled, 0)

    by_t = -b * b
    losses = (per_token(first), per_token(second))
    return losses, (per_token(first_by_b * by_t), per_token(second_by_b * by_t), per_token(second_by_p))


def sort_descending(z: Tensor) -> Tensor:
    """Return the values of ``z`` [n, V] sorted in descending order along the last dimension.

    On a CPU numpy sorts values alone with vector instructions, 5 times as fast as torch.sort, which also sorts indices.
    """
    if z.device.type != "cpu":
        return torch.sort(z, dim=-1, descending=True).values
    negative = -z
    rows = negative.numpy()
    threads = min(torch.get_num_threads(), len(rows))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:  # sorting releases the interpreter's lock
            list(pool.map(lambda part: part.sort(axis=-1), (rows[i::threads] for i in range(threads))))
    else:
        rows.sort(axis=-1)
    return negative.neg_()

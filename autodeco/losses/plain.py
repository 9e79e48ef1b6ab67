"""The two training losses in plain PyTorch: readable, differentiable in everything, and a vocabulary wide."""

import torch
import torch.nn.functional as F
from torch import Tensor

from autodeco.heads import softmax

# arXiv 2510.26697 and its official implementation.
MINIMUM_TEMPERATURE = 1e-2  # of the temperature loss; the soft top-p loss divides by T itself
EASY_TOKEN_DROP = 0.6
STEEPNESS = 30.0
NUCLEUS_EPSILON = 1e-9
IGNORED = -100


def label_weight(logits: Tensor, labels: Tensor) -> Tensor:
    """Return softmax(logits)[label], [...], without gradient: the dynamic fine-tuning weight of each token."""
    return _at(softmax(logits.detach()), labels)


def easy_token_mask(
    logits: Tensor, labels: Tensor, easy_token_drop: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return which positions [...] the temperature loss keeps: labelled, and not an easy one that is dropped.

    A token is easy where the most likely token is the label; each is dropped with probability ``easy_token_drop``.
    """
    dropped = torch.rand(labels.shape, generator=generator, device=labels.device) < easy_token_drop
    return (labels != IGNORED) & ~(dropped & (logits.argmax(dim=-1) == labels))


def temperature_loss(
    logits: Tensor,
    temperature: Tensor,
    labels: Tensor,
    easy_token_drop: float = EASY_TOKEN_DROP,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean weighted cross entropy of softmax(z / max(T, 0.01)) over the kept positions, a scalar in nats.

    ``logits`` [..., V], ``temperature`` [...], ``labels`` [...]: the token that follows each position, -100 ignored.
    """
    kept = easy_token_mask(logits, labels, easy_token_drop, generator)
    z = logits / temperature.clamp(min=MINIMUM_TEMPERATURE).unsqueeze(-1)
    # log_softmax subtracts the maximum first; logsumexp(z) - z[label] would cancel where a small T makes z huge.
    nll = -_at(F.log_softmax(z, dim=-1), labels)
    return masked_mean(label_weight(logits, labels) * nll, kept)


def soft_top_p_loss(
    logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, steepness: float = STEEPNESS
) -> Tensor:
    """Return the mean weighted negative log likelihood under the soft nucleus over the labelled positions, in nats.

    ``logits`` [..., V], ``temperature`` and ``top_p`` [...], ``labels`` [...]: the next token, -100 ignored. The soft
    nucleus multiplies each probability by exp(-steepness * relu(c - P)), c the inclusive sum of those as large or
    larger; tokens of equal probability keep the order of their ids.
    """
    p = softmax(logits / temperature.unsqueeze(-1))
    p, order = torch.sort(p, dim=-1, descending=True, stable=True)
    mask = torch.exp(-steepness * F.relu(p.cumsum(dim=-1) - top_p.unsqueeze(-1)))
    soft = p * mask
    soft = soft / (soft.sum(dim=-1, keepdim=True) + NUCLEUS_EPSILON)
    rank = (order == labels.clamp(min=0).unsqueeze(-1)).to(torch.uint8).argmax(dim=-1, keepdim=True)
    nll = -torch.log(soft.gather(-1, rank).squeeze(-1) + NUCLEUS_EPSILON)
    return masked_mean(label_weight(logits, labels) * nll, labels != IGNORED)


def masked_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Return the mean of ``values`` [...] where ``kept`` [...]; over nothing it is 0, still connected to ``values``."""
    return torch.where(kept, values, torch.zeros_like(values)).sum() / kept.sum().clamp(min=1)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    """Return values[..., label], [...]; an ignored label reads token 0 and is masked by the caller."""
    return values.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)

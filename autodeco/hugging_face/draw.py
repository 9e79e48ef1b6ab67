"""One token for each row of logits, drawn with the hard top-p as at inference, without sorting the vocabulary.

A token is drawn from softmax(z / T). It is in the nucleus if what is likelier has less mass than P, which one sum
tells, and that happens with a probability of at least P. Only the other rows are sorted, and drawn once more from their
nucleus. A token x of the nucleus, whose mass is M, then comes with p_x + (1 - M) p_x / M = p_x / M, as it should.
"""

import torch
from torch import Tensor

from autodeco.export.schema import GREEDY_TEMPERATURE
from autodeco.heads import softmax


@torch.no_grad()
def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniforms: Tensor) -> Tensor:
    """Return token ids [n] for ``logits`` [n, V], ``temperature`` and ``top_p`` [n] and ``uniforms`` [n, 2] in [0, 1).

    Of tokens with equal logits, lower ids come first. The nucleus has at least one token.
    """
    likeliest = logits.argmax(-1)
    p = softmax(logits / temperature.clamp(min=GREEDY_TEMPERATURE).unsqueeze(-1))
    tokens = _at(p.cumsum(-1), uniforms[:, 0])
    z = logits.gather(-1, tokens.unsqueeze(-1))
    ids = torch.arange(logits.shape[-1], device=logits.device)
    likelier = (logits > z) | ((logits == z) & (ids < tokens.unsqueeze(-1)))
    before = p.masked_fill(~likelier, 0).sum(-1)
    greedy = temperature < GREEDY_TEMPERATURE
    tokens = torch.where(greedy, likeliest, tokens)
    outside = ((before >= top_p) & (tokens != likeliest)).nonzero().squeeze(-1)
    if len(outside):
        order = logits[outside].sort(descending=True, stable=True).indices
        p = p[outside].gather(-1, order)
        c = p.cumsum(-1)
        inside = c - p < top_p[outside].unsqueeze(-1)
        inside[:, 0] = True
        c = torch.where(inside, c, 0).cummax(-1).values  # stays at the mass of the nucleus after its last token
        tokens[outside] = order.gather(-1, _at(c, uniforms[outside, 1]).unsqueeze(-1)).squeeze(-1)
    return tokens


def _at(c: Tensor, u: Tensor) -> Tensor:
    """Return the first index [n] at which the running sums ``c`` [n, V] exceed the share ``u`` [n] of their last."""
    last = c[:, -1:]
    wanted = torch.minimum(u.to(c.dtype).unsqueeze(-1) * last, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(c, wanted, right=True).squeeze(-1)

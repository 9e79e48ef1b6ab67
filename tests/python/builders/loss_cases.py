"""Tokens to score, and the plain losses to compare with."""

import torch

from autodeco import losses


def plain(logits, temperature, top_p, labels):
    """Return both losses of each token by the plain version, a token at a time."""
    rows = range(len(labels))
    first = [losses.temperature_loss(logits[i], temperature[i], labels[i], easy_token_drop=0.0) for i in rows]
    second = [losses.soft_top_p_loss(logits[i], temperature[i], top_p[i], labels[i]) for i in rows]
    return torch.stack(first), torch.stack(second)


def random_case(seed, n=24, vocab=500, spread=4.0, dtype=torch.float32):
    """Return logits, temperature, top-p, labels that favour likely tokens, with one ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, vocab, generator=generator) * spread
    labels = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator).squeeze(-1)
    labels[3] = -100
    temperature = torch.rand(n, generator=generator) * 1.9 + 0.05
    top_p = torch.rand(n, generator=generator)
    return logits.to(dtype), temperature.to(dtype), top_p.to(dtype), labels


def gradients(function, logits, temperature, top_p, labels):
    """Return values and gradients by T and P of each loss; each token's gradient is scaled differently."""
    temperature, top_p = temperature.clone().requires_grad_(), top_p.clone().requires_grad_()
    first, second = function(logits, temperature, top_p, labels)
    factors = torch.linspace(0.5, 2.0, len(labels), dtype=first.dtype, device=first.device)
    (by_t_first,) = torch.autograd.grad((first * factors).sum(), temperature, retain_graph=True)
    by_t_second, by_p = torch.autograd.grad((second * factors).sum(), (temperature, top_p))
    return {"first": first, "second": second, "first by T": by_t_first, "second by T": by_t_second, "second by P": by_p}

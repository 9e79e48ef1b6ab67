"""The objective of an update: the expected target, from answers that slightly older heads sampled.

A decision is a position of a sampled answer at which the distribution was uncertain. Let pi be its distribution under
the heads now, mu the one under the heads that sampled the answer, y the sampled token and A its advantage. Then

    gain = min(r A, clip(r, 1 - e, 1 + e) A)        r = pi(y) / mu(y)

is the usual clipped policy gradient. It says nothing about probability that moves to tokens that were never sampled, so
it would cost nothing to raise a temperature where all sampled tokens are alike. So a token that mu gave less than
``KNOWN`` has the value 0, as far as pi gives it more: the answer then loses its expected reward.

    leak = sum over tokens a with mu(a) < KNOWN of max(0, pi(a) - mu(a))        loss = price x leak - gain

From round to round that is a ratchet: what the tail loses by chance costs nothing, and what it wins back does. Where
some static setting is safe, what it gives a token is ``free``: max(0, pi(a) - max(mu(a), free(a))).

Where rewards say nothing of top-p, noise moves it, and then it leaves out or lets in what it should not on other
prompts. A small price of its distance from a ``Rest`` holds it:

    price x (logit(P) - logit(rest))^2 / 2

Both pi and mu are exact over the whole vocabulary (``distributions``). Positions where the model is sure are kept for
their leak alone: a sample of them, with the weight of all.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from autodeco.heads import Heads
from autodeco.rewards.distributions import BLUR, Distributions, policy, prob_stats

CLIP = 0.2
# Decisions at a time: a CPU spends more time on new pages of memory than on numbers where temporaries are large.
CHUNK, CPU_CHUNK = 2**17, 2**12
KNOWN = 0.01  # a token with less probability is hardly ever among some 16 answers
LOGIT_EPSILON = 1e-6  # a top-p beyond it is one of 0 or 1 in float32


@dataclass(frozen=True)
class Rest:
    """A top-p in (0, 1) at which heads stay where it changes nothing, and the price of leaving it."""

    price: float
    top_p: float

    def costs(self, top_p: Tensor) -> Tensor:
        """Return the price [n] of ``top_p`` [n], with gradients."""
        distance = torch.logit(top_p, LOGIT_EPSILON) - math.log(self.top_p / (1 - self.top_p))
        return self.price * distance.square() / 2


@dataclass(frozen=True)
class Decisions:
    """n positions of sampled answers."""

    hidden: Tensor  # [n, H]
    distributions: Distributions
    atom: Tensor  # [n], of the sampled token
    temperature: Tensor  # [n], sampled with
    top_p: Tensor
    advantage: Tensor  # [n]
    price: Tensor  # [n], expected reward of the answer
    weight: Tensor  # [n], how many positions each stands for

    def __len__(self) -> int:
        return len(self.atom)

    def __getitem__(self, indices) -> "Decisions":
        return Decisions(
            self.hidden[indices],
            self.distributions[indices],
            *(
                column[indices]
                for column in (self.atom, self.temperature, self.top_p, self.advantage, self.price, self.weight)
            ),
        )


@dataclass(frozen=True)
class Losses:
    """Terms of the objective at n decisions, [n] each."""

    gain: Tensor
    leak: Tensor  # probability, 0 to 1
    rest: Tensor  # price of leaving the top-p at which heads rest; 0 without one
    divergence: Tensor  # KL(pi, mu), nats; reported, without a gradient


def predict(heads: Heads, hidden: Tensor, distributions: Distributions) -> tuple[Tensor, Tensor]:
    """Return (temperature [n], top-p [n]) of ``heads`` at ``hidden`` [n, H], with gradients."""
    hidden = hidden.float()
    temperature, stats = heads.temperature(hidden), None
    if heads.prob_stats and heads.top_p_head is not None:
        stats = prob_stats(distributions, temperature.detach())
    return temperature, heads.top_p(hidden, temperature, stats)


def losses(
    heads: Heads,
    decisions: Decisions,
    clip: float = CLIP,
    blur: float = BLUR,
    free: tuple[float, float] | None = None,
    rest: Rest | None = None,
) -> Losses:
    """Return the terms of the objective, with gradients to ``heads``.

    ``free`` is the (temperature, top-p) whose distribution leaks nothing; without it only that of the answers does.
    ``rest`` is the top-p that costs nothing; without it none does.
    """
    distributions, counts = decisions.distributions, decisions.distributions.counts.clamp(min=1)
    with torch.no_grad():
        mu = policy(distributions, decisions.temperature, decisions.top_p, blur)
        unknown = mu < KNOWN * counts
        priced_from = mu
        if free is not None:
            setting = (torch.full_like(decisions.temperature, value) for value in free)
            priced_from = torch.maximum(mu, policy(distributions, *setting, blur))
    temperature, top_p = predict(heads, decisions.hidden, distributions)
    pi = policy(distributions, temperature, top_p, blur)
    sampled = decisions.atom.unsqueeze(-1)
    # an atom's count cancels
    ratio = pi.gather(1, sampled).squeeze(-1) / mu.gather(1, sampled).squeeze(-1).clamp(min=1e-12)
    gain = torch.minimum(ratio * decisions.advantage, ratio.clamp(1 - clip, 1 + clip) * decisions.advantage)
    leak = ((pi - priced_from).clamp(min=0) * unknown).sum(-1)
    with torch.no_grad():
        divergence = (pi * (torch.log(pi.clamp(min=1e-12)) - torch.log(mu.clamp(min=1e-12)))).sum(-1)
    return Losses(gain, leak, torch.zeros_like(leak) if rest is None else rest.costs(top_p), divergence)


def add_gradient(
    heads: Heads,
    decisions: Decisions,
    price: float,
    scale: float,
    clip: float = CLIP,
    free: tuple[float, float] | None = None,
    rest: Rest | None = None,
) -> Tensor:
    """Add the gradient of ``scale`` x the loss of ``decisions`` to ``heads``.

    Return its sums [4] over decisions by their weights: loss, gain, leak and divergence. Time is linear in the
    decisions; memory, beside theirs, does not grow with them.
    """
    sums = decisions.weight.new_zeros(4)
    for part in chunks(len(decisions), decisions.atom.device):
        here = decisions[part]
        found = losses(heads, here, clip, free=free, rest=rest)
        loss = ((price * here.price * found.leak + found.rest - found.gain) * here.weight).sum()
        (scale * loss).backward()
        terms = (found.gain, found.leak, found.divergence)
        sums += torch.stack([loss.detach(), *((term.detach() * here.weight).sum() for term in terms)])
    return sums


def chunks(n: int, device: torch.device) -> list[slice]:
    """Return ``n`` positions in the parts that ``device`` takes at a time."""
    size = CPU_CHUNK if device.type == "cpu" else CHUNK
    return [slice(begin, begin + size) for begin in range(0, n, size)]

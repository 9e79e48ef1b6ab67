"""Anchors: states at which heads are held to what is known to be safe, as no reward says anything better.

Rewards teach heads at the prompts of their own tasks. What the heads do elsewhere follows from that by accident: where
sampling paid at a digit of one kind of problem, they sample at the digits of all. Anchors are positions of answers to
other prompts, which nobody scores. There heads are held to a static setting, or to what the first heads of the run
predict. With mu the distribution under that and pi the one under the heads, each position has the cost

    price x KL(mu, pi)

Its slope vanishes where both are equal. A distance whose slope does not, such as the total variation, drowns the
rewards in the clipped gradient.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.heads import Heads
from autodeco.rewards.decisions import kept_positions, position_weights, read_states
from autodeco.rewards.distributions import Distributions, policy
from autodeco.rewards.measuring import Predictor
from autodeco.rewards.objective import chunks, predict
from autodeco.rewards.policy import Ended, Policy

TINY = 1e-30


@dataclass(frozen=True)
class Anchors:
    """n positions of answers, and what heads are held to there."""

    hidden: Tensor  # [n, H]
    distributions: Distributions
    weight: Tensor  # [n], how many positions each stands for
    temperature: Tensor  # [n]
    top_p: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, indices) -> "Anchors":
        columns = (self.hidden, self.distributions, self.weight, self.temperature, self.top_p)
        return Anchors(*(column[indices] for column in columns))

    def costs(self, heads: Heads) -> Tensor:
        """Return KL(mu, pi) [n] of what they are held to and ``heads``, in nats, with gradients to ``heads``."""
        with torch.no_grad():
            mu = policy(self.distributions, self.temperature, self.top_p)
        pi = policy(self.distributions, *predict(heads, self.hidden, self.distributions))
        return (mu * (torch.log(mu.clamp(min=TINY)) - torch.log(pi.clamp(min=TINY)))).sum(-1)

    def add_gradient(self, heads: Heads, scale: float) -> Tensor:
        """Add the gradient of ``scale`` x the weighted sum of all costs to ``heads``; return that sum, unscaled."""
        total = self.weight.new_zeros(())
        for part in chunks(len(self), self.weight.device):
            here = self[part]
            cost = (here.costs(heads) * here.weight).sum()
            (scale * cost).backward()
            total += cost.detach()
        return total


def draw_anchors(
    source: Policy,
    prompts: Sequence[Sequence[int]],
    safe: Heads | Predictor,
    seed: int,
    generators: Iterable[np.random.Generator],
    numbers: Sequence[int] | None = None,
    ended: Ended | None = None,
) -> Anchors:
    """Return the anchors in one answer of ``source`` to each of ``prompts``, sampled with ``safe``, which holds heads.

    Random numbers of an answer depend on ``seed`` and its number in ``numbers`` (default: its place). Each prompt's of
    ``generators`` chooses which sure positions are kept. ``ended`` is called with every answer as it ends.
    """
    sampled = [group[0] for group in source.sample(prompts, 1, safe, seed, True, ended, numbers)]
    drawn = [generator.random(len(answer.tokens)) for generator, answer in zip(generators, sampled, strict=True)]
    columns = {
        name: np.concatenate([getattr(answer, name) for answer in sampled])
        for name in ("tokens", "states", "top_probability", "temperature", "top_p")
    }
    chosen, uncertain = kept_positions(columns["top_probability"], np.concatenate(drawn))
    tokens = torch.as_tensor(columns["tokens"][chosen]).to(source.device, torch.long)
    hidden, distributions, _ = read_states(source, columns["states"][chosen], tokens)
    weight, temperature, top_p = (
        torch.as_tensor(column).to(source.device, torch.float32)
        for column in (position_weights(uncertain), columns["temperature"][chosen], columns["top_p"][chosen])
    )
    return Anchors(hidden, distributions, weight, temperature, top_p)

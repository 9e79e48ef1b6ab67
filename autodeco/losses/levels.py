"""Commands of any number of levels: what heads are to predict behind them, and how their answers are to be ordered.

A level goes from -1, certain, over 0, no command, to 1, diverse. Heads that know no commands predict T0 and P0. Behind
commands of the two ends, T and P are to become

    level -1:   a T0               b P0                  with factors a, b < 1
    level  1:   max(T1, c T0)      max(P1, P0)           with c > 1

Heads compute both as sigmoids, T / 2 and P. Let u be the sigmoid's argument, u0 that of the first heads, and u0 - d and
u0 + e those of the two ends. The level that heads show at a token is

    s = (u - u0) / e  where u > u0,    (u - u0) / d  elsewhere

so s is 0 where they predict what they did without control. A token behind a command of level l costs (s - l)^2. Tokens
without a command have l = 0, which is the hold. In these units both ends are as far from 0. So where a state tells only
that there was a command, the best guess is near 0, and heads stay as they were. Where it tells a little about which, s
moves a little, and over the tokens of an answer that adds up.

What a user sees is an answer, and few hot tokens decide its mean temperature. So the means of T and of P over answers
are learned as well. Let M be the sigmoid's argument that belongs to a mean. For levels k < l of one prompt, they are
ranked, with a margin m:

    relu(1 - (M_l - M_k) / ((l - k) m))

and answers without a command are held, (M - M0)^2. For three levels the first is the ranking loss of ``ranking``, over
M in the place of T, with the pair of low and high besides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autodeco.export.schema import TEMPERATURE_SCALE

EDGE = 1e-3  # of a sigmoid's value from 0 and 1, where steps are measured
FINEST = 1e-6  # of a mean's
LEAST_STEP = 0.5  # between a level and the next, in a sigmoid's argument
HOTTER = 1.3  # times its own, where a temperature is high already


@dataclass(frozen=True)
class Steps:
    """Arguments of the sigmoid [n]: those of the ``first`` heads, and how far the two ends are below and above."""

    first: Tensor
    down: Tensor
    up: Tensor

    def __getitem__(self, indices) -> "Steps":
        return Steps(self.first[indices], self.down[indices], self.up[indices])

    def level(self, u: Tensor) -> Tensor:
        """Return the level [n] that arguments ``u`` [n] show."""
        moved = u - self.first
        return torch.where(moved > 0, moved / self.up, moved / self.down)


def temperature_steps(temperature: Tensor, factor: float, high: float) -> Steps:
    """Return the steps from ``temperature`` [n] to ``factor`` times it, and to ``high`` or a little more than it."""
    return _steps(temperature, temperature * factor, (temperature * HOTTER).clamp(min=high), TEMPERATURE_SCALE)


def top_p_steps(top_p: Tensor, factor: float, high: float) -> Steps:
    """Return the steps from ``top_p`` [n] to ``factor`` times it, and to ``high``."""
    return _steps(top_p, top_p * factor, top_p.clamp(min=high), 1.0)


def _steps(middle: Tensor, low: Tensor, high: Tensor, scale: float) -> Steps:
    u, lower, upper = (torch.logit((value / scale).clamp(EDGE, 1 - EDGE)) for value in (middle, low, high))
    first = torch.logit((middle / scale).clamp(FINEST, 1 - FINEST))
    return Steps(first, (u - lower).clamp(min=LEAST_STEP), (upper - u).clamp(min=LEAST_STEP))


def distance_loss(shown: Tensor, level: Tensor, hold: float) -> Tensor:
    """Return the weighted mean of the squared distance of ``shown`` from ``level`` [n]; ``hold``: the weight of level
    0."""
    weight = torch.where(level == 0, hold, 1.0)
    return ((shown - level).square() * weight).sum() / weight.sum()


def mean_arguments(u: Tensor, answer: Tensor, answers: int) -> Tensor:
    """Return the argument [answers] of the mean of sigmoid(``u`` [n]) over the tokens of each ``answer`` [n]."""
    sums = u.new_zeros(answers).index_add(0, answer, torch.sigmoid(u))
    means = sums / torch.bincount(answer, minlength=answers).clamp(min=1)
    return torch.logit(means.clamp(FINEST, 1 - FINEST))


def hold_loss(means: Tensor, first: Tensor, level: Tensor) -> Tensor:
    """Return the mean square of what ``means`` [a] of answers of ``level`` 0 are from those of the ``first`` heads."""
    held = level == 0
    return ((means - first).square() * held).sum() / held.sum().clamp(min=1)


def order_loss(means: Tensor, levels: Tensor, margin: float) -> Tensor:
    """Return the mean hinge of all pairs of different ``levels`` [g, v] of one prompt, for the arguments ``means``
    [g, v]; 0 if no prompt has two levels."""
    steps = levels.unsqueeze(-2) - levels.unsqueeze(-1)  # [g, k, l]: level l - level k
    pairs = steps > 0
    risen = means.unsqueeze(-2) - means.unsqueeze(-1)
    hinges = torch.relu(1 - risen / (steps.clamp(min=1e-6) * margin))
    return (hinges * pairs).sum() / pairs.sum().clamp(min=1)

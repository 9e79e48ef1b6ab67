"""What a hidden state says of a command, read by one direction, and heads that follow it.

A straight line over hidden states is the best guess of a token's level that few answers allow. Its weights are those of
a ridge regression over states with mean 0 and variance 1,

    v = w h + b

with as much weight for each answer, however long. A single v says little, a mean over an answer more. Gradients find
this direction slowly: the numbers of a state have different sizes and depend on each other.

A head can read v with two of its hidden units, relu(v) and relu(-v), which raise and lower its last sum. The two units
whose part in that sum varies least are given away for them. The first heads' predictions stay where v is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TINY = 1e-6


@dataclass(frozen=True)
class Readout:
    """A direction ``weight`` [H] and ``bias``, which read v of a hidden state."""

    weight: Tensor
    bias: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return v [n] of ``hidden`` [n, H]."""
        return hidden @ self.weight + self.bias


def readout(hidden: Tensor, level: Tensor, weight: Tensor, ridge: float) -> Readout:
    """Return the readout of ``level`` [n] at ``hidden`` [n, H]; tokens count by ``weight`` [n].

    ``ridge`` is that of states with variance 1. On average v is 0.
    """
    share = (weight / weight.sum()).double()
    mean = _sum(hidden, share)
    # both in parts, as float64 copies of all states would be large
    second = hidden.new_zeros(hidden.shape[1], hidden.shape[1], dtype=torch.float64)
    cross = torch.zeros_like(mean)
    centre = (share * level).sum()
    for part in torch.arange(len(hidden), device=hidden.device).split(8192):
        x = hidden[part].double() - mean
        weighted = x * share[part].unsqueeze(-1)
        second += weighted.T @ x
        cross += weighted.T @ (level[part].double() - centre)
    deviation = second.diagonal().sqrt().clamp(min=TINY)
    correlation = second / deviation / deviation.unsqueeze(-1)
    added = ridge * torch.eye(len(mean), dtype=torch.float64, device=mean.device)
    found = torch.linalg.solve(correlation + added, cross / deviation) / deviation
    return Readout(found.float(), -(found @ mean).float())


def install(mlp: nn.Sequential, reads: Sequence[Readout], inputs: Tensor, gain: float, units: int = 0) -> Tensor:
    """Have ``mlp`` add ``gain`` x v of the first of ``reads`` to its result, and return which units read v [k].

    ``inputs`` [n, width] choose as many ``units`` as are wanted, at least two for each of ``reads``. What the others
    read, relu(v - c) and relu(c - v) for several c, has no part in the result until it is learned.
    """
    with torch.no_grad():
        parts = torch.relu(mlp[0](inputs)) * mlp[2].weight[0]
        given = parts.std(0).argsort()[: max(units, 2 * len(reads))]
        mlp[2].bias += parts[:, given].mean(0).sum()
        values = [read(inputs[:, : len(read.weight)]) for read in reads]
        pairs = len(given) / (2 * len(reads))
        for place, unit in enumerate(given.tolist()):
            sign, number = (1.0, -1.0)[place % 2], place // 2
            read, v, at = reads[number % len(reads)], values[number % len(reads)], number // len(reads)
            spread = (-1) ** at * at / pairs  # of two standard deviations; the first one is in the middle
            mlp[0].weight[unit] = 0
            mlp[0].weight[unit, : len(read.weight)] = sign * read.weight
            mlp[0].bias[unit] = sign * (read.bias - 2 * spread * v.std())
            mlp[2].weight[0, unit] = sign * gain if number == 0 else 0.0
    return given


def _sum(hidden: Tensor, share: Tensor) -> Tensor:
    parts = torch.arange(len(hidden), device=hidden.device).split(8192)
    return sum(hidden[part].double().T @ share[part] for part in parts)

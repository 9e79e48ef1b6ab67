"""Answers that the model drew behind commands, as tensors: the states of their tokens, and what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.heads import Heads
from autodeco.hugging_face.drawing import statistics
from autodeco.rewards.policy import Policy, Sampled

LOGITS_AT_A_TIME = 1 << 27  # numbers


@dataclass(frozen=True)
class Drawn:
    """Answers to g prompts behind v variants each, all tokens in one row: hidden [n, H], answer [n] (prompt x v +
    variant), level [g, v]."""

    hidden: Tensor
    answer: Tensor
    level: Tensor

    @property
    def counts(self) -> Tensor:
        """The tokens of each answer [g x v]."""
        return torch.bincount(self.answer, minlength=self.level.numel()).clamp(min=1)

    def batch(self, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices [k] of the tokens of ``prompts`` [b], and the answer [k] of each among the b x v."""
        variants = self.level.shape[1]
        place = torch.full((len(self.level),), -1, device=self.answer.device)
        place[prompts] = torch.arange(len(prompts), device=self.answer.device)
        mine = place[self.answer // variants]
        indices = (mine >= 0).nonzero().squeeze(-1)
        return indices, mine[indices] * variants + self.answer[indices] % variants


def drawn(policy: Policy, answers: Sequence[Sampled], level: Tensor) -> Drawn:
    """Return ``answers`` [g x v], whose states ``policy`` has kept, behind commands of ``level`` [g, v]."""
    hidden = policy.states(np.concatenate([answer.states for answer in answers]))
    owner = np.repeat(np.arange(len(answers)), [len(answer.tokens) for answer in answers])
    return Drawn(hidden, torch.from_numpy(owner).to(hidden.device), level.to(hidden.device))


@torch.no_grad()
def features(policy: Policy, hidden: Tensor, temperatures: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each of ``temperatures`` [n], the statistics [n, 4] that the top-p head reads at ``hidden``
    [n, H]."""
    found: list[list[Tensor]] = [[] for _ in temperatures]
    size = max(1, LOGITS_AT_A_TIME // policy.identity.vocab_size)
    if hidden.device.type == "cpu":
        size = min(size, 256)
    for begin in range(0, len(hidden), size):
        part = slice(begin, begin + size)
        logits = policy.logits(hidden[part])
        for columns, temperature in zip(found, temperatures, strict=True):
            columns.append(statistics(logits, temperature[part]).features)
    return [torch.cat(columns) if columns else hidden.new_zeros(0, 4, dtype=torch.float32) for columns in found]


@torch.no_grad()
def values(policy: Policy, heads: Heads, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return (temperature [n], top-p [n]) of ``heads`` at ``hidden`` [n, H]."""
    wide = hidden.float()
    temperature = heads.temperature(wide)
    (known,) = features(policy, hidden, [temperature]) if heads.prob_stats else [None]
    return temperature, heads.top_p(wide, temperature, known)

"""What heads predict at the tokens of answers, and the statistics that they read there."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autodeco.heads import Heads
from autodeco.hugging_face.drawing import statistics
from autodeco.rewards.policy import Policy

LOGITS_AT_A_TIME = 1 << 27  # numbers


@torch.no_grad()
def features(policy: Policy, hidden: Tensor, temperature: Tensor) -> Tensor:
    """Return the statistics [n, 4] of softmax(logits / ``temperature`` [n]) at ``hidden`` [n, H], as a top-p head reads
    them."""
    found = []
    size = max(1, LOGITS_AT_A_TIME // policy.identity.vocab_size)
    if hidden.device.type == "cpu":
        size = min(size, 256)
    for begin in range(0, len(hidden), size):
        part = slice(begin, begin + size)
        found.append(statistics(policy.logits(hidden[part]), temperature[part]).features)
    return torch.cat(found) if found else hidden.new_zeros(0, 4, dtype=torch.float32)


@torch.no_grad()
def values(policy: Policy, heads: Heads, hidden: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (temperature [n], top-p [n]) of ``heads`` at ``hidden`` [n, H], the states of answers of ``lengths``, one
    after the other."""
    wide, counts = hidden.float(), torch.tensor(lengths, device=hidden.device)
    level = heads.level(wide[counts.cumsum(0) - counts]).repeat_interleave(counts)
    temperature = heads.temperature(wide)
    known = features(policy, hidden, temperature) if heads.prob_stats else None
    return heads.steered(temperature, heads.top_p(wide, temperature, known), level)

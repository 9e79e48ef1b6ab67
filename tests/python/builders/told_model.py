"""A policy whose hidden states know the level that was asked for, and heads to be steered by it."""

from types import SimpleNamespace

import numpy as np
import torch

from autodeco import Heads
from autodeco.rewards.policy import Sampled
from autodeco.steering.parts import HELD_OUT, TRAINING


class ToldModel:
    """A policy whose hidden states know the level that was asked for, and little else."""

    device, vocab, width = "cpu", 16, 8

    def __init__(self):
        size = {"hidden_size": self.width, "vocab_size": self.vocab}
        self.identity = SimpleNamespace(name="told", fingerprint="told", **size)
        self._matrix = torch.randn(self.vocab, self.width, generator=torch.Generator().manual_seed(1)) / 4
        self._low = [c.text.split("{n}")[0] for c in self._commands("low")]
        self._high = [c.text.split("{n}")[0] for c in self._commands("high")]

    @staticmethod
    def _commands(direction):
        return TRAINING.commands()[direction] + HELD_OUT.commands()[direction]

    def prompt_ids(self, prompt, tools=None):
        ends = [message["content"] for message in prompt]
        told = [any(end.endswith(t) for end in ends for t in texts) for texts in (self._low, self._high)]
        return [1 + told[1] - told[0]]

    def sample(self, prompts, n, heads, seed, keep_states=True, ended=None, numbers=None, max_tokens=None):
        random = np.random.default_rng(seed % 2**32)
        self._kept, groups = [], []
        for prompt in prompts:
            groups.append([])
            for _ in range(n):
                states = random.standard_normal((max_tokens, self.width)).astype(np.float32)
                states[:, 0] = (prompt[0] - 1) + 0.1 * states[:, 0]
                rows = np.arange(len(self._kept), len(self._kept) + max_tokens)
                self._kept += list(states)
                hidden = torch.from_numpy(states)
                with torch.no_grad():
                    t, p = heads(hidden, self.logits(hidden))
                    if isinstance(heads, Heads):
                        t, p = heads.steered(t, p, heads.level(hidden[:1]))
                tokens = np.zeros(max_tokens, np.int32)
                groups[-1].append(Sampled(tokens, "a b c", True, t.numpy(), p.numpy(), t.numpy(), rows))
        return groups

    def states(self, rows):
        return torch.from_numpy(np.stack([self._kept[row] for row in rows]))

    def logits(self, hidden):
        return hidden @ self._matrix.T

    def token_texts(self, tokens):
        return ["a"] * len(tokens)


def cold_heads(width):
    torch.manual_seed(0)
    heads = Heads(width)
    with torch.no_grad():
        heads.temp_head.mlp[2].bias.fill_(-2.2)  # T 0.2
        heads.top_p_head.mlp[2].bias.fill_(2.0)  # P 0.88
    return heads

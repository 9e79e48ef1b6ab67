"""What training on rewards asks of a model: answers drawn with given heads, and the states behind their tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from autodeco.heads import Heads
from autodeco.prefix_tree import Tokens
from autodeco.training_source import Source


@dataclass(frozen=True)
class Sampled:
    """An answer: ``tokens`` with the end, if ``finished``, and what the heads predicted for each of them."""

    tokens: Tokens
    text: str
    finished: bool
    temperature: np.ndarray
    top_p: np.ndarray


class Policy(Source, Protocol):
    """A frozen model that heads turn into a policy."""

    def prompt_ids(self, prompt) -> list[int]:
        """Return the tokens of a prompt, text or messages."""

    def sample(self, prompts: Sequence[Sequence[int]], n: int, heads: Heads, seed: int) -> list[list[Sampled]]:
        """Return ``n`` answers to each prompt (token ids), drawn with ``heads`` and their hard top-p."""

    def states(
        self, prompt: Sequence[int], paths: Sequence[tuple[Tokens, int]]
    ) -> Iterator[tuple[Tensor, Tensor, Tokens, int]]:
        """Yield (hidden [n, H], logits [n, V], tokens, start): what predicts ``tokens[start : start + n]``.

        Each of ``paths`` is (tokens, first), and its tokens from ``first`` on are covered.
        """

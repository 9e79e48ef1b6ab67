"""What training on rewards asks of a model: answers drawn with given heads, and the states behind their tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from autodeco.heads import Heads
from autodeco.rewards.answer_trees import Tokens
from autodeco.training.source import Source

# for some prompts (token ids), which tokens were drawn: each as the answer up to and including it
Wanted = Sequence[tuple[Sequence[int], Iterable[Tokens]]]


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

    def states(self, wanted: Wanted) -> Iterator[tuple[Tensor, list[tuple[int, Tokens]]]]:
        """Yield (hidden [n, H], which): what predicts the last token of each answer's beginning in ``wanted``, once
        each, of answers that the last ``sample`` gave. ``which``: (index in ``wanted``, beginning) of each row.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, V] of ``hidden`` [n, H], float32 on ``device``."""

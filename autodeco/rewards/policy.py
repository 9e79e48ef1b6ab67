"""The interface of a model for training on rewards: answers sampled with given heads, and the states that predict their
tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from autodeco.heads import Heads
from autodeco.training.processes import Processes
from autodeco.training.source import FrozenModel

# Called with an answer as it ends: (index of its prompt, its index among the prompt's answers, the answer).
Ended = Callable[[int, int, "Sampled"], None]

# (hidden [n, H] float32, logits [n, V] float32) to (temperature [n], top-p [n])
Predictor = Heads | Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Sampled:
    """An answer of n tokens, the last of which is its end if it is ``finished``; ``text`` is without that.

    ``states`` are the numbers of the hidden states that predict the tokens, for ``Policy.states``.
    """

    tokens: np.ndarray  # [n] int32
    text: str
    finished: bool
    temperature: np.ndarray  # [n] float32, what the heads predicted
    top_p: np.ndarray  # [n] float32
    top_probability: np.ndarray  # [n] float32, of the likeliest token at T = 1
    states: np.ndarray  # [n] int64, [0] if they were not kept


class Policy(FrozenModel, Protocol):
    """A frozen model that heads turn into a policy; each of ``processes`` has it whole.

    ``context``: the tokens of the longest text that it was trained on, None where nothing says."""

    processes: Processes
    context: int | None

    def prompt_ids(self, prompt, tools=None) -> list[int]:
        """Return the tokens of a prompt, text or messages, whose chat may call ``tools``."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        heads: Predictor,
        seed: int,
        keep_states: bool = True,
        ended: Ended | None = None,
        numbers: Sequence[int] | None = None,
        max_tokens: int | None = None,
        blur: float = 0.0,
    ) -> list[list[Sampled]]:
        """Return ``n`` answers to each prompt (token ids), sampled with ``heads`` and their hard top-p.

        An answer's random numbers depend only on ``seed``, its index among the n and its prompt's number in
        ``numbers``, by default the prompt's index. ``ended`` is called with each as it ends. ``max_tokens``: no more
        than these, where fewer than the policy's are wanted. ``blur`` is the scale of logistic noise on the logit of
        every token's top-p, which ``Sampled.top_p`` is without.
        """

    def states(self, rows: np.ndarray) -> Tensor:
        """Return the hidden states [k, H] of numbers ``rows`` [k] of the last ``sample`` that kept them, on ``device``
        in the model's dtype."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, V] of ``hidden`` [n, H], float32 on ``device``."""

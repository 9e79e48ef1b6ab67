"""The interface of a source of hidden states for training; traces and a running Hugging Face model are two."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from autodeco.base.identity import ModelIdentity
from autodeco.data.control import Command


@dataclass
class Chunk:
    """Some labelled tokens: few enough that arrays as wide as the vocabulary fit in memory."""

    hidden: Tensor  # [n, H], what the output matrix multiplies
    logits: Tensor  # [n, V]
    labels: Tensor  # [n], the token that follows
    records: np.ndarray  # [n], index in the data
    commands: np.ndarray  # [n], what the prompt asks for: NO_COMMAND or 1 + the index in ``Source.commands``


class FrozenModel(Protocol):
    """The model that heads are trained for; several processes may hold it together."""

    identity: ModelIdentity
    device: str
    rank: int  # of this process: the first, 0, writes files

    def token_texts(self, tokens: list[int]) -> list[str]:
        """Return the text of each of ``tokens``, which follow each other; a letter spread over several comes with the
        last of them."""


class Source(FrozenModel, Protocol):
    """Hidden states, logits and next tokens of a frozen model.

    ``training`` and ``ranked`` depend only on the number of the update and the seed, so that a resumed run sees the
    same tokens. The tokens of ``training`` and ``validation`` come without commands. ``ranked`` and
    ``ranked_validation`` are for control only. Several processes may each hold a part of each update;
    ``all_reduce_sum`` adds over them.
    """

    made_of: dict  # data and settings that a continued run must have in common with the first
    details: dict  # what else the run folder should say
    tokens: tuple[int, int]  # to train and to validate on
    commands: list[Command]  # that prompts are given; none without control

    def training(self, step: int) -> Iterator[Chunk]:
        """Yield this process's tokens of update ``step``."""

    def validation(self) -> Iterator[Chunk]:
        """Yield this process's held-out tokens, always the same."""

    def ranked(self, step: int) -> Iterator[Chunk]:
        """Yield this process's answers to be ranked in update ``step``, each whole, without and after commands."""

    def ranked_validation(self) -> Iterator[Chunk]:
        """Yield this process's held-out answers, the same way, after held-out wordings too."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Return ``values`` added up over all processes."""

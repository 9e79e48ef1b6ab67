"""Rules that draw tokens by something else than a fixed setting or heads, and what they may know of a distribution."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np

from autodeco import native
from autodeco.base.token_bytes import TokenBytes

Choice = tuple[float, float] | int  # temperature and top-p, or the token itself


class Row:
    """The logits [V], float32, that some answers draw their next token from; what rules find of them is kept."""

    def __init__(self, logits: np.ndarray):
        self.logits = logits
        self._kept: dict[Hashable, Any] = {}

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returned when ``key`` was first asked for."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    @cached_property
    def spread(self) -> tuple[float, float]:
        """Entropy in nats and the highest probability, both at temperature 1."""
        return native.spread(self.logits)


class Chooser(ABC):
    """Chooses the tokens of one answer."""

    @abstractmethod
    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        """Return the temperature and top-p to draw the next token with, or the token."""

    def accept(self, token: int) -> None:
        """Note the token that the answer goes on with; most rules need not remember it."""
        return


class Rule(ABC):
    """How the tokens of answers are drawn."""

    @abstractmethod
    def begin(self, prompt: tuple[int, ...], seed: int, token_bytes: TokenBytes) -> Chooser:
        """Return what chooses the tokens of one answer to ``prompt``; random numbers of its own depend on ``seed``."""


class RuleWithoutMemory(Rule, Chooser):
    """A rule that looks at nothing but the distribution, so that one chooses for all answers."""

    def begin(self, prompt: tuple[int, ...], seed: int, token_bytes: TokenBytes) -> Chooser:
        return self

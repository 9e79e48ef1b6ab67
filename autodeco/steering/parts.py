"""Which prompts, wordings and documents belong to training, to validation and to the measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from autodeco.data.control import DIRECTIONS, NEUTRAL, SCALE, Command, read_commands
from autodeco.data.control_prompts import ControlPrompt, control_prompts, documents, quoting, sums

EVERY = 5  # of what there is to train with, this one is for validation
Any = TypeVar("Any")


@dataclass(frozen=True)
class Part:
    """What is asked in one part: ``held_out`` is in no training; of the rest, ``fifth`` takes every fifth alone, or all
    but these."""

    held_out: bool
    fifth: bool | None = None

    def prompts(self, count: int, seed: int) -> list[ControlPrompt]:
        """Return ``count`` prompts, or as many as there are."""
        return self._mine(control_prompts(self.held_out, seed=seed))[:count]

    def sums(self, count: int, seed: int) -> list[ControlPrompt]:
        """Return ``count`` sums."""
        return sums(count, self.held_out, seed)

    def commands(self) -> dict[str, list[Command]]:
        """Return our own commands, by direction."""
        of_use = [c for c in read_commands(wanted=(*DIRECTIONS, SCALE, NEUTRAL)) if c.held_out == self.held_out]
        return {d: self._mine([c for c in of_use if c.direction == d]) for d in (*DIRECTIONS, SCALE, NEUTRAL)}

    def quoting(self, text: str, random: np.random.Generator) -> tuple[str, str]:
        """Return a document that quotes ``text``, and the same with a sentence that asks for nothing."""
        return quoting(text, self.held_out, random, self._mine(documents(self.held_out)))

    def _mine(self, all_: Sequence[Any]) -> list[Any]:
        if self.fifth is None:
            return list(all_)
        return [each for i, each in enumerate(all_) if (i % EVERY == EVERY - 1) == self.fifth]


TRAINING, HELD_OUT = Part(False), Part(True)
CUT, VALIDATION = Part(False, fifth=False), Part(False, fifth=True)


def measured_part(validate: bool) -> Part:
    """Return what to measure with: what no training sees or, to ``validate``, a fifth of what there is to train
    with."""
    return VALIDATION if validate else HELD_OUT

"""Seeds of generations: those that are asked for, and random ones where none is."""

import random
import secrets

from autodeco.runs.seeds import RANDOM


def is_random(seed: int | None) -> bool:
    """Whether ``seed`` asks for a random one: None, -1 or llama.cpp's LLAMA_DEFAULT_SEED."""
    return seed is None or seed in (-1, RANDOM)


def random_seed() -> int:
    """Return a seed that no process can foresee."""
    return secrets.randbelow(RANDOM)


def seed_after(seed: int, number: int) -> int:
    """Return the seed ``number`` after ``seed`` in 32 bits, never one that is random."""
    following = (seed + number) & RANDOM
    return following if following != RANDOM else RANDOM >> 1


class Seeds:
    """The seeds of completions that are given none: random ones, or those that follow from the seed of the model."""

    def __init__(self, seed: int | None):
        self._generator = None if is_random(seed) else random.Random(seed)

    def next(self) -> int:
        """Return the next of them."""
        return random_seed() if self._generator is None else self._generator.randrange(RANDOM)

"""Random numbers from one seed, a stream of its own for each purpose."""

import enum

import numpy as np

RANDOM = 2**32 - 1  # LLAMA_DEFAULT_SEED: llama.cpp takes it as "choose a seed yourself"


class Stream(enum.IntEnum):
    """The purposes of random numbers. A stream's number never changes: the results of a seed depend on it."""

    SPLIT = 0  # which records, or problems, are held out; and the order of problems
    EPOCH = 1  # the order of tokens in an epoch
    VALIDATION = 2  # which held-out records are measured
    EASY_TOKENS = 3  # which easy tokens an update leaves out
    ANSWERS = 4  # the answers to training problems
    WORDINGS = 5  # how a command is worded
    RANKED_TOKENS = 6  # which tokens of an answer are ranked
    HELD_OUT_ANSWERS = 7  # the answers to held-out problems
    PROBLEMS = 8  # which problems an update learns from
    DECISIONS = 9  # which decisions of an answer are looked at
    UPDATES = 10  # whatever else an update draws
    BOOTSTRAP = 11  # resampling in statistics
    ANCHORS = 12  # the answers to prompts that nobody scores, and which of their positions are kept
    PROMPTS = 13  # which prompts commands are given to, and what quotes them


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """Return the generator of ``stream`` for ``key`` (step, record, ...), of one length in a stream."""
    return np.random.default_rng([seed, stream, *key])


def seed_of(seed: int, stream: Stream, *key: int) -> int:
    """Return a seed for another program: 32 bits, never llama.cpp's mark of a random one."""
    return in_32_bits(np.random.SeedSequence(seed, spawn_key=(stream, *key)))


def in_32_bits(sequence: np.random.SeedSequence) -> int:
    """Return the first number of ``sequence``, or one from the second where that means "random" to llama.cpp."""
    first, second = sequence.generate_state(2)
    return int(first if first != RANDOM else second >> 1)

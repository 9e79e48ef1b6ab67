"""Checkers of the tests of rewards: in a module that imports nothing, as each process that scores imports it."""

import math


def score(problem: dict, text: str) -> float:
    """Return what an answer in ``reward_world`` is worth: the product of what its tokens keep, which stands behind
    each."""
    return math.prod(float(token.partition(":")[2]) for token in text.split())


def one(problem: dict, text: str) -> float:
    """Every answer is right."""
    return 1.0


def hangs(problem: dict, text: str) -> float:
    """Take all the time there is for problem 0, and all the memory for others."""
    while problem["number"] == 0:
        pass
    return len(bytearray(2**40)) / 2**40

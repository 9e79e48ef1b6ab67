"""The checker of ``reward_world``: in a module that imports nothing, as each process that scores imports it."""

import math


def score(problem: dict, text: str) -> float:
    """Return what an answer is worth: the product of what its tokens keep, which stands behind each."""
    return math.prod(float(token.partition(":")[2]) for token in text.split())

"""What an update takes of the tokens and answers that there are.

It depends on the number of the update and the seed alone, so that a resumed run sees the same batches.
"""

import numpy as np

from autodeco.training.arguments import TrainingArguments


def batch_indices(tokens: np.ndarray, step: int, size: int, seed: int) -> np.ndarray:
    """Return the ``size`` indices of update ``step``: ``tokens`` shuffled anew each time they are used up.

    The order depends on the arguments alone, so a resumed run sees the same batches.
    """
    first, last = step * size, (step + 1) * size
    epochs = range(first // len(tokens), (last - 1) // len(tokens) + 1)
    shuffled = [np.random.default_rng([seed, 1, epoch]).permutation(tokens) for epoch in epochs]
    offset = epochs[0] * len(tokens)
    return np.concatenate(shuffled)[first - offset : last - offset]


def ranked_places(size: int, record: int, step: int, arguments: TrainingArguments) -> np.ndarray:
    """Return which of an answer's ``size`` tokens update ``step`` ranks: all, or ``control_tokens`` drawn evenly."""
    if size <= arguments.control_tokens:
        return np.arange(size)
    random = np.random.default_rng([arguments.seed, 6, step, record])
    return np.sort(random.choice(size, arguments.control_tokens, replace=False))

"""The tokens and answers of each update.

They depend only on the number of the update and the seed, so that a resumed run sees the same batches.
"""

import numpy as np

from autodeco.runs.seeds import Stream, generator
from autodeco.training.arguments import TrainingArguments


class ShuffledBatches:
    """``items`` [n] in batches of ``size``, shuffled anew each time they are used up, in an order that ``seed`` sets.

    An epoch's order takes 8 bytes an item and is kept while batches are taken from it.
    """

    def __init__(self, items: np.ndarray, size: int, seed: int):
        self._items, self._size, self._seed = items, size, seed
        self._orders: dict[int, np.ndarray] = {}  # by epoch, of those that the last batch touched

    def batch(self, step: int) -> np.ndarray:
        """Return the [size] items of update ``step``, the same whichever steps were asked for before."""
        first, last, n = step * self._size, (step + 1) * self._size, len(self._items)
        epochs = range(first // n, (last - 1) // n + 1)
        self._orders = {epoch: self._order(epoch) for epoch in epochs}
        parts = [order[max(0, first - epoch * n) : last - epoch * n] for epoch, order in self._orders.items()]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> np.ndarray:
        found = self._orders.get(epoch)
        return generator(self._seed, Stream.EPOCH, epoch).permutation(self._items) if found is None else found


def ranked_indices(size: int, record: int, step: int, arguments: TrainingArguments) -> np.ndarray:
    """Return which of an answer's ``size`` tokens update ``step`` ranks: all, or ``control_tokens`` chosen
    uniformly."""
    if size <= arguments.control_tokens:
        return np.arange(size)
    random = generator(arguments.seed, Stream.RANKED_TOKENS, step, record)
    return np.sort(random.choice(size, arguments.control_tokens, replace=False))

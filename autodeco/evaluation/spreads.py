"""How spread the distributions were that answers were drawn from, noted while they are drawn."""

from collections.abc import Container

import numpy as np

from autodeco import native
from autodeco.batch import Answer


class Spreads:
    """The spread (autodeco.batch.rules) of each distribution that the answers of samples ``wanted`` were drawn from."""

    def __init__(self, wanted: Container[int]):
        self._wanted = wanted
        self._found: dict[tuple[int, int], list[tuple[float, float]]] = {}

    def note(self, index: int, samples: list[int], hidden: np.ndarray, logits: np.ndarray) -> None:
        """Note one of them, from which ``samples`` were drawn."""
        if wanted := [sample for sample in samples if sample in self._wanted]:
            spread = native.spread(logits[0])
            for sample in wanted:
                self._found.setdefault((index, sample), []).append(spread)

    def take(self, answer: Answer) -> dict[str, list[float]]:
        """What was noted of ``answer``, JSON-ready; nothing if it is not wanted."""
        found = self._found.pop((answer.prompt, answer.sample), None)
        if found is None:
            return {}
        names = ("entropy", "top_probability")
        return {
            name: [round(v, 6) for v in values] for name, values in zip(names, zip(*found, strict=True), strict=True)
        }

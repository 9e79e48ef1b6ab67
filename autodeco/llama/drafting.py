"""Drafts: guesses of a text's next tokens, all of which one batch checks (speculative decoding)."""

from typing import NamedTuple

from llama_cpp.llama_speculative import LlamaDraftModel

MOST_TOKENS = 15  # of a draft whose model does not say how many it makes; llama.cpp reserves memory for all


class Drafting(NamedTuple):
    """How many tokens a generation's drafts had, and how many of them the model drew too."""

    drafted: int
    accepted: int

    @property
    def rate(self) -> float:
        """Accepted tokens among the drafted ones; 0 without drafts."""
        return self.accepted / max(self.drafted, 1)


def most_outputs(model: LlamaDraftModel | None, most: int) -> int:
    """Return how many tokens of a text are decoded at once, ``most`` at most: the last one, and a draft behind it."""
    drafted = 0 if model is None else getattr(model, "num_pred_tokens", MOST_TOKENS)
    return max(1, min(1 + int(drafted), most))

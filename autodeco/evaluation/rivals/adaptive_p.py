"""llama.cpp's adaptive-p: it prefers tokens whose probability is near a target, which moves so that the mean of the
chosen ones reaches it; after a min-p of 0.05, the only cut that llama.cpp advises before it."""

from autodeco.evaluation.methods import Method, by_rule
from autodeco.evaluation.rivals.stock_chain import StockChoice

NAME = "adaptive-p"
TARGETS, DECAY = (0.3, 0.5, 0.7, 0.9), 0.9
CUTS = (("min_p", (0.05, 1)),)


def methods() -> list[Method]:
    """A method for each target."""
    last = "adaptive_p"
    return [by_rule(f"adaptive-p {p:g}", StockChoice(CUTS, last, (p, DECAY)), NAME) for p in TARGETS]

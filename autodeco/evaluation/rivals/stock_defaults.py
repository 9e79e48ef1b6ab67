"""What llama.cpp's programs do unless told otherwise: top-k 40, top-p 0.95, min-p 0.05, then temperature 0.8."""

from autodeco.evaluation.methods import Method, by_rule
from autodeco.evaluation.rivals.stock_chain import StockChain

NAME = "llama.cpp's defaults"
CUTS = (
    ("top_k", (40,)),
    ("top_p", (0.95, 1)),
    ("min_p", (0.05, 1)),
)


def methods() -> list[Method]:
    """The one method."""
    return [by_rule("top-k 40 P 0.95 min-p 0.05 T 0.8", StockChain((*CUTS, ("temp", (0.8,)))), NAME)]

"""llama.cpp's min-p: only tokens with at least that share of the likeliest one's probability, then a temperature
(arXiv 2407.01082)."""

from autodeco.evaluation.methods import Method, by_rule
from autodeco.evaluation.rivals.stock_chain import StockChain

NAME = "min-p"
GRID = ((0.05, 0.7), (0.1, 1.0), (0.1, 1.5), (0.2, 1.0))  # min-p and temperature


def methods() -> list[Method]:
    """A method for each point of the grid."""
    cut, scale = "min_p", "temp"
    return [by_rule(f"min-p {p:g} T {t:g}", StockChain(((cut, (p, 1)), (scale, (t,)))), NAME) for p, t in GRID]

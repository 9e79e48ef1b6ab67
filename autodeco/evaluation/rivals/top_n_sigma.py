"""llama.cpp's top-n-sigma: only tokens whose logit is within n standard deviations, over the vocabulary, of the highest
one, then a temperature (arXiv 2411.07641)."""

from autodeco.evaluation.methods import Method, by_rule
from autodeco.evaluation.rivals.stock_chain import StockChain

NAME = "top-n-sigma"
GRID = ((1.0, 0.7), (1.0, 1.0), (1.0, 1.5), (2.0, 1.0))  # n and temperature


def methods() -> list[Method]:
    """A method for each point of the grid."""
    cut, scale = "top_n_sigma", "temp"
    return [by_rule(f"top-{n:g}-sigma T {t:g}", StockChain(((cut, (n,)), (scale, (t,)))), NAME) for n, t in GRID]

"""llama.cpp's dynamic temperature (--dynatemp-range): the temperature rises with the entropy of what its cuts leave.

T = T0 - R + 2 R H / log(n), of n tokens left with entropy H. It follows the program's other samplers, as by default;
among all tokens of a vocabulary, H / log(n) would hardly leave 0.
"""

from autodeco.evaluation.methods import Method, by_rule
from autodeco.evaluation.rivals.stock_chain import StockChain
from autodeco.evaluation.rivals.stock_defaults import CUTS

NAME = "dynamic temperature"
GRID = ((0.5, 0.4), (0.8, 0.4), (0.8, 0.8), (1.0, 0.8))  # temperature and range


def methods() -> list[Method]:
    """A method for each point of the grid."""
    return [
        by_rule(
            f"dynatemp {t:g} range {r:g}",
            StockChain((*CUTS, ("temp_ext", (t, r, 1.0)))),
            NAME,
        )
        for t, r in GRID
    ]

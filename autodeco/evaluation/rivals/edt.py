"""Entropy-based dynamic temperature (EDT, arXiv 2403.14541): T = T0 * 0.8 ** (theta / H), H the entropy in nats."""

from dataclasses import dataclass

import numpy as np

from autodeco.batch.rules import Choice, Row, RuleWithoutMemory
from autodeco.evaluation.methods import Method, by_rule

NAME = "EDT"
BASE = 0.8
GRID = ((0.6, 0.1), (0.6, 1.0), (1.0, 0.1), (1.0, 1.0))  # T0 and theta


@dataclass(frozen=True)
class EntropyRule(RuleWithoutMemory):
    """Low entropy gives a low temperature, high entropy one near ``highest``."""

    highest: float
    theta: float

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        entropy, _ = row.spread
        return (self.highest * BASE ** (self.theta / entropy) if entropy > 0.0 else 0.0), 1.0


def methods() -> list[Method]:
    """A method for each point of the grid."""
    return [by_rule(f"EDT {t:g} theta {theta:g}", EntropyRule(t, theta), NAME) for t, theta in GRID]

"""Greedy where the model is unsure (Greedy-Threshold, arXiv 2510.05987): the likeliest token wherever its probability
is below a threshold, and elsewhere a token drawn at a temperature."""

from dataclasses import dataclass

import numpy as np

from autodeco.batch.rules import Choice, Row, RuleWithoutMemory
from autodeco.evaluation.methods import Method, by_rule

NAME = "greedy-threshold"
GRID = ((0.2, 0.6), (0.4, 0.6), (0.2, 1.0), (0.4, 1.0))  # threshold and temperature


@dataclass(frozen=True)
class ThresholdRule(RuleWithoutMemory):
    """Temperature 0 where the highest probability is below ``threshold``, else ``temperature``."""

    threshold: float
    temperature: float

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        _, highest = row.spread
        return (0.0 if highest < self.threshold else self.temperature), 1.0


def methods() -> list[Method]:
    """A method for each point of the grid."""
    return [by_rule(f"greedy below {p:g} T {t:g}", ThresholdRule(p, t), NAME) for p, t in GRID]

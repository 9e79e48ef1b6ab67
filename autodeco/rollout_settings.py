"""The settings of rollouts."""

from dataclasses import dataclass

from autodeco.data.checkers import forms
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class RolloutSettings(Options):
    """What decides the answers, beside the model, its heads and the problems."""

    checker: str = option("exact", forms())
    n: int = option(16, "answers to each problem", least=1)
    temperature: float = option(1.0, "fixed, or a multiplier where there are heads", least=0.0)
    top_p: float = option(1.0, "fixed, or a multiplier where there are heads", least=0.0, most=1.0)
    top_k: int = option(0, "likeliest tokens to draw from; 0 for all", least=0)
    min_p: float = option(0.0, "least probability, relative to the likeliest token's", least=0.0, most=1.0)
    max_tokens: int = option(256, "in an answer; one that does not end within them is not right", least=1)
    least_score: float = option(1.0, "of the answers that are kept; 0 keeps all", least=0.0, most=1.0)
    seed: int = option(0, "of all answers; each has its own from it", least=0)

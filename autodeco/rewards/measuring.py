"""Heads measured on held-out problems by sampling answers, beside greedy decoding and static settings."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from autodeco.data.statistics import interval
from autodeco.rewards.targets import Target
from autodeco.runs.seeds import Stream, generator

FINALISTS = 4  # heads that are measured once more at the end
LEAST_SAMPLES = 2  # of a candidate at first
# Answers to a problem that are added at a time, unless a target needs more of them at first. Beyond some tens in all,
# what differs between problems decides, and those are the same for all candidates.
MOST_ADDED = 8
# What heads are moved by as a whole when they are learned, in the arguments of their sigmoids (temperature, top-p): the
# noise of updates changes a mean that held-out problems measure well, top-p's most, and downwards.
MOVES = ((0.0, 0.0), (-0.4, 0.0), (0.0, 1.5), (-0.4, 1.5))
# Static settings that users choose from; greedy decoding is temperature 0.
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
TOP_PS = (0.95, 1.0)

Predictor = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (hidden, logits) to (temperature, top-p)


@dataclass(frozen=True)
class Static:
    """A temperature and a top-p for every token, in the place of heads."""

    temperature: float
    top_p: float = 1.0

    def __call__(self, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(
            torch.full((len(hidden),), value, device=hidden.device) for value in (self.temperature, self.top_p)
        )

    def __str__(self) -> str:
        return f"T {self.temperature:g}, P {self.top_p:g}" if self.temperature else "greedy"


GREEDY = Static(0.0)
GRID = tuple(Static(t, p) for t in TEMPERATURES for p in TOP_PS)


def moves(temperature: bool, top_p: bool) -> list[tuple[float, float]]:
    """Return those of ``MOVES`` that move no head but the given ones."""
    return [by for by in MOVES if (temperature or not by[0]) and (top_p or not by[1])]


@dataclass(frozen=True)
class Comparison:
    """A mean difference over problems with its 95% bootstrap interval."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.difference:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def compare(ours: np.ndarray, theirs: np.ndarray, seed: int) -> Comparison:
    """Return how much better ``ours`` [problems] is than ``theirs`` on the same problems."""
    difference = ours - theirs
    return Comparison(float(difference.mean()), *interval(difference, generator(seed, Stream.BOOTSTRAP)))


def halving(
    candidates: Sequence[str],
    rewards_of: Callable[[str, int, int], np.ndarray],
    target: Target,
    samples: int,
) -> str:
    """Return the name of the best of ``candidates``.

    Every candidate answers all problems with ``samples`` answers, the better half again with twice as many or with
    ``MOST_ADDED``, until one is left. ``rewards_of(name, n, number)`` gives rewards [problems, n] of answers; each
    ``number`` has answers of its own.
    """
    left, rewards = list(candidates), {}
    for number, (_, added) in enumerate(_halved(len(left), samples)):
        for name in left:
            new = rewards_of(name, added, number)
            rewards[name] = np.concatenate((rewards[name], new), 1) if name in rewards else new
        ranked = sorted(left, key=lambda name: -target.estimate(rewards[name]).mean())
        left = ranked[: math.ceil(len(ranked) / 2)]
    return left[0]


def halving_samples(target: Target) -> int:
    """Return with how many answers to a problem ``halving`` begins."""
    return max(LEAST_SAMPLES, target.k)


def halving_answers(candidates: int, samples: int) -> int:
    """Return how many answers to each problem ``halving`` draws."""
    return sum(count * added for count, added in _halved(candidates, samples))


def halving_draws(candidates: int, samples: int) -> int:
    """Return how many times ``halving`` draws answers to all problems."""
    return sum(count for count, _ in _halved(candidates, samples))


def _halved(candidates: int, samples: int) -> Iterator[tuple[int, int]]:
    """Yield, for each round of ``halving``, how many candidates are in it and how many answers it adds."""
    while candidates > 1:
        yield candidates, samples
        candidates, samples = math.ceil(candidates / 2), max(samples, min(2 * samples, MOST_ADDED))


@dataclass(frozen=True)
class Verdict:
    """The result of heads on held-out problems; values are means over ``problems`` of the target."""

    target: str
    problems: int
    samples: int
    heads: float
    greedy: float
    static: float
    static_setting: str
    over_greedy: Comparison
    over_static: Comparison
    use_heads: bool
    sentence: str = field(default="")

    def as_dict(self) -> dict:
        """Return the same as JSON can hold it."""
        return asdict(self)


def verdict(target: Target, heads: np.ndarray, greedy: np.ndarray, static: np.ndarray, setting: Static, seed: int):
    """Return the Verdict on rewards [problems, n] of heads, of greedy decoding and of the best static ``setting``."""
    ours, zero, fixed = (target.estimate(rewards) for rewards in (heads, greedy, static))
    over_greedy, over_static = compare(ours, zero, seed), compare(ours, fixed, seed)
    if fixed.mean() >= zero.mean():
        rival, name, over = fixed, str(setting), over_static
    else:
        rival, name, over = zero, str(GREEDY), over_greedy
    use = over.difference > 0
    figures = f"{target} {100 * ours.mean():.1f}% against {100 * rival.mean():.1f}% of {name}, {over} points"
    if over.low > 0:
        sentence = f"use these heads: {figures}"
    elif use:
        sentence = f"these heads are not clearly better: {figures}; {name} may do as well"
    else:
        sentence = f"use {name}: the heads gain nothing here, {figures}"
    return Verdict(
        str(target),
        len(ours),
        heads.shape[1],
        float(ours.mean()),
        float(zero.mean()),
        float(fixed.mean()),
        str(setting),
        over_greedy,
        over_static,
        use,
        sentence,
    )

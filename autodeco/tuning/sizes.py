"""How many problems and answers a tuning takes: what fits into a time, or what is given."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from autodeco.errors import InputError
from autodeco.evaluation.settings import DIAGNOSTICS
from autodeco.evaluation.tasks import TaskSpec, different_problems
from autodeco.settings.durations import duration

JUDGING_SHARE = 0.35
WARM_SHARE = 0.4  # of learning
WARM_FROM = 900.0  # seconds of learning: with less, a second run's measuring costs more than a warm start gains
MOST, LEAST = (300, 60, 600), 48  # problems of a task: test, validation, training; of all three
LEAST_TEST, VALIDATION_SHARE = 10, 5
ANCHORS = 160  # prompts
# static settings that the heads are judged against, beside greedy decoding
TEMPERATURES, TOP_PS = (0.1, 0.3, 0.6, 1.0), (0.95, 1.0)
NO_VERDICT = "--no-verdict"  # of autodeco reward: the heads are judged afterwards
PROMPT_TOKENS = 1024  # a context's room for a prompt
# Answers judged at a time: as many as these tokens hold. All answers to a problem together share what they begin with.
TOKENS_AT_A_TIME, SLOTS = 8192, (16, 128)


@dataclass(frozen=True)
class Split:
    """Problems of each task."""

    test: int
    validation: int
    training: int


@dataclass(frozen=True)
class Times:
    """Seconds of the parts of a tuning."""

    warm: float  # 0: no warm start
    learning: float
    judging: float


class Sizes(Protocol):
    """How many problems and answers a tuning takes."""

    anchors: int  # prompts at which heads are held; 0: none
    without: tuple[str, ...]  # what judging leaves out
    temperatures: tuple[float, ...]  # of the static settings that heads are judged against

    @property
    def warm(self) -> list:
        """Flags of ``autodeco reward`` for a warm start; empty: none."""

    @property
    def learning(self) -> list:
        """Flags of ``autodeco reward``."""

    def how_long(self) -> str:
        """Return what to say of it before it begins."""

    def split(self, specs: Sequence[TaskSpec], seed: int) -> Split:
        """Return how many problems of each of ``specs`` there are."""

    def judged(self, heads: Path, split: Split, tasks: int, samples: int) -> tuple[int, int]:
        """Return how many test and validation problems of each of ``tasks`` the training in ``heads`` is judged on."""


@dataclass(frozen=True)
class Timed:
    """What fits into so many seconds on this machine."""

    seconds: float
    anchors, without, temperatures = ANCHORS, (), TEMPERATURES

    @cached_property
    def _times(self) -> Times:
        return divided(self.seconds)

    @property
    def warm(self) -> list:
        return [*_time(self._times.warm), NO_VERDICT] if self._times.warm else []

    @property
    def learning(self) -> list:
        # a verdict, which the file of the heads would tell, takes a third of the time
        return [*_time(self._times.learning), *([] if self._times.warm else [NO_VERDICT])]

    def how_long(self) -> str:
        times = self._times
        learning = duration(times.warm + times.learning)
        return f"about {learning} of learning and {duration(times.judging)} of judging, each shown as it goes"

    def split(self, specs: Sequence[TaskSpec], seed: int) -> Split:
        return split_of(specs, seed)

    def judged(self, heads: Path, split: Split, tasks: int, samples: int) -> tuple[int, int]:
        test = test_size(heads, split, tasks, samples, self._times.judging)
        return test, max(1, test // VALIDATION_SHARE)


@dataclass(frozen=True)
class Given:
    """Sizes that are the same on every machine."""

    problems: Split
    learning: list
    temperatures: tuple[float, ...]
    anchors, warm, without = 0, (), (DIAGNOSTICS, "default")

    def how_long(self) -> str:
        return ""

    def split(self, specs: Sequence[TaskSpec], seed: int) -> Split:
        return self.problems

    def judged(self, heads: Path, split: Split, tasks: int, samples: int) -> tuple[int, int]:
        return split.test, split.validation


def divided(seconds: float) -> Times:
    """Return how ``seconds`` are divided."""
    learning = (1 - JUDGING_SHARE) * seconds
    warm = WARM_SHARE * learning if learning >= WARM_FROM else 0.0
    return Times(warm, learning - warm, JUDGING_SHARE * seconds)


def slots_for(max_tokens: int) -> int:
    """Return how many answers of ``max_tokens`` are judged at a time."""
    fewest, most = SLOTS
    return max(fewest, min(most, TOKENS_AT_A_TIME // max_tokens))


def split_of(specs: Sequence[TaskSpec], seed: int) -> Split:
    """Return the largest split that every task has different questions for; raises InputError if one has too few."""
    most = sum(MOST)
    counts = {spec.name: len(different_problems(spec, seed, most)[0]) for spec in specs}
    name, fewest = min(counts.items(), key=lambda pair: pair[1])
    if fewest < LEAST:
        raise InputError(f"task {name}: has {fewest} different questions; tuning wants {LEAST} or more")
    test, validation = (size * fewest // most for size in MOST[:2])
    return Split(test, validation, fewest - test - validation)


def checker_of(specs: Sequence[TaskSpec]) -> str:
    """Return the checker that all tasks have in common; raises InputError if they have several."""
    names = {spec.checked_by for spec in specs}
    if len(names) > 1:
        raise InputError(f"the tasks have several checkers, {', '.join(sorted(names))}: tune on tasks of one of them")
    return names.pop()


def test_size(heads: Path, split: Split, tasks: int, samples: int, seconds: float) -> int:
    """Return how many test problems of each of ``tasks`` can be judged in ``seconds``, at the pace at which the
    training in ``heads`` drew its answers."""
    made = json.loads((heads / "training.json").read_text(encoding="utf-8"))
    result, updates = made["result"], made["updates"]
    answers = made["arguments"]["samples"] * made["arguments"]["batch_problems"] * len(updates)
    an_answer = sum(row["tokens"] for row in updates) / answers / result["tokens_per_second"]
    settings = len(TEMPERATURES) * len(TOP_PS)
    on_test, on_validation = (settings + 2) * samples + 1, (settings + 1) * samples + 1
    a_problem = (on_test + on_validation / VALIDATION_SHARE) * tasks * an_answer
    return max(LEAST_TEST, min(split.test, int(seconds / a_problem)))


def _time(seconds: float) -> list:
    return ["--time", f"{max(1, round(seconds))}s"]

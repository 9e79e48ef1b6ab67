"""How many problems a tuning takes, and how its time is divided."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.evaluation.tasks import TaskSpec, different_problems

JUDGING_SHARE = 0.35
WARM_SHARE = 0.4  # of learning
WARM_FROM = 900.0  # seconds of learning: with less, a second run's measuring costs more than a warm start gains
MOST, LEAST = (300, 60, 600), 48  # problems of a task: test, validation, training; of all three
LEAST_TEST, VALIDATION_SHARE = 10, 5
# static settings that the heads are judged against, beside greedy decoding
TEMPERATURES, TOP_PS = (0.1, 0.3, 0.6, 1.0), (0.95, 1.0)


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


def divided(seconds: float) -> Times:
    """Return how ``seconds`` are divided."""
    learning = (1 - JUDGING_SHARE) * seconds
    warm = WARM_SHARE * learning if learning >= WARM_FROM else 0.0
    return Times(warm, learning - warm, JUDGING_SHARE * seconds)


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

"""How often the answers of a method are right: by problem, and beside those of another."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from autodeco.data import statistics
from autodeco.evaluation.answer_logs import Pass


def rates(answers: Pass, problems: int, k: int) -> np.ndarray:
    """Pass@k of each problem [problems]; greedy answers, all the same, count as any number of samples."""
    right = right_of(answers, problems)
    samples = len(answers.rows) // problems
    return right.astype(np.float64) if answers.method.is_greedy else statistics.pass_at_k(right, samples, k)


def right_of(answers: Pass, problems: int) -> np.ndarray:
    """How many answers to each problem are right."""
    right = np.zeros(problems, int)
    for row in answers.rows:
        right[row["problem"]] += row["right"]
    return right


def known_ks(answers: Pass, problems: int, ks: Iterable[int]) -> list[int]:
    """Those of ``ks``, ascending, for whose pass@k there are enough answers; all of greedy, whose answers are alike."""
    samples = len(answers.rows) // problems
    return sorted(k for k in ks if answers.method.is_greedy or k <= samples)


def by_problem(answers: Pass) -> dict[int, list[dict[str, Any]]]:
    """The answers to each problem, by its number."""
    found: dict[int, list[dict]] = {}
    for row in answers.rows:
        found.setdefault(row["problem"], []).append(row)
    return found

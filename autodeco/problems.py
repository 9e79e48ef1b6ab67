"""Problems with checkable answers, from reasoning-gym."""

import re
from dataclasses import dataclass
from typing import Any

from autodeco.answers import Answer


@dataclass(frozen=True)
class Problem:
    """A question and the generator's entry that its checker needs."""

    question: str
    entry: dict[str, Any]


class ProblemSet:
    """Distinct problems of one reasoning-gym task, in seeded order."""

    def __init__(self, task: str, seed: int, draws: int, **config):
        """Draw ``draws`` problems and keep those of distinct questions; ``config`` is the task's own."""
        import reasoning_gym

        self._dataset = reasoning_gym.create_dataset(task, seed=seed, size=draws, **config)
        distinct = {entry["question"]: entry for entry in reversed(list(self._dataset))}
        self.problems = [Problem(question, entry) for question, entry in reversed(distinct.items())]

    def is_right(self, problem: Problem, answer: Answer) -> bool:
        """Whether the checker accepts the last number of a finished answer."""
        numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.text)
        return answer.finished and bool(numbers) and self._dataset.score_answer(numbers[-1], problem.entry) == 1.0

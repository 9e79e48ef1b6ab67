"""The problems of a run: which are held out, which are answered next, and the rewards of answers to them."""

import json
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autodeco.base.trained_context import check_prompts
from autodeco.data.checkers import check_problems, checker
from autodeco.data.json_lines import place_of
from autodeco.data.problems import read_problems
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.rewards.arguments import RewardArguments
from autodeco.rewards.measuring import Predictor
from autodeco.rewards.policy import Policy, Sampled
from autodeco.rewards.targets import parse_target
from autodeco.runs.provenance import file_hash
from autodeco.runs.seeds import Stream, generator

LEAST_PROBLEMS = 4  # with different prompts
# A problem whose answers are all alike says little, but a few answers do not show that all will be.
SETTLED = 0.01  # variance that is added to that of a problem's rewards
LEAST_WEIGHT = 0.05  # of the highest; pass@K asks nothing of what is nearly always right
MOST_COUNT = 5.0  # of a problem that is rarely chosen
PRIOR_SAMPLES = 0.5
KEPT = 0.5  # of what was known of a problem's share of right answers, when it is answered again


@dataclass
class Drawn:
    """How much was drawn so far, and in what time."""

    prompts: int = 0
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0


def checked_problems(path: str | os.PathLike, arguments: RewardArguments) -> list[dict]:
    """Return the problems in ``path``; raise InputError if they are too few, or nothing that the checker can judge."""
    checker(arguments.checker)
    problems = read_problems(path)
    check_problems(arguments.checker, problems)
    check_enough(path, {json.dumps([problem["prompt"], problem.get("tools")]) for problem in problems})
    return problems


def check_enough(path: str | os.PathLike, different: Collection) -> None:
    """Raise InputError unless the ``different`` prompts of ``path`` are enough to train and to validate on."""
    if len(different) < LEAST_PROBLEMS:
        raise InputError(f"{path}: holds fewer than four different problems; give more, some of them to validate on")


class Problems:
    """The problems in ``path``, split by ``arguments`` into those to train and to validate on.

    ``anchors`` is a file of prompts that nobody scores. Raises InputError for a file that cannot be read or is too
    small.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        policy: Policy,
        arguments: RewardArguments,
        scorer: Scorer,
        anchors: str | os.PathLike | None = None,
    ):
        self._problems, self._policy, self._scorer = checked_problems(path, arguments), policy, scorer
        self.described = {"file": Path(path).name, "sha256": file_hash(path), "problems": len(self._problems)}
        self._prompts = _prompts(policy, self._problems, arguments)
        self.anchors: list[list[int]] = []  # prompts
        self.made_of = {"problems": self.described["sha256"], "anchors": None}
        if anchors is not None:
            self.anchors = _prompts(policy, read_problems(anchors), arguments)
            self.made_of["anchors"] = file_hash(anchors)
            self.described["anchors"] = {"file": Path(anchors).name, "prompts": len(self.anchors)}
        if 0 < len(self.anchors) < policy.processes.count:
            raise InputError(f"{anchors}: holds fewer prompts than there are processes; give more")
        self.divide(arguments)
        self.given_up = 0  # answers whose scoring took too long or too much memory
        self.drawn = Drawn()
        self.told: Callable[[int], object] | None = None  # hears of every answer that ended
        self.rates: dict[int, float] = {}  # share of right answers, of the problems answered so far

    def __len__(self) -> int:
        return len(self._problems)

    def divide(self, arguments: RewardArguments) -> None:
        """Hold out as many different prompts as ``arguments`` say, and train on problems with none of these; raise
        InputError if the others are too few."""
        self._arguments = arguments
        asked = [tuple(prompt) for prompt in self._prompts]
        order = generator(arguments.seed, Stream.SPLIT).permutation(len(self._problems)).tolist()
        first: dict[tuple, int] = {}
        for index in order:
            first.setdefault(asked[index], index)
        check_enough(self.described["file"], first)
        self.validation = list(first.values())[: min(arguments.validation_problems, len(first) // 2)]
        held_out = {asked[index] for index in self.validation}
        self.training = [index for index in order if asked[index] not in held_out]
        self.left_out = len(order) - len(self.training) - len(self.validation)
        round_size, processes = min(arguments.batch_problems, len(self.training)), self._policy.processes
        if processes.count > round_size:
            raise InputError(
                f"{self.described['file']}: a round has {round_size} problems, too few for {processes.count} "
                "processes; give more problems, or a higher --batch-problems"
            )

    def prompts(self, indices: Sequence[int]) -> list[list[int]]:
        """Return the tokens of the prompts at ``indices``."""
        return [self._prompts[index] for index in indices]

    def chosen(self, number: int) -> tuple[list[int], np.ndarray]:
        """Return the problems of round ``number`` and what each counts for [problems], 1 in the mean.

        Problems that say more about the target are chosen more often, and count for less. They are sometimes right and
        sometimes wrong and, where one right answer of several counts, rarely right. So the sum over a round estimates
        that over all problems without bias, but for what ``MOST_COUNT`` cuts off.
        """
        rates = np.array([self.rates.get(index, 0.5) for index in self.training])
        slopes = parse_target(self._arguments.target).derivative(rates)
        size = min(self._arguments.batch_problems, len(self.training))
        weights = slopes * np.sqrt(rates * (1 - rates) + SETTLED)
        shares = chances(np.maximum(weights, LEAST_WEIGHT * weights.max()), size)
        rng = generator(self._arguments.seed, Stream.PROBLEMS, number)
        places = drawn_with(shares, rng)
        counts = np.minimum(size / len(shares) / shares[places], MOST_COUNT)
        return [self.training[place] for place in places], counts

    def note(self, indices: Sequence[int], rewards: np.ndarray) -> None:
        """Update from ``rewards`` [len(indices), n] how often the problems at ``indices`` are answered right."""
        # a few answers that are all wrong, or all right, do not say never, or always
        rates = (rewards.sum(1) + PRIOR_SAMPLES * rewards.mean()) / (rewards.shape[1] + PRIOR_SAMPLES)
        for index, rate in zip(indices, rates.tolist(), strict=True):
            self.rates[index] = KEPT * self.rates[index] + (1 - KEPT) * rate if index in self.rates else rate

    def answers(
        self,
        indices: Sequence[int],
        n: int,
        predictor: Predictor,
        seed: int,
        keep_states: bool = False,
        blur: float = 0.0,
    ) -> tuple[list[list[Sampled]], np.ndarray]:
        """Return ``n`` answers to the problems at ``indices`` and their rewards [len(indices), n], top-p as noisy as
        ``blur`` says.

        Each of several processes draws and scores its share, and has the states of that alone.
        """
        processes, mine, began = self._policy.processes, None, time.perf_counter()
        with processes.left_early():
            mine = self._own_answers(indices[processes.share(len(indices))], n, predictor, seed, keep_states, blur)
        parts = processes.gather((mine, self._scorer.exceeded))
        self.given_up = sum(exceeded for _, exceeded in parts)
        answers, rewards = zip(*(each for each, _ in parts), strict=True)
        answers = [group for each in answers for group in each]
        self.drawn.prompts += len(indices)
        self.drawn.answers += len(indices) * n
        self.drawn.tokens += sum(len(answer.tokens) for group in answers for answer in group)
        self.drawn.seconds += time.perf_counter() - began
        return answers, np.concatenate(rewards)

    def ended(self, prompt: int, sample: int, answer: Sampled) -> None:
        """Tell who listens that an answer ended; raise an interrupt that was noted."""
        if self.told is not None:
            self.told(self._policy.processes.count)  # the others have come as far
        self._policy.processes.stop_if_interrupted()

    def _own_answers(
        self, indices: Sequence[int], n: int, predictor: Predictor, seed: int, keep_states: bool, blur: float
    ) -> tuple[list[list[Sampled]], np.ndarray]:
        started = {}

        def ended(prompt: int, sample: int, answer: Sampled) -> None:
            if answer.finished:  # scored beside the drawing of the others
                started[prompt, sample] = self._scorer.start(self._problems[indices[prompt]], answer.text)
            self.ended(prompt, sample, answer)

        settings = n, predictor, seed, keep_states, ended, indices
        answers = self._policy.sample(self.prompts(indices), *settings, blur=blur)
        rewards = np.zeros((len(indices), n))
        scores = self._scorer.scores(list(started.values()))
        for key, score in zip(started, scores, strict=True):
            rewards[key] = score if score >= self._arguments.least_score else 0.0
        return answers, rewards


def _prompts(policy: Policy, problems: list[dict], arguments: RewardArguments) -> list[list[int]]:
    found = [_prompt_ids(policy, problem) for problem in problems]
    check_prompts(problems, found, arguments.max_tokens, policy.context)
    return found


def _prompt_ids(policy: Policy, problem: dict) -> list[int]:
    try:
        return policy.prompt_ids(problem["prompt"], problem.get("tools"))
    except InputError as error:
        raise InputError(f"{place_of(problem)}{error}") from None


def chances(weights: np.ndarray, size: int) -> np.ndarray:
    """Return the probability of each of n, in proportion to positive ``weights`` [n], to be among ``size`` of them."""
    found = np.ones(len(weights))
    free = np.ones(len(weights), bool)  # those that are not surely among them
    while free.any():
        share = (size - (~free).sum()) * weights[free] / weights[free].sum()
        found[free] = np.minimum(share, 1.0)
        if (share <= 1.0).all():
            break
        free[np.flatnonzero(free)[share > 1.0]] = False
    return found


def drawn_with(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return different places, each with its of ``chances`` [n], as many as those sum up to: a systematic sample."""
    order = rng.permutation(len(chances))
    ends = chances[order].cumsum()
    points = rng.random() + np.arange(round(ends[-1]))
    return rng.permutation(order[np.minimum(np.searchsorted(ends, points, side="right"), len(order) - 1)])

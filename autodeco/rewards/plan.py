"""What a run on rewards is going to do, in answers, and how long that takes on this machine."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autodeco.errors import InputError
from autodeco.heads import Heads
from autodeco.rewards.arguments import FIRST_HEADS, SIZES, RewardArguments
from autodeco.rewards.decisions import decisions
from autodeco.rewards.measuring import FINALISTS, GRID, Static, halving_answers, halving_draws, halving_samples
from autodeco.rewards.objective import add_gradient
from autodeco.rewards.policy import Policy
from autodeco.rewards.problems import Problems
from autodeco.rewards.targets import Target, parse_target
from autodeco.settings.durations import duration, parse_duration
from autodeco.training.state import unfinished_arguments

SCREENING_SAMPLES = 4
# The pace is measured on this many answers, of which none has more tokens unless lengths matter.
PILOT_ANSWERS, PILOT_TOKENS = 16, 16

# What ``fitted`` chooses: the least and the most of each size, and shares of the time.
LEAST = (10, 16, 8, 4)  # held-out problems, screened ones, problems in a round, rounds
MOST_HELD_OUT, MOST_IN_A_ROUND, MOST_ROUNDS = 200, 160, 100
ROUNDS = 24  # before a round grows
VERDICT_SHARE, MEASURING_SHARE, SCREENING_SHARE = 0.3, 0.15, 0.15  # the second: of a run without a verdict
MEASUREMENTS = 4  # after the first
SHORTEST = 1e-6  # seconds of a prompt, where a rate is shown
RESERVE = 0.9  # of the time is given out: answers become longer and shorter while heads learn


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes for a prompt, which its answers share, and for each answer of ``tokens``: to draw
    it, and to learn from it in a round."""

    tokens: float  # the longest an answer may be, as far as no end was seen
    drawing: float
    learning: float
    prompt: float = 0.0
    at_most: bool = False  # some answers were not drawn to their end
    measuring: float = 0.0  # how long it took to find out


@dataclass(frozen=True)
class Plan:
    """How many answers each part of a run draws, and behind how many prompts."""

    training: int  # problems
    held_out: int
    anchors: int
    screening: int
    rounds: int
    in_a_round: int
    measurements: int
    in_a_measurement: int
    judging: int
    prompts_of_screening: int
    prompts_of_a_round: int
    prompts_of_judging: int

    def left(self, screened: bool = False, rounds: int = 0, measurements: int = 0) -> tuple[int, int]:
        """Return how many answers are still to be drawn, and learned from, when so much is done."""
        learned = (self.rounds - rounds) * self.in_a_round
        measured = (self.measurements - measurements) * self.in_a_measurement
        before = (0 if screened else self.screening) + (self.anchors if rounds < self.rounds else 0)
        return before + learned + measured + self.judging, learned

    def prompts_left(self, screened: bool = False, rounds: int = 0, measurements: int = 0) -> int:
        """Return behind how many prompts the answers are that are still to be drawn."""
        before = (0 if screened else self.prompts_of_screening) + (self.anchors if rounds < self.rounds else 0)
        measured = (self.measurements - measurements) * self.held_out
        return before + (self.rounds - rounds) * self.prompts_of_a_round + measured + self.prompts_of_judging

    def seconds(self, pace: Pace, **done) -> float:
        """Return how long what is left takes."""
        drawn, learned = self.left(**done)
        return self.prompts_left(**done) * pace.prompt + drawn * pace.drawing + learned * pace.learning

    def lines(self, pace: Pace, arguments: RewardArguments, **done) -> list[str]:
        """Return the plan in words."""
        drawn, _ = self.left(**done)
        problems = min(arguments.batch_problems, self.training)
        how_long = f"{'at most' if pace.at_most else 'about'} {duration(self.seconds(pace, **done))}"
        lines = [
            f"{self.training + self.held_out} problems: {self.training} to learn from, {self.held_out} held out",
            f"screening: {self.screening} answers, to find the problems that are right sometimes",
            f"{self.rounds} rounds: each {problems} problems x {arguments.samples} answers, "
            f"then {arguments.updates_in_a_round} updates of the heads",
            f"measuring: {self.in_a_measurement} answers to held-out problems, {self.measurements} times",
        ]
        if arguments.verdict:
            lines.append(
                f"verdict: {self.judging} answers of the best heads, of static settings and of greedy decoding"
            )
        if self.anchors:
            setting = f"at {Static(arguments.anchor_temperature, arguments.anchor_top_p)}"
            how = "with the first heads" if arguments.anchor_to == FIRST_HEADS else setting
            lines.insert(1, f"anchors: {self.anchors} answers to prompts that nobody scores, {how}")
        if done.get("screened"):
            lines.append(f"done before: {done['rounds']} of {self.rounds} rounds")
        lines.append(
            f"{drawn} answers of {'up to ' if pace.at_most else ''}{pace.tokens:.0f} tokens to draw, behind "
            f"{self.prompts_left(**done)} prompts: {how_long} at the {pace.tokens / pace.drawing:.0f} tokens/s and "
            f"{1 / max(pace.prompt, SHORTEST):.1f} prompts/s measured here"
        )
        return lines


def plan_of(arguments: RewardArguments, training: int, held_out: int, anchors: int = 0) -> Plan:
    """Return the plan of a run on so many problems ``training`` and ``held_out``, and prompts of ``anchors``."""
    screened = min(training, arguments.screening_problems or training)
    measurements = len({*range(0, arguments.rounds, arguments.evaluate_every), arguments.rounds})
    first = halving_samples(parse_target(arguments.target))
    finalists, in_a_round = min(FINALISTS, measurements), min(arguments.batch_problems, training)
    finals = halving_answers(finalists, first) + halving_answers(len(GRID), first)
    in_the_end = finals + 4 * arguments.validation_samples + 1 if arguments.verdict else 1
    # in the end the heads kept, the setting kept and greedy decoding
    draws = halving_draws(finalists) + halving_draws(len(GRID)) + 3 if arguments.verdict else 1
    return Plan(
        training,
        held_out,
        anchors,
        SCREENING_SAMPLES * screened,
        arguments.rounds,
        in_a_round * arguments.samples,
        measurements,
        held_out * arguments.validation_samples,
        held_out * in_the_end,
        screened,
        in_a_round,
        held_out * draws,
    )


def measure_pace(policy: Policy, prompts: Sequence[Sequence[int]], arguments: RewardArguments, whole: bool) -> Pace:
    """Return the pace of ``policy``, from two answers to each of ``prompts`` at the first temperature and top-p.

    ``whole``: the answers are drawn to their end, which shows how long they are.
    """
    started, predictor = time.perf_counter(), Static(arguments.first_temperature, arguments.first_top_p)
    most = arguments.max_tokens if whole else min(PILOT_TOKENS, arguments.max_tokens)

    def drawn(tokens: int, keep_states: bool = False):
        began = time.perf_counter()
        answers = policy.sample(prompts, 2, predictor, 0, keep_states, None, None, tokens)
        return answers, time.perf_counter() - began

    drawn(min(2, most))  # opens and compiles what is opened and compiled once
    _, of_prompts = drawn(1)
    answers, seconds = drawn(most, keep_states=True)
    flat = [answer for group in answers for answer in group]
    tokens = sum(len(answer.tokens) for answer in flat)
    mean = float(np.mean([len(a.tokens) if a.finished or whole else arguments.max_tokens for a in flat]))
    token = max(seconds - of_prompts, 0.1 * seconds) / max(1, tokens - len(flat))
    began = time.perf_counter()
    heads = Heads(policy.identity.hidden_size).to(policy.device)
    generators = [np.random.default_rng(0) for _ in answers]
    some = decisions(policy, answers, np.zeros((len(answers), 2)), Target(), generators)
    read = time.perf_counter()
    add_gradient(copy.deepcopy(heads), some, arguments.leak_price, 1.0, arguments.clip).tolist()
    ended = time.perf_counter()
    learning = (read - began + arguments.passes * (ended - read)) / tokens * mean
    count = policy.processes.count
    prompt = of_prompts / len(prompts)
    at_most = mean > tokens / len(flat)
    pace = Pace(mean, token * mean / count, learning / count, prompt / count, at_most, ended - started)
    return policy.processes.gather(pace)[0]


def paced(
    policy: Policy, problems: Problems, arguments: RewardArguments, folder: Path, resume: bool
) -> tuple[Pace, RewardArguments]:
    """Return the pace of ``policy``, and ``arguments`` with the sizes that fit into their time.

    With ``resume`` the sizes are those of the unfinished run in ``folder``. Raises InputError for too short a time.
    """
    # on a GPU as many as keep it busy
    answers = PILOT_ANSWERS if policy.device == "cpu" else max(PILOT_ANSWERS, arguments.slots)
    prompts = problems.prompts(problems.training[: answers // 2])
    pace = measure_pace(policy, prompts, arguments, bool(arguments.time) and not resume)
    if arguments.time:
        if resume:
            begun = unfinished_arguments(folder)
            arguments = replace(arguments, **{name: begun[name] for name in SIZES if name in begun})
        else:
            seconds = parse_duration("time", arguments.time) - pace.measuring
            arguments = fitted(arguments, len(problems), pace, seconds, len(problems.anchors))
        problems.divide(arguments)
    return pace, arguments


def fitted(arguments: RewardArguments, problems: int, pace: Pace, seconds: float, anchors: int = 0) -> RewardArguments:
    """Return ``arguments`` with rounds and sizes whose run on ``problems``, with ``anchors``, takes ``seconds``.

    Raises InputError if even the smallest run takes longer.
    """
    spent = RESERVE * seconds

    def sized(held_out: int, screened: int, batch: int, rounds: int) -> RewardArguments:
        sizes = {"validation_problems": held_out, "screening_problems": screened, "batch_problems": batch}
        return replace(arguments, **sizes, rounds=rounds, evaluate_every=math.ceil(rounds / MEASUREMENTS))

    def cost(*sizes: int) -> float:
        held_out = min(sizes[0], problems // 2)
        return plan_of(sized(*sizes), problems - held_out, held_out, anchors).seconds(pace)

    shortest = cost(*LEAST) / RESERVE
    if shortest > seconds:
        enough = duration(60 * math.ceil(shortest / 60))
        raise InputError(
            f"time {arguments.time}: is too short; the smallest run takes {enough} here; "
            "give more time, or a lower --max-tokens"
        )
    held_out, screened, batch, rounds = LEAST
    a_problem = pace.prompt + arguments.samples * (pace.drawing + pace.learning)
    of_one_held_out = (cost(3, *LEAST[1:]) - cost(2, *LEAST[1:])) if problems > 6 else spent
    wished = (
        int((VERDICT_SHARE if arguments.verdict else MEASURING_SHARE) * spent / of_one_held_out),
        int(SCREENING_SHARE * spent / (pace.prompt + SCREENING_SAMPLES * pace.drawing)),
    )
    wished = max(held_out, min(MOST_HELD_OUT, wished[0])), max(screened, wished[1])
    if cost(*wished, batch, rounds) <= spent:
        held_out, screened = wished
    rest = spent - cost(held_out, screened, batch, rounds) + rounds * min(batch, problems) * a_problem
    batch = max(batch, min(MOST_IN_A_ROUND, int(rest / a_problem / ROUNDS), problems - held_out))
    rounds = max(rounds, min(MOST_ROUNDS, int(rest / a_problem / batch)))
    return sized(held_out, screened, batch, rounds)

"""How many answers a run draws to learn to follow commands and to measure it, and how long that takes here."""

import copy
import time
from dataclasses import dataclass

import numpy as np

from autodeco.data.control import DEGREES, DIRECTIONS
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, seed_of
from autodeco.settings.durations import duration
from autodeco.steering.answers import features
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.asking import asked_in_training
from autodeco.steering.learning import refuse_other_heads
from autodeco.steering.parts import parts

# What a pilot draws: answers to so many readings, each of so many tokens.
READINGS, TOKENS = 24, 16
LOOKS = 2  # times that learning looks at the logits of a token


@dataclass(frozen=True)
class Plan:
    """How many prompts are read, and how many answers drawn behind them, by learning and by measuring."""

    rounds: int
    prompts_of_a_round: int
    measured_prompts: int
    measured_answers: int

    def left(self, done: int = 0) -> tuple[int, int, int]:
        """Return how many prompts and answers are left after ``done`` rounds, and how many answers to learn from."""
        learned = (self.rounds - done) * self.prompts_of_a_round
        return learned + self.measured_prompts, learned + self.measured_answers, learned


@dataclass(frozen=True)
class Pace:
    """Seconds for a prompt, for each token of an answer to it, and to learn from such a token."""

    prompt: float
    token: float
    learning: float


def plan_of(steering: SteeringArguments, measured: MeasuringArguments) -> Plan:
    """Return how many answers a run with these settings draws."""
    readings = 1 + steering.neutral + 2 * steering.wordings + steering.degrees + steering.quoted
    training, other = parts(steering.validate)
    prompts = len(training.prompts(steering.prompts, steering.seed))
    held_out = len(other.prompts(measured.held_out_prompts, steering.seed))
    followed = (1 + len(DIRECTIONS)) * held_out
    # the scale, two kinds of quotations and their twins with the real ones, and texts without a command
    once = (DEGREES + 1 if measured.scale else 0) * held_out + 4 * len(DIRECTIONS) * held_out + 2 * held_out
    sums = 2 * 2 * measured.sums  # with and without a command, by heads before and after
    return Plan(
        steering.rounds,
        prompts * readings,
        followed + once + sums,
        followed * measured.answers + once + sums * measured.sum_answers,
    )


def measure_pace(policy: Policy, base: Heads, steering: SteeringArguments) -> Pace:
    """Return the pace of ``policy``, from short answers with ``base`` to some readings of training prompts.

    Raises InputError for heads that cannot learn it.
    """
    refuse_other_heads(policy, base)
    training, _ = parts(steering.validate)
    asked = asked_in_training(
        training.prompts(READINGS, steering.seed), 1, 1, steering.seed, steering.rounds, 1, 1, training
    )
    flat = [each for row in asked for each in row][:READINGS]
    prompts, base = [policy.prompt_ids(each.prompt) for each in flat], copy.deepcopy(base).to(policy.device)
    seed, most = seed_of(steering.seed, Stream.ANSWERS, steering.rounds), min(TOKENS, steering.max_tokens)

    def drawn(tokens: int):
        began = time.perf_counter()
        answers = policy.sample(prompts, 1, base, seed, keep_states=True, max_tokens=tokens)
        return [group[0] for group in answers], time.perf_counter() - began

    drawn(min(2, most))  # opens and compiles what is opened and compiled once
    _, of_prompts = drawn(1)
    answers, seconds = drawn(most)
    tokens = sum(len(answer.tokens) for answer in answers)
    token = max(seconds - of_prompts, 0.1 * seconds) / max(1, tokens - len(answers))
    hidden = policy.states(np.concatenate([answer.states for answer in answers]))
    temperature = base.temperature(hidden.float()).detach()
    features(policy, hidden[:1], [temperature[:1]])
    began = time.perf_counter()
    features(policy, hidden, [temperature] * LOOKS)
    looked = time.perf_counter()
    base.temperature(hidden.float()).sum().backward()
    passed = time.perf_counter() - looked
    learning = (looked - began) + 2 * steering.epochs * passed
    return Pace(of_prompts / len(prompts), token, learning / max(1, tokens))


def seconds(plan: Plan, pace: Pace, max_tokens: int, done: int = 0) -> float:
    """Return how long what is left after ``done`` rounds takes at most, with answers of ``max_tokens``."""
    prompts, answers, learned = plan.left(done)
    return prompts * pace.prompt + max_tokens * (answers * pace.token + learned * pace.learning)


def in_words(plan: Plan, pace: Pace, max_tokens: int, done: int = 0) -> str:
    """Return what is left after ``done`` rounds, and how long it takes."""
    prompts, answers, learned = plan.left(done)
    how_long = duration(seconds(plan, pace, max_tokens, done))
    return (
        f"{plan.rounds - done} rounds draw {learned} answers, and measuring {answers - learned}, of up to {max_tokens} "
        f"tokens behind {prompts} prompts: at most {how_long} at the {1 / pace.token:.0f} tokens/s and "
        f"{1 / pace.prompt:.1f} prompts/s measured here"
    )

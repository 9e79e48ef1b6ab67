"""How many prompts a run reads and answers it draws, to learn to follow commands and to measure it, and how long that
takes here."""

import time
from dataclasses import dataclass, replace

import torch

from autodeco.data.control import DEGREES, DIRECTIONS
from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.runs.seeds import Stream, seed_of
from autodeco.settings.durations import duration
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.learning import learned, refuse_other_heads
from autodeco.steering.parts import CUT, VALIDATION, measured_part
from autodeco.steering.states import States, chunks_of, ends, kinds
from autodeco.steering.steering import shares

# What a pilot draws: answers to so many readings, each of so many tokens; and how many updates it learns in.
READINGS, TOKENS, UPDATES = 24, 16, 3
LEARNED = 2  # times that a head learns, without a fifth and with it


@dataclass(frozen=True)
class Plan:
    """How many readings are learned from in how many updates, how many prompts are measured, and by how many
    answers."""

    read: int
    updates: int
    measured_prompts: int
    measured_answers: int


@dataclass(frozen=True)
class Pace:
    """Seconds for a prompt, for each token of an answer to it, for an update of the control head, and before its first
    one."""

    prompt: float
    token: float
    update: float
    first: float


def plan_of(steering: SteeringArguments, measured: MeasuringArguments) -> Plan:
    """Return what a run with these settings reads and draws."""
    both = [
        len(part.prompts(count, steering.seed))
        for part, count in zip((CUT, VALIDATION), shares(steering.prompts), strict=True)
    ]
    passes = [both[0]] if steering.validate else [both[0], sum(both)]
    updates = steering.epochs * sum(-(-prompts // steering.batch_prompts) for prompts in passes)
    held_out = len(measured_part(steering.validate).prompts(measured.held_out_prompts, steering.seed))
    followed = (1 + len(DIRECTIONS)) * held_out
    # the scale, two kinds of quotations and their twins with the real ones, and texts without a command
    once = (DEGREES + 1 if measured.scale else 0) * held_out + 4 * len(DIRECTIONS) * held_out + 2 * held_out
    sums = 2 * 2 * measured.sums  # with and without a command, by heads before and after
    return Plan(
        sum(both) * len(kinds(steering)),
        updates,
        followed + once + sums,
        followed * measured.answers + once + sums * measured.sum_answers,
    )


def measure_pace(policy: Policy, base: Heads, steering: SteeringArguments) -> Pace:
    """Return the pace of ``policy``, from some training prompts, short answers to them with ``base``, and a few
    updates.

    Raises InputError for heads that cannot be steered.
    """
    refuse_other_heads(policy, base)
    few = replace(steering, wordings=1, degrees=min(1, steering.degrees), neutral=1, quoted=1)
    asked = [each for chunk in chunks_of(CUT, few, READINGS) for row in chunk for each in row][:READINGS]
    prompts = [policy.prompt_ids(each.prompt) for each in asked]
    heads, seed = base.without_control().to(policy.device), seed_of(steering.seed, Stream.ANSWERS)
    most = min(TOKENS, steering.max_tokens)
    policy.sample(prompts, 1, heads, seed, max_tokens=min(2, most))  # opens and compiles what is opened once
    began = time.perf_counter()
    hidden = ends(policy, prompts)
    read = time.perf_counter()
    answers = policy.sample(prompts, 1, heads, seed, max_tokens=most)
    drawn = time.perf_counter()
    tokens = sum(len(group[0].tokens) for group in answers)
    token = max(drawn - read - (read - began), 0.1 * (drawn - read)) / max(1, tokens - len(answers))
    return Pace((read - began) / len(prompts), token, *_seconds_of_updates(hidden, steering))


def _seconds_of_updates(hidden: torch.Tensor, steering: SteeringArguments) -> tuple[float, float]:
    """Return the seconds of an update, and of what comes before the first one."""
    kind, once, taken = kinds(steering).to(hidden.device), replace(steering, epochs=1), []
    for updates in (1, 1, 1 + UPDATES):  # the first time things are opened
        prompts = updates * steering.batch_prompts
        rows = torch.arange(prompts * len(kind), device=hidden.device) % len(hidden)
        level = torch.linspace(-1, 1, len(kind), device=hidden.device).expand(prompts, -1)
        states = States(hidden[rows].unflatten(0, (prompts, -1)), level, kind)
        began = time.perf_counter()
        learned(states, once).mlp[2].bias.item()
        taken.append(time.perf_counter() - began)
    update = max(taken[2] - taken[1], 0.1 * taken[2]) / UPDATES
    return update, max(0.0, taken[1] - update)


def seconds(plan: Plan, pace: Pace, max_tokens: int, done: int = 0) -> float:
    """Return how long what is left takes at most, with answers of ``max_tokens`` and ``done`` readings behind."""
    prompts = plan.read - done + plan.measured_prompts
    learning = plan.updates * pace.update + LEARNED * pace.first
    return prompts * pace.prompt + learning + max_tokens * plan.measured_answers * pace.token


def in_words(plan: Plan, pace: Pace, max_tokens: int, done: int = 0) -> str:
    """Return what is left with ``done`` readings behind, and how long it takes."""
    how_long = duration(seconds(plan, pace, max_tokens, done))
    return (
        f"{plan.read - done} prompts are read to learn from, and {plan.measured_answers} answers of up to {max_tokens} "
        f"tokens drawn behind {plan.measured_prompts} to measure: at most {how_long} at the "
        f"{1 / pace.prompt:.1f} prompts/s and {1 / pace.token:.0f} tokens/s measured here"
    )

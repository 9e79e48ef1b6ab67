"""From heads to heads that follow commands, and the figures of both: one call, with a model that is loaded."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol

from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.learning import refuse_other_heads, with_control
from autodeco.steering.measuring import Measuring
from autodeco.steering.parts import CUT, EVERY, VALIDATION
from autodeco.steering.states import States, chunks_of, kinds, read_states


class Kept(Protocol):
    """What is kept of the prompts that were read, to go on after an interrupt."""

    seconds: float  # that these took

    def states(self, number: int) -> States | None:
        """Return the states of chunk ``number``, if they are there."""

    def keep(self, number: int, states: States, seconds: float) -> None:
        """Keep the ``states`` of chunk ``number``, after so many ``seconds`` of reading."""


def steer(
    policy: Policy,
    base: Heads,
    arguments: SteeringArguments,
    measured: MeasuringArguments,
    say: Callable[[dict], None] = lambda figures: None,
    kept: Kept | None = None,
) -> tuple[Heads, Measuring, dict]:
    """Return ``base`` with a control head that follows commands, what measures it, and all figures.

    ``say`` is called with figures as they are known. What ``kept`` has is not read again. Raises InputError for heads
    that cannot be steered.
    """
    refuse_other_heads(policy, base)
    training, validation, reading = read_prompts(policy, arguments, say, kept)
    began, base = time.monotonic(), base.without_control()
    heads, learned = with_control(base, training, validation, arguments)
    seconds = {"reading": round(reading, 1), "learning": round(time.monotonic() - began, 1)}
    say({"learned": learned})
    del training, validation
    began = time.monotonic()
    measuring = Measuring(policy, heads, base, arguments, measured)
    figures = {
        "model": policy.identity.name,
        "arguments": asdict(arguments),
        "learned": learned,
        "measured": measuring.all(say),
    }
    figures["seconds"] = seconds | {"measuring": round(time.monotonic() - began, 1)}
    return heads, measuring, figures


def shares(prompts: int) -> tuple[int, int]:
    """Return how many of ``prompts`` are learned from first, and how many a fifth has."""
    fifth = max(1, prompts // EVERY)
    return prompts - fifth, fifth


def read_prompts(
    policy: Policy,
    arguments: SteeringArguments,
    say: Callable[[dict], None] = lambda figures: None,
    kept: Kept | None = None,
) -> tuple[States, States, float]:
    """Return the states of the prompts to learn from first and of the fifth, and the seconds that reading took."""
    began, before = time.monotonic(), 0.0 if kept is None else kept.seconds
    kind, number, both = kinds(arguments), 0, []
    for part, count in zip((CUT, VALIDATION), shares(arguments.prompts), strict=True):
        found = []
        for asked in chunks_of(part, arguments, count):
            states = None if kept is None else kept.states(number)
            if states is None:
                states = read_states(policy, asked, kind)
                seconds = before + time.monotonic() - began
                if kept is not None:
                    kept.keep(number, states, seconds)
                say({"read": number + 1, "readings": states.count, "seconds": round(seconds, 1)})
            found.append(states.to(policy.device))
            number += 1
        both.append(States.joined(found))
    return *both, before + time.monotonic() - began

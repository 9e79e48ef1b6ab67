"""Prompts in all ways of asking, read by a model: the states that answers to them begin from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from autodeco.rewards.measuring import Static
from autodeco.rewards.policy import Policy
from autodeco.steering.arguments import SteeringArguments
from autodeco.steering.asking import Asked, asked_in_training
from autodeco.steering.parts import Part

NONE, WORDED, SCALE, QUOTED = range(4)  # kinds of readings
PROMPTS_AT_A_TIME = 64


@runtime_checkable
class ReadsPrompts(Protocol):
    """A policy that can read prompts without drawing answers."""

    def end_states(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the states [n, H] that answers to ``prompts`` begin from, in the model's dtype."""


@dataclass(frozen=True)
class States:
    """States [g, v, H] at the ends of g prompts in v readings each, the ``level`` [g, v] that each asks for, and the
    ``kind`` [v] of each reading."""

    hidden: Tensor
    level: Tensor
    kind: Tensor

    @classmethod
    def joined(cls, parts: Sequence["States"]) -> "States":
        """Return those of all ``parts``, which were read in the same ways."""
        hidden, level = torch.cat([part.hidden for part in parts]), torch.cat([part.level for part in parts])
        return cls(hidden, level, parts[0].kind)

    def to(self, device) -> "States":
        """Return the same on ``device``."""
        return States(self.hidden.to(device), self.level.to(device), self.kind.to(device))

    @property
    def count(self) -> int:
        """How many prompts were read, in how many ways together."""
        return self.level.numel()


def kinds(arguments: SteeringArguments) -> Tensor:
    """Return the kind of each reading of a training prompt [v]."""
    counts = {NONE: 1 + arguments.neutral, WORDED: 2 * arguments.wordings, SCALE: arguments.degrees}
    counts |= {QUOTED: arguments.quoted}
    return torch.tensor([kind for kind, count in counts.items() for _ in range(count)])


def chunks_of(part: Part, arguments: SteeringArguments, count: int) -> list[list[list[Asked]]]:
    """Return ``count`` prompts of ``part`` in all their readings, in chunks of PROMPTS_AT_A_TIME."""
    asked = asked_in_training(
        part.prompts(count, arguments.seed),
        arguments.wordings,
        arguments.degrees,
        arguments.seed,
        arguments.neutral,
        arguments.quoted,
        part,
    )
    return [asked[first : first + PROMPTS_AT_A_TIME] for first in range(0, len(asked), PROMPTS_AT_A_TIME)]


def read_states(policy: Policy, asked: Sequence[Sequence[Asked]], kind: Tensor) -> States:
    """Return the states of ``asked`` [g][v], whose readings are of ``kind`` [v], on the device of ``policy``."""
    flat = [each for row in asked for each in row]
    hidden = ends(policy, [policy.prompt_ids(each.prompt) for each in flat])
    level = torch.tensor([[each.level for each in row] for row in asked])
    return States(hidden.unflatten(0, level.shape), level.to(hidden.device), kind.to(hidden.device))


def ends(policy: Policy, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the states [n, H] that answers to ``prompts`` begin from, in the model's dtype."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")  # those computed together have one length
    sorted_prompts = [prompts[i] for i in order]
    if isinstance(policy, ReadsPrompts):
        found = policy.end_states(sorted_prompts)
    else:
        answers = policy.sample(sorted_prompts, 1, Static(1.0), 0, keep_states=True, max_tokens=1)
        found = policy.states(np.array([group[0].states[0] for group in answers]))
    return found[torch.from_numpy(order.argsort()).to(found.device)]

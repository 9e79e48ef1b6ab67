"""From heads to heads that follow commands, and the figures of both: one call, with a model that is loaded."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol

from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.learning import learn
from autodeco.steering.measuring import Measuring


class Kept(Protocol):
    """What rounds are kept in, to go on after an interrupt."""

    rounds: list[dict]  # those that are done

    def heads(self) -> Heads | None:
        """Return the heads after these, if there are any."""

    def keep(self, heads: Heads, rounds: list[dict]) -> None:
        """Keep ``heads``, which come out of ``rounds``."""


def steer(
    policy: Policy,
    base: Heads,
    arguments: SteeringArguments,
    measured: MeasuringArguments,
    say: Callable[[dict], None] = lambda figures: None,
    kept: Kept | None = None,
) -> tuple[Heads, Measuring, dict]:
    """Return heads that began as ``base`` and follow commands, what measures them, and all figures.

    ``say`` is called with figures as they are known. Rounds that ``kept`` has are not done again. Raises InputError for
    heads that cannot learn it.
    """
    begun, rounds = time.monotonic(), [] if kept is None else list(kept.rounds)
    before = rounds[-1]["seconds"] if rounds else 0.0

    def after_round(heads: Heads, row: dict) -> None:
        rounds.append(row | {"seconds": round(before + time.monotonic() - begun, 1)})
        if kept is not None:
            kept.keep(heads, rounds)
        say(rounds[-1])

    heads = learn(policy, base, arguments, after_round, len(rounds), kept.heads() if kept else None)
    learned = time.monotonic()
    measuring = Measuring(policy, heads, base, arguments, measured)
    figures = {
        "model": policy.identity.name,
        "arguments": asdict(arguments),
        "rounds": rounds,
        "measured": measuring.all(say),
    }
    figures["seconds"] = {"learning": rounds[-1]["seconds"], "measuring": round(time.monotonic() - learned, 1)}
    return heads, measuring, figures

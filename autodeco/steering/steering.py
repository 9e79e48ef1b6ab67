"""From heads to heads that follow commands, and the figures of both: one call, with a model that is loaded."""

import time
from collections.abc import Callable
from dataclasses import asdict

from autodeco.heads import Heads
from autodeco.rewards.policy import Policy
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.steering.learning import learn
from autodeco.steering.measuring import Measuring


def steer(
    policy: Policy,
    base: Heads,
    arguments: SteeringArguments,
    measured: MeasuringArguments,
    say: Callable[[dict], None] = lambda figures: None,
) -> tuple[Heads, Measuring, dict]:
    """Return heads that began as ``base`` and follow commands, what measures them, and all figures.

    ``say`` is called with figures as they are known. Raises InputError for heads that cannot learn it.
    """
    begun, rounds = time.monotonic(), []

    def after_round(row: dict) -> None:
        rounds.append(row | {"seconds": round(time.monotonic() - begun, 1)})
        say(rounds[-1])

    heads = learn(policy, base, arguments, after_round)
    learned = time.monotonic()
    measuring = Measuring(policy, heads, base, arguments, measured)
    figures = {
        "model": policy.identity.name,
        "arguments": asdict(arguments),
        "rounds": rounds,
        "measured": measuring.all(say),
    }
    figures["seconds"] = {"learning": learned - begun, "measuring": time.monotonic() - learned}
    return heads, measuring, figures

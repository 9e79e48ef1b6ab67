"""How the learning rate rises and falls over a run."""

import math

from autodeco.training.arguments import OptimizerArguments


def learning_rate(step: int, arguments: OptimizerArguments) -> float:
    """Return the learning rate of update ``step``, 0-based: a straight line up, then what ``schedule`` says."""
    if step < arguments.warmup_steps:
        return arguments.learning_rate * (step + 1) / arguments.warmup_steps
    done = (step - arguments.warmup_steps) / max(1, arguments.updates - arguments.warmup_steps)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return arguments.learning_rate * factor[arguments.schedule]

"""Train heads on rewards: MODEL answers --problems with the heads as they are, and a checker scores the answers.

MODEL is a GGUF that llama.cpp runs or, with --rollouts hugging-face, what transformers can load; it stays as it is. All
settings can stand in a YAML file (--config) under the names of the flags; flags win over the file.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from autodeco.commands.training_run import UNSET, add_run_arguments, given_values, refuse, require, show_result
from autodeco.rewards.arguments import RewardArguments
from autodeco.settings.options import add_options, check_options, chosen_options, option

PATHS = ("model", "problems", "output", "init")


@dataclass(frozen=True)
class Machine:
    """What decides nothing but the speed."""

    threads: int = option(0, "CPU threads of llama.cpp when it answers; 0 for all", least=0)

    def __post_init__(self):
        check_options(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco reward``."""
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="GGUF file; see --rollouts for others")
    parser.add_argument(
        "--problems", metavar="FILE", help="problems to reward answers to: see `autodeco rollout --help`", **UNSET
    )
    add_run_arguments(parser)
    add_options(parser, RewardArguments, Machine)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    values = given_values(args, (RewardArguments, Machine), PATHS)
    require(values, model="MODEL", problems="--problems", output="--output")
    arguments, machine = (chosen_options(kind, values) for kind in (RewardArguments, Machine))
    with_transformers = arguments.rollouts == "hugging-face"
    refuse(values, ["threads" if with_transformers else "dtype"], f"with --rollouts {arguments.rollouts}")

    from autodeco.rewards.loop import train_on_rewards
    from autodeco.training.device import check_alone
    from autodeco.training.state import check_run

    check_alone("training on rewards")
    check_run(values["output"], arguments, values["resume"])
    room = values["model"], arguments.max_tokens, arguments.slots, arguments.device
    if with_transformers:
        from autodeco.rewards.hugging_face import HuggingFacePolicy

        policy = HuggingFacePolicy(*room, arguments.dtype)
    else:
        from autodeco.rewards.llama import LlamaPolicy

        policy = LlamaPolicy(*room, machine.threads or None)
    problems, output = values["problems"], values["output"]
    result = train_on_rewards(policy, problems, output, arguments, values.get("init"), values["resume"])
    return show_result(result, output)

"""Train heads on rewards: MODEL answers --problems with the heads as they are, and a checker scores the answers.

The run ends with a verdict on held-out problems: use these heads, or which temperature and top-p to use instead.

MODEL is a GGUF that llama.cpp runs or, with --answers-from hugging-face, what transformers can load; it stays as it is.
All settings can stand in a YAML file (--config) under the names of the flags; flags win over the file.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from autodeco.commands.training_run import (
    Heads,
    add_resume,
    answering_policy,
    refuse,
    refuse_long_warmup,
    refuse_other,
    show_result,
)
from autodeco.rewards.arguments import FIRST_HEADS, SIZES, RewardArguments
from autodeco.settings.given import add_settings, given_values
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, chosen_options, option


@dataclass(frozen=True)
class Files(Options):
    """What answers, and what it is asked."""

    model: Path = option(None, "GGUF file; --answers-from says what else", positional=True, metavar="MODEL")
    problems: Path = option(
        None, "JSON lines with prompt and answer, or a .yaml list of reasoning-gym tasks", metavar="FILE"
    )
    anchors: Path | None = option(
        None,
        "such a file of other prompts, which nobody scores: there heads stay near --anchor-temperature and "
        "--anchor-top-p",
        metavar="FILE",
    )


SETTINGS = (Files, Heads, RewardArguments, Processors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco reward``."""
    add_settings(parser, *SETTINGS)
    add_resume(parser)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    values = given_values(args, *SETTINGS)
    files, heads, arguments, processors = (chosen_options(kind, values) for kind in SETTINGS)
    with_transformers = arguments.answers_from == "hugging-face"
    refuse_other(values, arguments.answers_from)
    if arguments.time:
        refuse(values, SIZES, "with --time, which chooses it")
    for head, first in (("temperature", "first_temperature"), ("top_p", "first_top_p")):
        if not getattr(arguments, head):
            refuse(values, [first], f"without a {head.replace('_', '-')} head")
    if not arguments.time:
        refuse_long_warmup(values, arguments)
    if files.anchors is None:
        refuse(values, ["anchor_to", "anchor_temperature", "anchor_top_p"], "without --anchors")
    if arguments.anchor_to == FIRST_HEADS:
        refuse(values, ["anchor_temperature", "anchor_top_p"], f"with --anchor-to {FIRST_HEADS}")
    if heads.init:
        refuse(values, ["first_temperature", "first_top_p"], "with --init, whose heads are what a run starts from")

    from autodeco.rewards.loop import train_on_rewards
    from autodeco.rewards.problems import checked_problems
    from autodeco.training.device import check_alone
    from autodeco.training.state import check_run

    if not with_transformers:
        check_alone("training on rewards with llama.cpp")
    checked_problems(files.problems, arguments)  # before a model is loaded for them
    check_run(heads.output, arguments, args.resume)
    policy = answering_policy(files.model, arguments.max_tokens, arguments, processors)
    files_and_settings = files.problems, heads.output, arguments, heads.init, args.resume
    result = train_on_rewards(policy, *files_and_settings, anchors=files.anchors)
    return show_result(replace(result, quiet=policy.rank != 0), heads.output)

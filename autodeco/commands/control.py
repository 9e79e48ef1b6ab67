"""Have heads follow commands in the prompt: to be certain, to be diverse, or "randomness 3 of 10".

MODEL reads many prompts with and without commands, and a control head learns to tell what each asks for. It steers the
heads of --init, which stay as they are. At the end it is measured, with prompts and wordings that training never saw,
whether commands are followed: control.json and report.html beside the heads.

MODEL is a GGUF that llama.cpp runs or, with --answers-from hugging-face, what transformers can load; it stays as it is.
The same command continues what was interrupted. On the CPU the defaults are fewer prompts and tokens; how long it takes
is said before it begins.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autodeco.commands.training_run import answering_policy, refuse_other
from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_values
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, chosen_options, option
from autodeco.steering.arguments import MeasuringArguments, SteeringArguments
from autodeco.terminal import say

if TYPE_CHECKING:
    from autodeco.rewards.policy import Policy


@dataclass(frozen=True)
class Files(Options):
    """What answers, and what heads begin as."""

    model: Path = option(None, "GGUF file; --answers-from says what else", positional=True, metavar="MODEL")
    init: Path = option(None, "heads to be steered", metavar="HEADS")
    output: Path = option(None, "folder for heads that follow them", short="-o", metavar="HEADS")


@dataclass(frozen=True)
class Answering(Options):
    """Who draws answers."""

    answers_from: str = option(
        "llama.cpp", "llama.cpp, the quantized file itself, or transformers", choices=("llama.cpp", "hugging-face")
    )
    device: str = option("cpu", "of the heads, and of the model in transformers", choices=("cpu", "cuda", "mps"))
    dtype: str = option("bfloat16", "of the model in transformers", choices=("bfloat16", "float16", "float32"))
    slots: int = option(32, "answers computed at a time", least=1, most=65_536)


# What two cores do with a small model in less than an hour; a GPU takes the settings' own defaults.
ON_A_CPU = {"prompts": 320, "wordings": 4, "degrees": 3, "neutral": 3, "quoted": 2, "max_tokens": 40}
ON_A_CPU |= {"held_out_prompts": 60, "answers": 2, "sums": 60, "sum_answers": 2}
SETTINGS = (Files, SteeringArguments, MeasuringArguments, Answering, Processors)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco control``."""
    add_settings(parser, *SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Learn, measure, and say what came of it."""
    from autodeco.heads import Heads
    from autodeco.runs.locks import locked_folder
    from autodeco.steering.plan import in_words, measure_pace, plan_of
    from autodeco.steering.unfinished import Run, check_run_folder, finish
    from autodeco.training.device import take_device

    values = given_values(args, *SETTINGS)
    if chosen_options(Answering, values).device == "cpu":
        values = ON_A_CPU | values
    files, steering, measured, answering, processors = (chosen_options(kind, values) for kind in SETTINGS)
    refuse_other(values, answering.answers_from)
    check_run_folder(files.output)
    take_device(answering.device)
    base = Heads.from_pretrained(files.init).without_control()
    with locked_folder(files.output):
        check_run_folder(files.output)  # another process may have ended a run there since
        policy = answering_policy(files.model, steering.max_tokens, answering, processors)
        _check_chats(policy, files.model)
        run = Run(files.output, _read_by(policy, answering) | {"first heads": base.digest, **asdict(steering)})
        pace = measure_pace(policy, base, steering)
        say(in_words(plan_of(steering, measured), pace, steering.max_tokens, run.readings))
        say("Ctrl-C stops it; the same command does not read again what it has read")
        figures = finish(run, policy, base, steering, measured, _tell)
    _show(figures)
    say(f"{files.output}: the heads, and report.html; next: autodeco-export {files.output} --base MODEL.gguf")
    return 0


def _read_by(policy: "Policy", answering: Answering) -> dict[str, str]:
    """Return what decides the states of a prompt: another program or type computes others of the same file."""
    computed = {"answers-from": answering.answers_from}
    if answering.answers_from == "hugging-face":
        computed["dtype"] = answering.dtype
    return {"model": policy.identity.fingerprint, **computed}


def _check_chats(policy: "Policy", model: Path) -> None:
    """Raise InputError for a model that knows no chats."""
    from autodeco.base.chat_template import NoChatTemplate

    try:
        policy.prompt_ids([{"role": "user", "content": "Hello"}])
    except NoChatTemplate:
        raise InputError(
            f"{model}: has no chat template, and commands are given in chats; take a model that has one"
        ) from None


def _tell(figures: dict) -> None:
    """Say how far it is."""
    if "read" in figures:
        say(f"read {figures['readings']} prompts after {figures['seconds']:.0f} s")
    elif "learned" in figures:
        right = figures["learned"]["read"]
        say(f"learned: of prompts left out, {right['low']:.0%} read as certain and {right['high']:.0%} as diverse")
    else:
        say(f"measured: {', '.join(figures)}")


def _show(figures: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    from autodeco.steering.table import share_cells

    prompts = figures["measured"]["followed"]["prompts"]
    table = Table(title=f"{prompts} held-out prompts whose mean moves the right way")
    for column in ("command", "share", "95% interval", "paper"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for row in share_cells(figures):
        table.add_row(*row)
    Console().print(table)

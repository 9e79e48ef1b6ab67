"""The parts that ``autodeco train``, ``reward`` and ``control`` share: arguments of a run, the policy that answers, and
the result that is printed."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autodeco.data.control import share_rows
from autodeco.errors import InputError
from autodeco.runs.interrupts import exit_code
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option
from autodeco.terminal import say


@dataclass(frozen=True)
class Heads(Options):
    """Where the heads go, and what they start from."""

    output: Path = option(None, "folder for the heads", short="-o", metavar="HEADS")
    init: Path | None = option(None, "finished heads to continue from", metavar="HEADS")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Declare the flag that continues a run; no file of settings can."""
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in HEADS")


def refuse(values: dict[str, Any], names: Iterable[str], why: str) -> None:
    """Raise InputError for the first setting of ``names`` that is given, though it has no meaning in this run."""
    for name in names:
        if name in values:
            raise InputError(f"--{name.replace('_', '-')}: has no meaning {why}; leave it out")


def refuse_other(values: dict[str, Any], answers_from: str) -> None:
    """Raise InputError for a setting of ``values`` that only the other kind of ``answers_from`` reads."""
    unread = ("threads", "gpu_layers") if answers_from == "hugging-face" else ("dtype",)
    refuse(values, unread, f"with --answers-from {answers_from}")


def refuse_long_warmup(values: dict[str, Any], arguments: Any) -> None:
    """Raise InputError if ``warmup_steps`` are given and are all updates of ``arguments``."""
    if "warmup_steps" in values and arguments.warmup_steps >= arguments.updates:
        raise InputError(
            f"warmup-steps {arguments.warmup_steps}: the run has {arguments.updates} updates, so its learning rate "
            "would only rise; give fewer"
        )


def answering_policy(model: Path, max_tokens: int, answering: Any, processors: Processors):
    """Return what answers as ``answering`` says (answers_from, slots, device, dtype): ``model`` in transformers, or in
    llama.cpp on ``processors``."""
    room = model, max_tokens, answering.slots, answering.device
    if answering.answers_from == "hugging-face":
        from autodeco.rewards.hugging_face import HuggingFacePolicy

        return HuggingFacePolicy(*room, answering.dtype)
    from autodeco.rewards.llama import LlamaPolicy

    return LlamaPolicy(*room, processors.threads, processors.gpu_layers)


def show_result(result, output: Path) -> int:
    """Print what training did and what to do next, the first of several processes; return the exit code."""
    if result.quiet:
        return exit_code(result.interrupted) if result.interrupted else 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.validation_size} held-out {result.unit}")
    for column in ("", "before", f"after {result.best_step} steps"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = asdict(result.before), asdict(result.after)
    for name in after:
        if f"{name}_deviation" in after:
            cells = (f"{side[name]:.2f} ± {side[f'{name}_deviation']:.2f}" for side in (before, after))
            table.add_row(f"{name.replace('_', '-')}, mean ± deviation", *cells)
        elif not name.endswith(("_deviation", "_share")):
            label = name.replace("top_p", "top-p").replace("_", " ")
            table.add_row(label, *(f"{side[name]:.4f}" for side in (before, after)))
    Console().print(table)
    if "ranking_loss" in after:
        table = Table(title="held-out prompts whose mean moves the right way")
        for column in ("command", "training wordings", "held-out wordings", "paper"):
            table.add_column(column, justify="left" if column == "command" else "right")
        for row in share_rows(after):
            table.add_row(*row)
        Console().print(table)
    say(
        f"{result.training_size} training {result.unit}, {result.tokens_per_second:.0f} tokens/s, "
        f"{result.seconds:.0f} s"
    )
    if result.interrupted:
        say(f"{output}: the best heads so far; continue with the same command and --resume")
        return exit_code(result.interrupted)
    say(f"{output}: the heads, and report.html; next: autodeco-export {output} --base MODEL.gguf")
    if result.given_up:
        from autodeco.data.scoring import given_up

        say(given_up(result.given_up))
    if result.verdict:
        say(result.verdict)
    return 0

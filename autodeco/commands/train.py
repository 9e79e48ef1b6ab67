"""Train heads on likelihood; the model itself stays as it is.

TRACES are hidden states that `autodeco collect` kept. With --data instead, a Hugging Face --model is run over the
completions, on one process or, by `accelerate launch`, on many. All settings can stand in a YAML file (--config) under
the names of the flags; flags win over the file. With --control the heads also learn to follow commands in the prompt,
to be certain or to be diverse. `autodeco reward` trains on rewards.
"""

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from autodeco.commands.training_run import Heads, add_resume, refuse, refuse_long_warmup, show_result
from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_values
from autodeco.settings.options import Options, add_options, chosen_options, option
from autodeco.terminal import say
from autodeco.training.arguments import HuggingFaceSettings, TrainingArguments


@dataclass(frozen=True)
class Data(Options):
    """What is learned from."""

    traces: Path | None = option(None, "folder that `autodeco collect` wrote", positional=True, metavar="TRACES")
    data: Path | None = option(None, "completions to run --model over, in place of TRACES", metavar="DATA.jsonl")
    model: Path | None = option(
        None,
        "with --data: a Hugging Face model, by its folder or name; with TRACES: the GGUF collected from, if moved",
        metavar="MODEL",
    )


SETTINGS = (Data, Heads, TrainingArguments, HuggingFaceSettings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco train``."""
    add_settings(parser, Data, Heads, TrainingArguments)
    add_resume(parser)
    parser.add_argument("--report", type=Path, metavar="HEADS", help="draw report.html of heads again, and no more")
    add_options(parser.add_argument_group("with --data"), HuggingFaceSettings)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    values = given_values(args, *SETTINGS)
    if args.report:
        return _report_again(values)
    if not values.get("control"):
        refuse(values, (name for name in _names(*SETTINGS) if name.startswith("control_")), "without --control")
    data, heads, arguments = (chosen_options(kind, values) for kind in (Data, Heads, TrainingArguments))
    refuse_long_warmup(values, arguments)
    if data.data:
        if data.traces:
            raise InputError(f"{data.traces}: TRACES have no meaning with --data; leave one of the two out")
        if not data.model:
            raise InputError("model: is missing; give the Hugging Face model that --data is run through with --model")
        settings = chosen_options(HuggingFaceSettings, values)
        return show_result(_on_hugging_face(data, heads, arguments, settings, args.resume), heads.output)
    refuse(values, _names(HuggingFaceSettings), "without --data")
    if not data.traces:
        raise InputError("traces: are missing; give TRACES, or --model and --data")

    from autodeco.training import train

    result = train(data.traces, heads.output, arguments, data.model, heads.init, args.resume)
    return show_result(result, heads.output)


def _names(*settings: type) -> list[str]:
    return [item.name for kind in settings for item in fields(kind)]


def _report_again(values: dict[str, Any]) -> int:
    from autodeco.training.report import draw_report

    refuse(values, [*_names(*SETTINGS), *(["resume"] if values["resume"] else [])], "with --report")
    draw_report(values["report"])
    say(f"{values['report']}: report.html")
    return 0


def _on_hugging_face(
    data: Data, heads: Heads, arguments: TrainingArguments, settings: HuggingFaceSettings, resume: bool
):
    from autodeco.training import train_from
    from autodeco.training.hugging_face_source import HuggingFaceSource
    from autodeco.training.state import check_run

    check_run(heads.output, arguments, resume)
    source = HuggingFaceSource(data.model, data.data, arguments, settings)
    skipped, cut = (source.details[f"records_{what}"] for what in ("skipped", "cut"))
    if source.rank == 0 and (skipped or cut):
        say(f"{skipped} prompts filled --pack-tokens {settings.pack_tokens}, {cut} completions were cut at it")
    result = train_from(source, heads.output, arguments, heads.init, resume)
    return replace(result, quiet=source.rank != 0)

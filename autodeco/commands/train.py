"""Train heads on likelihood; the model itself stays as it is.

TRACES are hidden states that `autodeco collect` kept. With --data instead, a Hugging Face --model is run over the
completions, on one process or, by `accelerate launch`, on many. All settings can stand in a YAML file (--config) under
the names of the flags; flags win over the file. With --control the heads also learn to follow commands in the prompt,
to be certain or to be diverse. `autodeco reward` trains on rewards.
"""

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from autodeco.commands.training_run import UNSET, add_run_arguments, given_values, refuse, require, show_result
from autodeco.errors import InputError
from autodeco.settings.options import add_options, chosen_options
from autodeco.training.arguments import HuggingFaceSettings, TrainingArguments

PATHS = ("traces", "output", "model", "data", "init")
SETTINGS = (TrainingArguments, HuggingFaceSettings)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco train``."""
    parser.add_argument("traces", nargs="?", type=Path, metavar="TRACES", help="folder that `autodeco collect` wrote")
    parser.add_argument("--data", metavar="DATA.jsonl", help="completions to run --model over, not TRACES", **UNSET)
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="with --data: a Hugging Face model, by its folder or name; with TRACES: the GGUF collected from, if moved",
        **UNSET,
    )
    parser.add_argument("--report", metavar="HEADS", help="draw report.html of heads again, and no more", **UNSET)
    add_run_arguments(parser)
    add_options(parser, TrainingArguments)
    add_options(parser.add_argument_group("with --data"), HuggingFaceSettings)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    values = given_values(args, SETTINGS, PATHS)
    if "report" in values:
        return _report_again(values)
    if not values.get("control"):
        own = [item.name for kind in SETTINGS for item in fields(kind)]
        refuse(values, (name for name in own if name.startswith("control_")), "without --control")
    if "data" in values:
        require(values, model="--model", output="--output")
        if "traces" in values:
            raise InputError(f"{values['traces']}: TRACES have no meaning with --data; leave one of the two out")
        result = _on_hugging_face(values)
    else:
        require(values, traces="TRACES (or --model and --data)", output="--output")
        refuse(values, (item.name for item in fields(HuggingFaceSettings)), "without --data")
        result = _on_traces(values)
    return show_result(result, values["output"])


def _report_again(values: dict[str, Any]) -> int:
    from autodeco.training.report import draw_report

    settings = [item.name for kind in SETTINGS for item in fields(kind)]
    refuse(values, [*PATHS, *settings, *(["resume"] if values["resume"] else [])], "with --report")
    draw_report(values["report"])
    print(f"{values['report']}: report.html")
    return 0


def _on_traces(values: dict[str, Any]):
    from autodeco.training import train

    arguments = chosen_options(TrainingArguments, values)
    return train(
        values["traces"], values["output"], arguments, values.get("model"), values.get("init"), values["resume"]
    )


def _on_hugging_face(values: dict[str, Any]):
    from autodeco.training import train_from
    from autodeco.training.hugging_face_source import HuggingFaceSource
    from autodeco.training.state import check_run

    arguments, settings = (chosen_options(kind, values) for kind in SETTINGS)
    check_run(values["output"], arguments, values["resume"])
    source = HuggingFaceSource(values["model"], values["data"], arguments, settings)
    skipped, cut = (source.details[f"records_{what}"] for what in ("skipped", "cut"))
    if source.rank == 0 and (skipped or cut):
        print(f"{skipped} prompts filled --pack-tokens {settings.pack_tokens}, {cut} completions were cut at it")
    result = train_from(source, values["output"], arguments, values.get("init"), values["resume"])
    return replace(result, quiet=source.rank != 0)

"""Train heads for a model; the model itself stays as it is.

TRACES are hidden states that `autodeco collect` kept. All of it can stand in a YAML file (--config) under the names of
the flags; flags win over the file.
"""

import argparse
from pathlib import Path

from autodeco.options import add_options, chosen_options
from autodeco.training_arguments import TrainingArguments

PATHS = ("traces", "output", "model", "init")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco train``."""
    unset = {"default": argparse.SUPPRESS, "type": Path}
    parser.add_argument("traces", nargs="?", type=Path, metavar="TRACES", help="folder that `autodeco collect` wrote")
    parser.add_argument("-o", "--output", metavar="HEADS", help="folder for the heads", **unset)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="settings by the names of these flags")
    parser.add_argument("--model", metavar="MODEL.gguf", help="the collected model, if it has moved", **unset)
    parser.add_argument("--init", metavar="HEADS", help="finished heads to continue from", **unset)
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in HEADS")
    add_options(parser, TrainingArguments)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    from autodeco.errors import InputError
    from autodeco.training import train
    from autodeco.training_config import read_config

    values = read_config(args.config, TrainingArguments, PATHS) if args.config else {}
    values |= {name: value for name, value in vars(args).items() if value is not None}
    for name, flag in (("traces", "TRACES"), ("output", "-o HEADS")):
        if name not in values:
            raise InputError(f"train: give {flag}, or {name} in the --config file")
    arguments = chosen_options(TrainingArguments, values)
    result = train(
        values["traces"], values["output"], arguments, values.get("model"), values.get("init"), values["resume"]
    )
    return report(result, values["output"])


def report(result, output: Path) -> int:
    """Print what training did and what to do next; return the exit code."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.validation_tokens} held-out tokens")
    for column in ("", "before", f"after {result.best_step} steps"):
        table.add_column(column, justify="left" if not column else "right")
    for name, key in (
        ("loss", "loss"),
        ("temperature loss, all tokens", "temperature_loss"),
        ("soft top-p loss", "top_p_loss"),
    ):
        table.add_row(name, *(f"{getattr(side, key):.4f}" for side in (result.before, result.after)))
    for name, key in (("temperature, mean ± deviation", "temperature"), ("top-p, mean ± deviation", "top_p")):
        sides = ((getattr(side, key), getattr(side, f"{key}_deviation")) for side in (result.before, result.after))
        table.add_row(name, *(f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in sides))
    Console().print(table)
    print(f"{result.training_tokens} training tokens, {result.tokens_per_second:.0f} tokens/s, {result.seconds:.0f} s")
    if result.interrupted:
        print(f"{output}: the best heads so far; continue with the same command and --resume")
        return 130
    print(f"{output}: the heads, and report.html; next: autodeco-export {output} --base MODEL.gguf")
    return 0

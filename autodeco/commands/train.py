"""Train heads on traces that `autodeco collect` made; the base model stays as it is."""

import argparse
from pathlib import Path

from autodeco.training_arguments import add_training_arguments, training_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco train``."""
    parser.add_argument("traces", type=Path, metavar="TRACES", help="folder that `autodeco collect` wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="HEADS", help="folder for the heads")
    parser.add_argument("--model", type=Path, metavar="MODEL.gguf", help="the collected model, if it has moved")
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in HEADS")
    add_training_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out losses before and after, and say what to do next."""
    from rich.console import Console
    from rich.table import Table

    from autodeco.training import train

    result = train(args.traces, args.output, training_arguments(args), args.model, args.resume)
    table = Table(title=f"{result.validation_tokens} held-out tokens")
    for column in ("", "before", f"after {result.best_step} steps"):
        table.add_column(column, justify="left" if not column else "right")
    sides = (result.before, result.after)
    for name, key in (
        ("loss", "loss"),
        ("temperature loss, all tokens", "temperature_loss"),
        ("soft top-p loss", "top_p_loss"),
    ):
        table.add_row(name, *(f"{getattr(side, key):.4f}" for side in sides))
    for name, key in (("temperature, mean ± deviation", "temperature"), ("top-p, mean ± deviation", "top_p")):
        table.add_row(name, *(f"{getattr(side, key):.2f} ± {getattr(side, f'{key}_deviation'):.2f}" for side in sides))
    Console().print(table)
    print(f"{result.training_tokens} training tokens, {result.tokens_per_second:.0f} tokens/s, {result.seconds:.0f} s")
    if result.interrupted:
        print(f"{args.output}: the best heads so far; continue with the same command and --resume")
        return 130
    print(f"{args.output}: the heads; next: autodeco-export {args.output} --base MODEL.gguf")
    return 0

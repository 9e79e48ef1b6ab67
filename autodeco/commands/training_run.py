"""What ``autodeco train`` and ``autodeco reward`` share: settings from flags and a file, and what a run ends with."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autodeco.data.control import share_rows
from autodeco.errors import InputError
from autodeco.settings.yaml_file import read_config

UNSET = {"default": argparse.SUPPRESS, "type": Path}  # a path that is not given is not in the result


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the heads go and what a run begins with."""
    parser.add_argument("-o", "--output", metavar="HEADS", help="folder for the heads", **UNSET)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="settings by the names of these flags")
    parser.add_argument("--init", metavar="HEADS", help="finished heads to continue from", **UNSET)
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in HEADS")


def given_values(args: argparse.Namespace, settings: Sequence[type], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return what the file of settings and the flags give, by name; flags win. What neither gives is not in it."""
    values = read_config(args.config, settings, paths) if args.config else {}
    return values | {name: value for name, value in vars(args).items() if value is not None}


def require(values: dict[str, Any], **shown: str) -> None:
    """Raise InputError for the first name in ``shown``, which says how the command calls it, that is not given."""
    for name, called in shown.items():
        if name not in values:
            raise InputError(f"{called}: is missing; give it in the command, or as {name} in the --config file")


def refuse(values: dict[str, Any], names: Iterable[str], why: str) -> None:
    """Raise InputError for the first setting of ``names`` that is given, though it has no meaning in this run."""
    for name in names:
        if name in values:
            raise InputError(f"--{name.replace('_', '-')}: has no meaning {why}; leave it out")


def show_result(result, output: Path) -> int:
    """Print what training did and what to do next, the first of several processes; return the exit code."""
    if result.quiet:
        return 130 if result.interrupted else 0
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
            table.add_row(name.replace("_", " "), *(f"{side[name]:.4f}" for side in (before, after)))
    Console().print(table)
    if "ranking_loss" in after:
        table = Table(title="held-out prompts whose mean moves the right way")
        for column in ("command", "training wordings", "held-out wordings", "paper"):
            table.add_column(column, justify="left" if column == "command" else "right")
        for row in share_rows(after):
            table.add_row(*row)
        Console().print(table)
    print(
        f"{result.training_size} training {result.unit}, {result.tokens_per_second:.0f} tokens/s, "
        f"{result.seconds:.0f} s"
    )
    if result.interrupted:
        print(f"{output}: the best heads so far; continue with the same command and --resume")
        return 130
    print(f"{output}: the heads, and report.html; next: autodeco-export {output} --base MODEL.gguf")
    return 0

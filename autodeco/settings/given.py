"""The settings that a user gave: from flags and from a YAML file; flags win over the file."""

import argparse
from pathlib import Path
from typing import Any

from autodeco.settings.options import add_options, chosen_options
from autodeco.settings.yaml_file import read_config


def add_settings(parser: argparse.ArgumentParser, *options: type) -> None:
    """Declare the options of the dataclasses ``options``, and ``--config``, the file that can hold them."""
    add_options(parser, *options)
    parser.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="settings by the names of these arguments; flags win"
    )


def given_values(args: argparse.Namespace, *options: type) -> dict[str, Any]:
    """Return what flags and file give of the options of the dataclasses ``options``, by name; unchecked."""
    values = read_config(args.config, options) if args.config else {}
    return values | {name: value for name, value in vars(args).items() if value is not None}


def given_settings(args: argparse.Namespace, *options: type) -> list[Any]:
    """Return the dataclasses ``options`` as flags and file give them; raises InputError as they do."""
    values = given_values(args, *options)
    return [chosen_options(kind, values) for kind in options]

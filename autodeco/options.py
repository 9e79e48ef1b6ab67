"""Settings as dataclasses: each field declared once, with its default, its help and the values that make sense."""

import argparse
from dataclasses import Field, field, fields
from typing import Any

from autodeco.errors import InputError


def option(default, help: str, least=None, most=None, choices=None) -> Field:
    """Return a dataclass field with what a flag and a check need of it."""
    return field(default=default, metadata={"help": help, "least": least, "most": most, "choices": choices})


def check_options(options) -> None:
    """Raise InputError for a field of the dataclass ``options`` whose value has the wrong type or makes no sense."""
    for item in fields(options):
        value, metadata = getattr(options, item.name), item.metadata
        name, kind = item.name.replace("_", "-"), type(item.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise InputError(f"{name} {value!r}: must be {_KINDS[kind]}")
        if metadata["choices"] and value not in metadata["choices"]:
            raise InputError(f"{name} {value}: must be one of {', '.join(metadata['choices'])}")
        least, most = metadata["least"], metadata["most"]
        # `not >=` and `not <=`, so that NaN is refused too
        if (least is not None and not value >= least) or (most is not None and not value <= most):
            limits = f"at least {least}" if most is None else f"between {least} and {most}"
            raise InputError(f"{name} {value}: must be {limits}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add a flag for each field of the dataclass ``options``, with its help; what is not given is not in the result."""
    for item in fields(options):
        flag, default = f"--{item.name.replace('_', '-')}", item.default
        help = f"{item.metadata['help']} (default: {default})"
        if isinstance(default, bool):
            shown = "yes" if default else "no"
            help = f"{item.metadata['help']} (default: {shown})"
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help)
        else:
            metavar = "N" if type(default) in (int, float) else item.name.upper().replace("_", "-")
            parser.add_argument(
                flag,
                type=type(default),
                default=argparse.SUPPRESS,
                help=help,
                **({"choices": item.metadata["choices"]} if item.metadata["choices"] else {"metavar": metavar}),
            )


def chosen_options(options: type, values: dict[str, Any]) -> Any:
    """Return the dataclass ``options`` with those of its fields that ``values`` holds."""
    return options(**{item.name: values[item.name] for item in fields(options) if item.name in values})

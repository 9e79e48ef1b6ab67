"""Checked values: settings as dataclasses, each field declared once with its default, its help and the values that
make sense; and checks of single values that a user gives."""

import argparse
import operator
from dataclasses import Field, field, fields
from numbers import Real
from typing import Any

from autodeco.errors import InputError
from autodeco.settings.limits import MOST_THREADS


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


def add_options(parser: argparse.ArgumentParser, *options: type) -> None:
    """Add a flag for each field of the dataclasses ``options``; what is not given is not in the result.

    A field of several is one flag, whose help is that of the first and has the default of each.
    """
    items = {item.name: item for kind in reversed(options) for item in fields(kind)}
    for name in dict.fromkeys(item.name for kind in options for item in fields(kind)):
        item, flag = items[name], f"--{name.replace('_', '-')}"
        same = (other for kind in options for other in fields(kind) if other.name == name)
        defaults = dict.fromkeys(_shown(other.default) for other in same)
        help = f"{item.metadata['help']} (default: {' or '.join(defaults)})"
        unset = {"default": argparse.SUPPRESS, "help": help}
        kind, choices = type(item.default), item.metadata["choices"]
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **unset)
        elif choices:
            parser.add_argument(flag, choices=choices, **unset)
        else:
            metavar = "N" if kind in (int, float) else name.upper().replace("_", "-")
            parser.add_argument(flag, type=kind, metavar=metavar, **unset)


def _shown(default) -> str:
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)


def chosen_options(options: type, values: dict[str, Any]) -> Any:
    """Return the dataclass ``options`` with those of its fields that ``values`` holds."""
    return options(**{item.name: values[item.name] for item in fields(options) if item.name in values})


def check_whole(name: str, value, least: int, most: int | None = None, hint: str = "") -> None:
    """Raise InputError unless ``value`` is a whole number within the limits."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} {value!r}: must be a whole number {limits}{hint and '; ' + hint}")


def check_number(name: str, value, least: float, most: float) -> None:
    """Raise InputError unless ``value`` is a number within the limits."""
    if not (isinstance(value, Real) and least <= value <= most):
        raise InputError(f"{name} {value!r}: must be a number from {least:g} to {most:g}")


def check_machine(threads: int | None, gpu_layers: int) -> None:
    """Raise InputError for numbers of threads and layers on the GPU that llama.cpp cannot have; None: its choice."""
    if threads is not None:
        check_whole("--threads", threads, 1, MOST_THREADS)
    check_whole("--gpu-layers", gpu_layers, -1, hint="-1 is all")

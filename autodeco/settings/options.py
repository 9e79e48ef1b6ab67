"""Settings as dataclasses: each field declared once, with its default, its help and the values that make sense.

``option`` declares a field, ``check_options`` checks and converts all of them, ``add_options`` makes flags of them, and
``settings.given`` reads them from flags and a file. A single value that a caller gives is checked by ``checked``.
"""

import argparse
import math
import os
import reprlib
import types
import typing
from collections.abc import Sequence
from dataclasses import Field, field, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from autodeco.errors import InputError


def option(
    default,
    help: str,
    least=None,
    most=None,
    choices: Sequence | None = None,
    *,
    flag: bool = True,
    short: str = "",
    metavar: str | None = None,
    positional: bool = False,
    hint: str = "",
) -> Any:  # a field of any type, as dataclasses.field() is to type checkers
    """Return a dataclass field with what a flag and a check need of it.

    Its type is bool, int, float, str or Path, one of these or None, or a tuple of one of these. None as the default of
    a type without None: a user must give it. ``flag=False``: Python and YAML can set it, no flag. ``hint`` ends the
    message about a value that makes no sense.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "check": {"least": least, "most": most, "choices": choices, "hint": hint},
            "flag": flag,
            "short": short,
            "metavar": metavar,
            "positional": positional,
        },
    )


class Options:
    """Base of dataclasses that consist of options alone: they are checked when one is made."""

    def __post_init__(self):
        check_options(self)


def check_options(options) -> None:
    """Give each option of the dataclass ``options`` its declared type; raise InputError for a value of another type,
    one that makes no sense, and one that must be given and is not."""
    for name, kind, item in declared(type(options)):
        value, shown = getattr(options, name), name.replace("_", "-")
        if value is None and not _taken_apart(kind)[2]:
            raise InputError(f"{shown}: is missing; give it as an argument or in a file of settings (--config)")
        value = checked(shown, value, kind, **item.metadata["check"])
        object.__setattr__(options, name, value)  # frozen for everybody else


def checked(name: str, value, kind, least=None, most=None, choices: Sequence | None = None, hint: str = "") -> Any:
    """Return ``value`` as a ``kind``, which is what an option may be; raise InputError, which calls it ``name``, unless
    it is one within the limits."""
    base, is_tuple, has_none = _taken_apart(kind)
    if value is None and has_none:
        return None
    ending = hint and f"; {hint}"
    if is_tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{name} {said(value)}: must be a list, each {_KINDS[base]}{ending}")
        if len(value) > MOST_VALUES:
            raise InputError(f"{name}: holds {len(value)} values, {MOST_VALUES} is the limit{ending}")
        return tuple(checked(name, part, base, least, most, choices, hint) for part in value)
    if not _is(value, base):
        raise InputError(f"{name} {said(value)}: must be {_KINDS[base]}{ending}")
    try:
        value = base(value)
    except OverflowError:  # a whole number beyond every float
        raise InputError(f"{name} {said(value)}: must be a finite number{ending}") from None
    if base in (str, Path):
        _check_text(name, os.fspath(value), base, ending)
    if choices and value not in choices:
        raise InputError(f"{name} {bare(value)}: must be one of {', '.join(map(str, choices))}{ending}")
    # `not >=` and `not <=`, so that NaN is refused too
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise InputError(f"{name} {said(value)}: must be {limits}{ending}")
    if base is float and not math.isfinite(value):
        raise InputError(f"{name} {value}: must be a finite number{ending}")
    if base in _LARGEST and abs(value) > _LARGEST[base]:
        raise InputError(f"{name} {said(value)}: must be at most {_LARGEST[base]}{ending}")
    return value


def said(value) -> str:
    """``value`` as a message shows it: short, whatever it is."""
    try:
        text = _short.repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def bare(value) -> str:
    """The same without quotes."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_SHOWN else said(value)


def _check_text(name: str, text: str, kind: type, ending: str) -> None:
    if kind is Path and "\0" in text:
        raise InputError(f"{name} {said(text)}: a path holds no zero byte{ending}")
    if kind is Path and not text.isascii():
        try:
            os.fsencode(text)  # bytes that are no UTF-8 are a path too
        except UnicodeEncodeError:
            raise InputError(f"{name} {said(text)}: no file can be called that{ending}") from None


LONGEST_SHOWN = 200  # characters
MOST_VALUES = 10_000  # of a list
_LARGEST = {int: 2**63 - 1, float: 1e30}  # where an option says no less: what the libraries below still take
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxlong = 2, LONGEST_SHOWN, LONGEST_SHOWN
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def _is(value, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, {int: Integral, float: Real, str: str, Path: (str, os.PathLike)}[kind])


def _taken_apart(kind) -> tuple[type, bool, bool]:
    """Return the type of one value, whether there are several, and whether there may be none."""
    several = [one for one in typing.get_args(kind) if one is not types.NoneType]
    has_none = isinstance(kind, types.UnionType)
    if has_none:
        (kind,) = several
    is_tuple = typing.get_origin(kind) is tuple
    return (typing.get_args(kind)[0] if is_tuple else kind), is_tuple, has_none


def kind_of_one(kind) -> type:
    """Return the type of one value of ``kind``: float of ``tuple[float, ...]`` and of ``float | None``."""
    return _taken_apart(kind)[0]


@cache
def declared(options: type) -> list[tuple[str, Any, Field]]:
    """Return name, type and field of each option of the dataclass ``options``; its other fields are its own affair."""
    hints = typing.get_type_hints(options)
    return [(item.name, hints[item.name], item) for item in fields(options) if "check" in item.metadata]


def add_options(parser, *options: type) -> None:
    """Add a flag, or a positional argument, for each option of the dataclasses ``options``; what is not given is not in
    the result, or None.

    An option of several is one flag, whose help is that of the first and has the default of each.
    """
    every = [found for kind in options for found in declared(kind)]
    seen = set()
    for name, kind, item in every:
        if name not in seen and item.metadata["flag"]:
            seen.add(name)
            _add(parser, name, kind, item, [other.default for other_name, _, other in every if other_name == name])


def _add(parser: argparse.ArgumentParser, name: str, kind, item: Field, defaults: list) -> None:
    metadata = item.metadata
    base, is_tuple, _ = _taken_apart(kind)
    shown = dict.fromkeys(_shown(default) for default in defaults if default not in (None, (), ""))
    settings: dict[str, Any] = {"help": metadata["help"], "default": argparse.SUPPRESS}
    if shown:
        settings["help"] += f" (default: {' or '.join(shown)})"
    if metadata["positional"]:
        # argparse would turn a default of SUPPRESS into a Path: None is what is not given
        names, settings["nargs"], settings["default"] = [name], "?", None
    else:
        names = [*([metadata["short"]] if metadata["short"] else []), f"--{name.replace('_', '-')}"]
        settings |= {"dest": name} | ({"nargs": "+"} if is_tuple else {})
    if base is bool:
        parser.add_argument(*names, action=argparse.BooleanOptionalAction, **settings)
        return
    choices = metadata["check"]["choices"]
    settings["metavar"] = metadata["metavar"] or ("N" if base in (int, float) else name.upper().replace("_", "-"))
    if choices and not metadata["metavar"]:
        settings |= {"choices": choices, "metavar": None}
    parser.add_argument(*names, type=base, **settings)


def _shown(default) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def chosen_options(options: type, values: dict[str, Any]) -> Any:
    """Return the dataclass ``options`` with those of its fields that ``values`` holds."""
    return options(**{item.name: values[item.name] for item in fields(options) if item.name in values})

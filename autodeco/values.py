"""Checks of values that a user gives."""

import operator
from numbers import Real

from autodeco.errors import InputError

MOST_THREADS = 512  # GGML_MAX_N_THREADS: llama.cpp does not survive more


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

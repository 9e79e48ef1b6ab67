"""Whether the compiled module and the llama.cpp that is loaded are of one release.

Structures of llama.cpp change between its releases while the name of its library stays, so a module that was compiled
against one release must not run on another.
"""

import ctypes
import importlib.metadata
from collections.abc import Mapping

import llama_cpp

from autodeco.errors import InputError


class WrongRelease(ImportError, InputError):
    """The installed llama-cpp-python is not the one that autodeco was built for."""


def check_version(built: str, installed: str) -> None:
    """Raise WrongRelease for another release of llama-cpp-python than the one compiled against."""
    if built != installed:
        raise WrongRelease(
            f"autodeco was built for llama-cpp-python {built}, but {installed} is installed: "
            f"run `pip install llama-cpp-python=={built}`, or build autodeco again for {installed}"
        )


def check_library(built: str, loaded: str) -> None:
    """Raise WrongRelease where the library that is loaded (LLAMA_CPP_LIB_PATH may name one) has another version of ggml
    than the one compiled against; ``built`` is "" where that is not known."""
    if built not in ("", loaded):
        raise WrongRelease(
            f"autodeco was built for ggml {built}, but the llama.cpp that is loaded has {loaded}: "
            "unset LLAMA_CPP_LIB_PATH, or install llama-cpp-python again"
        )


def check_layout(layout: Mapping[str, int]) -> None:
    """Raise WrongRelease unless ``layout``, sizes of structures and places of their fields (``structure.field``) in
    bytes, is that of llama-cpp-python."""
    for name, expected in layout.items():
        structure, _, field = name.partition(".")
        kind = getattr(llama_cpp, structure)
        found = getattr(kind, field).offset if field else ctypes.sizeof(kind)
        if found != expected:
            raise WrongRelease(
                f"{name} is {expected} bytes in autodeco's compiled module and {found} in llama-cpp-python: "
                f"run `pip install --force-reinstall --no-deps llama-cpp-python=={llama_cpp.__version__}`"
            )


def not_loaded(error: ImportError) -> WrongRelease:
    """What to say of a compiled module that the system refuses, as it does where the library lacks a function."""
    installed = importlib.metadata.version("llama-cpp-python")
    name = "llama-cpp-python=="
    pins = [line.removeprefix(name) for line in importlib.metadata.requires("autodeco") or [] if line.startswith(name)]
    if pins and pins[0] != installed:
        try:
            check_version(pins[0], installed)
        except WrongRelease as wrong:
            return wrong
    return WrongRelease(
        f"autodeco's compiled module does not load with llama-cpp-python {installed} ({error}): install autodeco again"
    )

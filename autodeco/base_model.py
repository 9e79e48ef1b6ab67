"""Opening the base model: the language model whose hidden states the heads read."""

import os
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.merged_file import opened_at


def check_gguf(path: str | os.PathLike) -> Path:
    """Return ``path``; raise InputError unless it is a file that starts like a GGUF."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give the path of a GGUF model")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: not a GGUF file; convert the model with llama.cpp's convert_hf_to_gguf.py first")
    return path


def open_base(path: str | os.PathLike, **kwargs) -> llama_cpp.Llama:
    """Open the model at ``path`` with llama.cpp, quietly; ``kwargs`` are those of ``llama_cpp.Llama``.

    Raises InputError for a missing file, a file that is no GGUF, and one that llama.cpp cannot load.
    """
    check_gguf(path)
    layout = open_layout(path)
    if not layout.has_base:
        raise InputError(f"{path}: holds heads only; give the base model")
    with opened_at(path, layout.base_offset):
        return _loaded(lambda: llama_cpp.Llama(str(path), **{"verbose": False, **kwargs}), path)


def open_llama(path: str | os.PathLike, heads_path: str | os.PathLike | None = None, **kwargs):
    """Open the model at ``path``, with heads, as ``autodeco.Llama``, quietly; ``kwargs`` are those of that class.

    Raises InputError as ``open_base`` does, and for heads that do not fit the model.
    """
    from autodeco.llama import Llama  # the compiled module, which collecting does without

    check_gguf(path)
    return _loaded(lambda: Llama(str(path), heads_path, **{"verbose": False, **kwargs}), path)


def _loaded(load: Callable[[], llama_cpp.Llama], path: str | os.PathLike) -> llama_cpp.Llama:
    try:
        return load()
    except InputError:
        raise
    except ValueError as error:  # what llama_cpp raises when llama.cpp refuses the file
        if "llama_context" in str(error):
            raise InputError(f"{path}: llama.cpp cannot make a context of this size; give a smaller one") from None
        raise InputError(f"{path}: llama.cpp cannot load it ({error}); it may be damaged or too new") from None

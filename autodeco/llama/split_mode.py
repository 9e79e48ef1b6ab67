"""Which ways of sharing a model's matrices between GPUs heads and devices have."""

import ctypes
import os

import llama_cpp
import llama_cpp.llama_cpp as llama_cpp_api

from autodeco.errors import InputError

_GPU, _INTEGRATED_GPU = 1, 2  # of enum ggml_backend_dev_type


def check_tensors(path: str | os.PathLike, mode: int) -> None:
    """Raise InputError where heads cannot run: matrices shared by GPUs, with which llama.cpp samples on the host."""
    if mode == llama_cpp.LLAMA_SPLIT_MODE_TENSOR:
        raise InputError(
            f"{path}: heads do not work with split_mode=LLAMA_SPLIT_MODE_TENSOR; take another one, or leave them out"
        )


def check_rows(path: str | os.PathLike, mode: int) -> None:
    """Raise InputError where matrices would be shared row by row and a GPU has no rows of matrices: llama.cpp then says
    only that it cannot load the model."""
    if mode == llama_cpp.LLAMA_SPLIT_MODE_ROW and (device := _without_rows()):
        raise InputError(
            f"{path}: {device} cannot hold rows of matrices, as split_mode=LLAMA_SPLIT_MODE_ROW asks; share layers "
            "instead, with LLAMA_SPLIT_MODE_LAYER"
        )


def _without_rows() -> str | None:
    """The name of the first GPU whose backend has no buffers for rows, if there is one."""
    ggml = llama_cpp_api._lib  # what libllama links is found through it
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    for name in ("dev_get", "dev_backend_reg", "reg_get_proc_address"):
        getattr(ggml, f"ggml_backend_{name}").restype = ctypes.c_void_p
    for index in range(ggml.ggml_backend_dev_count()):
        device = ctypes.c_void_p(ggml.ggml_backend_dev_get(ctypes.c_size_t(index)))
        if ggml.ggml_backend_dev_type(device) not in (_GPU, _INTEGRATED_GPU):
            continue
        backend = ctypes.c_void_p(ggml.ggml_backend_dev_backend_reg(device))
        if not ggml.ggml_backend_reg_get_proc_address(backend, b"ggml_backend_split_buffer_type"):
            return ggml.ggml_backend_dev_name(device).decode(errors="replace")
    return None

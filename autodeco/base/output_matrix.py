"""A model's output matrix read from its GGUF file: from hidden states back to the logits that llama.cpp computes."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np

from autodeco.errors import InputError
from autodeco.export.gguf_file import GgufFile, TensorInfo
from autodeco.export.layout import Layout, open_layout

# What llama.cpp does to the logits after the matrix, by architecture (its src/models/*.cpp). A model of an architecture
# that is missing here is caught when its states are collected: its logits are compared with llama.cpp's own.
MULTIPLY_BY_LOGIT_SCALE = {"command-r", "cohere2", "cohere2moe", "grok", "muse-glimmer", "talkie"}
DIVIDE_BY_LOGIT_SCALE = {"granite", "granitemoe", "granitehybrid", "granite_swa", "graniteswitch", "minicpm"}
SOFTCAP = {"gemma2", "gemma3", "gemma3n", "gemma4", "grok", "muse-glimmer"}
DEFAULT_LOGIT_SCALE = {"grok": 0.5773502691896257}
DEFAULT_SOFTCAP = {"gemma2": 30.0, "gemma3n": 30.0}
WITHOUT_BIAS = {"qwen2vl"}  # for which llama.cpp loads the bias and does not add it

ROWS_AT_ONCE = 8192  # of the matrix while dequantizing: 8192 x 4096 float32 are 128 MiB


@dataclass(frozen=True)
class OutputMatrix:
    """The matrix as stored, and what follows it: ``softcap(scale * (hidden @ weight.T + bias))``."""

    path: str
    architecture: str
    name: str  # general.name of the model, may be empty
    tensor: str  # output.weight, or the tied token_embd.weight
    quantization: gguf.GGMLQuantizationType
    data: np.ndarray  # [V, bytes of a row] uint8, mapped from the file
    hidden_size: int
    bias: np.ndarray | None  # [V] float32
    scale: float
    softcap: float  # 0 where there is none

    @property
    def vocab_size(self) -> int:
        return len(self.data)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` of the matrix as float32 [stop - start, H]."""
        return gguf.dequantize(self.data[start:stop], self.quantization).reshape(-1, self.hidden_size)

    def dequantize(self) -> np.ndarray:
        """Return the whole matrix as float32 [V, H]."""
        weight = np.empty((self.vocab_size, self.hidden_size), np.float32)
        for start in range(0, self.vocab_size, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, self.vocab_size)
            weight[start:stop] = self.rows(start, stop)
        return weight

    def finish(self, logits, bias=None, tanh: Callable = np.tanh):
        """Apply what follows the matrix product to ``logits`` [..., V], an array or, with its ``tanh``, a tensor."""
        if bias is not None:
            logits = logits + bias
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap:
            logits = self.softcap * tanh(logits / self.softcap)
        return logits

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Return the logits [n, V] of ``hidden`` [n, H], in float32; dequantizes as it goes."""
        hidden = hidden.astype(np.float32)
        logits = np.empty((len(hidden), self.vocab_size), np.float32)
        for start in range(0, self.vocab_size, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, self.vocab_size)
            logits[:, start:stop] = hidden @ self.rows(start, stop).T
        return self.finish(logits, self.bias)


def read_output_matrix(file: str | os.PathLike | Layout) -> OutputMatrix:
    """Read the output matrix of the model in ``file``, a GGUF or its layout: ``output.weight``, or the tied
    ``token_embd.weight``.

    Raises InputError for a file that holds no model, has no such tensor, or stores it in a type that gguf-py cannot
    dequantize.
    """
    layout = open_layout(file)
    path, model = layout.path, layout.model
    if model is None:
        raise InputError(f"{path}: holds heads only; give the base model")
    if layout.split_count > 1:
        raise InputError(f"{path}: is one part of a split model; join the parts with `llama-gguf-split --merge` first")
    tensor = model.tensors.get("output.weight") or model.tensors.get("token_embd.weight")
    if tensor is None or len(tensor.shape) != 2:
        raise InputError(f"{path}: has no output.weight and no token_embd.weight; this is not a language model")
    try:
        quantization = gguf.GGMLQuantizationType(tensor.kind)
        gguf.dequantize(np.zeros(gguf.GGML_QUANT_SIZES[quantization][1], np.uint8), quantization)
    except (ValueError, KeyError, NotImplementedError):
        raise InputError(
            f"{path}: gguf-py cannot dequantize the type of {tensor.name}; quantize the model with another "
            "--output-tensor-type"
        ) from None
    bias = None if layout.architecture in WITHOUT_BIAS else model.tensors.get("output.bias")
    return OutputMatrix(
        path=path,
        architecture=layout.architecture,
        name=layout.base_name,
        tensor=tensor.name,
        quantization=quantization,
        data=_mapped(model, tensor).reshape(tensor.shape[1], -1),
        hidden_size=tensor.shape[0],
        bias=None if bias is None else _float32(model, bias),
        scale=_scale(model, layout.architecture, tensor.shape[0]) * _tensor_scale(model, tensor),
        softcap=_softcap(model, layout.architecture),
    )


def _mapped(model: GgufFile, tensor: TensorInfo) -> np.ndarray:
    start = model.start + model.data_offset + tensor.offset
    return np.memmap(model.path, np.uint8, "r", offset=start, shape=(tensor.nbytes,))


def _float32(model: GgufFile, tensor: TensorInfo) -> np.ndarray:
    return gguf.dequantize(_mapped(model, tensor), gguf.GGMLQuantizationType(tensor.kind)).reshape(-1)


def _scale(model: GgufFile, architecture: str, hidden_size: int) -> float:
    if architecture == "minicpm3":  # scales the hidden state after the point where it is read (minicpm3.cpp)
        return 256.0 / hidden_size
    default = 256.0 / hidden_size if architecture == "minicpm" else DEFAULT_LOGIT_SCALE.get(architecture, 0.0)
    scale = model.number(f"{architecture}.logit_scale")
    scale = default if scale is None else scale
    if scale and architecture in MULTIPLY_BY_LOGIT_SCALE:
        return scale
    if scale and architecture in DIVIDE_BY_LOGIT_SCALE:
        return 1.0 / scale
    return 1.0


def _softcap(model: GgufFile, architecture: str) -> float:
    if architecture not in SOFTCAP:
        return 0.0
    default = DEFAULT_SOFTCAP.get(architecture, 0.0)
    if architecture == "gemma3n":  # llama.cpp does not read its key
        return default
    cap = model.number(f"{architecture}.final_logit_softcapping")
    return default if cap is None else cap


def _tensor_scale(model: GgufFile, tensor: TensorInfo) -> float:
    """Return the factor that NVFP4 keeps in a tensor of its own, 1 for every other type."""
    scale = model.tensors.get("output.scale") if gguf.GGMLQuantizationType(tensor.kind).name == "NVFP4" else None
    return 1.0 if scale is None else float(_float32(model, scale)[0])

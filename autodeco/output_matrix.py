"""A model's output matrix read from its GGUF file: from hidden states back to the logits that llama.cpp computes."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np

from autodeco.base_model import check_gguf
from autodeco.errors import InputError

# What llama.cpp does to the logits after the matrix, by architecture (its src/models/*.cpp). A model of an architecture
# that is missing here is caught when its states are collected: its logits are compared with llama.cpp's own.
MULTIPLY_BY_LOGIT_SCALE = {"command-r", "cohere2", "cohere2moe", "grok", "muse-glimmer", "talkie"}
DIVIDE_BY_LOGIT_SCALE = {"granite", "granitemoe", "granitehybrid", "granite-swa", "granite-switch", "minicpm"}
SOFTCAP = {"gemma2", "gemma3", "gemma3n", "gemma4", "grok", "muse-glimmer"}
DEFAULT_LOGIT_SCALE = {"grok": 0.5773502691896257}
DEFAULT_SOFTCAP = {"gemma2": 30.0, "gemma3n": 30.0}

ROWS_AT_ONCE = 8192  # of the matrix while dequantizing: 8192 x 4096 float32 are 128 MiB


@dataclass(frozen=True)
class OutputMatrix:
    """The matrix as stored, and what follows it: ``softcap(scale * (hidden @ weight.T + bias))``."""

    path: str
    architecture: str
    name: str  # general.name of the model, may be empty
    tensor: gguf.ReaderTensor  # [V, H], any quantization type, mapped from the file
    bias: np.ndarray | None  # [V] float32
    scale: float
    softcap: float  # 0 where there is none

    @property
    def vocab_size(self) -> int:
        return int(self.tensor.shape[1])

    @property
    def hidden_size(self) -> int:
        return int(self.tensor.shape[0])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop`` of the matrix as float32 [stop - start, H]."""
        return gguf.dequantize(self.tensor.data[start:stop], self.tensor.tensor_type).reshape(-1, self.hidden_size)

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


def read_output_matrix(path: str | os.PathLike) -> OutputMatrix:
    """Read the output matrix of the GGUF at ``path``: ``output.weight``, or the tied ``token_embd.weight``.

    Raises InputError for a file that is no readable GGUF, has no such tensor, or stores it in a type that gguf-py
    cannot dequantize.
    """
    path = str(check_gguf(path))
    try:
        reader = gguf.GGUFReader(path)
    except Exception as error:  # a damaged file makes gguf-py fail in many ways, none of them documented
        raise InputError(f"{path}: not a readable GGUF file ({error}); fetch or convert it again") from None
    if _value(reader, "split.count", 1) > 1:
        raise InputError(f"{path}: is one part of a split model; join the parts with `llama-gguf-split --merge` first")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    tensor = tensors.get("output.weight", tensors.get("token_embd.weight"))
    if tensor is None or len(tensor.shape) != 2:
        raise InputError(f"{path}: has no output.weight and no token_embd.weight; this is not a language model")
    architecture = str(_value(reader, "general.architecture", ""))
    matrix = OutputMatrix(
        path=path,
        architecture=architecture,
        name=str(_value(reader, "general.name", "")),
        tensor=tensor,
        bias=_float32(tensors.get("output.bias")),
        scale=_scale(reader, architecture, int(tensor.shape[0])) * _tensor_scale(tensors, tensor),
        softcap=_softcap(reader, architecture),
    )
    try:
        matrix.rows(0, 1)
    except NotImplementedError:
        raise InputError(
            f"{path}: {tensor.name} is {tensor.tensor_type.name}, which gguf-py cannot dequantize; "
            "quantize the model with another --output-tensor-type"
        ) from None
    return matrix


def _value(reader: gguf.GGUFReader, key: str, default):
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _scale(reader: gguf.GGUFReader, architecture: str, hidden_size: int) -> float:
    if architecture == "minicpm3":  # scales the hidden state after the point where it is read (minicpm3.cpp)
        return 256.0 / hidden_size
    default = 256.0 / hidden_size if architecture == "minicpm" else DEFAULT_LOGIT_SCALE.get(architecture, 0.0)
    scale = float(_value(reader, f"{architecture}.logit_scale", default))
    if scale and architecture in MULTIPLY_BY_LOGIT_SCALE:
        return scale
    if scale and architecture in DIVIDE_BY_LOGIT_SCALE:
        return 1.0 / scale
    return 1.0


def _softcap(reader: gguf.GGUFReader, architecture: str) -> float:
    if architecture not in SOFTCAP:
        return 0.0
    if architecture == "gemma3n":  # llama.cpp does not read its key
        return DEFAULT_SOFTCAP[architecture]
    return float(_value(reader, f"{architecture}.final_logit_softcapping", DEFAULT_SOFTCAP.get(architecture, 0.0)))


def _tensor_scale(tensors: dict, tensor: gguf.ReaderTensor) -> float:
    """Return the factor that NVFP4 keeps in a tensor of its own, 1 for every other type."""
    scale = tensors.get("output.scale") if tensor.tensor_type.name == "NVFP4" else None
    return 1.0 if scale is None else float(_float32(scale)[0])


def _float32(tensor: gguf.ReaderTensor | None) -> np.ndarray | None:
    return None if tensor is None else gguf.dequantize(tensor.data, tensor.tensor_type).reshape(-1)

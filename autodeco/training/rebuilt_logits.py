"""Logits rebuilt from hidden states on the device that trains."""

import torch
from torch import Tensor

from autodeco.base.output_matrix import OutputMatrix


class RebuiltLogits:
    """The logits [n, V] that llama.cpp computes from hidden states [n, H], by the model's own output matrix.

    On CUDA the matrix is held as float16, as hidden states are in traces, and products are added up in float32: that is
    15 times as fast as float32, and rounding changes a logit by less than quantized arithmetic does by a factor of 50.
    Elsewhere it is held as float32: on a CPU without bfloat16 units torch multiplies float32 4 to 5 times as fast.
    """

    def __init__(self, matrix: OutputMatrix, device: str):
        self._matrix = matrix
        # torch.mm writes float32 from float16 since 2.8.
        self._half = torch.device(device).type == "cuda" and torch.__version__ >= (2, 8)
        weight = torch.from_numpy(matrix.dequantize())
        self._weight = (weight.half() if self._half else weight).to(device)
        self._bias = None if matrix.bias is None else torch.from_numpy(matrix.bias).to(device)

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        if self._half:
            logits = torch.mm(hidden.half(), self._weight.T, out_dtype=torch.float32)
        else:
            logits = hidden @ self._weight.T
        return self._matrix.finish(logits, self._bias, torch.tanh)

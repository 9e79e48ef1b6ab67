"""Head weights as the tensors of a GGUF file."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_weights import HeadWeights
from autodeco.export.heads_in_gguf import WEIGHT_TYPES, decode
from autodeco.export.schema import CONTROL_HEAD, HEADS, PARTS, TOP_P_EXTRA, TOP_P_HEAD, official_name, tensor_name

Q8_0_BLOCK = types.BLOCKS[types.Q8_0][0]


@dataclass(frozen=True)
class HeadTensor:
    """One tensor ready to be written: ``shape`` in ggml's order, ``kind`` a ggml type, ``data`` its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    data: bytes


class HeadTensors(list[HeadTensor]):
    """Tensors in the order of a file; ``control`` are the ends of a control head among them, None without one."""

    def __init__(self, tensors: Iterable[HeadTensor] = (), control: ControlEnds | None = None):
        super().__init__(tensors)
        self.control = control


def head_tensors(heads: HeadWeights, weight_type: str) -> HeadTensors:
    """Encode heads with weights of ``weight_type`` ("f32", "f16", "bf16" or "q8_0") and F32 biases.

    Rows that Q8_0 cannot hold become F16, and a control head does: it reads small differences between states, and would
    be off by 0.03 of a level on average. Raises InputError for weights beyond the type (f16 ends at 65504)."""
    if weight_type not in WEIGHT_TYPES:
        raise InputError(f"{weight_type}: not a type of heads; choose one of {', '.join(WEIGHT_TYPES)}")
    tensors = HeadTensors(control=heads.control)
    for head in HEADS:
        for part in PARTS:
            array = heads.tensors.get(official_name(head, part))
            if array is None:
                continue
            kind = types.F32 if array.ndim == 1 else WEIGHT_TYPES[weight_type]
            if head == CONTROL_HEAD and kind == types.Q8_0:
                kind = types.F16
            if head == TOP_P_HEAD and part == "0.weight":
                # The hidden part alone keeps rows aligned and quantizable; the few statistics stay exact.
                hidden, extra = array[:, : heads.hidden_size], array[:, heads.hidden_size :]
                tensors.append(_encode(tensor_name(head, part), hidden, kind, heads.source))
                tensors.append(_encode(TOP_P_EXTRA, extra, types.F32, heads.source))
            else:
                tensors.append(_encode(tensor_name(head, part), array, kind, heads.source))
    return tensors


def _encode(name: str, array: np.ndarray, kind: int, source: str) -> HeadTensor:
    if kind == types.Q8_0 and array.shape[-1] % Q8_0_BLOCK:
        kind = types.F16
    array = np.ascontiguousarray(array, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        data = _stored(array, kind)
        finite = np.isfinite(decode(data, array.shape, kind)).all()
    if not finite:
        raise InputError(f"{source}: {name} holds values that {types.TYPE_NAMES[kind]} cannot; export with --type bf16")
    return HeadTensor(name, array.shape[::-1], kind, data)


def _stored(array: np.ndarray, kind: int) -> bytes:
    if kind == types.F32:
        return array.astype("<f4").tobytes()
    if kind == types.F16:
        return array.astype("<f2").tobytes()
    from gguf import GGMLQuantizationType  # takes a fifth of the command's start
    from gguf.quants import quantize

    return quantize(array, GGMLQuantizationType(kind)).tobytes()

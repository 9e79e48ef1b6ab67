"""Heads out of a GGUF file that has them."""

import math

import numpy as np

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.control_ends import END_KEYS, ControlEnds
from autodeco.export.gguf_file import GgufFile
from autodeco.export.head_weights import HeadWeights, check_heads, check_size
from autodeco.export.schema import (
    BASE_GGUF,
    BASE_TAIL,
    CONTROL_HEAD,
    CONTROL_VERSION,
    HEADS,
    KEY_EMBEDDING_LENGTH,
    KEY_PROB_STATS,
    KEY_TEMPERATURE_SCALE,
    KEY_VERSION,
    PARTS,
    TEMPERATURE_SCALE,
    TENSOR_PREFIX,
    TOP_P_EXTRA,
    TOP_P_HEAD,
    VERSION,
    official_name,
    tensor_name,
)

WEIGHT_TYPES = {"f32": types.F32, "f16": types.F16, "bf16": types.BF16, "q8_0": types.Q8_0}
_NAMES = {tensor_name(head, part): official_name(head, part) for head in HEADS for part in PARTS}
_CONTROL_NAMES = {tensor_name(CONTROL_HEAD, part) for part in PARTS}


def head_tensor_names(gguf: GgufFile) -> list[str]:
    """Names of the head tensors in a GGUF, in the order of the file."""
    return [name for name in gguf.tensors if name in _NAMES or name == TOP_P_EXTRA]


def heads_of(gguf: GgufFile) -> HeadWeights:
    """Read the heads of an open GGUF as float32; raises InputError if they are not whole and finite."""
    check_schema(gguf)
    arrays = {name: _read(gguf, name) for name in head_tensor_names(gguf)}
    extra = arrays.pop(TOP_P_EXTRA, None)
    first = tensor_name(TOP_P_HEAD, "0.weight")
    if (extra is None) != (first not in arrays):
        raise InputError(f"{gguf.path}: one part of the top-p head's first weight is missing; export the heads again")
    if extra is not None:
        if extra.ndim != 2 or arrays[first].ndim != 2 or len(extra) != len(arrays[first]):
            raise InputError(
                f"{gguf.path}: the two parts of the top-p head's first weight differ in rows; export again"
            )
        arrays[first] = np.concatenate([arrays[first], extra], axis=1)
    prob_stats = gguf.boolean(KEY_PROB_STATS) if extra is not None else None
    tensors = {_NAMES[name]: array for name, array in arrays.items()}
    return check_heads(tensors, gguf.path, gguf.u32(KEY_EMBEDDING_LENGTH), prob_stats, control_ends_of(gguf))


def control_ends_of(gguf: GgufFile) -> ControlEnds | None:
    """What the control head in a GGUF steers to, None without one; raises InputError for a number that is missing, or
    out of its range."""
    if gguf.u32(KEY_VERSION) != CONTROL_VERSION:
        return None
    given = {name: gguf.f32(key) for name, key in END_KEYS.items()}
    if missing := [END_KEYS[name] for name, value in given.items() if value is None]:
        raise InputError(f"{gguf.path}: the key {missing[0]} is missing; export the heads again")
    return ControlEnds.read(given, gguf.path)


def check_schema(gguf: GgufFile) -> None:
    """Raise InputError unless the keys are those of a schema this code reads and every autodeco tensor is known."""
    version = gguf.u32(KEY_VERSION)
    if version is None:
        raise InputError(
            f"{gguf.path}: holds no AutoDeco heads ({KEY_VERSION} is missing); give a file that autodeco-export wrote"
        )
    if version not in (VERSION, CONTROL_VERSION):
        raise InputError(
            f"{gguf.path}: schema version {version}, this program reads {VERSION} and {CONTROL_VERSION}; "
            "update autodeco"
        )
    scale = gguf.f32(KEY_TEMPERATURE_SCALE)
    if scale != TEMPERATURE_SCALE:
        raise InputError(f"{gguf.path}: {KEY_TEMPERATURE_SCALE} is {scale}, only {TEMPERATURE_SCALE} is known")
    of_version = _NAMES if version == CONTROL_VERSION else _NAMES.keys() - _CONTROL_NAMES
    known = {*of_version, TOP_P_EXTRA} | ({BASE_GGUF, BASE_TAIL} if BASE_GGUF in gguf.tensors else set())
    for name in gguf.tensors:
        if name.startswith(TENSOR_PREFIX) and name not in known:
            raise InputError(f"{gguf.path}: the tensor {name!r} is not in schema version {version}; update autodeco")


def _read(gguf: GgufFile, name: str) -> np.ndarray:
    info = gguf.tensors[name]
    check_size(name, math.prod(info.shape), gguf.path)
    if info.kind not in WEIGHT_TYPES.values():
        kind = types.TYPE_NAMES[info.kind]
        raise InputError(f"{gguf.path}: {name} is {kind}; export the heads again as f32, f16, bf16 or q8_0")
    # NumPy has the slow axis first, ggml the fast one; rows are what the blocks of a type lie in.
    # llama.cpp's own tools drop ones at the end of a shape when they rewrite a file, and others may add some.
    dimensions = 2 if name.endswith(".weight") else 1
    shape = (*info.extents, 1, 1)[: max(dimensions, len(info.extents))][::-1]
    return decode(gguf.read_tensor(name), shape, info.kind)


def decode(data: bytes, shape: tuple[int, ...], kind: int) -> np.ndarray:
    """Float32 array of ``shape`` (slow axis first) from the bytes of a tensor of one of WEIGHT_TYPES.

    NaN and infinity pass; the caller must refuse them."""
    if kind == types.F32:
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)
    with np.errstate(all="ignore"):
        if kind == types.F16:
            return np.frombuffer(data, "<f2").astype(np.float32).reshape(shape)
        if not data:
            return np.zeros(shape, np.float32)
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        # blocks lie in rows
        rows = np.frombuffer(data, np.uint8).reshape(math.prod(shape[:-1]), -1)
        return dequantize(rows, GGMLQuantizationType(kind)).reshape(shape)

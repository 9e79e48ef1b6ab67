"""GGUF value types and ggml tensor types: sizes and how bytes of them are read."""

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

# Value types, from ggml/include/gguf.h.
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
STRUCT_CODES = {
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    UINT32: "I",
    INT32: "i",
    FLOAT32: "f",
    BOOL: "?",
    UINT64: "Q",
    INT64: "q",
    FLOAT64: "d",
}
SIZES = {
    UINT8: 1,
    INT8: 1,
    UINT16: 2,
    INT16: 2,
    UINT32: 4,
    INT32: 4,
    FLOAT32: 4,
    BOOL: 1,
    UINT64: 8,
    INT64: 8,
    FLOAT64: 8,
}
INTEGERS = frozenset({UINT8, INT8, UINT16, INT16, UINT32, INT32, UINT64, INT64})

# Tensor types: {type: (elements in a block, bytes of a block)} as ggml 0.25 has them; gguf-py lacks Q2_0 and pads Q8_1.
F32 = int(GGMLQuantizationType.F32)
F16 = int(GGMLQuantizationType.F16)
BF16 = int(GGMLQuantizationType.BF16)
Q8_0 = int(GGMLQuantizationType.Q8_0)
I8 = int(GGMLQuantizationType.I8)
_Q8_1, _Q2_0 = 9, 42
BLOCKS = {int(kind): tuple(sizes) for kind, sizes in GGML_QUANT_SIZES.items()} | {_Q8_1: (32, 36), _Q2_0: (64, 18)}
TYPE_NAMES = {int(kind): kind.name for kind in GGML_QUANT_SIZES} | {_Q2_0: "Q2_0"}

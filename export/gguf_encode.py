"""GGUF structures as bytes."""

import struct

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.gguf_file import MAX_STRING_BYTES, TensorInfo

VERSION = 3


def header(n_tensors: int, n_keys: int, version: int = VERSION) -> bytes:
    """The first 24 bytes of a GGUF file."""
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def string(text: str) -> bytes:
    """A GGUF string: u64 length, UTF-8."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def key_value(key: str, kind: int, value: object) -> bytes:
    """One key with a scalar or string value of GGUF type ``kind``; raises InputError for a text that none can read."""
    if kind == types.STRING:
        _check_text(key, str(value))
    encoded = string(str(value)) if kind == types.STRING else struct.pack("<" + types.STRUCT_CODES[kind], value)
    return string(key) + struct.pack("<I", kind) + encoded


def zeros(key: str, count: int) -> bytes:
    """One key whose value is an array of ``count`` zero bytes."""
    return string(key) + struct.pack("<IIQ", types.ARRAY, types.UINT8, count) + bytes(count)


def tensor_info(info: TensorInfo) -> bytes:
    """The entry of one tensor."""
    return (
        string(info.name)
        + struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape)
        + struct.pack("<IQ", info.kind, info.offset)
    )


def _check_text(key: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InputError(f"{key}: the text for it is not UTF-8; give it in letters") from None
    if size > MAX_STRING_BYTES:
        raise InputError(
            f"{key}: the text for it has {size} bytes, {MAX_STRING_BYTES} is the limit; give a shorter one"
        )

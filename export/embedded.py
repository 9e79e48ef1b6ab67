"""The embedded layout: a model's own file with one key more, an array of u64 that holds the bytes of a sidecar.

Tensors and their order are the model's, so every program that runs the model runs this file and passes over the key.
The model's own file is what is left without our keys: `autodeco.added.KEY` marks a key that the model does not have,
and `autodeco.replaced.KEY` keeps the model's own value of a key that now has another.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export.copy_range import copy_range
from autodeco.export.gguf_file import GgufFile, KeyValue, padded, read_gguf
from autodeco.export.schema import (
    ADDED_PREFIX,
    BASE_GGUF,
    KEY_HEADS,
    KEY_PREFIX,
    KEY_VERSION,
    REPLACED_PREFIX,
    TENSOR_PREFIX,
)

WORD = types.SIZES[types.UINT64]


def heads_inside(gguf: GgufFile) -> GgufFile | None:
    """Header of the sidecar in the metadata of ``gguf``, None if it has none there; raises InputError for one that is
    not as it was written."""
    held = gguf.keys.get(KEY_HEADS)
    if held is None:
        return None
    if held.kind != types.ARRAY or held.item_kind != types.UINT64 or not held.count:
        raise InputError(f"{gguf.path}: the key {KEY_HEADS} is no array of u64; export the heads again")
    if KEY_VERSION in gguf.keys or any(name.startswith(TENSOR_PREFIX) for name in gguf.tensors):
        raise InputError(f"{gguf.path}: has heads in {KEY_HEADS} and others beside it; export the heads again")
    heads = read_gguf(gguf.path, gguf.start + held.items, held.count * WORD)
    if KEY_HEADS in heads.keys or BASE_GGUF in heads.tensors:
        raise InputError(f"{gguf.path}: has a model in {KEY_HEADS}, not heads; export the heads again")
    return heads


def as_words(data: bytes) -> bytes:
    """The key `autodeco.heads` with ``data``, the bytes of a sidecar, as its array of u64."""
    count = -(-len(data) // WORD)
    head = encode.string(KEY_HEADS) + struct.pack("<IIQ", types.ARRAY, types.UINT64, count)
    return head + data + bytes(count * WORD - len(data))


@dataclass(frozen=True)
class OwnFile:
    """The model's own file, which an embedded one was made from: ``header``, then ``data_size`` bytes at
    ``data_offset`` of the embedded file."""

    header: bytes
    data_offset: int
    data_size: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.data_size


def own_file(gguf: GgufFile) -> OwnFile:
    """The model's own file in ``gguf``, an embedded one; byte for byte, unless another program has rewritten it since.

    Raises InputError if the file has become shorter."""
    data_offset = min(gguf.data_offset, gguf.size)  # without tensors a file may end before its data would begin
    head = gguf.read_bytes(0, data_offset)
    kept = []
    for key, found in gguf.keys.items():
        if key.startswith(KEY_PREFIX) or ADDED_PREFIX + key in gguf.keys:
            continue
        own = gguf.keys.get(REPLACED_PREFIX + key)
        kept.append(raw_key(head, key, found) if own is None else renamed(head, REPLACED_PREFIX + key, own, key))
    infos = b"".join(map(encode.tensor_info, gguf.tensors.values()))
    whole = encode.header(len(gguf.tensors), len(kept), gguf.version) + b"".join(kept) + infos
    whole += bytes(padded(len(whole), gguf.alignment) - len(whole))
    return OwnFile(whole, gguf.start + data_offset, gguf.size - data_offset)


def raw_key(head: bytes, key: str, found: KeyValue) -> bytes:
    """The bytes of one key and its value in ``head``, the header it was read from."""
    return head[found.start : found.end]


def renamed(head: bytes, key: str, found: KeyValue, name: str) -> bytes:
    """The same with another name."""
    return encode.string(name) + head[found.start + len(encode.string(key)) : found.end]


def write_own_file(gguf: GgufFile, file) -> None:
    """Write the model's own file in ``gguf``, an embedded one, to the open ``file``."""
    own = own_file(gguf)
    file.write(own.header)
    file.flush()
    with open(Path(gguf.path), "rb") as source:
        copy_range(source.fileno(), own.data_offset, file.fileno(), len(own.header), own.data_size)

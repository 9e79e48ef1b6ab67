"""A hash that tells heads from others by their weights, whatever file they are in."""

import hashlib
import struct
from collections.abc import Iterable

from autodeco.errors import InputError
from autodeco.export.control_ends import END_NAMES, ControlEnds
from autodeco.export.head_tensors import HeadTensor, head_tensors
from autodeco.export.heads_in_gguf import WEIGHT_TYPES, head_tensor_names, heads_of
from autodeco.export.layout import Layout


def weights_digest(layout: Layout) -> str:
    """``"sha256:<hex>"`` of the heads in the file of ``layout``, as they are stored.

    SHA-256 over all tensors in the order of their names: the name, a zero byte, the ggml type as u32 little-endian, and
    the bytes as they are in the file; then, of a control head, its five numbers as f32 little-endian. Raises InputError
    if they cannot be read."""
    gguf = layout.heads
    tensors = []
    for name in head_tensor_names(gguf):
        info = gguf.tensors[name]
        tensors.append(HeadTensor(name, info.extents, info.kind, gguf.read_tensor(name)))
    return _digest(tensors, layout.control)


def may_have(layout: Layout, digest: str) -> bool:
    """Whether the heads of ``layout``, stored in one of the types of heads, have ``digest``."""
    if weights_digest(layout) == digest:
        return True
    heads = heads_of(layout.heads)
    for kind in WEIGHT_TYPES:
        try:
            tensors = head_tensors(heads, kind)
        except InputError:  # beyond what the type holds, so nobody has stored them so
            continue
        if _digest(tensors, layout.control) == digest:
            return True
    return False


def _digest(tensors: Iterable[HeadTensor], control: ControlEnds | None) -> str:
    digest = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        digest.update(tensor.name.encode() + b"\0" + tensor.kind.to_bytes(4, "little") + tensor.data)
    if control is not None:
        digest.update(struct.pack("<5f", *(getattr(control, name) for name in END_NAMES)))
    return f"sha256:{digest.hexdigest()}"

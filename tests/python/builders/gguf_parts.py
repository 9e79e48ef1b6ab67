"""GGUF files taken apart into keys and tensors, to be changed and put together again."""

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

from autodeco.export.gguf_file import read_gguf
from builders import gguf_files as files


@dataclass(frozen=True)
class Key:
    """``value``: its bytes as in the file, after the type."""

    name: bytes
    kind: int
    value: bytes


@dataclass(frozen=True)
class Tensor:
    """``data`` are written at ``offset`` of the data, whatever the header says."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    offset: int
    data: bytes = field(repr=False)
    place: int | None = None  # where the data are really written; None: at the offset


@dataclass(frozen=True)
class Parts:
    """A GGUF as a list of what it holds."""

    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    alignment: int = 32
    version: int = 3
    more_keys: int = 0  # than there are, as the header counts
    more_tensors: int = 0
    end: bytes = b""

    def encoded(self) -> bytes:
        """The bytes of the file."""
        keys = [files.string(k.name) + struct.pack("<I", k.kind) + k.value for k in self.keys]
        infos = [files.tensor(t.name, t.shape, t.kind, t.offset) for t in self.tensors]
        data = bytearray()
        for tensor in self.tensors:
            place = tensor.offset if tensor.place is None else tensor.place
            if place > 1 << 24:
                continue
            data += bytes(max(0, place + len(tensor.data) - len(data)))
            data[place : place + len(tensor.data)] = tensor.data
        data += bytes(-len(data) % self.alignment)
        # Several damages can take away the tensors and one more: the header's counts have no sign and wrap around.
        counts = (len(keys) + self.more_keys) % (1 << 64), (len(infos) + self.more_tensors) % (1 << 64)
        return files.gguf(keys, infos, bytes(data) + self.end, self.version, self.alignment, *counts)

    @property
    def header_size(self) -> int:
        """Bytes before the data."""
        return len(replace(self, tensors=tuple(replace(t, data=b"", place=0) for t in self.tensors), end=b"").encoded())

    def placed(self, alignment: int | None = None) -> "Parts":
        """The same with the tensors one after the other, as they should be."""
        alignment, at, tensors = alignment or self.alignment, 0, []
        for tensor in self.tensors:
            tensors.append(replace(tensor, offset=at, place=None))
            at += -(-len(tensor.data) // alignment) * alignment
        return replace(self, tensors=tuple(tensors), alignment=alignment)

    def with_key(self, name: str, kind: int, value: bytes) -> "Parts":
        """The same with another value of a key, which is added where it is missing."""
        new = Key(name.encode(), kind, value)
        if not any(key.name == new.name for key in self.keys):
            return replace(self, keys=(*self.keys, new))
        return replace(self, keys=tuple(new if key.name == new.name else key for key in self.keys))


def parts_of(path: Path) -> Parts:
    """Take a good file apart."""
    gguf, data = read_gguf(path), path.read_bytes()
    keys = []
    for name, key in gguf.keys.items():
        at = key.start + 8 + len(name.encode())
        keys.append(Key(name.encode(), key.kind, data[at + 4 : key.end]))
    tensors = []
    for info in gguf.tensors.values():
        start = gguf.data_offset + info.offset
        tensors.append(
            Tensor(info.name.encode(), info.shape, info.kind, info.offset, data[start : start + info.nbytes])
        )
    return Parts(tuple(keys), tuple(tensors), gguf.alignment, end=data[gguf.data_end :].lstrip(b"\0"))


def merged_with(outer: Parts, inner: Parts) -> Parts:
    """``outer``, a merged file, with ``inner`` for its model, where outer says of it what inner says."""
    model = inner.encoded()
    header, size = inner.header_size, struct.pack("<Q", len(model))
    held = Tensor(b"autodeco.base_gguf", (header,), files.TENSOR_I8, 0, model)
    tensors = [replace(t, offset=(t.offset + header) % (1 << 64), data=b"") for t in inner.tensors]
    at = -(-len(model) // outer.alignment) * outer.alignment
    heads = tuple(tensor for tensor in outer.tensors if b"_head." in tensor.name)
    heads = tuple(replace(t, offset=t.offset + at) for t in replace(outer, tensors=heads).placed().tensors)
    whole = replace(outer, tensors=(held, *tensors, *heads), end=b"")
    return whole.with_key("autodeco.base_model.file_size", files.U64, size)


def embedded_with(outer: Parts, heads: bytes) -> Parts:
    """``outer``, an embedded file, with the bytes of ``heads`` in its metadata."""
    words = heads + bytes(-len(heads) % 8)
    return outer.with_key("autodeco.heads", files.ARRAY, struct.pack("<IQ", files.U64, len(words) // 8) + words)

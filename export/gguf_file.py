"""A reader of GGUF headers that trusts nothing in the file.

Accepts what llama.cpp's own reader accepts (ggml/src/gguf.cpp): versions 2 and 3, tensors in order without gaps. Every
count, length and offset is checked against the bytes that are there before anything is allocated for it. Arrays are
skipped, not read: a vocabulary of 262k tokens costs a walk along its lengths.
"""

import os
import struct
from dataclasses import dataclass, field

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.gguf_cursor import Cursor
from autodeco.export.schema import KEY_ALIGNMENT

DEFAULT_ALIGNMENT = 32
# Far above any model (a 262k vocabulary, 10k tensors), low enough that a hostile file costs seconds, not hours.
MAX_ALIGNMENT = 1 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = (1 << 16) - 1  # the format's own limit
MAX_NAME_BYTES = 63  # GGML_MAX_NAME less its final zero
MAX_DIMENSIONS = 4
MAX_STRINGS = 1 << 24
MAX_NUMBERS = 1 << 30  # GGUF_MAX_ARRAY_ELEMENTS
MAX_STRING_BYTES = 1 << 24
_INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class KeyValue:
    """One key: ``kind`` is a GGUF value type; an array has ``value`` None, its ``item_kind``, its ``count`` and the
    offset ``items`` of its first item. ``start`` and ``end`` bound the bytes of key and value; both count from the
    start of the GGUF."""

    kind: int
    value: object
    start: int
    end: int
    item_kind: int | None = None
    count: int = 1
    items: int = 0


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: ``shape`` in ggml's order (fastest first), ``offset`` (bytes) in the data section."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape without trailing ones, which llama.cpp's own tools drop when they rewrite a file."""
        last = max((i for i, extent in enumerate(self.shape) if extent != 1), default=-1)
        return self.shape[: last + 1]


@dataclass(frozen=True)
class GgufFile:
    """Header of the GGUF that lies at ``start`` of ``path`` and is ``size`` bytes long; ``data_offset`` and
    ``data_end`` (end of the last tensor, without padding) count from ``start``."""

    path: str
    start: int
    size: int
    version: int
    alignment: int
    data_offset: int
    data_end: int
    keys: dict[str, KeyValue] = field(repr=False)
    tensors: dict[str, TensorInfo] = field(repr=False)

    def get(self, key: str, default=None):
        """Value of a scalar or string key, or ``default`` if it is absent or an array."""
        found = self.keys.get(key)
        return default if found is None or found.kind == types.ARRAY else found.value

    def integer(self, key: str) -> int | None:
        """Value of an integer key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, types.INTEGERS, "an integer")

    def string(self, key: str) -> str | None:
        """Value of a string key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.STRING}, "a string")

    def boolean(self, key: str) -> bool | None:
        """Value of a boolean key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.BOOL}, "a boolean")

    def number(self, key: str) -> float | None:
        """Value of a float key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.FLOAT32, types.FLOAT64}, "a float")

    def u32(self, key: str) -> int | None:
        """Value of a u32 key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.UINT32}, "an unsigned integer of 32 bits")

    def u64(self, key: str) -> int | None:
        """Value of a u64 key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.UINT64}, "an unsigned integer of 64 bits")

    def f32(self, key: str) -> float | None:
        """Value of a float32 key, or None if it is absent; raises InputError if it is of another type."""
        return self._typed(key, {types.FLOAT32}, "a float of 32 bits")

    def _typed(self, key: str, kinds, expected: str):
        found = self.keys.get(key)
        if found is not None and found.kind not in kinds:
            raise InputError(f"{self.path}: the key {key} is not {expected}; the file was not written by this format")
        return None if found is None else found.value

    def read_tensor(self, name: str) -> bytes:
        """The raw bytes of one tensor; raises InputError if the file has become shorter."""
        info = self.tensors[name]
        return self.read_bytes(self.data_offset + info.offset, info.nbytes)

    def read_bytes(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset`` from the start of this GGUF; raises InputError if they are not there."""
        with open(self.path, "rb") as file:
            cursor = Cursor(file, self.path, self.start, self.size)
            cursor.seek(offset)
            return cursor.take(size)


def read_gguf(path: str | os.PathLike, start: int = 0, size: int | None = None) -> GgufFile:
    """Read the header of the GGUF at ``start`` (bytes) of ``path``; ``size`` defaults to the rest of the file.

    Raises InputError, one line that names the file, for anything that llama.cpp would refuse."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            available = os.fstat(file.fileno()).st_size - start
            if size is None:
                size = available
            if size > available:
                raise InputError(f"{path}: cut off, {size - available} bytes are missing; fetch the file again")
            return _read(Cursor(file, path, start, size))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}); check the path") from error


def _read(cursor: Cursor) -> GgufFile:
    if cursor.size < 4 or cursor.take(4) != b"GGUF":
        raise InputError(f"{cursor.path}: not a GGUF file; give a file that begins with the bytes GGUF")
    version = cursor.u32()
    if version not in (2, 3):
        what = "big-endian" if version and version & 0xFFFF == 0 else f"of version {version}"
        raise InputError(f"{cursor.path}: a GGUF file {what}; convert the model with a current llama.cpp")
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    # The smallest key is 8 + 1 bytes of name, 4 of type and 1 of value; the smallest tensor 8 + 0 + 4 + 4 + 8.
    for count, limit, least, what in ((n_keys, MAX_KEYS, 14, "keys"), (n_tensors, MAX_TENSORS, 24, "tensors")):
        if count > limit or count * least > cursor.remaining:
            raise cursor.damaged(f"a count of {count} {what}")

    keys: dict[str, KeyValue] = {}
    for _ in range(n_keys):
        start = cursor.position
        key = _name(cursor, MAX_KEY_BYTES, "key")
        if not key or key in keys:
            raise cursor.damaged(f"the key {key!r} twice" if key else "an empty key")
        keys[key] = _value(cursor, key, start)
    alignment = _alignment(cursor, keys)

    tensors: dict[str, TensorInfo] = {}
    end = 0
    for _ in range(n_tensors):
        info = _tensor(cursor)
        if info.name in tensors:
            raise cursor.damaged(f"the tensor {info.name!r} twice")
        if info.offset != end:
            raise cursor.damaged(f"the tensor {info.name!r} at offset {info.offset} where {end} is next")
        tensors[info.name] = info
        end = padded(info.offset + info.nbytes, alignment)
    data_offset = padded(cursor.position, alignment)
    data_end = data_offset
    if tensors:
        data_end += info.offset + info.nbytes
        if data_end > cursor.size:
            raise InputError(
                f"{cursor.path}: cut off, tensor data ends at byte {data_end} of {cursor.size}; fetch the file again"
            )
    return GgufFile(cursor.path, cursor.start, cursor.size, version, alignment, data_offset, data_end, keys, tensors)


def padded(size: int, alignment: int) -> int:
    """``size`` rounded up to a multiple of ``alignment``, both in bytes."""
    return -(-size // alignment) * alignment


def _name(cursor: Cursor, limit: int, what: str) -> str:
    length = cursor.u64()
    if length > limit:
        raise cursor.damaged(f"a {what} name of {length} bytes, {limit} is the limit")
    raw = cursor.take(length)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise cursor.damaged(f"the {what} name {raw[:40]!r} that is not UTF-8") from None


def _value(cursor: Cursor, key: str, start: int) -> KeyValue:
    kind = cursor.u32()
    if kind in types.SIZES:
        (value,) = struct.unpack("<" + types.STRUCT_CODES[kind], cursor.take(types.SIZES[kind]))
        return KeyValue(kind, value, start, cursor.position)
    if kind == types.STRING:
        length = cursor.u64()
        if length > MAX_STRING_BYTES:
            raise cursor.damaged(f"a string of {length} bytes in key {key!r}")
        return KeyValue(kind, cursor.take(length).decode(errors="replace"), start, cursor.position)
    if kind == types.ARRAY:
        item_kind, count = cursor.u32(), cursor.u64()
        items = cursor.position
        if item_kind == types.STRING and count <= MAX_STRINGS:
            cursor.skip_strings(count)
        elif item_kind in types.SIZES and count <= MAX_NUMBERS:
            cursor.skip(count * types.SIZES[item_kind])
        else:
            raise cursor.damaged(f"an array of {count} values of type {item_kind} in key {key!r}")
        return KeyValue(kind, None, start, cursor.position, item_kind, count, items)
    raise cursor.damaged(f"the key {key!r} of unknown type {kind}")


def _alignment(cursor: Cursor, keys: dict[str, KeyValue]) -> int:
    if KEY_ALIGNMENT not in keys:
        return DEFAULT_ALIGNMENT
    found = keys[KEY_ALIGNMENT]
    if found.kind != types.UINT32 or not 0 < found.value <= MAX_ALIGNMENT or found.value & (found.value - 1):
        raise cursor.damaged(f"an alignment of {found.value!r}")
    return found.value


def _tensor(cursor: Cursor) -> TensorInfo:
    name = _name(cursor, MAX_NAME_BYTES, "tensor")
    n_dimensions = cursor.u32()
    if n_dimensions > MAX_DIMENSIONS:
        raise cursor.damaged(f"the tensor {name!r} of {n_dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(n_dimensions))
    kind, offset = cursor.u32(), cursor.u64()
    if kind not in types.BLOCKS:
        raise cursor.damaged(f"the tensor {name!r} of unknown type {kind}")
    elements = 1
    for extent in shape:
        elements *= extent
        if extent > _INT64_MAX or elements > _INT64_MAX:
            raise cursor.damaged(f"the tensor {name!r} of shape {list(shape)}")
    block_elements, block_bytes = types.BLOCKS[kind]
    if (shape[0] if shape else 1) % block_elements:
        raise cursor.damaged(f"the tensor {name!r} whose rows do not fill {types.TYPE_NAMES[kind]} blocks")
    return TensorInfo(name, shape, kind, offset, elements // block_elements * block_bytes)

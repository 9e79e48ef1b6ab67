"""A reader of safetensors files that needs no torch and trusts nothing in the file.

It exists because ``safetensors.numpy`` cannot read bfloat16 (looked at in 0.8.0), the type of released checkpoints.
Format: u64 little-endian length of a JSON header, the header, the data (github.com/huggingface/safetensors).
"""

import json
import math
import os
import re
from dataclasses import dataclass

import numpy as np

from autodeco.errors import InputError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
# Storage type of each dtype that heads come in; bfloat16 is the upper half of a float32.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BITS = {"BOOL": 8} | {"E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: ``start`` and ``end`` are byte offsets from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: str | os.PathLike) -> dict[str, Entry]:
    """The tensors of a safetensors file by name; raises InputError for a file that is cut off, overlaps or lies."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length < 2:
                raise InputError(f"{path}: not a safetensors file; give an AutoDeco checkpoint")
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise InputError(f"{path}: cut off, or not a safetensors file: its header is said to be {length} bytes")
            raw = file.read(length)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    header = parse_json_object(raw, path)
    header.pop("__metadata__", None)
    entries = {name: _entry(name, about, 8 + length, path) for name, about in header.items()}
    # As the format demands: the tensors fill the data section, in some order, without gap or overlap.
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise InputError(f"{path}: the tensor {name!r} overlaps or leaves a gap; fetch the file again")
        end = entry.end
    if end != size:
        verb = "cut off" if end > size else "followed by other bytes"
        raise InputError(f"{path}: {verb}, tensor data ends at byte {end} of {size}; fetch the file again")
    return entries


def read_array(path: str | os.PathLike, name: str, entry: Entry) -> np.ndarray:
    """One tensor as float32, shape as stored; raises InputError for a dtype that is not a float."""
    if entry.dtype not in DTYPES:
        raise InputError(f"{path}: the tensor {name!r} is {entry.dtype}; save the heads as F32, F16 or BF16")
    with open(path, "rb") as file:
        file.seek(entry.start)
        raw = file.read(entry.end - entry.start)
    if len(raw) != entry.end - entry.start:
        raise InputError(f"{path}: cut off while it was read; fetch the file again")
    stored = np.frombuffer(raw, DTYPES[entry.dtype]).reshape(entry.shape)
    if entry.dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is refused later
        return stored.astype(np.float32)


def parse_json_object(raw: bytes, path: str | os.PathLike) -> dict:
    """Parse ``raw`` as one JSON object; raises InputError if it is not, or if a name stands in it twice."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InputError(f"{path}: a name stands twice in its JSON; fetch the file again")
        return found

    try:
        parsed = json.loads(raw, object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: holds no valid JSON; fetch the file again") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{path}: holds no JSON object; fetch the file again")
    return parsed


def _entry(name: str, about, data_start: int, path) -> Entry:
    try:
        dtype, shape, (start, end) = about["dtype"], about["shape"], about["data_offsets"]
        numbers = [*shape, start, end]
    except (TypeError, KeyError, ValueError):
        numbers = [None]
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) or not isinstance(dtype, str):
        raise InputError(f"{path}: the tensor {name!r} is described wrongly; fetch the file again")
    bits = _BITS.get(dtype)
    if bits is None:
        match = re.fullmatch(r"(?:BF|F|I|U)(8|16|32|64)(?:_.*)?", dtype)
        bits = int(match[1]) if match else None
    if bits is None or end < start or len(shape) > 64 or math.prod(shape) * bits != (end - start) * 8:
        raise InputError(f"{path}: the tensor {name!r} is {dtype} {shape} in {end - start} bytes; fetch the file again")
    return Entry(dtype, tuple(shape), data_start + start, data_start + end)

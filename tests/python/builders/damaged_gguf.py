"""Sidecars, merged files and models with one thing wrong, each with the verdict that every reader must give of it.

A file is taken apart into keys and tensors, changed, and put together again, so that damage lies where a header means
something: types, names, shapes, offsets, alignments, order.
"""

import math
import random
import struct
from collections.abc import Iterator
from dataclasses import replace

from autodeco.export.control_ends import END_KEYS
from builders import gguf_files as files
from builders.gguf_parts import Key, Parts, Tensor

READ, REFUSED, EITHER = "read", "refused", "either"  # either: only that all readers agree

_OURS = "autodeco."
_CONTROL = tuple(END_KEYS.values())
_NEEDED = (
    "autodeco.version",
    "autodeco.embedding_length",
    "autodeco.vocab_size",
    "autodeco.temperature.scale",
    *_CONTROL,
)
_TYPED = (*_NEEDED, "autodeco.top_p.prob_stats", "autodeco.base_model.name", "autodeco.base_model.fingerprint")
_KINDS = [kind for kind in range(13) if kind != files.ARRAY]
_COUNTS = [0, 1, 2, 63, 65, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
_NUMBERS = [math.nan, math.inf, -math.inf, -1e-3, -0.0, 1e-45, 0.5, 0.99999997, 1.0000001, 1.9999999, 2.0000002]
_HUGE = [1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def scalar_bytes(kind: int, value: int) -> bytes:
    """``value`` as near as a kind of value comes to it."""
    if kind == files.STRING:
        return files.string(str(value))
    if kind in (files.F32, files.F64):
        return files.scalar(kind, float(value))
    if kind == files.BOOL:
        return files.scalar(kind, bool(value))
    bits = 8 * len(files.scalar(kind, 0))
    signed = kind in (files.I8, files.I16, files.I32, files.I64)
    value &= (1 << bits) - 1
    return files.scalar(kind, value - (1 << bits) if signed and value >> (bits - 1) else value)


def _array(kind: int, count: int, items: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + items


Damaged = tuple[str, Parts, str]


def damaged_keys(good: Parts, only: int | None = None) -> Iterator[Damaged]:
    """Keys of other types and values, twice, missing, in another order; of the key ``only`` if it is given."""
    for at, key in enumerate(good.keys):
        if only not in (None, at):
            continue
        name = key.name.decode(errors="replace")
        typed = name in _TYPED or name == "autodeco.base_model.file_size"
        foreign = not name.startswith(_OURS) and name not in ("general.architecture", "adapter.type")
        for kind in _KINDS:
            wrong = typed and kind != key.kind
            yield (
                f"{name} is of type {kind}",
                good.with_key(name, kind, scalar_bytes(kind, 1)),
                REFUSED if wrong else EITHER,
            )
        for kind, count, items in (
            (files.U8, 3, b"abc"),
            (files.STRING, 2, files.string("a") * 2),
            (files.ARRAY, 1, bytes(20)),
            (files.U32, 0, b""),
            (13, 1, bytes(8)),
            (files.STRING, 1 << 61, b""),
            (files.F64, (1 << 30) + 1, b""),
        ):
            expected = REFUSED if typed or count > 3 or kind in (files.ARRAY, 13) else EITHER
            yield (
                f"{name} is an array of {count} of {kind}",
                good.with_key(name, files.ARRAY, _array(kind, count, items)),
                expected,
            )
        for kind in (13, 99, 1 << 31):
            yield f"{name} is of no type, {kind}", good.with_key(name, kind, bytes(8)), REFUSED
        rest = good.keys[:at] + good.keys[at + 1 :]
        expected = (
            REFUSED if name in _NEEDED or name == "autodeco.base_model.file_size" else READ if foreign else EITHER
        )
        yield (
            f"{name} is missing",
            replace(good, keys=rest),
            EITHER if "embedding_length" in name or "tokens" in name else expected,
        )
        yield f"{name} is there twice", replace(good, keys=(*good.keys, key)), REFUSED
        yield f"{name} comes last", replace(good, keys=(*rest, key)), READ
        yield (
            f"{name} is written large",
            replace(good, keys=(*rest, replace(key, name=key.name.upper()))),
            expected if name in _NEEDED else EITHER,
        )
        if key.kind == files.STRING:
            for told, text in (
                ("empty", b""),
                ("long", b"n" * 70_000),
                ("no UTF-8", b"a\xff\xed\xa0\x80"),
                ("zeros", bytes(9)),
            ):
                yield (
                    f"{name} is {told}",
                    good.with_key(name, key.kind, files.string(text)),
                    READ if foreign else EITHER,
                )
            yield f"{name} is a text past the end", good.with_key(name, key.kind, struct.pack("<Q", 1 << 40)), REFUSED
        elif key.kind in _KINDS:
            for value in (*_COUNTS, *_HUGE):
                yield f"{name} is {value}", good.with_key(name, key.kind, scalar_bytes(key.kind, value)), EITHER
            for value in _NUMBERS if key.kind == files.F32 else ():
                never = name in _CONTROL and not -1e-9 < value < 2  # as NaN is not
                yield (
                    f"{name} is {value}",
                    good.with_key(name, key.kind, files.scalar(files.F32, value)),
                    REFUSED if never else EITHER,
                )
    yield "a key without a name", replace(good, keys=(*good.keys, Key(b"", files.U8, b"\1"))), REFUSED
    yield "a key of 65,535 bytes", replace(good, keys=(*good.keys, Key(b"k" * 65535, files.U8, b"\1"))), READ
    yield "a key of 65,536 bytes", replace(good, keys=(*good.keys, Key(b"k" * 65536, files.U8, b"\1"))), REFUSED
    for text in (
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe0\x80\x80",
        b"\xc3",
        b"\xf0\x80\x80\x80",
    ):
        yield f"a key that is no UTF-8, {text!r}", replace(good, keys=(*good.keys, Key(text, files.U8, b"\1"))), REFUSED
    for text in ("\u00e9", "\u20ac", "\ud7ff", "\U0010ffff", "\0"):
        yield (
            f"a key of other letters, {text!a}",
            replace(good, keys=(*good.keys, Key(text.encode(), files.U8, b"\1"))),
            READ,
        )
    for kind in _KINDS:
        for name in ("llama.attention.causal", "llama.pooling_type"):
            for value in (0, 1, 4, 5, (1 << 64) - 1):
                yield f"{name} {value} of type {kind}", good.with_key(name, kind, scalar_bytes(kind, value)), EITHER
    yield "keys the other way round", replace(good, keys=good.keys[::-1]), READ
    for n in (0, 1, 2, 3, 5):
        yield f"split in {n}", good.with_key("split.count", files.U16, struct.pack("<H", n)), EITHER if n > 1 else READ
    yield "split in no number", good.with_key("split.count", files.F32, bytes(4)), REFUSED
    yield "split in minus one", good.with_key("split.count", files.I8, b"\xff"), READ
    yield "part two", good.with_key("split.no", files.U16, b"\1\0"), EITHER


def damaged_tensors(good: Parts, only: int | None = None) -> Iterator[Damaged]:
    """Tensors of other types, names, shapes, offsets, in another order, overlapping, missing; ``only`` as above."""

    def swapped(at: int, *new: Tensor) -> Parts:
        return replace(good, tensors=(*good.tensors[:at], *new, *good.tensors[at + 1 :]))

    for at, tensor in enumerate(good.tensors):
        if only not in (None, at):
            continue
        name = tensor.name.decode(errors="replace")
        is_head = "_head." in name
        bad = REFUSED if is_head else EITHER
        for kind in (*range(44), 99, 1 << 31):
            exact = name.endswith(".bias") or ".extra." in name
            fits = kind == tensor.kind
            wrong = is_head and (exact or kind not in (0, 1, 8, 30)) and not fits
            yield (
                f"{name} is of type {kind}",
                swapped(at, replace(tensor, kind=kind)),
                REFUSED if wrong or kind > 42 else EITHER,
            )
        for new in (name.upper(), name + ".weight", name[:-1], "autodeco.other", "other", "autodeco.", ""):
            ours = new.startswith(_OURS) and new != name
            yield (
                f"{name} is named {new!r}",
                swapped(at, replace(tensor, name=new.encode())),
                REFUSED if is_head or ours else EITHER,
            )
        yield f"{name} is named with 63 bytes", swapped(at, replace(tensor, name=b"n" * 63)), bad
        yield f"{name} is named with 64 bytes", swapped(at, replace(tensor, name=b"n" * 64)), REFUSED
        yield f"{name} is named by no UTF-8", swapped(at, replace(tensor, name=b"\xff")), REFUSED
        shape = tensor.shape
        yield (
            f"{name} has ones after its shape",
            swapped(at, replace(tensor, shape=(*shape, 1, 1, 1, 1)[:4])),
            READ if "base" not in name else EITHER,
        )
        for new in (
            *(
                ((*shape[:i], n, *shape[i + 1 :]))
                for i in range(len(shape))
                for n in (0, 1, shape[i] - 1, shape[i] + 1, 2 * shape[i])
            ),
            *(((*shape[:i], n, *shape[i + 1 :])) for i in range(len(shape)) for n in _HUGE),
            shape[::-1],
            (),
            (0,),
            (1 << 62, 1 << 62, 0),
            (0, 1 << 62, 1 << 62),
            (1 << 32, 1 << 32),
            (*shape, 2),
            (1, *shape),
            (1, 1, 1, 1, 1),
        ):
            same = _without_ones(new) == _without_ones(shape)
            yield (
                f"{name} has the shape {new}",
                swapped(at, replace(tensor, shape=new)),
                EITHER if same else bad if len(new) < 5 else REFUSED,
            )
        last = at == len(good.tensors) - 1
        for offset in (0, 4, 32, *_HUGE, tensor.offset + 32, tensor.offset - 32, tensor.offset + 1, tensor.offset - 4):
            if 0 <= offset < 1 << 64 and offset != tensor.offset:
                moved = replace(tensor, offset=offset, place=tensor.offset)
                yield f"{name} is said to lie at {offset}", swapped(at, moved), REFUSED
        if at:
            before = good.tensors[at - 1]
            yield (
                f"{name} lies on {before.name!r}",
                swapped(at, replace(tensor, offset=before.offset, place=tensor.offset)),
                REFUSED,
            )
        yield f"{name} is missing", swapped(at).placed(), bad
        yield f"{name} is missing and leaves a hole", swapped(at), bad if not last else EITHER
        yield f"{name} is there twice", replace(good, tensors=(*good.tensors, tensor)).placed(), REFUSED
        yield (
            f"{name} comes last",
            replace(good, tensors=(*good.tensors[:at], *good.tensors[at + 1 :], tensor)).placed(),
            EITHER,
        )
        if is_head and tensor.kind == files.TENSOR_F32 and tensor.data:
            for bits in (0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001):
                wrong = struct.pack("<I", bits) + tensor.data[4:]
                yield f"{name} holds {bits:x}", swapped(at, replace(tensor, data=wrong)), REFUSED
    for count in range(1, len(good.tensors)):
        yield f"the first {count} tensors", replace(good, tensors=good.tensors[:count]), EITHER
        yield f"all but {count} tensors", replace(good, tensors=good.tensors[count:]).placed(), EITHER
        turned = replace(good, tensors=good.tensors[count:] + good.tensors[:count])
        yield f"tensors turned by {count}", turned.placed(), EITHER
        yield f"tensors turned by {count}, where they were", turned, REFUSED
    yield "no tensors", replace(good, tensors=()), EITHER
    for name, shape, kind, data, expected in (
        ("other", (8,), files.TENSOR_F32, bytes(32), READ),
        ("autodeco.other", (8,), files.TENSOR_F32, bytes(32), REFUSED),
        ("autodeco.base_tail", (32,), files.TENSOR_I8, bytes(32), REFUSED),
        ("autodeco.base_gguf", (32,), files.TENSOR_I8, bytes(32), REFUSED),
        ("autodeco.temp_head.0.extra.weight", (1, 256), files.TENSOR_F32, bytes(1024), REFUSED),
        ("empty", (0,), files.TENSOR_F32, b"", READ),
    ):
        more = Tensor(name.encode(), shape, kind, 0, data)
        if all(name.encode() != tensor.name for tensor in good.tensors):
            yield f"{name} more", replace(good, tensors=(*good.tensors, more)).placed(), expected if kind else EITHER
            yield f"{name} more, first", replace(good, tensors=(more, *good.tensors)).placed(), EITHER


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def damaged_frames(good: Parts) -> Iterator[Damaged]:
    """Other versions, counts, alignments; files cut short or with something after them."""
    for version in (0, 1, 2, 3, 4, 0x03000000):
        yield f"version {version}", replace(good, version=version), READ if version in (2, 3) else REFUSED
    for more in (-1, 1, 1 << 17, 1 << 40):
        yield f"{more} more keys counted", replace(good, more_keys=more), REFUSED
        yield f"{more} more tensors counted", replace(good, more_tensors=more), REFUSED if more > 0 else EITHER
    for alignment in (1, 2, 8, 16, 64, 4096):
        told = good.with_key("general.alignment", files.U32, struct.pack("<I", alignment))
        yield f"aligned to {alignment}", told.placed(alignment), EITHER
        yield f"said to be aligned to {alignment}", told, EITHER
    for kind, value in (
        (files.U32, 0),
        (files.U32, 3),
        (files.U32, 1 << 21),
        (files.U64, 32),
        (files.I32, 32),
        (files.STRING, 32),
    ):
        yield (
            f"aligned to {value} of type {kind}",
            good.with_key("general.alignment", kind, scalar_bytes(kind, value)),
            REFUSED,
        )
    yield (
        "aligned to a list",
        good.with_key("general.alignment", files.ARRAY, _array(files.U32, 1, b"\x20\0\0\0")),
        REFUSED,
    )
    yield "more at the end", replace(good, end=b"more"), EITHER


def damages(good: Parts) -> list[Damaged]:
    """Every single damage."""
    return [("none", good, READ), *damaged_keys(good), *damaged_tensors(good), *damaged_frames(good)]


def cuts(data: bytes) -> Iterator[tuple[str, bytes, str]]:
    """A file that ends early."""
    for length in (0, 3, 4, 8, 23, 24, 25, 100, len(data) // 3, len(data) // 2, len(data) - 5000):
        yield f"cut to {length}", data[:length], REFUSED


def several(good: Parts, random_number: random.Random) -> Parts:
    """One to three damages at once."""
    for _ in range(random_number.randint(1, 3)):
        if not good.tensors or not good.keys:
            return good
        found = random_number.choice(
            [
                damaged_keys(good, random_number.randrange(len(good.keys))),
                damaged_tensors(good, random_number.randrange(len(good.tensors))),
                damaged_frames(good),
            ]
        )
        good = random_number.choice([parts for _, parts, _ in found])
    return good

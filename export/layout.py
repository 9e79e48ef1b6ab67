"""The layout of a GGUF file: a plain model, a sidecar with heads, or both in one file, and where the model lies in
it."""

import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export import gguf_types as types
from autodeco.export.control_ends import ControlEnds
from autodeco.export.embedded import heads_inside, own_file
from autodeco.export.fingerprint import fingerprint
from autodeco.export.gguf_file import GgufFile, padded, read_gguf
from autodeco.export.heads_in_gguf import WEIGHT_TYPES, check_schema, control_ends_of, head_tensor_names
from autodeco.export.language_models import check_language_model
from autodeco.export.schema import (
    ADAPTER_TYPE,
    BASE_GGUF,
    BASE_TAIL,
    EXTRA_PLAIN,
    EXTRA_PROB_STATS,
    HEAD_WIDTH,
    HEADS,
    KEY_ADAPTER_TYPE,
    KEY_ARCHITECTURE,
    KEY_BASE_FILE_SIZE,
    KEY_BASE_FINGERPRINT,
    KEY_BASE_NAME,
    KEY_EMBEDDING_LENGTH,
    KEY_NAME,
    KEY_PROB_STATS,
    KEY_SPLIT_COUNT,
    KEY_SPLIT_NO,
    KEY_VOCAB_SIZE,
    MAX_HIDDEN_SIZE,
    MAX_VOCAB_SIZE,
    PARTS,
    TEMP_HEAD,
    TENSOR_PREFIX,
    TOP_P_EXTRA,
    TOP_P_HEAD,
    tensor_name,
)

PLAIN, SIDECAR, MERGED, EMBEDDED = "plain", "sidecar", "merged", "embedded"
_ARCHITECTURE = re.compile("[A-Za-z0-9._-]{0,64}")  # keys of the model begin with it, and it is shown


@dataclass(frozen=True)
class Layout:
    """What a file holds. ``kind`` is "plain", "sidecar", "merged" or "embedded"; ``base_offset`` and ``base_size``
    (bytes) say where the GGUF lies that llama.cpp opens as the model (0 and 0 in a sidecar, which has none);
    ``embedding_length`` and ``vocab_size`` are those of the model, or of the one the heads are for;
    ``named_fingerprint`` is that of the model which the heads name (empty in a plain file); ``split_count`` is above 1
    for one part of a split model. ``gguf`` is the file's header, ``model`` that of the model in it (None in a sidecar),
    ``heads`` that of the GGUF with the heads (None in a plain file). ``control`` are the ends of the control head (None
    without one).

    Reading a header takes a walk along the vocabulary: open a file once and pass this on."""

    path: str
    kind: str
    base_offset: int
    base_size: int
    architecture: str
    embedding_length: int
    vocab_size: int
    has_temperature: bool
    has_top_p: bool
    prob_stats: bool
    base_name: str
    named_fingerprint: str
    gguf: GgufFile = field(repr=False, compare=False)
    model: GgufFile | None = field(repr=False, compare=False)
    heads: GgufFile | None = field(default=None, repr=False, compare=False)
    split_count: int = 1
    control: ControlEnds | None = None

    @property
    def has_base(self) -> bool:
        """Whether a model can be loaded from this file."""
        return self.kind != SIDECAR

    @property
    def brings_heads(self) -> bool:
        """Whether the file holds a model and heads for it."""
        return self.kind in (MERGED, EMBEDDED)

    @cached_property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model's own bytes, read when first asked for; raises InputError if there are none."""
        if self.model is None:
            raise InputError(f"{self.path}: holds heads only; give the base model")
        if self.kind == EMBEDDED:
            own = own_file(self.model)
            return fingerprint(self.path, own.data_offset, own.data_size, own.header)
        return fingerprint(self.path, self.model.start, self.model.size)

    @property
    def base_fingerprint(self) -> str:
        """Fingerprint of the model that the heads were exported for, as the file says; a plain model's own."""
        return self.model_fingerprint if self.kind == PLAIN else self.named_fingerprint


def open_layout(file: str | os.PathLike | Layout) -> Layout:
    """Read a GGUF's header and return its layout; raises InputError if its keys contradict its content.

    A Layout is returned as it is."""
    return file if isinstance(file, Layout) else _layout_of(read_gguf(file))


def _layout_of(gguf: GgufFile) -> Layout:
    if BASE_GGUF in gguf.tensors:
        return _merged(gguf)
    if gguf.get(KEY_ADAPTER_TYPE) == ADAPTER_TYPE:
        return _with_heads(gguf, None)
    if (heads := heads_inside(gguf)) is not None:
        return _embedded(gguf, heads)
    if any(name.startswith(TENSOR_PREFIX) for name in gguf.tensors):
        raise InputError(
            f"{gguf.path}: has heads but is neither a heads file nor a merged one; another program rewrote it, "
            "export it again"
        )
    return _plain(gguf)


def _plain(gguf: GgufFile) -> Layout:
    part, parts = gguf.integer(KEY_SPLIT_NO) or 0, gguf.integer(KEY_SPLIT_COUNT) or 1
    if part > 0:  # counted from 0; only the first has the keys of the model
        first = re.sub(r"-\d{5}(-of-\d{5}\.gguf)$", r"-00001\1", gguf.path)
        raise InputError(f"{gguf.path}: part {part + 1} of {parts} of a split model; give the first, {first}")
    architecture = _architecture(gguf)
    if not architecture:
        raise InputError(f"{gguf.path}: names no architecture ({KEY_ARCHITECTURE}); give the GGUF of a language model")
    check_language_model(gguf, architecture)
    width, vocab_size = gguf.integer(f"{architecture}.embedding_length"), _vocab_size(gguf, architecture)
    if not _are_sizes(width, vocab_size):
        raise InputError(f"{gguf.path}: has no embedding length or no vocabulary; give the GGUF of a language model")
    name = gguf.get(KEY_NAME)
    return Layout(
        path=gguf.path,
        kind=PLAIN,
        base_offset=gguf.start,
        base_size=gguf.size,
        architecture=architecture,
        embedding_length=width,
        vocab_size=vocab_size,
        has_temperature=False,
        has_top_p=False,
        prob_stats=False,
        base_name=name if isinstance(name, str) and name.strip() else Path(gguf.path).stem,
        named_fingerprint="",
        split_count=parts,
        gguf=gguf,
        model=gguf,
    )


def _architecture(gguf: GgufFile) -> str:
    name = gguf.string(KEY_ARCHITECTURE) or ""
    if not _ARCHITECTURE.fullmatch(name):
        raise InputError(f"{gguf.path}: {KEY_ARCHITECTURE} is no name of an architecture; fetch or export it again")
    return name


def _are_sizes(width: int | None, vocab_size: int | None) -> bool:
    return 0 < (width or 0) <= MAX_HIDDEN_SIZE and 0 < (vocab_size or 0) <= MAX_VOCAB_SIZE


def _vocab_size(gguf: GgufFile, architecture: str) -> int | None:
    # As llama_vocab_n_tokens counts: the tokens, and the key only for a model without a tokenizer.
    tokens = gguf.keys.get("tokenizer.ggml.tokens")
    if tokens is not None and tokens.kind == types.ARRAY:
        return tokens.count
    return gguf.integer(f"{architecture}.vocab_size")


def _with_heads(gguf: GgufFile, model: GgufFile | None) -> Layout:
    check_schema(gguf)
    if (gguf.integer(KEY_SPLIT_COUNT) or 1) > 1:
        raise InputError(f"{gguf.path}: one part of a split file; join it with 'llama-gguf-split --merge' first")
    width, vocab_size = gguf.u32(KEY_EMBEDDING_LENGTH), gguf.u32(KEY_VOCAB_SIZE)
    if not _are_sizes(width, vocab_size):
        raise InputError(f"{gguf.path}: {KEY_EMBEDDING_LENGTH} or {KEY_VOCAB_SIZE} is missing; export the heads again")
    present = set(head_tensor_names(gguf))
    if not present:
        raise InputError(f"{gguf.path}: holds no head tensors; export the heads again")
    prob_stats = gguf.boolean(KEY_PROB_STATS)
    for head in HEADS:
        mine = {tensor_name(head, part) for part in PARTS} | ({TOP_P_EXTRA} if head == TOP_P_HEAD else set())
        if mine & present and not mine <= present:
            raise InputError(f"{gguf.path}: {sorted(mine - present)[0]} is missing; export the heads again")
    has_top_p, control = TOP_P_EXTRA in present, control_ends_of(gguf)
    if control is not None and not {tensor_name(head, "0.weight") for head in HEADS} <= present:
        raise InputError(f"{gguf.path}: a file with a control head has all three heads; export the heads again")
    if has_top_p and prob_stats is None:
        raise InputError(f"{gguf.path}: {KEY_PROB_STATS} is missing; export the heads again")
    for name in sorted(present):
        _check_head_tensor(gguf, name, width, bool(prob_stats))
    return Layout(
        path=gguf.path,
        kind=MERGED if model else SIDECAR,
        base_offset=model.start if model else 0,
        base_size=model.size if model else 0,
        architecture=_architecture(gguf),
        embedding_length=width,
        vocab_size=vocab_size,
        has_temperature=tensor_name(TEMP_HEAD, "0.weight") in present,
        has_top_p=has_top_p,
        prob_stats=has_top_p and bool(prob_stats),
        base_name=gguf.string(KEY_BASE_NAME) or "",
        named_fingerprint=gguf.string(KEY_BASE_FINGERPRINT) or "",
        gguf=gguf,
        model=model,
        heads=gguf,
        control=control,
    )


def _check_head_tensor(gguf: GgufFile, name: str, width: int, prob_stats: bool) -> None:
    info = gguf.tensors[name]
    if name == TOP_P_EXTRA:
        shape = (EXTRA_PROB_STATS if prob_stats else EXTRA_PLAIN, HEAD_WIDTH)
    elif name.endswith(".0.weight"):
        shape = (width, HEAD_WIDTH)
    else:
        shape = {"0.bias": (HEAD_WIDTH,), "2.weight": (HEAD_WIDTH,), "2.bias": ()}[name.split(".", 2)[2]]
    exact = name.endswith(".bias") or name == TOP_P_EXTRA
    if info.extents != shape:
        raise InputError(f"{gguf.path}: {name} has shape {list(info.shape)}, expected {list(shape)}; export again")
    if info.kind not in ((types.F32,) if exact else WEIGHT_TYPES.values()):
        raise InputError(f"{gguf.path}: {name} is {types.TYPE_NAMES[info.kind]}; quantizing rewrote it, export again")


def _embedded(gguf: GgufFile, heads: GgufFile) -> Layout:
    model, made = _plain(gguf), _with_heads(heads, None)
    if (model.architecture, model.embedding_length, model.vocab_size) != (
        made.architecture,
        made.embedding_length,
        made.vocab_size,
    ):
        raise InputError(f"{gguf.path}: its heads are for a model of another shape; export the heads again")
    return replace(made, kind=EMBEDDED, base_size=gguf.size, gguf=gguf, model=gguf, split_count=model.split_count)


def _merged(gguf: GgufFile) -> Layout:
    """Check that the model inside is the one that the outer header describes, tensor for tensor."""

    def lies(what: str) -> InputError:
        return InputError(f"{gguf.path}: not a merged file as it was written: {what}; merge heads and model again")

    held = gguf.tensors[BASE_GGUF]
    outer = list(gguf.tensors.values())
    base_offset = gguf.data_offset
    base_size = gguf.u64(KEY_BASE_FILE_SIZE)
    if outer[0] is not held or held.kind != types.I8:
        raise lies(f"{BASE_GGUF} is not its first tensor")
    if base_size is None or not held.nbytes <= base_size <= gguf.size - base_offset:
        raise lies(f"{KEY_BASE_FILE_SIZE} is {base_size}")
    base = read_gguf(gguf.path, base_offset, base_size)
    if base.data_offset != held.nbytes or base.alignment != gguf.alignment or not base.tensors:
        raise lies(f"the header in {BASE_GGUF} is not {held.nbytes} bytes long")
    count = len(base.tensors)
    for inner, info in zip(base.tensors.values(), outer[1 : 1 + count], strict=False):
        expected = (inner.name, inner.extents, inner.kind, inner.offset + held.nbytes)
        if (info.name, info.extents, info.kind, info.offset) != expected:
            raise lies(f"{info.name!r} is not where the model has {inner.name!r}")
    if len(outer) < 1 + count:
        raise lies("tensors of the model are missing")
    padded_end = padded(base.data_end, base.alignment)
    tail = gguf.tensors.get(BASE_TAIL)
    if tail is not None and (outer[1 + count :][:1] != [tail] or tail.offset != padded_end):
        raise lies(f"{BASE_TAIL} does not follow the model")
    if base_size > padded_end + (tail.nbytes if tail else 0) or (tail and base_size != padded_end + tail.nbytes):
        raise lies(f"{KEY_BASE_FILE_SIZE} is {base_size} but the model ends at {padded_end}")
    inside = _layout_of(base)
    layout = _with_heads(gguf, base)
    if inside.kind != PLAIN or (inside.architecture, inside.embedding_length, inside.vocab_size) != (
        layout.architecture,
        layout.embedding_length,
        layout.vocab_size,
    ):
        raise lies("the heads are for a model of another shape than the one inside")
    return layout

"""Writing heads into GGUF files: a sidecar, or one file with the model, and taking that one apart again.

A merged file is one valid GGUF whose first tensor, `autodeco.base_gguf`, holds the header of the model's own file. The
model's data follow it directly, so the model's file lies inside byte for byte and can be loaded from there.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export.copy_range import copy_range
from autodeco.export.evaluation import Evaluation, encoded, evaluation_of
from autodeco.export.gguf_file import DEFAULT_ALIGNMENT, GgufFile, TensorInfo, padded
from autodeco.export.head_tensors import HeadTensor
from autodeco.export.heads_in_gguf import head_tensor_names
from autodeco.export.layout import MERGED, Layout, open_layout
from autodeco.export.progress import growth_bar
from autodeco.export.schema import (
    ADAPTER_TYPE,
    BASE_GGUF,
    BASE_TAIL,
    DESCRIPTION_KEYS,
    EXTRA_PROB_STATS,
    GENERAL_TYPE,
    KEY_ADAPTER_TYPE,
    KEY_ARCHITECTURE,
    KEY_BASE_FILE_SIZE,
    KEY_BASE_FINGERPRINT,
    KEY_BASE_NAME,
    KEY_EMBEDDING_LENGTH,
    KEY_NAME,
    KEY_PADDING,
    KEY_PREFIX,
    KEY_PROB_STATS,
    KEY_TEMPERATURE_SCALE,
    KEY_TYPE,
    KEY_VERSION,
    KEY_VOCAB_SIZE,
    TEMPERATURE_SCALE,
    TOP_P_EXTRA,
    VERSION,
)
from autodeco.runs.atomic import replacing

# The model inside starts on a block of the file system and of the memory map, so that extents and pages can be shared.
# 64 KiB is the largest of either that is common, and copying to such an offset measured a third faster than to 4 KiB.
BLOCK = 65536
# llama.cpp maps a model that lies inside a file only if its data are aligned so in the file (llama-model-loader.cpp).
MAP_ALIGNMENT = 32


def write_sidecar(
    output: str | os.PathLike,
    tensors: list[HeadTensor],
    base: Layout,
    description: dict[str, str] | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Write heads for ``base`` as a GGUF of their own; ``description`` maps `general.*` keys to text, ``evaluation`` is
    the verdict of held-out problems.

    The same input gives the same bytes. Raises InputError if the output is the model itself or cannot be written."""
    check_output_is_not(base.path, output)
    description = {KEY_NAME: f"{base.base_name} AutoDeco heads"} | (description or {})
    keys = [
        encode.key_value(KEY_ARCHITECTURE, types.STRING, base.architecture),
        encode.key_value(KEY_TYPE, types.STRING, GENERAL_TYPE),
        encode.key_value(KEY_ADAPTER_TYPE, types.STRING, ADAPTER_TYPE),
        *(encode.key_value(key, types.STRING, text) for key, text in description.items()),
        *_head_keys(tensors, base),
        *encoded(evaluation),
    ]
    infos = _place(tensors, 0, DEFAULT_ALIGNMENT)
    head = encode.header(len(infos), len(keys)) + b"".join(keys) + b"".join(map(encode.tensor_info, infos))
    with _writing(output) as file:
        file.write(_pad(head, DEFAULT_ALIGNMENT))
        for tensor in tensors:
            file.write(_pad(tensor.data, DEFAULT_ALIGNMENT))


def write_merged(
    output: str | os.PathLike,
    tensors: list[HeadTensor],
    base: Layout,
    description: dict[str, str] | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Write one GGUF that holds the model of ``base`` and its heads; ``description`` replaces `general.*` keys,
    ``evaluation`` is the verdict of held-out problems.

    The model is copied by the system, not through memory. The same input gives the same bytes. Raises InputError if the
    base is split or is the output itself, or if the file cannot be written."""
    check_mergeable(base, output)
    model = base.model
    alignment = model.alignment
    held = TensorInfo(BASE_GGUF, (model.data_offset,), types.I8, 0, model.data_offset)
    infos = [held] + [
        TensorInfo(info.name, info.shape, info.kind, info.offset + held.nbytes, info.nbytes)
        for info in model.tensors.values()
    ]
    end = padded(model.data_end, alignment)
    if model.size > end:
        infos.append(TensorInfo(BASE_TAIL, (model.size - end,), types.I8, end, model.size - end))
        end = padded(model.size, alignment)
    infos += _place(tensors, end, alignment)

    with open(base.path, "rb") as source:
        keys = [*_merged_keys(source, model, tensors, base, description or {}), *encoded(evaluation)]
        head = _merged_header(keys, infos, model)
        with _writing(output) as file:
            file.write(head)
            file.flush()
            with growth_bar(Path(output).name, file.name, len(head) + model.size):
                copy_range(source.fileno(), model.start, file.fileno(), len(head), model.size)
            file.seek(len(head) + model.size)
            file.write(bytes(end - model.size))
            for tensor in tensors:
                file.write(_pad(tensor.data, alignment))


def split_merged(path: str | os.PathLike, folder: str | os.PathLike) -> tuple[Path, Path]:
    """Take a merged file apart into ``folder``/base.gguf, byte for byte the file that was merged, and heads.gguf;
    returns both paths. Raises InputError if the file is not merged or the folder cannot be written."""
    layout = open_layout(path)
    if layout.kind != MERGED:
        raise InputError(f"{path}: a {layout.kind} file, not a merged one; there is nothing to split")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    base_path, heads_path = folder / "base.gguf", folder / "heads.gguf"
    for target in (base_path, heads_path):
        if target.exists() and os.path.samefile(target, path):
            raise InputError(f"{target}: is the merged file itself; give another folder")

    outer, inner = layout.gguf, layout.model
    evaluation = evaluation_of(outer)
    tensors = [
        HeadTensor(name, outer.tensors[name].shape, outer.tensors[name].kind, outer.read_tensor(name))
        for name in head_tensor_names(outer)
    ]
    description = {
        key: outer.get(key)
        for key in DESCRIPTION_KEYS
        if isinstance(outer.get(key), str) and outer.get(key) != inner.get(key)
    }
    with open(path, "rb") as source, _writing(base_path) as file, growth_bar(base_path.name, file.name, inner.size):
        copy_range(source.fileno(), inner.start, file.fileno(), 0, inner.size)
    write_sidecar(heads_path, tensors, layout, description, evaluation)
    return base_path, heads_path


def check_mergeable(base: Layout, output: str | os.PathLike) -> None:
    """Raise InputError if ``base`` cannot be merged into ``output``."""
    if not base.has_base:
        raise InputError(f"{base.path}: holds heads but no model; give the model with --base")
    if base.split_count > 1:
        whole = Path(base.path).name.split("-00001-of-")[0] + ".gguf"
        raise InputError(
            f"{base.path}: one part of a split model; join it first with "
            f"'llama-gguf-split --merge {base.path} {whole}' and give {whole}, or use --layout sidecar"
        )
    check_output_is_not(base.path, output)


def check_output_is_not(path: str | os.PathLike, output: str | os.PathLike) -> None:
    """Raise InputError if ``output`` is the file at ``path``, which is read."""
    if os.path.exists(output) and os.path.samefile(output, path):
        raise InputError(f"{output}: is read to make the new file; choose another -o")


def _head_keys(tensors: list[HeadTensor], base: Layout) -> list[bytes]:
    extra = [tensor.shape[0] for tensor in tensors if tensor.name == TOP_P_EXTRA]
    return [
        encode.key_value(KEY_VERSION, types.UINT32, VERSION),
        encode.key_value(KEY_EMBEDDING_LENGTH, types.UINT32, base.embedding_length),
        encode.key_value(KEY_VOCAB_SIZE, types.UINT32, base.vocab_size),
        encode.key_value(KEY_TEMPERATURE_SCALE, types.FLOAT32, TEMPERATURE_SCALE),
        encode.key_value(KEY_PROB_STATS, types.BOOL, extra == [EXTRA_PROB_STATS]),
        encode.key_value(KEY_BASE_NAME, types.STRING, base.base_name),
        encode.key_value(KEY_BASE_FINGERPRINT, types.STRING, base.base_fingerprint),
    ]


def _merged_keys(source, model: GgufFile, tensors, base: Layout, description: dict[str, str]) -> Iterator[bytes]:
    for key, found in model.keys.items():
        if key.startswith(KEY_PREFIX):
            raise InputError(f"{base.path}: has the key {key} already; give the plain model")
        if key not in description:
            source.seek(model.start + found.start)
            yield source.read(found.end - found.start)
    for key, text in description.items():
        yield encode.key_value(key, types.STRING, text)
    yield from _head_keys(tensors, base)
    yield encode.key_value(KEY_BASE_FILE_SIZE, types.UINT64, model.size)


def _merged_header(keys: list[bytes], infos: list[TensorInfo], model: GgufFile) -> bytes:
    """Everything before the data, filled up with a key of zeros so that the model's file starts on a block."""
    opening = encode.header(len(infos), len(keys) + 1) + b"".join(keys)
    entries = b"".join(map(encode.tensor_info, infos))
    least = len(opening) + len(encode.zeros(KEY_PADDING, 0)) + len(entries)
    # A model whose own header is not a multiple of 32 bytes long (a smaller alignment) is shifted to make up for it.
    start = padded(least, max(BLOCK, model.alignment)) + -model.data_offset % MAP_ALIGNMENT
    return opening + encode.zeros(KEY_PADDING, start - least) + entries


def _place(tensors: list[HeadTensor], offset: int, alignment: int) -> list[TensorInfo]:
    infos = []
    for tensor in tensors:
        infos.append(TensorInfo(tensor.name, tensor.shape, tensor.kind, offset, len(tensor.data)))
        offset = padded(offset + len(tensor.data), alignment)
    return infos


def _pad(data: bytes, alignment: int) -> bytes:
    return data + bytes(padded(len(data), alignment) - len(data))


@contextlib.contextmanager
def _writing(output: str | os.PathLike) -> Iterator:
    if os.path.exists(output) and not os.path.isfile(output):
        # Renaming would put a file into the place of /dev/null.
        raise InputError(f"{output}: is no file, so none is put in its place; choose another -o")
    try:
        # Not "wb": ext4 writes a truncated file out when it is closed, which takes longer than the copying.
        with replacing(output) as part, open(part, "r+b") as file:
            yield file
    except (OSError, EOFError) as error:
        raise _unwritable(output, error) from error


def _unwritable(output, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{output}: cannot be written ({reason}); check the folder and the free space")

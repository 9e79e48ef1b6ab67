"""Writing heads into GGUF files: a sidecar, or one file with the model.

A merged file is one valid GGUF whose first tensor, `autodeco.base_gguf`, holds the header of the model's own file. The
model's data follow it directly, so the model's file lies inside byte for byte and can be loaded from there. An embedded
file is the model's own with the heads as one more key.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export.control_ends import END_KEYS, ControlEnds
from autodeco.export.copy_range import copy_range
from autodeco.export.embedded import WORD, as_words, own_file, raw_key, renamed
from autodeco.export.evaluation import Evaluation, encoded
from autodeco.export.gguf_file import DEFAULT_ALIGNMENT, GgufFile, TensorInfo, padded, read_gguf
from autodeco.export.head_tensors import HeadTensor, HeadTensors
from autodeco.export.layout import Layout
from autodeco.export.progress import growth_bar
from autodeco.export.sampling import Sampling
from autodeco.export.schema import (
    ADAPTER_TYPE,
    ADDED_PREFIX,
    BASE_GGUF,
    BASE_TAIL,
    CONTROL_HEAD,
    CONTROL_VERSION,
    EXTRA_PROB_STATS,
    GENERAL_TYPE,
    KEY_ADAPTER_TYPE,
    KEY_ARCHITECTURE,
    KEY_BASE_FILE_SIZE,
    KEY_BASE_FINGERPRINT,
    KEY_BASE_NAME,
    KEY_BASES,
    KEY_EMBEDDING_LENGTH,
    KEY_FIRST_BASE,
    KEY_NAME,
    KEY_PADDING,
    KEY_PREFIX,
    KEY_PROB_STATS,
    KEY_TEMPERATURE_SCALE,
    KEY_TYPE,
    KEY_VERSION,
    KEY_VOCAB_SIZE,
    REPLACED_PREFIX,
    TEMPERATURE_SCALE,
    TOP_P_EXTRA,
    VERSION,
    tensor_name,
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
    with writing(output) as file:
        file.write(sidecar(tensors, base, description, evaluation))


def sidecar(
    tensors: list[HeadTensor],
    base: Layout,
    description: dict[str, str] | None = None,
    evaluation: Evaluation | None = None,
) -> bytes:
    """Bytes of the file that ``write_sidecar`` writes."""
    description = {KEY_NAME: f"{base.base_name} AutoDeco heads"} | (description or {})
    keys = [
        encode.key_value(KEY_ARCHITECTURE, types.STRING, base.architecture),
        encode.key_value(KEY_TYPE, types.STRING, GENERAL_TYPE),
        encode.key_value(KEY_ADAPTER_TYPE, types.STRING, ADAPTER_TYPE),
        encode.key_value(KEY_BASES, types.UINT32, 1),
        encode.key_value(KEY_FIRST_BASE, types.STRING, base.base_name),
        *(encode.key_value(key, types.STRING, text) for key, text in description.items()),
        *_head_keys(tensors, base),
        *encoded(evaluation),
    ]
    infos = _place(tensors, 0, DEFAULT_ALIGNMENT)
    head = encode.header(len(infos), len(keys)) + b"".join(keys) + b"".join(map(encode.tensor_info, infos))
    return b"".join(_pad(part, DEFAULT_ALIGNMENT) for part in (head, *(tensor.data for tensor in tensors)))


def write_merged(
    output: str | os.PathLike,
    tensors: list[HeadTensor],
    base: Layout,
    description: dict[str, str] | None = None,
    evaluation: Evaluation | None = None,
    sampling: Sampling | None = None,
) -> None:
    """Write one GGUF that holds the model of ``base`` and its heads; ``description`` and ``sampling`` replace
    `general.*` keys, ``evaluation`` is the verdict of held-out problems.

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
        keys = [*_merged_keys(source, model, tensors, base, _given(description, sampling)), *encoded(evaluation)]
        head = _merged_header(keys, infos, model)
        with writing(output) as file:
            file.write(head)
            file.flush()
            with growth_bar(Path(output).name, file.name, len(head) + model.size):
                copy_range(source.fileno(), model.start, file.fileno(), len(head), model.size)
            file.seek(len(head) + model.size)
            file.write(bytes(end - model.size))
            for tensor in tensors:
                file.write(_pad(tensor.data, alignment))


def write_embedded(
    output: str | os.PathLike,
    tensors: list[HeadTensor],
    base: Layout,
    description: dict[str, str] | None = None,
    evaluation: Evaluation | None = None,
    sampling: Sampling | None = None,
) -> None:
    """Write the model of ``base`` with its heads as one more key, which any program that runs the model passes over;
    ``description`` and ``sampling`` replace `general.*` keys, ``evaluation`` is the verdict of held-out problems.

    Everything behind the header is copied by the system. The same input gives the same bytes. Raises InputError if the
    base is split or is the output itself, if its header could not be given back byte for byte, or if the file cannot be
    written."""
    check_mergeable(base, output)
    model = base.model
    own = model.read_bytes(0, model.data_offset)
    heads = sidecar(tensors, base, description, evaluation)
    _check_plain(base)
    head = _embedded_header(model, own, _embedded_keys(model, own, _given(description, sampling)), heads)
    with open(base.path, "rb") as source, writing(output) as file:
        file.write(head)
        file.flush()
        with growth_bar(Path(output).name, file.name, len(head) + model.size - len(own)):
            copy_range(source.fileno(), model.start + len(own), file.fileno(), len(head), model.size - len(own))
        if own_file(read_gguf(file.name)).header != own:
            raise InputError(f"{base.path}: its header is not as llama.cpp writes them; use --layout merged or sidecar")


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
    control = _control(tensors)
    ends = {} if control is None else {key: getattr(control, name) for name, key in END_KEYS.items()}
    return [
        encode.key_value(KEY_VERSION, types.UINT32, VERSION if control is None else CONTROL_VERSION),
        encode.key_value(KEY_EMBEDDING_LENGTH, types.UINT32, base.embedding_length),
        encode.key_value(KEY_VOCAB_SIZE, types.UINT32, base.vocab_size),
        encode.key_value(KEY_TEMPERATURE_SCALE, types.FLOAT32, TEMPERATURE_SCALE),
        encode.key_value(KEY_PROB_STATS, types.BOOL, extra == [EXTRA_PROB_STATS]),
        encode.key_value(KEY_BASE_NAME, types.STRING, base.base_name),
        encode.key_value(
            KEY_BASE_FINGERPRINT, types.STRING, base.model_fingerprint if base.has_base else base.base_fingerprint
        ),
        *(encode.key_value(key, types.FLOAT32, value) for key, value in ends.items()),
    ]


def _control(tensors: list[HeadTensor]) -> ControlEnds | None:
    """The ends of the control head among ``tensors``; raises ValueError if it lacks them."""
    control = tensors.control if isinstance(tensors, HeadTensors) else None
    if any(tensor.name == tensor_name(CONTROL_HEAD, "0.weight") for tensor in tensors) != (control is not None):
        raise ValueError("a control head and its ends are written together")
    return control


def _given(description: dict[str, str] | None, sampling: Sampling | None) -> dict[str, bytes]:
    """The encoded keys that take the place of the model's own."""
    texts = {key: encode.key_value(key, types.STRING, text) for key, text in (description or {}).items()}
    return texts | (sampling.keys() if sampling else {})


def _check_plain(base: Layout) -> None:
    for key in base.model.keys:
        if key.startswith(KEY_PREFIX):
            raise InputError(f"{base.path}: has the key {key} already; give the plain model")


def _embedded_keys(model: GgufFile, own: bytes, given: dict[str, bytes]) -> list[bytes]:
    """The model's keys with those of ``given`` in their place or behind them, and what tells which these are."""
    keys, noted = [], []
    for key, found in model.keys.items():
        raw = raw_key(own, key, found)
        keys.append(given.get(key, raw))
        if keys[-1] != raw:
            noted.append(renamed(own, key, found, REPLACED_PREFIX + key))
    for key in given.keys() - model.keys.keys():
        noted.append(encode.key_value(ADDED_PREFIX + key, types.BOOL, True))
    keys += [raw for key, raw in given.items() if key not in model.keys]
    return keys + sorted(noted)


def _embedded_header(model: GgufFile, own: bytes, keys: list[bytes], heads: bytes) -> bytes:
    """Everything before the data. They begin as they did to a multiple of what llama.cpp maps at."""
    infos = b"".join(map(encode.tensor_info, model.tensors.values()))
    opening = encode.header(len(model.tensors), len(keys) + 1, model.version) + b"".join(keys)
    for _ in range(MAP_ALIGNMENT // WORD):
        head = _pad(opening + as_words(heads) + infos, model.alignment)
        if (len(head) - len(own)) % MAP_ALIGNMENT == 0:
            break
        heads += bytes(WORD)
    return head


def _merged_keys(source, model: GgufFile, tensors, base: Layout, given: dict[str, bytes]) -> Iterator[bytes]:
    _check_plain(base)
    for key, found in model.keys.items():
        if key not in given:
            source.seek(model.start + found.start)
            yield source.read(found.end - found.start)
    yield from given.values()
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
def writing(output: str | os.PathLike) -> Iterator:
    """Yield an open file that is put in the place of ``output`` when it is whole; raises InputError if it cannot be."""
    if os.path.exists(output) and not os.path.isfile(output):
        # Renaming would put a file into the place of /dev/null.
        raise InputError(f"{output}: is no file, so none is put in its place; choose another -o")
    try:
        # Not "wb": ext4 writes a truncated file out when it is closed, which takes longer than the copying.
        with replacing(output) as part, open(part, "r+b") as file:
            yield file
    except (OSError, EOFError) as error:
        raise unwritable(output, error) from error


def unwritable(output: str | os.PathLike, error: Exception) -> InputError:
    """The InputError for an ``output`` that the system does not let be written."""
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{output}: cannot be written ({reason}); check the folder and the free space")

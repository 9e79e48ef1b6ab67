"""Taking a file with a model and heads apart again."""

import os
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export.copy_range import copy_range
from autodeco.export.embedded import write_own_file
from autodeco.export.evaluation import evaluation_of
from autodeco.export.gguf_file import padded
from autodeco.export.head_tensors import HeadTensor, HeadTensors
from autodeco.export.heads_in_gguf import head_tensor_names
from autodeco.export.layout import EMBEDDED, Layout, open_layout
from autodeco.export.progress import growth_bar
from autodeco.export.schema import DESCRIPTION_KEYS
from autodeco.export.writer import unwritable, write_sidecar, writing


def split(file: str | os.PathLike | Layout, folder: str | os.PathLike) -> tuple[Path, Path]:
    """Take a merged or embedded file apart into ``folder``/base.gguf, byte for byte the file that it was made from, and
    heads.gguf; returns both paths.

    Of an embedded file that another program has rewritten since, base.gguf is the model as it is now. Raises InputError
    if the file is neither or the folder cannot be written."""
    layout = open_layout(file)
    if not layout.brings_heads:
        raise InputError(f"{layout.path}: a {layout.kind} file, neither merged nor embedded; there is nothing to split")
    if layout.split_count > 1:
        raise InputError(f"{layout.path}: one part of a split file; join it with 'llama-gguf-split --merge' first")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    base_path, heads_path = folder / "base.gguf", folder / "heads.gguf"
    for target in (base_path, heads_path):
        if target.exists() and os.path.samefile(target, layout.path):
            raise InputError(f"{target}: is the {layout.kind} file itself; give another folder")
    evaluation_of(layout.heads)  # an impossible one is told before anything is written
    write_model(layout, base_path)
    if layout.kind == EMBEDDED:
        with writing(heads_path) as target:
            target.write(_embedded_sidecar(layout))
    else:
        _write_merged_heads(layout, heads_path)
    return base_path, heads_path


def write_model(layout: Layout, output: Path) -> None:
    """Write the model's own file of a merged or embedded one; raises InputError if it cannot be written."""
    model = layout.model
    with writing(output) as target, growth_bar(output.name, target.name, model.size):
        if layout.kind == EMBEDDED:
            write_own_file(model, target)
        else:
            with open(layout.path, "rb") as source:
                copy_range(source.fileno(), model.start, target.fileno(), 0, model.size)


def _embedded_sidecar(layout: Layout) -> bytes:
    heads = layout.heads
    return heads.read_bytes(0, min(heads.size, padded(heads.data_end, heads.alignment)))


def _write_merged_heads(layout: Layout, output: Path) -> None:
    outer, inner = layout.gguf, layout.model
    tensors = HeadTensors(
        (
            HeadTensor(name, outer.tensors[name].shape, outer.tensors[name].kind, outer.read_tensor(name))
            for name in head_tensor_names(outer)
        ),
        layout.control,
    )
    description = {
        key: outer.get(key)
        for key in DESCRIPTION_KEYS
        if isinstance(outer.get(key), str) and outer.get(key) != inner.get(key)
    }
    write_sidecar(output, tensors, layout, description, evaluation_of(outer))

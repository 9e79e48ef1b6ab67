"""The model that heads are exported for: a GGUF as it is, or made from a Hugging Face folder and quantized."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autodeco.errors import InputError
from autodeco.export.convert import convert
from autodeco.export.gguf_file import read_gguf
from autodeco.export.layout import EMBEDDED, SIDECAR, Layout, open_layout
from autodeco.export.names import model_stem
from autodeco.export.quantize import check_kind, quantize_model
from autodeco.export.split import write_model
from autodeco.runs.atomic import scratch_folder
from autodeco.terminal import say


@contextlib.contextmanager
def own_model(base: Layout, folder: Path, layout: str) -> Iterator[Layout]:
    """Yield ``base``; if it is embedded and ``layout`` has the model in it, yield the model's own file, which lies in
    ``folder`` until the end of the context. Raises InputError if it cannot be written."""
    if base.kind != EMBEDDED or layout == SIDECAR:
        yield base
        return
    try:
        with scratch_folder(folder) as scratch:
            model = scratch / Path(base.path).name
            write_model(base, model)
            yield replace(open_layout(model), base_name=base.base_name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); check the free space") from error


@contextlib.contextmanager
def made_base(base: str | os.PathLike, quantize: str | None, folder: Path, keep: bool) -> Iterator[Path]:
    """Yield the path of a GGUF made from ``base`` (a GGUF, or a Hugging Face folder), quantized if asked.

    The model is written into ``folder``, and removed at the end of the context unless ``keep``. Raises InputError if a
    step fails or a file of that name is there already."""
    is_folder = os.path.isdir(base)
    if not is_folder and quantize is None:
        yield Path(base)
        return
    if quantize is not None:
        quantize = check_kind(quantize)
    if not is_folder:
        read_gguf(base)  # the quantizer's own errors say less
    made = folder / f"{model_stem(base, quantize)}.gguf"
    if keep and made.exists():
        raise InputError(f"{made}: is there already; give it with --base, or remove it to make it again")
    try:
        with scratch_folder(folder) as scratch:
            model = Path(base)
            target = made if keep else scratch / made.name
            if is_folder:
                say(f"converting {base} with llama.cpp's converter", flush=True)
                model = scratch / "converted.gguf" if quantize else target
                convert(base, model)
            if quantize:
                say(f"quantizing to {quantize} with llama.cpp's quantizer", flush=True)
                quantize_model(model, target, quantize)
                if is_folder:
                    model.unlink()
            if keep:
                say(f"wrote {target}", flush=True)
            yield target
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error}); check the free space") from error

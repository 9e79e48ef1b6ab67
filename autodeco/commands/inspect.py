"""Say what is in a GGUF file: a plain model, AutoDeco heads, or both in one file."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.options import Options, option
from autodeco.terminal import one_line


@dataclass(frozen=True)
class Inspected(Options):
    """What is looked at."""

    file: Path = option(None, "a GGUF file: a model, heads, or both", positional=True, metavar="FILE")
    base: Path | None = option(None, "say whether the heads in FILE were exported for this model", metavar="MODEL.gguf")
    tensors: bool = option(False, "list every tensor of the model too")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's arguments."""
    add_settings(parser, Inspected)


def run(args: argparse.Namespace) -> int:
    """Print what is in the file; exit code 0, or 1 if ``--base`` is a model that the heads were not exported for."""
    from rich.console import Console

    from autodeco.export.layout import open_layout

    (inspected,) = given_settings(args, Inspected)
    layout = open_layout(inspected.file)
    base = _base(inspected, layout) if inspected.base else None
    console = Console(highlight=False, soft_wrap=True)
    for label, value in _lines(inspected.file, layout):
        _say(console, label, value)
    if table := _table(layout, every_tensor=inspected.tensors):
        console.print(table)
    return _compare(inspected, layout, base, console) if base else 0


def _lines(file: Path, layout) -> list[tuple[str, object]]:
    """What the header says, as label and value."""
    from autodeco.export.evaluation import evaluation_of, in_words
    from autodeco.export.schema import DESCRIPTION_KEYS

    said = {key.removeprefix("general."): layout.gguf.get(key) for key in DESCRIPTION_KEYS}
    lines = [
        ("file", file),
        ("kind", _KINDS[layout.kind]),
        *((label, value) for label, value in said.items() if isinstance(value, str)),
        ("architecture", layout.architecture),
        ("hidden size", layout.embedding_length),
        ("vocabulary", layout.vocab_size),
    ]
    if layout.kind == "plain":
        lines.append(("fingerprint", layout.base_fingerprint))
        if layout.split_count > 1:
            lines.append(("split", f"one of {layout.split_count} parts"))
        return lines
    statistics = "with" if layout.prob_stats else "without"
    lines += [
        ("temperature head", "yes" if layout.has_temperature else "no"),
        ("top-p head", f"yes, {statistics} probability statistics" if layout.has_top_p else "no"),
        *_control_lines(layout.control),
        ("base model", layout.base_name),
        ("base fingerprint", layout.base_fingerprint),
    ]
    if layout.kind == "merged":
        lines.append(("base file", f"{layout.base_size} bytes at offset {layout.base_offset}"))
    if layout.kind == "embedded" and layout.model_fingerprint != layout.named_fingerprint:
        lines.append(("model in it", f"changed since: {layout.model_fingerprint}"))
    if (setting := _static_setting(layout.gguf)) is not None:
        lines.append(("without AutoDeco", setting))
    if evaluation := evaluation_of(layout.heads):
        lines += in_words(evaluation, layout.base_fingerprint)
    return lines


def _control_lines(control) -> list[tuple[str, object]]:
    """What a control head does, if there is one."""
    if control is None:
        return []
    return [
        ("control head", f"yes, levels up to {control.dead_zone:g} count as none"),
        ("at level -1", f"T x {control.low_temperature_factor:g}, P x {control.low_top_p_factor:g}"),
        ("at level 1", f"T {control.high_temperature:g}, P {control.high_top_p:g}, or more"),
    ]


def _static_setting(gguf) -> str | None:
    """What stock programs take of a file with a model, if it says."""
    values = [gguf.get(f"general.sampling.{name}") for name in ("temp", "top_p")]
    if not all(isinstance(value, (int, float)) for value in values):
        return None
    return f"T {values[0]:g}, P {values[1]:g}"


def _table(layout, every_tensor: bool):
    """The head tensors, or all of them, as a table; None if there are none."""
    from rich.table import Table
    from rich.text import Text

    from autodeco.export import gguf_types as types
    from autodeco.export.heads_in_gguf import head_tensor_names

    shown = [(layout.gguf, name) for name in layout.gguf.tensors] if every_tensor else []
    if layout.heads and not (every_tensor and layout.heads is layout.gguf):
        shown += [(layout.heads, name) for name in head_tensor_names(layout.heads)]
    if not shown:
        return None
    table = Table("tensor", "type", "shape", "bytes", box=None, pad_edge=False, header_style="bold")
    for gguf, name in shown:
        info = gguf.tensors[name]
        shape = " x ".join(map(str, reversed(info.shape)))
        table.add_row(Text(one_line(name)), types.TYPE_NAMES[info.kind], shape, str(info.nbytes))
    return table


def _say(console, label: str, value: object) -> None:
    from rich.text import Text

    # Text, not markup: names come from the file.
    console.print(Text(f"{label + ':':<18}{one_line(value)}"))


def _base(inspected: Inspected, layout):
    from autodeco.export.layout import open_layout

    if layout.kind == "plain":
        raise InputError(f"{inspected.file}: holds no heads to compare with --base; give a file with heads")
    base = open_layout(inspected.base)
    if not base.has_base:
        raise InputError(f"{inspected.base}: holds no model; give a model with --base")
    return base


def _compare(inspected: Inspected, layout, base, console) -> int:
    from autodeco.export.fit import check_fit

    try:
        warning = check_fit(layout, base)
    except InputError as error:
        _say(console, "fits", f"no: {error}")
        return 1
    _say(console, "fits", f"by shape only: {warning}" if warning else f"yes: exported for {inspected.base}")
    return 1 if warning else 0


_KINDS = {
    "plain": "a model without heads",
    "sidecar": "heads for a model (sidecar)",
    "merged": "a model and its heads in one file (merged)",
    "embedded": "a model with its heads in its metadata (embedded)",
}

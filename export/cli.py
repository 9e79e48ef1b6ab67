"""The ``autodeco-export`` command: heads and a model in, a GGUF file out."""

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from autodeco import __version__
from autodeco.errors import InputError
from autodeco.export.checkpoint import HeadWeights, is_gguf, read_heads
from autodeco.export.convert import hidden_size_of
from autodeco.export.evaluation import Evaluation, evaluation_of, read_run
from autodeco.export.fit import check_fit
from autodeco.export.head_tensors import head_tensors
from autodeco.export.heads_in_gguf import WEIGHT_TYPES
from autodeco.export.layout import EMBEDDED, MERGED, PLAIN, SIDECAR, Layout, open_layout
from autodeco.export.make_base import made_base, own_model
from autodeco.export.names import output_name
from autodeco.export.sampling import PRESET, PRESET_FOLDER, Sampling, checked, of_evaluation, stock_file
from autodeco.export.schema import CONTROL_VERSION, KEY_AUTHOR, KEY_LICENSE, KEY_NAME, KEY_URL
from autodeco.export.split import split
from autodeco.export.split_parts import check_parts
from autodeco.export.writer import check_mergeable, check_output_is_not, write_embedded, write_merged, write_sidecar
from autodeco.settings.options import checked as checked_option
from autodeco.settings.program import Parser, reports_errors
from autodeco.terminal import one_line, say

EPILOG = """examples:
  autodeco-export HEADS_DIR --base MODEL.gguf                     a small file of heads beside the model
  autodeco-export HEADS_DIR --base MODEL.gguf --layout embedded   one file that holds both and runs everywhere
  autodeco-export HEADS_DIR --base HF_DIR --quantize Q4_K_M       from a Hugging Face folder to a quantized model
  autodeco-export --split FILE.gguf -o DIR                        base.gguf and heads.gguf again"""
WRITERS = {SIDECAR: write_sidecar, MERGED: write_merged, EMBEDDED: write_embedded}


def parser() -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = Parser(
        prog="autodeco-export",
        description="Write AutoDeco heads into GGUF.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "heads", metavar="HEADS", nargs="?", help="checkpoint folder, safetensors file or GGUF with heads"
    )
    made.add_argument(
        "--base",
        metavar="MODEL",
        help="the model the heads are for: a GGUF, or a Hugging Face folder to be converted (it may run its own code)",
    )
    made.add_argument("--quantize", metavar="Q4_K_M", help="quantize the model first, with llama.cpp's quantizer")
    made.add_argument(
        "--layout",
        choices=list(WRITERS),
        default=SIDECAR,
        help="heads in a file of their own (sidecar, the default), in one with the model (merged), or in the metadata "
        "of the model's file, which then still runs everywhere (embedded)",
    )
    made.add_argument(
        "--type", choices=list(WEIGHT_TYPES), default="f16", help="of the heads' weights, default: %(default)s"
    )
    made.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file to write, or a folder that is there, default: MODEL_TYPE_heads.autodeco, MODEL_merged.autodeco or "
        "MODEL_autodeco.gguf in the current folder (with --split: the folder)",
    )
    made.add_argument("--check", action="store_true", help="measure what each type of weights costs in accuracy")
    made.add_argument(
        "--split", metavar="FILE.gguf", help="take a merged or embedded file apart into the folder given with -o"
    )
    made.add_argument(
        "--version", action="version", version=f"autodeco-export {__version__}, schema version {CONTROL_VERSION}"
    )
    about = made.add_argument_group("what the file says about itself")
    about.add_argument("--name", help="general.name")
    about.add_argument("--author", help="general.author")
    about.add_argument("--license", help="general.license, an SPDX identifier such as apache-2.0")
    about.add_argument("--url", help="general.url")
    about.add_argument(
        "--sampling",
        metavar="T,P",
        help="temperature and top-p for programs without AutoDeco, or none (default: the best static setting that "
        "held-out problems found, else the heads' mean, for which the model runs over a short text)",
    )
    about.add_argument(
        "--card", action="store_true", help="write a model card, README.md, and llama.cpp/preset.ini beside the file"
    )
    return made


@reports_errors("autodeco-export")
def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` (default: the process arguments), export or split, and return the exit code."""
    args = parser().parse_args(argv)
    for name in ("heads", "base", "output", "split"):
        checked_option(name, getattr(args, name), Path | None)
    if args.split:
        return _split(args)
    if not args.heads:
        raise InputError("nothing to export: give HEADS and --base MODEL.gguf, or --split FILE.gguf -o DIR")
    return _export(args)


def _export(args) -> int:
    from_gguf, base_path = _open_heads_file(args)
    base = None if os.path.isdir(base_path) else _open_base(args, base_path)
    width = hidden_size_of(base_path) if base is None else base.embedding_length
    heads = _read_fitting_heads(args.heads, base_path, width)
    evaluation = _read_evaluation(args.heads, from_gguf)
    output = _output(args, base_path)
    card = output.parent / "README.md"
    preset = output.parent / PRESET_FOLDER / PRESET
    for path in (card, preset):
        if args.card and path.exists():
            raise InputError(f"{path}: is there already; remove it, or write to another folder with -o")
    given = {KEY_NAME: args.name, KEY_AUTHOR: args.author, KEY_LICENSE: args.license, KEY_URL: args.url}
    description = {key: text for key, text in given.items() if text}
    # Bad weights are found before the model takes minutes to make.
    tensors = head_tensors(heads, args.type)

    keep = args.layout == SIDECAR
    with made_base(base_path, args.quantize, output.parent, keep) as model:
        if base is None or args.quantize:
            base = open_layout(model)
        if args.layout != SIDECAR:
            check_mergeable(base, output)
        warning = check_fit(from_gguf, base) if from_gguf is not None and args.base else None
        if warning:
            heads = replace(heads, notes=(*heads.notes, warning))
        measured = Measured(heads, base)
        deviations = measured.deviations() if args.check else []
        sampling, why_not = _sampling(args, evaluation, measured)
        of_model = {} if args.layout == SIDECAR else {"sampling": sampling}
        with own_model(base, output.parent, args.layout) as own:
            WRITERS[args.layout](output, tensors, own, description, evaluation, **of_model)
    if args.card:
        from autodeco.export.card import model_card, write_card

        made = (output, args.layout, args.type, heads, base, description, deviations, evaluation, sampling)
        write_card(card, model_card(*made))
        preset_text = sampling and sampling.preset(stock_file(args.layout, output, base))
        if preset_text:
            write_card(preset, preset_text)
    for note in (*heads.notes, *why_not):
        say(f"note: {note}")
    _say_what_was_made(output, args, heads, base)
    if evaluation:
        say(f"held-out problems said: {evaluation.verdict}")
    if sampling:
        say(f"without AutoDeco: T {sampling.temperature:g}, P {sampling.top_p:g}, {sampling.found}")
    if args.card:
        say(f"wrote {card}")
    if args.card and preset_text:
        say(f"wrote {preset}")
    return 0


def _open_heads_file(args) -> tuple[Layout | None, str]:
    """Layout of HEADS if it is a GGUF, and the path of the model, which may be that file itself."""
    from_gguf = open_layout(args.heads) if not os.path.isdir(args.heads) and is_gguf(args.heads) else None
    if args.base is not None:
        return from_gguf, args.base
    if from_gguf is None:
        raise InputError(f"{args.heads}: needs a model: give it with --base MODEL.gguf")
    if not from_gguf.has_base and (args.layout != SIDECAR or args.quantize or args.check):
        raise InputError(f"{args.heads}: holds heads but no model; give the model with --base MODEL.gguf")
    return from_gguf, args.heads


def _open_base(args, base_path: str) -> Layout:
    base = open_layout(base_path)
    if args.base is not None and not base.has_base:
        raise InputError(f"{base_path}: holds heads but no model; give the model itself with --base")
    if args.quantize and base.kind != PLAIN:
        raise InputError(f"{base_path}: has heads in it, which quantizing would harm; split it first with --split")
    check_parts(base)
    return base


def _read_fitting_heads(heads_path: str, base_path: str, width: int | None) -> HeadWeights:
    """Read the heads; raises InputError if their width is not the model's, before the model is made or copied."""
    heads = read_heads(heads_path, width)
    if width is not None and heads.hidden_size != width:
        raise InputError(
            f"{heads_path}: the heads are for a hidden size of {heads.hidden_size}, {base_path} has {width}; "
            "give the model they were trained on"
        )
    return heads


def _read_evaluation(heads_path: str, from_gguf: Layout | None) -> Evaluation | None:
    """What held-out problems said of the heads; a safetensors file says nothing of it."""
    if from_gguf is not None:
        return evaluation_of(from_gguf.heads or from_gguf.gguf)
    return read_run(heads_path) if os.path.isdir(heads_path) else None


class Measured:
    """What is found by running the model over a short text, once at most."""

    def __init__(self, heads: HeadWeights, base: Layout):
        self._heads, self._base = heads, base

    @cached_property
    def _states(self) -> tuple:
        from autodeco.llama.head_accuracy import hidden_states

        return hidden_states(self._base)

    def deviations(self) -> list:
        """What each type of weights costs, which is printed too; raises InputError if the model does not load."""
        from autodeco.export.card import deviation_table
        from autodeco.llama.head_accuracy import measure_deviations

        deviations = measure_deviations(self._heads, self._base, self._states)
        print("\n".join(deviation_table(deviations)))
        return deviations

    def mean_setting(self) -> Sampling:
        """The heads' mean; raises InputError if the model does not load."""
        from autodeco.llama.head_accuracy import mean_setting

        return mean_setting(self._heads, self._base, self._states)


def _sampling(args, evaluation: Evaluation | None, measured: Measured) -> tuple[Sampling | None, list[str]]:
    """The setting for programs without AutoDeco, and why there is none."""
    if args.sampling is not None:
        return (None if args.sampling == "none" else _given_sampling(args.sampling)), []
    if args.layout == SIDECAR and not args.card:
        return None, []
    if found := of_evaluation(evaluation):
        return found, []
    try:
        return measured.mean_setting(), []
    except InputError as error:
        return None, [f"no setting for programs without AutoDeco: {error}"]


def _given_sampling(text: str) -> Sampling:
    temperature, _, top_p = text.partition(",")
    try:
        return checked(float(temperature), float(top_p), "as given by who made the file")
    except ValueError:
        raise InputError(f"--sampling {text}: give temperature and top-p, such as 0.7,0.95, or none") from None


def _output(args, base_path: str) -> Path:
    """Path of the file to write; raises InputError, before anything takes long, if it cannot be written there."""
    output = Path(args.output or ".")
    if output.is_dir():
        output /= output_name(base_path, args.quantize, args.layout, args.type)
    if not output.parent.is_dir():
        raise InputError(f"{output}: cannot be written, there is no folder {output.parent}; make it first")
    for path in (args.heads, base_path):
        check_output_is_not(path, output)
    return output


def _split(args) -> int:
    if args.heads or args.base:
        raise InputError(f"{args.split}: --split takes no HEADS and no --base; give only -o DIR beside it")
    if not args.output:
        raise InputError(f"{args.split}: say where base.gguf and heads.gguf go: -o DIR")
    layout = open_layout(args.split)
    base_path, heads_path = split(layout, args.output)
    is_same = layout.model_fingerprint == layout.named_fingerprint
    what = "byte for byte the model that it was made with" if is_same else "the model, which was changed since"
    say(f"wrote {base_path} ({_size(base_path)}), {what}")
    say(f"wrote {heads_path} ({_size(heads_path)})")
    return 0


def _say_what_was_made(output: Path, args, heads: HeadWeights, base: Layout) -> None:
    what = f"{named_heads(heads)}, {args.type}"
    say(f"wrote {output} ({_size(output)}): {what}, {'for' if args.layout == SIDECAR else 'with'} {base.base_name}")
    files = [output] if args.layout != SIDECAR else [base.path if base.has_base else "MODEL.gguf", output]
    say("run it in Python:")
    print("  " + one_line(f"autodeco.Llama({', '.join(repr(str(file)) for file in files)})"))
    say("look inside:")
    print("  " + one_line(f"autodeco inspect {shlex.quote(str(output))}"))


def named_heads(heads: HeadWeights) -> str:
    """Which heads are here, in words."""
    *others, last = heads.kinds
    return f"{', '.join(others)} and {last} heads" if others else f"{last} head"


def _size(path) -> str:
    size = os.path.getsize(path)
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"

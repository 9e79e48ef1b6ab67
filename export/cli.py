"""The ``autodeco-export`` command: heads and a model in, a GGUF file out."""

import argparse
import os
import re
import shlex
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autodeco.errors import InputError, reports_errors
from autodeco.export.checkpoint import HeadWeights, is_gguf, read_heads
from autodeco.export.fit import check_fit
from autodeco.export.head_tensors import head_tensors
from autodeco.export.heads_in_gguf import WEIGHT_TYPES
from autodeco.export.layout import MERGED, SIDECAR, Layout, open_layout
from autodeco.export.schema import KEY_AUTHOR, KEY_LICENSE, KEY_NAME, KEY_URL
from autodeco.export.writer import check_mergeable, split_merged, write_merged, write_sidecar

EPILOG = """examples:
  autodeco-export HEADS_DIR --base MODEL.gguf                     a small file of heads beside the model
  autodeco-export HEADS_DIR --base MODEL.gguf --layout merged     one file that holds both
  autodeco-export --split MERGED.gguf -o DIR                      base.gguf and heads.gguf again"""


def parser() -> argparse.ArgumentParser:
    """The command's argument parser."""
    made = argparse.ArgumentParser(
        prog="autodeco-export",
        description="Write AutoDeco heads into GGUF.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "heads", metavar="HEADS", nargs="?", help="checkpoint folder, safetensors file or GGUF with heads"
    )
    made.add_argument("--base", metavar="MODEL.gguf", help="the model the heads are for")
    made.add_argument("--layout", choices=[SIDECAR, MERGED], default=SIDECAR, help="default: %(default)s")
    made.add_argument("--type", choices=list(WEIGHT_TYPES), default="f16", help="of the weights, default: %(default)s")
    made.add_argument("-o", "--output", metavar="OUT", help="file to write (with --split: folder)")
    made.add_argument("--split", metavar="MERGED.gguf", help="take a merged file apart into the folder given with -o")
    about = made.add_argument_group("what the file says about itself")
    about.add_argument("--name", help="general.name")
    about.add_argument("--author", help="general.author")
    about.add_argument("--license", help="general.license, an SPDX identifier such as apache-2.0")
    about.add_argument("--url", help="general.url")
    return made


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` (default: the process arguments), export or split, and return the exit code."""
    args = parser().parse_args(argv)
    _clean_up_when_terminated()
    if args.split:
        return _split(args)
    if not args.heads:
        raise InputError("nothing to export: give HEADS and --base MODEL.gguf, or --split MERGED.gguf -o DIR")
    base, heads = open_inputs(args.heads, args.base, args.layout)
    output = args.output or default_output(base, args.layout, args.type)
    if args.layout == MERGED:
        check_mergeable(base, output)
    given = {KEY_NAME: args.name, KEY_AUTHOR: args.author, KEY_LICENSE: args.license, KEY_URL: args.url}
    description = {key: text for key, text in given.items() if text}
    write = write_merged if args.layout == MERGED else write_sidecar
    write(output, head_tensors(heads, args.type), base, description)
    for note in heads.notes:
        print(f"note: {note}")
    _say_what_was_made(output, args, heads, base)
    return 0


def open_inputs(heads_path: str, base_path: str | None, layout: str) -> tuple[Layout, HeadWeights]:
    """Read the heads and what they go with; raises InputError if the two do not fit each other."""
    from_gguf = open_layout(heads_path) if not os.path.isdir(heads_path) and is_gguf(heads_path) else None
    if base_path is None:
        if from_gguf is None:
            raise InputError(f"{heads_path}: needs a model: give it with --base MODEL.gguf")
        if layout == MERGED and not from_gguf.has_base:
            raise InputError(f"{heads_path}: holds heads but no model; give the model with --base MODEL.gguf")
        base = from_gguf
    else:
        base = open_layout(base_path)
        if not base.has_base:
            raise InputError(f"{base_path}: holds heads but no model; give the model itself with --base")
    heads = read_heads(heads_path, base.embedding_length)
    if heads.hidden_size != base.embedding_length:
        raise InputError(
            f"{heads_path}: the heads are for a hidden size of {heads.hidden_size}, {base.path} has "
            f"{base.embedding_length}; give the model they were trained on"
        )
    warning = check_fit(from_gguf, base) if from_gguf is not None else None
    return base, replace(heads, notes=(*heads.notes, warning)) if warning else heads


def default_output(base: Layout, layout: str, weight_type: str) -> str:
    """Name of the file in the current folder when -o is not given."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", Path(base.path).stem)
    if not base.has_base:
        stem = re.sub(r"-autodeco-heads(-\w+)?$", "", stem)
    return f"{stem}-autodeco.gguf" if layout == MERGED else f"{stem}-autodeco-heads-{weight_type}.gguf"


def _split(args) -> int:
    if args.heads or args.base:
        raise InputError(f"{args.split}: --split takes no HEADS and no --base; give only -o DIR beside it")
    if not args.output:
        raise InputError(f"{args.split}: say where base.gguf and heads.gguf go: -o DIR")
    base_path, heads_path = split_merged(args.split, args.output)
    print(f"wrote {base_path} ({_size(base_path)}), byte for byte the model that was merged")
    print(f"wrote {heads_path} ({_size(heads_path)})")
    return 0


def _say_what_was_made(output: str, args, heads: HeadWeights, base: Layout) -> None:
    kinds = [name for name, here in (("temperature", heads.has_temperature), ("top-p", heads.has_top_p)) if here]
    what = f"{' and '.join(kinds)} {'heads' if len(kinds) == 2 else 'head'}, {args.type}"
    print(f"wrote {output} ({_size(output)}): {what}, {'with' if args.layout == MERGED else 'for'} {base.base_name}")
    files = [output] if args.layout == MERGED else [base.path if base.has_base else "MODEL.gguf", output]
    print("run it in Python:")
    print(f"  autodeco.Llama({', '.join(repr(str(file)) for file in files)})")
    print(f"look inside:\n  autodeco inspect {shlex.quote(str(output))}")


def _size(path) -> str:
    size = os.path.getsize(path)
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _clean_up_when_terminated() -> None:
    """Let SIGTERM end the command as Ctrl-C does, so that a half-written file is removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)

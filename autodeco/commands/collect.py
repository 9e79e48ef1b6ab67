"""Run a GGUF model over completions and keep the hidden state behind each of their tokens, for `autodeco train`."""

import argparse
from pathlib import Path

from autodeco.settings.limits import DEFAULT_CONTEXT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco collect``."""
    parser.add_argument("model", type=Path, metavar="MODEL.gguf", help="the model that the heads are for")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATA.jsonl",
        help="JSON lines with prompt and completion, or messages whose last one is the assistant's",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="TRACES", help="folder for the traces")
    parser.add_argument(
        "--context",
        type=int,
        default=DEFAULT_CONTEXT,
        help="tokens of prompt and completion together (default: %(default)s)",
    )
    parser.add_argument(
        "--shard-tokens",
        type=int,
        default=4096,
        help="states in a file; an interruption loses at most one (default: %(default)s)",
    )
    parser.add_argument(
        "--no-end", action="store_true", help="do not end plain completions with the model's end-of-text token"
    )
    parser.add_argument(
        "--control", action="store_true", help="read each answer behind commands too, for `autodeco train --control`"
    )
    parser.add_argument(
        "--control-commands", type=Path, metavar="FILE.json", help="the commands (default: a set of our own)"
    )
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.1,
        help="with --control: share of the records held out, and given held-out wordings too (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the choice of checked positions, wordings and held-out records (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")


def run(args: argparse.Namespace) -> None:
    """Collect, and say what was kept and how exactly its logits can be rebuilt."""
    from autodeco.traces.collecting import CollectSettings, collect

    settings = CollectSettings(
        context=args.context,
        append_end=not args.no_end,
        shard_tokens=args.shard_tokens,
        seed=args.seed,
        control=args.control,
        validation_share=args.validation_share,
    )
    manifest = collect(args.model, args.data, args.output, settings, args.threads, commands_path=args.control_commands)
    print(f"{args.output}: {manifest.tokens} tokens of {manifest.next_record} records in {len(manifest.shards)} shards")
    print(
        f"rebuilt logits are {manifest.logits_error:.2%} off llama.cpp's own "
        f"({manifest.logits_checked} positions checked)"
    )
    if manifest.skipped:
        print(f"skipped {manifest.skipped} records whose prompt fills the context of {args.context} tokens")
    if manifest.truncated:
        print(f"cut {manifest.truncated} completions at the end of the context")
    print(f"next: autodeco train {args.output} -o HEADS{' --control' * args.control}")

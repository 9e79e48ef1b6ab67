"""Sample a model's own answers to problems and keep those that a checker finds right, for `autodeco collect`."""

import argparse
from pathlib import Path

from autodeco.errors import InputError
from autodeco.rollout_settings import RolloutSettings
from autodeco.settings.options import add_options, chosen_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco rollout``."""
    parser.add_argument("model", type=Path, metavar="MODEL.gguf", help="the model that answers")
    parser.add_argument(
        "--problems",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON lines with prompt and answer, or a .yaml list of reasoning-gym tasks",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATA.jsonl", help="file for the answers")
    parser.add_argument("--heads", type=Path, metavar="HEADS.gguf", help="sample with these heads")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="do the I-th of N parts of the problems")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    add_options(parser, RolloutSettings)


def run(args: argparse.Namespace) -> None:
    """Sample, and say how much was right and what to do with it."""
    from autodeco.rollouts import rollout

    settings = chosen_options(RolloutSettings, vars(args))
    result = rollout(
        args.model, args.problems, args.output, settings, args.heads, parse_shard(args.shard), args.threads
    )
    print(
        f"{args.output}: {result.kept} of {result.answers} answers to {result.problems} problems, "
        f"mean score {result.score:.3f}"
    )
    print(f"next: autodeco collect {args.model} --data {args.output} -o TRACES")


def parse_shard(text: str) -> tuple[int, int]:
    """Return (i, n) of "i/n"; raises InputError unless 1 <= i <= n."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"shard {text}: must be I/N with I from 1 to N, as in 2/8")
    return int(index), int(count)

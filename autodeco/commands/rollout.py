"""Sample a model's own answers to problems and keep those that a checker finds right, for `autodeco collect`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.rollout_settings import RolloutSettings
from autodeco.servers.settings import ServerSettings
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option
from autodeco.terminal import say


@dataclass(frozen=True)
class Files(Options):
    """What is read and written, and how much of it."""

    model: Path = option(None, "the model that answers", positional=True, metavar="MODEL.gguf")
    problems: Path = option(
        None, "JSON lines with prompt and answer, or a .yaml list of reasoning-gym tasks", metavar="FILE"
    )
    output: Path = option(None, "file for the answers", short="-o", metavar="DATA.jsonl")
    heads: Path | None = option(None, "sample with these heads", metavar="HEADS.gguf")
    shard: str = option("1/1", "do the I-th of N parts of the problems", metavar="I/N")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco rollout``."""
    add_settings(parser, Files, RolloutSettings, Processors, ServerSettings)


def run(args: argparse.Namespace) -> None:
    """Sample, and say how much was right and what to do with it."""
    files, settings, processors, servers = given_settings(args, Files, RolloutSettings, Processors, ServerSettings)
    shard = parse_shard(files.shard)

    from autodeco.data.scoring import given_up
    from autodeco.rollouts import rollout

    result = rollout(
        files.model,
        files.problems,
        files.output,
        settings,
        files.heads,
        shard,
        processors.threads,
        servers=servers,
        gpu_layers=processors.gpu_layers,
    )
    say(
        f"{files.output}: {result.kept} of {result.answers} answers to {result.problems} problems, "
        f"mean score {result.score:.3f}"
    )
    if result.given_up:
        say(given_up(result.given_up))
    if result.kept:
        say(f"next: autodeco collect {files.model} --data {files.output} -o TRACES")
    else:
        say(
            "nothing is there to learn from: give easier problems, more --max-tokens, more answers with --n, or a "
            "lower --least-score"
        )


def parse_shard(text: str) -> tuple[int, int]:
    """Return (i, n) of "i/n"; raises InputError unless 1 <= i <= n."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"shard {text}: must be I/N with I from 1 to N, as in 2/8")
    return int(index), int(count)

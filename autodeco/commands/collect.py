"""Run a GGUF model over completions and keep the hidden state behind each of their tokens, for `autodeco train`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option
from autodeco.terminal import say
from autodeco.traces.settings import CollectSettings


@dataclass(frozen=True)
class Files(Options):
    """What is read and written."""

    model: Path = option(None, "the model that the heads are for", positional=True, metavar="MODEL.gguf")
    data: Path = option(
        None,
        "JSON lines with prompt and completion, or messages whose last one is the assistant's",
        metavar="DATA.jsonl",
    )
    output: Path = option(None, "folder for the traces", short="-o", metavar="TRACES")
    control_commands: Path | None = option(None, "the commands (default: a set of our own)", metavar="FILE.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco collect``."""
    add_settings(parser, Files, CollectSettings, Processors)


def run(args: argparse.Namespace) -> None:
    """Collect, and say what was kept and how exactly its logits can be rebuilt."""
    files, settings, processors = given_settings(args, Files, CollectSettings, Processors)

    from autodeco.traces import collect

    manifest = collect(
        files.model,
        files.data,
        files.output,
        settings,
        processors.threads,
        commands_path=files.control_commands,
        gpu_layers=processors.gpu_layers,
    )
    say(f"{files.output}: {manifest.tokens} tokens of {manifest.next_record} records in {len(manifest.shards)} shards")
    say(
        f"rebuilt logits are {manifest.logits_error:.2%} off llama.cpp's own "
        f"({manifest.logits_checked} positions checked)"
    )
    if manifest.skipped:
        say(f"skipped {manifest.skipped} records whose prompt fills the context of {settings.context} tokens")
    if manifest.truncated:
        say(f"cut {manifest.truncated} completions at the end of the context")
    say(f"next: autodeco train {files.output} -o HEADS{' --control' * settings.control}")

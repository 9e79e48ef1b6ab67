"""Train heads for a model; the model itself stays as it is.

On likelihood, TRACES are hidden states that `autodeco collect` kept; with --data instead, a Hugging Face --model is run
over the completions, on one process or, by `accelerate launch`, on many. On rewards (--objective reward), --model
answers --problems with the heads as they are, and a checker scores the answers; it is a GGUF that llama.cpp runs or,
with --rollouts hugging-face, what transformers can load. All settings can stand in a YAML file (--config) under the
names of the flags; flags win over the file. With --control the heads also learn to follow commands in the prompt, to be
certain or to be diverse.
"""

import argparse
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from autodeco.data.control import share_rows
from autodeco.errors import InputError
from autodeco.rewards.arguments import RewardArguments
from autodeco.settings.options import add_options, check_options, chosen_options, option
from autodeco.training.arguments import HuggingFaceSettings, TrainingArguments

PATHS = ("traces", "output", "model", "data", "problems", "init")
ANY_WAY = ("output", "model", "init")
# the three ways of training: what each must be given, and its settings
WAYS = {
    "TRACES": (("traces",), (TrainingArguments,)),
    "--data": (("model", "data"), (TrainingArguments, HuggingFaceSettings)),
    "--objective reward": (("model", "problems"), (RewardArguments,)),
}
SETTINGS = (TrainingArguments, HuggingFaceSettings, RewardArguments)


@dataclass(frozen=True)
class _Command:
    """The flag that chooses between the others, and one that decides nothing but the speed."""

    objective: str = option("likelihood", "what the heads are trained to raise", choices=("likelihood", "reward"))
    threads: int = option(0, "CPU threads of llama.cpp when it answers; 0 for all", least=0)

    def __post_init__(self):
        check_options(self)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco train``."""
    unset = {"default": argparse.SUPPRESS, "type": Path}
    parser.add_argument("traces", nargs="?", type=Path, metavar="TRACES", help="folder that `autodeco collect` wrote")
    parser.add_argument("-o", "--output", metavar="HEADS", help="folder for the heads", **unset)
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="settings by the names of these flags")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="the GGUF to reward or, if it has moved, collected from; with --data or --rollouts hugging-face also the "
        "folder or name of a Hugging Face model",
        **unset,
    )
    parser.add_argument(
        "--data", metavar="DATA.jsonl", help="completions to run a Hugging Face model over, in place of TRACES", **unset
    )
    parser.add_argument(
        "--problems", metavar="FILE", help="problems to reward answers to: see `autodeco rollout --help`", **unset
    )
    parser.add_argument("--init", metavar="HEADS", help="finished heads to continue from", **unset)
    parser.add_argument("--resume", action="store_true", help="continue the interrupted run in HEADS")
    add_options(parser, _Command, *SETTINGS)


def run(args: argparse.Namespace) -> int:
    """Train, show the held-out measurements before and after, and say what to do next."""
    from autodeco.settings.yaml_file import read_config

    values = read_config(args.config, [_Command, *SETTINGS], PATHS) if args.config else {}
    values |= {name: value for name, value in vars(args).items() if value is not None}
    values |= asdict(chosen_options(_Command, values))
    reward = values["objective"] == "reward"
    way = "--objective reward" if reward else "--data" if "data" in values else "TRACES"
    needed, kinds = WAYS[way]
    for name in (*needed, "output"):
        if name not in values:
            raise InputError(f"train: give {name} as a flag, or in the --config file, to train with {way}")
    own = {*needed, *ANY_WAY, *(item.name for kind in kinds for item in fields(kind))}
    every = {*PATHS, *(item.name for kind in SETTINGS for item in fields(kind))}
    if foreign := sorted(every & values.keys() - own):
        name = "TRACES" if foreign[0] == "traces" else f"--{foreign[0].replace('_', '-')}"
        raise InputError(f"{name}: has no meaning in training with {way}; leave it out")
    train = {"TRACES": _on_traces, "--data": _on_hugging_face, "--objective reward": _on_rewards}[way]
    return _report(train(values, *(chosen_options(kind, values) for kind in kinds)), values["output"])


def _on_traces(values: dict[str, Any], arguments: TrainingArguments):
    from autodeco.training import train

    return train(
        values["traces"], values["output"], arguments, values.get("model"), values.get("init"), values["resume"]
    )


def _on_hugging_face(values: dict[str, Any], arguments: TrainingArguments, settings: HuggingFaceSettings):
    from autodeco.training import train_from
    from autodeco.training.hugging_face_source import HuggingFaceSource
    from autodeco.training.state import check_run

    check_run(values["output"], arguments)
    source = HuggingFaceSource(values["model"], values["data"], arguments, settings)
    skipped, cut = (source.details[f"records_{what}"] for what in ("skipped", "cut"))
    if source.rank == 0 and (skipped or cut):
        print(f"{skipped} prompts filled --pack-tokens {settings.pack_tokens}, {cut} completions were cut at it")
    result = train_from(source, values["output"], arguments, values.get("init"), values["resume"])
    return replace(result, quiet=source.rank != 0)


def _on_rewards(values: dict[str, Any], arguments: RewardArguments):
    from autodeco.rewards.loop import train_on_rewards
    from autodeco.training.state import check_run

    check_run(values["output"], arguments)
    room = values["model"], arguments.max_tokens, arguments.slots, arguments.device
    if arguments.rollouts == "hugging-face":
        from autodeco.rewards.hugging_face import HuggingFacePolicy

        policy = HuggingFacePolicy(*room, arguments.dtype)
    else:
        from autodeco.rewards.llama import LlamaPolicy

        policy = LlamaPolicy(*room, values["threads"] or None)
    return train_on_rewards(
        policy, values["problems"], values["output"], arguments, values.get("init"), values["resume"]
    )


def _report(result, output: Path) -> int:
    """Print what training did and what to do next, the first of several processes; return the exit code."""
    if result.quiet:
        return 130 if result.interrupted else 0
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.validation_size} held-out {result.unit}")
    for column in ("", "before", f"after {result.best_step} steps"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = asdict(result.before), asdict(result.after)
    for name in after:
        if f"{name}_deviation" in after:
            cells = (f"{side[name]:.2f} ± {side[f'{name}_deviation']:.2f}" for side in (before, after))
            table.add_row(f"{name.replace('_', '-')}, mean ± deviation", *cells)
        elif not name.endswith(("_deviation", "_share")):
            table.add_row(name.replace("_", " "), *(f"{side[name]:.4f}" for side in (before, after)))
    Console().print(table)
    if "ranking_loss" in after:
        table = Table(title="held-out prompts whose mean moves the right way")
        for column in ("command", "training wordings", "held-out wordings", "paper"):
            table.add_column(column, justify="left" if column == "command" else "right")
        for row in share_rows(after):
            table.add_row(*row)
        Console().print(table)
    print(
        f"{result.training_size} training {result.unit}, {result.tokens_per_second:.0f} tokens/s, "
        f"{result.seconds:.0f} s"
    )
    if result.interrupted:
        print(f"{output}: the best heads so far; continue with the same command and --resume")
        return 130
    print(f"{output}: the heads, and report.html; next: autodeco-export {output} --base MODEL.gguf")
    return 0

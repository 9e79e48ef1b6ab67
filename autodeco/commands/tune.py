"""From a model and problems to heads that are judged: one command, which runs the others and says what it runs.

Problems are split by their texts. Rewards train heads on some, the others judge them beside greedy decoding, static
settings and their own mean. With --control they first learn to follow commands in the prompt. The last line is the
verdict. The same command continues what was interrupted.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Processors
from autodeco.settings.options import Options, option


@dataclass(frozen=True)
class Files(Options):
    """What is tuned, and where all goes."""

    model: Path = option(None, "it stays as it is", positional=True, metavar="MODEL.gguf")
    output: Path = option(Path("tuned"), "folder for all it makes", short="-o")


@dataclass(frozen=True)
class Settings(Options):
    """Everything that decides the outcome, beside the model."""

    tasks: tuple[str, ...] = option(
        (),
        "as of `autodeco eval`, with one checker for all (default: those of a built-in mixture that suit the model)",
        metavar="TASK",
    )
    target: str = option("pass@1", "what to raise: pass@1, pass@K, or a sum such as pass@1+0.5*pass@8")
    time: str = option("30m", "how long all of it may take, about: sizes are chosen to fit", metavar="30m")
    max_tokens: int | None = option(
        None, "of an answer (default: 256, 1024 for a model that can think before it answers)", least=1
    )
    samples: int = option(8, "answers to a problem when heads are judged", least=1)
    control: bool = option(False, "have the heads follow commands in the prompt, too, which takes time of its own")
    seed: int = option(0, "of problems, answers and training", least=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco tune``."""
    add_settings(parser, Files, Settings, Processors)


def run(args: argparse.Namespace) -> int:
    """Run every stage that is not done yet and say the verdict; return the exit code of the first that ends otherwise
    than well."""
    from rich.console import Console

    from autodeco.base.identity import model_fingerprint
    from autodeco.base.opening import check_gguf
    from autodeco.commands.tuning import Tuning, Wanted, take_folder
    from autodeco.rewards.targets import parse_target
    from autodeco.runs.locks import locked_folder
    from autodeco.settings.durations import parse_duration
    from autodeco.tuning.mixture import answer_length, chat_template
    from autodeco.tuning.sizes import Timed

    files, settings, processors = given_settings(args, Files, Settings, Processors)
    check_gguf(files.model)
    target, seconds = parse_target(settings.target), parse_duration("time", settings.time)
    if target.pass_at_k and target.k > settings.samples:
        raise InputError(f"target {settings.target}: wants samples of at least {target.k}")
    if files.output.exists() and not files.output.is_dir():
        raise InputError(f"{files.output}: is a file; choose a folder with -o")
    console = Console(highlight=False, soft_wrap=True)
    with locked_folder(files.output):
        described = {"model": model_fingerprint(files.model), **asdict(settings)}
        take_folder(files.output, "tuning.json", "tuning", described)
        wanted = Wanted(
            files.model,
            files.output,
            settings.tasks,
            settings.target,
            settings.samples,
            settings.seed,
            answer_length(files.model, settings.max_tokens),
            processors,
            settings.control,
        )
        tuning = Tuning(wanted, Timed(seconds), console)
        if code := tuning.run():
            return code
        console.rule("what this made", align="left")
        console.print(f"{tuning.file('report.html')}   the report\n{tuning.file('heads.gguf')}   the heads")
        chat = "--chat " if chat_template(files.model) else ""
        console.print(f"autodeco generate -m {files.model} --heads {tuning.file('heads.gguf')} {chat}'Hello!'")
        if settings.control:
            console.print(f"{tuning.file('control') / 'report.html'}   whether commands are followed")
        console.print(tuning.figures()["verdict"], style="bold")
    return 0

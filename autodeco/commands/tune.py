"""From a model and problems to heads that are judged: one command, which runs the others and says what it runs.

Problems are split by their texts. Rewards train heads on some, the others judge them beside greedy decoding, static
settings and their own mean. The last line is the verdict. The same command continues what was interrupted.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from autodeco.commands.shown_command import show_and_run
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
    seed: int = option(0, "of problems, answers and training", least=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco tune``."""
    add_settings(parser, Files, Settings, Processors)


def run(args: argparse.Namespace) -> int:
    """Run every stage that is not done yet; return the exit code of the first that ends otherwise than well."""
    from autodeco.base.opening import check_gguf
    from autodeco.rewards.targets import parse_target
    from autodeco.runs.locks import locked_folder
    from autodeco.settings.durations import parse_duration

    files, settings, processors = given_settings(args, Files, Settings, Processors)
    check_gguf(files.model)
    target, seconds = parse_target(settings.target), parse_duration("time", settings.time)
    if target.pass_at_k and target.k > settings.samples:
        raise InputError(f"target {settings.target}: wants samples of at least {target.k}")
    if files.output.exists() and not files.output.is_dir():
        raise InputError(f"{files.output}: is a file; choose a folder with -o")
    with locked_folder(files.output):
        _claim(files, settings)
        tuning = _Tuning(files, settings, processors.threads, seconds)
        stages = (
            ("problems", tuning.problems),
            ("heads that start warm", tuning.warm),
            ("heads", tuning.heads),
            ("heads as GGUF", tuning.export),
            ("judged on problems that no training saw", tuning.judge),
        )
        for title, stage in stages:
            if code := stage(partial(tuning.console.rule, title, align="left")):
                return code
    return 0


def _claim(files: Files, settings: Settings) -> None:
    """Take the folder for these settings; an interrupted run of the same ones is continued."""
    from autodeco.base.identity import model_fingerprint
    from autodeco.runs.atomic import replacing

    file = files.output / "tuning.json"
    described = {"model": model_fingerprint(files.model), **asdict(settings)}
    wanted = json.dumps(described, indent=2) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != wanted:
        raise InputError(f"{files.output}: holds a tuning of another model or other settings; choose another with -o")
    with replacing(file) as part:
        part.write_text(wanted, encoding="utf-8")


class _Tuning:
    """The stages of one tuning; each says its title if it has anything to do, and returns an exit code."""

    def __init__(self, files: Files, settings: Settings, threads: int | None, seconds: float):
        from rich.console import Console

        from autodeco.tuning.mixture import answer_length
        from autodeco.tuning.sizes import divided

        self.console = Console(highlight=False, soft_wrap=True)
        self._model, self._output, self._settings, self._threads = files.model, files.output, settings, threads
        self._times, self._max_tokens = divided(seconds), answer_length(files.model, settings.max_tokens)
        self._machine = [] if threads is None else ["--threads", threads]
        self._tasks = list(settings.tasks) or [str(self._file("tasks.yaml"))]

    def problems(self, begin: Callable) -> int:
        """Choose tasks where none are given, and split their problems."""
        from autodeco.evaluation.tasks import parse_specs
        from autodeco.settings.durations import duration
        from autodeco.tuning.anchors import write_anchors
        from autodeco.tuning.mixture import write_mixture
        from autodeco.tuning.sizes import checker_of, split_of

        begin()
        times = self._times
        learning = duration(times.warm + times.learning)
        self.console.print(
            f"about {learning} of learning and {duration(times.judging)} of judging, each shown as it goes"
        )
        if not self._settings.tasks and not self._file("tasks.yaml").exists():
            self.console.print("no tasks are given; a look at what the model answers of the built-in ones:")
            options = self._max_tokens, self._settings.seed, self._threads, self._file("tasks.yaml")
            for line in write_mixture(self._model, *options):
                self.console.print(f"  {line}")
        specs = parse_specs(self._tasks)
        self._checker, self._split = checker_of(specs), split_of(specs, self._settings.seed)
        if not self._file("anchors.jsonl").exists():
            write_anchors([spec.source for spec in specs], self._settings.seed, self._file("anchors.jsonl"))
        if self._file("problems.jsonl").exists():
            return 0
        split = ["--test", self._split.test, "--validation", self._split.validation, "--training", self._split.training]
        tasks = ["--tasks", *self._tasks, "--seed", self._settings.seed]
        return self._autodeco("eval", self._model, *tasks, *split, "--training-problems", self._file("problems.jsonl"))

    def warm(self, begin: Callable) -> int:
        """Learn from a warm setting first, which explores more, where there is time for it."""
        if not self._times.warm:
            return 0
        flags = ["--first-temperature", 0.5, "--anchor-temperature", 0.4, "--anchor-top-p", 0.95]
        return self._reward(begin, "warm", "pass@1+pass@8", self._times.warm, flags)

    def heads(self, begin: Callable) -> int:
        """Learn for the target."""
        flags = ["--init", self._file("warm")] if self._times.warm else []
        return self._reward(begin, "heads", self._settings.target, self._times.learning, flags)

    def export(self, begin: Callable) -> int:
        """Write the heads beside the model."""
        from autodeco.export import cli

        written, made = self._file("heads.gguf"), self._file("heads") / "training.json"
        if written.exists() and written.stat().st_mtime >= made.stat().st_mtime:
            return 0
        begin()
        words = "autodeco-export", self._file("heads"), "--base", self._model, "-o", written
        return show_and_run(self.console, cli.main, *words)

    def judge(self, begin: Callable) -> int:
        """Compare the heads with what could be set by hand; keep the report and say the verdict."""
        from autodeco.evaluation.tasks import parse_specs
        from autodeco.rewards.targets import parse_target
        from autodeco.tuning.sizes import TEMPERATURES, TOP_PS, VALIDATION_SHARE, test_size

        begin()
        settings, k = self._settings, parse_target(self._settings.target).k
        count = len(parse_specs(self._tasks))
        test = test_size(self._file("heads"), self._split, count, settings.samples, self._times.judging)
        flags = ["--tasks", *self._tasks, "--trained-on", self._file("problems.jsonl"), "--seed", settings.seed]
        flags += ["--test", test, "--validation", max(1, test // VALIDATION_SHARE), "--samples", settings.samples]
        flags += ["--ks", *sorted({1, k, settings.samples}), "--temperatures", *TEMPERATURES, "--top-ps", *TOP_PS]
        flags += ["--without", "temperature-head", "top-p-head", "rivals", "--max-tokens", self._max_tokens]
        flags += ["--context", self._max_tokens + 1024, "-o", self._file("evaluations")]
        code = self._autodeco("eval", self._model, "--heads", self._file("heads.gguf"), *flags, *self._machine)
        if code:
            return code
        report = max(self._file("evaluations").glob("*/report.html"), key=lambda path: path.stat().st_mtime)
        shutil.copyfile(report, self._file("report.html"))
        found = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["verdict"]
        self.console.rule("what this made", align="left")
        self.console.print(f"{self._file('report.html')}   the report\n{self._file('heads.gguf')}   the heads")
        self.console.print(f"autodeco generate -m {self._model} --heads {self._file('heads.gguf')} --chat 'Hello!'")
        self.console.print(found, style="bold")
        return 0

    def _reward(self, begin: Callable, name: str, target: str, seconds: float, flags: Sequence) -> int:
        from autodeco.training.state import RESUME_FILE

        folder = self._file(name)
        unfinished = (folder / RESUME_FILE).exists()
        if (folder / "report.html").exists() and not unfinished:
            return 0
        begin()
        files = ["--problems", self._file("problems.jsonl"), "--anchors", self._file("anchors.jsonl"), "-o", folder]
        settings = ["--checker", self._checker, "--least-score", 1, "--max-tokens", self._max_tokens]
        settings += ["--target", target, "--time", f"{max(1, round(seconds))}s", "--seed", self._settings.seed]
        resume = ["--resume"] if unfinished else []
        return self._autodeco("reward", self._model, *files, *settings, *flags, *self._machine, *resume)

    def _autodeco(self, *words) -> int:
        from autodeco import cli

        return show_and_run(self.console, cli.main, "autodeco", *words)

    def _file(self, name: str) -> Path:
        return self._output / name

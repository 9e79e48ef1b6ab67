"""The stages of a tuning, for ``autodeco tune`` and ``autodeco demo``: commands, each shown as one would type it."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodeco.commands.shown_command import show_and_run
from autodeco.errors import InputError
from autodeco.settings.machine import Processors

if TYPE_CHECKING:
    from autodeco.tuning.sizes import Sizes


@dataclass(frozen=True)
class Wanted:
    """What is tuned for what, and where all goes."""

    model: Path
    output: Path
    tasks: tuple[str, ...]  # none: those of a built-in mixture that suit the model
    target: str
    samples: int  # answers to a problem when heads are judged
    seed: int
    max_tokens: int  # of an answer
    processors: Processors
    control: bool = False  # heads follow commands in the prompt, too


def take_folder(folder: Path, name: str, what: str, described: dict[str, Any]) -> None:
    """Take ``folder`` for what is ``described``, in its file ``name``; an interrupted run of the same is continued.

    Raises InputError, which calls it ``what``, if the folder holds one of another description.
    """
    from autodeco.runs.atomic import replacing

    file, wanted = folder / name, json.dumps(described, indent=2) + "\n"
    if file.exists() and file.read_bytes() != wanted.encode():
        raise InputError(f"{folder}: holds a {what} of another model or other settings; choose another with -o")
    with replacing(file) as part:
        part.write_text(wanted, encoding="utf-8")


class Tuning:
    """The stages of one tuning; each says its title if it has anything to do, and returns an exit code."""

    def __init__(self, wanted: Wanted, sizes: "Sizes", console):
        self.console = console
        self._wanted, self._sizes = wanted, sizes
        self._machine = wanted.processors.flags
        self._tasks = list(wanted.tasks) or [str(self.file("tasks.yaml"))]

    def run(self) -> int:
        """Run every stage that is not done yet; return the exit code of the first that ends otherwise than well."""
        stages = (
            ("problems", self._problems),
            ("heads that start warm", self._warm),
            ("heads", self._heads),
            ("heads that follow commands", self._control),
            ("heads as GGUF", self._export),
            ("judged on problems that no training saw", self._judge),
        )
        for title, stage in stages:
            if code := stage(partial(self.console.rule, title, align="left")):
                return code
        return 0

    def file(self, name: str) -> Path:
        """Return the path of a file of the tuning."""
        return self._wanted.output / name

    def figures(self) -> dict[str, Any]:
        """Return the figures of the evaluation of a tuning that ran to its end."""
        return json.loads(self._report().with_suffix(".json").read_text(encoding="utf-8"))

    @cached_property
    def _split(self):
        from autodeco.evaluation.tasks import parse_specs

        return self._sizes.split(parse_specs(self._tasks), self._wanted.seed)

    def _problems(self, begin: Callable) -> int:
        """Choose tasks where none are given, and split their problems."""
        from autodeco.evaluation.tasks import parse_specs
        from autodeco.tuning.anchors import write_anchors
        from autodeco.tuning.mixture import chat_template, write_mixture
        from autodeco.tuning.sizes import checker_of

        begin()
        wanted, seed = self._wanted, self._wanted.seed
        if said := self._sizes.how_long():
            self.console.print(said)
        if not wanted.tasks and not self.file("tasks.yaml").exists():
            self.console.print("no tasks are given; a look at what the model answers of the built-in ones:")
            options = wanted.max_tokens, seed, wanted.processors, self.file("tasks.yaml")
            for line in write_mixture(wanted.model, *options):
                self.console.print(f"  {line}")
        specs = parse_specs(self._tasks)
        self._checker, split = checker_of(specs), self._split
        anchors = self.file("anchors.jsonl")
        if self._sizes.anchors and not anchors.exists():
            chats = bool(chat_template(wanted.model))
            write_anchors([spec.source for spec in specs], seed, self._sizes.anchors, anchors, chats)
        if self.file("problems.jsonl").exists():
            return 0
        sizes = ["--test", split.test, "--validation", split.validation, "--training", split.training]
        tasks = ["--tasks", *self._tasks, "--seed", seed]
        return self._autodeco("eval", wanted.model, *tasks, *sizes, "--training-problems", self.file("problems.jsonl"))

    def _warm(self, begin: Callable) -> int:
        """Learn from a warm setting first, which explores more, where there is time for it."""
        if not self._sizes.warm:
            return 0
        flags = ["--first-temperature", 0.5, "--anchor-temperature", 0.4, "--anchor-top-p", 0.95]
        return self._reward(begin, "warm", "pass@1+pass@8", self._sizes.warm, flags)

    def _heads(self, begin: Callable) -> int:
        """Learn for the target."""
        flags = ["--init", self.file("warm")] if self._sizes.warm else []
        return self._reward(begin, "heads", self._wanted.target, self._sizes.learning, flags)

    def _control(self, begin: Callable) -> int:
        """Have the heads follow commands, if that is wanted."""
        from autodeco.steering.unfinished import FIGURES, UNFINISHED

        folder = self.file("control")
        if not self._wanted.control or ((folder / FIGURES).exists() and not (folder / UNFINISHED).exists()):
            return 0
        begin()
        flags = ["--seed", self._wanted.seed]
        return self._autodeco(
            "control", self._wanted.model, "--init", self.file("heads"), "-o", folder, *flags, *self._machine
        )

    def _export(self, begin: Callable) -> int:
        """Write the heads beside the model."""
        from autodeco.export import cli
        from autodeco.steering.unfinished import FIGURES

        written, heads = self.file("heads.gguf"), self.file("control" if self._wanted.control else "heads")
        made = heads / (FIGURES if self._wanted.control else "training.json")
        if written.exists() and written.stat().st_mtime >= made.stat().st_mtime:
            return 0
        begin()
        words = "autodeco-export", heads, "--base", self._wanted.model, "-o", written
        return show_and_run(self.console, cli.main, *words)

    def _judge(self, begin: Callable) -> int:
        """Compare the heads with what could be set by hand, and keep the report."""
        from autodeco.evaluation.tasks import parse_specs
        from autodeco.rewards.targets import parse_target
        from autodeco.tuning.sizes import PROMPT_TOKENS, TOP_PS, slots_for

        begin()
        wanted, k = self._wanted, parse_target(self._wanted.target).k
        tasks = len(parse_specs(self._tasks))
        test, validation = self._sizes.judged(self.file("heads"), self._split, tasks, wanted.samples)
        flags = ["--tasks", *self._tasks, "--trained-on", self.file("problems.jsonl"), "--seed", wanted.seed]
        flags += ["--test", test, "--validation", validation, "--samples", wanted.samples]
        flags += ["--ks", *sorted({1, k, wanted.samples})]
        flags += ["--temperatures", *self._sizes.temperatures, "--top-ps", *TOP_PS]
        flags += ["--without", "temperature-head", "top-p-head", "rivals", *self._sizes.without]
        flags += ["--max-tokens", wanted.max_tokens, "--slots", slots_for(wanted.max_tokens)]
        flags += ["--context", wanted.max_tokens + PROMPT_TOKENS, "-o", self.file("evaluations")]
        code = self._autodeco("eval", wanted.model, "--heads", self.file("heads.gguf"), *flags, *self._machine)
        if not code:
            shutil.copyfile(self._report(), self.file("report.html"))
        return code

    def _report(self) -> Path:
        reports = self.file("evaluations").glob("*/report.html")
        return max(reports, key=lambda path: path.stat().st_mtime)

    def _reward(self, begin: Callable, name: str, target: str, learning: Sequence, flags: Sequence) -> int:
        from autodeco.training.state import RESUME_FILE

        folder, wanted = self.file(name), self._wanted
        unfinished = (folder / RESUME_FILE).exists()
        if (folder / "report.html").exists() and not unfinished:
            return 0
        begin()
        files = ["--problems", self.file("problems.jsonl"), "-o", folder]
        if self._sizes.anchors:
            files += ["--anchors", self.file("anchors.jsonl")]
        settings = ["--checker", self._checker, "--least-score", 1, "--max-tokens", wanted.max_tokens]
        settings += ["--target", target, *learning, "--seed", wanted.seed]
        resume = ["--resume"] if unfinished else []
        return self._autodeco("reward", wanted.model, *files, *settings, *flags, *self._machine, *resume)

    def _autodeco(self, *words) -> int:
        from autodeco import cli

        return show_and_run(self.console, cli.main, "autodeco", *words)

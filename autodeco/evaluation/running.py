"""Asking the model: every method on every problem, those of validation first, as some methods are made of them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp
from tqdm import tqdm

from autodeco import batch
from autodeco.base.token_bytes import TokenBytes
from autodeco.base.tokenizer import Tokenizer
from autodeco.data.json_lines import place_of
from autodeco.errors import InputError
from autodeco.evaluation import methods, rivals
from autodeco.evaluation.answer_logs import MethodLog, Pass, file_name
from autodeco.evaluation.drawing import Here, Source
from autodeco.evaluation.folders import claim, describe_answers
from autodeco.evaluation.head_sets import ALONE
from autodeco.evaluation.methods import Method
from autodeco.evaluation.settings import OPTIONAL, Settings
from autodeco.evaluation.stream import Scorers, Stream, TaskAnswers
from autodeco.evaluation.tasks import Task
from autodeco.runs.locks import locked_folder
from autodeco.settings.program import bar as progress_bar


@dataclass(frozen=True)
class TaskPasses:
    """All passes over one task, by the title of their method."""

    task: Task
    validation: dict[str, Pass]
    test: dict[str, Pass]


class Runner:
    """Asks ``llm`` and keeps the answers in ``folder``, where an interrupted run finds them again.

    ``description`` is that of the run; answers lie in a folder for each part of it that decides them, so that another
    run of which the same is true finds them too. Where a ``source`` is given, it draws the answers, and ``llm`` may be
    a vocabulary.
    """

    def __init__(
        self,
        llm: llama_cpp.Llama,
        settings: Settings,
        folder: Path,
        description: dict[str, Any],
        source: Source | None = None,
    ):
        self._llm = llm
        self._source = source or Here(llm, settings.slots)
        self._settings = settings
        self._folder = folder
        self._description = description
        self._prompts: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        self.given_up = 0  # answers whose scoring took too long or too much memory

    def check(self, tasks: list[Task]) -> None:
        """Raise InputError for a problem that the model cannot be asked."""
        settings = self._settings
        for task in tasks:
            for split in ("validation", "test"):
                problems: list[dict] = getattr(task, split)
                for problem, prompt in zip(problems, self._prompts_of(task, split), strict=True):
                    request = batch.Request(prompt, methods.GREEDY.sampling, settings.max_tokens, 0, settings.stop)
                    with _naming(task, problem):
                        self._source.check(request)

    def _prompts_of(self, task: Task, split: str) -> list[tuple[int, ...]]:
        """The tokens of the problems' prompts, found once."""
        key = (task.spec.name, split)
        if key not in self._prompts:
            tokenizer, found = Tokenizer(self._llm), []
            for problem in getattr(task, split):
                with _naming(task, problem):
                    found.append(tuple(tokenizer.prompt_ids(problem["prompt"], problem.get("tools"))))
            self._prompts[key] = found
        return self._prompts[key]

    def run(self, tasks: list[Task], until: float | None = None) -> list[TaskPasses]:
        """Answer what is not answered yet, and return everything; after the moment ``until`` of time.monotonic, no
        more is drawn, and only what tasks have whole is returned."""
        settings = self._settings
        grid = [methods.static(t, p) for t in settings.temperatures for p in settings.top_ps]
        static = list(dict.fromkeys([methods.GREEDY, *self._kept(methods.DEFAULT), *grid]))
        of_heads = [method for name in self._source.heads for method in self._head_methods(name)]
        guided = [method for method in of_heads if method.name == methods.AUTODECO.name]
        rules = rivals.by_hand(self._llm, settings.without)
        on_test = [*static, *self._vendor(), *rules, *of_heads]
        on_validation = [*static, *rules, *guided]

        def count(chosen: list[Method], problems: int) -> int:
            return problems * sum(self._samples(method) for method in chosen)

        total = count(on_validation, settings.validation) + count(on_test, settings.test)
        known_later = len(guided) * (1 + rivals.number_of_heads(settings.without))
        total += settings.test * settings.derived * known_later
        order = [ALONE, *self._source.heads]  # the methods of a set of heads follow each other

        def with_derived(validation: dict[str, Pass]) -> list[Method]:
            derived = [method for one in guided for method in self._derived(validation[one.title])]
            return sorted([*on_test, *derived], key=lambda method: order.index(method.of))

        with contextlib.ExitStack() as stack:
            for folder in self._folders(tasks, on_test):  # no other run writes meanwhile
                stack.enter_context(locked_folder(folder))
            bar = stack.enter_context(progress_bar(total * len(tasks), 0, "answer", "eval"))
            scorers = stack.enter_context(Scorers())
            pieces = TokenBytes(self._llm.model, special=True)
            stream = Stream(self._source, settings, scorers, pieces, bar, until)
            validation = self._passes("validation", [(task, on_validation) for task in tasks], stream, bar)
            test = self._passes("test", [(task, with_derived(of)) for task, of in validation], stream, bar)
        self.given_up = scorers.exceeded
        known = {id(task): of for task, of in validation}
        return [TaskPasses(task, known[id(task)], of) for task, of in test]

    def _head_methods(self, name: str) -> list[Method]:
        """What the set ``name`` of heads draws with."""
        heads, alone = self._source.heads[name], []
        if heads.has_temperature and heads.has_top_p:
            alone = self._kept(methods.TEMPERATURE_HEAD, methods.TOP_P_HEAD)
        return [replace(method, of=name) for method in (methods.AUTODECO, *alone)]

    def _derived(self, guided: Pass) -> list[Method]:
        """What is made of the values that heads predicted in the answers ``guided``."""
        made = [methods.mean_shift(*mean_of(guided)), *rivals.of_heads(guided.rows, self._settings.without)]
        return [replace(method, of=guided.method.of) for method in made]

    def _samples(self, method: Method) -> int:
        """How many answers to a problem ``method`` gives."""
        if method.is_greedy:
            return 1
        return self._settings.derived if method.from_heads else self._settings.samples

    def _vendor(self) -> list[Method]:
        found = None if "vendor" in self._settings.without else methods.vendor(self._llm)
        if found and (others := methods.not_measured(self._llm)):
            tqdm.write(f"vendor: its {', '.join(others)} is not measured, only temperature, top-p, top-k and min-p")
        return [found] if found else []

    def _kept(self, *optional: Method | None) -> list[Method]:
        left_out = [OPTIONAL.get(name) for name in self._settings.without]
        return [method for method in optional if method and method.name not in left_out]

    def _passes(
        self, split: str, asked: Sequence[tuple[Task, list[Method]]], stream: Stream, bar: tqdm
    ) -> list[tuple[Task, dict[str, Pass]]]:
        """The answers of all methods to each task of which they are whole, all asked together."""
        every = []
        for task, chosen in asked:
            logs = [MethodLog(method, self._path(task, split, method), self._samples(method)) for method in chosen]
            bar.update(sum(len(log.done) for log in logs))
            every.append(TaskAnswers(task, split, self._prompts_of(task, split), logs))
        stream.draw(every)
        return [
            (of_task.task, {log.method.title: log.result() for log in of_task.logs})
            for of_task in every
            if of_task.is_whole
        ]

    def _folders(self, tasks: list[Task], chosen: list[Method]) -> list[Path]:
        """Where the answers of ``chosen`` methods, and of what is made of them, are kept."""
        return sorted({self._path(task, "test", method).parent for task in tasks for method in chosen})

    def _path(self, task: Task, split: str, method: Method) -> Path:
        index = [described["name"] for described in self._description["tasks"]].index(task.spec.name)
        described = describe_answers(self._description, index, method.needs_heads, method.of)
        folder = claim(self._folder, described, f"{task.spec.name}-")
        return folder / f"{split}.{file_name(method)}.jsonl"


@contextlib.contextmanager
def _naming(task: Task, problem: dict[str, Any]):
    """Have an InputError name the problem that it is about."""
    try:
        yield
    except InputError as error:
        what = str(error).removeprefix("prompt 0: ")
        raise InputError(f"task {task.spec.name}, {place_of(problem)}{what}") from None


def mean_of(answers: Pass) -> tuple[float, float]:
    """The heads' mean temperature and top-p over all tokens of their answers."""

    def mean(values: Callable[[dict], list[float]]) -> float:
        tokens = sum(len(values(row)) for row in answers.rows)
        return sum(sum(values(row)) for row in answers.rows) / tokens

    return mean(lambda row: row["temperature"]), mean(lambda row: row["top_p"])

"""Asking the model: every method on every problem, each answer written as soon as it is complete."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_cpp
from tqdm import tqdm

from autodeco import batch
from autodeco.base.token_bytes import TokenBytes
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Answer
from autodeco.data.json_lines import place_of
from autodeco.data.scoring import Scorer
from autodeco.errors import InputError
from autodeco.evaluation import methods, rivals
from autodeco.evaluation.answer_logs import MethodLog, Pass, answer_row, file_name, key_of
from autodeco.evaluation.drawing import Asked, Here, Source
from autodeco.evaluation.folders import claim, describe_answers
from autodeco.evaluation.head_sets import ALONE
from autodeco.evaluation.methods import Method
from autodeco.evaluation.settings import OPTIONAL, Settings
from autodeco.evaluation.tasks import Task
from autodeco.runs.locks import locked_folder
from autodeco.settings.program import bar as progress_bar

SCORERS = max(1, min(8, (os.cpu_count() or 1) - 1))  # processes that score answers
SCORING = 256  # answers that may wait for their scores, lost if the program ends meanwhile


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
    a vocabulary. Several sets of heads have a source each, by name; the first draws what needs no heads.
    """

    def __init__(
        self,
        llm: llama_cpp.Llama,
        settings: Settings,
        folder: Path,
        description: dict[str, Any],
        source: Source | Mapping[str, Source] | None = None,
    ):
        self._llm = llm
        source = source or Here(llm, settings.slots)
        self._sources = source if isinstance(source, Mapping) else {ALONE: source}
        self._first = next(iter(self._sources))
        self._settings = settings
        self._folder = folder
        self._description = description
        self._scorer: Scorer | None = None
        self.given_up = 0  # answers whose scoring took too long or too much memory

    def check(self, tasks: list[Task]) -> None:
        """Raise InputError for a problem that the model cannot be asked."""
        tokenizer, settings = Tokenizer(self._llm), self._settings
        for task in tasks:
            for problem in task.validation + task.test:
                try:
                    prompt = tuple(tokenizer.prompt_ids(problem["prompt"], problem.get("tools")))
                    request = batch.Request(prompt, methods.GREEDY.sampling, settings.max_tokens, 0, settings.stop)
                    self._sources[self._first].check(request)
                except InputError as error:
                    what = str(error).removeprefix("prompt 0: ")
                    raise InputError(f"task {task.spec.name}, {place_of(problem)}{what}") from None

    def run(self, tasks: list[Task]) -> list[TaskPasses]:
        """Answer what is not answered yet, and return everything."""
        settings = self._settings
        grid = [methods.static(t, p) for t in settings.temperatures for p in settings.top_ps]
        static = list(dict.fromkeys([methods.GREEDY, *self._kept(methods.DEFAULT), *grid]))
        of_heads = [method for name in self._sources for method in self._head_methods(name)]
        guided = [method for method in of_heads if method.name == methods.AUTODECO.name]
        rules = rivals.by_hand(self._llm, settings.without)
        on_test = [*static, *self._vendor(), *rules, *of_heads]
        on_validation = [*static, *rules, *guided]

        def count(chosen: list[Method], problems: int) -> int:
            return problems * sum(self._samples(method) for method in chosen)

        total = count(on_validation, settings.validation) + count(on_test, settings.test)
        known_later = len(guided) * (1 + rivals.number_of_heads(settings.without))
        total += settings.test * settings.derived * known_later
        passes = []
        with progress_bar(total * len(tasks), 0, "answer", "eval") as bar:
            for task in tasks:
                with Scorer(task.checker, workers=SCORERS) as self._scorer:
                    validation = self._passes(task, "validation", on_validation, bar)
                    derived = [method for one in guided for method in self._derived(validation[one.title])]
                    # the methods of a set of heads follow each other
                    chosen = sorted([*on_test, *derived], key=lambda method: [ALONE, *self._sources].index(method.of))
                    passes.append(TaskPasses(task, validation, self._passes(task, "test", chosen, bar)))
                self.given_up += self._scorer.exceeded
        return passes

    def _head_methods(self, name: str) -> list[Method]:
        """What the set ``name`` of heads draws with."""
        heads = self._sources[name].heads
        if heads is None:
            return []
        alone = []
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

    def _passes(self, task: Task, split: str, chosen: list[Method], bar: tqdm) -> dict[str, Pass]:
        """The answers of all methods, asked together: they share what they begin with."""
        bar.set_description(f"{task.spec.name} {split}")
        paths = [self._path(task, split, method) for method in chosen]
        with contextlib.ExitStack() as stack:
            for folder in sorted({path.parent for path in paths}):  # no other run writes meanwhile
                stack.enter_context(locked_folder(folder))
            pairs = zip(chosen, paths, strict=True)
            logs = [MethodLog(method, path, self._samples(method)) for method, path in pairs]
            bar.update(sum(len(log.done) for log in logs))
            problems: list[dict] = getattr(task, split)
            for cut in (False, True):  # only answers that nothing but T and P cuts can share beginnings
                asked = [log for log in logs if log.method.is_cut == cut]
                self._ask(task, problems, asked, cut, split == "validation", bar)
        return {log.method.title: log.result() for log in logs}

    def _drawn_by(self, method: Method) -> str:
        """The name of the source that draws for ``method``."""
        return method.of if method.sampling.heads != "none" else self._first

    def _path(self, task: Task, split: str, method: Method) -> Path:
        index = [described["name"] for described in self._description["tasks"]].index(task.spec.name)
        described = describe_answers(self._description, index, method.needs_heads, method.of)
        folder = claim(self._folder, described, f"{task.spec.name}-")
        return folder / f"{split}.{file_name(method)}.jsonl"

    def _prompts(self, problems: list[dict]) -> list[list[int]]:
        tokenizer = Tokenizer(self._llm)
        return [tokenizer.prompt_ids(problem["prompt"], problem.get("tools")) for problem in problems]

    def _requests(self, prompts: list[list[int]], method: Method) -> list[batch.Request]:
        settings, n = self._settings, self._samples(method)
        return batch.requests(self._llm, prompts, n, method.sampling, settings.max_tokens, settings.stop, settings.seed)

    def _ask(
        self, task: Task, problems: list[dict], logs: list[MethodLog], cut: bool, chooses: bool, bar: tqdm
    ) -> None:
        """Answer what ``logs`` lack, all methods of a problem together; they share the time by their tokens.

        Where answers ``chooses`` something, those of AutoDeco know the distributions they were drawn from."""
        samples = self._settings.samples
        wanted: dict[str, list[batch.Request]] = {name: [] for name in self._sources}
        noted = dict.fromkeys(wanted, range(0))
        prompts = self._prompts(problems) if logs else []
        for i, log in enumerate(logs):
            requests = self._requests(prompts, log.method)
            name = self._drawn_by(log.method)
            # which of the methods it is goes with the sample
            wanted[name] += [replace(r, sample=i * samples + r.sample) for r in requests if key_of(r) not in log.done]
            if chooses and log.method.name == methods.AUTODECO.name:
                noted[name] = range(i * samples, (i + 1) * samples)
        asked = [
            Asked(self._sources[name], sorted(some, key=lambda request: request.index), cut, noted[name])
            for name, some in wanted.items()
            if some
        ]
        if not asked:
            return
        pieces = TokenBytes(self._llm.model, special=True)
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            for log in logs:
                stack.enter_context(log)
            answers = stack.enter_context(contextlib.closing(self._sources[self._first].draw(asked)))
            # the model goes on meanwhile
            scoring: deque[tuple[Answer, dict[str, list[float]], Future]] = deque()

            def write(waiting: int) -> None:
                """Write what is scored, in order; wait for it while more than ``waiting`` are not."""
                while scoring and (len(scoring) > waiting or scoring[0][-1].done()):
                    one, spreads, score = scoring.popleft()
                    method, sample = divmod(one.sample, samples)
                    right = task.was_right(score, self._scorer)
                    row = answer_row(replace(one, sample=sample), right, pieces, logs[method].method)
                    logs[method].add(row | spreads)
                    bar.update()

            try:
                for one, spreads in answers:
                    score = task.start(problems[one.prompt], one.text, one.finished, self._scorer)
                    scoring.append((one, spreads, score))
                    write(SCORING)
                write(0)
            finally:
                seconds, tokens = time.perf_counter() - start, sum(log.new_tokens for log in logs)
                for log in logs:
                    log.add_seconds(seconds * log.new_tokens / max(1, tokens))


def mean_of(answers: Pass) -> tuple[float, float]:
    """The heads' mean temperature and top-p over all tokens of their answers."""

    def mean(values: Callable[[dict], list[float]]) -> float:
        tokens = sum(len(values(row)) for row in answers.rows)
        return sum(sum(values(row)) for row in answers.rows) / tokens

    return mean(lambda row: row["temperature"]), mean(lambda row: row["top_p"])

"""Asking the model: every method on every problem, each answer kept as soon as it is there."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from tqdm import tqdm

from autodeco import batch, shared_batch
from autodeco.answers import Answer
from autodeco.errors import InputError
from autodeco.evaluation import methods
from autodeco.evaluation.methods import Method
from autodeco.evaluation.settings import Settings, claim, describe_answers
from autodeco.evaluation.tasks import Task
from autodeco.llama import Llama


@dataclass(frozen=True)
class Pass:
    """The answers of one method to the problems of one split of one task, ``rows`` in order of problem and sample, and
    the seconds they took."""

    method: Method
    rows: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class TaskPasses:
    """All passes over one task, by method name."""

    task: Task
    validation: dict[str, Pass]
    test: dict[str, Pass]


class Runner:
    """Asks ``llm`` and keeps the answers in ``folder``, where an interrupted run finds them again.

    ``description`` is that of the run; answers lie in a folder for each part of it that decides them, so that another
    run of which the same is true finds them too.
    """

    def __init__(self, llm: Llama, settings: Settings, folder: Path, description: dict[str, Any]):
        self._llm = llm
        self._heads = llm._heads
        self._settings = settings
        self._folder = folder
        self._description = description

    def check(self, tasks: list[Task]) -> None:
        """Raise InputError for a problem that the model cannot be asked."""
        for task in tasks:
            for split in ("validation", "test"):
                requests = self._requests(task, getattr(task, split), 1, methods.GREEDY)
                try:
                    batch.check(requests, self._llm, None)
                except InputError as error:
                    raise InputError(f"task {task.spec.name}, {split}, {error}") from None

    def run(self, tasks: list[Task]) -> list[TaskPasses]:
        """Answer what is not answered yet, and return everything."""
        settings = self._settings
        grid = [methods.static(t, p) for t in settings.temperatures for p in settings.top_ps]
        static = list(dict.fromkeys([methods.GREEDY, *self._kept(methods.DEFAULT), *grid]))
        of_heads = self._head_methods()
        on_test = [*static, *self._kept(methods.vendor(self._llm)), *of_heads]
        on_validation = [*static, *of_heads[:1]]

        def count(chosen: list[Method], problems: int) -> int:
            return problems * sum(1 if method.is_greedy else settings.samples for method in chosen)

        total = count(on_validation, settings.validation) + count(on_test, settings.test)
        total += settings.test * settings.samples if of_heads else 0  # mean shift
        passes = []
        with tqdm(total=total * len(tasks), unit="answer", smoothing=0.05, disable=None) as bar:
            for task in tasks:
                validation = {m.name: self._pass(task, "validation", m, bar) for m in on_validation}
                chosen = list(on_test)
                if of_heads:
                    chosen.append(methods.mean_shift(*mean_of(validation[methods.AUTODECO.name])))
                test = {m.name: self._pass(task, "test", m, bar) for m in chosen}
                passes.append(TaskPasses(task, validation, test))
        return passes

    def _head_methods(self) -> list[Method]:
        if self._heads is None:
            return []
        alone = []
        if self._heads.has_temperature and self._heads.has_top_p:
            alone = self._kept(methods.TEMPERATURE_HEAD, methods.TOP_P_HEAD)
        return [methods.AUTODECO, *alone]

    def _kept(self, *optional: Method | None) -> list[Method]:
        left_out = [methods.OPTIONAL[name] for name in self._settings.without]
        return [method for method in optional if method and method.name not in left_out]

    def _pass(self, task: Task, split: str, method: Method, bar: tqdm) -> Pass:
        problems: list[dict] = getattr(task, split)
        samples = 1 if method.is_greedy else self._settings.samples
        bar.set_description(f"{task.spec.name} {split}, {method.name}")
        with self._log(task, split, method) as log:
            done, seconds = _read(log)
            bar.update(len(done))
            requests = self._requests(task, problems, samples, method)
            wanted = [request for request in requests if _key(request) not in done]
            if wanted:
                seconds += self._answer(wanted, task, problems, log, done, bar)
        return Pass(method, [done[key] for key in sorted(done)], seconds)

    @contextlib.contextmanager
    def _log(self, task: Task, split: str, method: Method) -> Iterator[Path]:
        """The file of a method's answers, which no other run writes meanwhile."""
        index = [described["name"] for described in self._description["tasks"]].index(task.spec.name)
        needs_heads = not method.is_static or method.name == methods.MEAN_SHIFT
        described = describe_answers(self._description, index, needs_heads)
        folder = claim(self._folder, described, f"{task.spec.name}-")
        with filelock.FileLock(folder / ".lock"):
            yield folder / f"{split}.{method.name.replace(' ', '-').replace(',', '')}.jsonl"

    def _requests(self, task: Task, problems: list[dict], samples: int, method: Method) -> list[batch.Request]:
        prompts = [problem["prompt"] for problem in problems]
        settings = self._settings
        try:
            return batch.requests(
                self._llm, prompts, samples, method.sampling, settings.max_tokens, settings.stop, settings.seed
            )
        except InputError as error:
            raise InputError(f"task {task.spec.name}: {error}") from None

    def _answer(self, wanted, task: Task, problems: list[dict], log: Path, done: dict, bar: tqdm) -> float:
        start = time.perf_counter()
        with log.open("a", encoding="utf-8", buffering=1) as file:  # each line at once
            cuts = wanted[0].sampling.top_k or wanted[0].sampling.min_p
            answer = batch.answer if cuts else shared_batch.answer
            answers = answer(self._llm, wanted, self._heads, self._settings.slots)
            try:
                for one in answers:
                    right = task.is_right(problems[one.prompt], one.text, one.finished)
                    row = _row(one, right, self._llm if wanted[0].sampling.heads != "none" else None)
                    done[_key(row)] = row
                    file.write(json.dumps(row) + "\n")
                    bar.update()
            finally:
                answers.close()
                # as a run that reads them back finds them: its report is the same to the byte
                seconds = round(time.perf_counter() - start, 3)
                file.write(json.dumps({"seconds": seconds}) + "\n")
        return seconds


def _key(of: dict | batch.Request) -> tuple[int, int]:
    return (of["problem"], of["sample"]) if isinstance(of, dict) else (of.index, of.sample)


def _row(answer: Answer, right: bool, llm: Llama | None) -> dict[str, Any]:
    """An answer, JSON-ready; with ``llm``, what the heads picked for each piece of its text too."""
    decoding = answer.decoding
    row = {
        "problem": answer.prompt,
        "sample": answer.sample,
        "right": right,
        "finish": answer.finish,
        "text": answer.text,
        "tokens": len(decoding),
    }
    if llm is not None:
        row["pieces"] = [
            llm.detokenize([token], special=True).decode("utf-8", "replace") for token in decoding.token.tolist()
        ]
        row["temperature"] = [round(value, 4) for value in decoding.temperature.tolist()]
        row["top_p"] = [round(value, 4) for value in decoding.top_p.tolist()]
    return row


def _read(log: Path) -> tuple[dict[tuple[int, int], dict], float]:
    """The answers of a log and the seconds they took; a last line that an interruption cut short is taken off."""
    if not log.exists():
        return {}, 0.0
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        log.write_bytes(whole)
    done, seconds = {}, 0.0
    for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if "seconds" in row:
                seconds += row["seconds"]
            else:
                done[_key(row)] = row
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{log}, line {number}: is damaged; remove the file to ask again") from None
    return done, seconds


def mean_of(answers: Pass) -> tuple[float, float]:
    """The heads' mean temperature and top-p over all tokens of their answers."""

    def mean(values: Callable[[dict], list[float]]) -> float:
        tokens = sum(len(values(row)) for row in answers.rows)
        return sum(sum(values(row)) for row in answers.rows) / tokens

    return mean(lambda row: row["temperature"]), mean(lambda row: row["top_p"])

"""One stream of answers to many tasks: each is written as soon as it is complete and scored.

A row of a batch that has ended makes room for the next answer, of whatever task. So no batch stands half empty while
the longest answers to one task end, but for the last ones of all.
"""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from autodeco import batch
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch import Answer, Request
from autodeco.data.scoring import Scorer
from autodeco.evaluation import methods
from autodeco.evaluation.answer_logs import MethodLog, answer_row
from autodeco.evaluation.drawing import Asked, Source
from autodeco.evaluation.settings import Settings
from autodeco.evaluation.tasks import Task

SCORERS = max(1, min(8, (os.cpu_count() or 1) - 1))  # processes that score answers
SCORING = 256  # answers that may wait for their scores, lost if the program ends meanwhile
OPEN_LOGS = 64  # at a time: systems let a program open some hundred files


@dataclass(eq=False)
class TaskAnswers:
    """The answers to the problems of one split of a task, a log for each method; ``prompts`` are the problems'."""

    task: Task
    split: str
    prompts: list[tuple[int, ...]]
    logs: list[MethodLog]
    missing: int = field(default=0, init=False)  # answers that are still to be drawn

    @property
    def is_whole(self) -> bool:
        """Whether every method has every answer."""
        return all(len(log.done) == len(self.prompts) * log.samples for log in self.logs)


class Scorers:
    """A scorer for each checker, made when it is first asked for; a context that ends them."""

    def __init__(self) -> None:
        self._made: dict[str, Scorer] = {}

    def __enter__(self) -> "Scorers":
        return self

    def __exit__(self, *_) -> None:
        for scorer in self._made.values():
            scorer.close()

    def __getitem__(self, checker: str) -> Scorer:
        if checker not in self._made:
            self._made[checker] = Scorer(checker, workers=SCORERS)
        return self._made[checker]

    @property
    def exceeded(self) -> int:
        """How many answers were given up."""
        return sum(scorer.exceeded for scorer in self._made.values())


class OpenLogs:
    """The logs that were written to last are open; a context that closes them."""

    def __init__(self) -> None:
        self._open: dict[MethodLog, None] = {}  # in the order of their last use

    def __enter__(self) -> "OpenLogs":
        return self

    def __exit__(self, *error) -> None:
        for log in self._open:
            log.__exit__(*error)
        self._open.clear()

    def __call__(self, log: MethodLog) -> MethodLog:
        """``log``, open."""
        if log in self._open:
            del self._open[log]
        else:
            if len(self._open) >= OPEN_LOGS:
                longest = next(iter(self._open))
                del self._open[longest]
                longest.__exit__(None, None, None)
            log.__enter__()
        self._open[log] = None
        return log


class Clock:
    """Shares the time among the logs whose answers come, by their tokens."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._tokens: Counter[MethodLog] = Counter()
        self._seconds: Counter[MethodLog] = Counter()

    def count(self, log: MethodLog, tokens: int) -> None:
        """Note the tokens of an answer."""
        self._tokens[log] += tokens

    def taken(self, logs: Sequence[MethodLog] | None = None) -> Iterator[tuple[MethodLog, float]]:
        """Yield the seconds of those of ``logs`` (of all) that have had answers since they were last asked for."""
        now, tokens = time.perf_counter(), self._tokens.total()
        if tokens:
            for log, number in self._tokens.items():
                self._seconds[log] += (now - self._since) * number / tokens
            self._since, self._tokens = now, Counter()
        for log in list(self._seconds) if logs is None else logs:
            if log in self._seconds:
                yield log, self._seconds.pop(log)


class Stream:
    """Draws answers from ``source`` and writes them, until the moment ``until`` of time.monotonic, if there is one;
    ``pieces`` are the vocabulary's, and ``bar`` counts the answers."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        scorers: Scorers,
        pieces: TokenBytes,
        bar: tqdm,
        until: float | None = None,
    ):
        self._source, self._settings, self._scorers = source, settings, scorers
        self._pieces, self._bar, self._until = pieces, bar, until
        self._seeds: dict[tuple[int, int], int] = {}

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._until is not None and time.monotonic() >= self._until

    def draw(self, every: Sequence[TaskAnswers]) -> None:
        """Draw what ``every`` task's logs lack, of all methods of a problem together.

        Answers of heads to validation problems, which choose something, know the distributions they were drawn from."""
        if self.is_over:
            return
        noted = {
            i * self._settings.samples + sample
            for of_task in every
            if of_task.split == "validation"
            for i, log in enumerate(of_task.logs)
            if log.method.name == methods.AUTODECO.name
            for sample in range(log.samples)
        }
        # those that more than T and P cuts cannot share beginnings; first, so that tasks get whole one after the other
        asked = [Asked(self._requests(every, cut), cut, noted) for cut in (True, False)]
        if asked := [one for one in asked if one.wanted]:
            _Writing(self, every).run(asked)

    def _requests(self, every: Sequence[TaskAnswers], cut: bool) -> list[Request]:
        """What is missing: ``index`` counts the problems of all tasks, and ``sample`` the answers of all methods."""
        found, settings, first = [], self._settings, 0
        for of_task in every:
            logs = [(i, log) for i, log in enumerate(of_task.logs) if log.method.is_cut == cut]
            for number, prompt in enumerate(of_task.prompts):
                for i, log in logs:
                    sampling = log.method.sampling
                    of = log.method.of if sampling.heads != "none" else ""
                    for sample in range(log.samples):
                        if (number, sample) not in log.done:
                            found.append(
                                Request(
                                    prompt,
                                    sampling,
                                    settings.max_tokens,
                                    self._seed(number, sample),
                                    settings.stop,
                                    first + number,
                                    i * settings.samples + sample,
                                    of,
                                )
                            )
                            of_task.missing += 1
            first += len(of_task.prompts)
        return found

    def _seed(self, number: int, sample: int) -> int:
        """The seed of an answer, the same for all methods."""
        if (number, sample) not in self._seeds:
            self._seeds[number, sample] = batch.seed_of(self._settings.seed, number, sample)
        return self._seeds[number, sample]


class _Writing:
    """The answers of one stream on their way into the logs of ``every`` task."""

    def __init__(self, stream: Stream, every: Sequence[TaskAnswers]):
        self._stream, self._every = stream, every
        self._places = [(of_task, i) for of_task in every for i in range(len(of_task.prompts))]
        self._scoring: deque[tuple[Answer, dict[str, list[float]], Future]] = deque()
        self._clock = Clock()

    def run(self, asked: Sequence[Asked]) -> None:
        """Write what is drawn."""
        stream = self._stream
        self._name()
        with OpenLogs() as self._opened, contextlib.closing(stream._source.draw(asked)) as answers:
            try:
                for one, spreads in answers:
                    of_task, number = self._places[one.prompt]
                    problem = getattr(of_task.task, of_task.split)[number]
                    scorer = stream._scorers[of_task.task.checker]
                    # the model goes on meanwhile
                    score = of_task.task.start(problem, one.text, one.finished, scorer)
                    self._scoring.append((one, spreads, score))
                    self._write(SCORING)
                    if stream.is_over:
                        break
                self._write(0)
            finally:
                self._note_seconds()

    def _write(self, waiting: int) -> None:
        """Write what is scored, in order; wait for it while more than ``waiting`` are not."""
        while self._scoring and (len(self._scoring) > waiting or self._scoring[0][-1].done()):
            one, spreads, score = self._scoring.popleft()
            of_task, number = self._places[one.prompt]
            method, sample = divmod(one.sample, self._stream._settings.samples)
            log = of_task.logs[method]
            right = of_task.task.was_right(score, self._stream._scorers[of_task.task.checker])
            row = answer_row(replace(one, prompt=number, sample=sample), right, self._stream._pieces, log.method)
            self._opened(log).add(row | spreads)
            self._clock.count(log, row["tokens"])
            self._stream._bar.update()
            of_task.missing -= 1
            if not of_task.missing:
                self._note_seconds(of_task.logs)
                self._name()

    def _note_seconds(self, logs: Sequence[MethodLog] | None = None) -> None:
        for log, seconds in self._clock.taken(logs):
            self._opened(log).add_seconds(seconds)

    def _name(self) -> None:
        """Have the bar name the first task that is not whole."""
        for of_task in self._every:
            if of_task.missing:
                self._stream._bar.set_description(f"{of_task.task.spec.name} {of_task.split}")
                return

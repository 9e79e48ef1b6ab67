"""Where the answers of an evaluation are drawn: by the model here, by processes that each have it, or at servers.

Each gives an answer with what is noted of its distributions (``spreads``), JSON-ready. Several sets of heads are as
many sources, which share the model.
"""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp

from autodeco import batch, native
from autodeco.base.opening import open_vocabulary
from autodeco.batch import Answer, Request, shared
from autodeco.batch.request import check_requests
from autodeco.errors import InputError
from autodeco.evaluation.spreads import Spreads
from autodeco.runs.workers import Run, Workers

if TYPE_CHECKING:
    from autodeco.servers.drawing import Servers

PART = 2000  # answers that are drawn together: enough to keep slots busy, and few enough for processes to end together

Drawn = tuple[Answer, dict[str, list[float]]]


@dataclass(frozen=True)
class Asked:
    """Answers that one source is to draw, those to a prompt behind each other; ``cut`` says that more than temperature
    and top-p cuts their distributions. Those of samples ``noted`` come with their spreads."""

    source: "Source"
    wanted: list[Request]
    cut: bool
    noted: range


class Source(ABC):
    """Draws answers, with ``heads``, if any, to prompts in the vocabulary of ``llm``."""

    def __init__(self, llm: llama_cpp.Llama, heads: native.Heads | None):
        self.llm, self.heads = llm, heads

    @abstractmethod
    def beside(self, heads: Path) -> "Source":
        """Return what draws with other ``heads`` and the same model; raises InputError for those that do not fit."""

    def check(self, request: Request) -> None:
        """Raise InputError for what cannot be asked."""
        check_requests([request], self.llm, None)

    @abstractmethod
    def answer(self, wanted: list[Request], cut: bool, noted: range) -> Iterator[Drawn]:
        """Yield answers to ``wanted``, as Asked has it, as they finish."""

    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        """Yield what is asked of this source and of those beside it."""
        for one in asked:
            with contextlib.closing(one.source.answer(one.wanted, one.cut, one.noted)) as answers:
                yield from answers


class Here(Source):
    """Draws in this process, with the heads of ``llm`` as they are now, in ``slots`` sequences."""

    def __init__(self, llm: llama_cpp.Llama, slots: int):
        super().__init__(llm, llm._heads)
        self._slots = slots

    def beside(self, heads: Path) -> "Here":
        before = self.llm.heads
        self.llm.heads = heads  # which checks that they fit
        other = Here(self.llm, self._slots)
        self.llm._use(self.heads, before)
        return other

    def answer(self, wanted: list[Request], cut: bool, noted: range) -> Iterator[Drawn]:
        for part in parts(wanted):
            yield from self.answer_part(part, cut, noted)

    def answer_part(self, part: list[Request], cut: bool, noted: range) -> Iterator[Drawn]:
        """``answer`` for what is drawn together."""
        spreads, given = Spreads(noted), (self.llm, part, self.heads)
        if cut:  # of one context, which has no more sequences
            drawn = batch.answer(*given, min(self._slots, llama_cpp.llama_max_parallel_sequences()))
        else:
            drawn = shared.answer(*given, self._slots, spreads.note)
        with contextlib.closing(drawn) as answers:
            for one in answers:
                yield one, spreads.take(one)


class InProcesses(Source):
    """Draws in ``workers``, which ``begin`` with the model in ``model``; their number changes no answer."""

    def __init__(self, model: Path, heads: Path | None, context: int, workers: Workers):
        super().__init__(open_vocabulary(model, n_ctx=context), native.load_heads(heads) if heads else None)
        self._workers = workers
        self._which: Path | None = None  # the heads, where they are not those that workers begin with

    def beside(self, heads: Path) -> "InProcesses":
        other = copy.copy(self)
        other.heads, other._which = native.load_heads(heads), heads
        return other

    def answer(self, wanted: list[Request], cut: bool, noted: range) -> Iterator[Drawn]:
        return self.draw([Asked(self, wanted, cut, noted)])

    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        # at once, so that no process waits for the end of one set of heads
        jobs = ((part, one.cut, one.noted, one.source._which) for one in asked for part in parts(one.wanted))
        with contextlib.closing(self._workers.results(jobs)) as results:
            yield from results


def begin(model: Path, heads: Path | None, slots: int, opening: dict[str, Any], others: Sequence[Path] = ()) -> Run:
    """Open the model in a process, and return what draws with it, with ``heads`` or with one of ``others``."""
    from autodeco.llama.opening import open_llama

    first = Here(open_llama(model, heads, **opening), slots)
    sources: dict[Path | None, Here] = {None: first, **{other: first.beside(other) for other in others}}

    def answer_part(part: list[Request], cut: bool, noted: range, which: Path | None) -> Iterator[Drawn]:
        return sources[which].answer_part(part, cut, noted)

    return answer_part


class AtServers(Source):
    """Draws at ``servers``, which have ``heads``, and tell nothing of distributions."""

    def __init__(self, servers: "Servers", llm: llama_cpp.Llama, heads: native.Heads | None):
        super().__init__(llm, heads)
        self._servers = servers

    def beside(self, heads: Path) -> Source:
        raise InputError(f"{heads}: servers draw with the heads that they were started with; give one set")

    def check(self, request: Request) -> None:
        self._servers.check([request])

    def answer(self, wanted: list[Request], cut: bool, noted: range) -> Iterator[Drawn]:
        with contextlib.closing(self._servers.answer(wanted)) as answers:
            for one in answers:
                yield one, {}


def parts(wanted: list[Request]) -> Iterator[list[Request]]:
    """``wanted`` in parts that are drawn together, each of whole prompts: the same wherever they are drawn."""
    part: list[Request] = []
    for _, of_prompt in groupby(wanted, key=lambda request: request.index):
        part += of_prompt
        if len(part) >= PART:
            yield part
            part = []
    if part:
        yield part

"""Where the answers of an evaluation are drawn: by the model here, by processes that each have it, or at servers.

Each gives an answer with what is noted of its distributions (``spreads``), JSON-ready. Several sets of heads share the
model, and the beginnings of their answers.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp

from autodeco import batch, native
from autodeco.base.opening import open_vocabulary
from autodeco.batch import Answer, Request, shared
from autodeco.batch.request import check_requests
from autodeco.evaluation.head_sets import ALONE, Sets
from autodeco.evaluation.spreads import Spreads
from autodeco.runs.workers import Run, Workers

if TYPE_CHECKING:
    from autodeco.servers.drawing import Servers

Drawn = tuple[Answer, dict[str, list[float]]]


@dataclass(frozen=True)
class Asked:
    """Answers to draw in one stream, those to a prompt behind each other; ``cut`` says that more than temperature and
    top-p cuts their distributions. Those of samples ``noted`` come with their spreads."""

    wanted: list[Request]
    cut: bool
    noted: Container[int]


class Source(ABC):
    """Draws answers, with sets of ``heads``, if any, by name, to prompts in the vocabulary of ``llm``."""

    def __init__(self, llm: llama_cpp.Llama, heads: Mapping[str, native.Heads]):
        self.llm, self.heads = llm, heads

    def check(self, request: Request) -> None:
        """Raise InputError for what cannot be asked."""
        check_requests([request], self.llm, None)

    @abstractmethod
    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        """Yield the answers that are asked for as they finish."""


class Here(Source):
    """Draws in this process, in ``slots`` sequences, with the heads that ``llm`` has now and those of ``others``.

    Raises InputError for others that do not fit."""

    def __init__(self, llm: llama_cpp.Llama, slots: int, first: str = ALONE, others: Sets | None = None):
        own, before = llm._heads, getattr(llm, "heads", None)
        heads = {} if own is None else {first: own}
        for name, file in (others or {}).items():
            llm.heads = file  # which checks that they fit
            heads[name] = llm._heads
        if others:
            llm._use(own, before)
        super().__init__(llm, heads)
        self._slots = slots

    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        for one in asked:
            yield from self.answer(one)

    def answer(self, asked: Asked) -> Iterator[Drawn]:
        """Yield the answers of one stream."""
        spreads, llm, wanted = Spreads(asked.noted), self.llm, asked.wanted
        if asked.cut:  # of one context, which has no more sequences, and without heads
            drawn = batch.answer(llm, wanted, None, min(self._slots, llama_cpp.llama_max_parallel_sequences()))
        else:
            drawn = shared.answer(llm, wanted, self.heads, self._slots, spreads.note)
        with contextlib.closing(drawn) as answers:
            for one in answers:
                yield one, spreads.take(one)


class InProcesses(Source):
    """Draws with ``sets`` of heads in ``workers``, which ``begin`` with the model in ``model``.

    Their number changes no seed, but like that of slots it changes which answers share a batch."""

    def __init__(self, model: Path, sets: Sets, context: int, workers: Workers):
        heads = {name: native.load_heads(file) for name, file in sets.items()}
        super().__init__(open_vocabulary(model, n_ctx=context), heads)
        self._workers = workers

    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        jobs = [
            (Asked(share, one.cut, one.noted),) for one in asked for share in shares(one.wanted, self._workers.number)
        ]
        with contextlib.closing(self._workers.results(jobs)) as results:
            yield from results


def begin(model: Path, sets: Sets, slots: int, opening: dict[str, Any]) -> Run:
    """Open the model in a process, and return what draws with it and with ``sets`` of heads."""
    from autodeco.llama.opening import open_llama

    first, *others = sets or [ALONE]
    llm = open_llama(model, sets.get(first), **opening)
    return Here(llm, slots, first, {name: sets[name] for name in others}).answer


class AtServers(Source):
    """Draws at ``servers``, which have ``heads``, and tell nothing of distributions."""

    def __init__(self, servers: "Servers", llm: llama_cpp.Llama, heads: native.Heads | None):
        super().__init__(llm, {} if heads is None else {ALONE: heads})
        self._servers = servers

    def check(self, request: Request) -> None:
        self._servers.check([request])

    def draw(self, asked: Sequence[Asked]) -> Iterator[Drawn]:
        for one in asked:
            with contextlib.closing(self._servers.answer(one.wanted)) as answers:
                for answer in answers:
                    yield answer, {}


def shares(wanted: Sequence[Request], number: int) -> list[list[Request]]:
    """Deal ``wanted``, prompt by prompt, into up to ``number`` shares in the same order, none of them empty.

    Each has about as many problems of every task, so that all end at about the same time."""
    dealt: list[list[Request]] = [[] for _ in range(number)]
    for turn, (_, of_prompt) in enumerate(groupby(wanted, key=lambda request: request.index)):
        dealt[turn % number] += of_prompt
    return [share for share in dealt if share]

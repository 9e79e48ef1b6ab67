"""Many answers to the same prompts for less: every common prefix of answers is computed once.

At low temperatures most answers to a problem share prefixes. The model computes each prefix once for all of them, and
each answer samples its next token from that distribution with random numbers of its own. Heads and sampling are those
of the graph, but run outside it, on all threads. On a GPU, two contexts take turns: one computes while threads draw
from what the other has computed.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, groupby
from typing import NamedTuple

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.answers import Answer
from autodeco.batch.context import Slot
from autodeco.batch.request import Request, check_open, check_requests
from autodeco.batch.shared_context import StateContext
from autodeco.batch.shared_draws import Drawn, Draws, draw_rows
from autodeco.errors import InputError
from autodeco.settings.options import checked

# Called with every state that tokens are sampled from: the prompt's index, which of its answers draw from it, hidden
# state [1, H] and logits [1, V], valid until it returns.
Seen = Callable[[int, list[int], np.ndarray, np.ndarray], None]

LEAST_SLOTS = 32  # of each of two contexts that take turns: smaller batches waste more of a GPU than turns gain
PARTS = 2  # of a step's rows for each thread, so that none waits long for one with much work


def answer(
    llm: llama_cpp.Llama,
    wanted: Sequence[Request],
    heads: native.Heads | Mapping[str, native.Heads] | None,
    slots: int,
    seen: Seen | None = None,
    contexts: int | None = None,
) -> Iterator[Answer]:
    """Yield an answer to each request as it finishes, from ``slots`` sequences at a time; requests of one prompt should
    follow each other. ``heads`` are those of all, or several sets by the names that requests are ``of``.

    The ``decoding`` of these answers knows no nucleus (0) and no probability (NaN). The slots are of ``contexts`` that
    take turns: two where the model runs on a GPU and prompts and slots are many, more where the slots are more than
    llama.cpp has sequences for. Draws run on ``llm.n_threads_batch`` threads. Raises InputError as
    ``autodeco.batch.answer``, and for a top-k or min-p, which only that one has.
    """
    wanted = list(wanted)
    checked("slots", slots, int, 1)
    if contexts is not None:
        checked("contexts", contexts, int, 1, slots)
    sets = heads if isinstance(heads, Mapping) else {} if heads is None else dict.fromkeys(_names(wanted), heads)
    for name in _names(wanted):
        check_requests([request for request in wanted if request.of == name], llm, sets.get(name))
    if any(request.sampling.top_k or request.sampling.min_p for request in wanted):
        raise InputError("answers with a top-k or min-p cannot share what they begin with")
    return _answers(llm, wanted, sets, min(slots, len(wanted)), seen, contexts)


def _names(wanted: Sequence[Request]) -> list[str]:
    """The sets of heads that ``wanted`` are of."""
    return list(dict.fromkeys(request.of for request in wanted))


def _answers(
    llm: llama_cpp.Llama,
    wanted: list[Request],
    heads: Mapping[str, native.Heads],
    slots: int,
    seen: Seen | None,
    contexts: int | None,
) -> Iterator[Answer]:
    if not wanted:
        return
    check_open(llm)  # which may have been closed, or this process forked, since the requests were checked
    # one object for equal prompts, by which slots know what they hold
    queue = deque(
        [replace(request, prompt=prompt) for request in group]
        for prompt, group in groupby(wanted, key=lambda request: request.prompt)
    )
    most = llama_cpp.llama_max_parallel_sequences()
    if contexts is None:
        contexts = max(-(-slots // most), 2 if _is_on_gpu(llm) and slots >= 2 * LEAST_SLOTS else 1)
    contexts = min(contexts, len(queue), slots)
    slots = min(slots, contexts * most)
    lengths = sorted((len(request.prompt) + request.max_tokens for request in wanted), reverse=True)
    with contextlib.ExitStack() as stack:
        if not llm.verbose:
            stack.enter_context(native.warnings_only())
        lanes = []
        for i in range(contexts):
            own = slots * (i + 1) // contexts - slots * i // contexts
            context = StateContext(llm, own, sum(lengths[:own]), lengths[0])
            stack.callback(context.close)
            lanes.append(_Lane(context, queue, TokenBytes(llm.model, special=True)))
        pool = stack.enter_context(ThreadPoolExecutor(llm.n_threads_batch, "draws"))
        parts = PARTS * llm.n_threads_batch
        while queue or any(lane.is_busy for lane in lanes):
            for lane in lanes:
                ended = lane.end_step(seen)
                lane.begin_step(heads, pool, parts)
                yield from ended


def _is_on_gpu(llm: llama_cpp.Llama) -> bool:
    return llama_cpp.llama_supports_gpu_offload() and llm.model_params.n_gpu_layers != 0


class _Step(NamedTuple):
    """What a context has computed, and the draws from it that are under way."""

    slots: list[Slot]
    hidden: np.ndarray
    logits: Future[np.ndarray]
    drawn: list[Future[list[Drawn]]]


def _draw_part(
    groups: list[list[Draws]],
    hidden: np.ndarray,
    logits: Future[np.ndarray],
    part: slice,
    heads: Mapping[str, native.Heads],
) -> list[Drawn]:
    return draw_rows(groups[part], hidden[part], logits.result()[part], heads)


class _Lane:
    """The answers that are made in one context; ``queue`` holds those that are not begun, by prompt."""

    def __init__(self, context: StateContext, queue: deque[list[Request]], token_bytes: TokenBytes):
        self._context, self._queue, self._token_bytes = context, queue, token_bytes
        self._active: dict[Slot, list[Draws]] = {}  # the answers of a slot have all their tokens in common
        self._waiting: list[list[Draws]] = []  # branches for which there was no slot
        self._step: _Step | None = None
        # as if as many answers as there are slots had ended, each in one of its own
        self._ended = self._endings = len(context.slots)

    @property
    def is_busy(self) -> bool:
        return bool(self._active or self._waiting)

    def begin_step(self, heads: Mapping[str, native.Heads], pool: ThreadPoolExecutor, parts: int) -> None:
        """Compute the next states of the active slots, and let ``pool`` draw from them in ``parts``."""
        self._admit()
        if not self._active:
            return
        self._active = self._context.gathered(self._active)
        slots, groups = list(self._active), list(self._active.values())
        hidden = self._context.states(slots, [group[0].last for group in groups])
        # in another thread: logits are copied from a GPU while the next context computes
        logits = pool.submit(self._context.logits, len(slots))
        drawn = []
        self._context.readers = [logits]
        size = -(-len(slots) // parts)
        for part in (slice(i, i + size) for i in range(0, len(slots), size)):
            drawn.append(pool.submit(_draw_part, groups, hidden, logits, part, heads))
            self._context.readers.append(drawn[-1])
        self._step = _Step(slots, hidden, logits, drawn)

    def end_step(self, seen: Seen | None) -> list[Answer]:
        """Add what was drawn to the answers, and return those that are complete."""
        if not self._step:
            return []
        step, self._step = self._step, None
        rows = chain.from_iterable(part.result() for part in step.drawn)
        answers = []
        for index, slot in enumerate(step.slots):
            group, branches, endings = self._active.pop(slot), {}, set()
            if seen:
                self._show(seen, group, step, slice(index, index + 1))
            for drawing in group:
                row = next(rows)
                if finish := drawing.add(row):
                    answers.append(drawing.answer(finish))
                    endings.add(row[0])
                else:
                    branches.setdefault(row[0], []).append(drawing)
            self._endings += len(endings)
            self._branch(slot, list(branches.values()))
        self._ended += len(answers)
        return answers

    @staticmethod
    def _show(seen: Seen, group: list[Draws], step: _Step, here: slice) -> None:
        """Tell ``seen`` of the state ``here``, once for each prompt: equal ones draw from it together."""
        samples: dict[int, list[int]] = {}
        for drawing in group:
            samples.setdefault(drawing.request.index, []).append(drawing.request.sample)
        for index, some in samples.items():
            seen(index, some, step.hidden[here], step.logits.result()[here])

    def _branch(self, slot: Slot, branches: list[list[Draws]]) -> None:
        if not branches:
            self._context.release(slot, *self._next())
            return
        if len(branches) == 1:  # which is most often so
            self._active[slot] = branches[0]
            return
        kept = branches[: 1 + self._context.n_free]
        for branch, group in zip(self._context.branches(slot, len(kept)), kept, strict=True):
            self._active[branch] = group
        self._waiting += branches[len(kept) :]

    def _next(self) -> tuple[tuple[int, ...], ...]:
        """The prompt, and tokens drawn, that a free slot will be loaded with."""
        if self._waiting:
            return self._waiting[-1][0].request.prompt, self._waiting[-1][0].tokens
        return (self._queue[0][0].prompt,) if self._queue else ()

    def _admit(self) -> None:
        """Begin what there are free slots for: branches that wait, the last first, so that few prompts are under way;
        then prompts for all of whose answers there will be slots, if these share as much as those before. One may have
        less, as more of them can wait.
        """
        context = self._context
        while self._waiting and context.n_free:
            slot = context.begin(*self._next())
            self._active[slot] = self._waiting.pop()
        room = len(context.slots) - sum(map(self._slots_of, self._active.values()))
        begun = False
        while self._queue and context.n_free and (self._slots_of(self._queue[0]) <= room or not begun):
            group = [Draws(request, self._token_bytes) for request in self._queue.popleft()]
            self._active[context.begin(group[0].request.prompt)] = group
            room -= self._slots_of(group)
            begun = True

    def _slots_of(self, group: Sequence[Draws | Request]) -> float:
        """How many slots the answers of ``group``, which are one now, will end in."""
        return max(1.0, len(group) * self._endings / self._ended)

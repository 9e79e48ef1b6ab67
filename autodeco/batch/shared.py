"""Many answers to the same prompts for less: every common prefix of answers is computed once.

At low temperatures most answers to a problem share prefixes. The model computes each prefix once for all of them, and
each answer samples its next token from that distribution with random numbers of its own. Heads and sampling are those
of the graph, but run outside it; that costs less than a token of any model.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.answers import Answer, PartialAnswer
from autodeco.batch.context import BatchContext, Slot
from autodeco.batch.request import Request, check_open, check_requests
from autodeco.batch.rules import Choice, Row
from autodeco.errors import InputError
from autodeco.settings.options import checked

# Called with every state that tokens are sampled from: the prompt's index, which of its answers draw from it, hidden
# state [1, H] and logits [1, V], valid until it returns.
Seen = Callable[[int, list[int], np.ndarray, np.ndarray], None]


def answer(
    llm: llama_cpp.Llama,
    wanted: Sequence[Request],
    heads: native.Heads | None,
    slots: int,
    seen: Seen | None = None,
) -> Iterator[Answer]:
    """Yield an answer to each request as it finishes, ``slots`` at a time; requests of one prompt should follow each
    other.

    The ``decoding`` of these answers knows no nucleus (0) and no probability (NaN). Raises InputError as
    ``autodeco.batch.answer``, and for a top-k or min-p, which only that one has.
    """
    wanted = list(wanted)
    checked("slots", slots, int, 1)
    check_requests(wanted, llm, heads)
    if any(request.sampling.top_k or request.sampling.min_p for request in wanted):
        raise InputError("answers with a top-k or min-p cannot share what they begin with")
    return _answers(llm, wanted, heads, min(slots, len(wanted)), seen)


def _answers(
    llm: llama_cpp.Llama, wanted: list[Request], heads: native.Heads | None, slots: int, seen: Seen | None
) -> Iterator[Answer]:
    if not wanted:
        return
    check_open(llm)  # which may have been closed, or this process forked, since the requests were checked
    cells = sum(sorted(len(request.prompt) + request.max_tokens for request in wanted)[-slots:])
    context = _StateContext(llm, None, slots, cells)
    try:
        yield from _run(context, llm, heads, _groups(wanted, slots), seen)
    finally:
        context.close()


def _run(
    context: "_StateContext",
    llm: llama_cpp.Llama,
    heads: native.Heads | None,
    queue: deque[list[Request]],
    seen: Seen | None,
) -> Iterator[Answer]:
    token_bytes = TokenBytes(llm.model, special=True)
    active: dict[Slot, list[_Draws]] = {}  # the answers of a slot have all their tokens in common
    while queue or active:
        _admit(context, active, queue, token_bytes)
        # In the order of their sequences, in which llama.cpp computes the outputs of every kind of memory.
        slots = sorted(active, key=lambda slot: slot.seq)
        hidden, logits = context.states(slots, [active[slot][0].last for slot in slots])
        rows = iter(draw_rows([active[slot] for slot in slots], hidden, logits, heads))
        for index, slot in enumerate(slots):
            branches: dict[int, list[_Draws]] = {}
            group, ended = active.pop(slot), []
            for drawing in group:
                row = next(rows)
                if finish := drawing.add(row):
                    ended.append((drawing, finish))
                else:
                    branches.setdefault(row[0], []).append(drawing)
            if seen:
                samples = [drawing.request.sample for drawing in group]
                seen(group[0].request.index, samples, hidden[index : index + 1], logits[index : index + 1])
            for drawing, finish in ended:
                yield drawing.answer(finish)
            if not branches:
                context.release(slot, queue[0][0].prompt if queue else ())
            for branch, drawings in zip(context.branches(slot, len(branches)), branches.values(), strict=True):
                active[branch] = drawings


def _admit(
    context: "_StateContext", active: dict[Slot, list["_Draws"]], queue: deque[list[Request]], token_bytes: TokenBytes
) -> None:
    """Begin what there is room for: all answers of a group together, so that none of its beginnings is passed twice."""
    room = len(context.slots) - sum(map(len, active.values()))
    while queue and len(queue[0]) <= room:
        group = queue.popleft()
        room -= len(group)
        active[context.begin(group[0].prompt)] = [_Draws(request, token_bytes) for request in group]


def _groups(wanted: list[Request], slots: int) -> deque[list[Request]]:
    """Neighbours of the same prompt, at most ``slots`` together."""
    groups = (list(group) for _, group in groupby(wanted, key=lambda request: request.prompt))
    return deque(group[i : i + slots] for group in groups for i in range(0, len(group), slots))


class _Draws(PartialAnswer):
    """An answer in the making, with its own random numbers."""

    def __init__(self, request: Request, token_bytes: TokenBytes):
        super().__init__(request, token_bytes)
        self.random = np.random.Generator(np.random.PCG64(request.seed))
        rule = request.sampling.rule
        self.rule = rule and rule.begin(request.prompt, request.seed, token_bytes)

    def add(self, row: tuple) -> str | None:
        if self.rule:
            self.rule.accept(row[0])
        return super().add(row)


def draw_rows(
    groups: list[list[_Draws]], hidden: np.ndarray, logits: np.ndarray, heads: native.Heads | None
) -> list[tuple[int, float, float, int, float]]:
    """The next row of each answer of each group, in order; ``hidden`` [n, H] and ``logits`` [n, V] are the groups'."""
    guided = [i for i, group in enumerate(groups) if any(d.request.sampling.heads != "none" for d in group)]
    predicted = {}
    if guided:
        of = slice(None) if len(guided) == len(groups) else guided  # all rows need no copy
        predicted = dict(zip(guided, zip(*heads.predict(hidden[of], logits[of]), strict=True), strict=True))
    shown, chosen = [], {}  # of each answer; tokens that rules chose by themselves
    index, used, uniform = [], [], []
    for i, group in enumerate(groups):
        row = Row(logits[i])
        for drawing in group:
            setting, reported = _setting(drawing, row, predicted.get(i))
            if isinstance(setting, int):
                chosen[len(shown)] = setting
            else:
                index.append(i)
                used.append((setting[0], min(setting[1], 1.0)))
                uniform.append(drawing.random.random())
            shown.append(reported)
    drawn = iter(())
    if used:
        temperatures, top_ps = np.array(used, np.float32).T
        drawn = iter(native.nucleus_sample(logits, temperatures, top_ps, np.array(uniform), index))
    tokens = (chosen[n] if n in chosen else int(next(drawn)) for n in range(len(shown)))
    return [(token, *reported, 0, np.nan) for token, reported in zip(tokens, shown, strict=True)]


def _setting(drawing: _Draws, row: Row, predicted: tuple[float, float] | None) -> tuple[Choice, tuple[float, float]]:
    """The temperature and top-p to draw with, or the token that a rule chose; and those to report: what heads
    predicted, NaN for such a token."""
    sampling = drawing.request.sampling
    if drawing.rule:
        choice = drawing.rule.choose(row, drawing.random)
        return choice, (np.nan, np.nan) if isinstance(choice, int) else choice
    temperature, top_p = sampling.temperature, sampling.top_p
    reported = [temperature, top_p]
    if sampling.heads in ("both", "temperature"):
        reported[0], temperature = float(predicted[0]), predicted[0] * temperature
    if sampling.heads in ("both", "top_p"):
        reported[1], top_p = float(predicted[1]), predicted[1] * top_p
    return (temperature, top_p), tuple(reported)


class _StateContext(BatchContext):
    """A context that gives hidden states and logits instead of tokens, and whose sequences branch."""

    def __init__(self, llm: llama_cpp.Llama, heads: native.Heads | None, slots: int, cells: int):
        self._states = native.HiddenStates()
        super().__init__(llm, heads, slots, cells)
        self._n_vocab = llm.n_vocab()
        self._free = list(self.slots)

    def _params(self, llm: llama_cpp.Llama, slots: int, cells: int) -> llama_cpp.llama_context_params:
        params = super()._params(llm, slots, cells)
        native.watch(self._states, params)
        return params

    def _slot(self, llm: llama_cpp.Llama, heads: native.Heads | None, seq: int) -> Slot:
        return Slot(seq, None)

    def begin(self, prompt: tuple[int, ...]) -> Slot:
        """Take the free slot that holds the longest prefix of ``prompt``, and load the prompt."""
        slot, _ = self.fullest(self._free, prompt)
        self._free.remove(slot)
        self.load(slot, prompt)
        return slot

    def branches(self, slot: Slot, number: int) -> list[Slot]:
        """``number`` slots that hold what ``slot`` holds, the first of them itself."""
        others = [self._free.pop() for _ in range(number - 1)]
        for other in others:
            self._remove(other, 0)
            llama_cpp.llama_memory_seq_cp(self._memory, slot.seq, other.seq, -1, -1)
            other.held, other.prompt = list(slot.held), slot.prompt
        return [slot, *others][:number]

    def release(self, slot: Slot, following: tuple[int, ...]) -> None:
        """Free ``slot``, but keep the prefix that it shares with the prompt ``following``."""
        common = self.shared(slot, following)
        self._remove(slot, common)
        slot.held = slot.held[:common]
        slot.prompt = following if common == len(following) - 1 else None
        self._free.append(slot)

    def states(self, slots: list[Slot], tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Decode one token of each of ``slots``, which stand in the order of their sequences; return hidden states
        [n, H] and logits [n, V], valid until the next step."""
        self.flush()
        self._states.clear()
        for slot, token in zip(slots, tokens, strict=True):
            self._add(slot, token, output=True)
        self.flush()
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._ctx), (len(slots), self._n_vocab))
        return self._states.rows(), logits

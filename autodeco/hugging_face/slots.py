"""Answers sampled in the rows of a decoder: when an answer ends, the next one that waits takes its row.

The device knows which answers have ended. The host looks every few steps and acts some steps later. So a GPU always has
work while the host copies ended answers out, has the next prompts computed and admits them. With nothing left to admit,
the answers that are still running move together, and steps have half as many rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autodeco.heads import Heads
from autodeco.hugging_face.decoder import Decoder
from autodeco.hugging_face.drawing import Statistics, draw, statistics, uniforms
from autodeco.hugging_face.kept_states import KeptStates

# (hidden [n, H] float32, logits [n, V] float32) to (temperature [n], top-p [n])
Predictor = Heads | Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

LOOK_EVERY, ACT_AFTER = 8, 2  # steps on a GPU; on a CPU looking costs nothing
FEWEST_ROWS = 32  # below it a step on a GPU takes no less time
BLURRING = 2**31 - 1  # of the counters, in the place of an attempt of a draw
PREFILL_TOKENS = 16384  # computed at a time, padding included


@dataclass(frozen=True, eq=False)
class SlotAnswer:
    """The answer of number ``index``, that is prompt ``index // n``: n tokens [n] int32, the rest [n] float32."""

    index: int
    tokens: np.ndarray
    temperature: np.ndarray
    top_p: np.ndarray
    top_probability: np.ndarray  # of the likeliest token at T = 1
    first_state: int  # its number, those of the other tokens follow


class Slots:
    """Samples ``n`` answers to each of ``prompts`` with ``decoder``, iterating over them as they end.

    ``logits`` maps hidden states [n, H] to logits [n, V] float32. An answer ends with a token of ``ends`` [k] or after
    ``max_tokens``. Its states go to ``kept``, if given. Random numbers depend on ``seed``, the prompt's number
    in ``numbers`` (by default its index), and the indices of the answer among its n and of the token. ``blur`` is the
    scale of logistic noise on the logit of each token's top-p; what is told of the top-p is without it. What a control
    head reads at a prompt's end steers the whole answer, and what is told of temperature and top-p is steered.
    """

    def __init__(
        self,
        decoder: Decoder,
        logits: Callable[[Tensor], Tensor],
        heads: Predictor,
        prompts: Sequence[Sequence[int]],
        n: int,
        ends: Tensor,
        max_tokens: int,
        seed: int,
        kept: KeptStates | None = None,
        numbers: Sequence[int] | None = None,
        blur: float = 0.0,
    ):
        self._decoder, self._logits, self._heads = decoder, logits, heads
        self._prompts, self._n, self._ends, self._max_tokens = prompts, n, ends, max_tokens
        self._seed, self._kept, self._blur = seed, kept, blur
        self._numbers = np.asarray(range(len(prompts)) if numbers is None else numbers)
        self._device = decoder.hidden.device
        self._on_gpu = self._device.type == "cuda"
        self._next, self._all = 0, len(prompts) * n  # answers
        self._sizes = self._numbers_of_rows(decoder.rows)
        self._size = self._fitting(min(decoder.rows, self._all))
        self._owner = np.full(self._size, -1)  # answer in each row, -1 for none
        self._prefilled, self._prefilled_from, self._prefilled_to = None, 0, 0  # prompts
        self._ended: list[tuple] = []  # copied out, not yet handed out

        rows, width, device = self._size, max_tokens + 1, self._device  # a row that has ended writes one column more
        self._index = torch.arange(rows, device=device)
        self._counters = torch.zeros(rows, 3, dtype=torch.int32, device=device)  # number, sample, step
        self._count = torch.zeros(rows, dtype=torch.long, device=device)
        self._running = torch.zeros(rows, dtype=torch.bool, device=device)
        self._last = torch.zeros(rows, dtype=torch.long, device=device)
        self._level = torch.zeros(rows, device=device)  # of each answer, as its first state says
        self._tokens = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self._predicted = [torch.zeros(rows, width, device=device) for _ in range(3)]  # T, P, top probability
        self._states = [] if kept is None else [decoder.hidden.new_empty(rows, width, decoder.hidden.shape[1])]

    @torch.no_grad()
    def __iter__(self) -> Iterator[SlotAnswer]:
        """Yield every answer once, in the order in which they end."""
        self._decoder.release(torch.arange(self._decoder.rows, device=self._device))
        self._admit()
        step, look = 0, None
        every, lag = self.pace()
        while (self._owner >= 0).any():
            self._draw()
            step += 1
            if step % every == 0:
                look = self._look()
                yield from self._handed_out()
            if look is not None and step % every == lag:
                self._copy_out(*look)
                look = None
                self._shrink()
            if (self._owner >= 0).any():
                self._decoder.step(self._last[: self._size], self._running[: self._size])
            self._admit()
        yield from self._handed_out()

    def pace(self) -> tuple[int, int]:
        """Return after how many steps the host looks, and how many steps later it acts on what it saw."""
        return (LOOK_EVERY, ACT_AFTER) if self._on_gpu else (1, 0)

    def _draw(self) -> None:
        """Draw a token for each row and note it. Rows that have ended write where nothing is read."""
        rows = self._size
        hidden, count = self._decoder.hidden[:rows], self._count[:rows]
        logits = self._logits(hidden)
        temperature, top_p, known = predict(self._heads, hidden, logits, self._level[:rows])
        self._counters[:rows, 2] = count
        drawn_with = self._blurred(top_p, self._counters[:rows]) if self._blur else top_p
        tokens = draw(logits, known.largest, temperature, drawn_with, self._seed, self._counters[:rows])
        at = self._index[:rows] * self._tokens.shape[1] + count
        self._tokens.view(-1)[at] = tokens.int()
        for buffer, values in zip(self._predicted, (temperature, top_p, known.top_probability), strict=True):
            buffer.view(-1)[at] = values.float()
        for buffer in self._states:
            buffer.view(-1, buffer.shape[-1])[at] = hidden
        self._last[:rows] = tokens
        running = self._running[:rows]
        count += running
        running &= ~(tokens.unsqueeze(-1) == self._ends).any(-1) & (count < self._max_tokens)

    def _blurred(self, top_p: Tensor, counters: Tensor) -> Tensor:
        u = uniforms(self._seed, torch.nn.functional.pad(counters, (1, 0), value=BLURRING))
        return torch.sigmoid(torch.logit(top_p.double()) + self._blur * torch.logit(u)).float()

    def _look(self) -> tuple[Tensor, "torch.cuda.Event | None"]:
        """Begin to copy which rows are running and how many tokens [2, rows] they have to the host."""
        seen = torch.stack([self._running[: self._size].long(), self._count[: self._size]])
        return self._brought(seen), self._event()

    def _copy_out(self, seen: Tensor, ready: "torch.cuda.Event | None") -> None:
        """Begin to copy to the host what has ended as far as ``seen``, and leave those rows."""
        if ready is not None:
            ready.synchronize()
        running, count = seen.numpy()
        rows = np.flatnonzero((self._owner >= 0) & (running == 0))
        if not len(rows):
            return
        counts = count[rows]
        firsts = counts.cumsum() - counts
        at = np.arange(counts.sum()) + np.repeat(rows * self._tokens.shape[1] - firsts, counts)
        at = self._sent(at)
        values = [self._brought(buffer.view(-1)[at]) for buffer in (self._tokens, *self._predicted)]
        first_state = 0
        for buffer in self._states:
            first_state = self._kept.append(buffer.view(-1, buffer.shape[-1])[at])
        self._ended.append((self._owner[rows], firsts, counts, first_state, values, self._event()))
        self._owner[rows] = -1
        self._decoder.release(self._sent(rows))

    def _handed_out(self) -> Iterator[SlotAnswer]:
        """Yield the answers that have been copied out."""
        ended, self._ended = self._ended, []
        for indices, firsts, counts, first_state, values, ready in ended:
            if ready is not None:
                ready.synchronize()
            arrays = [value.numpy() for value in values]
            for index, first, count in zip(indices.tolist(), firsts.tolist(), counts.tolist(), strict=True):
                yield SlotAnswer(index, *(array[first : first + count].copy() for array in arrays), first_state + first)

    def _admit(self) -> None:
        """Begin the next answers in the rows that are free."""
        free = np.flatnonzero(self._owner < 0)
        while len(free) and self._next < self._all:
            if self._next >= self._prefilled_to * self._n:
                self._prefill()
            answers = np.arange(self._next, min(self._next + len(free), self._prefilled_to * self._n))
            self._next += len(answers)
            rows, free = free[: len(answers)], free[len(answers) :]
            self._owner[rows] = answers
            prompts, samples = np.divmod(answers, self._n)
            at, owners, *counters = self._sent(
                np.stack([rows, prompts - self._prefilled_from, self._numbers[prompts], samples, 0 * rows])
            )
            self._decoder.admit(at, self._prefilled, owners)
            self._counters.index_copy_(0, at, torch.stack(counters, -1).int())
            if isinstance(self._heads, Heads) and self._heads.control is not None:
                first = self._decoder.hidden.index_select(0, at).float()
                self._level.index_copy_(0, at, self._heads.level(first))
            self._count.index_fill_(0, at, 0)
            self._running.index_fill_(0, at, True)

    def _prefill(self) -> None:
        """Compute the next prompts."""
        self._prefilled = None  # its memory first
        first = self._prefilled_to
        last = fitting(self._prompts, first)
        self._prefilled = self._decoder.prefill(self._prompts[first:last])
        self._prefilled_from, self._prefilled_to = first, last

    def _shrink(self) -> None:
        """With nothing left to admit, have no more rows than a number that holds those still running."""
        occupied = np.flatnonzero(self._owner >= 0)
        size = self._fitting(max(1, len(occupied)))
        if self._next < self._all or size >= self._size:
            return
        sources = occupied[occupied >= size]
        targets = np.flatnonzero(self._owner[:size] < 0)[: len(sources)]
        self._owner[targets] = self._owner[sources]
        self._owner = self._owner[:size]
        self._size = size
        if not len(sources):
            return
        sources, targets = self._sent(np.stack([sources, targets]))
        self._decoder.move(sources, targets)
        per_row = (self._counters, self._count, self._running, self._last, self._level, self._tokens)
        for tensor in (*per_row, *self._predicted, *self._states):
            tensor.index_copy_(0, targets, tensor.index_select(0, sources))

    def _numbers_of_rows(self, rows: int) -> list[int]:
        sizes = [rows]
        while sizes[-1] // 2 >= (FEWEST_ROWS if self._on_gpu else 1):
            sizes.append(sizes[-1] // 2)
        return sizes

    def _fitting(self, rows: int) -> int:
        return min(size for size in self._sizes if size >= rows)

    def _sent(self, array: np.ndarray) -> Tensor:
        """Return ``array`` on the device, without waiting for what a GPU is doing."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._on_gpu else tensor

    def _brought(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` on the host, where it is complete once an event that is recorded now has come."""
        if not self._on_gpu:
            return tensor.clone()
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)

    def _event(self) -> "torch.cuda.Event | None":
        if not self._on_gpu:
            return None
        event = torch.cuda.Event()
        event.record()
        return event


def fitting(prompts: Sequence[Sequence[int]], first: int) -> int:
    """Return where those of ``prompts`` end that are computed together, from ``first`` on."""
    last, longest = first, 0
    while last < len(prompts):
        longest = max(longest, len(prompts[last]))
        if last > first and (last + 1 - first) * longest > PREFILL_TOKENS:
            break
        last += 1
    return last


def predict(heads: Predictor, hidden: Tensor, logits: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Statistics]:
    """Return (temperature [n], top-p [n], statistics) of ``heads`` for ``hidden`` [n, H] and ``logits`` [n, V] of
    answers of ``level`` [n]."""
    hidden = hidden.float()
    if isinstance(heads, Heads):
        temperature = heads.temperature(hidden)
        known = statistics(logits, temperature)
        top_p = heads.top_p(hidden, temperature, known.features)
        return *heads.steered(temperature, top_p, level), known
    temperature, top_p = heads(hidden, logits)
    return temperature, top_p, statistics(logits, temperature)

"""Rules that are chains of llama.cpp's own samplers, applied to logits on the host."""

import ctypes
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import llama_cpp
import numpy as np

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.rules import Choice, Chooser, Row, Rule, RuleWithoutMemory

Sampler = tuple[str, tuple]  # llama_cpp.llama_sampler_init_... and its arguments

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # struct llama_token_data


BLOCK = 128  # tokens, of which the likeliest bounds those that a top-k leaves
ROUNDING = 1e-3  # of a logit, more than llama.cpp's arithmetic in float32 is off

_own = threading.local()  # the memory of each thread: fresh pages for every row would cost as much as the samplers


def _memory(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory for ``n`` candidates, [n, 3] numbers of 32 bits, and what it holds before the logits are filled in."""
    found = getattr(_own, "memory", None)
    if found is None or len(found[0]) != n:
        empty = np.zeros(n, CANDIDATE)
        empty["id"] = np.arange(n)
        # as numbers, which numpy copies ten times as fast as structures
        template = empty.view(np.float32).reshape(n, 3)
        _own.memory = found = (np.empty_like(template), template)
    return found


def left_by(sampler: Sampler, logits: np.ndarray) -> np.ndarray | None:
    """Return ids of all tokens that ``sampler`` can leave of ``logits`` [V], ascending, and of few others; None where
    it must see all. It would else read 12 bytes of each of 152k tokens, which takes ten times as long."""
    name, (value, *_) = sampler
    if name == "min_p" and value > 0:
        least = float(logits.max()) + math.log(value) - ROUNDING
    elif name == "top_k" and 0 < value <= len(logits) // BLOCK:
        # so many blocks, of every so manyth token, have one at or above the least of their maxima
        maxima = logits[: len(logits) // BLOCK * BLOCK].reshape(BLOCK, -1).max(0)
        least = np.partition(maxima, -value)[-value]
    else:
        return None
    return np.flatnonzero(logits >= least)


class Candidates:
    """Tokens with their logits, as llama.cpp's samplers take them: the ``ids`` of a row of ``logits`` [V], or all; then
    valid until the thread makes the next."""

    def __init__(self, logits: np.ndarray, ids: np.ndarray | None = None):
        if ids is None:
            memory, template = _memory(len(logits))
            memory[:] = template
            memory[:, 1] = logits
        else:
            memory = np.zeros(len(ids), CANDIDATE)
            memory["id"], memory["logit"] = ids, logits[ids]
        self._memory = memory
        data = memory.ctypes.data_as(llama_cpp.llama_token_data_p)
        self.array = llama_cpp.llama_token_data_array(data, len(memory), -1, False)

    def rows(self) -> np.ndarray:
        """What the samplers have left, valid until they are applied again."""
        address = ctypes.cast(self.array.data, ctypes.c_void_p).value
        held = (ctypes.c_char * (CANDIDATE.itemsize * self.array.size)).from_address(address)
        return np.frombuffer(held, CANDIDATE)


@contextmanager
def _chain(samplers: tuple[Sampler, ...]) -> Iterator:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    try:
        for name, arguments in samplers:
            make = getattr(llama_cpp, f"llama_sampler_init_{name}")
            llama_cpp.llama_sampler_chain_add(chain, make(*arguments))
        yield chain
    finally:
        llama_cpp.llama_sampler_free(chain)


def distribution(row: Row, samplers: tuple[Sampler, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens [n] that ``samplers`` leave of ``row``, and their probabilities [n], float64."""
    candidates = Candidates(row.logits, _left_by_first(samplers, row))
    with _chain(samplers) as chain:
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates.array))
    left = candidates.rows()
    left = left[np.flatnonzero(np.isfinite(left["logit"]))]
    weights = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return left["id"].copy(), weights / weights.sum()


def _left_by_first(samplers: tuple[Sampler, ...], row: Row) -> np.ndarray | None:
    """``left_by`` of the first of ``samplers``, found once for all chains that begin with it."""
    return row.once((left_by, samplers[0]), lambda: left_by(samplers[0], row.logits))


@dataclass(frozen=True)
class StockChain(RuleWithoutMemory):
    """Draws from what ``samplers``, which remember nothing, leave; answers with the same logits share that."""

    samplers: tuple[Sampler, ...]

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        tokens, below = row.once(self, lambda: self._cumulative(row))
        return int(tokens[min(np.searchsorted(below, random.random(), side="right"), len(tokens) - 1)])

    def _cumulative(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        tokens, p = distribution(row, self.samplers)
        return tokens, np.cumsum(p)


@dataclass(frozen=True)
class StockChoice(Rule):
    """Takes the token that ``last`` chooses, a sampler that remembers its tokens and draws with a seed of its own."""

    samplers: tuple[Sampler, ...]
    last: str
    arguments: tuple

    def begin(self, prompt: tuple[int, ...], seed: int, token_bytes: TokenBytes) -> Chooser:
        return _Chosen((*self.samplers, (self.last, (*self.arguments, seed))))


class _Chosen(Chooser):
    """A chain for one answer."""

    def __init__(self, samplers: tuple[Sampler, ...]):
        self._samplers = samplers
        self._open = _chain(samplers)
        self._chain = self._open.__enter__()

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        candidates = Candidates(row.logits, _left_by_first(self._samplers, row))
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(candidates.array))
        return int(candidates.rows()[candidates.array.selected]["id"])

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)

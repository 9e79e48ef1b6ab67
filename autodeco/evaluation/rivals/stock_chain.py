"""Rules that are chains of llama.cpp's own samplers, applied to logits on the host."""

import ctypes
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


class Candidates:
    """All tokens of a vocabulary with their logits, as llama.cpp's samplers take them; valid until the thread makes the
    next."""

    def __init__(self, logits: np.ndarray):
        memory, template = _memory(len(logits))
        memory[:] = template
        memory[:, 1] = logits
        data = memory.ctypes.data_as(llama_cpp.llama_token_data_p)
        self.array = llama_cpp.llama_token_data_array(data, len(logits), -1, False)

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


def distribution(logits: np.ndarray, samplers: tuple[Sampler, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens [n] that ``samplers`` leave of ``logits`` [V], and their probabilities [n], float64."""
    candidates = Candidates(logits)
    with _chain(samplers) as chain:
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates.array))
    left = candidates.rows()
    left = left[np.isfinite(left["logit"])]
    weights = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return left["id"].copy(), weights / weights.sum()


@dataclass(frozen=True)
class StockChain(RuleWithoutMemory):
    """Draws from what ``samplers``, which remember nothing, leave; answers with the same logits share that."""

    samplers: tuple[Sampler, ...]

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        tokens, below = row.once(self, lambda: self._cumulative(row.logits))
        return int(tokens[min(np.searchsorted(below, random.random(), side="right"), len(tokens) - 1)])

    def _cumulative(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens, p = distribution(logits, self.samplers)
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
        self._open = _chain(samplers)
        self._chain = self._open.__enter__()

    def choose(self, row: Row, random: np.random.Generator) -> Choice:
        candidates = Candidates(row.logits)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(candidates.array))
        return int(candidates.rows()[candidates.array.selected]["id"])

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._chain, token)

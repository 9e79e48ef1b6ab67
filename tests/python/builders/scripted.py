"""Models that say what a test wants: their tokens are given, everything else is theirs."""

from collections.abc import Callable, Iterator, Sequence

import llama_cpp
import numpy as np
import pytest

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.context import BatchContext


def forcing(tokens: Sequence[int]) -> llama_cpp.LogitsProcessorList:
    """The logits processor under which a generation samples ``tokens``, and then the last of them for ever."""
    count = iter(range(10**9))

    def only(input_ids, logits):
        forced = np.full_like(logits, -np.inf)
        forced[tokens[min(next(count), len(tokens) - 1)]] = 0.0
        return forced

    return llama_cpp.LogitsProcessorList([only])


def say_in_batches(monkeypatch: pytest.MonkeyPatch, tokens: Sequence[int]) -> None:
    """Have each sequence of ``autodeco.batch`` sample ``tokens``, one after the other."""

    def step(self, slots, last):
        said = self.__dict__.setdefault("said", {})
        rows = []
        for slot in slots:
            script = said.setdefault(slot.seq, iter(tokens))
            rows.append((next(script), 0.5, 0.9, 1, 1.0))
        return rows

    monkeypatch.setattr(BatchContext, "step", step)


def tokens_of(llm: llama_cpp.Llama, wanted: Callable[[bytes], bool]) -> Iterator[int]:
    """The tokens whose bytes are ``wanted``."""
    pieces = TokenBytes(llm.model, special=True)
    return (token for token in range(llm.n_vocab()) if wanted(pieces[token]))


def byte_tokens(llm: llama_cpp.Llama, text: str) -> list[int]:
    """``text`` in tokens of one byte each."""
    pieces = TokenBytes(llm.model, special=True)
    single = {pieces[token]: token for token in tokens_of(llm, lambda piece: len(piece) == 1)}
    assert single, pieces
    return [single[bytes([byte])] for byte in text.encode()]

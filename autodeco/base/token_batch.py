"""The tokens that llama.cpp decodes at once."""

from collections.abc import Sequence

import llama_cpp
import numpy as np


class TokenBatch:
    """Up to ``capacity`` tokens on their way into a context, in the memory of a ``llama_batch`` that ``free`` releases,
    as does leaving ``with``."""

    def __init__(self, capacity: int):
        self.size = 0
        self._batch = llama_cpp.llama_batch_init(capacity, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (capacity,))
        self._pos = np.ctypeslib.as_array(self._batch.pos, (capacity,))
        self._logits = np.ctypeslib.as_array(self._batch.logits, (capacity,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (capacity,))[:] = 1
        self._seq = [self._batch.seq_id[i] for i in range(capacity)]

    def __enter__(self) -> "TokenBatch":
        return self

    def __exit__(self, *_) -> None:
        self.free()

    def add(self, token: int, position: int, sequence: int, output: bool) -> None:
        """Put ``token`` at ``position`` of ``sequence``; ``output``: its logits or its sampler's choice are wanted."""
        i = self.size
        self._token[i], self._pos[i], self._logits[i] = token, position, output
        self._seq[i][0] = sequence
        self.size += 1

    def add_outputs(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]) -> None:
        """``add`` one token of each of ``sequences``, an output each; of many at once, a tenth of the time."""
        end = self.size + len(tokens)
        here = slice(self.size, end)
        self._token[here], self._pos[here], self._logits[here] = tokens, positions, True
        for pointer, sequence in zip(self._seq[here], sequences, strict=True):
            pointer[0] = sequence
        self.size = end

    def decode(self, ctx: llama_cpp.llama_context_p) -> None:
        """Decode the tokens in ``ctx`` and hold none; raises RuntimeError where llama.cpp does not."""
        self._batch.n_tokens = self.size
        if status := llama_cpp.llama_decode(ctx, self._batch):
            raise RuntimeError(f"llama_decode returned {status} for {self.size} tokens")
        self.size = 0

    def free(self) -> None:
        """Release the memory; the batch is of no use then."""
        llama_cpp.llama_batch_free(self._batch)

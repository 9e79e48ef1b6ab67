"""The hidden states and logits of a model run by llama.cpp, and whether logits can be rebuilt from the states."""

import os
from collections.abc import Iterator

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.base.opening import open_base
from autodeco.base.output_matrix import OutputMatrix
from autodeco.base.token_batch import TokenBatch
from autodeco.errors import InputError
from autodeco.export.layout import Layout
from autodeco.settings.limits import PROMPT_BATCH

# While states are kept, llama.cpp also computes logits for every position: 128 x 151,936 floats are 74 MiB.
COMPLETION_BATCH = 128

CHECKED_POSITIONS = 64
# llama.cpp multiplies quantized by quantized numbers, which costs about 1%; a wrong scale or matrix costs 30% and more.
LARGEST_LOGITS_ERROR = 0.05


class StatefulModel(llama_cpp.Llama):
    """A model whose context tells the hidden states of its outputs; ``llama_cpp.Llama`` has them with its embeddings
    flag only, which some architectures compute no logits with."""

    def __init__(self, *args, **kwargs):
        self.states = native.HiddenStates()
        super().__init__(*args, **kwargs)

    # llama_cpp.Llama fills this structure field by field and then makes the context from it.
    @property
    def context_params(self) -> llama_cpp.llama_context_params:
        return self._context_params

    @context_params.setter
    def context_params(self, params: llama_cpp.llama_context_params) -> None:
        native.watch(self.states, params)
        self._context_params = params


def open_stateful(model: str | os.PathLike | Layout, **kwargs) -> StatefulModel:
    """Open the model in ``model`` for a ``StateReader``; arguments and errors are those of ``open_base``."""
    return open_base(model, StatefulModel, **kwargs)


class StateReader:
    """Reads the hidden states and logits that predict completions.

    A prefix that a prompt shares with the one before it (a system prompt, usually) is not computed again.
    """

    def __init__(self, llm: StatefulModel):
        self._llm = llm
        self._memory = llama_cpp.llama_get_memory(llm.ctx)
        self._tokens: list[int] = []  # what the memory holds
        self.forget()

    def forget(self) -> None:
        """Clear the memory, so that later results do not depend on earlier prompts, not even in rounding."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self._tokens = []

    def read(self, prompt: list[int], completion: list[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (start, hidden [n, H], logits [n, V]) in order; they predict completion[start : start + n].

        The arrays are float32; the logits are valid until the next step. Hidden states are those that the output matrix
        multiplies.
        """
        self._keep_common(prompt)
        for start in range(len(self._tokens), len(prompt) - 1, PROMPT_BATCH):
            self._decode(prompt[start : min(start + PROMPT_BATCH, len(prompt) - 1)], outputs=False)
        inputs = [prompt[-1], *completion[:-1]]
        for start in range(0, len(inputs), COMPLETION_BATCH):
            tokens = inputs[start : start + COMPLETION_BATCH]
            self._llm.states.clear()
            self._decode(tokens, outputs=True)
            # All outputs of one batch lie one after another.
            shape = len(tokens), self._llm.n_vocab()
            yield (
                start,
                self._llm.states.rows(),
                np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._llm.ctx), shape),
            )

    def _keep_common(self, prompt: list[int]) -> None:
        pairs = zip(self._tokens, prompt[:-1], strict=False)
        common = next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(self._tokens), len(prompt) - 1))
        if common and llama_cpp.llama_memory_seq_rm(self._memory, 0, common, -1):
            self._tokens = self._tokens[:common]
        else:  # nothing in common, or a recurrent model, whose memory cannot be cut
            self.forget()

    def _decode(self, tokens: list[int], outputs: bool) -> None:
        with TokenBatch(len(tokens)) as batch:
            for position, token in enumerate(tokens, len(self._tokens)):
                batch.add(token, position, 0, outputs)
            batch.decode(self._llm.ctx)
        self._tokens += tokens


def check_float16(hidden: np.ndarray, where: str) -> None:
    """Raise InputError, starting with ``where``, unless float16 can hold all of ``hidden`` [n, H].

    States are kept as float16. Larger numbers would become infinite there, and the losses not a number.
    """
    largest = np.abs(hidden).max(initial=0.0)
    if not largest <= np.finfo(np.float16).max:
        raise InputError(f"{where}: a hidden state holds {largest:g}, more than float16 can; use another quantization")


class LogitsCheck:
    """A uniform sample of the positions offered, and how far logits rebuilt from their kept states are off."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._seen = 0
        self.kept: list[tuple[np.ndarray, np.ndarray]] = []

    def offer(self, hidden: np.ndarray, logits: np.ndarray) -> None:
        """Consider the positions of ``hidden`` [n, H] and ``logits`` [n, V] (reservoir sampling)."""
        for row in range(len(hidden)):
            self._seen += 1
            index = len(self.kept) if len(self.kept) < CHECKED_POSITIONS else int(self._random.integers(self._seen))
            if index < CHECKED_POSITIONS:
                self.kept[index : index + 1] = [(hidden[row].astype(np.float16), logits[row].copy())]

    def relative_error(self, matrix: OutputMatrix) -> float:
        """Return |rebuilt - llama.cpp's| / |llama.cpp's| over the sample, each row measured from its own mean.

        A constant added to all logits of a row changes no probability; left in, it would hide errors that do.
        """
        theirs = np.stack([logits for _, logits in self.kept])
        rebuilt = matrix.logits(np.stack([hidden for hidden, _ in self.kept]))
        theirs -= theirs.mean(axis=1, keepdims=True)
        rebuilt -= rebuilt.mean(axis=1, keepdims=True)
        return float(np.linalg.norm(rebuilt - theirs) / np.linalg.norm(theirs))


def refuse_if_wrong(error: float, matrix: OutputMatrix) -> None:
    """Raise InputError if logits are off by more than quantized arithmetic explains."""
    if not error <= LARGEST_LOGITS_ERROR:
        raise InputError(
            f"{matrix.path}: logits rebuilt from hidden states are {error:.1%} off llama.cpp's own (at most "
            f"{LARGEST_LOGITS_ERROR:.0%} is allowed); what architecture {matrix.architecture!r} does to its logits is "
            "not known here, so heads cannot be trained on it"
        )

"""A context of many sequences that gives hidden states and logits instead of tokens, and whose sequences branch."""

from concurrent.futures import Future, wait

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.batch.context import BatchContext, Slot


class StateContext(BatchContext):
    """``slots`` sequences whose tokens are drawn outside the graph; the rest is as in ``BatchContext``."""

    def __init__(self, llm: llama_cpp.Llama, slots: int, cells: int):
        self._states = native.HiddenStates()
        super().__init__(llm, None, slots, cells)
        self._n_vocab = llm.n_vocab()
        self._free = list(self.slots)
        self.readers: list[Future] = []  # what reads the logits of the last step in other threads
        self._stack.callback(lambda: wait(self.readers))  # before the memory is freed

    def _params(self, llm: llama_cpp.Llama, slots: int, cells: int) -> llama_cpp.llama_context_params:
        params = super()._params(llm, slots, cells)
        native.watch(self._states, params)
        return params

    def _slot(self, llm: llama_cpp.Llama, heads: native.Heads | None, seq: int) -> Slot:
        return Slot(seq)

    @property
    def n_free(self) -> int:
        """The number of slots that nothing is computed in."""
        return len(self._free)

    def begin(self, prompt: tuple[int, ...], drawn: tuple[int, ...] = ()) -> Slot:
        """Take the free slot that holds the longest prefix of ``prompt`` and ``drawn``, and load them."""
        tokens = (*prompt, *drawn) if drawn else prompt
        kin = [slot for slot in self._free if slot.prompt is prompt]
        slot, _ = self.fullest(kin or self._free, tokens)
        self._free.remove(slot)
        self.load(slot, tokens, [slot for slot in self.slots if slot.prompt is prompt] or self.slots)
        slot.prompt = prompt
        return slot

    def branches(self, slot: Slot, number: int) -> list[Slot]:
        """``number`` slots that hold what ``slot`` holds, the first of them itself."""
        others = [self._free.pop() for _ in range(number - 1)]
        for other in others:
            self._remove(other, 0)
            llama_cpp.llama_memory_seq_cp(self._memory, slot.seq, other.seq, -1, -1)
            other.held, other.prompt = list(slot.held), slot.prompt
        return [slot, *others][:number]

    def release(self, slot: Slot, prompt: tuple[int, ...] = (), drawn: tuple[int, ...] = ()) -> None:
        """Free ``slot``, but keep the prefix that it shares with the ``prompt`` and ``drawn`` that come next."""
        common = self.shared(slot, (*prompt, *drawn) if drawn else prompt)
        self._remove(slot, common)
        slot.held = slot.held[:common]
        slot.prompt = prompt if prompt and common >= len(prompt) - 1 else None
        self._free.append(slot)

    def states(self, slots: list[Slot], tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Decode one token of each of ``slots``, which stand in the order of their sequences; return hidden states
        [n, H], a copy, and logits [n, V], valid until the next step."""
        self.flush()
        self._check()
        self._states.clear()
        self._batch.add_outputs(tokens, [len(slot.held) for slot in slots], [slot.seq for slot in slots])
        for slot, token in zip(slots, tokens, strict=True):
            slot.held.append(token)
        self.flush()
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._ctx), (len(slots), self._n_vocab))
        return self._states.rows(), logits

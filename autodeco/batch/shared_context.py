"""A context of many sequences that gives hidden states and logits instead of tokens, and whose sequences branch."""

from concurrent.futures import Future, wait
from typing import Any

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.base.memory import can_cut
from autodeco.batch.context import PADDING, BatchContext, Slot
from autodeco.errors import InputError


def _seq(slot: Slot) -> int:
    return slot.seq


class StateContext(BatchContext):
    """``slots`` sequences of up to ``longest`` tokens, drawn from outside the graph; else as ``BatchContext``.

    Where the memory allows, each sequence has its own, a stream: in a pool of all, every token of a step would be
    compared with the tokens of all sequences, for which llama.cpp writes a mask on one thread.
    """

    DRAWS_IN_GRAPH = False

    def __init__(self, llm: llama_cpp.Llama, slots: int, cells: int, longest: int):
        self._states = native.HiddenStates()
        self._longest = longest
        self._streams = self.can_stream(llm, slots)
        try:
            super().__init__(llm, None, slots, cells)
        except InputError:
            if not self._streams:
                raise
            self._streams = False  # a pool is smaller where lengths differ
            super().__init__(llm, None, slots, cells)
        self._n_vocab = llm.n_vocab()
        self._free = list(self.slots)
        self.readers: list[Future] = []  # what reads the logits of the last step in other threads
        self._stack.callback(lambda: wait(self.readers))  # before the memory is freed

    @staticmethod
    def can_stream(llm: llama_cpp.Llama, slots: int) -> bool:
        """Whether the model's memory is one of plain keys and values."""
        return slots > 1 and can_cut(llm) and not llama_cpp.llama_model_n_swa(llm.model)

    def _params(self, llm: llama_cpp.Llama, slots: int, cells: int) -> llama_cpp.llama_context_params:
        params = super()._params(llm, slots, cells)
        if self._streams:
            params.kv_unified = False
            params.n_ctx = slots * -(-self._longest // PADDING) * PADDING
        if self._is_offloaded(llm, params):
            # all that is left here is to look up embeddings; more threads would wait, busily, in the way of the draws
            params.n_threads = params.n_threads_batch = 1
        native.watch(self._states, params)
        return params

    @staticmethod
    def _is_offloaded(llm: llama_cpp.Llama, params: llama_cpp.llama_context_params) -> bool:
        """Whether a GPU has all layers and their memory."""
        layers = llm.model_params.n_gpu_layers
        every = layers < 0 or layers > llama_cpp.llama_model_n_layer(llm.model)
        return llama_cpp.llama_supports_gpu_offload() and every and params.offload_kqv

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

    def _copy(self, source: Slot, slot: Slot, common: int) -> None:
        if not self._streams:
            super()._copy(source, slot, common)
            return
        # of a stream llama.cpp copies all that is there, with the next batch
        llama_cpp.llama_memory_seq_cp(self._memory, source.seq, slot.seq, -1, -1)
        if common < len(source.held) - source.pending:
            llama_cpp.llama_memory_seq_rm(self._memory, slot.seq, common, -1)

    def gathered(self, active: dict[Slot, Any]) -> dict[Slot, Any]:
        """``active`` in the order of its sequences, in which llama.cpp computes the outputs of every kind of memory.

        Streams move into the gaps before them: those of one pass must follow each other."""
        if self._streams:
            for slot in sorted(active, key=_seq, reverse=True):
                free = min(self._free, key=_seq, default=slot)
                if free.seq >= slot.seq:
                    break
                self.move(slot, free)
                active[free] = active.pop(slot)
        return {slot: active[slot] for slot in sorted(active, key=_seq)}

    def move(self, slot: Slot, free: Slot) -> None:
        """Give what ``slot`` holds to the free slot ``free``, and free ``slot``."""
        if slot.pending:
            self.flush()
        self._remove(free, 0)
        llama_cpp.llama_memory_seq_cp(self._memory, slot.seq, free.seq, -1, -1)
        self._remove(slot, 0)
        free.held, free.prompt, slot.held, slot.prompt = slot.held, slot.prompt, [], None
        self._free[self._free.index(free)] = slot

    def branches(self, slot: Slot, number: int) -> list[Slot]:
        """``number`` slots that hold what ``slot`` holds, the first of them itself."""
        self._free.sort(key=_seq, reverse=True)
        others = [self._free.pop() for _ in range(number - 1)]  # the first ones, so that there are few gaps
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

    def states(self, slots: list[Slot], tokens: list[int]) -> np.ndarray:
        """Decode one token of each of ``slots``, which stand in the order of their sequences; return hidden states
        [n, H], a copy."""
        self.flush()
        self._check()
        self._states.clear()
        self._batch.add_outputs(tokens, [len(slot.held) for slot in slots], [slot.seq for slot in slots])
        for slot, token in zip(slots, tokens, strict=True):
            slot.held.append(token)
        self.flush()
        return self._states.rows()

    def logits(self, number: int) -> np.ndarray:
        """Wait until the logits [number, V] of the last step are copied from the device; valid until the next step."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self._ctx), (number, self._n_vocab))

"""A llama.cpp context of many sequences: prompts decoded once and copied, one sampler a sequence inside the graph."""

import contextlib
import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence

import llama_cpp

from autodeco import native
from autodeco.base.forks import check_process
from autodeco.base.memory import can_cut, can_join_prompts
from autodeco.base.token_batch import TokenBatch
from autodeco.errors import InputError
from autodeco.features import check_samplers, set_outputs_per_text
from autodeco.runs.interrupts import deferred_interrupt
from autodeco.settings.limits import PROMPT_BATCH

PADDING = 256  # llama.cpp rounds the cells of a context up to it


def common_length(a: list[int], b: list[int]) -> int:
    """The length of the common prefix of ``a`` and ``b``."""
    # by halves, as Python compares slices thirty times as fast as a loop does tokens
    same, some = 0, min(len(a), len(b))  # alike up to `same`; at most `some` more may be
    if a[:some] == b[:some]:
        return some
    while some > 1:
        half = some // 2
        if a[same : same + half] == b[same : same + half]:
            same, some = same + half, some - half
        else:
            some = half
    return same


class Slot:
    """One sequence of a context: what its memory holds, and its sampler where the graph draws."""

    def __init__(self, seq: int, graph: native.GraphSampler | None = None):
        self.seq = seq
        if graph is not None:
            self.graph = graph
        self.held: list[int] = []  # tokens in memory, those included that are decoded with the next batch
        self.prompt: tuple[int, ...] | None = None  # the object that it was loaded with, while all but its last is held
        self.pending = 0  # of those, how many


_silencing = threading.Lock()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let llama.cpp print nothing: it warns of a context that is longer than the model was trained for, which the room
    of many sequences together is, and llama-cpp-python takes its warnings for errors and prints them."""
    logger = logging.getLogger("llama-cpp-python")
    with _silencing:  # of two threads, the second would take the first one's silence for what was before
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def _close_with(llm: llama_cpp.Llama, context: "BatchContext") -> None:
    """Have ``llm``, when it is closed, close ``context`` before it frees the model that this computes with."""
    if "_batch_contexts" not in vars(llm):
        llm._batch_contexts = weakref.WeakSet()
        llm._stack.callback(_close_all, llm._batch_contexts)
    llm._batch_contexts.add(context)


def _close_all(contexts: "weakref.WeakSet[BatchContext]") -> None:
    for context in list(contexts):
        context.close()


class BatchContext:
    """``slots`` sequences in a second context of ``llm``'s model, freed by ``close``, or when ``llm`` is closed.

    ``cells`` is the number of tokens that fit into the memory of all sequences together. Raises InputError if llama.cpp
    cannot make the context or sample in its graph.
    """

    #: whether every slot has a sampler in the graph, which needs room there
    DRAWS_IN_GRAPH = True

    def __init__(self, llm: llama_cpp.Llama, heads: native.Heads | None, slots: int, cells: int):
        if slots > (most := llama_cpp.llama_max_parallel_sequences()):
            raise InputError(f"{slots} answers at a time: llama.cpp has room for {most}; use fewer slots")
        if self.DRAWS_IN_GRAPH:
            check_samplers(llm.model_path, slots, llama_cpp.llama_model_n_layer(llm.model))
        self._model = llm.model
        self._path, self._process = llm.model_path, os.getpid()
        self._stack = contextlib.ExitStack()
        params = self._params(llm, slots, cells)
        # llama.cpp logs through Python, and an interrupt raised in there would be lost
        with deferred_interrupt(), contextlib.nullcontext() if llm.verbose else _silence():
            self._ctx = llama_cpp.llama_init_from_model(llm.model, params)
        if not self._ctx:
            raise InputError(
                f"{llm.model_path}: no memory for {slots} sequences of {cells} tokens in all; use fewer slots or tokens"
            )
        self._in_use = threading.RLock()
        self._closed = False
        self._stack.callback(llama_cpp.llama_free, self._ctx)
        _close_with(llm, self)
        try:
            self._batch = self._stack.enter_context(TokenBatch(max(PROMPT_BATCH, slots)))
            self._apply_adapter(llm)
            self.slots = [self._slot(llm, heads, seq) for seq in range(slots)]
        except BaseException:
            self.close()
            raise
        self._can_cut = can_cut(llm)
        self._can_join = can_join_prompts(llm)
        self._window = llama_cpp.llama_model_n_swa(llm.model)

    def close(self) -> None:
        """Free the context; its samplers leave it first."""
        with self._in_use:
            self._closed = True
            self._stack.close()

    def _check(self) -> None:
        check_process(self._path, self._process)
        if self._closed:
            raise InputError(f"{self._path}: was closed; open it again")

    @property
    def _memory(self) -> "llama_cpp.llama_memory_t":
        self._check()
        return llama_cpp.llama_get_memory(self._ctx)

    def _params(self, llm: llama_cpp.Llama, slots: int, cells: int) -> llama_cpp.llama_context_params:
        params = llama_cpp.llama_context_params.from_buffer_copy(llm.context_params)
        params.n_seq_max = slots
        # one pool of cells: a copied prompt costs nothing, and a short answer leaves its room to a long one
        params.kv_unified = True
        params.n_ctx = -(-cells // PADDING) * PADDING
        params.n_batch = params.n_ubatch = max(PROMPT_BATCH, slots)
        params.n_outputs_max = slots
        set_outputs_per_text(params, 1)
        params.embeddings = False
        if params.flash_attn_type == llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO  # llama.cpp knows where it is faster
        return params

    def _apply_adapter(self, llm: llama_cpp.Llama) -> None:
        adapter = getattr(llm, "_lora_adapter", None)
        if adapter is not None:
            adapters, scales = (
                (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter),
                (ctypes.c_float * 1)(llm.lora_scale),
            )
            if llama_cpp.llama_set_adapters_lora(self._ctx, adapters, 1, scales):
                raise InputError(f"{llm.lora_path}: llama.cpp cannot apply this adapter")

    def _slot(self, llm: llama_cpp.Llama, heads: native.Heads | None, seq: int) -> Slot:
        graph = native.GraphSampler(heads, False)
        if not graph.attach(native.address(self._ctx), seq):
            raise InputError(f"{llm.model_path}: llama.cpp cannot sample in its graph with this split_mode")
        self._stack.callback(graph.detach)
        return Slot(seq, graph)

    def shared(self, slot: Slot, prompt: tuple[int, ...]) -> int:
        """The length of the longest prefix of ``prompt``, without its last token, that the memory of ``slot`` can
        give."""
        # answers to one prompt share its object: 256 slots are not each compared with a thousand tokens
        common = len(prompt) - 1 if slot.prompt is prompt else common_length(slot.held, list(prompt[:-1]))
        if not self._can_cut:
            return common if common == len(slot.held) else 0
        if self._window and not slot.pending:
            # a sliding window has forgotten what lies further back than the model looks
            oldest = llama_cpp.llama_memory_seq_pos_min(self._memory, slot.seq)
            return common if oldest <= max(0, common - self._window) else 0
        return common

    def fullest(self, slots: Sequence[Slot], prompt: tuple[int, ...]) -> tuple[Slot, int]:
        """The first of ``slots`` that can give the longest prefix of ``prompt``, and the length of that."""
        best, most = slots[0], -1
        for slot in slots:
            if (common := self.shared(slot, prompt)) > most:
                best, most = slot, common
                if most == len(prompt) - 1:
                    break
        return best, most

    def load(self, slot: Slot, prompt: tuple[int, ...], among: Sequence[Slot] | None = None) -> None:
        """Put all of ``prompt`` but its last token into the memory of ``slot``, decoding only what no slot (``among``
        some, if given) holds."""
        source, common = self.fullest([slot, *(self.slots if among is None else among)], prompt)
        if source.pending and common > len(source.held) - source.pending:
            self.flush()
        if source is slot:
            self._remove(slot, common)
        else:
            self._remove(slot, 0)
            if common:
                self._copy(source, slot, common)
        if not self._can_join:
            self.flush()
        slot.held, slot.prompt = list(prompt[:common]), prompt
        for token in prompt[common:-1]:
            self._add(slot, token, output=False)
            if self._batch.size == PROMPT_BATCH:
                self.flush()

    def _copy(self, source: Slot, slot: Slot, common: int) -> None:
        """Put the first ``common`` tokens of ``source`` into the empty memory of ``slot``."""
        end = common if self._can_cut else -1  # which is all that is held
        llama_cpp.llama_memory_seq_cp(self._memory, source.seq, slot.seq, 0, end)

    def _remove(self, slot: Slot, start: int) -> None:
        if start < len(slot.held) and not llama_cpp.llama_memory_seq_rm(self._memory, slot.seq, start or -1, -1):
            raise RuntimeError(f"llama.cpp cannot cut the memory of sequence {slot.seq} at {start}")

    def _add(self, slot: Slot, token: int, output: bool) -> None:
        self._check()
        self._batch.add(token, len(slot.held), slot.seq, output)
        slot.held.append(token)
        slot.pending += 1

    def flush(self) -> None:
        """Decode what is pending."""
        if not self._batch.size:
            return
        with self._in_use:
            self._check()
            self._batch.decode(self._ctx)
        for slot in self.slots:
            slot.pending = 0

    def step(self, slots: list[Slot], tokens: list[int]) -> list[tuple]:
        """Decode one token of each slot; return for each the row (token, temperature, top-p, nucleus, probability) of
        the next token that its sampler chose."""
        self.flush()
        for slot, token in zip(slots, tokens, strict=True):
            self._add(slot, token, output=True)
        with self._in_use:
            self.flush()
            return [slot.graph.sample(i) for i, slot in enumerate(slots)]

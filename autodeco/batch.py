"""Many answers at once: continuous batching over one llama.cpp context, with heads, fixed settings or both.

A sequence that ends gives its place to the next at once, and what prompts have in common is computed once. Each answer
is drawn with random numbers of its own, which depend on the seed, the prompt's index and the sample's index only. The
logits do depend on what else is in the batch: llama.cpp's kernels round differently for different batch sizes, so an
answer can part from the one that another number of slots gives (benchmarks/batch.py measures how often).
"""

import codecs
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.answers import Answer
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch_context import BatchContext, Slot
from autodeco.data.records import Messages
from autodeco.errors import InputError
from autodeco.export.fit import check_fit
from autodeco.export.layout import open_layout
from autodeco.llama.decoding import Decoding
from autodeco.settings.options import check_number, check_whole

Prompt = str | Messages | Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are drawn.

    ``heads`` names what the heads decide; there ``temperature`` and ``top_p`` multiply the predictions, elsewhere they
    are the settings themselves. Temperature 0 is greedy. ``top_k`` (0: all) and ``min_p`` cut before top-p. Raises
    InputError for values out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    heads: Literal["both", "temperature", "top_p", "none"] = "both"

    def __post_init__(self):
        for name, low, high in (("temperature", 0.0, 1e6), ("top_p", 0.0, 1e6), ("min_p", 0.0, 1.0)):
            check_number(name, getattr(self, name), low, high)
        check_whole("top_k", self.top_k, 0, hint="0 keeps all tokens")
        if self.heads not in ("both", "temperature", "top_p", "none"):
            raise InputError(f"heads {self.heads!r}: must be both, temperature, top_p or none")


@dataclass(frozen=True)
class Request:
    """One answer that is wanted: ``prompt`` holds token ids; ``index`` and ``sample`` say to the caller which it is."""

    prompt: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = ()
    index: int = 0
    sample: int = 0


def generate(
    llm: llama_cpp.Llama,
    prompts: Sequence[Prompt],
    n: int = 1,
    sampling: Sampling | Sequence[Sampling] = Sampling(),
    *,
    max_tokens: int = 256,
    stop: str | Sequence[str] = (),
    seed: int = 0,
    heads: native.Heads | str | os.PathLike | None = None,
    slots: int = 16,
) -> Iterator[Answer]:
    """Yield ``n`` answers to each prompt as they finish; each says by ``prompt`` and ``sample`` which it is.

    Prompts are text, chat messages or token ids; ``sampling`` is one for all or one for each prompt. ``heads`` are
    those of ``llm`` unless others are given. ``slots`` sequences run at a time. Closing the iterator frees the context.
    ``answer`` takes requests that each have a limit, seed and stop strings of their own. Raises InputError, before
    anything is computed, for an empty prompt, one that fills the context of ``llm`` together with ``max_tokens``,
    values that make no sense, and heads that do not fit or are missing.
    """
    return answer(llm, requests(llm, prompts, n, sampling, max_tokens, stop, seed), heads, slots)


def requests(
    llm: llama_cpp.Llama,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling | Sequence[Sampling],
    max_tokens: int,
    stop: str | Sequence[str] = (),
    seed: int = 0,
) -> list[Request]:
    """The ``n`` requests of each prompt, in order. To continue an interrupted run, drop those that are answered."""
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    if len(settings) != len(prompts):
        raise InputError(f"{len(settings)} settings for {len(prompts)} prompts: give one, or one for each")
    _check_prompts(prompts)
    check_whole("n", n, 1)
    check_whole("seed", seed, 0)
    _check_open(llm)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    tokenizer = Tokenizer(llm)
    wanted = []
    for index, prompt in enumerate(prompts):
        is_ids = not isinstance(prompt, str) and (len(prompt) == 0 or not isinstance(prompt[0], dict))
        ids = tuple(int(token) for token in prompt) if is_ids else tuple(tokenizer.prompt_ids(prompt))
        wanted += [
            Request(ids, settings[index], max_tokens, seed_of(seed, index, sample), stop, index, sample)
            for sample in range(n)
        ]
    return wanted


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raise InputError for one prompt in the place of a list of them, which would be taken apart."""
    if isinstance(prompts, str):
        raise InputError("prompts is one text; give a list of prompts")
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, dict):
            raise InputError("prompts is one chat; give a list of chats, each a list of messages")
        if not hasattr(prompt, "__len__"):
            raise InputError(
                f"prompt {index}: {prompt!r} is no text, chat or list of token ids; give a list of prompts"
            )


def _check_open(llm: llama_cpp.Llama) -> None:
    if llm._ctx.ctx is None:
        raise InputError(f"{llm.model_path}: was closed; open it again")


def seed_of(seed: int, *key: int) -> int:
    """A seed of its own for each ``key`` (prompt and sample, say), 32 bits, never llama.cpp's mark of a random one."""
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(2)
    return int(state[0] if state[0] != llama_cpp.LLAMA_DEFAULT_SEED else state[1] >> 1)


def answer(
    llm: llama_cpp.Llama,
    wanted: Sequence[Request],
    heads: native.Heads | str | os.PathLike | None = None,
    slots: int = 16,
) -> Iterator[Answer]:
    """Yield an answer to each request as it finishes, in batches of ``slots``; as ``generate``, which see."""
    wanted = list(wanted)
    check_whole("slots", slots, 1)
    _check_open(llm)
    if heads is None:
        heads = getattr(llm, "_heads", None)
    elif not isinstance(heads, native.Heads):
        path, heads = heads, native.load_heads(heads)
        if warning := check_fit(open_layout(path), open_layout(llm.model_path)):
            warnings.warn(warning, stacklevel=3)
    if heads is not None:
        try:
            heads.check_fit(native.address(llm.model))
        except ValueError as error:
            raise InputError(f"{error}; use heads made for this model") from None
    check(wanted, llm, heads)
    return _answers(llm, wanted, heads, slots)


def check(wanted: Sequence[Request], llm: llama_cpp.Llama, heads: native.Heads | None) -> None:
    """Raise InputError for the first request that ``llm`` cannot answer."""
    for request in wanted:
        where = f"prompt {request.index}"
        if not request.prompt:
            raise InputError(f"{where}: has no tokens; nothing predicts a first one")
        check_whole("max_tokens", request.max_tokens, 1)
        if not all(isinstance(stop, str) and stop for stop in request.stop):
            raise InputError(f"stop {list(request.stop)!r}: must be texts that are not empty")
        if not 0 <= min(request.prompt) <= max(request.prompt) < llm.n_vocab():
            raise InputError(f"{where}: holds a token id outside the vocabulary of {llm.n_vocab()}")
        if len(request.prompt) >= llm.n_ctx():
            raise InputError(
                f"{where}: has {len(request.prompt)} tokens and fills the context of {llm.n_ctx()}; raise n_ctx"
            )
        if len(request.prompt) + request.max_tokens > llm.n_ctx():
            raise InputError(
                f"{where}: {len(request.prompt)} tokens and an answer of {request.max_tokens} exceed the context of "
                f"{llm.n_ctx()}; raise n_ctx or lower max_tokens"
            )
        kind = request.sampling.heads
        if kind != "none" and heads is None:
            raise InputError(f"{where}: wants heads, but the model has none; give heads, or Sampling(heads='none')")
        if (kind == "temperature" and not heads.has_temperature) or (kind == "top_p" and not heads.has_top_p):
            raise InputError(f"{where}: wants the {kind} head, which these heads lack")


def _answers(llm: llama_cpp.Llama, wanted: list[Request], heads: native.Heads | None, slots: int) -> Iterator[Answer]:
    if not wanted:
        return
    if all(request.sampling.heads == "none" for request in wanted):
        heads = None
    slots = min(slots, len(wanted))
    cells = sum(sorted(len(request.prompt) + request.max_tokens for request in wanted)[-slots:])
    context = BatchContext(llm, heads, slots, cells)
    try:
        yield from _run(context, llm, deque(wanted))
    finally:
        context.close()


def _run(context: BatchContext, llm: llama_cpp.Llama, queue: deque[Request]) -> Iterator[Answer]:
    pieces = Pieces(llm)
    active: dict[Slot, PartialAnswer] = {}
    while queue or active:
        free = [slot for slot in context.slots if slot not in active]
        while queue and free:
            request = queue.popleft()
            prompt = list(request.prompt)
            slot = max(free, key=lambda slot: context.shared(slot, prompt[:-1]))
            free.remove(slot)
            _configure(slot.graph, request)
            context.load(slot, prompt)
            active[slot] = PartialAnswer(request, pieces)
        slots = [slot for slot in context.slots if slot in active]
        for slot, row in zip(slots, context.step(slots, [active[slot].last for slot in slots]), strict=True):
            if finish := active[slot].add(row):
                yield active.pop(slot).answer(finish)


def _configure(graph: native.GraphSampler, request: Request) -> None:
    sampling = request.sampling
    graph.set_fixed(sampling.heads in ("none", "top_p"), sampling.heads in ("none", "temperature"))
    graph.set_cuts(sampling.top_k, sampling.min_p)
    graph.set_params(request.seed, sampling.temperature, sampling.top_p)


class Pieces:
    """The bytes of each token, and which tokens end an answer."""

    def __init__(self, llm: llama_cpp.Llama):
        self._llm = llm
        self._vocab = llama_cpp.llama_model_get_vocab(llm.model)
        self._bytes: dict[int, bytes | None] = {}

    def __getitem__(self, token: int) -> bytes | None:
        """The bytes of ``token``, None if it ends the answer."""
        if token not in self._bytes:
            end = llama_cpp.llama_vocab_is_eog(self._vocab, token)
            self._bytes[token] = None if end else self._llm.detokenize([token], special=True)
        return self._bytes[token]


class PartialAnswer:
    """An answer in the making."""

    def __init__(self, request: Request, pieces: Pieces):
        self.request = request
        self.last = request.prompt[-1]
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._rows: list[tuple] = []

    def add(self, row: tuple) -> str | None:
        """Add a token; return why the answer is finished, None if it is not."""
        self.last = row[0]
        self._rows.append(row)
        piece = self._pieces[row[0]]
        if piece is None:
            return "end"
        before = len(self._text)
        self._text += self._decoder.decode(piece)
        cuts = [self._text.find(stop, max(0, before - len(stop) + 1)) for stop in self.request.stop]
        if cuts := [cut for cut in cuts if cut >= 0]:
            self._text = self._text[: min(cuts)]
            return "stop"
        return "length" if len(self._rows) == self.request.max_tokens else None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(row[0] for row in self._rows)

    def answer(self, finish: str) -> Answer:
        request = self.request
        return Answer(self._text, finish, Decoding.from_rows(self._rows), request.index, request.sample, request.seed)

"""The loop of continuous batching: requests go in, answers come out as they finish."""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence

import llama_cpp

from autodeco import native
from autodeco.base.token_bytes import TokenBytes
from autodeco.batch.answers import Answer, PartialAnswer
from autodeco.batch.context import BatchContext, Slot
from autodeco.batch.request import AS_THE_MODEL_SAYS, Prompt, Request, Sampling, check_open, check_requests, requests
from autodeco.errors import InputError
from autodeco.export.fit import check_fit
from autodeco.export.layout import open_layout
from autodeco.settings.options import checked


def generate(
    llm: llama_cpp.Llama,
    prompts: Sequence[Prompt],
    n: int = 1,
    sampling: Sampling | Sequence[Sampling] = AS_THE_MODEL_SAYS,
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


def answer(
    llm: llama_cpp.Llama,
    wanted: Sequence[Request],
    heads: native.Heads | str | os.PathLike | None = None,
    slots: int = 16,
) -> Iterator[Answer]:
    """Yield an answer to each request as it finishes, ``slots`` at a time; the rest is as in ``generate``."""
    wanted = list(wanted)
    checked("slots", slots, int, 1)
    check_open(llm)
    if heads is None:
        heads = getattr(llm, "_heads", None)
    elif not isinstance(heads, native.Heads):
        path, heads = heads, native.load_heads(heads)
        if warning := check_fit(open_layout(path), open_layout(getattr(llm, "_layout", llm.model_path))):
            warnings.warn(warning, stacklevel=3)
    if heads is not None:
        try:
            heads.check_fit(native.address(llm.model))
        except ValueError as error:
            raise InputError(f"{error}; use heads made for this model") from None
    check_requests(wanted, llm, heads)
    if any(request.sampling.rule or request.sampling.top_p_blur for request in wanted):
        raise InputError(
            "rules and a blurred top-p draw from logits on the host, not in the graph: use autodeco.batch.shared.answer"
        )
    return _answers(llm, wanted, heads, slots)


def _answers(llm: llama_cpp.Llama, wanted: list[Request], heads: native.Heads | None, slots: int) -> Iterator[Answer]:
    if not wanted:
        return
    check_open(llm)  # which may have been closed, or this process forked, since the requests were checked
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
    token_bytes = TokenBytes(llm.model, special=True)
    active: dict[Slot, PartialAnswer] = {}
    while queue or active:
        free = [slot for slot in context.slots if slot not in active]
        while queue and free:
            request = queue.popleft()
            slot, _ = context.fullest(free, request.prompt)
            free.remove(slot)
            _configure(slot.graph, request)
            context.load(slot, request.prompt)
            active[slot] = PartialAnswer(request, token_bytes)
        slots = [slot for slot in context.slots if slot in active]
        for slot, row in zip(slots, context.step(slots, [active[slot].last for slot in slots]), strict=True):
            if finish := active[slot].add(row):
                yield active.pop(slot).answer(finish)


def _configure(graph: native.GraphSampler, request: Request) -> None:
    sampling = request.sampling
    graph.set_fixed(sampling.heads in ("none", "top_p"), sampling.heads in ("none", "temperature"))
    graph.set_cuts(sampling.top_k, sampling.min_p)
    graph.set_params(request.seed, sampling.temperature, sampling.top_p)

"""How one generation draws its tokens: inside llama.cpp's graph, or on the host for what cannot live there.

Both have the one method that ``llama_cpp.Llama`` calls of a sampler, and append a row a token to ``rows``.
"""

import enum
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._internals import LlamaContext, LlamaSampler

from autodeco import native


def is_plain(settings: dict[str, Any]) -> bool:
    """Whether temperature and top-p are all there is, which the graph can do alone."""
    return (
        settings.get("logits_processor") is None
        and settings.get("grammar") is None
        and settings["repeat_penalty"] == 1.0
        and settings["frequency_penalty"] == 0.0
        and settings["presence_penalty"] == 0.0
        and settings["top_k"] <= 0
        and settings["min_p"] <= 0.0
        and settings["typical_p"] >= 1.0
    )


class Place(enum.Enum):
    """Where tokens are drawn."""

    GRAPH = enum.auto()
    HOST = enum.auto()
    CALLER = enum.auto()  # by whoever reads the context's logits


def _can_draw(graph: native.GraphSampler, place: Place) -> bool:
    """An observer leaves the logits to llama.cpp, for anyone. A sampler that draws on a CPU can keep them for the host
    instead: changing between the two costs nothing, while another sampler makes llama.cpp allocate its buffers again.
    """
    if graph.observer:
        return place is not Place.GRAPH
    return place is Place.GRAPH or (place is Place.HOST and not graph.draws_on_device)


class Attachment:
    """The sampler that sits in a context's graph, if any.

    Knows the context but not the model object that owns it: a reference back would make a cycle, and the order in which
    a cycle is finalized could free the context before its sampler has left it.
    """

    def __init__(self, context: LlamaContext):
        self._context = context
        self._graph: native.GraphSampler | None = None

    def attach(self, heads: native.Heads, place: Place) -> tuple[native.GraphSampler | None, bool]:
        """Return the sampler for ``heads`` (None if llama.cpp refuses it), and whether tokens must be decoded again."""
        graph = self._graph
        if graph is not None and _can_draw(graph, place):
            changed = graph.draws_on_host != (place is Place.HOST) and not graph.observer
        else:
            graph, changed = self._new(heads, observer=place is Place.CALLER), True
            if graph is not None and not _can_draw(graph, place):
                graph = self._new(heads, observer=True)
        if graph is not None and not graph.observer:
            graph.draws_on_host = place is Place.HOST
        return graph, changed

    def _new(self, heads: native.Heads, observer: bool) -> native.GraphSampler | None:
        self.detach()
        graph = native.GraphSampler(heads, observer)
        if graph.attach(native.address(self._context.ctx), 0):
            self._graph = graph
        return self._graph

    def detach(self) -> None:
        """Take the sampler out of the graph; the next decode runs without it."""
        graph, self._graph = self._graph, None
        if graph is None:
            return
        if self._context.ctx is None:
            graph.forget()
        else:
            graph.detach()


class GraphDraw:
    """Reads the token that the graph drew."""

    def __init__(self, graph: native.GraphSampler, rows: list[tuple]):
        self.graph = graph
        self.rows = rows

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        row = self.graph.sample(idx)
        self.rows.append(row)
        return row[0]


class HostDraw:
    """Draws on the host with temperature and top-p from the graph: logits processors, penalties and grammar see the raw
    logits, then temperature, top-k, typical and min-p, then the nucleus. With ``heads``, the context returns
    embeddings, and temperature and top-p are computed from them here."""

    def __init__(
        self,
        graph: native.GraphSampler,
        init_sampler: Callable[..., LlamaSampler],
        settings: dict,
        rows: list[tuple],
        heads: native.Heads | None = None,
    ):
        self.graph = graph
        self.rows = rows
        self.heads = heads
        # llama-cpp-python's own chain of everything that comes before the temperature, less the greedy end
        self.chain = init_sampler(**{**settings, "temp": 0.0})
        last = llama_cpp.llama_sampler_chain_n(self.chain.sampler) - 1
        llama_cpp.llama_sampler_free(llama_cpp.llama_sampler_chain_remove(self.chain.sampler, last))

        cuts = []
        if settings["top_k"] > 0:
            cuts.append(llama_cpp.llama_sampler_init_top_k(settings["top_k"]))
        if settings["typical_p"] < 1.0:
            cuts.append(llama_cpp.llama_sampler_init_typical(settings["typical_p"], 1))
        if settings["min_p"] > 0.0:
            cuts.append(llama_cpp.llama_sampler_init_min_p(settings["min_p"], 1))
        if cuts:
            cuts.insert(0, native.sampler(graph.host_temperature_stage()))
        for stage in [*cuts, native.sampler(graph.host_stage())]:
            llama_cpp.llama_sampler_chain_add(self.chain.sampler, stage)

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        if self.heads is not None:
            self._observe(ctx, idx)
        if self.graph.draws_on_host:
            row = self.graph.sample_on_host(native.address(self.chain.sampler))
        else:
            self.chain.sample(ctx, idx)
            self.graph.check()
            row = self.graph.last()
        self.rows.append(row)
        return row[0]

    def _observe(self, ctx: LlamaContext, idx: int) -> None:
        hidden = np.ctypeslib.as_array(ctx.get_embeddings_ith(idx), (self.heads.embedding_length,))
        logits = np.ctypeslib.as_array(ctx.get_logits_ith(idx), (self.heads.vocab_size,))
        temperature, top_p = self.heads.predict(hidden[None], logits[None])
        self.graph.observe(temperature[0], top_p[0])

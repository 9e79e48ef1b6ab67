"""How one generation samples its tokens: inside llama.cpp's graph, or on the host where a setting cannot live there.

Both have the one sampler method that ``llama_cpp.Llama`` calls, and append a row for each token to ``rows``.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._internals import LlamaContext, LlamaSampler

from autodeco import native
from autodeco.errors import InputError
from autodeco.llama.extra_samplers import taken_off
from autodeco.settings.options import checked

_NUMBERS = {
    **dict.fromkeys(("temp", "temperature", "top_p", "min_p", "typical_p", "tfs_z", "repeat_penalty"), float),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "mirostat_tau", "mirostat_eta"), float),
    **dict.fromkeys(("top_k", "mirostat_mode"), int),
    **dict.fromkeys(("max_tokens", "logprobs", "top_logprobs"), int | None),
}


def check_numbers(settings: dict[str, Any]) -> None:
    """Raise InputError for settings of a generation that are no numbers, or none that llama.cpp can be given."""
    for name in _NUMBERS.keys() & settings.keys():
        kind, value = _NUMBERS[name], settings[name]
        if name == "logprobs" and isinstance(value, bool):  # of a chat: whether it has them
            continue
        limits = () if kind is float else (-(2**31), 2**31 - 1)
        checked(name, value, kind, *limits)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise InputError for settings of a generation that heads cannot be used with; ``check_numbers`` comes before."""
    if settings["mirostat_mode"] != 0:
        raise InputError(
            "mirostat steers by a target of its own and cannot use heads: leave mirostat_mode at 0, or set the model's "
            "heads to None"
        )
    for name in ("temp", "top_p"):
        if settings[name] < 0.0:
            raise InputError(f"{name} {settings[name]}: multiplies the prediction and must be at least 0")
    if settings["repeat_penalty"] <= 0.0:
        raise InputError(f"repeat_penalty {settings['repeat_penalty']}: must be above 0; 1 is none")


def check_chain(chain: LlamaSampler) -> LlamaSampler:
    """Return ``chain``; raise InputError if llama.cpp could not make one of its samplers, which would crash it
    later."""
    for i in range(llama_cpp.llama_sampler_chain_n(chain.sampler)):
        if not llama_cpp.llama_sampler_chain_get(chain.sampler, i):
            llama_cpp.llama_sampler_chain_remove(chain.sampler, i)
            raise InputError("llama.cpp cannot read the grammar; check its rules (GBNF), and that its root rule exists")
    return chain


def is_plain(settings: dict[str, Any]) -> bool:
    """Whether the settings are only temperature and top-p, which the graph can do alone."""
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
    """Where tokens are sampled."""

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

    def begin(self, draft: Sequence[int]) -> None:
        """Before a decode that checks ``draft``: what was decoded until then will not be sampled any more."""
        if self._graph is not None:
            self._graph.discard()
            self._graph.expect([int(token) for token in draft])

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
    """Reads the tokens that the graph sampled, of a batch's outputs one after the other."""

    def __init__(self, graph: native.GraphSampler, rows: list[tuple]):
        self.graph = graph
        self.rows = rows

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        row = self.graph.sample(idx)
        self.rows.append(row)
        return row[0]


LEAST_SHARE = 1e-30  # of the likeliest token: all that have less, together, are far below what float32 can tell


def stock_cuts(settings: dict[str, Any]) -> list["llama_cpp.llama_sampler_p"]:
    """New samplers for the cuts of ``llama_cpp.Llama`` but top-p."""
    cuts = []
    if settings["top_k"] > 0:
        cuts.append(llama_cpp.llama_sampler_init_top_k(settings["top_k"]))
    if settings["typical_p"] < 1.0:
        # llama.cpp's typical makes NaN of tokens whose probability is 0 in float32, as many are at low temperatures
        cuts.append(llama_cpp.llama_sampler_init_min_p(LEAST_SHARE, 1))
        cuts.append(llama_cpp.llama_sampler_init_typical(settings["typical_p"], 1))
    if settings["min_p"] > 0.0:
        cuts.append(llama_cpp.llama_sampler_init_min_p(settings["min_p"], 1))
    return cuts


class Raised:
    """Raises, at its end, what the logits processors of ``chain`` raise while it samples; ctypes would swallow it."""

    def __init__(self, chain: LlamaSampler):
        self._raised: list[BaseException] = []
        for _, custom in chain.custom_samplers:
            custom.apply_func = self._kept(custom.apply_func)

    def _kept(self, apply: Callable[..., None]) -> Callable[..., None]:
        def kept(candidates) -> None:
            try:
                apply(candidates)
            except BaseException as error:  # an interrupt too
                self._raised[:] = [error]

        return kept

    def __enter__(self) -> None:
        self._raised.clear()

    def __exit__(self, *raised) -> None:
        if self._raised:
            raise self._raised.pop()


class StockDraw:
    """Samples by ``chain``, llama-cpp-python's own, where no heads are."""

    def __init__(self, chain: LlamaSampler):
        self.chain = chain
        self._raised = Raised(chain)

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        with self._raised:
            return self.chain.sample(ctx, idx)


class HostDraw:
    """Samples on the host with temperature and top-p from the graph.

    Logits processors, penalties and grammar see the raw logits; then come the temperature, the ``cuts`` and the
    nucleus. ``chain`` is llama-cpp-python's own chain of everything before the temperature, ending greedily. With
    ``heads`` and ``states`` of the context, temperature and top-p are computed from them here, steered by ``level``,
    or by the one that is read at the first state. An exception of a logits processor is raised again; ctypes would
    swallow it.
    """

    def __init__(
        self,
        graph: native.GraphSampler,
        chain: LlamaSampler,
        penalties: list["llama_cpp.llama_sampler_p"],
        cuts: list["llama_cpp.llama_sampler_p"],
        rows: list[tuple],
        heads: native.Heads | None = None,
        states: native.HiddenStates | None = None,
        level: float | None = None,
    ):
        self.graph = graph
        self.chain = chain
        self.rows = rows
        self.heads = heads
        self.states = states
        self.level = level
        self._raised = Raised(chain)
        llama_cpp.llama_sampler_free(taken_off(chain))  # the greedy end
        if cuts:
            cuts = [native.sampler(graph.host_temperature_stage()), *cuts]
        for stage in [*penalties, *cuts, native.sampler(graph.host_stage())]:
            llama_cpp.llama_sampler_chain_add(chain.sampler, stage)

    def sample(self, ctx: LlamaContext, idx: int = -1) -> int:
        if self.heads is not None:
            self._observe(ctx, idx)
        with self._raised:
            if self.graph.draws_on_host:
                row = self.graph.sample_on_host(native.address(self.chain.sampler))
            else:
                self.chain.sample(ctx, idx)
                self.graph.check()
                row = self.graph.last()
        self.rows.append(row)
        return row[0]

    def _observe(self, ctx: LlamaContext, idx: int) -> None:
        assert self.heads is not None, "whoever observes asks with heads and states"
        assert self.states is not None
        hidden = self.states.rows()[idx]  # counted from the last, as llama.cpp does
        logits = np.ctypeslib.as_array(ctx.get_logits_ith(idx), (self.heads.vocab_size,))
        if self.level is None:
            self.level = float(self.heads.levels(hidden[None])[0])
        predicted = self.heads.predict(hidden[None], logits[None])
        (temperature,), (top_p,) = self.heads.steered(*predicted, self.level)
        self.graph.observe(temperature, top_p)

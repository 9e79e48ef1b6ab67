"""``autodeco.Llama``: ``llama_cpp.Llama`` whose temperature and top-p come from heads, token by token."""

import contextlib
import functools
import inspect
import os
import warnings
from collections.abc import Callable

import llama_cpp

from autodeco import native
from autodeco.decoding import Decoding, TokenDecoding
from autodeco.errors import InputError
from autodeco.export.fit import check_fit
from autodeco.export.layout import Layout, open_layout
from autodeco.merged_file import opened_at
from autodeco.sampling import Attachment, GraphDraw, HostDraw, is_plain

# Heads decide: the caller's temperature and top_p multiply what they predict, and nothing else cuts the distribution
# unless the caller asks.
DEFAULTS = {"temperature": 1.0, "temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}


def _with_defaults(method: Callable) -> Callable:
    """``method`` with the defaults of its signature replaced by ours."""
    signature = inspect.signature(method)
    signature = signature.replace(
        parameters=[p.replace(default=DEFAULTS.get(p.name, p.default)) for p in signature.parameters.values()]
    )

    @functools.wraps(method)
    def wrapped(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return method(*bound.args, **bound.kwargs)

    wrapped.__signature__ = signature
    return wrapped


class Llama(llama_cpp.Llama):
    """A llama.cpp model that picks temperature and top-p for every token by itself.

    ``model_path`` is a GGUF model, or a merged file that brings its heads; ``heads_path`` a heads file, which wins
    over the merged file's own. Everything else is as in ``llama_cpp.Llama``, except that ``temperature`` and ``top_p``
    multiply the predictions (default 1.0; temperature 0 is greedy), and top_k, min_p and repetition penalty are off
    unless asked for. Without heads they are ordinary settings. Raises InputError for files that do not fit together.
    """

    def __init__(self, model_path: str, heads_path: str | os.PathLike | None = None, **kwargs):
        # what close() closes, should opening fail before llama_cpp.Llama makes its own
        self._stack = contextlib.ExitStack()
        self._heads: native.Heads | None = None
        self._attachment: Attachment | None = None
        self._rows: list[tuple] = []
        self._generating = False

        layout = open_layout(model_path)
        if not layout.has_base:
            raise InputError(f"{model_path}: holds heads only; give the base model first and this file as heads")
        if heads_path is None and layout.kind == "merged":
            heads_path = model_path
        self.heads_path = None if heads_path is None else os.fspath(heads_path)
        heads = None if heads_path is None else self._read_heads(heads_path, layout)

        with opened_at(model_path, layout.base_offset):
            super().__init__(os.fspath(model_path), **kwargs)
        self._attachment = Attachment(self._ctx)
        self._stack.callback(self._attachment.detach)  # before the context is freed, which the stack does next
        if heads is not None:
            try:
                heads.check_fit(native.address(self.model))
            except ValueError as error:
                self.close()
                raise InputError(f"{heads_path}: {error}; use heads made for this model") from None
        self._heads = heads

    @staticmethod
    def _read_heads(heads_path: str | os.PathLike, model: Layout) -> native.Heads:
        """Read heads and compare them with the model's header, before the model itself takes time to load."""
        heads = native.load_heads(heads_path)
        if os.fspath(heads_path) != model.path and (warning := check_fit(open_layout(heads_path), model)):
            warnings.warn(warning, stacklevel=4)
        return heads

    # llama_cpp.Llama fills this structure field by field and then makes the context from it. Set on the way in, because
    # llama.cpp would otherwise reserve a copy of the sampler's graph for every token of a batch.
    @property
    def context_params(self) -> llama_cpp.llama_context_params:
        return self._context_params

    @context_params.setter
    def context_params(self, params: llama_cpp.llama_context_params) -> None:
        params.n_outputs_max_per_seq = 1
        self._context_params = params

    @property
    def decoding(self) -> Decoding:
        """The values that the tokens of the last generation were drawn with."""
        return Decoding.from_rows(self._rows)

    @property
    def last_decoding(self) -> TokenDecoding:
        """The values that the last generated token was drawn with; raises IndexError before the first."""
        return TokenDecoding(*self._rows[-1])

    def _attach(self, *, observer: bool) -> native.GraphSampler:
        """Have llama.cpp's graph draw tokens, or only compute temperature and top-p (``observer``)."""
        graph, changed = self._attachment.attach(self._heads, observer)
        if graph is None:
            raise InputError(f"{self.model_path}: llama.cpp cannot sample in its graph with this split_mode")
        if changed:
            self._requires_eval = True  # what was decoded before was decoded without this sampler
        return graph

    @property
    def _all_outputs(self) -> bool:
        """Whether every token of a batch is an output (logits_all, draft models, embedding contexts), of which a graph
        sampler may have one: then hidden states come to the host with the logits."""
        return self._logits_all or self.context_params.embeddings

    def _init_sampler(self, **settings):
        if self._heads is None:
            return super()._init_sampler(**settings)
        if settings["mirostat_mode"] != 0:
            raise ValueError("mirostat steers by a target of its own and cannot use heads: leave mirostat_mode at 0")
        for name in ("temp", "top_p"):
            if not 0.0 <= settings[name] < float("inf"):
                raise ValueError(
                    f"{name} multiplies the prediction and must be finite and at least 0, not {settings[name]}"
                )
        if self._all_outputs:
            self._attachment.detach()
            observer = native.GraphSampler(self._heads, True)
            draw = HostDraw(observer, super()._init_sampler, settings, self._rows, self._heads)
        elif self._generating and is_plain(settings):
            draw = GraphDraw(self._attach(observer=False), self._rows)
            self._requires_eval = True  # a cached prompt's token was drawn with the settings of its time
        else:
            draw = HostDraw(self._attach(observer=True), super()._init_sampler, settings, self._rows)
        draw.graph.set_params(self._seed & 0xFFFFFFFF, settings["temp"], settings["top_p"])
        return draw

    def eval(self, tokens):
        if self._heads is not None and self._all_outputs:
            llama_cpp.llama_set_embeddings(self.ctx, True)
        elif self._heads is not None and not self._generating:
            self._attach(observer=True)  # the caller will sample by itself, with settings not known yet
        super().eval(tokens)

    def generate(self, *args, **kwargs):
        self._rows = []
        self._generating = True
        try:
            yield from _generate(self, *args, **kwargs)
        finally:
            self._generating = False
            self._sampler = None  # sample() by hand has settings of its own

    def embed(self, *args, **kwargs):
        self._attachment.detach()
        return super().embed(*args, **kwargs)

    def __getstate__(self):
        return {**super().__getstate__(), "heads_path": self.heads_path}

    create_completion = _with_defaults(llama_cpp.Llama.create_completion)
    __call__ = _with_defaults(llama_cpp.Llama.__call__)
    create_chat_completion = _with_defaults(llama_cpp.Llama.create_chat_completion)
    sample = _with_defaults(llama_cpp.Llama.sample)


_generate = _with_defaults(llama_cpp.Llama.generate)
Llama.generate = functools.wraps(_generate)(Llama.generate)

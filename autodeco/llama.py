"""``autodeco.Llama``: ``llama_cpp.Llama`` whose temperature and top-p come from heads, token by token."""

import contextlib
import functools
import inspect
import os
import warnings
import weakref
from collections.abc import Callable, Iterator

import llama_cpp

from autodeco import native
from autodeco.decoding import Decoding, TokenDecoding
from autodeco.errors import InputError
from autodeco.export.fit import check_fit
from autodeco.export.layout import MERGED, open_layout
from autodeco.merged_file import opened_at
from autodeco.sampling import Attachment, GraphDraw, HostDraw, Place, is_plain

# Heads decide: the caller's temperature and top_p multiply what they predict, and nothing else cuts the distribution
# unless the caller asks.
DEFAULTS = {"temperature": 1.0, "temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}


def _with_defaults(method: Callable, **extra) -> Callable:
    """``method`` with the defaults of its signature replaced by ours, and keyword parameters ``extra`` (name=default)
    that it does not have and its caller takes out again."""
    signature = inspect.signature(method)
    parameters = [p.replace(default=DEFAULTS.get(p.name, p.default)) for p in signature.parameters.values()]
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in extra.items()]
    at = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    signature = signature.replace(parameters=parameters[:at] + own + parameters[at:])

    @functools.wraps(method)
    def wrapped(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return method(*bound.args, **bound.kwargs)

    wrapped.__signature__ = signature
    return wrapped


def _with_values(method: Callable) -> Callable:
    """``method``, which makes completions, with a parameter ``autodeco`` that puts the tokens' values into them."""

    @functools.wraps(method)
    def valued(self, *args, autodeco: bool = False, **kwargs):
        if not autodeco:
            return method(self, *args, **kwargs)
        record = _Record()
        self._records.add(record)
        response = method(self, *args, **kwargs)
        if isinstance(response, dict):
            return _add_values(self, response, record.rows())
        return _valued_chunks(self, response, record)

    valued.__signature__ = inspect.signature(method)
    return _with_defaults(valued, autodeco=False)


class _Record:
    """The rows of all generations that one completion is made of: chat formats with tools take several."""

    def __init__(self):
        self.generations: list[list[tuple]] = []

    def rows(self) -> list[tuple]:
        return [row for rows in self.generations for row in rows]


def _valued_chunks(llm: "Llama", chunks: Iterator[dict], record: _Record) -> Iterator[dict]:
    told = 0
    for chunk in chunks:
        rows = record.rows()
        yield _add_values(llm, chunk, rows[told:])
        told = len(rows)


def _add_values(llm: "Llama", response: dict, rows: list[tuple]) -> dict:
    values = Decoding.from_rows(rows).to_dict() if llm.heads is not None else None
    for choice in response["choices"]:
        choice["autodeco"] = values
    return response


class Llama(llama_cpp.Llama):
    """A llama.cpp model that picks temperature and top-p for every token by itself.

    ``model_path`` is a GGUF model, or a merged file that brings its heads; ``heads_path`` a heads file, which wins
    over the merged file's own. Everything else is as in ``llama_cpp.Llama``, except that ``temperature`` and ``top_p``
    multiply the predictions (default 1.0; temperature 0 is greedy), and top_k, min_p and repetition penalty are off
    unless asked for. Without heads they are ordinary settings. With ``autodeco=True`` every choice of a completion, or
    of a streamed chunk, has a field ``autodeco``: lists of the drawn tokens' values, named as in ``Decoding``, the
    token that ended the text among them (in a chunk, those of the tokens since the last one). Raises InputError for
    files that do not fit together.
    """

    def __init__(self, model_path: str, heads_path: str | os.PathLike | None = None, **kwargs):
        # what close() closes, should opening fail before llama_cpp.Llama makes its own
        self._stack = contextlib.ExitStack()
        self._heads: native.Heads | None = None
        self._heads_path: str | None = None
        self._attachment: Attachment | None = None
        self._rows: list[tuple] = []  # of the last generation
        self._records: weakref.WeakSet[_Record] = weakref.WeakSet()  # of completions under way
        self._generating = False

        self._layout = open_layout(model_path)
        if not self._layout.has_base:
            raise InputError(f"{model_path}: holds heads only; give the base model first and this file as heads")
        if heads_path is None and self._layout.kind == MERGED:
            heads_path = model_path
        heads = None if heads_path is None else self._read_heads(heads_path)

        with opened_at(model_path, self._layout.base_offset):
            super().__init__(os.fspath(model_path), **kwargs)
        self._attachment = Attachment(self._ctx)
        self._stack.callback(self._attachment.detach)  # before the context is freed, which the stack does next
        if heads is not None:
            try:
                self._use(heads, heads_path)
            except InputError:
                self.close()
                raise

    @property
    def heads(self) -> str | None:
        """Path of the heads in use; set another, or None for ordinary settings. Raises InputError, and keeps the old
        ones, for a file that does not fit or while a generation is under way."""
        return self._heads_path

    @heads.setter
    def heads(self, path: str | os.PathLike | None) -> None:
        if self._generating:
            raise InputError(f"{self.model_path}: is generating; change its heads when that is done or closed")
        self._use(None if path is None else self._read_heads(path), path)

    def _use(self, heads: native.Heads | None, path: str | os.PathLike | None) -> None:
        if heads is not None:
            try:
                heads.check_fit(native.address(self.model))
            except ValueError as error:
                raise InputError(f"{path}: {error}; use heads made for this model") from None
        self._attachment.detach()
        self._heads = heads
        self._heads_path = None if path is None else os.fspath(path)
        self._sampler = None

    def _read_heads(self, heads_path: str | os.PathLike) -> native.Heads:
        """Read heads and compare them with the model's header, before the model itself takes time to load."""
        heads = native.load_heads(heads_path)
        is_own = os.fspath(heads_path) == self._layout.path
        if not is_own and (warning := check_fit(open_layout(heads_path), self._layout)):
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

    def _attach(self, place: Place) -> native.GraphSampler:
        """Have llama.cpp's graph compute temperature and top-p, and draw tokens too if this is the ``place``."""
        graph, changed = self._attachment.attach(self._heads, place)
        if graph is None:
            raise InputError(f"{self.model_path}: llama.cpp cannot sample in its graph with this split_mode")
        if changed:
            self._requires_eval = True  # what was decoded before was decoded for another place
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
            draw = GraphDraw(self._attach(Place.GRAPH), self._rows)
            self._requires_eval = True  # a cached prompt's token was drawn with the settings of its time
        else:
            graph = self._attach(Place.HOST if self._generating else Place.CALLER)
            draw = HostDraw(graph, super()._init_sampler, settings, self._rows)
        draw.graph.set_params(self._seed & 0xFFFFFFFF, settings["temp"], settings["top_p"])
        return draw

    def eval(self, tokens):
        if self._heads is not None and self._all_outputs:
            llama_cpp.llama_set_embeddings(self.ctx, True)
        elif self._heads is not None and not self._generating:
            self._attach(Place.CALLER)  # the caller will sample by itself, with settings not known yet
        super().eval(tokens)

    def generate(self, *args, **kwargs):
        self._rows = []
        for record in self._records:
            record.generations.append(self._rows)
        self._generating = True
        try:
            yield from _generate(self, *args, **kwargs)
        finally:
            self._generating = False
            self._sampler = None  # sample() by hand has settings of its own

    def sample(self, *args, idx: int | None = None, **settings) -> int:
        if self._sampler is None or args:
            return _sample(self, *args, idx=idx, **settings)
        # every token of a generation: the sampler has the settings, and binding them again takes longer than the draw
        return self._sampler.sample(self._ctx, -1 if idx is None else idx - self.n_tokens)

    def embed(self, *args, **kwargs):
        self._attachment.detach()
        return super().embed(*args, **kwargs)

    def __getstate__(self):
        return {**super().__getstate__(), "heads_path": self.heads}

    create_completion = _with_values(llama_cpp.Llama.create_completion)
    __call__ = _with_values(llama_cpp.Llama.__call__)
    create_chat_completion = _with_values(llama_cpp.Llama.create_chat_completion)


_generate = _with_defaults(llama_cpp.Llama.generate)
Llama.generate = functools.wraps(_generate)(Llama.generate)
_sample = _with_defaults(llama_cpp.Llama.sample)
Llama.sample = functools.wraps(_sample)(Llama.sample)

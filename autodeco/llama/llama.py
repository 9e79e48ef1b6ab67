"""``autodeco.Llama``: ``llama_cpp.Llama`` whose temperature and top-p come from heads, token by token."""

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Iterator, Sequence

import llama_cpp

from autodeco import native
from autodeco.base.memory import can_cut
from autodeco.base.opening import opened_at
from autodeco.base.rpc import add_servers
from autodeco.base.token_bytes import WholeTokenizer
from autodeco.errors import InputError
from autodeco.export.fit import check_fit
from autodeco.export.layout import EMBEDDED, open_layout
from autodeco.export.split_parts import check_parts
from autodeco.features import check_drafts, set_outputs_per_text
from autodeco.llama import extra_samplers
from autodeco.llama.asked import check_context, check_seed
from autodeco.llama.at_exit import close_at_exit
from autodeco.llama.chat import use_own_templates
from autodeco.llama.completions import BOTH, Call, completing
from autodeco.llama.decoding import Decoding, TokenDecoding
from autodeco.llama.exclusive import ExclusiveLlama
from autodeco.llama.extra_samplers import ExtraSamplers
from autodeco.llama.gbnf import check_grammar
from autodeco.llama.sampling import (
    Attachment,
    GraphDraw,
    HostDraw,
    Place,
    StockDraw,
    check_chain,
    check_numbers,
    check_settings,
    is_plain,
    stock_cuts,
)
from autodeco.llama.seeds import Seeds, is_random
from autodeco.llama.split_mode import check_rows, check_tensors
from autodeco.llama.text_completion import complete
from autodeco.llama.turns import Turn
from autodeco.settings.options import checked

# Whose states are narrower than llama.cpp takes embeddings to be: it reads past their end, and aborts the process.
WITHOUT_EMBEDDINGS = {"deepseek4", "qwen4exp"}


class Llama(ExclusiveLlama):
    """A llama.cpp model that picks temperature and top-p for every token by itself.

    ``model_path`` is a GGUF model, or a merged or embedded file that brings its heads; ``heads_path`` a heads file,
    which wins over those. Everything else is as in ``llama_cpp.Llama``, except that ``temperature`` and ``top_p``
    multiply the predictions (default 1.0; temperature 0 is greedy), and top_k, min_p and repetition penalty are off
    unless asked for. Without heads they are ordinary settings. With ``autodeco=True`` every choice of a completion, or
    of a streamed chunk, has a field ``autodeco``: lists of the sampled tokens' values, named as in ``Decoding``. The
    token that ended the text is among them; a chunk has the tokens since the last one. Completions also take ``heads``,
    which of them decide: ``"both"``, ``"temperature"``, ``"top_p"`` or ``"none"``; ``temperature`` (``top_p``) is an
    ordinary setting where its head does not. They take ``n``, the number of choices, which are made one after the other
    with consecutive seeds. Completions, ``generate`` and ``sample`` take the settings of ``ExtraSamplers``.
    ``rpc_servers`` are those of llama.cpp's RPC ("host:port,..."), whose devices count as GPUs for every model that the
    process opens from then on; all layers are theirs unless ``n_gpu_layers`` says otherwise. Raises InputError for
    files that do not fit together, for settings that make no sense, and where no server answers.
    """

    def __init__(
        self,
        model_path: str,
        heads_path: str | os.PathLike | None = None,
        *,
        rpc_servers: str | None = None,
        **kwargs,
    ):
        # what close() closes, should opening fail before llama_cpp.Llama makes its own
        self._stack = contextlib.ExitStack()
        self._turn = Turn(model_path)
        self._heads: native.Heads | None = None
        self._heads_path: str | None = None
        self._attachment: Attachment | None = None
        self._rows: list[tuple] = []  # of the last generation
        self._call: Call | None = None  # the completion under way
        self._samplers = extra_samplers.OFF
        self._level: float | None = None
        self._seeds = Seeds(None)  # of completions that are given none
        # of contexts whose every token is an output; the others' heads see them in the graph
        all_outputs = any(kwargs.get(name) for name in ("logits_all", "embedding"))
        self._states = native.HiddenStates() if all_outputs else None

        self._layout = open_layout(model_path)
        if not self._layout.has_base:
            raise InputError(f"{model_path}: holds heads only; give the base model first and this file as heads")
        check_parts(self._layout)
        if kwargs.get("embedding") and self._layout.architecture in WITHOUT_EMBEDDINGS:
            raise InputError(
                f"{model_path}: llama.cpp cannot embed with a model of this architecture "
                f"({self._layout.architecture}); open it without embedding=True"
            )
        if heads_path is None and self._layout.brings_heads:
            heads_path = model_path
        split_mode = kwargs.get("split_mode", llama_cpp.LLAMA_SPLIT_MODE_LAYER)
        heads = None
        if heads_path is not None:
            check_tensors(model_path, split_mode)
            heads = self._read_heads(heads_path)

        self._rpc_servers = rpc_servers
        if rpc_servers is not None:
            add_servers(rpc_servers)
            kwargs.setdefault("n_gpu_layers", -1)
        check_rows(model_path, split_mode)
        check_context(kwargs)
        with opened_at(model_path, self._layout.base_offset):
            super().__init__(model_path, **kwargs)
        if self.lora_path and not self._lora_adapter:  # llama_cpp looks for None, and gets a pointer to nothing
            self.close()
            raise InputError(
                f"{self.lora_path}: is no LoRA adapter for {model_path}; give a GGUF that convert_lora made"
            )
        use_own_templates(self, kwargs.get("chat_format"))
        if self.draft_model is not None and not can_cut(self):
            self.close()
            raise InputError(
                f"{model_path}: cannot take back the tokens of a draft, since its memory is one state for all tokens; "
                "open it without draft_model"
            )
        self.set_seed(kwargs.get("seed", llama_cpp.LLAMA_DEFAULT_SEED))
        if kwargs.get("tokenizer") is None:
            self.tokenizer_ = WholeTokenizer(self)
        self._attachment = Attachment(self._ctx)
        self._stack.callback(self._attachment.detach)  # before the context is freed, which the stack does next
        close_at_exit(self)
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
        with self._turn:
            self._check_open()
            if self._generating:
                raise InputError(f"{self.model_path}: is generating; change its heads when that is done or closed")
            self._use(None if path is None else self._read_heads(path), path)

    @property
    def level(self) -> float | None:
        """The level in [-1, 1] that generations are steered by from the next one on, -1 towards cold and 1 towards hot;
        None, the default: what a control head reads at the state that a text's first token is sampled from. Each token
        that is sampled by hand begins a text. Without a control head it steers nothing. Raises InputError for others.
        """
        return self._level

    @level.setter
    def level(self, level: float | None) -> None:
        level = checked("level", level, float | None, -1.0, 1.0)
        with self._turn:
            self._check_open()
            if level != self._level and not self._generating and self._heads is not None and self._heads.has_control:
                self._requires_eval = True  # what was decoded was decoded for the other one
            self._level = level

    @property
    def _set_level(self) -> float:
        return math.nan if self._level is None else self._level

    def _use(self, heads: native.Heads | None, path: str | os.PathLike | None) -> None:
        if heads is not None:
            check_tensors(self.model_path, self.model_params.split_mode)
            try:
                heads.check_fit(native.address(self.model))
            except ValueError as error:
                raise InputError(f"{path}: {error}; use heads made for this model") from None
            if self.draft_model is not None and self._states is None:
                check_drafts(self.model_path)
        assert self._attachment is not None, "opening makes it before it uses heads"
        self._attachment.detach()
        self._heads = heads
        self._heads_path = None if path is None else os.fspath(path)
        self._sampler = None
        self._requires_eval = True  # the last graph may have left no logits

    def _read_heads(self, heads_path: str | os.PathLike) -> native.Heads:
        """Read heads and compare them with the model's header, before the model itself takes time to load."""
        heads = native.load_heads(heads_path)
        theirs = self._layout if os.fspath(heads_path) == self._layout.path else open_layout(heads_path)
        # a merged file's own heads are as they were written; an embedded one's stay when its model is quantized
        is_sure = theirs is self._layout and theirs.kind != EMBEDDED
        if not is_sure and (warning := check_fit(theirs, self._layout)):
            warnings.warn(warning, stacklevel=4)
        return heads

    # llama_cpp.Llama fills this structure field by field and then makes the context from it. Set on the way in, because
    # llama.cpp would otherwise reserve a copy of the sampler's graph for every token of a batch, and tell hidden states
    # with its embeddings flag only, which some architectures compute no logits with.
    @property
    def context_params(self) -> llama_cpp.llama_context_params:
        return self._context_params

    @context_params.setter
    def context_params(self, params: llama_cpp.llama_context_params) -> None:
        set_outputs_per_text(params, self._most_outputs)
        if self._states is not None:
            native.watch(self._states, params)
        self._context_params = params

    @property
    def decoding(self) -> Decoding:
        """The values that the tokens of the last generation were sampled with."""
        return Decoding.from_rows(self._rows)

    @property
    def last_decoding(self) -> TokenDecoding:
        """The values that the last generated token was sampled with; raises IndexError before the first."""
        return TokenDecoding(*self._rows[-1])

    def _attach(self, place: Place) -> native.GraphSampler:
        """Have llama.cpp's graph compute temperature and top-p, and draw tokens too if this is the ``place``."""
        assert self._attachment is not None
        assert self._heads is not None, "without heads llama.cpp's own chain draws"
        graph, changed = self._attachment.attach(self._heads, place)
        if graph is None:
            raise InputError(f"{self.model_path}: llama.cpp cannot sample in its graph with this split_mode")
        if changed:
            self._requires_eval = True  # what was decoded before was decoded for another place
        return graph

    def set_seed(self, seed: int) -> None:
        """Set the seed of generations, and of completions that are given none; -1 is a random one for each."""
        check_seed(seed)
        super().set_seed(llama_cpp.LLAMA_DEFAULT_SEED if is_random(seed) else seed)
        self._seeds = Seeds(seed)

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        tokens = super().tokenize(text, add_bos, special)
        # with its first token, llama.cpp adds the one that some vocabularies end every text with: behind the prompt of
        # a chat there is nothing to say
        ended = self._call is not None and add_bos and self._model.add_eos_token()
        return tokens[:-1] if ended and tokens[-1:] == [self.token_eos()] else tokens

    def _create_completion(self, **asked) -> Iterator[dict]:
        return complete(self, **asked)

    def _init_sampler(self, **settings):
        before = self._seed
        self._seed = self._call.seed if self._call else before
        try:
            return self._new_sampler(**settings)
        finally:
            self._seed = before

    def _new_sampler(self, **settings):
        check_numbers(settings)
        if settings.get("grammar") is not None:
            check_grammar(settings["grammar"])
        if self._heads is None:
            chain = check_chain(super()._init_sampler(**settings))
            self._samplers.insert(chain, settings, self, self._seed)
            return StockDraw(chain)
        check_settings(settings)
        if self._states is not None:
            self._attachment.detach()
            if self.context_params.embeddings and self.pooling_type() != llama_cpp.LLAMA_POOLING_TYPE_NONE:
                raise InputError(
                    f"{self.model_path}: this context pools embeddings, so that heads see no token's hidden state; "
                    "generate with another Llama, opened without embedding=True"
                )
            observer = native.GraphSampler(self._heads, True)
            draw = self._host_draw(observer, settings, self._heads, self._states)
        elif self._generating and self._samplers == extra_samplers.OFF and is_plain(settings):
            draw = GraphDraw(self._attach(Place.GRAPH), self._rows)
            self._requires_eval = True  # a cached prompt's token was drawn with the settings of its time
        else:
            graph = self._attach(Place.HOST if self._generating else Place.CALLER)
            draw = self._host_draw(graph, settings)
        decide = self._call.heads if self._call else BOTH
        draw.graph.set_fixed(decide in ("none", "top_p"), decide in ("none", "temperature"))
        draw.graph.set_level(self._set_level)
        draw.graph.set_params(self._seed & 0xFFFFFFFF, settings["temp"], settings["top_p"])
        return draw

    def _host_draw(
        self,
        graph: native.GraphSampler,
        settings: dict,
        heads: native.Heads | None = None,
        states: native.HiddenStates | None = None,
    ) -> HostDraw:
        chain = check_chain(super()._init_sampler(**{**settings, "temp": 0.0}))
        samplers = self._samplers
        cuts = [*samplers.first_cuts(), *stock_cuts(settings), *samplers.last_cuts(self._seed)]
        return HostDraw(graph, chain, samplers.penalties(self), cuts, self._rows, heads, states, self._level)

    def _prepare_decode(self) -> None:
        if self._states is not None:
            self._states.clear()
            by_hand = self._heads is None and not self._generating
            llama_cpp.llama_set_embeddings(self.ctx, self.context_params.embeddings and by_hand)
        elif self._heads is not None and not self._generating:
            # the caller will sample by itself, with settings not known yet
            self._attach(Place.CALLER).set_level(self._set_level)

    def _begin_outputs(self, draft: Sequence[int] = ()) -> None:
        if self._attachment is not None:
            self._attachment.begin(draft)

    def _sampler_by_hand(self, settings: dict):
        self._take_extra_samplers(settings)
        return super()._sampler_by_hand(settings)

    def _begin(self, generation: object, settings: dict) -> None:
        super()._begin(generation, settings)
        self._take_extra_samplers(settings)
        self._rows = []
        if self._call:
            self._samplers = self._call.samplers
            self._call.generations.append(self._rows)

    def _take_extra_samplers(self, settings: dict) -> None:
        self._samplers = ExtraSamplers(**{name: settings.pop(name) for name in extra_samplers.DEFAULTS})

    @functools.wraps(llama_cpp.Llama.embed)
    def embed(self, *args, **kwargs):
        with self._turn:
            self._check_open()
            if self.context_params.embeddings:  # else it refuses, and a generation under way goes on
                self._attachment.detach()
                llama_cpp.llama_set_embeddings(self.ctx, True)  # which a generation takes off
            return super().embed(*args, **kwargs)

    def tokenizer(self) -> WholeTokenizer:
        return WholeTokenizer(self)

    def __getstate__(self):
        ours = {"heads_path": self.heads, "rpc_servers": self._rpc_servers, "level": self._level}
        return {**super().__getstate__(), **ours}

    def __setstate__(self, state):
        level = state.pop("level")
        super().__setstate__(state)
        self.level = level

    create_completion = completing(llama_cpp.Llama.create_completion)
    __call__ = completing(llama_cpp.Llama.__call__)
    create_chat_completion = completing(llama_cpp.Llama.create_chat_completion)

"""What ``llama_cpp.Llama`` leaves to the caller: one use of a context at a time, and no draw from an earlier use."""

import copy
import functools
import os
from collections.abc import Generator, Sequence

import llama_cpp
import numpy as np

from autodeco.base.forks import check_threads
from autodeco.base.opening import FilePath
from autodeco.errors import InputError
from autodeco.llama.completions import own_signature
from autodeco.llama.drafting import Drafting, most_outputs
from autodeco.llama.extra_samplers import DEFAULTS as EXTRA

GENERATE = own_signature(llama_cpp.Llama.generate, **EXTRA)
SAMPLE = own_signature(llama_cpp.Llama.sample, **EXTRA)


class ExclusiveLlama(llama_cpp.Llama):
    """A ``llama_cpp.Llama`` that one thread and one process use, and whose tokens follow from tokens.

    A subclass makes samplers from settings that hold those of ``ExtraSamplers`` too.
    """

    def __init__(self, model_path: str | os.PathLike, **kwargs):
        check_threads(model_path, kwargs.get("n_threads"), kwargs.get("n_threads_batch"))
        self._generation: object | None = None  # the generation under way
        self._in_generation = False  # while that one runs, instead of its caller
        self._outputs = 0  # tokens at the end of the last batch whose logits the context has
        self._prompt_read = False  # by the generation under way, whose next tokens come with drafts
        self._text_end = 0  # of its text in the context; what is behind it was drafted
        self._hidden = 0  # drafted tokens at the end of the context, which a token that is sampled does not follow
        self._drafted = self._accepted = 0
        draft_model = kwargs.get("draft_model")
        if not kwargs.get("logits_all") and not kwargs.get("embedding"):
            # for which llama_cpp copies the logits of every token; those of the last one and its draft are enough
            kwargs["draft_model"] = None
        self._most_outputs = most_outputs(draft_model, kwargs.get("n_ubatch") or 512)
        super().__init__(FilePath(os.fspath(model_path)), **kwargs)
        self.draft_model = draft_model
        self._most_outputs = min(self._most_outputs, self.n_batch)
        self._make_room()

    def _make_room(self) -> None:
        """Hold as many tokens as the context, which llama.cpp rounds up to 256 at least, and ``llama_cpp`` does not."""
        room = self._n_ctx + (self.draft_model is not None)  # it gets the next token, even where that finds no place
        if len(self.input_ids) != room:
            left = self.input_ids[:room]
            self.input_ids = np.zeros(room, np.intc)
            self.input_ids[: len(left)] = left
        if self._logits_all and len(self.scores) < self._n_ctx:
            self.scores = np.zeros((self._n_ctx, self._n_vocab), np.single)

    @property
    def _generating(self) -> bool:
        return self._generation is not None

    def _check_open(self) -> None:
        self._turn.check_process()
        if self._ctx.ctx is None:
            raise InputError(f"{self.model_path}: was closed; open it again")

    def _end_generation(self) -> None:
        """What the caller does with the context by hand ends a generation that was left alone."""
        if not self._in_generation:
            if self._generation is not None:
                self._drop_draft()
            self._generation = self._sampler = None

    def _drop_draft(self) -> None:
        """End the context where the text of the generation under way does, as it is without drafts.

        The next decode removes what lies behind."""
        if self._prompt_read and self.n_tokens > self._text_end:
            self.n_tokens = self._text_end
            self._outputs = 1
            self._requires_eval = True

    @property
    def drafting(self) -> Drafting:
        """Tokens that the last generation's drafts had, and those that were accepted."""
        return Drafting(self._drafted, self._accepted)

    @property
    def _input_ids(self):  # logits processors are given it
        return self.input_ids[: self.n_tokens - self._hidden]

    def _prepare_decode(self) -> None:
        """For subclasses: called before tokens are decoded."""

    def _begin_outputs(self, draft: Sequence[int] = ()) -> None:
        """For subclasses: called before a batch is decoded that ends in ``draft``, whose outputs alone count from then
        on."""

    def eval(self, tokens: Sequence[int]) -> None:
        with self._turn:
            self._check_open()
            self._end_generation()
            if len(tokens) == 0:
                if self.n_tokens == 0:
                    raise InputError("there are no tokens to evaluate, and nothing predicts a first one")
                if self._in_generation and self._requires_eval:
                    self._decode_again()
                self._prompt_read = self._in_generation
                return
            for token in (min(tokens), max(tokens)):
                if not 0 <= token < self._n_vocab:
                    raise InputError(f"token {token} is outside the vocabulary of {self._n_vocab}")
            if self.n_tokens + len(tokens) > self._n_ctx:
                raise InputError(f"the context of {self._n_ctx} tokens is full; end the text there, or raise n_ctx")
            self._prepare_decode()
            has_draft = self._in_generation and self._prompt_read and len(tokens) > 1
            try:
                if has_draft and not self._logits_all:
                    tokens = tokens[: self._most_outputs]
                    self._decode_outputs(tokens)
                else:
                    for start in range(0, len(tokens), self.n_batch):
                        self._begin_outputs()
                        super().eval(tokens[start : start + self.n_batch])
            except BaseException:
                self._requires_eval = True  # what the context has is not of these tokens
                raise
            self._drafted += len(tokens) - 1 if has_draft else 0
            all_outputs = self._logits_all or has_draft
            self._outputs = (len(tokens) - 1) % self.n_batch + 1 if all_outputs else 1
            self._prompt_read = self._in_generation

    def _decode_outputs(self, tokens: Sequence[int]) -> None:
        """Decode tokens so that one can be sampled behind each."""
        self._begin_outputs(tokens[1:])
        self._ctx.kv_cache_seq_rm(-1, self.n_tokens, -1)
        self._batch.set_batch(batch=tokens, n_past=self.n_tokens, logits_all=True)
        self._ctx.decode(self._batch)
        self.input_ids[self.n_tokens : self.n_tokens + len(tokens)] = tokens
        self.n_tokens += len(tokens)
        self._requires_eval = False

    def _decode_again(self) -> None:
        """Decode the last outputs once more: the context's logits are of another use, or of another sampler's graph."""
        start = self.n_tokens - max(1, min(self._outputs, self.n_tokens))
        tokens = self.input_ids[start : self.n_tokens].tolist()
        if not self._ctx.kv_cache_seq_rm(-1, start, -1):
            raise InputError(
                f"{self.model_path}: this kind of model cannot go back to its last token, whose logits are gone; "
                "reset() and evaluate all tokens again"
            )
        self.n_tokens = start
        self.eval(tokens)

    def sample(self, *args, **settings) -> int:
        with self._turn:
            self._check_open()
            if (
                self._in_generation and self._sampler is not None
            ):  # the sampler has the settings; binding them again takes longer than the draw
                sampler, idx = self._sampler, settings.get("idx")
                if self._requires_eval:
                    self._decode_again()
            else:
                given = SAMPLE.bind(self, *args, **settings)
                given.apply_defaults()
                settings = dict(given.arguments)
                del settings["self"]
                idx = settings.pop("idx")
                sampler = self._sampler_by_hand(settings)
            place = -1 if idx is None else idx - self.n_tokens
            if not -self._outputs <= place < 0:
                raise InputError(
                    f"idx {idx}: the last batch has logits of {self._outputs} tokens before {self.n_tokens} only; "
                    "open the model with logits_all=True for more, and a larger n_batch"
                )
            self._hidden = -1 - place
            try:
                with self._turn.sampling():
                    token = sampler.sample(self._ctx, place)
            finally:
                self._hidden = 0
            self._text_end = self.n_tokens + place + 1
            if place < -1 and self._in_generation and token == self.input_ids[self._text_end]:
                self._accepted += 1
            return token

    def _sampler_by_hand(self, settings: dict):
        """A sampler for a token that the caller asks for between decodes, whose logits the context then has."""
        if self._generating:
            raise InputError(f"{self.model_path}: is generating; sample by hand when that is done or closed")
        if self.n_tokens == 0:
            raise InputError("nothing was evaluated, so that nothing predicts a token; call eval with tokens first")
        self._sampler = None
        sampler = self._init_sampler(**settings)
        if self._requires_eval:
            self._decode_again()
        return sampler

    def generate(self, *args, **settings) -> Generator[int, Sequence[int] | None, None]:
        given = GENERATE.bind(self, *args, **settings)
        given.apply_defaults()
        settings = dict(given.arguments)
        del settings["self"]
        settings["tokens"] = list(settings["tokens"])
        generation = object()
        with self._turn:
            self._begin(generation, settings)
            tokens = super().generate(**settings)
        more = None
        try:
            while True:
                try:
                    token = self._go_on(generation, tokens, more)
                except StopIteration:
                    return
                more = yield token
                if more is not None and not self._logits_all:
                    raise InputError("tokens can be sent to a generation of a model with logits_all=True only")
        finally:
            tokens.close()
            if self._generation is generation:
                self._drop_draft()
                self._generation = None
                self._sampler = None  # sample() by hand has settings of its own

    def _begin(self, generation: object, settings: dict) -> None:
        self._check_open()
        if not settings["tokens"] and (settings["reset"] or self.n_tokens == 0):
            raise InputError("the prompt has no tokens, and nothing predicts a first one; give some text")
        self._generation = generation
        self._prompt_read = False
        self._drafted = self._accepted = 0

    def _go_on(self, generation: object, tokens: Generator, more: Sequence[int] | None) -> int:
        """The next token of ``generation``, which must still be the one under way."""
        with self._turn.awaited():
            if self._generation is not generation:
                raise InputError(
                    f"{self.model_path}: another generation has begun since this one's last token, or its context was "
                    "changed by hand; end one before the next, or open the model twice"
                )
            before, self._in_generation = self._in_generation, True
            try:
                return tokens.send(more)
            finally:
                self._in_generation = before

    @functools.wraps(llama_cpp.Llama.embed)
    def embed(self, input, *args, **kwargs):
        with self._turn:
            self._check_open()
            for index, text in enumerate([input] if isinstance(input, str) else input):
                if not self.tokenize(text.encode("utf-8")):
                    raise InputError(f"text {index} has no tokens, so that there is nothing to embed")
            # a generation under way goes on afterwards
            left = self._generation, self._sampler, self._outputs
            state = super().save_state() if self._generating and self.context_params.embeddings else None
            try:
                return super().embed(input, *args, **kwargs)
            finally:
                if state is not None:
                    super().load_state(state)
                    self._generation, self._sampler, self._outputs = left

    def save_state(self):
        with self._turn:
            self._check_open()
            drafted = self._generating and self._prompt_read and not self._in_generation
            tokens = self.n_tokens
            self.n_tokens = self._text_end if drafted else tokens  # of the text only; llama_cpp drops what is behind it
            try:
                return super().save_state()
            finally:
                self.n_tokens = tokens

    def load_state(self, state) -> None:
        with self._turn:
            self._check_open()
            if state.n_tokens > self._n_ctx:
                raise InputError(f"the state has {state.n_tokens} tokens, and the context {self._n_ctx}; raise n_ctx")
            self._end_generation()
            if not self._logits_all:  # then it holds no logits, only as many rows of zeros as its own n_batch
                state = copy.copy(state)
                state.scores = np.zeros((1, self._n_vocab), np.single)
            try:
                super().load_state(state)
            except (RuntimeError, ValueError):
                self.n_tokens = 0  # the context may have a part of it
                raise InputError("the state is not of this model and its settings; save one of this model") from None
            finally:
                self._make_room()  # the state brings as many ids as its own context has

    def reset(self) -> None:
        with self._turn:
            self._check_open()
            self._end_generation()
            super().reset()

    def close(self) -> None:
        if self._turn.is_elsewhere:  # a forked child's copy, whose turn another thread may have had
            super().close()
            return
        with self._turn:
            super().close()


for _ours, _stock, _signature in (
    (ExclusiveLlama.generate, llama_cpp.Llama.generate, GENERATE),
    (ExclusiveLlama.sample, llama_cpp.Llama.sample, SAMPLE),
):
    functools.update_wrapper(_ours, _stock)
    _ours.__signature__ = _signature

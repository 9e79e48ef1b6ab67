"""A completion as ``llama_cpp.Llama`` makes it, in time for each token that does not grow with the text.

llama-cpp-python reads the whole text again for every token. It also loses an unfinished letter at the end of the
context, goes on behind ``max_tokens`` inside a letter, cuts at the first stop string of the list, and forgets ``echo``
in a stream.
"""

import contextlib
import time
import uuid
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import llama_cpp

from autodeco.errors import InputError
from autodeco.llama.answer_text import AnswerText, TokenTexts
from autodeco.llama.logprobs import joined, logprobs_of
from autodeco.reports.token_texts import texts_of

if TYPE_CHECKING:
    from autodeco.llama.llama import Llama

INFILL = 0  # the token that llama-cpp-python has around prompt and suffix
MARK = "☺"  # before a suffix, so that no space is put there


def complete(
    llm: "Llama",
    prompt: str | list[int],
    suffix: str | None = None,
    max_tokens: int | None = 16,
    temperature: float = 1.0,
    logprobs: int | None = None,
    echo: bool = False,
    stop: str | list[str] | None = None,
    stream: bool = False,
    seed: int | None = None,
    model: str | None = None,
    stopping_criteria: llama_cpp.StoppingCriteriaList | None = None,
    logit_bias: None = None,  # a logits processor by now
    **settings: Any,
) -> Iterator[dict]:
    """Yield the completion, or its chunks with ``stream``; all parameters are those of ``create_completion``."""
    tokens = _prompt_tokens(llm, prompt, suffix)
    n_ctx = llm.n_ctx()
    if len(tokens) >= n_ctx:
        raise InputError(f"Requested tokens ({len(tokens)}) exceed context window of {n_ctx}; raise n_ctx")
    if logprobs is not None and not llm._logits_all:
        raise InputError(
            "logprobs is not supported for models created with logits_all=False; open it with logits_all=True"
        )
    if tokens[:2] == [llm.token_bos()] * 2:
        warnings.warn(
            f'the prompt begins with two "{llm._model.token_get_text(llm.token_bos())}", which makes answers worse: '
            "the model's vocabulary puts one there by itself",
            RuntimeWarning,
            stacklevel=2,
        )
    room = n_ctx - len(tokens)
    limit = room if max_tokens is None or max_tokens <= 0 else min(max_tokens, room)
    if llm.verbose:
        llm._ctx.reset_timings()
    _use_cache(llm, tokens)
    llm._call.take_seed(seed)
    answer = _Answer(llm, prompt, tokens, [text for text in _listed(stop) if text], logprobs)
    form = _Form(model if model is not None else llm.model_path)
    generation = llm.generate(tokens, temp=temperature, stopping_criteria=stopping_criteria, **settings)
    finish = "stop"  # where the stopping criteria end it
    with contextlib.closing(generation):
        for token in generation:
            if stream and echo:  # when the first token is drawn, so that what is refused is refused before any chunk
                yield form.chunk((answer.prompt_text, answer.echoed()))
                echo = False
            if llama_cpp.llama_vocab_is_eog(llm._model.vocab, token):
                break
            answer.add(token)
            if stream:
                yield from map(form.chunk, answer.parts())
            if answer.text.stopped:
                break
            if len(answer.tokens) >= limit:
                finish = "length"
                break
    if finish == "length" and stopping_criteria is not None:
        finish = "stop" if stopping_criteria(llm._input_ids, llm._scores[-1, :]) else finish
    answer.finish()
    if llm.verbose:
        llm._ctx.print_timings()
    if llm.cache:
        llm.cache[tokens + answer.tokens] = llm.save_state()
    if stream:
        yield from map(form.chunk, answer.parts())
        yield form.chunk(("", None), finish)
        return
    text = (answer.prompt_text if echo else "") + str(answer.text)
    usage = {"prompt_tokens": len(tokens), "completion_tokens": len(answer.tokens)}
    usage["total_tokens"] = sum(usage.values())
    yield form.chunk((text, answer.logprobs(echo)), finish) | {"usage": usage}


class _Answer:
    """The tokens of an answer, their text, and what of it nobody was given yet."""

    def __init__(
        self, llm: "Llama", prompt: str | list[int], prompt_tokens: list[int], stops: list[str], most: int | None
    ):
        self._llm, self._prompt, self._prompt_tokens, self._most = llm, prompt, prompt_tokens, most
        self._texts = TokenTexts(llm, prompt_tokens)
        self._bare = len(prompt) == 0  # then the space that some vocabularies begin a text with is left out
        self._begin = 0 if most is None else len(self.prompt_text)
        self._letters = 0
        self._new = ""
        self._waiting: deque[tuple[str, dict]] = deque()  # tokens whose text is not certain
        self.text = AnswerText(stops)
        self.tokens: list[int] = []
        self._logprobs: list[dict] = []

    @property
    def prompt_text(self) -> str:
        if isinstance(self._prompt, str):
            return self._prompt
        return self._llm.detokenize(self._prompt).decode("utf-8", "replace")

    def add(self, token: int) -> None:
        piece = self._texts.of(token)
        if self._bare and piece:
            piece, self._bare = piece.removeprefix(b" "), False
        self._new += self.text.add(piece)
        if self._most is not None:
            text, position = self.text.last, len(self._prompt_tokens) + len(self.tokens)
            offset = self._begin + self._letters
            self._logprobs.append(logprobs_of(self._llm, token, text, offset, position, self._most))
            self._waiting.append((text, self._logprobs[-1]))
            self._letters += len(text)
        self.tokens.append(token)

    def finish(self) -> None:
        """End the text where the answer ended."""
        if not self.text.stopped:
            self._new += self.text.finish()

    def parts(self) -> Iterator[tuple[str, dict | None]]:
        """Yield what is certain and was not given yet; with log-probabilities, by tokens."""
        while self._waiting and len(self._waiting[0][0]) <= len(self._new):
            text, logprobs = self._waiting.popleft()
            self._new = self._new[len(text) :]
            yield text, logprobs
        if self._new and (self._most is None or self.text.stopped):  # of a token, what comes before the stop string
            text, self._new = self._new, ""
            yield text, self._waiting[0][1] if self._waiting else None

    def logprobs(self, echo: bool) -> dict | None:
        """Those of all tokens, with ``echo`` those of the prompt too."""
        if self._most is None:
            return None
        return joined([*(self._of_prompt() if echo else ()), *self._logprobs])

    def echoed(self) -> dict | None:
        """Those of the prompt's tokens."""
        return None if self._most is None else joined(list(self._of_prompt()))

    def _of_prompt(self) -> Iterator[dict]:
        tokens, first, offset = self._prompt_tokens, int(self._prompt_tokens[0] == self._llm.token_bos()), 0
        texts = texts_of(self._llm.detokenize([token]) for token in tokens)
        for position in range(first, len(tokens)):
            text = texts[position]
            found = logprobs_of(self._llm, tokens[position], text, offset, position, self._most)
            # as in OpenAI's interface, the first token has none
            yield found | ({"token_logprobs": [None], "top_logprobs": [None]} if position == first else {})
            offset += len(text)


class _Form:
    """What all chunks of a completion have in common."""

    def __init__(self, model: str):
        self._common = {
            "id": f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, part: tuple[str, dict | None], finish: str | None = None) -> dict:
        text, logprobs = part
        choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}
        return {**self._common, "choices": [choice]}


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    return [] if stop is None else [stop] if isinstance(stop, str) else list(stop)


def _prompt_tokens(llm: "Llama", prompt: str | list[int], suffix: str | None) -> list[int]:
    """The tokens of a prompt: of a text behind the token that the vocabulary begins texts with, if any.

    Nothing is put behind it, though a vocabulary may end texts with a token: the model is to go on.
    """
    if isinstance(prompt, str):
        tokens = llm.tokenize(prompt.encode(), add_bos=False, special=suffix is None) if prompt else []
    else:
        tokens = [int(token) for token in prompt]
    begin = [] if not isinstance(prompt, str) and suffix is None else _begin(llm)
    if suffix is None:
        return begin + tokens
    spaced = llm.metadata.get("tokenizer.ggml.add_space_prefix", "true") == "true"
    after = llm.tokenize(f"{MARK}{suffix}".encode(), add_bos=False)[2:] if spaced and suffix else []
    after = llm.tokenize(suffix.encode(), add_bos=False) if suffix and not spaced else after
    parts = ([INFILL, *after], [INFILL, *tokens]) if llm.spm_infill else ([INFILL, *tokens], [INFILL, *after])
    return [*begin, *parts[0], *parts[1], INFILL]


def _begin(llm: "Llama") -> list[int]:
    bos = llm.token_bos()
    return [bos] if llm._model.add_bos_token() and bos != -1 else []


def _use_cache(llm: "Llama", tokens: list[int]) -> None:
    """Load the state of the cache that has more of the prompt than the context has."""
    if not llm.cache:
        return
    try:
        found = llm.cache[tokens]
    except KeyError:
        return
    common = llama_cpp.Llama.longest_token_prefix
    if common(found.input_ids.tolist(), tokens) > common(llm._input_ids.tolist(), tokens):
        with contextlib.suppress(InputError):  # a cache on a disk may have states of another model or context
            llm.load_state(found)

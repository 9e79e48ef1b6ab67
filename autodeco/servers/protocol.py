"""What servers are asked and what they answer, as requests and answers of ``autodeco.batch``.

Prompts are sent as token ids, so that every server reads the same ones. llama.cpp's server is asked at its own
/completion where heads have no part, since that says the tokens of an answer; with heads, and elsewhere, it is
OpenAI's /v1/completions. Texts are made of the tokens here, as for answers drawn here, where the server tells them.
"""

import math
from dataclasses import dataclass
from typing import Any

import llama_cpp

from autodeco.base.token_bytes import TokenBytes
from autodeco.batch import Answer, Request, Sampling
from autodeco.batch.answers import PartialAnswer
from autodeco.errors import InputError
from autodeco.llama.decoding import Decoding

USUAL_SLOTS = 32
# the order of the draw in the graph: what is cut is cut from the distribution at the temperature
SAMPLERS = ("temperature", "min_p", "top_k", "top_p")


@dataclass(frozen=True)
class Server:
    """One server as it describes itself: ``is_llama_cpp`` where it has llama.cpp's own endpoints, the ``heads`` that it
    draws with (its /props), the ``model`` by the name that it wants to hear, and its ``slots``."""

    url: str
    is_llama_cpp: bool
    heads: dict[str, Any] | None
    model: str | None
    n_vocab: int | None
    n_ctx: int | None
    slots: int


def described(url: str, props: Any, models: Any) -> Server:
    """The server at ``url`` by what /props and /v1/models gave, None where it has no such thing."""
    props = props if isinstance(props, dict) else {}
    listed = models.get("data") if isinstance(models, dict) else None
    model = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    meta = model.get("meta")
    generation = props.get("default_generation_settings")
    heads = props.get("autodeco")
    return Server(
        url,
        is_llama_cpp="build_info" in props and generation is not None,
        heads=heads if isinstance(heads, dict) else None,
        model=model["id"] if isinstance(model.get("id"), str) else None,
        n_vocab=_count(meta.get("n_vocab") if isinstance(meta, dict) else None),
        n_ctx=_count(generation.get("n_ctx") if isinstance(generation, dict) else None),
        slots=_count(props.get("total_slots")) or USUAL_SLOTS,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _is_number(value: Any) -> bool:
    """Whether ``value`` can be a temperature, a top-p, a size or a probability."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e30


def _is_probability(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, float) and math.isnan(value))


def asked(request: Request, server: Server) -> tuple[str, dict[str, Any]]:
    """The path to post to, and the body."""
    sampling = request.sampling
    shared = {"prompt": list(request.prompt), "seed": request.seed, "stop": list(request.stop)}
    cuts = {"top_k": sampling.top_k, "min_p": sampling.min_p}
    fixed = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.heads == "none" and server.is_llama_cpp:
        own = {"n_predict": request.max_tokens, "samplers": list(SAMPLERS), "dynatemp_range": 0.0, "mirostat": 0}
        return "/completion", shared | fixed | cuts | own | {"return_tokens": True, "autodeco": False}
    body = shared | {"max_tokens": request.max_tokens}
    if server.model is not None:
        body["model"] = server.model
    if not body["stop"]:
        del body["stop"]
    if sampling.heads == "none":
        cuts = {name: value for name, value in cuts.items() if value}  # not every server knows them
        return "/v1/completions", body | fixed | cuts | {"return_token_ids": True, "autodeco": False}
    # what heads choose has a scale; the other value is the client's setting
    values = ("temperature", "top_p")
    scales = {f"{name}_scale": fixed[name] for name in values if sampling.heads in ("both", name)}
    own = {name: fixed[name] for name in values if sampling.heads not in ("both", name)}
    return "/v1/completions", body | own | {"autodeco": scales | {"heads": sampling.heads, "values": True}}


class Reader:
    """Reads what servers answer, for the vocabulary of ``llm``."""

    def __init__(self, llm: llama_cpp.Llama):
        self._llm = llm
        self._size = llm.n_vocab()
        self._token_bytes = TokenBytes(llm.model, special=True)

    def answer(self, request: Request, server: Server, body: Any) -> Answer:
        """The answer to ``request`` that ``body`` holds; raises InputError where it is none."""
        try:
            return self._read(request, body)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            what = error if isinstance(error, InputError) else f"{type(error).__name__} {error}"
            raise InputError(
                f"{server.url}: gave what is no answer ({what}); is it a server of OpenAI's API?"
            ) from None

    def _read(self, request: Request, body: dict[str, Any]) -> Answer:
        choice = body["choices"][0] if "choices" in body else body
        text = choice["text"] if "choices" in body else body["content"]
        if not isinstance(text, str):
            raise InputError("its text is no text")
        if request.sampling.heads != "none":
            rows = self._values(choice.get("autodeco"), request.sampling)
        else:
            tokens = choice["tokens"] if "tokens" in choice else choice.get("token_ids")
            sampling = request.sampling
            rows = None
            if tokens:
                rows = [(self._token(token), sampling.temperature, sampling.top_p, 0, math.nan) for token in tokens]
        return self._retold(request, text, choice) if rows is None else self._told(request, rows)

    def _token(self, token: Any) -> int:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self._size:
            raise InputError(f"token {token!r} is none of the vocabulary of {self._size}; it runs another model")
        return token

    def _values(self, values: Any, sampling: Sampling) -> list[tuple]:
        """The rows of what heads picked for each token; null is what a server does not know, or what is fixed."""
        if not isinstance(values, dict):
            raise InputError("it picked without heads; start it with --autodeco HEADS.gguf")
        names = ("token", "temperature", "top_p", "nucleus", "prob")
        columns = [values[name] for name in names]
        if not all(isinstance(column, list) for column in columns) or len(set(map(len, columns))) != 1:
            raise InputError(f"its {', '.join(names)} are no lists of one length")
        rows = []
        unknown = (sampling.temperature, sampling.top_p, 0, math.nan)
        for token, *numbers in zip(*columns, strict=True):
            numbers = [other if n is None else n for n, other in zip(numbers, unknown, strict=True)]
            if not all(map(_is_number, numbers[:3])) or not _is_probability(numbers[3]) or numbers[2] > self._size:
                raise InputError("a value of a token is no number, or none that it can be")
            rows.append((self._token(token), *numbers))
        return rows

    def _told(self, request: Request, rows: list[tuple]) -> Answer:
        """The answer of these tokens, which end it as they would here."""
        if not rows:
            raise InputError("an answer of no tokens")
        partial = PartialAnswer(request, self._token_bytes)
        for row in rows:
            if finish := partial.add(row):
                return partial.answer(finish)
        return partial.answer("length")  # the server's own limit, its context say

    def _retold(self, request: Request, text: str, choice: dict) -> Answer:
        """The answer of a server that says no tokens: those that its text would be read as."""
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise InputError(f"its finish_reason is {reason!r}")
        stopped = isinstance(choice.get("stop_reason"), str)
        finish = "length" if reason == "length" else "stop" if stopped else "end"
        ids = self._llm.tokenize(text.encode("utf-8", "surrogatepass"), add_bos=False, special=True) if text else []
        if finish == "end" and self._llm.token_eos() != -1:
            ids = [*ids, self._llm.token_eos()]
        sampling = request.sampling
        decoding = Decoding.from_rows([(token, sampling.temperature, sampling.top_p, 0, math.nan) for token in ids])
        return Answer(text, finish, decoding, request.index, request.sample, request.seed)

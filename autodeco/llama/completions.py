"""Completions of ``autodeco.Llama``: the parameters that ``llama_cpp.Llama`` does not have.

``autodeco=True`` puts the tokens' values into the answer, ``heads`` says which heads decide, ``n`` asks for several
choices, and the samplers of ``extra_samplers`` apply to every generation of a completion (chat formats with tools take
several).
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np

from autodeco.errors import InputError
from autodeco.llama.asked import settle
from autodeco.llama.decoding import Decoding
from autodeco.llama.extra_samplers import DEFAULTS as EXTRA
from autodeco.llama.extra_samplers import ExtraSamplers
from autodeco.llama.response_format import arguments_grammar, format_grammar
from autodeco.llama.sampling import check_numbers
from autodeco.llama.seeds import is_random, random_seed, seed_after
from autodeco.runs.seeds import in_32_bits
from autodeco.settings.options import checked, said

if TYPE_CHECKING:
    from autodeco.llama.llama import Llama

# Heads decide: the caller's temperature and top_p multiply what they predict, and nothing else cuts the distribution
# unless the caller asks.
BOTH = "both"
HEADS = (BOTH, "temperature", "top_p", "none")  # which of the heads decide
DEFAULTS = {"temperature": 1.0, "temp": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}


def own_signature(method: Callable, **extra) -> inspect.Signature:
    """The signature of ``method`` with our defaults, and with keyword parameters ``extra`` (name=default)."""
    signature = inspect.signature(method)
    parameters = [p.replace(default=DEFAULTS.get(p.name, p.default)) for p in signature.parameters.values()]
    own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in extra.items()]
    return signature.replace(parameters=parameters + own)


class Call:
    """A completion under way: its extra samplers, the heads that decide, its seeds, and the rows of its generations."""

    def __init__(
        self,
        samplers: ExtraSamplers,
        seed: int,
        grammar: llama_cpp.LlamaGrammar | None = None,
        heads: str = BOTH,
        arguments: llama_cpp.LlamaGrammar | None = None,
    ):
        self.samplers = samplers
        self.heads = heads
        self.seed = seed  # of the generation under way
        self._grammar = grammar  # that the answer has to keep to
        self._arguments = arguments  # what those of the function that has to be called keep to
        self._own = np.random.SeedSequence(seed)
        self.generations: list[list[tuple]] = []

    def settle_grammar(self, settings: dict[str, Any]) -> None:
        """Have the arguments of a function keep to its whole schema, of which llama-cpp-python ignores parts; raise
        InputError where a chat format forgets the response_format."""
        if self._arguments is not None and settings["grammar"] is not None:
            settings["grammar"] = self._arguments
        if self._grammar is not None and settings["grammar"] is not self._grammar:
            raise InputError(
                "response_format: this chat format, or these tools, do not keep to it; leave one of them out"
            )

    def take_seed(self, seed: int | None) -> None:
        """Draw the next generation with ``seed``; None: with one of its own that follows from the completion's."""
        self.seed = in_32_bits(self._own.spawn(1)[0]) if seed is None else seed

    def rows(self, reported: int = 0) -> list[tuple]:
        """The rows behind those ``reported`` already."""
        rows = []
        for generation in self.generations:
            rows += generation[reported:]
            reported = max(0, reported - len(generation))
        return rows


def completing(method: Callable) -> Callable:
    """``method``, which makes completions, with our defaults and our parameters."""
    signature = own_signature(method, autodeco=False, heads=BOTH, n=1, **EXTRA)

    @functools.wraps(method)
    def complete(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        settings = dict(bound.arguments)
        llm, autodeco, n = settings.pop("self"), settings.pop("autodeco"), settings.pop("n")
        heads = checked("heads", settings.pop("heads"), str, choices=HEADS)
        samplers = ExtraSamplers(**{name: settings.pop(name) for name in EXTRA})
        with llm._turn:
            llm._check_open()
            check_numbers(settings)
            checked("n", n, int, 1)
            if settings["seed"] is not None:
                checked("seed", settings["seed"], int, -(2**63))
            if llm._call is None:  # a chat format's own may be empty
                arguments = arguments_grammar(settle(settings))
                grammar = _keep_format(settings)
            _join_bias(settings, llm.n_vocab())
            if llm._call is not None:  # a chat format asks for a part of its answer
                llm._call.settle_grammar(settings)
                return method(llm, **settings)

            def choice(i: int) -> dict | Iterator[dict]:
                seed = _seed_of_choice(llm, settings["seed"], i)
                made = functools.partial(method, llm, **settings | {"seed": seed})
                return _choice(llm, Call(samplers, seed, grammar, heads, arguments), made, autodeco)

            if n == 1:
                return choice(0)
            choices = map(choice, range(n))
            return _streamed_choices(choices) if settings["stream"] else _joined_choices(choices)

    complete.__signature__ = signature
    return complete


def _keep_format(settings: dict[str, Any]) -> llama_cpp.LlamaGrammar | None:
    """Make of ``response_format`` the grammar, and return that; llama-cpp-python ignores most of what it may be."""
    made = format_grammar(settings.get("response_format"))
    if made is None:
        return None
    if settings["grammar"] is not None:
        raise InputError("response_format and grammar: give one of them")
    settings["response_format"], settings["grammar"] = None, made
    # a tool that has to be called has a schema of its own
    return None if isinstance(settings["tool_choice"] or settings["function_call"], dict) else made


def _seed_of_choice(llm: "Llama", seed: int | None, number: int) -> int:
    if seed is None:
        return llm._seeds.next()
    return random_seed() if is_random(seed) else seed_after(seed, number)


def _join_bias(settings: dict[str, Any], n_vocab: int) -> None:
    """Make of ``logit_bias`` one more logits processor. llama-cpp-python does so itself, but loses both if it is given
    both, and ignores the bias of a token that does not exist."""
    bias, settings["logit_bias"] = settings["logit_bias"], None
    if not bias:
        return
    try:
        with np.errstate(over="ignore"):  # which is infinite then
            values = np.array([float(value) for value in bias.values()]).astype(np.float32)
        tokens = [int(token) for token in bias]
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InputError(f"logit_bias {said(bias)}: must hold numbers by the ids of their tokens") from None
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InputError(f"logit_bias {said(bias)}: holds NaN, or more than a float32 does; 100 decides")
    for token in tokens:
        if not 0 <= token < n_vocab:
            raise InputError(f"logit_bias: token {token} is outside the vocabulary of {n_vocab}")

    def add_bias(input_ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        biased = logits.copy()
        biased[tokens] += values
        return biased

    settings["logits_processor"] = llama_cpp.LogitsProcessorList([*(settings["logits_processor"] or ()), add_bias])


@contextlib.contextmanager
def _during(llm: "Llama", call: Call) -> Iterator[None]:
    with llm._turn.awaited():
        before, llm._call = llm._call, call
        try:
            yield
        finally:
            llm._call = before


def _choice(llm: "Llama", call: Call, complete: Callable, autodeco: bool) -> dict | Iterator[dict]:
    """One choice as ``complete`` makes it, whole or streamed."""
    with _during(llm, call):
        response = complete()
    if not isinstance(response, dict):
        return _chunks(llm, call, response, autodeco)
    return _with_values(llm, response, call.rows()) if autodeco else response


def _chunks(llm: "Llama", call: Call, chunks: Iterator[dict], autodeco: bool) -> Iterator[dict]:
    reported = 0
    chunks = iter(chunks)
    try:
        while True:
            with _during(llm, call):
                chunk = next(chunks, None)
            if chunk is None:
                return
            if autodeco:
                rows = call.rows(reported)
                chunk, reported = _with_values(llm, chunk, rows), reported + len(rows)
            yield chunk
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


def _with_values(llm: "Llama", response: dict, rows: list[tuple]) -> dict:
    values = Decoding.from_rows(rows).to_dict() if llm.heads is not None else None
    for choice in response["choices"]:
        choice["autodeco"] = values
    return response


def _joined_choices(responses: Iterator[dict]) -> dict:
    responses = list(responses)
    whole = responses[0]
    usage, completion = whole["usage"], sum(response["usage"]["completion_tokens"] for response in responses)
    whole["usage"] = {
        **usage,
        "completion_tokens": completion,
        "total_tokens": usage["prompt_tokens"] + completion,
    }
    whole["choices"] = [choice | {"index": i} for i, one in enumerate(responses) for choice in one["choices"]]
    return whole


def _streamed_choices(streams: Iterator[Iterator[dict]]) -> Iterator[dict]:
    """One choice after the other, each with its index, under the id of the first."""
    first = None
    for i, stream in enumerate(streams):
        for chunk in stream:
            first = first or chunk["id"]
            yield chunk | {"id": first, "choices": [choice | {"index": i} for choice in chunk["choices"]]}

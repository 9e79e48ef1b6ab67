"""Requests to a model: prompts, the settings that tokens are sampled with, and one request for each answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import llama_cpp
import numpy as np

from autodeco import native
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch.rules import Rule
from autodeco.data.messages import Messages
from autodeco.errors import InputError
from autodeco.llama.asked import check_prompt
from autodeco.llama.exclusive import ExclusiveLlama
from autodeco.runs.seeds import in_32_bits
from autodeco.settings.options import checked, said

Prompt = str | Messages | Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are sampled.

    ``heads`` names what the heads decide; there ``temperature`` and ``top_p`` multiply the predictions, elsewhere they
    are the settings themselves. Temperature 0 is greedy. ``top_k`` (0: all) and ``min_p`` cut before top-p. A ``rule``
    takes the place of all of them. ``top_p_blur`` is the scale of logistic noise on the logit of every token's top-p,
    by which training explores; ``autodeco.batch.shared`` alone has it. Raises InputError for values out of range, and
    for a rule beside other settings.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    heads: Literal["both", "temperature", "top_p", "none"] = "both"
    rule: Rule | None = None
    top_p_blur: float = 0.0

    def __post_init__(self):
        for name, most in (("temperature", 1e6), ("top_p", 1e6), ("min_p", 1.0), ("top_p_blur", 10.0)):
            checked(name, getattr(self, name), float, 0.0, most)
        checked("top_k", self.top_k, int, 0, hint="0 keeps all tokens")
        checked("heads", self.heads, str, choices=("both", "temperature", "top_p", "none"))
        if self.rule and (self.temperature, self.top_p, self.top_k, self.min_p, self.heads) != (
            1.0,
            1.0,
            0,
            0.0,
            "none",
        ):
            raise InputError("a rule decides alone how tokens are drawn: give no setting beside it, and heads='none'")


AS_THE_MODEL_SAYS = Sampling()


@dataclass(frozen=True)
class Request:
    """One answer that is wanted: ``prompt`` holds token ids; ``index`` and ``sample`` say to the caller which it is.

    ``of`` names the set of heads that it is drawn with, where there are several (``autodeco.batch.shared``).
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    seed: int
    stop: tuple[str, ...] = ()
    index: int = 0
    sample: int = 0
    of: str = ""


def requests(
    llm: llama_cpp.Llama,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling | Sequence[Sampling],
    max_tokens: int,
    stop: str | Sequence[str] = (),
    seed: int = 0,
) -> list[Request]:
    """The ``n`` requests of each prompt, in order. To continue an interrupted run, drop the answered ones."""
    _check_prompts(prompts)
    if not isinstance(sampling, Sampling | Sequence):
        raise InputError(f"sampling {said(sampling)}: must be a Sampling, or a list with one for each prompt")
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    if len(settings) != len(prompts):
        raise InputError(f"{len(settings)} settings for {len(prompts)} prompts: give one, or one for each")
    checked("n", n, int, 1)
    checked("seed", seed, int, 0)
    check_open(llm)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    tokenizer = Tokenizer(llm)
    wanted = []
    for index, prompt in enumerate(prompts):
        try:
            ids = _ids_of(prompt, tokenizer)
        except InputError as error:
            raise InputError(f"prompt {index}: {error}") from None
        wanted += [
            Request(ids, settings[index], max_tokens, seed_of(seed, index, sample), stop, index, sample)
            for sample in range(n)
        ]
    return wanted


def _ids_of(prompt: Prompt, tokenizer: Tokenizer) -> tuple[int, ...]:
    if isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], dict)):
        return tuple(tokenizer.prompt_ids(cast("str | Messages", prompt)))
    return tuple(int(token) for token in cast("Sequence[int]", prompt))


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raise InputError for one prompt in the place of a list of them, which would be taken apart."""
    if isinstance(prompts, str):
        raise InputError("prompts is one text; give a list of prompts")
    if not hasattr(prompts, "__len__"):
        raise InputError(f"prompts {said(prompts)}: must be a list of prompts")
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, dict):
            raise InputError("prompts is one chat; give a list of chats, each a list of messages")
        if not hasattr(prompt, "__len__"):
            raise InputError(
                f"prompt {index}: {prompt!r} is no text, chat or list of token ids; give a list of prompts"
            )
        if len(prompt) == 0 or not isinstance(prompt[0], dict):
            check_prompt(f"prompt {index}", prompt)


def check_open(llm: llama_cpp.Llama) -> None:
    """Raise InputError if ``llm`` was closed, or opened in a process that this one was forked from."""
    if isinstance(llm, ExclusiveLlama):
        llm._turn.check_process()
    if llm._ctx.ctx is None:
        raise InputError(f"{llm.model_path}: was closed; open it again")


def seed_of(seed: int, *key: int) -> int:
    """A seed of its own for each ``key`` (prompt and sample, say), 32 bits, never llama.cpp's mark of a random one."""
    return in_32_bits(np.random.SeedSequence(seed, spawn_key=key))


def check_requests(wanted: Sequence[Request], llm: llama_cpp.Llama, heads: native.Heads | None) -> None:
    """Raise InputError for the first request that ``llm`` cannot answer."""
    known = None  # the prompt that was looked through last: many requests in a row have it
    for request in wanted:
        where = f"prompt {request.index}"
        if not request.prompt:
            raise InputError(f"{where}: has no tokens; nothing predicts a first one")
        checked("max_tokens", request.max_tokens, int, 1)
        if not all(isinstance(stop, str) and stop for stop in request.stop):
            raise InputError(f"stop {list(request.stop)!r}: must be texts that are not empty")
        if request.prompt is not known and not 0 <= min(request.prompt) <= max(request.prompt) < llm.n_vocab():
            raise InputError(f"{where}: holds a token id outside the vocabulary of {llm.n_vocab()}")
        known = request.prompt
        if len(request.prompt) >= llm.n_ctx():
            raise InputError(
                f"{where}: has {len(request.prompt)} tokens and fills the context of {llm.n_ctx()}; raise n_ctx"
            )
        if len(request.prompt) + request.max_tokens > llm.n_ctx():
            raise InputError(
                f"{where}: {len(request.prompt)} tokens and an answer of {request.max_tokens} exceed the context of "
                f"{llm.n_ctx()}; raise n_ctx or lower max_tokens"
            )
        kind = request.sampling.heads
        if kind != "none" and heads is None:
            raise InputError(f"{where}: wants heads, but the model has none; give heads, or Sampling(heads='none')")
        has = {} if heads is None else {"temperature": heads.has_temperature, "top_p": heads.has_top_p}
        if not has.get(kind, True):
            raise InputError(f"{where}: wants the {kind} head, which these heads lack")

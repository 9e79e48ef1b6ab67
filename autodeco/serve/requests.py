"""Requests as OpenAI's API has them, with what llama.cpp adds, and the field ``autodeco``."""

import math
from typing import Annotated, Any

import llama_cpp
from llama_cpp.server.types import CreateChatCompletionRequest, CreateCompletionRequest
from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from autodeco.data.messages import check_messages
from autodeco.errors import InputError
from autodeco.llama.completions import HEADS
from autodeco.llama.extra_samplers import DEFAULTS as EXTRA
from autodeco.serve.policy import Wishes
from autodeco.settings.options import checked

MOST_LOGPROBS = 20  # for each token, as in OpenAI's API
MOST_CHOICES = 128
LARGEST_SCALE = 1000.0
LARGEST = 1e6

_Number = Annotated[float, Field(allow_inf_nan=False)]
# what llama_cpp.Llama is given besides what `policy` decides
_PASSED = ("seed", "stop", "stream", "n", "presence_penalty", "frequency_penalty", "repeat_penalty", "top_k", "min_p")
_PASSED += ("typical_p", "mirostat_mode", "mirostat_tau", "mirostat_eta", "logit_bias", *EXTRA)
_OF_A_CHAT = ("functions", "function_call", "tools", "tool_choice", "response_format")


class _Sampled(BaseModel):
    """What both kinds of requests have in common.

    Mixed into the requests of llama-cpp-python's server, whose defaults cut and penalize: here nothing but the heads
    does unless a request asks.
    """

    temperature: Annotated[float, Field(ge=0.0, le=LARGEST, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0.0, ge=0.0, le=1.0)
    repeat_penalty: float = Field(1.0, gt=0.0, le=LARGEST)
    typical_p: _Number = 1.0
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    stream_options: dict[str, Any] | None = None
    logit_bias: dict[str, float] | None = None
    xtc_probability: _Number = EXTRA["xtc_probability"]
    xtc_threshold: _Number = EXTRA["xtc_threshold"]
    dry_multiplier: _Number = EXTRA["dry_multiplier"]
    dry_base: _Number = EXTRA["dry_base"]
    dry_allowed_length: int = EXTRA["dry_allowed_length"]
    dry_penalty_last_n: int = EXTRA["dry_penalty_last_n"]
    dry_sequence_breakers: list[str] = list(EXTRA["dry_sequence_breakers"])
    top_n_sigma: _Number = EXTRA["top_n_sigma"]
    grammar: str | None = None
    autodeco: Any = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        """A field that is null is one that was left out: some clients write every field that they know."""
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    @field_validator("max_tokens", "max_completion_tokens", check_fields=False)
    @classmethod
    def _some_tokens(cls, limit: int | None) -> int | None:
        """0 would be no limit to llama-cpp-python, and no client means that; -1 is, as in llama.cpp's server."""
        if limit is not None and limit < 1 and limit != -1:
            raise PydanticCustomError("limit", "must be at least 1; -1 is as many as there is room for")
        return limit

    @property
    def wishes(self) -> Wishes:
        """What the field ``autodeco`` asks for; raises InputError where it makes no sense."""
        return read_wishes(self.autodeco)

    @property
    def named(self) -> dict[str, Any]:
        """The settings that it names, as the API calls them."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @property
    def reports_usage(self) -> bool:
        """Whether the last chunk of a stream says how many tokens there were."""
        return bool((self.stream_options or {}).get("include_usage"))

    def _passed(self, names: tuple[str, ...]) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.grammar is not None:
            found["grammar"] = llama_cpp.LlamaGrammar.from_string(self.grammar, verbose=False)
        return found


class ChatRequest(_Sampled, CreateChatCompletionRequest):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: list[dict[str, Any]] | None = None
    function_call: Any = None
    response_format: dict[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_LOGPROBS)

    def settings(self) -> dict[str, Any]:
        """The arguments of ``create_chat_completion``; raises InputError for messages that are none."""
        check_messages("the request", "messages", self.messages)
        messages = [
            message | {"role": "system"} if message["role"] == "developer" else message for message in self.messages
        ]
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return self._passed(_PASSED + _OF_A_CHAT) | {"messages": messages, "max_tokens": limit}

    @property
    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens to show beside each; None: no log-probabilities."""
        return self.top_logprobs if self.logprobs else None


class TextRequest(_Sampled, CreateCompletionRequest):
    """POST /v1/completions."""

    prompt: str | list[int] | list[str] = ""
    max_tokens: int | None = 16
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)

    def settings(self) -> dict[str, Any]:
        """The arguments of ``create_completion``; raises InputError for several prompts."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            if len(prompt) > 1:
                raise InputError(f"prompt: holds {len(prompt)} texts; send one request for each")
            (prompt,) = prompt
        found = self._passed((*_PASSED, "suffix", "echo"))
        return found | {"prompt": prompt, "max_tokens": self.max_tokens}

    @property
    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens to show beside each; None: no log-probabilities."""
        return self.logprobs


def read_wishes(given: Any) -> Wishes:
    """Return what ``given``, the field ``autodeco``, asks for: true, false, or an object; raises InputError."""
    if given is None:
        return Wishes()
    if isinstance(given, bool):
        return Wishes(values=True) if given else Wishes(heads="none")
    if not isinstance(given, dict):
        raise InputError('autodeco: must be true, false or an object like {"heads": "both", "values": true}')
    found: dict[str, Any] = {"values": True}
    for name in ("temperature_scale", "top_p_scale"):
        if given.get(name) is not None:
            found[name] = checked(f"autodeco.{name}", given[name], float, 0.0, LARGEST_SCALE)
            assert math.isfinite(found[name])
    if given.get("heads") is not None:
        found["heads"] = checked("autodeco.heads", given["heads"], str, choices=HEADS)
    if given.get("values") is not None:
        found["values"] = checked("autodeco.values", given["values"], bool)
    return Wishes(**found)

"""Answers to requests, whole or chunk by chunk, in a thread's time; what a client sees of temperature and top-p."""

import threading
from collections.abc import Iterator
from typing import Any

from autodeco.errors import InputError
from autodeco.serve.metrics import Metrics
from autodeco.serve.policy import Wishes, decide
from autodeco.serve.requests import ChatRequest, TextRequest
from autodeco.serve.served_llama import ServedLlama


class Answer:
    """One request, answered by ``llm`` under ``policy``; raises InputError for a request that makes no sense.

    What it does with the model runs in one thread at a time, until ``stopped`` is set, which raises Stopped.
    """

    def __init__(self, llm: ServedLlama, request: ChatRequest | TextRequest, policy: str, alias: str, metrics: Metrics):
        self._llm, self._request, self._alias, self._metrics = llm, request, alias, metrics
        self._wishes: Wishes = request.wishes
        if llm.heads is None and request.autodeco not in (None, False):
            raise InputError('autodeco: this server has no heads; start it with --heads, or send "autodeco": false')
        self._decision = decide(policy, llm.deciding_heads, self._wishes, request.named)
        self._settings = request.settings()
        for name in self._decision.ignored:
            self._settings.pop(name, None)
        if request.n > 1 and request.wanted_logprobs is not None:
            raise InputError("logprobs and n: ask for one choice at a time with log-probabilities")
        self._is_chat = isinstance(request, ChatRequest)

    def whole(self, stopped: threading.Event) -> dict[str, Any]:
        """The answer as one object."""
        made = self._made(stopped)
        logprobs = self._llm.logprobs
        for choice in made["choices"]:
            values = self._counted(choice)
            if logprobs is not None:
                choice["logprobs"] = self._formed(logprobs.take(values))
        return made | {"model": self._alias, "autodeco_settings": self._decision.report()}

    def chunks(self, stopped: threading.Event) -> Iterator[dict[str, Any]]:
        """The chunks of the answer; that which ends a choice says what was made of the request."""
        chunks = self._made(stopped)
        logprobs, settings = self._llm.logprobs, {"autodeco_settings": self._decision.report()}
        chunk: dict[str, Any] = {}
        try:
            for chunk in chunks:
                is_last = False
                for choice in chunk["choices"]:
                    values = self._counted(choice)
                    is_last = choice["finish_reason"] is not None
                    if logprobs is not None:
                        taken = logprobs.take(values)
                        choice["logprobs"] = self._formed(taken) if taken else None
                yield chunk | {"model": self._alias} | (settings if is_last else {})
            if self._request.reports_usage:
                common = {name: chunk[name] for name in ("id", "object", "created")}
                yield common | {"model": self._alias, "choices": [], "usage": self._llm.usage}
        finally:
            chunks.close()

    def _made(self, stopped: threading.Event) -> Any:
        recording = self._llm.begin(stopped, self._request.wanted_logprobs)
        decision = self._decision
        ask = self._llm.create_chat_completion if self._is_chat else self._llm.create_completion
        return ask(
            **self._settings,
            **recording,
            temperature=decision.temperature,
            top_p=decision.top_p,
            heads=decision.heads,
            autodeco=True,
        )

    def _counted(self, choice: dict[str, Any]) -> dict[str, list] | None:
        """Take the values out of ``choice`` unless they are asked for; count and return them."""
        values = choice["autodeco"]
        if self._decision.heads != "none":
            self._metrics.add(values)
        if not self._wishes.values:
            del choice["autodeco"]
        return values

    def _formed(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Log-probabilities as the kind of request has them."""
        if self._is_chat:
            return {"content": entries, "refusal": None}
        formed: dict[str, Any] = {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],
        }
        for name in ("temperature", "top_p"):
            if any(name in entry for entry in entries):
                formed[name] = [entry.get(name) for entry in entries]
        return formed

"""``autodeco.Llama`` as a server needs it: a generation can be stopped, and each token's log-probability is at hand."""

import threading
from collections.abc import Generator
from typing import Any

import llama_cpp
import numpy as np

from autodeco.base.token_bytes import TokenBytes
from autodeco.llama import Llama


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class ServedLlama(Llama):
    """Serves one request at a time; ``begin`` makes ready for the next."""

    def __init__(self, *args, **kwargs):
        self._stopped = threading.Event()
        self._logprobs: Logprobs | None = None
        self._prompt_tokens = self._completion_tokens = 0
        super().__init__(*args, **kwargs)

    def begin(self, stopped: threading.Event, most_logprobs: int | None) -> dict[str, Any]:
        """Return what to add to the settings of a completion: what records log-probabilities of each token and the
        ``most_logprobs`` likeliest ones, None: of none. When ``stopped`` is set, it raises Stopped at its next token.
        """
        self._stopped = stopped
        self._prompt_tokens = self._completion_tokens = 0
        self._logprobs = None if most_logprobs is None else Logprobs(self, most_logprobs)
        return {} if self._logprobs is None else {"logits_processor": self._logprobs.recorder()}

    @property
    def deciding_heads(self) -> list[str]:
        """Which values its heads pick: of "temperature" and "top_p"."""
        if self._heads is None:
            return []
        return [name for name in ("temperature", "top_p") if getattr(self._heads, f"has_{name}")]

    @property
    def logprobs(self) -> "Logprobs | None":
        """Those of the request that is served."""
        return self._logprobs

    @property
    def usage(self) -> dict[str, int]:
        """How many tokens the request that is served has by now."""
        prompt, completion = self._prompt_tokens, self._completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def generate(self, prompt, *args, **settings) -> Generator:
        self._prompt_tokens = self._prompt_tokens or len(prompt)
        tokens = super().generate(prompt, *args, **settings)
        try:
            for token in tokens:
                if self._stopped.is_set():
                    raise Stopped
                if not llama_cpp.llama_vocab_is_eog(self._model.vocab, token):
                    self._completion_tokens += 1
                    if self._logprobs is not None:
                        self._logprobs.add(token)
                yield token
        finally:
            tokens.close()


class Logprobs:
    """Log-probabilities of the tokens of a request, as the model has them: before temperature, cuts and penalties.

    They come by a logits processor, which sees the logits of the next token; a context that keeps the logits of all its
    tokens would take gigabytes.
    """

    def __init__(self, llm: Llama, most: int):
        self._bytes = TokenBytes(llm.model, special=True)
        self._most = most
        self._next: np.ndarray | None = None  # of the token that is drawn next
        self._new: list[dict[str, Any]] = []

    def recorder(self) -> llama_cpp.LogitsProcessorList:
        """What sees the logits and changes nothing."""

        def record(input_ids, logits):
            shifted = logits.astype(np.float64) - logits.max()
            self._next = shifted - np.log(np.exp(shifted).sum())
            return logits

        return llama_cpp.LogitsProcessorList([record])

    def add(self, token: int) -> None:
        """Take the token, not one that ends the text, that was drawn from the logits seen last."""
        assert self._next is not None, "logits are seen before a token is drawn"
        likeliest = np.argpartition(-self._next, self._most)[: self._most] if self._most else []
        ranked = sorted(map(int, likeliest), key=lambda other: -self._next[other])
        self._new.append(self._entry(token) | {"top_logprobs": [self._entry(other) for other in ranked]})

    def _entry(self, token: int) -> dict[str, Any]:
        piece = self._bytes[token]
        text = piece.decode("utf-8", "replace")
        return {"token": text, "bytes": list(piece), "logprob": max(float(self._next[token]), -9999.0)}

    def take(self, values: dict[str, list] | None) -> list[dict[str, Any]]:
        """Return the entries since the last call, with the temperature and top-p of each where ``values`` has them."""
        taken, self._new = self._new, []
        if values is not None:
            for entry, temperature, top_p in zip(taken, values["temperature"], values["top_p"], strict=False):
                entry |= {"temperature": temperature, "top_p": top_p}
        return taken

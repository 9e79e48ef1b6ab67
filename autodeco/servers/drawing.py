"""Answers to requests, drawn at servers."""

import os
from collections.abc import Iterator, Sequence

import llama_cpp

from autodeco.batch import Answer, Request
from autodeco.errors import InputError
from autodeco.export.layout import open_layout
from autodeco.export.weights_digest import may_have
from autodeco.servers.pool import Pool, opened
from autodeco.servers.protocol import Reader, asked
from autodeco.servers.settings import ServerSettings
from autodeco.settings.durations import parse_duration


class Servers:
    """The servers of ``settings``, which run the model whose vocabulary ``llm`` has open, with the heads in the file
    ``heads``, if any.

    Raises InputError for one that does not answer, that runs a model of another vocabulary, or that has other heads.
    """

    def __init__(self, settings: ServerSettings, llm: llama_cpp.Llama, heads: str | os.PathLike | None = None):
        self._llm = llm
        seconds = parse_duration("server_timeout", settings.server_timeout)
        self.servers = opened(settings.urls)
        for server in self.servers:
            if server.n_vocab not in (None, llm.n_vocab()):
                raise InputError(
                    f"{server.url}: runs a model with a vocabulary of {server.n_vocab}, {llm.model_path} has "
                    f"{llm.n_vocab()}; start it with that model"
                )
        if heads is not None:
            self._check_weights(heads)
        self._pool: Pool[Request] = Pool(self.servers, settings.in_flight, seconds)

    def _check_heads(self) -> None:
        """Raise InputError for a server without heads."""
        if without := [server.url for server in self.servers if server.heads is None]:
            raise InputError(f"{without[0]}: has no heads; start autodeco-server there with --autodeco HEADS.gguf")

    def _check_weights(self, heads: str | os.PathLike) -> None:
        """Raise InputError for a server that draws with other heads than those in the file ``heads``."""
        layout = open_layout(heads)
        for server in self.servers:
            digest = (server.heads or {}).get("weights")
            if isinstance(digest, str) and not may_have(layout, digest):
                raise InputError(
                    f"{server.url}: draws with other heads than those in {layout.path}; start it with these, or give "
                    "--heads the file that it was started with"
                )

    @property
    def n_ctx(self) -> int | None:
        """The tokens of prompt and answer that all servers have room for, None where one does not say."""
        sizes = [server.n_ctx for server in self.servers]
        return None if None in sizes else min(sizes)

    def check(self, wanted: Sequence[Request]) -> None:
        """Raise InputError for the first request that the servers cannot answer."""
        for request in wanted:
            where = f"prompt {request.index}"
            if request.sampling.rule:
                raise InputError(f"{where}: rules draw from logits here, which servers do not give")
            if request.sampling.heads != "none":
                self._check_heads()
                if request.sampling.top_k or request.sampling.min_p:
                    raise InputError(f"{where}: heads at a server take neither top_k nor min_p; leave them out")
            if self.n_ctx is not None and len(request.prompt) + request.max_tokens > self.n_ctx:
                raise InputError(
                    f"{where}: {len(request.prompt)} tokens and an answer of {request.max_tokens} exceed the "
                    f"{self.n_ctx} that each slot of a server has; start it with a larger context or fewer slots"
                )

    def answer(self, wanted: Sequence[Request]) -> Iterator[Answer]:
        """Yield an answer to each request as it comes; each says by ``prompt`` and ``sample`` which it is.

        Raises InputError for a request that a server refuses or answers with something else, and when no server
        answers any more. Closing the iterator ends the requests that are under way.
        """
        self.check(wanted)
        reader = Reader(self._llm)
        for request, server, body in self._pool.ask(wanted, asked):
            yield reader.answer(request, server, body)

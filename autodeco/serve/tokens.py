"""Texts as tokens and back, at the addresses under /extras of llama-cpp-python's server.

Its own routes fail at what is no text: half a surrogate pair, a token that does not exist, a letter cut between tokens.
"""

from typing import Any

from fastapi import APIRouter
from llama_cpp.server.types import DetokenizeInputRequest, TokenizeInputRequest

from autodeco.llama import Llama
from autodeco.llama.asked import check_texts


def token_routes(llm: Llama) -> APIRouter:
    """The routes for the vocabulary of ``llm``, which any thread may read."""
    router = APIRouter(prefix="/extras")

    def tokens_of(body: TokenizeInputRequest) -> list[int]:
        check_texts("input", body.input)
        return llm.tokenize(body.input.encode(), special=True)

    @router.post("/tokenize")
    async def tokenize(body: TokenizeInputRequest) -> dict[str, Any]:
        return {"tokens": tokens_of(body)}

    @router.post("/tokenize/count")
    async def count(body: TokenizeInputRequest) -> dict[str, Any]:
        return {"count": len(tokens_of(body))}

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeInputRequest) -> dict[str, Any]:
        return {"text": llm.detokenize(body.tokens).decode("utf-8", "replace")}

    return router

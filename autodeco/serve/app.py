"""The application: OpenAI's addresses, what llama-server has besides, and the page.

Request types are those of llama-cpp-python's own server. Its ``create_app`` is not used: it opens ``llama_cpp.Llama``,
lets pages of every origin in, and drops fields of answers that it does not know.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from sse_starlette.sse import EventSourceResponse
from starlette.middleware.cors import CORSMiddleware

import autodeco
from autodeco.serve.answers import Answer
from autodeco.serve.errors import described, error_object, error_response, install
from autodeco.serve.gate import Gate
from autodeco.serve.metrics import Metrics
from autodeco.serve.options import Listening
from autodeco.serve.page import headers, page
from autodeco.serve.requests import ChatRequest, TextRequest
from autodeco.serve.served_llama import ServedLlama, Stopped
from autodeco.serve.tokens import token_routes
from autodeco.serve.worker import Work, Worker

CLIENT_GONE = 499  # as nginx logs it; nobody reads it
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Events(EventSourceResponse):
    """Chunks of an answer as server-sent events. Its work stops when the client goes."""

    def __init__(self, first: dict[str, Any], work: Work):
        self._work = work
        super().__init__(self._events(first), sep="\n", headers={"X-Accel-Buffering": "no"})

    async def _events(self, first: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
        yield {"data": _json(first)}
        async with contextlib.aclosing(self._work.rest()) as rest:
            async for chunk in rest:
                if isinstance(chunk, Exception):
                    status, message, code = described(chunk)
                    yield {"data": _json(error_object(status, message, None, code))}
                    return
                yield {"data": _json(chunk)}
        yield {"data": "[DONE]"}

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._work.stopped.set()


def _json(chunk: dict[str, Any]) -> str:
    return json.dumps(chunk, separators=(",", ":"))


def create_app(
    llm: ServedLlama, alias: str, policy: str, listening: Listening, about: dict[str, Any] | None
) -> FastAPI:
    """Return the application that serves ``llm`` by the name ``alias``; ``about`` is what /props says of its heads."""
    worker, metrics, started = Worker(), Metrics(), int(time.time())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(
        title="autodeco serve", version=autodeco.__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    install(app)
    app.add_middleware(Gate, listening=listening)
    if listening.origins:
        # outermost, so that its preflights need no key, which browsers do not send with them
        app.add_middleware(
            CORSMiddleware, allow_origins=list(listening.origins), allow_methods=["*"], allow_headers=["*"]
        )

    async def complete(request: Request, body: ChatRequest | TextRequest) -> Response:
        answer = Answer(llm, body, policy, alias, metrics)
        work = worker.begin(answer.chunks if body.stream else lambda stopped: iter([answer.whole(stopped)]))
        try:
            first = await work.first(request)
        except Stopped:
            return Response(status_code=CLIENT_GONE)
        except asyncio.CancelledError:  # the server ends, and nothing else cancels a request
            return error_response(503, "the server is ending; ask again when it is back")
        except Exception as error:
            status, message, code = described(error)
            return error_response(status, message, None, code)
        return Events(first, work) if body.stream else JSONResponse(first)

    @app.post("/v1/chat/completions")
    @app.post("/chat/completions", include_in_schema=False)
    async def chat(request: Request, body: ChatRequest) -> Response:
        return await complete(request, body)

    @app.post("/v1/completions")
    @app.post("/completions", include_in_schema=False)
    @app.post("/v1/engines/copilot-codex/completions", include_in_schema=False)
    async def text(request: Request, body: TextRequest) -> Response:
        return await complete(request, body)

    @app.get("/v1/models")
    @app.get("/models", include_in_schema=False)
    async def models() -> dict[str, Any]:
        model = {"id": alias, "object": "model", "created": started, "owned_by": "autodeco"}
        meta = {"n_vocab": llm.n_vocab(), "n_ctx": llm.n_ctx(), "n_ctx_train": llm._model.n_ctx_train()}
        return {"object": "list", "data": [model | {"meta": meta}]}

    @app.get("/health")
    @app.get("/v1/health", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/props")
    async def props() -> dict[str, Any]:
        return {
            "model_alias": alias,
            "default_generation_settings": {"n_ctx": llm.n_ctx()},
            "total_slots": 1,
            "chat_template": llm.metadata.get("tokenizer.chat_template", ""),
            "autodeco": about and about | {"client_sampling": policy},
        }

    @app.get("/metrics")
    async def numbers() -> Response:
        return PlainTextResponse(metrics.text(), media_type=PROMETHEUS)

    @app.get("/autodeco", response_class=HTMLResponse)
    async def shown() -> Response:
        return HTMLResponse(page(), headers=headers())

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/autodeco")

    app.include_router(token_routes(llm))
    return app

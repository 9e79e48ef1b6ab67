"""Errors as OpenAI's API has them: one line in ``error.message``."""

import sys

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from autodeco.errors import InputError
from autodeco.terminal import one_line, say

LONGEST = 500  # characters of a message, which may hold what the request says
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    503: "server_error",
}


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> dict:
    """Return the body of an answer that is an error."""
    text = one_line(message)
    text = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    kind = TYPES.get(status, "invalid_request_error")
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def error_response(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    """Return the answer that is an error."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(error_object(status, message, param, code), status, headers)


def described(error: Exception) -> tuple[int, str, str | None]:
    """Return status, message and code for ``error``, which answering a request raised."""
    if isinstance(error, InputError):
        too_long = "exceed context window" in str(error)
        return 400, str(error), "context_length_exceeded" if too_long else None
    say(f"autodeco serve: {type(error).__name__}: {error}", file=sys.stderr)
    return 500, f"the server failed at this request ({type(error).__name__}: {error})", None


def install(app: FastAPI) -> None:
    """Have ``app`` answer errors in this form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part != "body"]
        has_body = request.headers.get("content-length", "0") != "0"
        if has_body and not where and "json" not in request.headers.get("content-type", ""):
            return error_response(400, "the request is not said to be JSON; send Content-Type: application/json")
        if first["type"] == "json_invalid":
            return error_response(400, "the request is no valid JSON")
        param = where[0] if where else None
        name = ".".join(part for part in where if part.isidentifier() or part.isdigit())
        return error_response(400, f"{name or 'the request'}: {first['msg']}", param)

    @app.exception_handler(InputError)
    async def senseless(request: Request, error: InputError) -> JSONResponse:
        return error_response(400, str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.url.path}: there is no such address" if error.status_code == 404 else str(error.detail)
        return error_response(error.status_code, message)

    @app.exception_handler(InputError)
    async def wrong(request: Request, error: InputError) -> JSONResponse:
        status, message, code = described(error)
        return error_response(status, message, None, code)

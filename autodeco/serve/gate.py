"""Which requests are let in: by key, by the page that sends them, and by the name that they call the server."""

import hmac
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from autodeco.serve.errors import error_response
from autodeco.serve.options import LOOPBACK_NAMES, Listening

# what llama-server shows without a key, and the page, which holds nothing secret
OPEN = {"/", "/health", "/v1/health", "/models", "/v1/models", "/autodeco"}


class Gate:
    """Middleware that answers requests itself which are not to reach ``app``.

    A browser says which page sends a request. One of another origin could drive a server on this machine unasked: it
    reads no answer without CORS, but its request would be computed. So it is refused, unless ``cors_origins`` names it.
    A page whose name leads to this machine (DNS rebinding) would be of the server's own origin: on a local address
    without keys, the server answers to local names alone.
    """

    def __init__(self, app: ASGIApp, listening: Listening):
        self._app = app
        self._keys = [key.encode() for key in listening.api_keys()]
        self._origins = listening.origins
        self._names = {*LOOPBACK_NAMES, listening.host.lower()} if listening.is_local and not self._keys else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await error_response(*refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if self._names is not None and _name(host) not in self._names:
            return 403, f"host {host[:100]}: is not this server's name; call it localhost, or start it with --api-key"
        origin = headers.get("origin", "").lower()
        own = urlsplit(origin).netloc == host if "://" in origin else not origin
        if not own and not self._origins & {"*", origin}:
            return 403, f"origin {origin[:100]}: pages of it may not use this server; start it with --cors-origins"
        if self._keys and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            # all of them are compared, in constant time
            if not sum(hmac.compare_digest(given.encode("latin-1", "replace"), key) for key in self._keys):
                return 401, "the API key is missing or wrong; send it as Authorization: Bearer KEY"
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

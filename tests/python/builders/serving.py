"""`autodeco serve` in a thread of the tests, and requests to it."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import uvicorn

from autodeco.serve.about import about_heads
from autodeco.serve.app import create_app
from autodeco.serve.options import IGNORE, Listening

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@contextlib.contextmanager
def serving(llm, policy: str = IGNORE, **listening) -> Iterator["Client"]:
    """A client of a server of ``llm`` on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(llm, "small", policy, Listening(**listening), about_heads(llm))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


class Client:
    """Requests over a connection each."""

    def __init__(self, port: int):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def begin(self, path: str, body: object = None, **headers: str) -> http.client.HTTPConnection:
        """A connection with a request under way: GET, or POST with ``body`` as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        method = headers.pop("method", "GET" if body is None else "POST")
        text = body if isinstance(body, (str, type(None))) else json.dumps(body)
        if text is not None:
            headers = {"Content-Type": "application/json"} | headers
        connection.request(method, path, text, headers)
        return connection

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict, str]:
        """Status, headers and text of an answer."""
        with contextlib.closing(self.begin(path, body, **headers)) as connection:
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read().decode()

    def json(self, path: str, body: object = None, **headers: str) -> dict:
        """The answer to a request that is all right."""
        status, _, text = self.ask(path, body, **headers)
        assert status == 200, text
        return json.loads(text)

    def error(self, path: str, body: object = None, **headers: str) -> tuple[int, str]:
        """Status and message of an answer that is an error, in OpenAI's form."""
        status, _, text = self.ask(path, body, **headers)
        error = json.loads(text)["error"]
        assert status >= 400
        assert error.keys() == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return status, error["message"]

    def chunks(self, path: str, body: dict) -> list[dict]:
        """The chunks of a stream that ends as it should."""
        status, headers, text = self.ask(path, body | {"stream": True})
        assert status == 200, text
        assert headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        return list(map(json.loads, events))

    def metrics(self) -> dict[str, float]:
        """The numbers of /metrics by name."""
        _, _, text = self.ask("/metrics")
        return {name: float(value) for name, value in (line.split() for line in text.splitlines() if line[0] != "#")}

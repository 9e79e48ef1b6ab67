"""A server that speaks OpenAI's API and llama.cpp's, and answers as it is told to."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | None  # status and JSON (or bytes); None: the connection is cut
Answering = Callable[[str, dict], Reply]


class FakeServer:
    """Listens on a port of its own while it is entered; ``posts`` are the paths and bodies that it was sent.

    ``pages`` are what GET gives by path; ``answering`` replies to what is posted, with ``seconds`` of thought.
    """

    def __init__(self, answering: Answering, pages: dict[str, Any], seconds: float = 0.0):
        self.answering, self.pages, self.seconds = answering, pages, seconds
        self.posts: list[tuple[str, dict]] = []
        self.keys: set[str | None] = set()
        self.most_at_once = 0
        self.at_once, self.lock = 0, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.keys.add(self.headers.get("Authorization"))
                page = outer.pages.get(self.path)
                self._reply((404, {"error": {"message": "no such page"}}) if page is None else (200, page))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.posts.append((self.path, body))
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                time.sleep(outer.seconds)
                reply = outer.answering(self.path, body)
                with outer.lock:
                    outer.at_once -= 1
                self._reply(reply)

            def _reply(self, reply: Reply):
                if reply is None:
                    self.close_connection = True
                    return
                status, body = reply
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._http.shutdown()
        self._http.server_close()


def pages_of_llama_cpp(n_vocab: int, slots: int = 4, n_ctx: int = 512, **props) -> dict[str, Any]:
    """What llama.cpp's server says of itself."""
    generation = {"n_ctx": n_ctx}
    own = {"build_info": "b1-x", "total_slots": slots, "default_generation_settings": generation}
    return {
        "/props": own | props,
        "/v1/models": {"data": [{"id": "some model", "meta": {"n_vocab": n_vocab}}]},
    }

"""autodeco-server as a test runs it: built once, started on a free port, asked by HTTP."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from builders.compiled import built


class Server:
    """A running server; every method asks it and returns what it answers."""

    def __init__(self, port: int, process: subprocess.Popen, log: Path):
        self.address = f"http://127.0.0.1:{port}"
        self.process = process
        self.log = log

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read().decode()

    def post(self, path: str, **body) -> dict:
        with self.opened(path, **body) as answer:
            return json.load(answer)

    def stream(self, path: str, **body) -> list[dict]:
        """The chunks of a streamed answer."""
        with self.opened(path, **body | {"stream": True}) as answer:
            lines = [line.decode().strip() for line in answer]
        events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(event) for event in events if event != "[DONE]"]

    def refusal(self, path: str, **body) -> tuple[int, str]:
        """The status and the line with which a request is refused."""
        try:
            self.post(path, **body)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["error"]["message"]
        raise AssertionError("the server answers")

    def opened(self, path: str, **body):
        """An answer that is still being written, as bytes to read; a context that ends it."""
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return urllib.request.urlopen(request, timeout=120)


def program() -> Path:
    """The program that AUTODECO_SERVER names, of another build; without it, that of the build of `make strict`."""
    asked = os.environ.get("AUTODECO_SERVER")
    return Path(asked) if asked else built("autodeco-server")


def command(*arguments) -> list[str]:
    """One thread, so that a sum has one order, and no guess at the memory that is free."""
    fixed = ("-t", 1, "-tb", 1, "-fit", "off", "--no-warmup", "--offline", "--metrics", "--host", "127.0.0.1")
    return [str(argument) for argument in (program(), *fixed, *arguments)]


@contextlib.contextmanager
def running(log: Path, *arguments) -> Iterator[Server]:
    """A server with ``arguments``, which writes its log to ``log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as file:
        process = subprocess.Popen(command("--port", port, *arguments), stdout=file, stderr=subprocess.STDOUT)
    try:
        server = Server(port, process, log)
        _wait(server)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(server: Server) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()[-2000:]
        with contextlib.suppress(OSError):
            server.get("/health")
            return
        time.sleep(0.1)
    raise AssertionError(f"the server does not come up: {server.log.read_text()[-2000:]}")

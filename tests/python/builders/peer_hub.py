"""A hub on this machine: serves a folder of repositories as Hugging Face's serves them to llama.cpp."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class Hub:
    """Serves ``folder``/OWNER/NAME/... at ``address`` until ``close``."""

    def __init__(self, folder: Path):
        class Handler(_Handler):
            root = folder

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    root: Path

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 5 and (self.root / parts[2] / parts[3]).is_dir():
            repository = self.root / parts[2] / parts[3]
            if parts[4] == "refs":
                self._send_json({"branches": [{"name": "main", "targetCommit": COMMIT}]})
            else:
                self._send_json([_entry(repository, file) for file in sorted(repository.rglob("*")) if file.is_file()])
        elif (
            len(parts) > 4 and parts[2] == "resolve" and (file := self.root.joinpath(*parts[:2], *parts[4:])).is_file()
        ):
            self._send(file.read_bytes(), "application/octet-stream", _digest(file))
        else:
            self._send(b'{"error": "not found"}', "application/json", status=404)

    do_HEAD = do_GET

    def _send_json(self, value) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, body: bytes, kind: str, etag: str = "", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "none")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def _entry(repository: Path, file: Path) -> dict:
    path = file.relative_to(repository).as_posix()
    digest = _digest(file)
    return {"type": "file", "path": path, "size": file.stat().st_size, "oid": digest, "lfs": {"oid": digest}}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

"""Whom `autodeco serve` lets in, and the command itself."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from autodeco.errors import InputError
from autodeco.serve import page as served_page
from autodeco.serve.options import Listening
from builders.serving import CHAT, serving

AUTODECO = Path(sys.executable).parent / "autodeco"
ASKED = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


class Unused:
    """A model that no request is to reach."""

    heads = None
    metadata: ClassVar[dict] = {}

    def n_ctx(self) -> int:
        return 1


@pytest.fixture(scope="module")
def gate():
    with serving(Unused()) as client:
        yield client


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null", "http://localhost"]
)
def test_pages_of_other_origins_drive_no_server_by_default(gate, origin):
    """Simple requests need no leave of a browser, so they are refused here; nobody gets CORS headers."""
    for path, body, kind in ((CHAT, ASKED, "application/json"), (CHAT, "{}", "text/plain"), ("/props", None, "a/b")):
        status, message = gate.error(path, body, Origin=origin, Content_Type=kind)
        assert status == 403
        assert "pages of it may not use this server; start it with --cors-origins" in message
    status, headers, _ = gate.ask(CHAT, None, method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_server_s_own_page_and_programs_are_let_in(gate):
    for headers in ({"Origin": gate.url}, {}, {"Host": f"localhost:{gate.port}"}, {"Host": "[::1]:1"}):
        assert gate.json("/props", **headers)["autodeco"] is None


def test_the_page_is_served_with_its_policy(gate):
    status, found, text = gate.ask("/autodeco")
    assert (status, text) == (200, served_page.page())
    assert {name: found[name.lower()] for name in served_page.headers()} == served_page.headers()
    status, found, _ = gate.ask("/")
    assert (status, found["location"]) == (307, "/autodeco")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1"])
def test_a_name_that_was_bent_to_this_machine_is_refused(gate, host):
    status, message = gate.error("/props", Host=host, Origin=f"http://{host}")
    assert status == 403
    assert "is not this server's name" in message


def test_origins_that_are_named_get_cors_and_no_others_do():
    with serving(Unused(), cors_origins="http://localhost:3000, https://chat.example/") as client:
        for origin in ("http://localhost:3000", "https://chat.example"):
            status, headers, _ = client.ask("/props", Origin=origin)
            assert (status, headers["access-control-allow-origin"]) == (200, origin)
            asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
            status, headers, _ = client.ask(CHAT, None, method="OPTIONS", Origin=origin, **asked)
            assert (status, headers["access-control-allow-origin"]) == (200, origin)
        assert client.error("/props", Origin="http://localhost:3001")[0] == 403
    with serving(Unused(), cors_origins="*") as client:
        status, headers, _ = client.ask("/props", Origin="http://anybody.example")
        assert (status, headers["access-control-allow-origin"]) == (200, "*")


def test_a_key_is_asked_for_where_there_are_keys(tmp_path):
    (tmp_path / "keys").write_text("second\n\nthird \n")
    with serving(Unused(), api_key="first", api_key_file=tmp_path / "keys") as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic first"}, {"X_Api_Key": ""}):
            for path, body in (
                ("/props", None),
                ("/metrics", None),
                (CHAT, ASKED),
                ("/extras/tokenize", {"input": ""}),
            ):
                assert client.error(path, body, **given) == (
                    401,
                    "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                )
        for key in ("first", "second", "third"):
            assert client.ask("/props", Authorization=f"Bearer {key}")[0] == 200
            assert client.ask("/props", X_Api_Key=key, Host="proxy.example")[0] == 200
        for path in ("/health", "/autodeco"):
            assert client.ask(path)[0] == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_key": " , "}, "api-key: is empty"),
        ({"api_key": "schlüssel"}, "a key has letters that no HTTP header holds"),
        ({"cors_origins": "localhost"}, "cors-origins localhost: is no origin; give them as http://localhost:3000"),
        ({"port": 65536}, "port 65536: must be between 0 and 65535"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    def read() -> tuple:
        listening = Listening(**settings)
        return listening.api_keys(), listening.origins

    with pytest.raises(InputError, match=re.escape(message)):
        read()


def test_a_file_of_keys_without_any_is_refused(tmp_path):
    (tmp_path / "none").write_text("\n \n")
    with pytest.raises(InputError, match=r"none: holds no key; write one a line"):
        Listening(api_key_file=tmp_path / "none").api_keys()


def test_a_key_comes_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", "a,b")
    assert Listening().api_keys() == {"a", "b"}
    assert Listening(api_key="c").api_keys() == {"c"}


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False)]
)
def test_which_addresses_are_of_this_machine(host, local):
    assert Listening(host=host).is_local == local


def test_the_command_serves_until_it_is_told_to_end(smollm2, exported):
    command = [AUTODECO, "serve", smollm2, "--heads", exported("f32"), "--port", "0", "--context", "256"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        said = [process.stderr.readline() for _ in range(4)]
        port = int(re.fullmatch(r"autodeco serve: API http://127\.0\.0\.1:(\d+)/v1   page \S+/autodeco\n", said[0])[1])
        assert said[1:] == [
            "heads: sidecar-f32.gguf: made for this model\n",
            "temperature and top_p of requests are ignored (temperature 0 is greedy)\n",
            "one request at a time; autodeco-server, llama.cpp's server with heads, answers many at once\n",
        ]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr.read() == "interrupted\n"


def test_an_answer_under_way_is_refused_in_one_line_when_the_server_ends(smollm2, exported):
    command = [AUTODECO, "serve", smollm2, "--heads", exported("f32"), "--port", "0", "--context", "4096"]
    wide = {"heads": "none"}
    asked = {
        "prompt": "Once",
        "max_tokens": 4000,
        "temperature": 2,
        "autodeco": wide,
        "logit_bias": {"0": -100, "2": -100},
    }
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        port = int(re.search(r"127\.0\.0\.1:(\d+)/v1", process.stderr.readline())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/completions", json.dumps(asked), {"Content-Type": "application/json"})
        watching = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        watching.request("GET", "/health")  # by then the other request has come in
        assert watching.getresponse().read() == b'{"status":"ok"}'
        process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert answer.status == 503
        assert json.loads(answer.read())["error"]["message"].startswith("the server is ending")
        assert process.wait(60) == 143
        told = process.stderr.read()
        watching.close()
        connection.close()
    assert "Traceback" not in told


def test_an_address_that_is_taken_is_told_before_the_model_is_read(smollm2):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [AUTODECO, "serve", smollm2, "--port", port]
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert run.returncode == 2
    said = f"127.0.0.1:{port}: Address already in use; give another --port, or an address of this machine"
    assert run.stderr == f"autodeco: error: {said}\n"

"""Layers on two of llama.cpp's RPC servers on this machine, against the same programs without: `make edge-rpc`.

For llama.cpp two servers are two devices, so what is said of several GPUs is tried here, too. Not part of `make test`,
which has `test_rpc.py`: there the servers are made of a library, and llama.cpp's own server is not built.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from autodeco.base.opening import default_model
from builders.compiled import compiled
from builders.edge_build import ROOT, TOKENS, EdgeBuild, exported_heads, largest_difference, same_tokens
from builders.relay import relayed
from builders.server import running

FOLDER = ROOT / os.environ.get("AUTODECO_BUILD", "build/rpc")
BUILD = EdgeBuild(FOLDER)
SPREAD = Path(__file__).parents[1] / "python" / "programs" / "spread_over_servers.py"
STORY = "Once upon a time, in a small village by the sea,"
# ways to share a model: options of the programs, arguments of Python, and the part of the second server
WAYS = {
    "one half each": (["--tensor-split", "1,1"], {"tensor_split": [1.0, 1.0]}, (0.4, 0.7)),
    "a quarter and the rest": (["--tensor-split", "1,3"], {"tensor_split": [1.0, 3.0]}, (0.7, 0.9)),
    "all on the second": (["--split-mode", "none", "--main-gpu", "1"], {"split_mode": 0, "main_gpu": 1}, (1.0, 1.0)),
}
PLACES = {
    "all on the servers": {},
    "the draw here": {"AUTODECO_NUCLEUS": "cpu"},
    "heads and draw here": {"AUTODECO_HEADS": "cpu"},
}
LOGITS = 4 * 49152  # bytes


@contextlib.contextmanager
def lending(log: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The endpoint of a server that lends this machine's CPU, one thread of it, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [FOLDER / "ggml-rpc-server", "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as server:
        try:
            for _ in range(100):
                assert server.poll() is None, log.read_text(encoding="utf-8", errors="replace")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}", server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[list[str]]:
    """The endpoints of two servers."""
    folder = tmp_path_factory.mktemp("servers")
    with lending(folder / "first") as (one, first), lending(folder / "second") as (other, second):
        yield [one, other]
        assert first.poll() is second.poll() is None, "a server ended"


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    return exported_heads(tmp_path_factory.mktemp("heads"), "sidecar")


def part_of_the_second(log: str, servers: list[str]) -> float:
    """The part of the model's megabytes that the second server holds, by llama.cpp's log."""
    sizes = [
        sum(map(float, re.findall(rf"\[{re.escape(endpoint)}\] model buffer size = *([\d.]+) MiB", log)))
        for endpoint in servers
    ]
    return sizes[1] / sum(sizes)


@pytest.mark.parametrize("draw", [["--temp", 0], ["--temp", 1, "-s", 7]], ids=["greedy", "drawn"])
@pytest.mark.parametrize("way", WAYS)
def test_the_program(servers, heads, way, draw):
    options, _, (least, most) = WAYS[way]
    options = ["--rpc", ",".join(servers), *options, *draw]
    there = BUILD.generated(default_model(), heads, *options)
    here = BUILD.generated(default_model(), heads, *draw)
    n = same_tokens(there, here)
    difference = largest_difference(there, here, n)
    short = ["-m", default_model(), "--heads", heads, "-p", "x", "-n", 1, "-c", 256, "--verbose"]
    part = part_of_the_second(BUILD.run("autodeco-cli", *short, *options).stderr, servers)
    print(f"\n{way}: {n} of {TOKENS} tokens the same, to {difference:.1e}; the second server holds {part:.2f} of it")
    assert least <= part <= most
    assert n == TOKENS
    assert difference < 1e-3


@pytest.mark.parametrize("place", PLACES)
def test_places(servers, heads, place):
    options = ["--rpc", ",".join(servers), "--tensor-split", "1,1"]
    there = BUILD.generated(default_model(), heads, *options, **PLACES[place])
    here = BUILD.generated(default_model(), heads)
    assert same_tokens(there, here) == TOKENS
    assert largest_difference(there, here, TOKENS) < 1e-3


def told_at_last(n: int, *options, **environment: str) -> dict:
    """What autodeco-cli tells behind ``n`` tokens of the story, the likeliest ones."""
    command = ["-m", default_model(), "-p", STORY, "-n", n, "-t", 1, "-c", 256, "--temp", 0, "--ignore-eos", "--json"]
    return json.loads(BUILD.output("autodeco-cli", *command, *options, **environment).splitlines()[-1])


def talked(servers: list[str], n: int, *options, **environment: str) -> tuple[list[tuple[int, int]], float]:
    """The bytes to and from each server for ``n`` tokens, and tokens per second."""
    with relayed(*servers) as relays:
        rpc = ",".join(relay.endpoint for relay in relays)
        told = told_at_last(n, "--rpc", rpc, "--tensor-split", "1,1", *options, **environment)
        return [(relay.to_server, relay.from_server) for relay in relays], told["tokens_per_second"]


@pytest.mark.parametrize("place", ["without heads", *PLACES])
def test_what_crosses_the_wire_for_a_token(servers, heads, place):
    options = [] if place == "without heads" else ["--heads", heads]
    environment = PLACES.get(place, {})
    few, many = 8, 40
    short, _ = talked(servers, few, *options, **environment)
    long, _ = talked(servers, many, *options, **environment)
    first, second = (
        tuple(round((b - a) / (many - few)) for a, b in zip(*pair, strict=True))
        for pair in zip(short, long, strict=True)
    )
    print(f"\n{place}: {first[0]} and {second[0]} bytes a token to the servers, {first[1]} and {second[1]} from them")
    assert first[1] >= 4 * 576, "the hidden state of the token goes on to the second server"
    if place == "all on the servers":
        assert second[1] < 1024, "a token and what it was drawn with"
    else:
        assert LOGITS <= second[1] < LOGITS + 16384


def test_tokens_per_second(servers, heads):
    def rate(*options) -> float:
        return told_at_last(64, *options)["tokens_per_second"]

    two = ["--rpc", ",".join(servers), "--tensor-split", "1,1"]
    one = ["--rpc", servers[0]]
    runs = {
        "here": [],
        "here, without heads": [],
        "one server": [],
        "two servers": [],
        "two servers, without heads": [],
    }
    for _ in range(3):  # in turns
        runs["here"].append(rate("--heads", heads))
        runs["here, without heads"].append(rate())
        runs["one server"].append(rate("--heads", heads, *one))
        runs["two servers"].append(rate("--heads", heads, *two))
        runs["two servers, without heads"].append(rate(*two))
    print()
    for name, found in runs.items():
        print(f"{name}: {sorted(found)[1]:.1f} tokens a second")
    assert all(min(found) > 0 for found in runs.values())


@pytest.mark.parametrize("way", WAYS)
def test_the_server(servers, heads, way, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTODECO_SERVER", str(FOLDER / "autodeco-server"))
    model = ["-m", default_model(), "--autodeco", heads, "-c", 512, "-np", 2]
    requests = [{"temperature": 0}, {"seed": 7}, {"seed": 11, "backend_sampling": False}]

    def answers(name: str, *options) -> list[dict]:
        with running(tmp_path / name, *model, *options) as server:
            asked = [{"prompt": STORY, "n_predict": TOKENS, "autodeco": True, **request} for request in requests]
            return [server.post("/completion", **body)["autodeco"] for body in asked]

    options, _, (least, most) = WAYS[way]
    there = answers("there", "--rpc", ",".join(servers), "-ngl", 99, "-lv", 4, *options)
    here = answers("here")
    part = part_of_the_second((tmp_path / "there").read_text(errors="replace"), servers)
    print(f"\n{way}: the second server holds {part:.2f} of it")
    assert least <= part <= most
    for one, other in zip(there, here, strict=True):
        assert one["token"] == other["token"]
        for name in ("temperature", "top_p", "prob"):
            assert one[name] == pytest.approx(other[name], abs=2e-3)


@pytest.mark.parametrize("way", WAYS)
def test_python(servers, heads, way):
    """The installed llama.cpp, which loads RPC as a library of its own unless it was built with it."""
    environment = os.environ | (
        {} if llama_cpp.llama_supports_rpc() else {"GGML_BACKEND_PATH": str(compiled("libggml_rpc.so"))}
    )

    def spread(*arguments) -> dict:
        command = [sys.executable, SPREAD, default_model(), heads, TOKENS, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stderr}

    _, arguments, (least, most) = WAYS[way]
    here, there = spread(), spread(",".join(servers), json.dumps(arguments))
    part = part_of_the_second(there["log"], servers)
    print(f"\n{way}: {here['tokens_per_second']:.1f} tokens a second here, {there['tokens_per_second']:.1f} there")
    assert least <= part <= most
    assert there["token"] == here["token"]
    for name in ("temperature", "top_p"):
        assert there[name] == pytest.approx(here[name], abs=1e-3)


def nobody() -> str:
    """An endpoint where no server answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def refusals(log: str) -> list[str]:
    return [
        line for line in log.splitlines() if "error" in line.lower() or "server answers" in line or "--split" in line
    ]


WRONG = {
    "nobody": (["--rpc", "NOBODY"], "no server answers at "),
    "no endpoint": (["--rpc", "somewhere"], "somewhere is no HOST:PORT"),
    "matrices shared": (["--rpc", "SERVERS", "--split-mode", "tensor"], "--split-mode tensor"),
    "rows shared": (["--rpc", "SERVERS", "--split-mode", "row"], "does not support split buffers"),
    "a third of two": (["--rpc", "SERVERS", "--split-mode", "none", "--main-gpu", "2"], "invalid value for main_gpu"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("program", ["autodeco-cli", "autodeco-server"])
def test_what_cannot_be_is_told(servers, heads, program, wrong):
    options, message = WRONG[wrong]
    given = {"NOBODY": nobody(), "SERVERS": ",".join(servers)}
    options = [given.get(option, option) for option in options]
    model = ["-m", default_model(), "-c", 256, *(["--heads", heads, "-p", "x"] if program == "autodeco-cli" else [])]
    model += [] if program == "autodeco-cli" else ["--autodeco", heads, "--port", nobody().split(":")[1], "-fit", "off"]
    done = BUILD.run(program, *model, *options)
    told = [line for line in (done.stdout + done.stderr).splitlines() if message in line]
    assert done.returncode in (1, 2), "an error, and no abort"
    assert told, done.stderr[-2000:]
    print(f"\n{told[0]}")
    if program == "autodeco-cli":
        assert done.stderr.count("\n") == 1


def test_a_server_that_goes_away_is_told_in_one_line(servers, heads, tmp_path):
    with lending(tmp_path / "log") as (endpoint, server):
        command = [
            "-m",
            default_model(),
            "--heads",
            heads,
            "-p",
            STORY,
            "-n",
            -1,
            "-c",
            2048,
            "-t",
            1,
            "--ignore-eos",
            "--json",
        ]
        command = BUILD.command("autodeco-cli", *command, "--rpc", f"{servers[0]},{endpoint}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            program.stdout.readline()
            server.kill()
            _, told = program.communicate(timeout=60)
    assert program.returncode == 2
    assert told == (
        "autodeco-cli: error: a server of --rpc went away, or is of another version of llama.cpp: "
        "start ggml-rpc-server there, of the same version\n"
    )

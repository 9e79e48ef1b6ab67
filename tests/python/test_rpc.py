"""Models on a device of another process: what the sampler adds to the graph runs in this one, or is a device's own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import autodeco
from autodeco.errors import InputError
from builders.compiled import built, compiled
from builders.lfm2_model import write_lfm2
from builders.random_heads import write_random_heads
from builders.rpc import serving

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM = PROGRAMS / "draw_in_every_way.py"
N = 12


def drawn(*arguments) -> dict:
    # a process of its own, for llama.cpp keeps its devices
    done = subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_way_of_drawing_gives_over_rpc_what_it_gives_here(tmp_path):
    library = built("ggml_rpc", "libggml_rpc.so")
    model = write_lfm2(tmp_path / "lfm2.gguf")
    heads = write_random_heads(tmp_path / "heads.gguf", model)
    here = drawn(model, heads)
    assert len({tuple(tokens) for tokens in here.values() if isinstance(tokens[0], int)}) > 3, "the ways are too alike"
    with serving(library) as (endpoint, server):
        there = drawn(model, heads, library, endpoint)
        assert server.poll() is None
    assert there == here


@pytest.fixture(scope="module")
def servers():
    """The RPC backend, which the installed llama.cpp loads by the environment, and two servers."""
    library = built("ggml_rpc", "libggml_rpc.so")
    with serving(library) as (one, first), serving(library) as (other, second):
        yield library, f"{one},{other}"
        assert first.poll() is second.poll() is None


def spread(library, *arguments) -> tuple[dict, str]:
    environment = os.environ | {"GGML_BACKEND_PATH": str(library)}
    command = [str(part) for part in (sys.executable, PROGRAMS / "spread_over_servers.py", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_layers_spread_over_two_servers_give_what_they_give_here(servers, smollm2, exported):
    library, endpoints = servers
    here, _ = spread(library, smollm2, exported("f32"), N)
    there, log = spread(library, smollm2, exported("f32"), N, endpoints)
    print(f"{here['tokens_per_second']:.1f} tokens a second here, {there['tokens_per_second']:.1f} over two servers")
    for endpoint in endpoints.split(","):
        assert f"[{endpoint}] model buffer size" in log, "each server holds a part of the model"
    assert there["token"] == here["token"]
    assert there["temperature"] == pytest.approx(here["temperature"], abs=1e-3)
    assert there["top_p"] == pytest.approx(here["top_p"], abs=1e-3)


@pytest.mark.slow
def test_the_program_spreads_layers_over_servers(servers, smollm2, exported):
    library, endpoints = servers
    command = [compiled("autodeco-cli"), "-m", smollm2, "--heads", exported("f32"), "-p", "The capital of France is"]
    command = [str(part) for part in [*command, "-n", N, "-t", 1, "-c", 256, "--temp", 0, "--ignore-eos", "--json"]]
    environment = os.environ | {"GGML_BACKEND_PATH": str(library)}
    found = []
    for options in ([], ["--rpc", endpoints, "--verbose"]):
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append([json.loads(line) for line in done.stdout.splitlines()][:-1])
    for endpoint in endpoints.split(","):
        assert f"[{endpoint}] model buffer size" in done.stderr
    assert [token["token"] for token in found[0]] == [token["token"] for token in found[1]]
    for one, other in zip(*found, strict=True):
        assert other["temperature"] == pytest.approx(one["temperature"], abs=1e-3)
        assert other["top_p"] == pytest.approx(one["top_p"], abs=1e-3)


@pytest.mark.slow
def test_rows_of_matrices_are_refused_where_a_device_has_none(servers, smollm2, exported):
    environment = os.environ | {"GGML_BACKEND_PATH": str(servers[0])}
    program = f"import autodeco; autodeco.Llama({str(smollm2)!r}, split_mode=2, rpc_servers={servers[1]!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"autodeco.errors.InputError: {smollm2}: RPC0 cannot hold rows of matrices, as "
        "split_mode=LLAMA_SPLIT_MODE_ROW asks; share layers instead, with LLAMA_SPLIT_MODE_LAYER"
    )


def nobody() -> str:
    """An endpoint where no server answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_library_without_rpc_is_told_in_one_line(smollm2):
    with pytest.raises(InputError, match=r"has no RPC; install it again, from source, with CMAKE_ARGS=-DGGML_RPC=ON$"):
        autodeco.Llama(str(smollm2), rpc_servers=nobody())
    done = subprocess.run(
        [compiled("autodeco-cli"), "-m", smollm2, "-p", "x", "--rpc", nobody()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("autodeco-cli: ")
    assert "without llama.cpp's RPC" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", [None, "somewhere", "127.0.0.1:", "127.0.0.1:99999999"])
def test_a_server_that_does_not_answer_is_told_in_one_line(servers, smollm2, endpoint):
    endpoint = endpoint or nobody()
    environment = os.environ | {"GGML_BACKEND_PATH": str(servers[0])}
    program = f"import autodeco; autodeco.Llama({str(smollm2)!r}, rpc_servers={endpoint!r})"
    for command in (
        [compiled("autodeco-cli"), "-m", smollm2, "-p", "x", "--rpc", endpoint],
        [sys.executable, "-c", program],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode in (1, 2), "an error, and no abort"
        line = done.stderr.splitlines()[-1]
        assert endpoint in line
        assert "no server answers at" in line or "no HOST:PORT" in line or "no host:port" in line

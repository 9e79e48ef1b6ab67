"""The npm package openai against both servers: a chat, the same streamed, and the values in them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from autodeco.export.llama_cpp_source import cache_folder
from autodeco.serve.served_llama import ServedLlama
from builders.server import running
from builders.serving import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None or shutil.which("node") is None, reason="needs Node.js and npm"),
]
PROGRAM = Path(__file__).parent / "programs" / "openai_client.mjs"
RELEASE = "openai@6.10.0"
N = 8


@pytest.fixture(scope="module")
def package() -> Path:
    """A folder with the package, fetched once."""
    folder = cache_folder() / f"npm-{RELEASE}"
    if not (folder / "node_modules" / "openai").is_dir():
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, RELEASE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {RELEASE}: {done.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module", params=["autodeco serve", "autodeco-server"])
def address(request, smollm2, exported, tmp_path_factory):
    if request.param == "autodeco serve":
        llm = ServedLlama(str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
        with serving(llm, api_key="secret") as client:
            yield client.url
        llm.close()
    else:
        arguments = ["-m", smollm2, "--autodeco", exported("f32"), "-c", 512, "-np", 1, "--api-key", "secret"]
        with running(tmp_path_factory.mktemp("server") / "log", *arguments) as server:
            yield server.address


def test_the_npm_package_openai(package, address):
    command = ["node", PROGRAM, package, f"{address}/v1", "secret"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    choice = told["whole"]["choices"][0]
    values = choice["autodeco"]
    assert told["whole"]["usage"]["completion_tokens"] == len(values["token"]) == N
    assert [row["temperature"] for row in choice["logprobs"]["content"]] == values["temperature"]
    assert "".join(row["token"] for row in choice["logprobs"]["content"]) == choice["message"]["content"]
    streamed = told["streamed"]
    assert streamed["text"] == choice["message"]["content"]
    assert [token for part in streamed["values"] for token in part["token"]] == values["token"]
    assert streamed["settings"] == told["whole"]["autodeco_settings"]
    assert streamed["usage"]["completion_tokens"] == N
    assert told["refused"]["name"] == "BadRequestError"
    assert "autodeco.heads" in told["refused"]["message"]
    assert told["unknown"]["name"] == "AuthenticationError"

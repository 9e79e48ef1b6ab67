"""Both of our servers tell which heads they draw with, and rollouts and evaluations take those of --heads alone."""

import contextlib
import json

import pytest

from autodeco import cli
from autodeco.export.layout import open_layout
from autodeco.export.weights_digest import weights_digest
from autodeco.serve.served_llama import ServedLlama
from autodeco.servers.pool import opened
from builders.random_heads import write_random_heads
from builders.server import running
from builders.serving import serving
from builders.word_models import write_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    model = write_llama(folder / "model.gguf")
    write_random_heads(folder / "served.gguf", model, seed=1)
    write_random_heads(folder / "other.gguf", model, seed=2)
    rows = [{"prompt": f"{i} and 1", "answer": str(i + 1)} for i in range(6)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@contextlib.contextmanager
def url_of(kind: str, folder, log):
    if kind == "autodeco-server":
        arguments = ["-m", folder / "model.gguf", "--autodeco", folder / "served.gguf", "-c", 512, "-np", 2]
        with running(log, *arguments) as server:
            yield server.address
    else:
        llm = ServedLlama(str(folder / "model.gguf"), folder / "served.gguf", n_ctx=512, n_threads=1, verbose=False)
        with contextlib.closing(llm), serving(llm) as client:
            yield client.url


def command(verb: str, folder, heads: str, url: str, to) -> int:
    problems = folder / "problems.jsonl"
    if verb == "rollout":
        given = ["--problems", problems, "--checker", "number", "--n", 1, "--least-score", 0, "--max-tokens", 4]
    else:
        given = ["--tasks", f"{problems}:number", "--validation", 2, "--test", 2, "--max-tokens", 4]
    given += ["--heads", folder / heads, "--server", url, "-o", to]
    return cli.main([verb, str(folder / "model.gguf"), *map(str, given)])


@pytest.mark.parametrize(
    "kind", [pytest.param("autodeco-server", marks=pytest.mark.slow), "autodeco serve"], ids=lambda kind: kind
)
@pytest.mark.parametrize("verb", ["rollout", "eval"])
def test_other_heads_than_those_of_a_server_are_refused(folder, tmp_path, capsys, kind, verb):
    with url_of(kind, folder, tmp_path / "log") as url:
        assert command(verb, folder, "other.gguf", url, tmp_path / "out") == 2
        line = f"{url}: draws with other heads than those in {folder / 'other.gguf'}; start it with these"
        assert line in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        if verb == "rollout":
            assert command(verb, folder, "served.gguf", url, tmp_path / "out") == 0
            assert len((tmp_path / "out").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "kind", [pytest.param("autodeco-server", marks=pytest.mark.slow), "autodeco serve"], ids=lambda kind: kind
)
def test_a_server_tells_the_digest_of_its_heads(folder, tmp_path, kind):
    with url_of(kind, folder, tmp_path / "log") as url:
        (server,) = opened([url])
        assert server.heads["weights"] == weights_digest(open_layout(folder / "served.gguf"))
        assert server.heads["weights"] != weights_digest(open_layout(folder / "other.gguf"))

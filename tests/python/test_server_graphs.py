"""Decodes that llama.cpp cuts into several graphs: every token has its value, and the random number of its place.

The model is small, random and in float32, so that values can be compared. AUTODECO_NUCLEUS=device draws on the CPU as
on a GPU, by the operations of a device.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from builders.random_heads import write_random_heads
from builders.served_values import HOST, assert_same, values
from builders.server import running
from builders.word_models import write_llama

pytestmark = pytest.mark.slow  # the server is compiled first

PROMPTS = [
    "Once upon a time there was a little girl",
    "One day a big dog saw",
    "The",
    "Lily and her mother went to the park to play with a red ball and a dog",
]
PLACES = ["cpu", "device"]


def body(i: int, n: int = 24) -> dict:
    return {"prompt": PROMPTS[i], "n_predict": n, "seed": i + 1, "autodeco": True, "cache_prompt": False}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    model = write_llama(folder / "model.gguf")
    return ["-m", model, "--autodeco", write_random_heads(folder / "heads.gguf", model, seed=3)]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """The values of each answer, by itself and in one graph a decode."""
    log = tmp_path_factory.mktemp("alone") / "log"
    with running(log, *arguments, "-c", 512, "-np", 1) as server:
        return [values(server.post("/completion", **body(i))) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cache", ["--kv-unified", "--no-kv-unified"])
@pytest.mark.parametrize("where", [{}, HOST], ids=["graph", "host"])
def test_slots_whose_outputs_fill_several_graphs_keep_values_and_seeds(
    arguments, alone, tmp_path, monkeypatch, place, cache, where
):
    monkeypatch.setenv("AUTODECO_NUCLEUS", place)
    slots = ["-c", 1024, "-np", 4, "-ub", 2, cache]
    with running(tmp_path / "log", *arguments, *slots) as server, ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda i: values(server.post("/completion", **body(i) | where)), range(4)))
    for found, wanted in zip(told, alone, strict=True):
        assert_same(found, wanted, atol=1e-3)


@pytest.mark.parametrize("place", PLACES)
def test_several_answers_to_a_prompt_of_several_graphs_have_the_values_of_one(arguments, tmp_path, monkeypatch, place):
    monkeypatch.setenv("AUTODECO_NUCLEUS", place)
    asked = {"prompt": PROMPTS[3], "max_tokens": 12, "seed": 5, "n": 3, "autodeco": True}
    found = []
    for batch in (2, 512):
        with running(tmp_path / f"log{batch}", *arguments, "-c", 1024, "-np", 4, "-ub", batch) as server:
            choices = server.post("/v1/completions", **asked)["choices"]
            found.append([choice["autodeco"] for choice in sorted(choices, key=lambda choice: choice["index"])])
    for cut, whole in zip(*found, strict=True):
        assert_same(cut, whole, atol=1e-3)
        assert None not in cut["temperature"]


@pytest.mark.parametrize("place", PLACES)
def test_drafts_that_fill_several_graphs_keep_values_and_seeds(arguments, alone, tmp_path, monkeypatch, place):
    monkeypatch.setenv("AUTODECO_NUCLEUS", place)
    draft = ["-md", arguments[1], "--spec-type", "draft-simple", "--spec-draft-n-max", 6]
    with running(tmp_path / "log", *arguments, "-c", 512, "-np", 2, "-ub", 2, *draft) as server:
        answers = [server.post("/completion", **body(i)) for i in (0, 3)]
    assert sum(answer["timings"]["draft_n_accepted"] for answer in answers) > 0
    for answer, i in zip(answers, (0, 3), strict=True):
        assert_same(values(answer), alone[i], atol=1e-3)

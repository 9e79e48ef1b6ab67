"""Prompts that autodeco-server has read before: values and texts are those of the cache as llama.cpp has it."""

import pytest

from builders.random_heads import write_random_heads
from builders.served_values import HOST, assert_same, values
from builders.server import running
from builders.word_models import write_llama

pytestmark = pytest.mark.slow  # the server is compiled first

HEAD = "Once upon a time there was a little girl named Lily and she had a big dog."
LEFT_OUT = " One day they saw a bird in the sun, and the friend of Tim said hello to it."
REST = " Tim and his dog loved to play in the park with the little girl and it is good."
BEFORE, AFTER = HEAD + LEFT_OUT + REST, HEAD + REST
N = 24
FIRST = {"prompt": BEFORE, "n_predict": 1, "temperature": 0, "autodeco": True, "cache_prompt": True}
THEN = {"prompt": AFTER, "n_predict": N, "seed": 3, "autodeco": True, "cache_prompt": True}
STATIC = {"autodeco": False, "samplers": ["temperature"]}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    model = write_llama(folder / "model.gguf")
    return ["-m", model, "--autodeco", write_random_heads(folder / "heads.gguf", model, seed=3), "-np", 1]


@pytest.fixture
def ask(arguments, tmp_path):
    """Answers to requests, one after the other, of a server of their own."""
    counted = iter(range(100))

    def asked(*requests: dict, context: int = 512, options: tuple = ()) -> list[dict]:
        with running(tmp_path / f"log{next(counted)}", *arguments, "-c", context, *options) as server:
            return [server.post("/completion", **request) for request in requests]

    return asked


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (("--cache-reuse", 8), {}),
        ((), {"n_cache_reuse": 8}),
        (("--cache-reuse", 8, "--context-shift"), {}),
        (("--cache-reuse", 8, "--kv-unified", "-ub", 4), {}),
    ],
)
def test_chunks_of_a_prompt_that_move_in_the_cache_keep_values_and_texts(ask, options, asked):
    beginning = ask(FIRST, THEN)[1]["timings"]["cache_n"]  # that both prompts share
    graph, host = (ask(FIRST, THEN | asked | where, options=options)[1] for where in ({}, HOST))
    assert graph["timings"]["cache_n"] == host["timings"]["cache_n"] > beginning + 8
    assert_same(values(graph), values(host))
    greedy = {"temperature": 0}
    heads, stock = (ask(FIRST, THEN | asked | greedy | way, options=options)[1] for way in ({}, STATIC))
    assert heads["content"] == stock["content"]
    assert heads["timings"]["cache_n"] == stock["timings"]["cache_n"] == graph["timings"]["cache_n"]


def test_what_has_moved_is_seen_by_the_heads(ask):
    """The first value follows from the cache as it is, of tokens that had read what is left out now."""
    moved = ask(FIRST, THEN | {"n_cache_reuse": 8})[1]
    read = ask(THEN | {"n_cache_reuse": 8})[0]
    again = ask(FIRST, THEN | {"n_cache_reuse": 8}, THEN | {"cache_prompt": False})[2]
    assert_same(values(again), values(read), atol=1e-3)
    assert values(moved)["temperature"][0] != pytest.approx(values(read)["temperature"][0], abs=1e-4)


def test_a_context_that_shifts_behind_a_prompt_that_has_moved(ask):
    options = ("--cache-reuse", 8, "--context-shift")
    longer = THEN | {"n_predict": 400}
    graph, host = (ask(FIRST, longer | where, context=256, options=options)[1] for where in ({}, HOST))
    assert graph["truncated"] is True
    assert len(values(graph)["token"]) == 400
    assert_same(values(graph), values(host), atol=1e-3)


@pytest.mark.parametrize("where", [{}, HOST])
def test_a_prompt_that_begins_as_another_one_gives_the_values_of_one_read_anew(ask, where):
    wanted = values(ask(THEN | where)[0])
    partial, whole = ask(FIRST, THEN | where, THEN | where)[1:]
    assert 0 < partial["timings"]["cache_n"] < whole["timings"]["cache_n"]
    assert_same(values(partial), wanted, atol=1e-3)
    assert_same(values(whole), wanted, atol=1e-3)


def test_prompts_that_come_back_from_memory_give_the_values_of_ones_read_anew(ask):
    other = FIRST | {"prompt": "Hello Tim, there is a dog in the park and it is big.", "n_predict": 8}
    wanted = values(ask(THEN)[0])
    back = ask(THEN, other, THEN, options=("--cache-ram", 64))[2]
    assert back["timings"]["cache_n"] > 0
    assert_same(values(back), wanted, atol=1e-3)

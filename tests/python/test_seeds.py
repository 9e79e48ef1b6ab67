"""The same seed gives the same answer; a random one, and none, never do."""

import subprocess
import sys

import llama_cpp
import pytest

import autodeco
from autodeco.llama import seeds

PROMPT = "Once upon a time"
WILD = {"max_tokens": 6, "temperature": 3.0, "top_p": 2.0}
RANDOM = 2**32 - 1


@pytest.fixture(scope="module", params=["heads", "no heads"])
def model(request, smollm2, exported):
    heads = exported("f32") if request.param == "heads" else None
    model = autodeco.Llama(str(smollm2), heads, n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()


def texts(response):
    if isinstance(response, dict):
        return [choice["text"] for choice in response["choices"]]
    found = {}
    for chunk in response:
        for choice in chunk["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return list(found.values())


@pytest.mark.parametrize("seed", [-1, RANDOM, None])
def test_every_choice_of_a_random_seed_is_another(model, seed):
    found = [text for _ in range(2) for text in texts(model(PROMPT, n=3, seed=seed, **WILD))]
    found += texts(model(PROMPT, n=2, seed=seed, stream=True, **WILD))
    assert len(set(found)) == 8


def test_without_a_seed_a_given_one_before_changes_nothing(model):
    found = []
    for _ in range(2):
        model(PROMPT, seed=5, **WILD)
        found += texts(model(PROMPT, **WILD))
    assert len(set(found)) == 2


def test_a_prompt_cache_gives_no_answer_again(model):
    model.set_cache(llama_cpp.LlamaRAMCache())
    try:
        found = []
        for _ in range(3):
            found += texts(model(PROMPT, **WILD))
            model.reset()  # the state comes from the cache
        assert len(set(found)) == 3
        again = [texts(model(PROMPT, seed=4, **WILD)) for _ in range(3)]
        assert again[1] == again[2], "the first may have read the prompt in other batches"
    finally:
        model.set_cache(None)


def test_models_opened_without_a_seed_answer_differently(smollm2):
    program = (
        "import sys, autodeco; llm = autodeco.Llama(sys.argv[1], n_ctx=64, verbose=False); "
        f"print([llm({PROMPT!r}, **{WILD!r})['choices'][0]['text'] for _ in range(2)])"
    )
    outputs = [subprocess.check_output([sys.executable, "-c", program, str(smollm2)], text=True) for _ in range(2)]
    assert outputs[0] != outputs[1]


@pytest.mark.parametrize("seed", [0, 42])
def test_a_model_opened_with_a_seed_repeats_its_answers(smollm2, seed):
    found = []
    for _ in range(2):
        model = autodeco.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, seed=seed, verbose=False)
        found.append([*texts(model(PROMPT, **WILD)), *texts(model(PROMPT, n=2, **WILD))])
        state = model.__getstate__()
        model.close()
    assert found[0] == found[1]
    assert len(set(found[0])) == 3
    assert state["seed"] == seed


def test_set_seed_is_the_seed_of_completions_without_one(model):
    found = []
    for seed in (7, 7, -1, -1):
        model.reset()
        model.set_seed(seed)
        found += texts(model(PROMPT, **WILD))
    model.set_seed(-1)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_generations_by_hand_are_random_unless_a_seed_is_set(model):
    prompt = model.tokenize(PROMPT.encode())

    def drawn():
        generation = model.generate(prompt, temp=3.0, top_p=2.0)
        tokens = [next(generation) for _ in range(6)]
        generation.close()
        return tokens

    model.set_seed(-1)
    assert drawn() != drawn()
    model.set_seed(3)
    drawn()
    assert drawn() == drawn()
    model(PROMPT, seed=9, **WILD)
    again = drawn()
    assert again == drawn(), "a completion's seed is its own"
    model.set_seed(-1)


def test_seeds_that_follow_each_other_pass_over_the_random_one(model):
    last = RANDOM - 1
    found = [texts(model(PROMPT, n=3, seed=last, **WILD)) for _ in range(2)]
    assert found[0][1:] == found[1][1:]
    assert [seeds.seed_after(last, i) for i in range(3)] == [last, RANDOM >> 1, 0]
    assert [seeds.seed_after(-3, i) for i in range(3)] == [RANDOM - 2, RANDOM - 1, RANDOM >> 1]
    assert RANDOM not in {seeds.random_seed() for _ in range(1000)}


def test_all_generations_of_a_chat_follow_from_its_seed(model, monkeypatch):
    """A format that calls tools makes several, some of them without naming a seed."""
    drawn = []

    def handler(*, llama, seed, **_):
        for own in (seed, None, None):
            llama.create_completion(PROMPT, seed=own, **WILD)
            drawn.append(llama.create_completion(PROMPT, seed=own, **WILD)["choices"][0]["text"])
        return {"choices": [], "usage": {}}

    monkeypatch.setattr(model, "chat_handler", handler)
    messages = [{"role": "user", "content": "hello"}]
    for seed in (1, 1, 2, None, None):
        model.create_chat_completion(messages, seed=seed)
    runs = [drawn[i : i + 3] for i in range(0, len(drawn), 3)]
    assert runs[0] == runs[1]
    assert len({text for run in runs[1:] for text in run}) == 12

"""States of a model with heads: saved, loaded, cached, shifted and pickled as in llama_cpp.Llama."""

import pickle

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco.errors import InputError
from builders.llama_calls import PROMPT, autodeco_model, text


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


def test_a_saved_state_continues_the_same(llm):
    tokens = llm.tokenize(PROMPT.encode())
    llm.eval(tokens)
    state = llm.save_state()
    runs = []
    for _ in range(2):
        llm.load_state(state)
        llm.set_seed(5)
        generator = llm.generate(tokens, temp=2.0)
        runs.append([next(generator) for _ in range(12)])
        generator.close()
    assert runs[0] == runs[1]
    assert len(llm.decoding) == 12
    assert (llm.decoding.temperature > 0).all()


@pytest.mark.parametrize("options", [{"n_ctx": 128}, {"n_ctx": 512, "n_batch": 8}], ids=str)
def test_a_state_goes_on_in_a_context_of_another_size(llm, smollm2, exported, options):
    """llama-cpp-python takes over as many token ids and rows of logits as the other context has."""
    tokens = llm.tokenize(b"word " * 60)
    with autodeco_model(smollm2, exported, **options) as other:
        other.eval(tokens)
        state = other.save_state()
    llm.load_state(state)
    assert llm.n_tokens == len(tokens)
    longer = llm.create_completion("word " * 200, max_tokens=2, temperature=0.0)
    assert longer["usage"]["prompt_tokens"] > 128
    with autodeco_model(smollm2, exported, **options) as other:
        llm.reset()
        llm.eval(tokens)
        other.load_state(llm.save_state())
        assert other.create_completion("word " * 60, max_tokens=2)["usage"]["completion_tokens"] == 2


def test_a_state_that_does_not_fit_leaves_no_trace(llm, smollm2, exported):
    prompt, settings = "word " * 40, {"max_tokens": 4, "temperature": 0.0}
    llm.reset()
    expected = llm(prompt, **settings)["choices"][0]["text"]
    with autodeco_model(smollm2, exported, n_ctx=2 * llm.n_ctx()) as larger:
        larger.eval(larger.tokenize(b"word " * (llm.n_ctx() + 10)))
        large = larger.save_state()
    with pytest.raises(InputError, match=f"the state has {large.n_tokens} tokens, and the context {llm.n_ctx()}"):
        llm.load_state(large)
    llm.reset()
    llm.eval(llm.tokenize(b"word " * 60))
    broken = llm.save_state()
    broken.llama_state, broken.llama_state_size = broken.llama_state[:1000], 1000
    with pytest.raises(InputError, match="the state is not of this model"):
        llm.load_state(broken)
    assert llm.n_tokens == 0
    assert llm(prompt, **settings)["choices"][0]["text"] == expected


def test_a_prompt_cache_of_another_context_is_passed_over(llm, smollm2, exported):
    cache = llama_cpp.LlamaRAMCache()
    llm.reset()
    llm.eval(llm.tokenize(b"word " * 60))
    with autodeco_model(smollm2, exported, n_ctx=2 * llm.n_ctx()) as larger:
        tokens = larger.tokenize(b"word " * (llm.n_ctx() + 10))
        larger.eval(tokens)
        cache[tokens] = larger.save_state()
    llm.set_cache(cache)
    try:
        assert llm("word " * 70, max_tokens=2, seed=1)["usage"]["completion_tokens"] == 2
    finally:
        llm.set_cache(None)


def test_a_prompt_cache_is_used_and_changes_no_prediction(llm):
    text(llm)
    values = llm.decoding
    cache = llama_cpp.LlamaRAMCache()
    llm.set_cache(cache)
    try:
        for _ in range(2):
            llm.reset()
            text(llm)
            np.testing.assert_allclose(llm.decoding.temperature[0], values.temperature[0], atol=0.1)
        assert cache.cache_size > 0
    finally:
        llm.set_cache(None)


def test_a_shifted_context_goes_on(llm):
    """What a caller of the low-level functions does when the context is full: drop the middle, move the rest down."""
    llm.set_seed(2)
    generator = llm.generate(llm.tokenize(PROMPT.encode()), temp=1.5)
    tokens = [next(generator) for _ in range(60)]
    generator.close()
    kept, dropped = 4, 30
    memory = llama_cpp.llama_get_memory(llm.ctx)
    assert llama_cpp.llama_memory_seq_rm(memory, 0, kept, kept + dropped)
    llama_cpp.llama_memory_seq_add(memory, 0, kept + dropped, -1, -dropped)
    llm.input_ids[kept : llm.n_tokens - dropped] = llm.input_ids[kept + dropped : llm.n_tokens].copy()
    llm.n_tokens -= dropped
    generator = llm.generate([*llm.input_ids[: llm.n_tokens].tolist(), tokens[-1]], temp=1.5)
    more = [next(generator) for _ in range(8)]
    generator.close()
    assert llm.decoding.token.tolist() == more
    assert len(set(llm.decoding.temperature.tolist())) > 4, "every token has its own"


def test_a_pickled_model_brings_its_heads(llm, exported):
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    both = [autodeco.Llama(str(exported("f32", layout)), **options) for layout in ("merged", "embedded")]
    for model in (llm, *both):
        copy = pickle.loads(pickle.dumps(model))
        assert copy.heads == model.heads
        copy.reset()
        model.reset()
        assert text(copy) == text(model)
        copy.close()
    for model in both:
        model.close()

"""autodeco.Llama with the model on a GPU: `benchmarks/gpu/run.sh CARRIED OUT python`.

Not part of `make test`. AUTODECO_MODEL and AUTODECO_HEADS name the files, AUTODECO_GPU_LAYERS the number of layers on
the GPU (default -1: all); with 0 the same claims are made of the CPU.
"""

import contextlib
import os

import llama_cpp
import numpy as np
import pytest
from scipy import stats

import autodeco
from autodeco import native
from autodeco.batch import Sampling, generate
from builders.distributions import exact
from builders.stock_llama import last_state, requantize

MODEL, HEADS = os.environ["AUTODECO_MODEL"], os.environ["AUTODECO_HEADS"]
LAYERS = int(os.environ.get("AUTODECO_GPU_LAYERS", -1))
PROMPT = "Once upon a time, in a small village by the sea, there lived"
OPTIONS = {"n_ctx": 1024, "n_gpu_layers": LAYERS, "n_threads": 4, "n_threads_batch": 4, "verbose": False}
# a logits processor, even one that changes nothing, forces the draw onto the host
HOST = {"logits_processor": llama_cpp.LogitsProcessorList([lambda input_ids, logits: logits])}


@pytest.fixture(scope="module")
def llm():
    model = autodeco.Llama(MODEL, HEADS, **OPTIONS)
    yield model
    model.close()


@pytest.fixture(scope="module")
def tokens(llm):
    return llm.tokenize(PROMPT.encode())


@pytest.fixture(scope="module")
def state(tokens):
    """Hidden state [H] and logits [V] of the prompt's last token, as plain llama.cpp computes them there."""
    return last_state(MODEL, tokens, alone=True, **OPTIONS)


@pytest.fixture(scope="module")
def predicted(state):
    return predict(state)


def predict(state):
    """Temperature and top-p that the heads say of ``state`` on the host."""
    (temperature,), (top_p,) = native.predict(HEADS, state[0][None], state[1][None])
    return float(temperature), float(top_p)


def check_draws(drawn, expected):
    """Chi-square of the ``drawn`` tokens, rare ones together."""
    drawn = list(drawn)
    order = np.argsort(-expected, kind="stable")
    frequent = order[expected[order] * len(drawn) >= 5]
    assert len(frequent) >= 3, "the nucleus is too small to test anything"
    observed = np.array([drawn.count(token) for token in frequent])
    wanted = expected[frequent] * len(drawn)
    observed, wanted = (np.append(part, len(drawn) - part.sum()) for part in (observed, wanted))
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


def first_token(llm, tokens, **settings):
    """What the first token after ``tokens``, the last decoded alone, is drawn with."""
    if llm.input_ids[: llm.n_tokens].tolist()[: len(tokens) - 1] != tokens[:-1]:
        llm.reset()
        llm.eval(tokens[:-1])
    generator = llm.generate(tokens, **settings)
    next(generator)
    generator.close()
    return llm.decoding


@pytest.mark.skipif(LAYERS == 0, reason="nothing is asked to be on the GPU")
def test_llama_cpp_has_a_gpu():
    assert llama_cpp.llama_supports_gpu_offload()


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_temperature_and_top_p_are_what_the_heads_say(llm, tokens, predicted, settings):
    decoding = first_token(llm, tokens, **settings)
    assert decoding.temperature[0] == pytest.approx(predicted[0], abs=1e-3)
    assert decoding.top_p[0] == pytest.approx(predicted[1], abs=1e-3)


@pytest.mark.skipif(LAYERS == 0, reason="nothing is asked to be on the GPU")
def test_the_nucleus_is_drawn_on_the_gpu(llm, tokens, monkeypatch):
    made, sampler = [], native.GraphSampler
    monkeypatch.setattr(native, "GraphSampler", lambda *given: made.append(sampler(*given)) or made[-1])
    llm.heads = HEADS  # with a sampler of its own
    first_token(llm, tokens)
    assert made[-1].draws_on_device


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_draws_follow_the_exact_distribution(llm, tokens, state, predicted, settings):
    scale, widen = 2.0 / predicted[0], 0.9 / predicted[1]
    expected = exact(state[1], 2.0, 0.9)
    drawn = []
    for seed in range(400):
        llm.set_seed(seed)
        decoding = first_token(llm, tokens, temp=scale, top_p=widen, **settings)
        drawn.append(decoding.token[0])
        assert decoding.prob[0] == pytest.approx(expected[decoding.token[0]], rel=5e-3)
    check_draws(drawn, expected)


@pytest.mark.filterwarnings("ignore:.*the heads were exported for")
def test_batches_follow_it_too(tokens, tmp_path):
    """With float32 weights, of which every kernel makes the same but for the ten bits of TF32."""
    model = tmp_path / "float32.gguf"
    assert requantize(MODEL, model, llama_cpp.LLAMA_FTYPE_ALL_F32)
    state = last_state(model, tokens, alone=True, **OPTIONS)
    predicted = predict(state)
    expected = exact(state[1], 2.0, 0.9)
    with contextlib.closing(autodeco.Llama(str(model), HEADS, **OPTIONS)) as llm:
        sampling = Sampling(2.0 / predicted[0], 0.9 / predicted[1])
        decodings = [answer.decoding for answer in generate(llm, [tokens], 400, [sampling], max_tokens=1, seed=3)]
    assert len(decodings) == 400
    drawn, temperature, top_p, prob = (
        np.concatenate([getattr(decoding, name) for decoding in decodings])
        for name in ("token", "temperature", "top_p", "prob")
    )
    np.testing.assert_allclose(temperature, predicted[0], atol=2e-2)
    np.testing.assert_allclose(top_p, predicted[1], atol=2e-2)
    np.testing.assert_allclose(prob, expected[drawn], rtol=0.1, atol=1e-3)
    check_draws(drawn, expected)


def test_a_seed_gives_a_text(llm):
    def text(seed):
        llm.reset()
        return llm(PROMPT, max_tokens=32, seed=seed, temperature=6.0, top_p=3.0)["choices"][0]["text"]

    assert text(1) == text(1) != text(2)

"""autodeco.Llama on the real model: what the graph and the host draw, defaults, multipliers, errors."""

import json

import llama_cpp
import numpy as np
import pytest
from scipy import stats

import autodeco
from autodeco import features, native
from builders.distributions import exact
from builders.stock_llama import last_state

PROMPT = "Once upon a time, in a small village by the sea, there lived"


def keep(input_ids, logits):
    """A logits processor that changes nothing, and so forces the draw onto the host."""
    return logits


HOST = {"logits_processor": llama_cpp.LogitsProcessorList([keep])}


@pytest.fixture(scope="module")
def state(smollm2, llm):
    return last_state(smollm2, llm.tokenize(PROMPT.encode()))


def first_token(llm, tokens, **settings):
    generator = llm.generate(tokens, **settings)
    next(generator)
    generator.close()
    return llm.decoding


def test_the_graph_predicts_what_the_heads_say_of_the_same_state(llm, exported, state):
    temperature, top_p = native.predict(exported("f32"), state[0][None], state[1][None])
    decoding = first_token(llm, llm.tokenize(PROMPT.encode()))
    np.testing.assert_allclose(decoding.temperature, temperature, atol=1e-4)
    np.testing.assert_allclose(decoding.top_p, top_p, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_draws_follow_the_exact_distribution(llm, exported, state, settings):
    """Chi-square over 400 seeds of one token, at temperatures scaled until the nucleus holds several."""
    tokens = llm.tokenize(PROMPT.encode())
    (temperature,), (top_p,) = native.predict(exported("f32"), state[0][None], state[1][None])
    scale, widen, n = 2.0 / float(temperature), 0.9 / float(top_p), 400
    expected = exact(state[1], float(temperature) * scale, float(top_p) * widen)
    assert (expected > 0).sum() > 5
    drawn = []
    for seed in range(n):
        llm.set_seed(seed)
        decoding = first_token(llm, tokens, temp=scale, top_p=widen, **settings)
        drawn.append(decoding.token[0])
        np.testing.assert_allclose(decoding.prob, expected[decoding.token], rtol=2e-3)
    assert decoding.nucleus[0] == pytest.approx((expected > 0).sum(), rel=0.02)
    order = np.argsort(-expected, kind="stable")
    frequent = order[expected[order] * n >= 5]
    observed = np.array([drawn.count(token) for token in frequent])
    wanted = expected[frequent] * n
    assert stats.chisquare(np.append(observed, n - observed.sum()), np.append(wanted, n - wanted.sum())).pvalue > 1e-4


@pytest.mark.slow
def test_graph_and_host_draw_the_same_tokens(llm):
    tokens = llm.tokenize(PROMPT.encode())
    for seed in range(5):
        runs = []
        for settings in ({}, HOST):
            llm.reset()  # a prompt decoded whole and one continued from the cache differ in their last bits
            llm.set_seed(seed)
            generator = llm.generate(tokens, temp=6.0, top_p=3.0, **settings)
            runs.append([next(generator) for _ in range(200)])
            generator.close()
            runs.append(llm.decoding)
        assert runs[0] == runs[2]
        np.testing.assert_allclose(runs[1].temperature, runs[3].temperature, atol=1e-3)
        np.testing.assert_allclose(runs[1].top_p, runs[3].top_p, atol=1e-3)
        assert len(set(runs[0])) > 20, "the text is too repetitive to test anything"


def test_graph_and_host_take_turns_in_one_attachment(llm, monkeypatch):
    """Another sampler would make llama.cpp allocate its buffers again, a hand-made decode needs one."""
    settings = {"max_tokens": 12, "seed": 3, "temperature": 6.0, "top_p": 3.0}

    def text(**extra):
        llm.reset()
        return llm(PROMPT, **settings, **extra)["choices"][0]["text"]

    first = text()
    with monkeypatch.context() as patch:
        patch.setattr(native, "GraphSampler", lambda *given: pytest.fail("another sampler was made"))
        assert [text(**HOST), text(), text(**HOST)] == [first] * 3
    by_hand = llm.tokenize(PROMPT.encode())
    llm.reset()
    llm.eval(by_hand)
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(llm.ctx, -1), (llm.n_vocab(),))
    assert int(np.argmax(logits)) == llm.sample(temp=0.0), "the caller reads the context's logits"
    assert [text(**HOST), text()] == [first] * 2


def test_a_cached_prompt_is_drawn_from_on_the_host_and_in_the_graph(llm):
    """The last decode was made for the other place: its values must not be drawn from."""
    first = llm("Seven", max_tokens=1, seed=1)
    second = llm("Seven", max_tokens=1, seed=1, **HOST)
    third = llm("Seven", max_tokens=1, seed=1)
    assert len({a["choices"][0]["text"] for a in (first, second, third)}) == 1


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_a_file_that_brings_its_heads_generates_as_with_a_sidecar(llm, exported, layout):
    both = autodeco.Llama(str(exported("f32", layout)), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    texts = [m(PROMPT, max_tokens=30, seed=5, temperature=4.0)["choices"][0]["text"] for m in (llm, both)]
    assert texts[0] == texts[1]
    assert both.decoding.temperature.tolist() == llm.decoding.temperature.tolist()
    assert both.metadata["general.architecture"] == "llama"
    both.close()


def test_plain_llama_cpp_still_loads_after_a_merged_file(smollm2, exported):
    autodeco.Llama(str(exported("f32", "merged")), n_ctx=64, verbose=False).close()
    llama_cpp.Llama(str(smollm2), n_ctx=64, verbose=False).close()
    with pytest.raises(ValueError, match="Failed to load model"):
        llama_cpp.Llama(str(exported("f32", "merged")), n_ctx=64, verbose=False)


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_temperature_0_is_greedy(smollm2, llm, settings):
    stock = llama_cpp.Llama(str(smollm2), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    greedy = stock(PROMPT, max_tokens=20, temperature=0.0)["choices"][0]["text"]
    assert llm(PROMPT, max_tokens=20, temperature=0.0, **settings)["choices"][0]["text"] == greedy
    assert (llm.decoding.nucleus == 1).all()
    assert (llm.decoding.prob == 1).all()
    stock.close()


@pytest.mark.parametrize("settings", [{}, HOST], ids=["in the graph", "on the host"])
def test_the_same_seed_gives_the_same_text(llm, settings):
    def text(seed):
        return llm(PROMPT, max_tokens=30, seed=seed, temperature=6.0, top_p=3.0, **settings)["choices"][0]["text"]

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(1, 6)}) > 1


def test_seeds_do_not_depend_on_how_the_prompt_was_decoded(llm, smollm2, exported):
    small = autodeco.Llama(
        str(smollm2), exported("f32"), n_ctx=512, n_batch=4, n_threads=1, n_threads_batch=1, verbose=False
    )
    for model in (llm, small):  # whole prompt at once, and four tokens at a time
        model.reset()
    texts = [m(PROMPT, max_tokens=20, seed=9, temperature=5.0)["choices"][0]["text"] for m in (llm, small)]
    assert texts[0] == texts[1]
    small.close()


def test_streaming_gives_the_same_text(llm):
    whole = llm(PROMPT, max_tokens=24, seed=2, temperature=5.0)["choices"][0]["text"]
    pieces = [c["choices"][0]["text"] for c in llm(PROMPT, max_tokens=24, seed=2, temperature=5.0, stream=True)]
    assert len(pieces) > 10
    assert "".join(pieces) == whole


def test_chat_uses_the_model_s_template_plain_and_streaming(llm):
    messages = [{"role": "user", "content": "Say hello."}]
    llm.reset()
    answer = llm.create_chat_completion(messages, max_tokens=16, seed=3)["choices"][0]
    llm.reset()
    deltas = [
        chunk["choices"][0]["delta"].get("content", "")
        for chunk in llm.create_chat_completion(messages, max_tokens=16, seed=3, stream=True)
    ]
    assert "".join(deltas) == answer["message"]["content"]
    assert "hello" in answer["message"]["content"].lower()


def test_every_generated_token_can_be_read_back(llm):
    answer = llm(PROMPT, max_tokens=12, seed=4, temperature=5.0)
    decoding = llm.decoding
    assert len(decoding) == 12
    assert llm.detokenize(decoding.token.tolist()).decode() == answer["choices"][0]["text"]
    assert ((decoding.temperature > 0) & (decoding.temperature < 2)).all()
    assert ((decoding.top_p > 0) & (decoding.top_p < 1)).all()
    assert (decoding.nucleus >= 1).all()
    assert ((decoding.prob > 0) & (decoding.prob <= 1)).all()
    llm(PROMPT, max_tokens=3, seed=4)
    assert len(llm.decoding) == 3
    assert len(decoding) == 12, "what was read is not changed by the next generation"


def test_nothing_cuts_the_distribution_unless_asked(llm):
    """At a huge multiplier every token is possible; with top_k or min_p they are few."""

    def sizes(**settings):
        llm(PROMPT, max_tokens=4, seed=1, temperature=1000.0, top_p=100.0, **settings)
        return llm.decoding.nucleus

    assert (sizes() == llm.n_vocab()).all()
    assert (sizes(top_k=7) == 7).all()
    assert (sizes(min_p=0.9999) < llm.n_vocab()).all()


def test_penalties_apply_after_the_heads_have_seen_the_raw_logits(llm):
    tokens = llm.tokenize(PROMPT.encode())
    free = first_token(llm, tokens, temp=0.0)
    llm(PROMPT, max_tokens=1, temperature=0.0, logit_bias={int(free.token[0]): -100.0})
    assert llm.decoding.token[0] != free.token[0]
    np.testing.assert_allclose(llm.decoding.temperature, free.temperature, atol=1e-6)


def test_a_grammar_is_kept(llm):
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= ("yes" | "no") "!"', verbose=False)
    for seed in range(5):
        text = llm(PROMPT, max_tokens=8, seed=seed, temperature=5.0, grammar=grammar)["choices"][0]["text"]
        assert text in ("yes!", "no!")


def test_a_cached_prompt_is_drawn_from_anew(llm):
    tokens = llm.tokenize(PROMPT.encode())
    first = {int(first_token(llm, tokens, temp=50.0, top_p=100.0).token[0]) for _ in [llm.set_seed(1)]}
    others = set()
    for seed in range(2, 12):
        llm.set_seed(seed)
        others.add(int(first_token(llm, tokens, temp=50.0, top_p=100.0).token[0]))
    assert len(first | others) > 3


def test_eval_and_sample_by_hand(llm):
    """The low-level way of llama_cpp.Llama: settings may come after the decode."""
    llm.reset()
    llm.eval(llm.tokenize(PROMPT.encode()))
    greedy = llm.sample(temp=0.0)
    llm.reset()
    llm.eval(llm.tokenize(PROMPT.encode()))
    assert llm.sample(temp=0.0) == greedy
    assert greedy == first_token(llm, llm.tokenize(PROMPT.encode()), temp=0.0).token[0]


def test_without_heads_temperature_and_top_p_are_ordinary_settings(smollm2):
    plain = autodeco.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    stock = llama_cpp.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    ours = plain(PROMPT, max_tokens=20, seed=1)["choices"][0]["text"]
    theirs = stock(PROMPT, max_tokens=20, seed=1, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    assert ours == theirs["choices"][0]["text"]
    plain.close()
    stock.close()


def test_logits_all_gives_logprobs_and_the_same_predictions(smollm2, exported, llm):
    every = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=128, n_threads=1, verbose=False, logits_all=True)
    answer = every(PROMPT, max_tokens=8, temperature=0.0, logprobs=3)["choices"][0]
    assert [len(top) for top in answer["logprobs"]["top_logprobs"]] >= [3] * 7
    llm.reset()
    assert llm(PROMPT, max_tokens=8, temperature=0.0)["choices"][0]["text"] == answer["text"]
    np.testing.assert_allclose(every.decoding.temperature, llm.decoding.temperature, atol=2e-2)
    np.testing.assert_allclose(every.decoding.top_p, llm.decoding.top_p, atol=2e-2)
    every.close()


@pytest.mark.skipif(
    not features.SEVERAL_OUTPUTS,
    reason=f"llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time",
)
def test_a_draft_model_changes_no_greedy_token(smollm2, exported, llm):
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    draft = LlamaPromptLookupDecoding(num_pred_tokens=2)
    drafted = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=128, n_threads=1, verbose=False, draft_model=draft)
    prompt = "one two three one two three one two"
    llm.reset()
    expected = llm(prompt, max_tokens=12, temperature=0.0)["choices"][0]["text"]
    assert drafted(prompt, max_tokens=12, temperature=0.0)["choices"][0]["text"] == expected
    assert drafted.decoding.token.tolist() == llm.decoding.token.tolist()
    drafted.close()


def test_an_embedding_context_embeds_and_generates(smollm2, exported, llm):
    both = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=128, n_threads=1, verbose=False, embedding=True)
    llm.reset()
    expected = llm(PROMPT, max_tokens=6, temperature=0.0)["choices"][0]["text"]
    vector = np.array(both.embed("hello"))
    assert vector.shape[-1] == 576
    both.reset()
    assert both(PROMPT, max_tokens=6, temperature=0.0)["choices"][0]["text"] == expected
    assert np.allclose(both.embed("hello"), vector, atol=1e-3)
    both.close()


def test_completions_carry_their_values_on_request(llm):
    assert "autodeco" not in llm(PROMPT, max_tokens=2)["choices"][0]
    values = llm(PROMPT, max_tokens=12, seed=4, autodeco=True)["choices"][0]["autodeco"]
    assert values == json.loads(json.dumps(llm.decoding.to_dict()))
    assert len(values["token"]) == 12

    llm.reset()
    chunks = list(llm(PROMPT, max_tokens=12, seed=4, autodeco=True, stream=True))
    parts = [chunk["choices"][0]["autodeco"] for chunk in chunks]
    assert len(chunks) > 5
    assert [token for part in parts for token in part["token"]] == llm.decoding.token.tolist()
    assert [p for part in parts for p in part["top_p"]] == llm.decoding.top_p.tolist()

    messages = [{"role": "user", "content": "Say hello."}]
    answer = llm.create_chat_completion(messages, max_tokens=8, seed=1, autodeco=True)
    assert answer["choices"][0]["autodeco"]["token"] == llm.decoding.token.tolist()
    stream = llm.create_chat_completion(messages, max_tokens=8, seed=1, autodeco=True, stream=True)
    assert sum(len(chunk["choices"][0]["autodeco"]["token"]) for chunk in stream) == len(llm.decoding)


def test_completions_of_several_generations_carry_all_values(llm):
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    llm.chat_format = "chatml-function-calling"
    try:
        answer = llm.create_chat_completion(
            [{"role": "user", "content": "Add 1 and 2."}],
            tools=[tool],
            tool_choice="auto",
            seed=1,
            max_tokens=10,
            autodeco=True,
        )
    finally:
        llm.chat_format = "chat_template.default"
    # the first generation chooses between answering and calling a tool
    assert len(answer["choices"][0]["autodeco"]["token"]) > len(llm.decoding)

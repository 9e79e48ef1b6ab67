"""Every setting of a generation: which token it draws, against the method written down in numpy, with the same random
numbers; and the parameters that there are."""

import ctypes
import inspect
import math
from collections.abc import Iterator
from dataclasses import fields

import llama_cpp
import numpy as np
import pytest

import autodeco
from autodeco.errors import InputError
from autodeco.llama.completions import DEFAULTS
from autodeco.llama.extra_samplers import ExtraSamplers

PROMPT = "Once upon a time, in a small village by the sea, there lived"
LETTERS = "abcdefghijklmnopqrstuvwxyz ,."
STEPS = 40


def uniforms(seed: int) -> Iterator[float]:
    """What std::uniform_real_distribution<double> makes of std::mt19937: two draws a number, the low half first."""
    random = np.random.MT19937()
    random._legacy_seeding(seed)
    while True:
        low, high = random.random_raw(2)
        yield (low + high * 2**32) / 2**64


def softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


def keep(z, kept):
    return np.where(kept, z, -np.inf)


def repeats(history: list[int]) -> dict[int, int]:
    """For each token that would go on with a repetition, how many tokens at the end of ``history`` came before it
    already."""
    found: dict[int, int] = {}
    for at in range(1, len(history)):
        length = 0
        while length < at and history[at - 1 - length] == history[-1 - length]:
            length += 1
        found[history[at]] = max(found.get(history[at], 0), length)
    return found


def penalized(z, history, s):
    z = z.copy()
    for token, bias in (s.get("logit_bias") or {}).items():
        z[token] += bias
    repeat = s.get("repeat_penalty", 1.0)
    for token in set(history):
        count = history.count(token)
        z[token] = z[token] / repeat if z[token] > 0 else z[token] * repeat
        z[token] -= count * s.get("frequency_penalty", 0.0) + s.get("presence_penalty", 0.0)
    if s.get("dry_multiplier"):
        for token, length in repeats(history).items():
            if length >= s["dry_allowed_length"]:
                z[token] -= s["dry_multiplier"] * s["dry_base"] ** (length - s["dry_allowed_length"])
    return z


def cut(z, s):
    """``z`` are logits divided by the temperature; all but the ones that are kept are banned."""
    if s.get("top_n_sigma", 0.0) > 0.0:
        z = keep(z, z >= z.max() - s["top_n_sigma"] * z[np.isfinite(z)].std())
    if s.get("top_k"):
        z = keep(z, z >= np.sort(z)[-s["top_k"]])
    if "typical_p" in s:
        p = softmax(z)
        surprise = -np.log(p, where=p > 0, out=np.full_like(p, -np.inf))
        order = np.argsort(np.abs(surprise - (p * np.where(p > 0, surprise, 0)).sum()))
        kept = np.zeros(len(z), bool)
        kept[order[: np.searchsorted(np.cumsum(p[order]), s["typical_p"], side="right") + 1]] = True
        z = keep(z, kept)
    if "min_p" in s:
        p = softmax(z)
        z = keep(z, p >= s["min_p"] * p.max())
    if s.get("xtc_probability"):
        p = softmax(z)
        choices = np.flatnonzero(p >= s["xtc_threshold"])
        if len(choices) > 1:
            z[np.delete(choices, np.argmin(p[choices]))] = -np.inf
    return z


def drawn(z, top_p, u):
    """(token, size of the nucleus, probability in it)"""
    p = softmax(z)
    order = np.argsort(-z, kind="stable")
    mass = np.cumsum(p[order])
    all_of_them = int((z > z.max() - 87.0).sum())  # what has mass in float32
    size = all_of_them if top_p >= 1.0 else min(int(np.searchsorted(mass, top_p)) + 1, all_of_them)
    at = int(np.searchsorted(mass[:size], u * mass[size - 1], side="right"))
    return int(order[at]), size, p[order[at]] / mass[size - 1]


CASES = {
    "nothing else": {},
    "min-p": {"min_p": 0.1},
    "top-k": {"top_k": 7},
    "typical": {"typical_p": 0.6},
    "repetition penalty": {"repeat_penalty": 1.5},
    "presence penalty": {"presence_penalty": 1.5},
    "frequency penalty": {"frequency_penalty": 1.2},
    "logit bias": {"logit_bias": {28: -100.0, 253: 4.0, 1165: 2.5}},
    "XTC": {"xtc_probability": 1.0, "xtc_threshold": 0.05},
    "DRY": {
        "dry_multiplier": 3.0,
        "dry_base": 1.75,
        "dry_allowed_length": 1,
        "dry_sequence_breakers": [],
        "logit_bias": {253: 9.0, 1165: 8.0},
    },
    "top-n-sigma": {"top_n_sigma": 1.2},
    "grammar": {},
    "all of them": {
        "min_p": 0.02,
        "top_k": 60,
        "typical_p": 0.95,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "logit_bias": {28: -100.0},
        "xtc_probability": 1.0,
        "xtc_threshold": 0.2,
        "top_n_sigma": 2.5,
    },
}


@pytest.fixture(scope="module")
def letters(llm):
    """Tokens that a grammar of ``LETTERS`` allows."""
    vocab = llama_cpp.llama_model_get_vocab(llm.model)
    allowed, buffer = np.zeros(llm.n_vocab(), bool), ctypes.create_string_buffer(256)
    for token in range(llm.n_vocab()):
        size = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)
        ends = llama_cpp.llama_vocab_is_eog(vocab, token)
        allowed[token] = ends or (size > 0 and set(buffer.raw[:size]) <= set(LETTERS.encode()))
    return allowed


@pytest.mark.parametrize("case", CASES)
def test_each_setting_draws_the_token_of_the_method(llm, letters, case):
    """Order: penalties, grammar, temperature, cuts, top-p; the heads have seen none of them."""
    settings, seen = CASES[case], []

    def see(input_ids, logits):
        seen.append(logits.astype(np.float64))
        return logits

    grammar = llama_cpp.LlamaGrammar.from_string(f"root ::= [{LETTERS}]*", verbose=False) if case == "grammar" else None
    llm.reset()
    processors = llama_cpp.LogitsProcessorList([see])
    scale, widen = 1.5, 2.0  # flatter, and the rounding of cumulative masses would decide a draw now and then
    llm(PROMPT, temperature=scale, top_p=widen, seed=21, max_tokens=STEPS, logits_processor=processors,
        grammar=grammar, **settings)  # fmt: skip
    values, random, history = llm.decoding, uniforms(21), []
    assert len(values) > 5
    for i, z in enumerate(seen):
        z = penalized(z, history, settings)
        z = keep(z, letters) if grammar else z
        z = cut(z / (values.temperature[i] * scale), settings)
        token, size, prob = drawn(z, min(values.top_p[i] * widen, 1.0), next(random))
        assert values.token[i] == token, f"step {i}"
        assert values.nucleus[i] == pytest.approx(size, rel=2e-3, abs=1)
        assert values.prob[i] == pytest.approx(prob, rel=2e-3)
        history.append(token)
    assert len(set(history)) > 5, "the text is too repetitive to test anything"


def steps(llm, **settings):
    """(170 tokens that ``settings`` draw, their values)"""
    llm.reset()
    llm.set_seed(8)
    generator = llm.generate(llm.tokenize(PROMPT.encode()), temp=4.0, top_p=2.0, **settings)
    tokens = [next(generator) for _ in range(170)]
    generator.close()
    return tokens, llm.decoding


@pytest.fixture(scope="module")
def steps_in_graph(llm):
    return steps(llm)


@pytest.mark.parametrize(
    "settings",
    [{"min_p": 1e-30}, {"top_k": 49152}, {"typical_p": 0.9999999}, {"repeat_penalty": 1.0 + 1e-7},
     {"xtc_probability": 1.0, "xtc_threshold": 1.0}, {"top_n_sigma": 1e5}],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_settings_that_change_nothing_draw_the_tokens_of_the_graph(llm, steps_in_graph, settings):
    """170 steps each, a thousand in all, past the one of a logits processor in test_llama.py."""
    wanted, values = steps_in_graph
    tokens, found = steps(llm, **settings)
    assert tokens == wanted
    np.testing.assert_allclose(found.temperature, values.temperature, atol=1e-3)
    np.testing.assert_allclose(found.top_p, values.top_p, atol=1e-3)
    assert len(set(tokens)) > 20, "the text is too repetitive to test anything"


@pytest.mark.parametrize("option", ["logits_all", "embedding"])
def test_contexts_whose_every_token_is_an_output_draw_the_tokens_of_the_graph(llm, smollm2, exported, option):
    options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False, option: True}
    every = autodeco.Llama(str(smollm2), exported("f32"), **options)
    runs = []
    for model in (llm, every):
        model.reset()
        model.set_seed(3)
        generator = model.generate(model.tokenize(PROMPT.encode()), temp=4.0, top_p=2.0)
        runs.append([next(generator) for _ in range(100)])
        generator.close()
    assert runs[0] == runs[1]
    # the last layer of the prompt is computed for one token, or for all of them
    np.testing.assert_allclose(every.decoding.temperature[1:], llm.decoding.temperature[1:], atol=1e-3)
    np.testing.assert_allclose(every.decoding.top_p[1:], llm.decoding.top_p[1:], atol=1e-3)
    every.close()


def test_a_sequence_breaker_ends_what_dry_looks_at(llm):
    settings = {"temperature": 0.0, "max_tokens": 24, "dry_multiplier": 50.0, "dry_allowed_length": 1}
    pattern = dict.fromkeys(llm.tokenize(b" a", add_bos=False), 60.0)
    texts = []
    for breakers in ([], [" a"]):
        llm.reset()
        llm(PROMPT, logit_bias=pattern, dry_sequence_breakers=breakers, **settings)
        texts.append(llm.decoding.token.tolist())
    assert len(set(texts[0])) > 2, "the repetition is penalized"
    assert len(set(texts[1])) == 1, "every token breaks the sequence"


def test_without_heads_extra_samplers_work_on_stock_sampling(smollm2):
    plain = autodeco.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    seen = []

    def see(input_ids, logits):
        seen.append(logits.astype(np.float64))
        return logits

    processors = llama_cpp.LogitsProcessorList([see])
    tokens = []
    generator = plain.generate(
        plain.tokenize(PROMPT.encode()), logits_processor=processors, xtc_probability=1.0, xtc_threshold=0.05
    )
    tokens = [next(generator) for _ in range(20)]
    generator.close()
    excluded = 0
    for token, z in zip(tokens, seen, strict=True):
        choices = np.flatnonzero(softmax(z) >= 0.05)
        if len(choices) > 1:
            excluded += 1
            assert token not in np.delete(choices, np.argmin(z[choices]))
    assert excluded > 5
    plain.reset()
    repeated = plain(PROMPT, max_tokens=30, temperature=0.0, logit_bias={28: 40.0})
    plain.reset()
    dry = plain(PROMPT, max_tokens=30, temperature=0.0, logit_bias={28: 40.0}, dry_multiplier=50.0)
    assert repeated["choices"][0]["text"] != dry["choices"][0]["text"]
    plain.close()


def test_extra_samplers_are_made_once_a_generation(llm, smollm2, monkeypatch):
    """The chain frees what is in it, and nothing else would."""
    plain = autodeco.Llama(str(smollm2), n_ctx=64, n_threads=1, n_threads_batch=1, verbose=False)
    made = []
    for name in ("dry", "xtc", "top_n_sigma"):
        init = getattr(llama_cpp, f"llama_sampler_init_{name}")
        monkeypatch.setattr(
            llama_cpp, f"llama_sampler_init_{name}", lambda *a, name=name, init=init: made.append(name) or init(*a)
        )
    for model in (plain, llm):
        made.clear()
        model("One,", max_tokens=3, dry_multiplier=0.5, xtc_probability=0.5, top_n_sigma=2.0)
        assert sorted(made) == ["dry", "top_n_sigma", "xtc"]
    plain.close()


def test_every_method_of_llama_cpp_has_all_its_parameters_and_ours():
    ours = {"generate", "sample", "create_completion", "__call__", "create_chat_completion"}
    own = {field.name for field in fields(ExtraSamplers)}
    for name, stock in inspect.getmembers(llama_cpp.Llama, inspect.isroutine):
        if name.startswith("_") and name != "__call__":
            continue
        theirs = inspect.signature(stock).parameters
        here = inspect.signature(getattr(autodeco.Llama, name)).parameters
        completes = {"autodeco", "heads", "n"} if name not in ("generate", "sample") else set()
        extra = own | completes if name in ours else set()
        assert set(here) - set(theirs) == extra, name
        assert [n for n in here if n in theirs] == list(theirs), name
        for parameter in theirs.values():
            expected = DEFAULTS.get(parameter.name, parameter.default) if name in ours else parameter.default
            assert here[parameter.name].default == expected, (name, parameter.name)
            assert here[parameter.name].kind == parameter.kind, (name, parameter.name)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_ctx": -5}, "n_ctx -5: must be between 0 and"),
        ({"n_ctx": 512.5}, "n_ctx 512.5: must be a whole number"),
        ({"n_batch": 0}, "n_batch 0: must be between 1 and"),
        ({"n_ubatch": 0}, "n_ubatch 0: must be between 1 and"),
        ({"seed": "x"}, "seed 'x': must be a whole number"),
        ({"seed": 2**64}, "seed 18446744073709551616: must be at most|must be between"),
        ({"type_k": 999}, "type_k 999: is no type of keys"),
        ({"type_v": 4}, "type_v 4: is no type of keys"),
    ],
    ids=str,
)
def test_a_context_that_there_cannot_be_is_refused(smollm2, option, message):
    with pytest.raises(InputError, match=message):
        autodeco.Llama(str(smollm2), n_threads=1, verbose=False, **{"n_ctx": 64, **option})


def test_options_of_the_constructor_reach_llama_cpp(smollm2, exported):
    options = {
        "n_ctx": 320, "n_batch": 96, "n_ubatch": 48, "n_threads": 1, "n_threads_batch": 2, "rope_freq_base": 9000.0,
        "rope_freq_scale": 0.5, "yarn_beta_fast": 16.0, "offload_kqv": False, "flash_attn": True, "swa_full": True,
        "no_perf": True, "last_n_tokens_size": 7, "type_k": 8, "type_v": 8, "use_mmap": False, "seed": 5,
        "kv_overrides": {"llama.rope.freq_base": 5.0}, "spm_infill": True, "verbose": False,
    }  # fmt: skip
    stock = llama_cpp.Llama(str(smollm2), **options)
    ours = autodeco.Llama(str(smollm2), exported("f32"), **options)
    for kind in ("context_params", "model_params"):
        for name, _ in getattr(stock, kind)._fields_:
            theirs, here = getattr(getattr(stock, kind), name), getattr(getattr(ours, kind), name)
            if name == "n_outputs_max_per_seq":
                assert here == 1
            elif isinstance(theirs, int | float):
                assert here == theirs, name
    for name in ("last_n_tokens_size", "spm_infill", "_seed", "n_batch"):
        assert getattr(ours, name) == getattr(stock, name)
    assert len(ours(PROMPT, max_tokens=3)["choices"][0]["text"]) > 0
    assert len(ours.decoding) == 3
    stock.close()
    ours.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mirostat_mode": 2}, "mirostat .*leave mirostat_mode at 0"),
        ({"temperature": -1.0}, "temp -1.0: multiplies the prediction"),
        ({"top_p": -0.1}, "top_p -0.1: multiplies the prediction"),
        ({"temperature": math.nan}, "temperature nan: must be a finite number"),
        ({"top_p": math.inf}, "top_p inf: must be a finite number"),
        ({"temperature": "hot"}, "temperature 'hot': must be a number"),
        ({"repeat_penalty": 0.0}, "repeat_penalty 0.0: must be above 0"),
        ({"frequency_penalty": math.nan}, "frequency_penalty nan"),
        ({"n": 0}, "n 0: must be at least 1"),
        ({"n": 1.5}, "n 1.5"),
        ({"seed": "x"}, "seed 'x': must be a whole number"),
        ({"logit_bias": {60000: 1.0}}, "logit_bias: token 60000 is outside the vocabulary of 49152"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias: token -1 is outside"),
        ({"xtc_probability": 1.5}, "xtc_probability 1.5: must be between 0.0 and 1.0"),
        ({"dry_base": 0.5}, "dry_base 0.5"),
        ({"dry_sequence_breakers": "x"}, "dry_sequence_breakers 'x': must be a list"),
        ({"grammar": llama_cpp.LlamaGrammar.from_string("root ::= (((", verbose=False)}, "cannot read the grammar"),
        ({"grammar": 'root ::= "a"'}, "grammar: must be a llama_cpp.LlamaGrammar"),
        ({"logit_bias": {5: math.inf}}, "logit_bias .*: holds NaN, or more than a float32 does"),
        ({"logit_bias": {5: 1e39}}, "logit_bias .*: holds NaN, or more than a float32 does"),
        ({"suffix": "\ud800"}, "suffix: holds half a surrogate pair"),
        ({"stop": ["a", "\ud83e"]}, "stop: holds half a surrogate pair"),
        (
            {"dry_multiplier": 1.0, "dry_sequence_breakers": ["\ud800"]},
            "dry_sequence_breakers: holds half a surrogate pair",
        ),
        ({"prompt": "a\ud800"}, "prompt: holds half a surrogate pair"),
        ({"prompt": None}, "prompt: None must be a text, or a list of the ids"),
        ({"prompt": b"abc"}, "prompt: b'abc' must be a text, or a list"),
        ({"prompt": ["abc"]}, "prompt: .* must be a text, or a list of the ids"),
    ],
    ids=lambda value: f"{value}"[:40],  # an object's address would differ between processes
)
def test_settings_that_make_no_sense_are_refused_in_one_line(llm, settings, message):
    with pytest.raises(InputError, match=message) as raised:
        llm(**{"prompt": PROMPT, "max_tokens": 1, **settings})
    assert "\n" not in str(raised.value)
    assert len(llm("One,", max_tokens=2, seed=1)["choices"]) == 1, "the model goes on"


@pytest.mark.parametrize("messages", [None, "Hi", b"Hi", {"role": "user"}, ["Hi"], [None]])
def test_messages_that_are_none_are_refused(llm, messages):
    with pytest.raises(InputError, match="messages: must be a list of objects like"):
        llm.create_chat_completion(messages, max_tokens=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": "0.5"},
        {"top_k": 0.5},
        {"top_k": 10**400},
        {"top_k": 2**31},
        {"temperature": "1"},
        {"temperature": float("inf")},
        {"temperature": 1e39},
        {"top_p": 10**400},
        {"top_p": None},
        {"min_p": float("nan")},
        {"repeat_penalty": [1]},
        {"presence_penalty": True},
        {"mirostat_mode": "2"},
        {"mirostat_tau": 1j},
        {"max_tokens": "5"},
        {"max_tokens": 2.5},
        {"max_tokens": 10**20},
        {"logprobs": "1"},
        {"seed": 1.5},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {1: "x"}},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": [1]},
    ],
    ids=lambda settings: f"{settings}"[:40],
)
@pytest.mark.parametrize("with_heads", [True, False])
def test_settings_that_are_no_numbers_are_refused_by_name(llm, settings, with_heads):
    heads = llm.heads
    try:
        llm.heads = heads if with_heads else None
        with pytest.raises(InputError, match=next(iter(settings))) as told:
            llm("one", **{"max_tokens": 2} | settings)
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 500
    finally:
        llm.heads = heads

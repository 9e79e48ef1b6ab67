"""What users of llama_cpp.Llama do beside plain generation, with heads: each works as it does there."""

import base64
import contextlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import gguf
import huggingface_hub
import llama_cpp
import numpy as np
import pytest
from llama_cpp import llama_chat_format

import autodeco
from autodeco import features
from autodeco.errors import InputError
from builders.vision_files import write_projector

PROMPT = "Once upon a time, in a small village by the sea, there lived"
SETTINGS = {"max_tokens": 16, "seed": 11, "temperature": 1.5}


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


@contextlib.contextmanager
def autodeco_model(smollm2, exported, **options):
    model = autodeco.Llama(str(smollm2), exported("f32"), n_threads=1, n_threads_batch=1, verbose=False, **options)
    yield model
    model.close()


def text(llm, prompt=PROMPT, **settings) -> str:
    return llm(prompt, **{**SETTINGS, **settings})["choices"][0]["text"]


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


def test_stop_echo_and_suffix(llm):
    plain = text(llm)
    word = plain.split()[3]
    llm.reset()
    stopped = llm(PROMPT, stop=[word], **SETTINGS)["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == plain[: plain.index(word)]
    llm.reset()
    assert text(llm, echo=True) == PROMPT + plain


def test_a_logit_bias_bans_a_token(llm):
    text(llm, temperature=0.0)
    banned = int(llm.decoding.token[0])
    llm.reset()
    text(llm, temperature=0.0, logit_bias={banned: -100.0})
    assert banned not in llm.decoding.token.tolist()


def test_a_json_schema_is_kept_and_values_are_recorded(llm):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = llm.create_chat_completion(
        [{"role": "user", "content": "Give me a number as JSON."}],
        response_format={"type": "json_object", "schema": schema},
        max_tokens=40,
        seed=2,
    )
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["n"], int)
    assert len(llm.decoding) > 3
    assert ((llm.decoding.top_p > 0) & (llm.decoding.top_p < 1)).all()


@pytest.mark.parametrize("what", ["missing", "heads", "model"])
def test_an_adapter_that_is_none_is_refused(smollm2, exported, tmp_path, what):
    """llama.cpp gives llama-cpp-python a pointer to nothing, and the model would answer without the adapter."""
    path = {"missing": tmp_path / "none.gguf", "heads": exported("f32"), "model": smollm2}[what]
    with pytest.raises(InputError, match="no such file" if what == "missing" else "is no LoRA adapter"):
        autodeco.Llama(str(smollm2), exported("f32"), lora_path=path, n_ctx=64, n_threads=1, verbose=False)


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A LoRA adapter of rank 4 for the first attention queries, strong enough to be seen."""
    path = tmp_path_factory.mktemp("lora") / "lora.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    random = np.random.default_rng(0)
    for part in "ab":
        name = f"blk.0.attn_q.weight.lora_{part}"
        shape = (4, 576) if part == "a" else (576, 4)
        writer.add_tensor(name, random.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_lora_adapter_changes_what_the_heads_see(llm, smollm2, exported, lora):
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    adapted = autodeco.Llama(str(smollm2), exported("f32"), lora_path=str(lora), **options)
    tokens = llm.tokenize(PROMPT.encode())
    first = []
    for model in (llm, adapted):
        model.set_seed(0)
        generator = model.generate(tokens)
        next(generator)
        generator.close()
        first.append(model.decoding.temperature[0])
    adapted.close()
    assert abs(first[0] - first[1]) > 1e-3


def test_chats_with_images(llm, smollm2, exported, tmp_path):
    """An image is decoded past the sampler, by llama.cpp's own helper; drawing in the graph and on the host agree."""
    handler = llama_chat_format.Llava15ChatHandler(
        str(write_projector(tmp_path / "mmproj.gguf", llm.n_embd())), verbose=False
    )
    settings = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "chat_handler": handler}
    model = autodeco.Llama(str(smollm2), exported("f32"), **settings)

    def first_values(color: bytes, **extra) -> tuple[float, float]:
        picture = base64.b64encode(b"P6 28 28 255\n" + color * 28 * 28).decode()
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/x-portable-pixmap;base64,{picture}"}},
            {"type": "text", "text": "What is this?"},
        ]
        model.create_chat_completion([{"role": "user", "content": content}], max_tokens=4, seed=1, **extra)
        return model.decoding.temperature[0], model.decoding.top_p[0]

    red, blue = first_values(b"\xff\0\0"), first_values(b"\0\0\xff")
    # llama.cpp rounds differently when the last token is decoded again by itself, which drawing in the graph takes
    assert first_values(b"\xff\0\0", min_p=1e-9) == pytest.approx(red, abs=0.01)
    assert abs(red[0] - blue[0]) > 0.03, "heads see what the image changes"
    model.close()


def test_from_pretrained_takes_heads(smollm2, exported, tmp_path, monkeypatch):
    class Files:
        def ls(self, *args, **kwargs):
            return [{"name": "somebody/smollm2/model.gguf"}]

    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Files)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **kwargs: str(smollm2))
    options = {"local_dir": str(tmp_path), "n_ctx": 64, "n_threads": 1, "verbose": False}
    (tmp_path / "model.gguf").symlink_to(smollm2)
    model = autodeco.Llama.from_pretrained("somebody/smollm2", "model.gguf", heads_path=str(exported("f16")), **options)
    assert isinstance(model, autodeco.Llama)
    model("Hello", max_tokens=2)
    assert len(model.decoding) == 2
    model.close()


def test_a_generation_ends_in_one_line_where_the_context_does(llm):
    tokens = llm.tokenize(b"word " * (llm.n_ctx() - 3))
    made = []
    with pytest.raises(InputError, match=f"the context of {llm.n_ctx()} tokens is full"):
        made += llm.generate(tokens)
    with pytest.raises(InputError, match="is full"):
        llm.eval([1] * (llm.n_ctx() - llm.n_tokens + 1))
    assert llm.n_tokens == llm.n_ctx()


def test_a_full_context_ends_the_text(smollm2, exported):
    model = autodeco.Llama(str(smollm2), exported("f16"), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    answer = model(PROMPT * 15, max_tokens=100, seed=1)
    assert answer["usage"]["total_tokens"] <= 256
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    with pytest.raises(ValueError, match="exceed context window"):
        model(PROMPT * 30, max_tokens=4)
    assert text(model, max_tokens=4), "an error leaves the model usable"
    model.close()


def test_two_models_with_different_heads_in_one_process(llm, smollm2, exported):
    merged = autodeco.Llama(str(exported("q8_0", "merged")), n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    pairs = []
    for _ in range(2):
        for model in (llm, merged):
            model.reset()
            text(model, temperature=0.0)
            pairs.append(model.decoding)
    np.testing.assert_array_equal(pairs[0].temperature, pairs[2].temperature)
    np.testing.assert_array_equal(pairs[1].temperature, pairs[3].temperature)
    assert pairs[0].token.tolist() == pairs[1].token.tolist()
    assert 0 < np.abs(pairs[0].temperature - pairs[1].temperature).max() < 0.05, "q8_0 differs a little from f32"
    merged.close()


def test_threads_with_models_of_their_own(smollm2, exported):
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    models = [autodeco.Llama(str(smollm2), exported(kind), **options) for kind in ("f32", "q8_0")]

    def run(model) -> list[int]:
        model.reset()
        text(model, max_tokens=24)
        return model.decoding.token.tolist()

    one_by_one = [run(model) for model in models]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, models)) == one_by_one
    for model in models:
        model.close()


def test_a_tool_that_is_asked_for_is_called_with_arguments_of_its_schema(llm):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = llm.create_chat_completion(
        [{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_tokens=60,
        seed=2,
        autodeco=True,
    )["choices"][0]
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert isinstance(json.loads(call["function"]["arguments"])["city"], str)
    assert len(answer["autodeco"]["token"]) == len(llm.decoding)


TOOLS = [{"type": "function", "function": {"name": "now"}}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
QUESTION = [{"role": "user", "content": "What time is it?"}]


def called(llm, **settings) -> dict:
    (choice,) = llm.create_chat_completion(QUESTION, max_tokens=30, seed=1, **settings)["choices"]
    return choice["message"]["tool_calls"][0]["function"]


def test_a_tool_without_parameters_can_be_called(llm):
    given = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "now"}}}
    assert called(llm, **given)["name"] == "now"
    assert TOOLS[0]["function"] == {"name": "now"}, "what the caller gave stays"
    found = called(llm, functions=[{"name": "now"}], function_call={"name": "now"})
    assert (found["name"], json.loads(found["arguments"])) == ("now", {})


def test_a_tool_that_is_required_is_called(llm):
    found = called(llm, tools=[WEATHER], tool_choice="required")
    assert (found["name"], json.loads(found["arguments"])) == ("weather", {"city": "Oslo"})


def test_arguments_keep_to_the_whole_schema_of_a_function(llm):
    """llama-cpp-python's own grammar has no bounds of numbers, and takes any JSON where it fails at a schema."""
    number = {"type": "integer", "minimum": 5, "maximum": 7}
    pair = {"type": "array", "items": {"$ref": "#/$defs/number"}, "minItems": 2, "maxItems": 2}
    schema = {"$defs": {"number": number}, "type": "object", "properties": {"a": pair}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    for seed in range(3):
        found = llm.create_chat_completion(QUESTION, tools=[tool], tool_choice="required", max_tokens=40, seed=seed)
        (call,) = found["choices"][0]["message"]["tool_calls"]
        (values,) = json.loads(call["function"]["arguments"]).values()
        assert len(values) == 2
        assert all(5 <= value <= 7 for value in values)


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tools": TOOLS, "tool_choice": NAMED}, "names none of the tools"),
        ({"tool_choice": NAMED}, "names none of the tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "names none of the tools"),
        ({"tools": [WEATHER], "tool_choice": "weather"}, "tool_choice 'weather': must be none, auto, required"),
        ({"tools": [WEATHER, *TOOLS], "tool_choice": "required"}, "wants one tool; of several, name the one"),
        ({"tool_choice": "required"}, "wants one tool"),
        ({"tools": [{}], "tool_choice": NAMED}, "tools: each needs a function with a name"),
        ({"tools": [5]}, "tools: must be a list of objects"),
        ({"tools": {"weather": CITY}}, "tools: must be a list of objects"),
        ({"functions": [{}], "function_call": {"name": "weather"}}, "functions: each needs a function with a name"),
        ({"functions": [{"name": "now"}], "function_call": {"name": "then"}}, "names none of the functions"),
        ({"functions": [{"name": "now"}], "function_call": 5}, "function_call 5: must be none, auto"),
        ({"tools": [{"type": "function", "function": {"name": "weather", "parameters": 5}}], "tool_choice": NAMED},
         "the parameters of weather must be a JSON schema"),
        ({"functions": [{"name": "f", "parameters": {"type": "objekt"}}], "function_call": {"name": "f"}},
         "the parameters of f: the JSON schema, at #: type 'objekt' must be one of"),
    ],
)  # fmt: skip
def test_tools_that_cannot_be_called_are_refused(llm, settings, message):
    with pytest.raises(InputError, match=message):
        llm.create_chat_completion(QUESTION, max_tokens=4, **settings)


def test_a_suffix_reaches_the_model_as_in_llama_cpp(llm, smollm2):
    stock = llama_cpp.Llama(str(smollm2), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    texts = [
        model("def add(a, b):", suffix="    return c", max_tokens=12, temperature=0.0)["choices"][0]["text"]
        for model in (llm, stock)
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 0
    stock.close()


def test_several_choices_have_seeds_that_follow_each_other(llm):
    settings = {"max_tokens": 12, "temperature": 3.0, "top_p": 2.0}
    answer = llm(PROMPT, n=3, seed=5, autodeco=True, **settings)
    alone = []
    for seed in (5, 6, 7):
        alone.append(llm(PROMPT, seed=seed, **settings)["choices"][0]["text"])
    assert [choice["text"] for choice in answer["choices"]][1:] == alone[1:], "the first reads the prompt anew"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(alone)) == 3
    assert answer["usage"]["completion_tokens"] == 36
    assert [len(choice["autodeco"]["token"]) for choice in answer["choices"]] == [12] * 3

    chunks = list(llm(PROMPT, n=3, seed=5, stream=True, **settings))
    texts = ["".join(c["choices"][0]["text"] for c in chunks if c["choices"][0]["index"] == i) for i in range(3)]
    assert texts[1:] == alone[1:]
    assert len({chunk["id"] for chunk in chunks}) == 1

    messages = [{"role": "user", "content": "Say hello."}]
    chat = llm.create_chat_completion(messages, n=2, seed=1, max_tokens=4)
    assert [choice["message"]["role"] for choice in chat["choices"]] == ["assistant"] * 2


@pytest.mark.skipif(
    not features.SEVERAL_OUTPUTS,
    reason=f"llama-cpp-python {llama_cpp.__version__} draws from one output of a text at a time",
)
def test_a_draft_model_changes_no_drawn_token(llm, smollm2, exported):
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    draft = LlamaPromptLookupDecoding(num_pred_tokens=3)
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    drafted = autodeco.Llama(str(smollm2), exported("f32"), draft_model=draft, **options)
    prompt = "one two three four one two three four one two"
    runs = []
    for model in (llm, drafted):
        model.reset()
        model(prompt, max_tokens=24, seed=4)
        runs.append(model.decoding)
    assert runs[0].token.tolist() == runs[1].token.tolist()
    np.testing.assert_allclose(runs[0].temperature, runs[1].temperature, atol=0.05)
    drafted.close()


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


def test_what_a_logits_processor_raises_is_raised(llm):
    def broken(input_ids, logits):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        text(llm, logits_processor=llama_cpp.LogitsProcessorList([broken]))
    assert text(llm)


def test_a_logit_bias_and_a_logits_processor_both_work(llm):
    """llama-cpp-python loses both when it is given both, and adds the bias to the caller's list for good."""
    seen = []

    def see(input_ids, logits):
        seen.append(logits.copy())
        return logits

    processors = llama_cpp.LogitsProcessorList([see])
    text(llm, temperature=0.0, max_tokens=1)
    banned = int(llm.decoding.token[0])
    text(llm, temperature=0.0, max_tokens=3, logits_processor=processors, logit_bias={banned: -100.0})
    assert banned not in llm.decoding.token.tolist()
    assert len(seen) == 3
    assert len(processors) == 1


def test_tokens_are_sent_to_a_generation_as_in_llama_cpp(llm, smollm2, exported):
    """There it ends the process without logits_all."""
    generator = llm.generate(llm.tokenize(PROMPT.encode()))
    next(generator)
    with pytest.raises(InputError, match="logits_all=True only"):
        generator.send([1, 2])
    options = {"n_ctx": 128, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "logits_all": True}
    runs = []
    for model in (autodeco.Llama(str(smollm2), exported("f32"), **options), llama_cpp.Llama(str(smollm2), **options)):
        generator = model.generate(model.tokenize(PROMPT.encode()), temp=0.0)
        tokens = [next(generator), next(generator), generator.send(model.tokenize(b" but then", add_bos=False))]
        runs.append(tokens + [next(generator) for _ in range(5)])
        generator.close()
        model.close()
    assert runs[0] == runs[1]


def test_a_generation_left_alone_disturbs_no_other(llm):
    def chunks(seed):
        return llm(PROMPT, max_tokens=12, seed=seed, temperature=6.0, top_p=3.0, stream=True)

    def rest(stream) -> str:
        return "".join(chunk["choices"][0]["text"] for chunk in stream)

    expected = rest(chunks(2))
    llm.reset()
    left = chunks(1)
    next(left)
    second = chunks(2)
    llm.reset()
    begun = next(second)["choices"][0]["text"]
    with pytest.raises(InputError, match="another generation has begun"):
        rest(left)
    del left
    assert begun + rest(second) == expected
    assert len(llm.decoding) == 12


def test_a_context_that_pools_embeddings_does_not_generate(smollm2, exported):
    """llama.cpp has one vector for a whole sequence there, which is no token's hidden state."""
    options = {"n_ctx": 64, "n_threads": 1, "verbose": False, "embedding": True}
    model = autodeco.Llama(str(smollm2), exported("f16"), pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, **options)
    assert len(model.embed("Hello")) == 576
    with pytest.raises(InputError, match=r"pools embeddings.*opened without embedding=True"):
        model("Hello", max_tokens=1)
    model.heads = None
    assert model("Hello", max_tokens=1)["usage"]["completion_tokens"] == 1
    model.close()


def test_a_closed_model_says_so(smollm2, exported):
    model = autodeco.Llama(str(smollm2), exported("f16"), n_ctx=64, n_threads=1, verbose=False)
    model("Hello", max_tokens=1)
    model.close()
    for use in (
        lambda: model("Hello", max_tokens=1),
        lambda: next(model.generate([1])),
        lambda: model.eval([1]),
        lambda: setattr(model, "heads", exported("f16")),
    ):
        with pytest.raises(InputError, match="was closed; open it again"):
            use()

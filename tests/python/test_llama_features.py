"""What users of llama_cpp.Llama do beside plain generation, with heads: each works as it does there."""

import base64
from concurrent.futures import ThreadPoolExecutor

import gguf
import huggingface_hub
import llama_cpp
import numpy as np
import pytest
from llama_cpp import llama_chat_format

import autodeco
from vision_files import write_projector

PROMPT = "Once upon a time, in a small village by the sea, there lived"
SETTINGS = {"max_tokens": 16, "seed": 11, "temperature": 1.5}


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


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
    assert answer["choices"][0]["message"]["content"].lstrip().startswith("{")
    assert len(llm.decoding) > 3
    assert ((llm.decoding.top_p > 0) & (llm.decoding.top_p < 1)).all()


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

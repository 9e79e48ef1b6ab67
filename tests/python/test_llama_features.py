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
from autodeco.errors import InputError
from builders.llama_calls import PROMPT, SETTINGS, text
from builders.vision_files import write_projector


@pytest.fixture(autouse=True)
def from_the_start(llm):
    llm.reset()


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

"""autodeco.Llama takes heads that fit, changes them, and refuses or names the others."""

import subprocess
import sys
import warnings

import llama_cpp
import pytest

import autodeco
from autodeco.errors import InputError
from autodeco.export import cli as export_cli
from builders import gguf_files as files

PROMPT = "Once upon a time, in a small village by the sea, there lived"


@pytest.fixture
def other_heads(tmp_path):
    """other_heads(hidden, vocab) -> heads file for a model of that shape."""

    def make(hidden, vocab):
        (tmp_path / "other.gguf").write_bytes(files.model(hidden=hidden, vocab=vocab))
        (tmp_path / "other.safetensors").write_bytes(files.safetensors(files.head_arrays(hidden=hidden)))
        path = tmp_path / "other-heads.gguf"
        arguments = [tmp_path / "other.safetensors", "--base", tmp_path / "other.gguf", "-o", path]
        assert export_cli.main([str(argument) for argument in arguments]) == 0
        return path

    return make


def test_heads_of_another_width_are_refused(smollm2, other_heads):
    with pytest.raises(InputError, match=r"other-heads\.gguf: .*hidden size of 64, .*Q4_1\.gguf has 576"):
        autodeco.Llama(str(smollm2), other_heads(64, 49152))


def test_heads_of_another_vocabulary_are_refused(smollm2, other_heads):
    with pytest.raises(InputError, match=r"other-heads\.gguf: .*vocabulary of 1000 tokens, .*Q4_1\.gguf has 49152"):
        autodeco.Llama(str(smollm2), other_heads(576, 1000))


def test_heads_of_another_model_of_the_same_shape_warn_and_name_both(smollm2, other_heads):
    with pytest.warns(UserWarning, match=r"exported for Tiny \(sha256:\w{12}\), .*Q4_1\.gguf is another file"):
        autodeco.Llama(str(smollm2), other_heads(576, 49152), n_ctx=64, verbose=False).close()


def test_the_right_heads_do_not_warn(smollm2, exported):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autodeco.Llama(str(smollm2), exported("f32"), n_ctx=64, verbose=False).close()


def test_a_missing_model_and_a_file_that_is_no_model_are_named(tmp_path, exported):
    with pytest.raises(InputError, match=r"none\.gguf"):
        autodeco.Llama(str(tmp_path / "none.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(InputError, match=r"text\.gguf"):
        autodeco.Llama(str(tmp_path / "text.gguf"))
    with pytest.raises(InputError, match="holds heads only"):
        autodeco.Llama(str(exported("f32")))


def test_a_model_in_a_reference_cycle_is_freed_in_any_order(smollm2, exported):
    """The context may be finalized before the model object that would take the sampler out of it."""
    code = f"""
import gc, autodeco
for _ in range(4):
    llm = autodeco.Llama({str(smollm2)!r}, {str(exported("f32"))!r}, verbose=False, n_ctx=64, n_threads=1)
    llm("one", max_tokens=2)
    llm.cycle = llm._ctx.cycle = [llm, llm._ctx, llm._attachment]
    del llm
    gc.collect()
llm = autodeco.Llama({str(smollm2)!r}, {str(exported("f32"))!r}, verbose=False, n_ctx=64, n_threads=1)
llm("one", max_tokens=2)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_heads_are_changed_on_a_live_model(llm, smollm2, exported, other_heads):
    own = autodeco.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    stock = llama_cpp.Llama(str(smollm2), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    settings = {"max_tokens": 15, "seed": 3, "temperature": 0.9, "top_p": 0.9}
    plain = stock(PROMPT, top_k=0, min_p=0.0, **settings)["choices"][0]["text"]
    dynamic = llm(PROMPT, **settings)["choices"][0]["text"]
    assert plain != dynamic

    def text() -> str:
        own.reset()
        return own(PROMPT, **settings)["choices"][0]["text"]

    assert own.heads is None
    assert text() == plain
    own.heads = exported("f32")
    assert own.heads == str(exported("f32"))
    assert text() == dynamic
    with pytest.raises(InputError, match="hidden size of 320"):
        own.heads = other_heads(hidden=320, vocab=49152)
    assert text() == dynamic, "refused heads leave the old ones in place"
    generator = own.generate(own.tokenize(PROMPT.encode()))
    next(generator)
    with pytest.raises(InputError, match="is generating"):
        own.heads = None
    generator.close()
    own.heads = None
    assert text() == plain
    assert len(own.decoding) == 0
    own.close()
    stock.close()


def test_matrices_shared_by_gpus_are_refused_before_the_model_is_loaded(smollm2, exported, monkeypatch):
    told = r"heads do not work with split_mode=LLAMA_SPLIT_MODE_TENSOR; take another one, or leave them out$"
    with monkeypatch.context() as loading:
        loading.setattr(llama_cpp.Llama, "__init__", lambda *_, **__: pytest.fail("loads the model"))
        with pytest.raises(InputError, match=told):
            autodeco.Llama(str(smollm2), exported("f32"), split_mode=llama_cpp.LLAMA_SPLIT_MODE_TENSOR)
    own = autodeco.Llama(str(smollm2), n_ctx=256, verbose=False)
    own.model_params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_TENSOR  # as where it was opened so, on several GPUs
    with pytest.raises(InputError, match=told):
        own.heads = exported("f32")
    assert own.heads is None
    own.close()


def test_the_settings_of_several_gpus_reach_llama_cpp(smollm2, exported):
    settings = {"split_mode": llama_cpp.LLAMA_SPLIT_MODE_NONE, "main_gpu": 3, "tensor_split": [1.0, 3.0]}
    llm = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=256, verbose=False, **settings)  # no GPU: no effect
    params = llm.model_params
    assert (params.split_mode, params.main_gpu) == (llama_cpp.LLAMA_SPLIT_MODE_NONE, 3)
    assert params.tensor_split[:3] == [1.0, 3.0, 0.0]
    llm.close()

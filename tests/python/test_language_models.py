"""Models that do not write one token after the other are refused by everything that opens a model."""

import json
import subprocess

import gguf
import llama_cpp
import pytest

import autodeco
from autodeco import native
from autodeco.base.opening import open_base
from autodeco.errors import InputError
from autodeco.export import cli as export_cli
from autodeco.export.language_models import REFUSED, refused
from autodeco.export.layout import open_layout
from builders import commands, gguf_files
from builders.compiled import compiled
from builders.lfm2_model import HIDDEN, VOCAB, write_lfm2
from builders.random_heads import write_random_heads

LINE = "heads need a language model that writes one token after the other"


def write_header(path, architecture, **keys):
    """A file that says what it is, and holds nothing."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(HIDDEN)
    writer.add_vocab_size(VOCAB)
    for key, value in keys.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_header(tmp_path_factory.mktemp("bert") / "bert.gguf", "bert")


@pytest.mark.parametrize("architecture", REFUSED)
def test_an_architecture_that_cannot_write_is_refused(architecture, tmp_path):
    path = write_header(tmp_path / "model.gguf", architecture)
    with pytest.raises(InputError) as told:
        open_layout(path)
    assert str(told.value) == f"{path}: is {REFUSED[architecture]} ({architecture}); {LINE}"


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"attention.causal": False}, "a model whose attention is not causal"),
        *(({"pooling_type": kind}, "an embedding model") for kind in (1, 2, 3, 4)),
    ],
)
def test_so_is_a_model_that_says_of_itself_that_it_cannot(keys, what, tmp_path):
    with pytest.raises(InputError, match=rf"model\.gguf: is {what} \(qwen3\); {LINE}"):
        open_layout(write_header(tmp_path / "model.gguf", "qwen3", **keys))


@pytest.mark.parametrize("keys", [{}, {"attention.causal": True}, {"pooling_type": 0}, {"pooling_type": 2**32 - 1}])
def test_others_are_not(keys, tmp_path):
    assert open_layout(write_header(tmp_path / "model.gguf", "qwen3", **keys)).architecture == "qwen3"


@pytest.mark.parametrize("architecture", ["deepseek4", "qwen4exp"])
def test_embedding_with_what_llama_cpp_aborts_on_is_refused(architecture, tmp_path):
    path = write_header(tmp_path / "model.gguf", architecture)
    with pytest.raises(
        InputError, match=rf"model\.gguf: llama\.cpp cannot embed .* \({architecture}\); open it without"
    ):
        autodeco.Llama(str(path), embedding=True)


@pytest.mark.parametrize("architecture", [*REFUSED, "llama", "t5x", "", "lfm2"])
def test_python_and_c_agree(architecture):
    for causal in (True, False):
        for pooling in (-1, 0, 1, 2, 3, 4, 5):
            of_c = native.refused_model(architecture, causal, pooling)
            assert of_c == (refused(architecture, causal, pooling) or "")


def test_every_way_to_open_one_is_refused(bert, tmp_path):
    for open_it in (open_base, autodeco.Llama, lambda path: autodeco.Llama(path, embedding=True)):
        with pytest.raises(InputError, match=LINE):
            open_it(str(bert))
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1 =", "completion": " 2"}))
    problems = tmp_path / "problems.jsonl"
    problems.write_text("\n".join(json.dumps({"prompt": f"1 + {i} =", "answer": str(1 + i)}) for i in range(8)))
    for arguments in (
        ("generate", "-m", bert, "hello"),
        ("bench", bert),
        ("inspect", bert),
        ("collect", bert, "--data", data, "-o", tmp_path / "traces"),
        ("rollout", bert, "--problems", problems, "-o", tmp_path / "answers.jsonl"),
        ("eval", bert, "--tasks", problems, "-o", tmp_path / "evaluations"),
        ("reward", bert, "--problems", problems, "-o", tmp_path / "rewarded"),
    ):
        assert f"{bert}: is an embedding model (bert); {LINE}" in commands.refused(*arguments)
    assert not (tmp_path / "traces").exists()


def test_heads_are_not_made_for_one(bert, tmp_path, capsys):
    (tmp_path / "heads.safetensors").write_bytes(gguf_files.safetensors(gguf_files.head_arrays(hidden=HIDDEN)))
    arguments = [tmp_path / "heads.safetensors", "--base", bert, "-o", tmp_path / "out.gguf"]
    for more in ([], ["--layout", "merged"], ["--check"]):
        assert export_cli.main([str(argument) for argument in [*arguments, *more]]) == 2
        assert LINE in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("said", [{"pooling": 3}, {"causal": False}], ids=str)
def test_c_refuses_one_that_llama_cpp_loads(said, tmp_path):
    path = write_lfm2(tmp_path / "model.gguf", **said)
    heads = write_random_heads(tmp_path / "heads.gguf", write_lfm2(tmp_path / "fits.gguf"))
    stock = llama_cpp.Llama(str(path), n_ctx=64, verbose=False)
    with pytest.raises(ValueError, match=rf"the model is .* \(lfm2\); {LINE}"):
        native.load_heads(heads).check_fit(native.address(stock.model))
    stock.close()
    for with_heads in ([], ["--heads", heads]):
        command = [compiled("autodeco-cli"), "-m", path, *with_heads, "-p", "hello", "-n", "2"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("autodeco-cli: ")
        assert f"{path}: the model is " in result.stderr
        assert result.stderr.count("\n") == 1

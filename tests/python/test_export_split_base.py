"""A model that is split into several GGUF files: heads go beside it, one file needs it joined or quantized first."""

import pytest

import autodeco
from autodeco.base.opening import open_base
from autodeco.errors import InputError
from autodeco.export import cli
from autodeco.export.language_models import REFUSED
from autodeco.export.layout import open_layout
from builders import gguf_files as files
from builders.golden import GOLDEN
from builders.stock_llama import split


@pytest.fixture(scope="module")
def parts(smollm2, tmp_path_factory) -> list:
    return split(smollm2, tmp_path_factory.mktemp("parts"), 100)


def drawn(model, heads) -> tuple[str, list[float]]:
    llm = autodeco.Llama(str(model), heads, n_ctx=64, n_threads=1, verbose=False)
    text = llm("The capital of France is", max_tokens=6, temperature=0)["choices"][0]["text"]
    temperatures = llm.decoding.temperature.tolist()
    llm.close()
    return text, temperatures


def test_heads_for_a_split_model_run_as_for_the_whole_one(parts, smollm2, exported, tmp_path, monkeypatch):
    assert [path.name for path in parts] == [f"part-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(GOLDEN / "smollm2.heads.safetensors"), "--base", str(parts[0])]) == 0
    sidecar = tmp_path / "part_f16_heads.autodeco"
    assert open_layout(sidecar).base_fingerprint == open_layout(parts[0]).base_fingerprint
    assert drawn(parts[0], sidecar) == drawn(smollm2, exported("f16"))


def test_one_file_with_a_split_model_needs_it_joined_and_the_command_is_told(parts, capsys, tmp_path):
    output = tmp_path / "out.gguf"
    arguments = [GOLDEN / "smollm2.heads.safetensors", "--base", parts[0], "--layout", "merged", "-o", output]
    assert cli.main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    assert f"join it first with 'llama-gguf-split --merge {parts[0]} part.gguf' and give part.gguf" in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_another_part_than_the_first_is_told_the_first(parts, capsys, tmp_path):
    heads = GOLDEN / "smollm2.heads.safetensors"
    assert cli.main([str(heads), "--base", str(parts[1]), "-o", str(tmp_path / "out.gguf")]) == 2
    error = capsys.readouterr().err
    assert f"{parts[1]}: part 2 of 3 of a split model; give the first, {parts[0]}" in error


def test_quantizing_joins_a_split_model(tmp_path, monkeypatch):
    for module in ("torch", "transformers", "sentencepiece"):
        pytest.importorskip(module)
    from autodeco.export.convert import convert
    from builders import hf_folders

    monkeypatch.chdir(tmp_path)
    hf_folders.write_tiny("qwen3", tmp_path / "qwen3")
    convert("qwen3", "whole.gguf")
    first = split("whole.gguf", tmp_path, 5)[0]
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    arguments = ["heads.safetensors", "--base", str(first), "--quantize", "q8_0"]
    assert cli.main([*arguments, "--layout", "merged", "-o", "merged.gguf"]) == 0
    assert cli.main(arguments) == 0
    made, heads = "part-Q8_0.gguf", "part-Q8_0_f16_heads.autodeco"
    assert open_layout("merged.gguf").base_fingerprint == open_layout(made).base_fingerprint
    text, temperatures = drawn("merged.gguf", None)
    assert (text, temperatures) == drawn(made, heads)
    assert len(temperatures) >= 1


HEADS = str(GOLDEN / "smollm2.heads.safetensors")


@pytest.fixture
def damaged(parts, tmp_path):
    """damaged(change) -> the first of copies of the parts, the second of which ``change`` has changed."""

    def make(change):
        folder = tmp_path / "damaged"
        folder.mkdir()
        copies = [folder / part.name for part in parts]
        for part, copy in zip(parts, copies, strict=True):
            copy.symlink_to(part)
        change(copies[1])
        return copies

    return make


def cut(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1000])


def twice(path):
    path.unlink()
    path.symlink_to(path.with_name("part-00003-of-00003.gguf").resolve())


WRONG = {
    "missing": (lambda path: path.unlink(), "part-00001-of-00003.gguf: part 2 of 3 is missing; fetch {second}"),
    "cut off": (cut, "{second}: cut off"),
    "another part": (twice, "{second}: is not part 2 of 3 of {first}; fetch it again"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
def test_a_part_that_is_missing_or_wrong_is_named(damaged, capsys, tmp_path, case, layout):
    change, expected = WRONG[case]
    first, second, _ = damaged(change)
    arguments = [HEADS, "--base", str(first), "--layout", layout, "-o", str(tmp_path / "out")]
    for more in ([], ["--quantize", "q8_0"]):
        assert cli.main([*arguments, *more]) == 2
        error = capsys.readouterr().err
        assert expected.format(first=first, second=second) in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_of_which_a_part_is_missing_is_not_opened(damaged, exported):
    first, second, _ = damaged(lambda path: path.unlink())
    for heads in (None, exported("f16")):
        with pytest.raises(InputError, match=f"part 2 of 3 is missing; fetch {second}"):
            autodeco.Llama(str(first), heads, verbose=False)
    with pytest.raises(InputError, match="part 2 of 3 is missing"):
        open_base(first)


def test_a_first_part_under_another_name_is_told_how_it_is_found(parts, capsys, tmp_path):
    for name in ("model.gguf", "part-00001-of-00004.gguf"):
        (tmp_path / name).symlink_to(parts[0])
        assert cli.main([HEADS, "--base", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 2
        assert "whose names must end in -00001-of-00003.gguf" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["bert", "t5", "dream", "eagle3"])
def test_what_is_no_language_model_is_no_base(tmp_path, monkeypatch, capsys, architecture):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    keys = [
        files.key("general.architecture", files.STRING, architecture),
        files.key(f"{architecture}.embedding_length", files.U32, 64),
        files.key("tokenizer.ggml.tokens", files.STRING, ["a", "b"]),
    ]
    (tmp_path / "model.gguf").write_bytes(files.gguf(keys, [], b""))
    for layout in ("sidecar", "merged", "embedded"):
        assert cli.main(["heads.safetensors", "--base", "model.gguf", "--layout", layout]) == 2
        error = capsys.readouterr().err
        assert "model.gguf: " in error
        assert REFUSED[architecture] in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.safetensors", "model.gguf"]

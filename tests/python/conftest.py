"""What most tests need: the small model, the golden heads as files for it, and the model opened with them."""

import os
import signal
from pathlib import Path

import pytest

# Before anything loads OpenMP; commands that tests start get it too. Models of tests are small, and two processes of
# tests share two processors: threads that wait for each other by spinning would cost several times what they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # llama.cpp's, whose number each model is told

import autodeco
from autodeco.base.opening import default_model
from autodeco.export import cli as export_cli

pytest.register_assert_rewrite("builders")
from builders.golden import GOLDEN  # noqa: E402

# Before anything imports triton: its kernels run in its interpreter, on the CPU. 0 in the environment: on the GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Tests that interrupt a run need SIGINT, which shells set to be ignored in background jobs and their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return default_model()


@pytest.fixture(scope="session")
def exported(smollm2, tmp_path_factory):
    """exported(type, layout) -> path of the golden SmolLM2 heads exported for the model, made once a session."""
    folder = tmp_path_factory.mktemp("exported")

    def export(weight_type: str = "f16", layout: str = "sidecar") -> Path:
        path = folder / f"{layout}-{weight_type}.gguf"
        if not path.exists():
            heads = GOLDEN / "smollm2.heads.safetensors"
            arguments = [heads, "--base", smollm2, "--layout", layout, "--type", weight_type, "-o", path]
            arguments += ["--sampling", "none"]  # else the model runs for the heads' mean
            assert export_cli.main([str(argument) for argument in arguments]) == 0
        return path

    return export


@pytest.fixture(scope="session")
def other_heads(tmp_path_factory):
    """Heads of a model of another width."""
    import gguf
    import numpy as np

    path = tmp_path_factory.mktemp("other") / "heads.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("adapter.type", "autodeco")
    writer.add_uint32("autodeco.version", 1)
    writer.add_uint32("autodeco.embedding_length", 64)
    writer.add_uint32("autodeco.vocab_size", 100)
    writer.add_float32("autodeco.temperature.scale", 2.0)
    shapes = {"0.weight": (256, 64), "0.bias": 256, "2.weight": (1, 256), "2.bias": 1}
    for name, shape in shapes.items():
        writer.add_tensor(f"autodeco.temp_head.{name}", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def llm(smollm2, exported):
    """SmolLM2 with the golden heads; every generation starts from its own prompt and seed, so tests may share it."""
    model = autodeco.Llama(str(smollm2), exported("f32"), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False)
    yield model
    model.close()

"""The aarch64 build under qemu-user, against the x86-64 build: `make edge-arm`.

Not part of `make test`: an emulated processor takes seconds a token.
"""

import subprocess
from pathlib import Path

import llama_cpp
import pytest

from autodeco.base.opening import default_model
from builders.edge_build import ROOT, TOKENS, EdgeBuild, exported_heads, largest_difference, same_tokens
from builders.stock_llama import requantize

CORTEX_A53 = ("qemu-aarch64", "-cpu", "cortex-a53")  # that of a Raspberry Pi 3
ARM, X86 = EdgeBuild(ROOT / "build" / "aarch64", CORTEX_A53), EdgeBuild(ROOT / "build" / "x86-64")


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    return {layout: exported_heads(folder, layout) for layout in ("sidecar", "merged", "embedded")}


def test_the_program_is_one_arm_file():
    command = ["readelf", "-hl", ARM.folder / "autodeco-cli"]
    kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "AArch64" in kind
    assert "INTERP" not in kind  # needs no loader and no library


def test_the_neon_kernel_is_the_scalar_one():
    assert "(neon)" in ARM.claims("test_distribution")


@pytest.mark.parametrize("program", ["test_nodes", "test_text_stream"])
def test_without_a_model(program):
    ARM.claims(program)


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_the_interface(heads, layout):
    ARM.claims("test_library", default_model(), heads["sidecar"], heads[layout], ROOT / "README.md")


def test_the_sampler(heads):
    ARM.claims("test_sampler", default_model(), heads["sidecar"])


@pytest.fixture(scope="module")
def unquantized(tmp_path_factory) -> Path:
    """SmolLM2 with float32 weights: llama.cpp then rounds no activations to 8 bits, which each kernel does its way."""
    path = tmp_path_factory.mktemp("f32") / "model.gguf"
    assert requantize(default_model(), path, llama_cpp.LLAMA_FTYPE_ALL_F32)
    return path


@pytest.mark.parametrize("trained", ["likelihood-traces", "reward"])
def test_trained_heads_predict_what_they_do_on_x86_64(trained, unquantized):
    heads = ROOT / "examples" / "smollm2" / "results" / f"{trained}.gguf"
    arm, x86 = (build.generated(unquantized, heads, "--kv-type", "f32") for build in (ARM, X86))
    assert same_tokens(arm, x86) == TOKENS
    difference = largest_difference(arm, x86, TOKENS)
    print(f"\n{trained}: {TOKENS} tokens, to {difference:.1e}")
    assert difference < 1e-3


@pytest.mark.parametrize("weights", ["f32", "as shipped"])
def test_generation_is_that_of_x86_64(weights, heads, unquantized):
    """Heads of random weights: within 1e-3, or within what rounding does on x86-64 alone. SmolLM2 makes so much of a
    float's last bit (the prompt decoded token by token), and of a rounding to 8 bits (keys and values) far more."""
    exact = weights == "f32"
    model, options = (unquantized, ["--kv-type", "f32"]) if exact else (default_model(), [])
    rounded = ["-b", 1] if exact else ["--kv-type", "q8_0"]
    arm = ARM.generated(model, heads["sidecar"], *options)
    x86 = X86.generated(model, heads["sidecar"], *options)
    otherwise = X86.generated(model, heads["sidecar"], *options, *rounded)
    n, n_itself = same_tokens(arm, x86), same_tokens(otherwise, x86)
    difference, itself = largest_difference(arm, x86, n), largest_difference(otherwise, x86, n_itself)
    print(f"\n{weights}: {n} of {TOKENS} tokens the same, to {difference:.1e}")
    print(f"rounded on x86-64: {n_itself}, {itself:.1e}")
    assert n == TOKENS if exact else n >= TOKENS // 2
    assert difference < max(1e-3, 2 * itself)

"""The aarch64 build under qemu-user, against the x86-64 build: `make edge-arm`.

Not part of `make test`: an emulated processor takes seconds a token.
"""

import json
import subprocess
from pathlib import Path

import llama_cpp
import pytest

from autodeco.base.opening import default_model
from autodeco.export import cli as export_cli
from builders.stock_llama import requantize

ROOT = Path(__file__).parents[2]
ARM, X86 = ROOT / "build" / "aarch64", ROOT / "build" / "x86-64"
QEMU = ["qemu-aarch64", "-cpu", "cortex-a53"]  # that of a Raspberry Pi 3
N = 20


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    golden = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
    files = {}
    for layout in ("sidecar", "merged", "embedded"):
        files[layout] = folder / f"{layout}.gguf"
        arguments = [golden, "--base", default_model(), "--layout", layout, "--type", "f16", "-o", files[layout]]
        arguments += ["--sampling", "none"]  # else the model runs for the heads' mean
        assert export_cli.main([str(argument) for argument in arguments]) == 0
    return files


def emulated(program: str, *arguments) -> str:
    command = [*QEMU, ARM / program, *arguments]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_program_is_one_arm_file():
    kind = subprocess.run(["readelf", "-hl", ARM / "autodeco-cli"], capture_output=True, text=True, check=True).stdout
    assert "AArch64" in kind
    assert "INTERP" not in kind  # needs no loader and no library


def test_the_neon_kernel_is_the_scalar_one():
    claims = emulated("test_distribution")
    assert "(neon)" in claims
    assert "24 passed, 0 failed" in claims


@pytest.mark.parametrize("program", ["test_nodes", "test_text_stream"])
def test_without_a_model(program):
    assert ", 0 failed" in emulated(program)


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_the_interface(heads, layout):
    claims = emulated("test_library", default_model(), heads["sidecar"], heads[layout], ROOT / "README.md")
    assert "35 passed, 0 failed" in claims


def test_the_sampler(heads):
    assert ", 0 failed" in emulated("test_sampler", default_model(), heads["sidecar"])


@pytest.fixture(scope="module")
def unquantized(tmp_path_factory) -> Path:
    """SmolLM2 with float32 weights: llama.cpp then rounds no activations to 8 bits, which each kernel does its way."""
    path = tmp_path_factory.mktemp("f32") / "model.gguf"
    assert requantize(default_model(), path, llama_cpp.LLAMA_FTYPE_ALL_F32)
    return path


def generated(command: list, model: Path, heads: Path, *options) -> list[dict]:
    command = [*command, "-m", model, "--heads", heads, "-p", "The capital of France is", "-n", N, "-t", 1, "-c", 256]
    command = [str(part) for part in [*command, "--temp", 0, "--ignore-eos", "--json", *options]]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    return [json.loads(line) for line in result.stdout.splitlines()][:-1]


def same_tokens(a: list[dict], b: list[dict]) -> int:
    """How many tokens two greedy texts begin with together."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x["token"] != y["token"]), len(a))


def largest_difference(a: list[dict], b: list[dict], n: int) -> float:
    return max(abs(x[key] - y[key]) for x, y in zip(a[:n], b[:n], strict=True) for key in ("temperature", "top_p"))


@pytest.mark.parametrize("trained", ["likelihood-traces", "reward"])
def test_trained_heads_predict_what_they_do_on_x86_64(trained, unquantized):
    heads = ROOT / "examples" / "smollm2" / "results" / f"{trained}.gguf"
    arm, x86 = (
        generated(command, unquantized, heads, "--kv-type", "f32")
        for command in ([*QEMU, ARM / "autodeco-cli"], [X86 / "autodeco-cli"])
    )
    assert same_tokens(arm, x86) == N
    difference = largest_difference(arm, x86, N)
    print(f"\n{trained}: {N} tokens, to {difference:.1e}")
    assert difference < 1e-3


@pytest.mark.parametrize("weights", ["f32", "as shipped"])
def test_generation_is_that_of_x86_64(weights, heads, unquantized):
    """Heads of random weights: within 1e-3, or within what rounding does on x86-64 alone. SmolLM2 makes so much of a
    float's last bit (the prompt decoded token by token), and of a rounding to 8 bits (keys and values) far more."""
    exact = weights == "f32"
    model, options = (unquantized, ["--kv-type", "f32"]) if exact else (default_model(), [])
    rounded = ["-b", 1] if exact else ["--kv-type", "q8_0"]
    arm = generated([*QEMU, ARM / "autodeco-cli"], model, heads["sidecar"], *options)
    x86 = generated([X86 / "autodeco-cli"], model, heads["sidecar"], *options)
    otherwise = generated([X86 / "autodeco-cli"], model, heads["sidecar"], *options, *rounded)
    n, n_itself = same_tokens(arm, x86), same_tokens(otherwise, x86)
    difference, itself = largest_difference(arm, x86, n), largest_difference(otherwise, x86, n_itself)
    print(f"\n{weights}: {n} of {N} tokens the same, to {difference:.1e}; rounded on x86-64: {n_itself}, {itself:.1e}")
    assert n == N if exact else n >= N // 2
    assert difference < max(1e-3, 2 * itself)

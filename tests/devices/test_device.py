"""A build for a GPU on the first one that its backend finds, against the same build on the CPU: `make edge-vulkan`.

AUTODECO_BUILD names the build. Not part of `make test`: where there is no GPU, the device is a driver for CPUs, which
takes a second a token.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from autodeco.base.opening import default_model
from builders.edge_build import ROOT, TOKENS, EdgeBuild, exported_heads, largest_difference, same_tokens
from builders.random_heads import write_random_heads
from builders.stock_llama import requantize

FOLDER = ROOT / os.environ.get("AUTODECO_BUILD", "build/vulkan")
# llama.cpp passes drivers for CPUs by, unless told which device of Vulkan to take
VISIBLE = "GGML_VK_VISIBLE_DEVICES"
GPU = EdgeBuild(FOLDER, options=("-g", "99"), environment={VISIBLE: os.environ.get(VISIBLE, "0")})
CPU = EdgeBuild(FOLDER, environment={VISIBLE: ""})
PLACES = {
    "all on the device": {},
    "the draw on the CPU": {"AUTODECO_NUCLEUS": "cpu"},
    "heads and draw on the CPU": {"AUTODECO_HEADS": "cpu"},
}
CPU_NODES = {  # of one token: values and token, statistics and draw, or first layers, predictions and draw
    "all on the device": 0,
    "the draw on the CPU": 2,
    "heads and draw on the CPU": 3,
}


@pytest.fixture(scope="module", autouse=True)
def bound(tmp_path_factory) -> Iterator[None]:
    """Mesa's driver for CPUs needs what `bind_every_buffer.c` says; other devices are left alone."""
    if "llvmpipe" not in GPU.output("autodeco-cli", "--devices"):
        yield
        return
    source = Path(__file__).with_name("bind_every_buffer.c")
    library = tmp_path_factory.mktemp("preloaded") / "bind_every_buffer.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library]
    subprocess.run(["cc", *flags, source, "-ldl"], check=True)
    GPU.environment["LD_PRELOAD"] = str(library)
    yield
    del GPU.environment["LD_PRELOAD"]


def benchmark(*arguments) -> None:
    command = [sys.executable, ROOT / "benchmarks" / arguments[0], *arguments[1:]]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, Path]:
    """A model of two layers whose rows of logits begin at no multiple of a device's alignment, and its heads."""
    folder = tmp_path_factory.mktemp("odd")
    benchmark("gpu/generate_model.py", "odd", "peaked", "-o", folder)
    return folder / "odd-peaked.gguf", folder / "odd-peaked.heads.gguf"


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory) -> tuple[Path, Path]:
    """A model of one layer with SmolLM2's vocabulary and float32 weights, and its heads."""
    model = tmp_path_factory.mktemp("one-layer") / "model.gguf"
    benchmark("one_layer_model.py", model)
    return model, write_random_heads(model.with_suffix(".heads.gguf"), model)


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    return exported_heads(tmp_path_factory.mktemp("heads"), "sidecar")


@pytest.fixture(scope="module")
def unquantized(tmp_path_factory) -> Path:
    """SmolLM2 with float32 weights: llama.cpp then rounds no activations to 8 bits, which each device does its way."""
    path = tmp_path_factory.mktemp("f32") / "model.gguf"
    assert requantize(default_model(), path, llama_cpp.LLAMA_FTYPE_ALL_F32)
    return path


@pytest.fixture(scope="module")
def device() -> tuple[str, str]:
    """The name of the GPU, and the table that the program shows of it."""
    result = GPU.run("autodeco-cli", "--devices")
    assert result.returncode == 0, result.stderr
    found = re.search(r"^(\S+): .*, GPU[^\n]*\n((?:  .*\n)+)", result.stdout, re.MULTILINE)
    assert found, f"no GPU: {result.stdout}"
    print(f"\n{found[0]}")
    return found[1], found[2]


def test_the_device_has_every_operation(device):
    name, table = device
    if name.startswith("MTL"):  # a GPU before Metal 3 has less, and is known
        assert table in (ROOT / "tests" / "golden" / "metal_nodes.txt").read_text()
    else:
        assert "heads on the device: f32 f16 bf16 q8_0; on the CPU: none" in table
        assert "draws on the device: 49152 151936 262144; on the CPU: none" in table


def test_operations_on_the_device(device):
    GPU.claims("test_nodes", device[0])


@pytest.mark.parametrize("places", PLACES)
def test_the_sampler(odd, places):
    GPU.claims("test_sampler", *odd, 99, **PLACES[places])


@pytest.mark.parametrize("places", PLACES)
def test_what_leaves_the_device(heads, places):
    """The graph of one token as the scheduler divides it. The CPU always looks the embedding up, in split 0."""
    environment = PLACES[places] | {"GGML_SCHED_DEBUG": "2"}
    command = ["-m", default_model(), "--heads", heads, "-p", "The", "-n", 1, "-c", 256, "-t", 1, "--verbose"]
    log = GPU.run("autodeco-cli", *command, *GPU.options, **environment).stderr
    graph = log[log.rindex("## SPLIT #0") :].splitlines()
    on_cpu = [
        found[1] for line in graph if (found := re.match(r"node #[ \d]+\( *(\w+)\): .{20} \(.{5}\) \[ *CPU ", line))
    ]
    read = [
        re.sub(r" \( *(\w+)\)", r" \1", line.split("inputs: ")[1])
        for line in graph
        if re.match(r"## SPLIT #[1-9]\d*: CPU", line)
    ]
    print(f"\n{places}: the CPU computes {on_cpu}, and reads {read or 'nothing'} of the device")
    assert on_cpu == ["GET_ROWS"] + ["CUSTOM"] * CPU_NODES[places]
    assert any("[result_output 192K]" in names for names in read) == places.endswith("on the CPU")


def test_generation_is_that_of_the_cpu(heads, unquantized):
    agree(unquantized, heads)


# so cold that a token is drawn from a handful: among 11,500 of about the same probability, the last bits of T decide
DRAWN = ["--temp", 0.15, "-s", 7]


@pytest.mark.parametrize("draw", [["--temp", 0], DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("places", PLACES)
def test_generation_in_other_places(one_layer, places, draw):
    """With one layer, since a driver for CPUs takes a second for a token of thirty."""
    agree(*one_layer, *draw, **PLACES[places])


def agree(model: Path, heads: Path, *draw, **environment: str) -> None:
    """The GPU, in an environment, must generate the tokens of the CPU, and T and P."""
    options = ["--kv-type", "f32", *draw]
    gpu = GPU.generated(model, heads, *options, **environment)
    cpu = CPU.generated(model, heads, *options)
    n = same_tokens(gpu, cpu)
    difference = largest_difference(gpu, cpu, n)
    print(f"\n{n} of {TOKENS} tokens the same, to {difference:.1e}")
    assert n == TOKENS
    assert difference < 2e-3

"""The C++ tests, which `make strict` builds, or `make sanitize`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.compiled import compiled
from builders.random_heads import write_random_heads

REPOSITORY = Path(__file__).parents[2]


def passes(program: str, *args, **environment) -> None:
    """Run a C++ test; it fails with whatever claims it found false."""
    result = subprocess.run(
        [compiled(program), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | environment,
    )
    wrong = [line for line in result.stdout.splitlines() if not line.startswith("ok")]
    assert result.returncode == 0, "\n".join(wrong) + result.stderr
    assert result.stdout.startswith("ok") or "\nok" in result.stdout, "no claim was checked"


def benchmark(*arguments, **environment) -> None:
    command = [sys.executable, REPOSITORY / "benchmarks" / arguments[0], *arguments[1:]]
    subprocess.run(command, check=True, env=os.environ | environment)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A small model without words, and its heads."""
    folder = tmp_path_factory.mktemp("generated")
    # it takes the schema from the source, and nothing that is compiled
    benchmark("gpu/generate_model.py", "tiny", "peaked", "-o", folder, PYTHONPATH=str(REPOSITORY))
    return folder / "tiny-peaked.gguf", folder / "tiny-peaked.heads.gguf"


@pytest.mark.slow  # a real model; its claims are those of the generated one too
@pytest.mark.parametrize("nucleus", ["cpu", "device"])
def test_the_sampler_from_cpp(smollm2, exported, nucleus):
    # the operations meant for devices run on the CPU too
    passes("test_sampler", smollm2, exported("f32"), AUTODECO_NUCLEUS=nucleus)


@pytest.mark.parametrize("nucleus", ["cpu", pytest.param("device", marks=pytest.mark.slow)])
def test_the_sampler_on_a_generated_model(generated, nucleus):
    for program in ("test_sampler", "test_drafts", "test_level"):
        passes(program, *generated, AUTODECO_NUCLEUS=nucleus)


@pytest.fixture(scope="module")
def with_words(tmp_path_factory):
    """A model of one layer with SmolLM2's vocabulary, which grammars and infilling want, and heads for it."""
    model = tmp_path_factory.mktemp("words") / "one-layer.gguf"
    benchmark("one_layer_model.py", model)
    return model, write_random_heads(model.with_suffix(".heads.gguf"), model)


@pytest.mark.parametrize("nucleus", ["cpu", "device"])
def test_chains_with_other_samplers(with_words, nucleus):
    passes("test_chains", *with_words, AUTODECO_NUCLEUS=nucleus)


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_the_interface(smollm2, exported, layout):
    passes("test_library", smollm2, exported("f16"), exported("f16", layout), REPOSITORY / "README.md")


def test_fingerprints_are_those_of_python():
    passes("test_fingerprint", REPOSITORY / "tests" / "golden")


def test_graph_nodes():
    passes("test_nodes")


def test_places_of_a_samplers_parts():
    passes("test_places")


def test_what_the_program_says_of_memory():
    passes("test_memory")


def test_tokens_become_text():
    passes("test_text_stream")


def test_the_kernel_against_scalar_code():
    passes("test_distribution")

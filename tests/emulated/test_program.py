"""The C++ tests and a generation on an emulated machine, against this one: `make edge-arm`, `make edge-windows`.

Not part of `make test`: an emulated processor takes seconds a token.
"""

import pytest

from builders.edge_build import ROOT, TOKENS, EdgeBuild, largest_difference, same_tokens
from emulators import HERE, VECTORS


def claims(machine: EdgeBuild, program: str, *arguments) -> str:
    """What a C++ test prints; it must find true as many claims as it does here."""
    told = machine.claims(program, *arguments)
    assert told.splitlines()[-1] == HERE.claims(program, *arguments).splitlines()[-1]
    return told


def test_the_kernel_is_the_scalar_one(machine):
    (vectors,) = (name for one, name in VECTORS if one is machine)
    assert f"({vectors}" in claims(machine, "test_distribution")


@pytest.mark.parametrize("program", ["test_nodes", "test_places", "test_text_stream", "test_memory"])
def test_without_a_model(machine, program):
    claims(machine, program)


def test_fingerprints_are_those_of_python(machine):
    claims(machine, "test_fingerprint", ROOT / "tests" / "golden")


@pytest.mark.parametrize("layout", ["merged", "embedded"])
def test_the_interface(machine, smollm2, heads, layout):
    claims(machine, "test_library", smollm2, heads["sidecar"], heads[layout], ROOT / "README.md")


@pytest.mark.parametrize("program", ["test_sampler", "test_chains"])
def test_the_sampler(machine, smollm2, heads, program):
    claims(machine, program, smollm2, heads["sidecar"])


@pytest.mark.parametrize("trained", ["likelihood-traces", "reward"])
def test_trained_heads_predict_what_they_do_here(machine, trained, unquantized):
    heads = ROOT / "examples" / "smollm2" / "results" / f"{trained}.gguf"
    there, here = (one.generated(unquantized, heads, "--kv-type", "f32") for one in (machine, HERE))
    assert same_tokens(there, here) == TOKENS
    difference = largest_difference(there, here, TOKENS)
    print(f"\n{trained}: {TOKENS} tokens, to {difference:.1e}")
    assert difference < 1e-3


@pytest.mark.parametrize("weights", ["f32", "as shipped"])
def test_generation_is_that_of_this_machine(machine, weights, smollm2, heads, unquantized):
    """Heads of random weights: within 1e-3, or within what rounding does here alone. SmolLM2 makes so much of a
    float's last bit (the prompt decoded token by token), and of a rounding to 8 bits (keys and values) far more."""
    exact = weights == "f32"
    model, options = (unquantized, ["--kv-type", "f32"]) if exact else (smollm2, [])
    rounded = ["-b", 1] if exact else ["--kv-type", "q8_0"]
    there = machine.generated(model, heads["sidecar"], *options)
    here = HERE.generated(model, heads["sidecar"], *options)
    otherwise = HERE.generated(model, heads["sidecar"], *options, *rounded)
    n, n_itself = same_tokens(there, here), same_tokens(otherwise, here)
    difference, itself = largest_difference(there, here, n), largest_difference(otherwise, here, n_itself)
    print(f"\n{weights}: {n} of {TOKENS} tokens the same, to {difference:.1e}; rounded here: {n_itself}, {itself:.1e}")
    assert n == TOKENS if exact else n >= TOKENS // 2
    assert difference < max(1e-3, 2 * itself)

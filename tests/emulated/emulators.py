"""Machines that this one emulates: what their programs are, and how they are started."""

from builders.edge_build import ROOT, EdgeBuild

BUILD = ROOT / "build"
HERE = EdgeBuild(BUILD / "strict")  # of this machine, with the libraries of llama-cpp-python
AARCH64 = EdgeBuild(BUILD / "aarch64", ("qemu-aarch64", "-cpu", "cortex-a53"))  # that of a Raspberry Pi 3
WINDOWS = EdgeBuild(
    BUILD / "windows",
    ("wine",),
    environment={"WINEDEBUG": "-all", "LC_ALL": "C.UTF-8"},  # by which Wine reads names and arguments
    suffix=".exe",
)

# the instructions that the passes over the logits run on, or how their name begins
VECTORS = ((AARCH64, "neon"), (WINDOWS, "avx"))

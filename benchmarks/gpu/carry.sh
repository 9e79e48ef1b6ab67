#!/usr/bin/env bash
# Gather what run.sh needs on a machine without network: carry.sh FOLDER
#
# The source of llama-cpp-python of the pinned version, with llama.cpp in it; SmolLM2 with the golden heads exported for it;
# problems with short answers and, in reasoning/, those of a model that reasons; and as wheels what building, training and
# testing need that is pure Python. Run it where `make setup` has been run; then
# take FOLDER and this repository to the GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=${1:?usage: carry.sh FOLDER}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$to"
"$python" benchmarks/gpu/package_source.py build/llama-cpp-python
tar -C build/llama-cpp-python -czf "$to/llama-cpp-python.tar.gz" .
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$to" \
    gguf scikit-build-core pathspec packaging pybind11 diskcache filelock pebble rich markdown-it-py mdurl pygments pytest pluggy iniconfig
cp "$("$python" -c 'from autodeco.base.opening import default_model; print(default_model())')" "$to/smollm2.gguf"
"$(dirname "$python")/autodeco-export" tests/golden/smollm2.heads.safetensors --base "$to/smollm2.gguf" -o "$to/smollm2.heads.gguf"
"$python" benchmarks/gpu/problems.py "$to"
"$python" benchmarks/gpu/problems.py "$to/reasoning" reasoning --everyday 90

#!/usr/bin/env bash
# Gather what run.sh needs on a machine without network: carry.sh FOLDER
#
# llama.cpp's source of the pinned version, SmolLM2 with the golden heads exported for it, problems, and the gguf wheel.
# Run it where `make setup` has been run; then take FOLDER and this repository to the GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=${1:?usage: carry.sh FOLDER}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$to"
source=$("$python" cmake/llama_cpp_source.py)
tar -C "$source" -czf "$to/llama.cpp.tar.gz" .
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest "$to" gguf
cp "$("$python" -c 'from autodeco.default_model import default_model; print(default_model())')" "$to/smollm2.gguf"
"$(dirname "$python")/autodeco-export" tests/golden/smollm2.heads.safetensors --base "$to/smollm2.gguf" -o "$to/smollm2.heads.gguf"
"$python" benchmarks/gpu/problems.py "$to"

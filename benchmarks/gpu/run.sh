#!/usr/bin/env bash
# Build, test and measure on a machine with a CUDA GPU, without network.
#
#   benchmarks/gpu/run.sh CARRIED OUT [STAGE ...]
#
# CARRIED is the folder that carry.sh made; OUT receives logs and gpu.json, which joins them. Needs CMake, Ninja, nvcc and
# python3 with numpy, `python` with scipy too; `losses` needs torch, `train` and `many` transformers. Stages, all of them in this order if none is named:
#
#   build       llama.cpp with CUDA, our library, C++ tests and benchmarks, in build/cuda (3 minutes on 16 cores)
#   test        the C++ tests: none, 10 and all layers on the GPU, the nucleus where it can be and on the CPU; autodeco-cli
#   python      llama-cpp-python with CUDA and the Python package against it, in build/cuda-site, their tests and their speed (4 minutes)
#   split       where there are several GPUs: one model on two of them, in every way that they can share it
#   operations  what single ggml operations cost
#   models      the generated models, 8 GB in build/cuda-models, or $MODELS
#   decode      decoding speed
#   over_greedy decoding speed over that of greedy decoding, after writing what is missing of the generated models
#               (3 minutes); only if it is named
#   losses      training speed and memory, against the plain losses
#   train       heads for SmolLM2 from nothing: answers, likelihood, rewards, test (4 minutes); memory at 1.5B parameters
#   many        where there are several GPUs: training at 1.5B and 8B parameters, and at 43B, which two of 80 GB hold (6 minutes)
#
# For $REASONER, the GGUF of a model that reasons, and only if they are named; docs/training.md and docs/control.md have their figures:
#
#   install     the Python package against llama-cpp-python with CUDA, in build/cuda-site, as `python` does, and no more
#   learn       heads from nothing (some 11 minutes), likelihood heads, and a comparison of both on held-out problems
#   control     a control head for $FOLLOWED (default: the heads of `learn`)
#   judge       the heads of `learn` by `autodeco eval` and judged.yaml, on the carried problems; wants `install`
#   both_gpus   rewards on all GPUs by accelerate, a few rounds
#
# PROGRAMS (default: build/cuda) is where the C++ is built. CUDA_ARCHITECTURES (default: native) and CMAKE_FLAGS are handed to
# CMake; GPU_LAYERS (default: all) to the Python tests.
set -euo pipefail
carried=$(realpath "${1:?usage: run.sh CARRIED OUT [STAGE ...]}")
mkdir -p "${2:?usage: run.sh CARRIED OUT [STAGE ...]}"
out=$(realpath "$2")
stages=${*:3}
stages=${stages:-build test python split operations models decode losses train many}
cd "$(dirname "$0")/../.."
programs=${PROGRAMS:-build/cuda}
models=${MODELS:-build/cuda-models}
export PYTHONPATH="$PWD:$(ls "$carried"/gguf-*.whl)"

cuda="-DGGML_CUDA=ON -DGGML_CUDA_GRAPHS=ON -DGGML_CUDA_FA=${CUDA_FA:-ON} -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES:-native} ${CMAKE_FLAGS:-}"

unpack() {
    mkdir -p build/cuda-source
    tar -C build/cuda-source -xf "$carried/llama-cpp-python.tar.gz"
}

build() {
    unpack
    cmake -S . -B $programs -G Ninja -DLLAMA_CPP_DIR="$PWD/build/cuda-source/vendor/llama.cpp" -DAUTODECO_TESTS=ON \
        -DAUTODECO_BENCHMARKS=ON $cuda > "$out/build.log" 2>&1
    cmake --build $programs >> "$out/build.log" 2>&1
}

# test_sampler LAYERS NUCLEUS [no-kv-offload]; claims that failed are shown
test_sampler() {
    local log="$out/test_sampler_$1_$2${3:+_$3}.log" passed=0
    AUTODECO_NUCLEUS=$2 $programs/test_sampler "$carried/smollm2.gguf" "$carried/smollm2.heads.gguf" "$1" ${3:+"$3"} > "$log" || passed=$?
    echo "test_sampler, $1 layers on the GPU, nucleus $2${3:+, $3}: $(tail -1 "$log")"
    grep FAILED "$log" || true
    return $passed
}

# autodeco-cli LAYERS: the likeliest tokens, as JSON lines
greedy() {
    $programs/autodeco-cli -m "$carried/smollm2.gguf" --heads "$carried/smollm2.heads.gguf" -g "$1" --temp 0 -n 20 --ignore-eos --json \
        -p "The capital of France is" > "$out/cli_$1.jsonl"
}

# Text, and temperature and top-p, of the program on the GPU and on the CPU.
test_cli() {
    greedy 0 && greedy 99 && python3 benchmarks/gpu/compare_answers.py "$out/cli_0.jsonl" "$out/cli_99.jsonl" > "$out/test_cli.log"
}

# the C++ tests
test_() {
    local failed=0
    $programs/test_nodes > "$out/test_nodes.log" || failed=1
    echo "test_nodes: $(tail -1 "$out/test_nodes.log")"
    for layers in 0 10 99; do
        test_sampler $layers auto || failed=1
        test_sampler $layers cpu  || failed=1
    done
    test_sampler 0  device || failed=1
    test_sampler 99 auto no-kv-offload || failed=1
    test_cli || failed=1
    echo "autodeco-cli on the GPU and on the CPU: $(tail -1 "$out/test_cli.log")"
    return $failed
}

# pip install, from what was carried alone
install() {
    python3 -m pip install --quiet --no-index --find-links "$carried" --no-deps --no-build-isolation --target build/cuda-site "$@"
}

# Some compilers put a C++ library of their own into every shared library. Two of them in one process, llama.cpp's and the
# one that scipy brings, crash.
check_compiler() {
    local probe=build/probe.so
    printf '#include <iostream>\nvoid f() { std::cout << 1; }\n' | ${CXX:-c++} -shared -fPIC -x c++ - -o $probe
    readelf -d $probe | grep -q 'NEEDED.*c++' && return
    echo "${CXX:-c++} links the C++ library statically, and Python would crash: set CC, CXX and CUDAHOSTCXX to another, as /usr/bin/g++" >&2
    exit 1
}

# the Python package as it is installed, with its native module
install_site() {
    unpack
    check_compiler
    rm -rf build/cuda-site
    export PYTHONPATH="$PWD/build/cuda-site"
    {
        install gguf scikit-build-core pathspec packaging pybind11 diskcache filelock pebble rich markdown-it-py mdurl pygments pytest \
            pluggy iniconfig
        CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF $cuda" install build/cuda-source
        install .
    } > "$out/python-build.log" 2>&1
}

install_() (
    install_site
)

python() (
    install_site
    local layers=${GPU_LAYERS:--1}
    AUTODECO_MODEL="$carried/smollm2.gguf" AUTODECO_HEADS="$carried/smollm2.heads.gguf" AUTODECO_GPU_LAYERS=$layers \
        python3 -P -m pytest -q -p no:cacheprovider tests/gpu > "$out/test_python.log" || { cat "$out/test_python.log"; exit 1; }
    tail -1 "$out/test_python.log"
    python3 -P -m autodeco bench "$carried/smollm2.gguf" --heads "$carried/smollm2.heads.gguf" --gpu-layers "$layers" --threads 4 \
        -o "$out/bench-smollm2.json"
)

split() {
    [ "$(nvidia-smi --list-gpus | wc -l)" -gt 1 ] || return 0
    PYTHONPATH="$PWD/build/cuda-site" python3 -P benchmarks/gpu/two_gpus.py "$carried/smollm2.gguf" "$carried/smollm2.heads.gguf" \
        -o "$out/split.json" --program $programs/autodeco-cli
}

operations() {
    for n_vocab in 49152 151936; do
        for rows in 1 32; do
            $programs/bench_operations $n_vocab $rows | tee "$out/operations_${n_vocab}_$rows.txt"
        done
    done
}

models() {
    mkdir -p "$models"
    local writing=()
    for model in "1.5b peaked" "1.5b flat" "8b peaked"; do
        python3 benchmarks/gpu/generate_model.py $model -o "$models" &
        writing+=($!)
    done
    for process in "${writing[@]}"; do
        wait "$process"
    done
}

decode() {
    $programs/bench_decode "$carried/smollm2.gguf" "$carried/smollm2.heads.gguf" 99 100 5 > "$out/decode-smollm2.json"
    for model in 1.5b-peaked 1.5b-flat 8b-peaked; do
        $programs/bench_decode "$models/$model.gguf" "$models/$model.heads.gguf" 99 40 5 > "$out/decode-$model.json"
    done
}

over_greedy() {
    python3 benchmarks/gpu/over_greedy.py $programs "$models" "$out/over_greedy.json" --smollm2 "$carried"/smollm2{,.heads}.gguf
}

losses() {
    python3 benchmarks/losses.py --device cuda --tokens ${TOKENS:-4096 12288 32768} --vocab 151936 --hidden 3584 -o "$out/losses.json" > /dev/null
}

# python3 with our package less its native module, which training on a Hugging Face model does not need
with_autodeco() {
    mkdir -p build/cuda-python
    cp -r autodeco build/cuda-python/
    cp -r export build/cuda-python/autodeco/
    PYTHONPATH="$PWD/build/cuda-python:$(ls "$carried"/{filelock,gguf,rich,markdown_it_py,mdurl,pebble,pygments}-*.whl | paste -sd:)" python3 "$@"
}

train() {
    with_autodeco benchmarks/gpu/full_run.py "$carried/smollm2.gguf" "$carried/training.jsonl" "$carried/test.jsonl" "$out/heads"
    cp "$out/heads/full_run.json" "$out/"
    with_autodeco benchmarks/gpu/train_memory.py "$carried/smollm2.gguf" "$out/train_memory.json"
}

many() {
    [ "$(nvidia-smi --list-gpus | wc -l)" -gt 1 ] || return 0
    with_autodeco benchmarks/gpu/many_gpus.py "$carried/smollm2.gguf" "$models" "$out/many_gpus.json" 1.5b 8b 43b
}

learn() {
    local model=${REASONER:?names the GGUF of a model that reasons} problems="$carried/reasoning"
    with_autodeco benchmarks/gpu/full_run.py "$model" "$problems/training.jsonl" none "$out/reasoning" \
        --anchors "$problems/anchors.jsonl" --max-tokens 400 > "$out/learn.log"
    with_autodeco benchmarks/gpu/likelihood.py "$model" "$problems/training.jsonl" "$out/likelihood" >> "$out/learn.log"
    with_autodeco benchmarks/gpu/compare_heads.py "$model" "$out/compared" greedy warm=0.6,0.95 both="$out/reasoning/both" \
        single="$out/reasoning/single" likelihood="$out/likelihood/heads" --on "$problems/held_out.jsonl" | tee -a "$out/learn.log"
}

control() {
    local model=${REASONER:?names the GGUF of a model that reasons}
    with_autodeco benchmarks/control.py "$model" "${FOLLOWED:-$out/reasoning/both}" -o "$out/control" --device cuda --dtype bfloat16 \
        --slots 1536 > "$out/control.log"
}

judge() (
    local model=${REASONER:?names the GGUF of a model that reasons} heads=() made problems="$carried/reasoning"
    export PYTHONPATH="$PWD/build/cuda-site"
    for made in reasoning/both reasoning/single likelihood/heads; do
        heads+=("$out/${made/\//-}.gguf")
        build/cuda-site/bin/autodeco-export "$out/$made" --base "$model" -o "$out/${made/\//-}.gguf"
    done
    python3 -P -m autodeco eval "$model" --heads "${heads[@]}" --config benchmarks/gpu/judged.yaml -o "$out/judged" \
        --tasks "$problems"/{test,unseen,held_out}.jsonl:number --test 650
)

both_gpus() {
    local model=${REASONER:?names the GGUF of a model that reasons}
    [ "$(nvidia-smi --list-gpus | wc -l)" -gt 1 ] || return 0
    with_autodeco -m accelerate.commands.launch --num_processes "$(nvidia-smi --list-gpus | wc -l)" --multi_gpu -m autodeco \
        reward "$model" --answers-from hugging-face --problems "$carried/reasoning/held_out.jsonl" --checker number \
        -o "$out/both_gpus" --device cuda --rounds 2 --batch-problems 192 --screening-problems 200 --validation-problems 100 \
        --evaluate-every 2 --max-tokens 400 --slots 1536 > "$out/both_gpus.log"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader > "$out/machine.txt"
nvcc --version | tail -2 | head -1 >> "$out/machine.txt"
set -o errtrace
trap 'echo "stage $stage failed: see the logs in $out" >&2' ERR
for stage in $stages; do
    case "$stage" in test | install) stage=${stage}_ ;; esac
    began=$SECONDS
    "$stage"
    echo "$stage: $((SECONDS - began)) s"
done
python3 benchmarks/gpu/collect.py "$out" "$out/gpu.json"

"""What heads cost beside decoding: their arithmetic in a large model, loading, long prompts, memory.

    make strict && python benchmarks/runtime.py [--output benchmarks/results/runtime.json]

Heads for hidden states of 4096 and a vocabulary of 151,936, F16, 2 threads: time a token in the graph, and to read the
file. SmolLM2 with the golden heads: a prompt of 2,000 tokens beside stock llama-cpp-python, in turn, and private memory
beside stock after the same generation.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bandwidth import read_bandwidth
from random_heads import write_random_heads

from autodeco import native
from autodeco.base.opening import default_model, open_base
from autodeco.commands.bench import machine, versions
from autodeco.export import cli as export_cli
from autodeco.llama.opening import open_llama
from autodeco.runs.atomic import replacing
from export import write_model

ROOT = Path(__file__).parent.parent
HIDDEN, VOCAB, THREADS = 4096, 151_936, 2
PROMPT, PIECE = 2000, 100
MEMORY_CODE = """
import sys
import autodeco, llama_cpp
model, heads = sys.argv[1:]
options = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
llm = autodeco.Llama(model, heads, **options) if heads else llama_cpp.Llama(model, **options)
llm("Once upon a time", max_tokens=64, temperature=0.0)
status = open("/proc/self/status").read()
print(int(status.split("RssAnon:")[1].split()[0]) / 1000)
"""


def heads_in_a_large_model(folder: Path, bandwidth: float) -> dict:
    """Milliseconds a token in the graph and to read the file."""
    program = ROOT / "build" / "strict" / "bench_heads"
    command = [program, str(HIDDEN), str(VOCAB), str(THREADS), str(bandwidth)]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    base, checkpoint, heads = (folder / name for name in ("base.gguf", "heads.safetensors", "heads.gguf"))
    write_model(base, 0)
    write_random_heads(checkpoint, HIDDEN)
    export_cli.main([str(checkpoint), "--base", str(base), "-o", str(heads)])
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        native.load_heads(heads)
        seconds.append(time.perf_counter() - start)
    return result | {
        "load_ms": round(statistics.median(seconds) * 1e3, 2),
        "load_limit_ms": round(heads.stat().st_size / bandwidth * 1e3, 2),
        "file_mb": round(heads.stat().st_size / 1e6, 2),
    }


def long_prompt(heads: Path, rounds: int) -> dict:
    """Seconds for a prompt of 2,000 tokens, read in pieces that take turns; the ratio is the median of all pairs."""
    options = {"n_ctx": PROMPT + 64, "n_threads": THREADS, "n_threads_batch": THREADS}
    models = {"stock": open_base(default_model(), **options), "autodeco": open_llama(default_model(), heads, **options)}
    tokens = [1 + i % 1000 for i in range(PROMPT)]
    ratios, seconds = [], dict.fromkeys(models, 0.0)
    for i in range(rounds):
        for llm in models.values():
            llm.reset()
        for start in range(0, PROMPT, PIECE):
            took = {}
            for name in list(models)[:: 1 if (i + start // PIECE) % 2 else -1]:
                begun = time.perf_counter()
                models[name].eval(tokens[start : start + PIECE])
                took[name] = time.perf_counter() - begun
                seconds[name] += took[name]
            ratios.append(took["autodeco"] / took["stock"])
    return {
        "tokens": PROMPT,
        "ratio_to_stock": round(statistics.median(ratios), 4),
        "ratio_of_sums": round(seconds["autodeco"] / seconds["stock"], 4),
        "seconds": {name: round(value / rounds, 3) for name, value in seconds.items()},
    }


def memory(heads: Path) -> dict:
    """Private memory in MB at the end of a generation, each in a process of its own."""
    run = [sys.executable, "-c", MEMORY_CODE, str(default_model())]
    found = {
        name: float(subprocess.run([*run, argument], capture_output=True, text=True, check=True).stdout)
        for name, argument in (("stock_mb", ""), ("autodeco_mb", str(heads)))
    }
    limit = 2 * heads.stat().st_size / 1e6 + 16
    return found | {"over_stock_mb": round(found["autodeco_mb"] - found["stock_mb"], 2), "limit_mb": round(limit, 2)}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the prompt")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "runtime.json")
    args = parser.parse_args()
    bandwidth = read_bandwidth(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        heads = folder / "smollm2.gguf"
        checkpoint = ROOT / "tests/golden/smollm2.heads.safetensors"
        export_cli.main([str(checkpoint), "--base", str(default_model()), "-o", str(heads)])
        result = {
            "memory_bytes_per_second": round(bandwidth),
            "large_heads": heads_in_a_large_model(folder, bandwidth),
            "memory": memory(heads),
            "prompt": long_prompt(heads, args.rounds),
            "machine": machine(),
            "versions": versions(),
        }
    text = json.dumps(result, indent=2)
    print(text)
    with replacing(args.output) as part:
        part.write_text(text + "\n")


if __name__ == "__main__":
    main()

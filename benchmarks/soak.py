"""Memory after many generations, model loads and changes of heads: grows by nothing if nothing leaks.

    python benchmarks/soak.py [--generations 10000] [--loads 200] [--output benchmarks/results/soak.json]

Every generation is a few tokens by another route (graph, host, streaming, chat, other heads); every load opens and
closes SmolLM2 with heads. Growth is that of the process's private memory (RssAnon) between the first and the last tenth
after a warm-up, in MB. Exit code 1 if either grows by 5 MB or more. Linux only.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

# Before numpy is imported: it asks for huge pages, of which the kernel gives as many as it has at the time.
os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"

import autodeco
from autodeco.base.opening import default_model
from autodeco.commands.bench import machine, versions
from autodeco.export import cli as export_cli
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
LARGEST_GROWTH = 5.0  # MB
WARM_UP = 96  # calls after which every route has been taken and every buffer touched
LOADS_WARM_UP = 10
HEADS_PERIOD = 24  # generations, half of them with heads
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


def private_mb() -> float:
    """Private memory of this process, less what the allocator keeps of what was freed: how much that is depends on
    where in the heap something small lies behind a freed buffer of logits (12.6 MB)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1000


def generate(llm: autodeco.Llama, heads: Path, i: int) -> None:
    """A short generation, by a route that depends on ``i``."""
    settings = {"max_tokens": 2, "seed": i}
    if i % HEADS_PERIOD == 0:
        llm.heads = heads
    elif i % HEADS_PERIOD == HEADS_PERIOD // 2:
        llm.heads = None
    match i % 4:
        case 0:
            llm(f"Number {i % 7}", **settings)
        case 1:
            llm("Once", repeat_penalty=1.1, min_p=0.05, xtc_probability=0.5, dry_multiplier=0.8, **settings)
        case 2:
            list(llm("Once upon", stream=True, autodeco=True, **settings))
        case _:
            llm.create_chat_completion([{"role": "user", "content": "Hi"}], **settings)


def growth(count: int, step, name: str, warm_up: int, period: int = 1) -> float:
    """MB that memory grows by over ``count`` calls of ``step(i)`` after ``warm_up`` of them.

    It is read once a ``period``, in which a step does the same things. The last tenth of the readings against the
    first tenth, medians: the allocator gives back and takes again.
    """
    for i in tqdm(range(warm_up), desc=f"{name}, warm-up", disable=None):
        step(i)
    readings = []
    for i in tqdm(range(count), desc=name, disable=None):
        step(i)
        if i % period == 0:
            readings.append(private_mb())
    tenth = max(len(readings) // 10, 1)
    return round(statistics.median(readings[-tenth:]) - statistics.median(readings[:tenth]), 2)


def soak(heads: Path, generations: int, loads: int) -> dict[str, float]:
    """Growth in MB of both."""
    llm = autodeco.Llama(str(default_model()), heads, **OPTIONS)
    by_generation = growth(generations, lambda i: generate(llm, heads, i), "generations", WARM_UP, HEADS_PERIOD)
    llm.close()

    def load(i: int) -> None:
        model = autodeco.Llama(str(default_model()), heads, **OPTIONS)
        model("Hi", max_tokens=1, seed=i)
        model.close()

    return {"generations": by_generation, "loads": growth(loads, load, "loads", LOADS_WARM_UP)}


def main() -> int:
    """Soak, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=200)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder) / "heads.gguf"
        checkpoint = ROOT / "tests/golden/smollm2.heads.safetensors"
        export_cli.main([str(checkpoint), "--base", str(default_model()), "-o", str(heads)])
        grown = soak(heads, args.generations, args.loads)
    result = {
        "growth_mb": grown,
        "generations": args.generations,
        "loads": args.loads,
        "machine": machine(),
        "versions": versions(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    with replacing(args.output) as part:
        part.write_text(text + "\n")
    return int(max(grown.values()) >= LARGEST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())

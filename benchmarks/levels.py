"""What a control head costs beside decoding: tokens of SmolLM2 with heads that have one and without, in turn.

    python benchmarks/levels.py [--tokens 400] [--output benchmarks/results/levels.json]

Golden heads with a control head of random weights, F16, one thread. Both generations are greedy and take turns at every
token, so that they decode the same. The level is read with the first token, whose time is measured over many prompts;
for later ones it is known.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from autodeco import Llama
from autodeco.base.opening import default_model
from autodeco.commands.bench import machine, versions
from autodeco.export.checkpoint import read_heads
from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import HeadWeights, check_heads
from autodeco.export.layout import open_layout
from autodeco.export.schema import CONTROL_HEAD, PARTS, TEMP_HEAD, official_name
from autodeco.export.writer import write_sidecar
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
STORY = "Once upon a time, in a small village by the sea, there lived"


def with_control(heads: HeadWeights) -> HeadWeights:
    """``heads`` with a control head of the temperature head's shape."""
    random = np.random.default_rng(1)
    arrays = dict(heads.tensors)
    for part in PARTS:
        shape = arrays[official_name(TEMP_HEAD, part)].shape
        arrays[official_name(CONTROL_HEAD, part)] = (random.standard_normal(shape) * 0.02).astype(np.float32)
    return check_heads(arrays, "random control head", control=ControlEnds())


def later_tokens(models: dict[str, Llama], count: int) -> dict[str, list[float]]:
    """Seconds of each of ``count`` tokens behind the first, which the models take in turn."""
    prompt = next(iter(models.values())).tokenize(STORY.encode())
    generations = {name: llm.generate(prompt, temp=0.0) for name, llm in models.items()}
    for generation in generations.values():
        next(generation)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(count):
        for name in list(models)[:: 1 if i % 2 else -1]:
            begun = time.perf_counter()
            next(generations[name])
            seconds[name].append(time.perf_counter() - begun)
    for generation in generations.values():
        generation.close()
    return seconds


def first_tokens(models: dict[str, Llama], count: int) -> dict[str, list[float]]:
    """Seconds of the first token of each of ``count`` generations, whose prompt is read but for its last token."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(count):
        for name in list(models)[:: 1 if i % 2 else -1]:
            llm = models[name]
            prompt = llm.tokenize(f"{STORY} {i}".encode())
            list(islice(llm.generate(prompt, temp=0.0), 1))  # what follows finds all but the last token in the context
            begun = time.perf_counter()
            list(islice(llm.generate(prompt, temp=0.0), 1))
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def figures(seconds: dict[str, list[float]]) -> dict:
    """Medians in milliseconds, and the median of the ratios of neighbours."""
    ratios = [one / other for one, other in zip(seconds["with"], seconds["without"], strict=True)]
    medians = {f"{name}_ms": round(1e3 * statistics.median(values), 4) for name, values in seconds.items()}
    return medians | {"ratio": round(statistics.median(ratios), 4), "tokens": len(ratios)}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "levels.json")
    args = parser.parse_args()
    golden = read_heads(ROOT / "tests" / "golden" / "smollm2.heads.safetensors", 576)
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for name, heads in (("without", golden), ("with", with_control(golden))):
            path = Path(folder) / f"{name}.gguf"
            write_sidecar(path, head_tensors(heads, "f16"), open_layout(default_model()))
            models[name] = Llama(
                str(default_model()), path, n_ctx=1024, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
            )
        result = {
            "later_tokens": figures(later_tokens(models, args.tokens)),
            "first_tokens": figures(first_tokens(models, args.tokens // 4)),
            "machine": machine(),
            "versions": versions(),
        }
        for llm in models.values():
            llm.close()
    text = json.dumps(result, indent=2)
    print(text)
    with replacing(args.output) as part:
        part.write_text(text + "\n")


if __name__ == "__main__":
    main()

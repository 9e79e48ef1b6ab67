"""The nucleus kernel alone, one thread, against llama.cpp's temp + top_p + dist through its C API on the same logits.

    python benchmarks/kernel.py [--model MODEL.gguf ...] [--output benchmarks/results/kernel.json]

Peaked rows are what a model says after the words of a text; where no model with that vocabulary is given (--model),
those of SmolLM2 with a tail drawn from their own. Flat rows are normal noise of deviation 1. The other cases are made
to be bad for one algorithm or another. llama.cpp's candidates are filled in outside the time that is taken, in its
favour.
Exit code 1 if a case is slower than llama.cpp, a peaked one less than 5 x as fast, or a flat one less than 20 x.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from pathlib import Path

import llama_cpp
import numpy as np
from tqdm import tqdm

from autodeco import native
from autodeco.base.opening import default_model, open_base
from autodeco.commands.bench import machine, versions
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
VOCABULARIES = (49_152, 151_936, 262_144)
TEMPERATURE, TOP_P = 0.8, 0.95
LEAST = {"peaked": 5.0, "flat": 20.0}  # x llama.cpp; 1 for every other case
TEXT = "The first thing that she noticed was that the door of the old house stood open. She"

CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


def model_rows(path: Path) -> np.ndarray:
    """Logits [n, V] of a model after each word of a text."""
    llm = open_base(path, n_ctx=256, logits_all=True)
    llm.eval(llm.tokenize(TEXT.encode()))
    return llm.scores[4 : llm.n_tokens].copy()


def peaked_rows(models: dict[int, np.ndarray], vocab: int) -> np.ndarray:
    """Rows of a model with this vocabulary, or SmolLM2's widened by tokens as unlikely as its lower 99%."""
    if vocab in models:
        return models[vocab]
    random = np.random.default_rng(0)
    rows = models[VOCABULARIES[0]]
    tail = np.sort(rows, axis=1)[:, : int(0.99 * rows.shape[1])]
    more = random.integers(0, tail.shape[1], (len(rows), vocab - rows.shape[1]))
    return random.permuted(np.concatenate([rows, np.take_along_axis(tail, more, 1)], axis=1), axis=1)


def cases(models: dict[int, np.ndarray], vocab: int) -> dict[str, np.ndarray]:
    """Rows [n, V] by the name of the case."""
    random = np.random.default_rng(1)
    two = np.full((8, vocab), -30.0, np.float32)
    two[:, [7, vocab // 2]] = 5.0
    half = np.where(np.arange(vocab) % 2, 0.0, -20.0).astype(np.float32)
    return {
        "peaked": peaked_rows(models, vocab),
        "flat": random.standard_normal((8, vocab), np.float32),
        "all equal": np.zeros((8, vocab), np.float32),
        "two tokens": two,
        "half the vocabulary": np.stack([random.permutation(half) for _ in range(8)]),
        "ascending": np.linspace(-8, 0, vocab, dtype=np.float32)[None],
        "descending": np.linspace(0, -8, vocab, dtype=np.float32)[None],
        "one far above a flat rest": np.concatenate(
            [np.full((8, 1), 12.0, np.float32), random.standard_normal((8, vocab - 1), np.float32)], axis=1
        ),
        "cauchy": random.standard_cauchy((8, vocab)).astype(np.float32),
    }


class Stock:
    """llama.cpp's chain, applied to the candidates of one row at a time."""

    def __init__(self, vocab: int):
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for stage in (
            llama_cpp.llama_sampler_init_temp(TEMPERATURE),
            llama_cpp.llama_sampler_init_top_p(TOP_P, 1),
            llama_cpp.llama_sampler_init_dist(0),
        ):
            llama_cpp.llama_sampler_chain_add(self.chain, stage)
        self.candidates = np.zeros(vocab, CANDIDATE)
        self.array = llama_cpp.llama_token_data_array()

    def seconds(self, row: np.ndarray) -> float:
        """Time of one draw from logits [V]."""
        self.candidates["id"] = np.arange(len(row))
        self.candidates["logit"] = row
        self.array.data = self.candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        self.array.size, self.array.selected, self.array.sorted = len(row), -1, False
        start = time.perf_counter()
        llama_cpp.llama_sampler_apply(self.chain, ctypes.byref(self.array))
        return time.perf_counter() - start

    def close(self) -> None:
        """Free the chain."""
        llama_cpp.llama_sampler_free(self.chain)


def our_seconds(rows: np.ndarray, uniform: np.ndarray) -> float:
    """Mean time of one draw from rows [n, V]."""
    settings = np.full(len(rows), TEMPERATURE), np.full(len(rows), TOP_P)
    start = time.perf_counter()
    native.nucleus_sample(rows, *settings, uniform)
    return (time.perf_counter() - start) / len(rows)


def compare(rows: np.ndarray, rounds: int) -> dict[str, float]:
    """Medians in microseconds over interleaved rounds, and their ratio."""
    random = np.random.default_rng(2)
    # many draws a call: the workspace is made once a call, as it is once a model
    repeated = np.ascontiguousarray(rows[np.arange(24) % len(rows)])
    stock = Stock(rows.shape[1])
    ours, theirs = [], []
    for i in range(rounds):
        ours.append(our_seconds(repeated, random.random(len(repeated))))
        theirs += [stock.seconds(rows[(3 * i + k) % len(rows)]) for k in range(3)]
    stock.close()
    ours, theirs = statistics.median(ours) * 1e6, statistics.median(theirs) * 1e6
    return {"autodeco_us": round(ours, 1), "llama_cpp_us": round(theirs, 1), "ratio": round(theirs / ours, 2)}


def main() -> int:
    """Measure every case, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="for peaked rows of its vocabulary")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "kernel.json")
    args = parser.parse_args()

    models = {rows.shape[1]: rows for rows in map(model_rows, [default_model(), *args.model])}
    results = {}
    progress = tqdm([(vocab, *case) for vocab in VOCABULARIES for case in cases(models, vocab).items()], disable=None)
    for vocab, name, rows in progress:
        found = compare(rows, args.rounds)
        results.setdefault(str(vocab), {})[name] = found
        progress.write(f"{vocab:7} {name:26} {found}")

    document = {
        "settings": {"temperature": TEMPERATURE, "top_p": TOP_P, "rounds": args.rounds},
        "peaked_rows_of": [path.name for path in (default_model(), *args.model)],
        "cases": results,
        "machine": machine(),
        "versions": versions(),
    }
    with replacing(args.output) as part:
        part.write_text(json.dumps(document, indent=2) + "\n")
    return int(
        any(found["ratio"] < LEAST.get(name, 1.0) for by_case in results.values() for name, found in by_case.items())
    )


if __name__ == "__main__":
    sys.exit(main())

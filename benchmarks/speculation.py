"""Drafts by prompt lookup: heads in the graph against stock speculation, and both against decoding without drafts.

    python benchmarks/speculation.py [--text copy ...] [-o benchmarks/results/speculation.json]

SmolLM2 copies a text, where drafts are right, and tells a story, where few are. How many are drafted there depends on
the story that each tells; so a third text has a wrong draft for every token. Stock is llama_cpp.Llama with
LlamaPromptLookupDecoding at a fixed temperature and top-p. Multipliers bring the mean of the heads to them. All take
turns, once a round, with the same seed; a figure is the median over rounds of the ratio within one round. Time is that
of the processor on one thread, from the first token on, and by the clock.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding

import autodeco
from autodeco.base.opening import default_model
from autodeco.commands.bench import machine, versions
from autodeco.export import cli as export_cli
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
STATIC = {"temp": 0.7, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
DRAFTED = 6
LINES = (
    "The keeper of the lighthouse counts 17 boats, 4 gulls and a single red kite before breakfast.",
    "At noon he walks to the village, buys bread and salt, and asks the baker about the weather.",
    "In the evening he writes down the wind, the tide and the names of all ships that went by.",
)
STORY = "Once upon a time, in a small village by the sea, there lived"
PROMPTS = {
    "copy": "\n".join(LINES * 3) + "\n" + LINES[0] + "\n",
    "story": STORY,
    "wrong drafts": STORY,
}
RATIOS = (
    ("heads, drafts", "stock, drafts"),
    ("heads, drafts", "heads"),
    ("stock, drafts", "stock"),
    ("heads", "stock"),
)


class Drafts(LlamaDraftModel):
    """Those of prompt lookup, or always the same tokens, which no text has."""

    def __init__(self):
        self.num_pred_tokens = DRAFTED
        self.wrong = False
        self._lookup = LlamaPromptLookupDecoding(num_pred_tokens=DRAFTED)

    def __call__(self, input_ids, /, **kwargs):
        return np.full(DRAFTED, 5, np.intc) if self.wrong else self._lookup(input_ids)


def open_all(heads: Path) -> dict[str, llama_cpp.Llama]:
    """Open the model in every way."""
    model = str(default_model())
    options = {"n_ctx": 1024, "n_threads": 1, "n_threads_batch": 1, "verbose": False}

    return {
        "stock": llama_cpp.Llama(model, **options),
        "stock, drafts": llama_cpp.Llama(model, draft_model=Drafts(), **options),
        "heads": autodeco.Llama(model, heads, **options),
        "heads, drafts": autodeco.Llama(model, heads, draft_model=Drafts(), **options),
    }


def generate(llm: llama_cpp.Llama, prompt: str, tokens: int, seed: int, settings: dict) -> dict[str, float]:
    """Generate ``tokens`` tokens behind the first; return the seconds that one took."""
    llm.reset()
    llm.set_seed(seed)
    generation = llm.generate(llm.tokenize(prompt.encode()), **settings)
    next(generation)
    cpu, clock = time.process_time(), time.perf_counter()
    n = len(list(islice(generation, tokens)))
    seconds = {"processor": (time.process_time() - cpu) / n, "clock": (time.perf_counter() - clock) / n}
    generation.close()
    return seconds


def multipliers(llm: autodeco.Llama, prompt: str) -> dict[str, float]:
    """Return settings with which the heads' mean is that of the fixed ones."""
    generate(llm, prompt, 48, 0, {"temp": 1.0, "top_p": 1.0})
    seen = llm.decoding
    return {
        "temp": STATIC["temp"] / float(seen.temperature.mean()),
        "top_p": STATIC["top_p"] / float(seen.top_p.mean()),
    }


def compare(models: dict[str, llama_cpp.Llama], prompt: str, tokens: int, rounds: int) -> dict:
    """Measure one kind of text."""
    multiplied = multipliers(models["heads"], prompt)
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    accepted = []
    for i in range(rounds + 1):
        order = list(models) if i % 2 else list(models)[::-1]
        for name in order:
            found = generate(models[name], prompt, tokens, i, multiplied if "heads" in name else STATIC)
            if i > 0:  # the first round warms up
                seconds[name].append(found)
        if i > 0:
            accepted.append(models["heads, drafts"].drafting)
    result: dict = {"tokens": tokens, "rounds": rounds, "multipliers": multiplied}
    result["accepted"] = sum(d.accepted for d in accepted) / max(1, sum(d.drafted for d in accepted))
    for kind in ("processor", "clock"):
        result[kind] = {
            "tokens_per_second": {name: [round(1 / s[kind], 2) for s in found] for name, found in seconds.items()},
            "ratio": {
                f"{one} over {other}": round(
                    statistics.median(b[kind] / a[kind] for a, b in zip(seconds[one], seconds[other], strict=True)),
                    3,
                )
                for one, other in RATIOS
            },
        }
    return result


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--text", choices=PROMPTS, action="append", help="measure this one (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "speculation.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder) / "heads.gguf"
        export_cli.main([str(GOLDEN), "--base", str(default_model()), "--sampling", "none", "-o", str(heads)])
        models = open_all(heads)
        texts = {}
        for name in args.text or PROMPTS:
            for model in (models["stock, drafts"], models["heads, drafts"]):
                model.draft_model.wrong = name == "wrong drafts"
            texts[name] = compare(models, PROMPTS[name], args.tokens, args.rounds)
    result = {
        "model": default_model().name,
        "static": STATIC,
        "drafted": DRAFTED,
        "threads": 1,
        "texts": texts,
        "machine": machine(),
        "versions": versions(),
    }
    for name, text in texts.items():
        print(f"{name}: {text['accepted']:.0%} of drafted tokens accepted")
        for kind in ("processor", "clock"):
            for ratio, value in text[kind]["ratio"].items():
                print(f"  {kind:9} {ratio}: {value}")
    args.output.parent.mkdir(exist_ok=True)
    if args.text and args.output.exists():  # the other texts keep their figures
        result["texts"] = json.loads(args.output.read_text())["texts"] | texts
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Drafts by prompt lookup: heads in the graph against stock speculation, and both against decoding without drafts.

    python benchmarks/speculation.py [--text copy ...] [-o benchmarks/results/speculation.json]
    python benchmarks/speculation.py --model MODEL.gguf --gpu-layers -1 -o RESULT.json

SmolLM2 copies a text, where drafts are right, and tells a story, where few are. Prompt lookup drafts what the text so
far suggests, and each way tells a story of its own, so that the stories of two ways have other drafts. A third text
therefore gives both ways as many drafted tokens at each place as stock speculation had in its story; a fourth has a
wrong draft for every token. In these two no drafted token is one that the model draws.

Stock is llama_cpp.Llama with LlamaPromptLookupDecoding at a fixed temperature and top-p. Multipliers bring the mean of
the heads to them. All take turns, once a round, with the same seed; a figure is the median over rounds of the ratio
within one round. Time is that of the processor, from the first token on, and by the clock.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from itertools import islice
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding

import autodeco
from autodeco.base.opening import default_model
from autodeco.commands.bench import machine, versions
from autodeco.export.layout import open_layout
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
    "drafts of another story": STORY,
    "wrong drafts": STORY,
}
WRONG = 5  # a token that neither way draws
RATIOS = (
    ("heads, drafts", "stock, drafts"),
    ("heads, drafts", "heads"),
    ("stock, drafts", "stock"),
    ("heads", "stock"),
)


class Drafts(LlamaDraftModel):
    """Drafts of prompt lookup; or wrong ones, as long as ``lengths`` says for each length of the text so far."""

    def __init__(self):
        self.num_pred_tokens = DRAFTED
        self.lengths: dict[int, int] | None = None
        self.seen: dict[int, int] = {}  # of the last generation: how many tokens were drafted behind how many
        self._lookup = LlamaPromptLookupDecoding(num_pred_tokens=DRAFTED)

    def __call__(self, input_ids, /, **kwargs):
        n = len(input_ids)
        found = self._lookup(input_ids) if self.lengths is None else np.full(self.lengths.get(n, 0), WRONG, np.intc)
        self.seen[n] = len(found)
        return found


def open_all(model: str, heads: Path, gpu_layers: int, threads: int) -> dict[str, llama_cpp.Llama]:
    """Open the model in every way."""
    options = {"n_ctx": 1024, "n_threads": threads, "n_threads_batch": threads, "n_gpu_layers": gpu_layers}
    options["verbose"] = False
    return {
        "stock": llama_cpp.Llama(model, **options),
        "stock, drafts": llama_cpp.Llama(model, draft_model=Drafts(), **options),
        "heads": autodeco.Llama(model, heads, **options),
        "heads, drafts": autodeco.Llama(model, heads, draft_model=Drafts(), **options),
    }


def tokens_of(llm: llama_cpp.Llama, prompt: str) -> list[int]:
    """Return the tokens of ``prompt``; of a generated model, which has no words, a token for each word."""
    if llama_cpp.llama_vocab_type(llama_cpp.llama_model_get_vocab(llm.model)) != llama_cpp.LLAMA_VOCAB_TYPE_NONE:
        return llm.tokenize(prompt.encode())
    return [zlib.crc32(word.encode()) % llm.n_vocab() for word in prompt.split()]


def generate(llm: llama_cpp.Llama, prompt: str, tokens: int, seed: int, settings: dict) -> dict[str, float]:
    """Generate ``tokens`` tokens behind the first; return the seconds that one took, and what was drafted for it."""
    llm.reset()
    llm.set_seed(seed)
    if llm.draft_model:
        llm.draft_model.seen = {}
    generation = llm.generate(tokens_of(llm, prompt), **settings)
    next(generation)
    cpu, clock = time.process_time(), time.perf_counter()
    n = len(list(islice(generation, tokens)))
    found = {"processor": (time.process_time() - cpu) / n, "clock": (time.perf_counter() - clock) / n}
    generation.close()
    if llm.draft_model:
        seen = llm.draft_model.seen
        found |= {"drafted": sum(seen.values()) / n, "decodes": len(seen) / n}
    return found


def multipliers(llm: autodeco.Llama, prompt: str) -> dict[str, float]:
    """Return settings with which the heads' mean is that of the fixed ones."""
    generate(llm, prompt, 48, 0, {"temp": 1.0, "top_p": 1.0})
    seen = llm.decoding
    return {
        "temp": STATIC["temp"] / float(seen.temperature.mean()),
        "top_p": STATIC["top_p"] / float(seen.top_p.mean()),
    }


def compare(models: dict[str, llama_cpp.Llama], text: str, tokens: int, rounds: int) -> dict:
    """Measure one kind of text."""
    prompt, multiplied = PROMPTS[text], multipliers(models["heads"], PROMPTS[text])
    drafting = [llm.draft_model for llm in models.values() if llm.draft_model]
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for i in range(rounds + 1):
        set_drafts(drafting, None)
        if text == "drafts of another story":
            generate(models["stock, drafts"], prompt, tokens, i, STATIC)
            set_drafts(drafting, models["stock, drafts"].draft_model.seen)
        elif text == "wrong drafts":
            set_drafts(drafting, dict.fromkeys(range(models["stock"].n_ctx()), DRAFTED))
        order = list(models) if i % 2 else list(models)[::-1]
        for name in order:
            found = generate(models[name], prompt, tokens, i, multiplied if "heads" in name else STATIC)
            if i > 0:  # the first round warms up
                seconds[name].append(found)
    result: dict = {"tokens": tokens, "rounds": rounds, "multipliers": multiplied}
    for kind in ("drafted", "decodes"):  # for a token that was generated
        result[kind] = {
            name: round(statistics.mean(s[kind] for s in found), 3)
            for name, found in seconds.items()
            if kind in found[0]
        }
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


def set_drafts(drafting: list[Drafts], lengths: dict[int, int] | None) -> None:
    """Have all draft as many tokens behind each length of a text, wrong ones; or, with None, by prompt lookup."""
    for drafts in drafting:
        drafts.lengths = lengths


def write_heads(path: Path, model: Path, source: Path | None) -> None:
    """Write heads of ``source`` for ``model``; without one, random ones."""
    from random_heads import write_random_heads  # not where heads are given: safetensors may not be there

    from autodeco.export import cli as export_cli

    if source is None:
        source = path.with_suffix(".safetensors")
        write_random_heads(source, open_layout(model).embedding_length)
    if export_cli.main([str(source), "--base", str(model), "--sampling", "none", "-o", str(path)]) != 0:
        sys.exit(2)


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: SmolLM2")
    parser.add_argument("--heads", type=Path, help="as GGUF (default: SmolLM2's, or random ones of another model)")
    parser.add_argument("--gpu-layers", type=int, default=0, help="-1: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--text", choices=PROMPTS, action="append", help="measure this one (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "speculation.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, heads = args.model or default_model(), args.heads or Path(folder) / "heads.gguf"
        if not args.heads:
            write_heads(heads, model, None if args.model else GOLDEN)
        models = open_all(str(model), heads, args.gpu_layers, args.threads)
        texts = {name: compare(models, name, args.tokens, args.rounds) for name in args.text or PROMPTS}
    result = {
        "model": model.name,
        "gpu_layers": args.gpu_layers,
        "static": STATIC,
        "drafted": DRAFTED,
        "threads": args.threads,
        "texts": texts,
        "machine": machine(),
        "versions": versions(),
    }
    for name, text in texts.items():
        print(f"{name}: drafted for a token {text['drafted']}, decodes for a token {text['decodes']}")
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

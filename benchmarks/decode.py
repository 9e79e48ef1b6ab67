"""Decoding speed: heads in the graph against stock llama-cpp-python, in turn in one process.

    python benchmarks/decode.py [--model MODEL.gguf ...] [--output benchmarks/results/decode.json]

SmolLM2-135M with the golden heads of tests/golden; every --model with random ones. Multipliers bring the heads' mean
to the fixed setting. The limit beside each figure is the rate at which memory can deliver the model's weights once a
token.
"""

import argparse
import json
import tempfile
from pathlib import Path

from bandwidth import read_bandwidth
from random_heads import write_random_heads

from autodeco.base.opening import default_model
from autodeco.commands.bench import Runs, measure, report
from autodeco.export import cli as export_cli
from autodeco.export.layout import open_layout
from autodeco.runs.atomic import replacing
from autodeco.settings.machine import Machine

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
THREADS = 2


def main() -> None:
    """Measure every model, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="another model to measure")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "decode.json")
    args = parser.parse_args()

    bandwidth = read_bandwidth(THREADS)
    results = []
    for model in (default_model(), *args.model):
        layout = open_layout(model)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, heads = GOLDEN, Path(folder) / "heads.gguf"
            if args.model and model in args.model:
                checkpoint = Path(folder) / "heads.safetensors"
                write_random_heads(checkpoint, layout.embedding_length)
            export_cli.main([str(checkpoint), "--base", str(model), "-o", str(heads)])
            result = measure(model, heads, Runs(args.tokens, args.rounds), Machine(THREADS))
        # tied embeddings are the output matrix; untied ones are looked up, a row a token
        weights = sum(t.nbytes for t in layout.model.tensors.values() if _is_read(t.name, layout.model.tensors))
        result["limit"] = {
            "bytes_a_token": weights,
            "memory_bytes_per_second": round(bandwidth),
            "tokens_per_second": round(bandwidth / weights, 1),
            "autodeco_share": round(result["median"]["autodeco"] * weights / bandwidth, 3),
        }
        report(result)
        results.append(result)
    args.output.parent.mkdir(exist_ok=True)
    with replacing(args.output) as part:
        part.write_text(json.dumps(results, indent=2) + "\n")


def _is_read(name: str, tensors: dict) -> bool:
    return name != "token_embd.weight" or "output.weight" not in tensors


if __name__ == "__main__":
    main()

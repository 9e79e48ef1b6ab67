"""Decoding with heads in the graph over greedy decoding there, in two minutes.

    python3 benchmarks/gpu/over_greedy.py PROGRAMS MODELS RESULT.json [--smollm2 MODEL.gguf HEADS.gguf]

PROGRAMS is the folder with bench_decode and bench_operations, as the stage `build` of run.sh leaves them. Generated
models that are not in the folder MODELS are written first, all at once; that wants numpy and gguf. Each model is loaded
once. Its variants take turns, round after round, and a ratio is the median over rounds of that within one round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("135m-peaked", "1.5b-peaked", "1.5b-flat", "8b-peaked")
VARIANTS = ("graph_greedy", "autodeco")
AIM = 0.95


def generate(names: list[str], folder: Path) -> None:
    """Write those models of ``names`` that are not in ``folder``, each by a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, ROOT / "benchmarks" / "gpu" / "generate_model.py"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    writing = [
        subprocess.Popen([*program, *name.split("-"), "-o", folder], env=environment)
        for name in names
        if not (folder / f"{name}.heads.gguf").exists()  # which is written last
    ]
    ended = [process.wait() for process in writing]
    if any(ended):
        raise SystemExit(f"{folder}: not all models could be written")


def decoded(program: Path, model: Path, heads: Path, args: argparse.Namespace) -> list[dict]:
    """Return a row for one sequence and one for 32 of them."""
    numbers = [args.gpu_layers, args.tokens, args.rounds, *args.sequences]
    command = [program, model, heads, *map(str, numbers), *VARIANTS]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return [
        {
            "model": found["model"],
            "entropy_nats": round(found["entropy_nats"], 2),
            "sequences": run["sequences"],
            "mean_nucleus": round(run["mean_nucleus"], 1),
            "over_greedy": {name: round(ratio, 4) for name, ratio in run["over_greedy"].items()},
            "tokens_per_second": {
                name: round(statistics.median(rates), 1) for name, rates in run["tokens_per_second"].items()
            },
            "rounds": {name: [round(rate, 1) for rate in rates] for name, rates in run["tokens_per_second"].items()},
            "splits": run["splits"],
        }
        for run in found["runs"]
    ]


def operations(program: Path) -> dict:
    """Return microseconds by operation, for two sizes of a row and for one row and 32."""
    found = {}
    for n_vocab in (49152, 151936):
        for rows in (1, 32):
            done = subprocess.run([program, str(n_vocab), str(rows)], stdout=subprocess.PIPE, text=True, check=True)
            title, *lines = done.stdout.splitlines()
            times = (line.rsplit(maxsplit=1) for line in lines)
            found[title] = {name.strip(): float(microseconds) for name, microseconds in times}
    return found


def main() -> None:
    """Measure, print a line for each row, and write the result after each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--smollm2", type=Path, nargs=2, metavar=("MODEL", "HEADS"), help="measure this one too")
    parser.add_argument(
        "--only", nargs="+", choices=GENERATED, default=GENERATED, help="generated models (default: all)"
    )
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--gpu-layers", type=int, default=99)
    parser.add_argument("--tokens", type=int, default=40, help="of each sequence in a round")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    args.result.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    generate(args.only, args.models)
    report: dict = {"generating_seconds": round(time.monotonic() - began, 1), "aim": AIM, "rows": []}
    began = time.monotonic()
    models = [(args.models / f"{name}.gguf", args.models / f"{name}.heads.gguf") for name in args.only]
    for model, heads in [*([args.smollm2] if args.smollm2 else []), *models]:
        rows = decoded(args.programs / "bench_decode", model, heads, args)
        report["rows"] += rows
        for row in rows:
            ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in row["over_greedy"].items())
            print(f"{row['model']}, {row['sequences']} sequences: over greedy {ratios}", flush=True)
        report["measuring_seconds"] = round(time.monotonic() - began, 1)
        args.result.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    report["operations_microseconds"] = operations(args.programs / "bench_operations")
    report["measuring_seconds"] = round(time.monotonic() - began, 1)
    args.result.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    rows = report["rows"]
    reached = sum(row["over_greedy"]["autodeco"] >= AIM for row in rows)
    print(f"{reached} of {len(rows)} rows reach {AIM} of greedy")


if __name__ == "__main__":
    main()

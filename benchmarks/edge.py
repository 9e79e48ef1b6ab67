"""Measure autodeco-cli against the stock loop of benchmarks/stock: speed, start, memory, size (make edge-bench).

The programs take turns, a round each, in another order every round; ratios are of medians over the rounds. Tokens per
second are the programs' own; the start to the first token is measured here, from the program's start to its first byte.
A machine that is quiet only for a minute at a time measures in pieces: --rounds 10 --add, several times.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from autodeco.base.opening import default_model
from autodeco.commands.bench import PROMPT, STATIC, _processor
from autodeco.export import cli as export_cli
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
CONTEXT = 512
FIGURES = ("tokens_per_second", "start_seconds", "peak_memory_bytes")


def run(command: list, summary_on_stdout: bool) -> dict:
    """Run one program to its end; its own figures, and the seconds until its first byte of text."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - start
    out, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{command[0]}: {errors.decode()}")
    lines = (first + out if summary_on_stdout else errors).splitlines()
    return {**json.loads(lines[-1]), "start_seconds": seconds, "lines": lines}


def multipliers(cli: Path, model: Path, heads: Path) -> dict:
    """What brings the heads' mean temperature and top-p to those of the static setting."""
    command = [cli, "-m", model, "--heads", heads, "-p", PROMPT, "-n", 200, "-s", 0, "--ignore-eos", "--json"]
    tokens = [json.loads(line) for line in run(command, True)["lines"][:-1]]
    return {
        "temp": STATIC["temp"] / statistics.mean(token["temperature"] for token in tokens),
        "top-p": STATIC["top_p"] / statistics.mean(token["top_p"] for token in tokens),
    }


def stripped_size(program: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / program.name
        subprocess.run(["strip", "-o", copy, program], check=True)
        return copy.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "x86-64", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--add", action="store_true", help="add the rounds to those that the output holds")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "edge.json")
    args = parser.parse_args()

    cli, stock, model = args.build / "autodeco-cli", args.build / "stock", default_model()
    with tempfile.TemporaryDirectory() as folder:
        heads = {}
        for weight_type in ("f16", "q8_0"):
            heads[weight_type] = Path(folder) / f"{weight_type}.gguf"
            export = [GOLDEN, "--base", model, "--type", weight_type, "-o", heads[weight_type]]
            if export_cli.main([str(argument) for argument in export]) != 0:
                sys.exit(2)
        sizes = {name: path.stat().st_size for name, path in heads.items()}
        scaled = multipliers(cli, model, heads["f16"])

        def ours(weight_type: str, seed: int) -> dict:
            command = [cli, "-m", model, "--heads", heads[weight_type], "-p", PROMPT, "-n", args.tokens, "-c", CONTEXT]
            command += ["-t", args.threads, "-s", seed, "--ignore-eos", "--json"]
            return run(command + [f"--{name}={value}" for name, value in scaled.items()], True)

        def stock_loop(seed: int, *pool: str) -> dict:
            return run([stock, model, PROMPT, args.tokens, CONTEXT, args.threads, seed, *pool], False)

        programs = {
            "stock": lambda seed: stock_loop(seed),
            "stock_kept_threads": lambda seed: stock_loop(seed, "pool"),
            "autodeco_f16": lambda seed: ours("f16", seed),
            "autodeco_q8_0": lambda seed: ours("q8_0", seed),
        }
        settings = {"static": STATIC, "multipliers": scaled, "context": CONTEXT}
        settings |= {"threads": args.threads, "tokens": args.tokens}
        machine = {"processor": _processor(), "system": platform.platform(terse=True)}
        names = list(programs)
        figures = {key: {name: [] for name in names} for key in FIGURES}
        if args.add and args.output.exists():
            before = json.loads(args.output.read_text())
            if before["settings"] != settings or before["machine"] != machine:
                sys.exit(f"{args.output}: measured with other settings or on another machine; leave out --add")
            figures = before["rounds"]
        n_before = len(figures[FIGURES[0]][names[0]])
        for seed in tqdm(range(n_before, n_before + args.rounds + 1), desc="edge", unit="round", disable=None):
            for name in names[seed % 4 :] + names[: seed % 4]:
                result = programs[name](seed)
                for key in FIGURES if seed > n_before else ():  # the first round warms up
                    figures[key][name].append(round(result[key], 4))

    medians = {key: {name: round(statistics.median(figures[key][name]), 4) for name in names} for key in FIGURES}

    def ratio(key: str, name: str, rival: str = "stock") -> float:
        return round(medians[key][name] / medians[key][rival], 4)

    result = {
        "model": model.name,
        "settings": settings,
        "size_stripped_bytes": stripped_size(cli),
        "heads_bytes": sizes,
        "median": medians,
        "speed_over_stock": ratio("tokens_per_second", "autodeco_f16"),
        "speed_over_stock_with_kept_threads": ratio("tokens_per_second", "autodeco_f16", "stock_kept_threads"),
        "start_over_stock": ratio("start_seconds", "autodeco_f16"),
        "peak_memory_over_stock": {name: ratio("peak_memory_bytes", f"autodeco_{name}") for name in heads},
        "machine": machine,
        "rounds": figures,
    }
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()

"""Measure autodeco-cli against the stock loop of benchmarks/stock: speed, start, memory, size (make edge-bench).

The programs take turns, a round each, in another order every round; ratios are of medians over the rounds. Tokens per
second are the programs' own; the start to the first token is measured here, from the program's start to its first byte.
A machine that is quiet only for a minute at a time measures in pieces: --rounds 10 --add, several times.

--board MB takes a board with that much memory left for the program: a control group of the kernel holds each run to it,
the mapped model's pages included. Heads are random there, in the model's own file (the embedded layout). Wants root.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_heads import write_random_heads
from tqdm import tqdm

from autodeco.base.opening import default_model
from autodeco.commands.bench import PROMPT, STATIC, _processor
from autodeco.export import cli as export_cli
from autodeco.export.layout import open_layout
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "smollm2.heads.safetensors"
CONTEXT = 512
FIGURES = ("tokens_per_second", "start_seconds", "peak_memory_bytes")
IN_A_FILE = {"f16": ("f16", "sidecar"), "q8_0": ("q8_0", "sidecar")}  # type and layout of heads
IN_THE_MODEL = {"embedded_q8_0": ("q8_0", "embedded")}
CONTROL_GROUPS = {  # where the kernel keeps them, and a group's file for the limit, by version
    Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes",
    Path("/sys/fs/cgroup"): "memory.max",
}


@contextlib.contextmanager
def board(megabytes: int | None):
    """What a process calls to enter a control group with so much memory; nothing where there is no limit."""
    if megabytes is None:
        yield None
        return
    parent = next((path for path in CONTROL_GROUPS if (path / "cgroup.procs").exists()), None)
    if parent is None or os.geteuid() != 0:
        sys.exit("--board wants root, and control groups of memory in /sys/fs/cgroup")
    group = parent / f"autodeco-board-{os.getpid()}"
    group.mkdir()
    try:
        (group / CONTROL_GROUPS[parent]).write_text(str(megabytes * 1_000_000))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def run(command: list, summary_on_stdout: bool, enter=None) -> dict:
    """Run one program to its end; its own figures, and the seconds until its first byte of text."""
    start = time.perf_counter()
    command = [str(part) for part in command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=enter)
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.perf_counter() - start
    out, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{command[0]}: {errors.decode()}")
    lines = (first + out if summary_on_stdout else errors).splitlines()
    return {**json.loads(lines[-1]), "start_seconds": seconds, "lines": lines}


def forget(path: Path) -> None:
    """Have the next run read the file anew: pages that are in the machine's cache count for no control group."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Bench:
    """The programs that take turns, and the files that they run."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.model = args, args.model
        self.cli, self.stock = args.build / "autodeco-cli", args.build / "stock"
        source = GOLDEN
        if args.board:
            self.model, source = folder / args.model.name, folder / "heads.safetensors"
            shutil.copyfile(args.model, self.model)  # whose pages nobody else has mapped
            write_random_heads(source, open_layout(args.model).embedding_length)
        self.heads = IN_THE_MODEL if args.board else IN_A_FILE
        self.files = {name: folder / f"{name}.gguf" for name in self.heads}
        for name, (weight_type, layout) in self.heads.items():
            export = [source, "--base", self.model, "--type", weight_type, "--layout", layout, "-o", self.files[name]]
            export += ["--sampling", "none"]
            if export_cli.main([str(argument) for argument in export]) != 0:
                sys.exit(2)
        # heads of random weights have no mean to bring to the static setting, and the draw is little of a large model
        self.scaled = {} if args.board else self.multipliers(next(iter(self.heads)))

    def ours(self, name: str) -> list:
        """The program with heads, in a file of their own or in the model's."""
        file = self.files[name]
        inside = self.heads[name][1] == "embedded"
        return [self.cli, "-m", file if inside else self.model, *([] if inside else ["--heads", file]), "-p", PROMPT]

    def multipliers(self, name: str) -> dict:
        """What brings the heads' mean temperature and top-p to those of the static setting."""
        command = [*self.ours(name), "-n", 200, "-s", 0, "-c", CONTEXT, "--ignore-eos", "--json"]
        tokens = [json.loads(line) for line in run(command, True)["lines"][:-1]]
        return {
            "temp": STATIC["temp"] / statistics.mean(token["temperature"] for token in tokens),
            "top-p": STATIC["top_p"] / statistics.mean(token["top_p"] for token in tokens),
        }

    def measure(self, name: str, seed: int) -> dict:
        """One run of a program."""
        with board(self.args.board) as enter:
            if self.args.board:
                for file in (self.model, *self.files.values()):
                    forget(file)
            if not name.startswith("stock"):
                command = [*self.ours(name.removeprefix("autodeco_")), "-n", self.args.tokens, "-c", CONTEXT]
                command += ["-t", self.args.threads, "-s", seed, "--ignore-eos", "--json"]
                return run(command + [f"--{key}={value}" for key, value in self.scaled.items()], True, enter)
            command = [self.stock, self.model, PROMPT, self.args.tokens, CONTEXT, self.args.threads, seed]
            return run([*command, "pool"] if name == "stock_kept_threads" else command, False, enter)


def stripped_size(program: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / program.name
        subprocess.run(["strip", "-o", copy, program], check=True)
        return copy.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "x86-64", help="(default: %(default)s)")
    parser.add_argument("--model", type=Path, default=default_model(), help="with --board (default: SmolLM2)")
    parser.add_argument("--board", type=int, metavar="MB", help="memory of the board that is left for the program")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--add", action="store_true", help="add the rounds to those that the output holds")
    parser.add_argument("-o", "--output", type=Path, help="(default: benchmarks/results/edge.json, or board.json)")
    args = parser.parse_args()
    args.output = args.output or ROOT / "benchmarks" / "results" / ("board.json" if args.board else "edge.json")

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        rest = bench.model.stat().st_size if args.board else 0  # of a file that holds the model too
        sizes = {name: path.stat().st_size - rest for name, path in bench.files.items()}
        settings = {"static": STATIC, "multipliers": bench.scaled, "context": CONTEXT}
        settings |= {"threads": args.threads, "tokens": args.tokens}
        if args.board:
            settings["board_megabytes"] = args.board
        machine = {"processor": _processor(), "system": platform.platform(terse=True)}
        names = ["stock", "stock_kept_threads", *(f"autodeco_{name}" for name in bench.heads)]
        figures = {key: {name: [] for name in names} for key in FIGURES}
        if args.add and args.output.exists():
            before = json.loads(args.output.read_text())
            if before["settings"] != settings or before["machine"] != machine:
                sys.exit(f"{args.output}: measured with other settings or on another machine; leave out --add")
            figures = before["rounds"]
        n_before = len(figures[FIGURES[0]][names[0]])
        for seed in tqdm(range(n_before, n_before + args.rounds + 1), desc="edge", unit="round", disable=None):
            first = seed % len(names)
            for name in names[first:] + names[:first]:
                result = bench.measure(name, seed)
                for key in FIGURES if seed > n_before else ():  # the first round warms up
                    figures[key][name].append(round(result[key], 4))

    medians = {key: {name: round(statistics.median(figures[key][name]), 4) for name in names} for key in FIGURES}

    def ratio(key: str, name: str, rival: str = "stock") -> float:
        return round(medians[key][name] / medians[key][rival], 4)

    ours = names[2]
    result = {
        "model": args.model.name,
        "settings": settings,
        **({} if args.board else {"size_stripped_bytes": stripped_size(bench.cli)}),
        "heads_bytes": sizes,
        "median": medians,
        "speed_over_stock": ratio("tokens_per_second", ours),
        "speed_over_stock_with_kept_threads": ratio("tokens_per_second", ours, "stock_kept_threads"),
        "start_over_stock": ratio("start_seconds", ours),
        "peak_memory_over_stock": {name: ratio("peak_memory_bytes", f"autodeco_{name}") for name in bench.heads},
        "machine": machine,
        "rounds": figures,
    }
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()

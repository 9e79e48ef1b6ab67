"""Time and memory of merging and splitting a large model, beside `cp` of the same file on the same disk.

    python benchmarks/export.py [--gigabytes 4] [--rounds 9] [--folder .] [--output benchmarks/results/export.json]

Generates a GGUF of random bytes and heads, then runs merge and cp of the model in turn, then split and cp of the merged
file. Needs twice its size of room. Seconds are those until the data are on the disk; beside them the processor's, which
other work on the machine changes little.
Exit code 1 if merging takes longer than 1.3 x cp or more than 200 MB of memory.
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

import numpy as np
from random_heads import write_random_heads
from tqdm import tqdm

from autodeco.export import gguf_encode as encode
from autodeco.export import gguf_types as types
from autodeco.export.gguf_file import TensorInfo, padded

LARGEST_RATIO = 1.3
LARGEST_MEMORY = 200  # MB
HIDDEN, VOCAB = 4096, 151_936  # those of an 8B model
TENSOR_BYTES = 64 << 20
# The largest resident set is written by the process itself: what wait4 reports includes the parent's, from before exec.
EXPORT_CODE = """
import sys
from autodeco.export.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file, open("/proc/self/status") as status:
    file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
sys.exit(code)
"""


def write_model(path: Path, size: int) -> None:
    """A GGUF of about ``size`` bytes with a vocabulary as large as a real one and tensors of random bytes."""
    items = b"".join(encode.string(f"token{i}") for i in range(VOCAB))
    tokens = encode.string("tokenizer.ggml.tokens") + np.array([types.ARRAY, types.STRING], "<u4").tobytes()
    keys = [
        encode.key_value("general.architecture", types.STRING, "llama"),
        encode.key_value("general.name", types.STRING, "Random"),
        encode.key_value("llama.embedding_length", types.UINT32, HIDDEN),
        tokens + np.uint64(VOCAB).tobytes() + items,
    ]
    count = max(1, size // TENSOR_BYTES)
    infos = [
        TensorInfo(f"blk.{i}.weight", (TENSOR_BYTES // 4,), types.F32, i * TENSOR_BYTES, TENSOR_BYTES)
        for i in range(count)
    ]
    head = encode.header(count, len(keys)) + b"".join(keys) + b"".join(map(encode.tensor_info, infos))
    random = np.random.default_rng(0)
    with open(path, "wb") as file:
        file.write(head + bytes(padded(len(head), 32) - len(head)))
        for _ in tqdm(range(count), desc="model", disable=None):
            file.write(random.bytes(TENSOR_BYTES))


def run(command: list[str], output: Path) -> tuple[float, float]:
    """Seconds that one command takes until ``output``, a new file, is on the disk, and seconds of the processor; starts
    with nothing left to write back. A file to replace would measure something else: cp empties it first, an export
    keeps it until the end."""
    output.unlink(missing_ok=True)
    os.sync()
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    with open(output, "rb") as file:
        os.fsync(file.fileno())
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, processor


class Export:
    """The export command, run so that it reports its own largest resident set."""

    def __init__(self, report: Path):
        self._report = report

    def command(self, *args: str) -> list[str]:
        """The command line for these arguments."""
        return [sys.executable, "-c", EXPORT_CODE, str(self._report), *args]

    def peak_mb(self) -> float:
        """Largest resident set of the last run."""
        return int(self._report.read_text()) * 1024 / 1e6


def compare(ours: list[str], output: Path, cp: list[str], copy: Path, rounds: int, export: Export) -> dict:
    """Run both in turn, each first in every other round: the speed of a disk drifts over minutes, so that only
    neighbours can be compared, and the figure is the median of their ratios."""
    seconds = {"export": [], "cp": []}
    processor = {"export": [], "cp": []}
    peak = 0.0
    for i in tqdm(range(rounds), desc="rounds", disable=None):
        for name in ("cp", "export") if i % 2 else ("export", "cp"):
            command, target = (cp, copy) if name == "cp" else (ours, output)
            for times, found in zip((seconds, processor), run(command, target), strict=True):
                times[name].append(round(found, 3))
            target.unlink()
        peak = max(peak, export.peak_mb())
    ratios = [ours / theirs for ours, theirs in zip(seconds["export"], seconds["cp"], strict=True)]
    return {
        "ratio_to_cp": round(statistics.median(ratios), 3),
        "processor_ratio_to_cp": round(statistics.median(processor["export"]) / statistics.median(processor["cp"]), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_memory_mb": round(peak, 1),
    }


def main() -> int:
    """Run the rounds, print and write the figures; exit code 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/export.json"))
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="export-benchmark-", dir=args.folder) as scratch:
        folder = Path(scratch)
        model, heads, copy, merged = (folder / n for n in ("model.gguf", "heads.safetensors", "copy", "merged.gguf"))
        write_model(model, int(args.gigabytes * 1e9))
        write_random_heads(heads, HIDDEN)
        size = model.stat().st_size
        export = Export(folder / "peak")
        merge = export.command(
            str(heads), "--base", str(model), "--layout", "merged", "--sampling", "none", "-o", str(merged)
        )
        pairs = {"merge": compare(merge, merged, ["cp", str(model), str(copy)], copy, args.rounds, export)}
        subprocess.run(merge, stdout=subprocess.DEVNULL, check=True)
        model.unlink()
        split = export.command("--split", str(merged), "-o", str(folder / "parts"))
        base = folder / "parts" / "base.gguf"
        pairs["split"] = compare(split, base, ["cp", str(merged), str(copy)], copy, args.rounds, export)

    results = {
        "bytes": size,
        **pairs,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
    }
    text = json.dumps(results, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n")
    return int(pairs["merge"]["ratio_to_cp"] > LARGEST_RATIO or pairs["merge"]["peak_memory_mb"] > LARGEST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())

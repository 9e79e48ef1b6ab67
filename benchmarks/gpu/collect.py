"""Join what run.sh left in its OUT folder into one JSON file: python3 benchmarks/gpu/collect.py OUT RESULT.json"""

import json
import statistics
import sys
from pathlib import Path

LLAMA_CPP = "0.5.0, from llama-cpp-python 0.3.36"
COMMAND = "benchmarks/gpu/carry.sh CARRIED && benchmarks/gpu/run.sh CARRIED OUT"


def tests(out: Path) -> dict:
    """Return how many claims passed and failed, by test, as the last line of each log says."""
    return {log.stem: log.read_text().splitlines()[-1] for log in sorted(out.glob("test_*.log"))}


def operations(out: Path) -> dict:
    """Return microseconds by operation, for one row of logits and for 32."""
    found = {}
    for path in sorted(out.glob("operations_*.txt")):
        lines = path.read_text().splitlines()
        times = (line.rsplit(maxsplit=1) for line in lines[1:])
        found[lines[0]] = {name.strip(): float(time) for name, time in times}
    return found


def decoding(out: Path) -> list:
    """Return the decoding runs, with the median rate beside the rates of the rounds."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("decode-*.json"))]
    for model in found:
        for run in model["runs"]:
            rates = run["tokens_per_second"]
            run["tokens_per_second"] = {name: round(statistics.median(values), 1) for name, values in rates.items()}
            run["rounds"] = {name: [round(value, 1) for value in values] for name, values in rates.items()}
    return found


def python(out: Path) -> list:
    """Return what ``autodeco bench`` found."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("bench-*.json"))]


def others(out: Path) -> dict:
    """Return what the stages that train, or want several GPUs, left, as far as they ran."""
    found = {name: out / f"{name}.json" for name in ("losses", "full_run", "train_memory", "many_gpus", "split")}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


def main() -> None:
    """Write the result."""
    out, result = Path(sys.argv[1]), Path(sys.argv[2])
    machine, compiler = (out / "machine.txt").read_text().splitlines()[:2]
    report = {
        "machine": machine,
        "compiler": compiler,
        "llama_cpp": LLAMA_CPP,
        "command": COMMAND,
        "tests": tests(out),
        "operations_microseconds": operations(out),
        "decoding": decoding(out),
        "decoding_in_python": python(out),
        **others(out),
    }
    result.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

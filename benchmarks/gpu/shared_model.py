"""One model on several GPUs, in every way that they can share it, against the same program on the first GPU alone.

    python3 benchmarks/gpu/shared_model.py PROGRAM MODEL HEADS RESULT.json [OPTION ...]

PROGRAM is autodeco-cli. The OPTIONs are handed to it: `--rpc A,B` tries all of this over two of llama.cpp's servers,
on a machine without GPUs. Where autodeco is installed, autodeco.Llama shares the model in the same ways. Fails unless
every way gives the tokens of one GPU, and T and P to 1e-3; rows are multiplied by other kernels, and only begin with
the same token, and keep T and P to 0.1. Tensor parallelism must be refused in one line.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

PROMPT, TOKENS = "The capital of France is", 64
ALONE = (["--split-mode", "none", "--main-gpu", "0"], {"split_mode": 0, "main_gpu": 0})
WAYS = {
    "by free memory": ([], {}),
    "halves": (["--tensor-split", "1,1"], {"tensor_split": [1, 1]}),
    "a quarter and the rest": (["--tensor-split", "1,3"], {"tensor_split": [1, 3]}),
    "three quarters and the rest": (["--tensor-split", "3,1"], {"tensor_split": [3, 1]}),
    "all on the second": (["--split-mode", "none", "--main-gpu", "1"], {"split_mode": 0, "main_gpu": 1}),
    "by rows": (["--split-mode", "row"], {"split_mode": 2}),
    "by rows, the rest on the second": (["--split-mode", "row", "--main-gpu", "1"], {"split_mode": 2, "main_gpu": 1}),
}
TENSOR = (["--split-mode", "tensor"], {"split_mode": 3})


def with_program(options: list[str]) -> dict:
    """Return the tokens with what was picked for them, tokens per second, and each device's megabytes of the model."""
    program, model, heads = sys.argv[1:4]
    command = [program, "-m", model, "--heads", heads, "-p", PROMPT, "-n", str(TOKENS), "-c", "512", "--temp", "0"]
    command += ["--ignore-eos", "--json", "--verbose", *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        return {"failed": done.stderr.splitlines()[-1], "lines": len(done.stderr.splitlines())}
    *tokens, summary = map(json.loads, done.stdout.splitlines())
    sizes = re.findall(r"(\S+) model buffer size = *([\d.]+) MiB", done.stderr)
    return {"tokens": tokens, "rate": summary["tokens_per_second"], "mib": {name: float(size) for name, size in sizes}}


def with_python(arguments: dict) -> dict:
    """Return the like of autodeco.Llama, in a process of its own."""
    _, model, heads = sys.argv[1:4]
    rpc = sys.argv[sys.argv.index("--rpc") + 1] if "--rpc" in sys.argv else None
    settings = {"n_gpu_layers": -1, "rpc_servers": rpc, **arguments}
    done = subprocess.run(
        [
            sys.executable,
            *(["-P"] if sys.flags.safe_path else []),
            __file__,
            "python",
            model,
            heads,
            json.dumps(settings),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        told = done.stderr.splitlines()
        return {"failed": told[-1] if told else f"exit code {done.returncode}", "lines": 1}
    return {"tokens": json.loads(done.stdout.splitlines()[-1])}


def python(model: str, heads: str, settings: dict) -> None:
    """Print the tokens of autodeco.Llama, with what was picked for them."""
    from itertools import islice

    import autodeco

    llm = autodeco.Llama(model, heads, n_ctx=512, verbose=False, **settings)
    generation = llm.generate(llm.tokenize(PROMPT.encode()), temp=0.0)
    list(islice(generation, TOKENS))
    generation.close()
    picked = llm.decoding.to_dict()
    names = ("token", "temperature", "top_p")
    print(
        json.dumps([dict(zip(names, values, strict=True)) for values in zip(*(picked[n] for n in names), strict=True)])
    )
    llm.close()


def compared(way: str, found: dict, alone: list[dict]) -> dict:
    """Return how far an answer agrees with that of one GPU; ``good`` where that is far enough."""
    if "failed" in found:
        return {"good": False, "failed": found["failed"]}
    tokens = found.pop("tokens")
    same = next((i for i, (a, b) in enumerate(zip(tokens, alone, strict=False)) if a["token"] != b["token"]), TOKENS)
    pairs = [*zip(tokens[:same], alone[:same], strict=True)]
    off = max((abs(a[name] - b[name]) for a, b in pairs for name in ("temperature", "top_p")), default=0.0)
    least, most = (1, 0.1) if "rows" in way else (TOKENS, 1e-3)
    return {"good": same >= least and off < most, "same_tokens": same, "largest_difference": off, **found}


def refused(found: dict) -> dict:
    """Return what was said to what cannot be; ``good`` where that is one line that names the split mode."""
    told = found.get("failed", "")
    return {"good": "split" in told and found.get("lines") == 1, "told": told}


def main() -> int:
    """Write the result; return 1 where anything is not good."""
    devices = ["-g", "99", *sys.argv[5:]]
    kinds = {"program": lambda way: with_program([*devices, *way[0]])}
    if importlib.util.find_spec("autodeco") and importlib.util.find_spec("llama_cpp"):
        kinds["python"] = lambda way: with_python(way[1])
    report = {}
    for kind, run in kinds.items():
        alone = run(ALONE)["tokens"]
        report[kind] = {way: compared(way, run(options), alone) for way, options in WAYS.items()}
        report[kind]["tensor"] = refused(run(TENSOR))
    Path(sys.argv[4]).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    bad = [f"{kind}, {way}: {row}" for kind, ways in report.items() for way, row in ways.items() if not row["good"]]
    print("\n".join(bad) or f"{sum(map(len, report.values()))} ways, all good")
    return int(bool(bad))


if __name__ == "__main__":
    if sys.argv[1] == "python":
        python(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
    else:
        sys.exit(main())

"""Speed and memory of the exact losses against the plain ones: forward and backward to the heads, written as JSON.

python benchmarks/losses.py [-o losses.json]
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

from autodeco import Heads, losses
from autodeco.exact_losses import predict_and_score

# Random weights: logits spread by 4 give distributions about as peaked as a small model's.
SPREAD = 4.0
CHUNK = 64


def plain_step(heads, hidden, weight, labels):
    """One backward pass of both plain losses over all tokens at once."""
    logits = hidden @ weight.T
    temperature, top_p = heads(hidden, logits)
    loss = losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0)
    (loss + losses.soft_top_p_loss(logits, temperature, top_p, labels)).backward()


def exact_step(heads, hidden, weight, labels):
    """The same with the exact losses, in chunks."""
    parts = []
    for start in range(0, len(hidden), CHUNK):
        rows = slice(start, start + CHUNK)
        with torch.no_grad():
            logits = hidden[rows] @ weight.T
        _, _, first, second, _ = predict_and_score(heads, hidden[rows], logits, labels[rows])
        parts.append(first + second)
    torch.cat(parts).mean().backward()


def measure(step, args) -> dict:
    """Return tokens/s (the best of ``args.rounds``) and peak memory beyond weights and inputs, in MiB."""
    torch.manual_seed(0)
    weight = torch.randn(args.vocab, args.hidden).mul_(SPREAD / args.hidden**0.5)
    hidden, heads = torch.randn(args.tokens, args.hidden), Heads(args.hidden)
    labels = torch.randint(args.vocab, (args.tokens,))
    torch.nn.init.constant_(heads.temp_head.mlp[2].bias, args.bias)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(args.rounds):
        began = time.perf_counter()
        step(heads, hidden, weight, labels)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"tokens_per_second": round(args.tokens / min(seconds), 1), "peak_mib": round((peak - before) / 1024)}


def main() -> None:
    """Measure each version in a process of its own, since a peak of memory never goes down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bias", type=float, default=0.0, help="of the temperature head: 0 is T = 1, -1.4 is T = 0.4")
    parser.add_argument("-o", "--output")
    parser.add_argument("--only", choices=["plain", "exact"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure({"plain": plain_step, "exact": exact_step}[args.only], args)))
        return
    rows = []
    for temperature, bias in ((1.0, 0.0), (0.4, -1.386)):
        row = {"temperature": temperature}
        for only in ("plain", "exact"):
            sizes = [f"--{name}={getattr(args, name)}" for name in ("tokens", "hidden", "vocab", "rounds")]
            run = [sys.executable, __file__, *sizes, f"--bias={bias}", f"--only={only}"]
            row[only] = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        row["speedup"] = round(row["exact"]["tokens_per_second"] / row["plain"]["tokens_per_second"], 2)
        rows.append(row)
    report = {
        "tokens": args.tokens,
        "hidden": args.hidden,
        "vocab": args.vocab,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "rows": rows,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()

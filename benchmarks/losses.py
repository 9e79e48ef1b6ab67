"""Speed and memory of the exact losses against the plain ones: forward and backward to the heads, written as JSON.

python benchmarks/losses.py [-o losses.json]                                                   # SmolLM2's sizes, CPU
python benchmarks/losses.py --device cuda --tokens 12288 --vocab 151936 --hidden 3584 [-o losses-cuda.json]

On a GPU hidden states and output matrix are bfloat16, as a model's are, and the plain losses get as many tokens as fit.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch

from autodeco import Heads, losses
from autodeco.exact_losses import chunk_tokens, predict_and_score

# Random weights: logits spread by 4 give distributions somewhat less peaked than a model's.
SPREAD = 4.0
VERSIONS = {"cpu": ["plain", "exact"], "cuda": ["plain", "exact", "exact_compiled"]}


def plain_step(heads, hidden, weight, labels):
    """One backward pass of both plain losses over all tokens at once."""
    logits = (hidden @ weight.T).float()
    temperature, top_p = heads(hidden, logits)
    loss = losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0)
    (loss + losses.soft_top_p_loss(logits, temperature, top_p, labels)).backward()


def exact_step(heads, hidden, weight, labels):
    """The same with the exact losses, in chunks."""
    parts = []
    for rows in torch.arange(len(hidden), device=hidden.device).split(chunk_tokens(len(weight), hidden.device)):
        with torch.no_grad():
            logits = (hidden[rows] @ weight.T).float()
        _, _, first, second, _ = predict_and_score(heads, hidden[rows], logits, labels[rows])
        parts.append(first + second)
    torch.cat(parts).mean().backward()


def make_inputs(args):
    """Return heads, hidden states, output matrix and labels drawn from the model's distribution at temperature 1."""
    torch.manual_seed(0)
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    weight = torch.randn(args.vocab, args.hidden, device=args.device).mul_(SPREAD / args.hidden**0.5).to(dtype)
    hidden = torch.randn(args.tokens, args.hidden, device=args.device).to(dtype)
    heads = Heads(args.hidden).to(args.device)
    torch.nn.init.constant_(heads.temp_head.mlp[2].bias, args.bias)
    labels = [torch.softmax((part @ weight.T).float(), -1).multinomial(1).squeeze(-1) for part in hidden.split(64)]
    return heads, hidden, weight, torch.cat(labels)


def peak(device: str) -> float:
    """Return the most memory used so far, in MiB."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def timed(step, inputs, args) -> float:
    """Return the seconds of the fastest of ``args.rounds`` passes."""
    seconds = []
    for _ in range(args.rounds):
        began = time.perf_counter()
        step(*inputs)
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(args) -> dict:
    """Return tokens/s, how many tokens fitted, and peak memory beyond weights and inputs, in MiB."""
    step = plain_step if args.only == "plain" else exact_step
    heads, hidden, weight, labels = make_inputs(args)
    tokens = args.tokens
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        before = peak("cpu")
    while True:
        try:
            seconds = timed(step, (heads, hidden[:tokens], weight, labels[:tokens]), args)
            break
        except torch.cuda.OutOfMemoryError:
            tokens = tokens * 7 // 8
            heads.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    return {
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_mib": round(peak(args.device) - before),
    }


def main() -> None:
    """Measure each version in a process of its own, since a peak of memory never goes down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=sorted(VERSIONS), default="cpu")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bias", type=float, default=0.0, help="of the temperature head: 0 is T = 1, -1.4 is T = 0.4")
    parser.add_argument("-o", "--output")
    parser.add_argument("--only", choices=VERSIONS["cuda"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    rows = []
    for temperature, bias in ((1.0, 0.0), (0.4, -1.386)):
        row = {"temperature": temperature}
        for only in VERSIONS[args.device]:
            names = ("device", "tokens", "hidden", "vocab", "rounds")
            run = [sys.executable, __file__, *(f"--{name}={getattr(args, name)}" for name in names)]
            run += [f"--bias={bias}", f"--only={only}"]
            env = os.environ | {"AUTODECO_COMPILE": str(int(only == "exact_compiled"))}
            output = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
            row[only] = json.loads(output.splitlines()[-1])
            print(temperature, only, row[only], file=sys.stderr)
        for only in VERSIONS[args.device][1:]:
            ratio = row[only]["tokens_per_second"] / row["plain"]["tokens_per_second"]
            row[f"speedup_{only}"] = round(ratio, 2)
        rows.append(row)
    report = {
        "tokens": args.tokens,
        "hidden": args.hidden,
        "vocab": args.vocab,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine() if args.device == "cpu" else torch.cuda.get_device_name(),
        "rows": rows,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()

"""Speed and memory of the exact losses against the plain ones: forward and backward to the heads, written as JSON.

python benchmarks/losses.py [-o losses.json]                              # SmolLM2's sizes, CPU
python benchmarks/losses.py --device cuda --tokens 4096 12288 32768 --vocab 151936 --hidden 3584 [-o losses-cuda.json]

Both get the same hidden states and output matrix, on a GPU bfloat16, as a model's are, and once float32 (without TF32).
The rival is the plain version in the largest batch that memory holds.
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
from autodeco.losses.exact import chunk_tokens, predict_and_score

# Random weights: logits spread by 4 give distributions somewhat less peaked than a model's.
SPREAD = 4.0
BIASES = {1.0: 0.0, 0.4: -1.386}  # of the temperature head, by the temperature that it then predicts
DTYPES = {"cpu": ["float32"], "cuda": ["bfloat16", "float32"]}


def plain_step(heads, hidden, weight, labels):
    """One backward pass of both plain losses over all tokens at once."""
    logits = (hidden @ weight.T).float()
    temperature, top_p = heads(hidden, logits)
    loss = losses.temperature_loss(logits, temperature, labels, easy_token_drop=0.0)
    (loss + losses.soft_top_p_loss(logits, temperature, top_p, labels)).backward()


def exact_step(heads, hidden, weight, labels):
    """The same with the exact losses, in chunks."""
    parts = []
    size = chunk_tokens(len(weight), hidden.device)
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        with torch.no_grad():
            logits = hidden[part] @ weight.T
        _, _, temperature_loss, top_p_loss, _ = predict_and_score(heads, hidden[part], logits, labels[part])
        parts.append(temperature_loss + top_p_loss)
    torch.cat(parts).mean().backward()


STEPS = {"plain": plain_step, "exact": exact_step}


def make_inputs(args):
    """Return heads, hidden states, output matrix and labels drawn from the model's distribution at temperature 1."""
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    weight = torch.randn(args.vocab, args.hidden, device=args.device).mul_(SPREAD / args.hidden**0.5).to(dtype)
    hidden = torch.randn(max(args.tokens), args.hidden, device=args.device).to(dtype)
    heads = Heads(args.hidden).to(args.device)
    labels = [torch.softmax((part @ weight.T).float(), -1).multinomial(1).squeeze(-1) for part in hidden.split(16)]
    return heads, hidden, weight, torch.cat(labels)


def memory(device: str) -> float:
    """Return the most memory used since the last ``forget_peak``, on a CPU since the start, in MiB."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def forget_peak(device: str) -> None:
    """Free what is cached and count the peak from here."""
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


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


def measure(name: str, tokens: int, inputs, args) -> dict:
    """Return tokens/s, how many tokens fitted, and peak memory beyond weights and inputs, in MiB."""
    heads, hidden, weight, labels = inputs
    while True:
        heads.zero_grad(set_to_none=True)
        forget_peak(args.device)
        before = memory(args.device)
        try:
            seconds = timed(STEPS[name], (heads, hidden[:tokens], weight, labels[:tokens]), args)
            break
        except torch.cuda.OutOfMemoryError:
            tokens = tokens * 7 // 8
    row = {"tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}
    return row | {"peak_mib": round(memory(args.device) - before)}


def compare(args) -> list[dict]:
    """Return a row for each temperature: the plain version, and the exact one with each number of tokens."""
    inputs, rows = make_inputs(args), []
    for temperature, bias in BIASES.items():
        if args.temperature not in (None, temperature):
            continue
        torch.nn.init.constant_(inputs[0].temp_head.mlp[2].bias, bias)
        row = {"dtype": args.dtype, "temperature": temperature}
        if args.only != "exact":
            row["plain"] = measure("plain", max(args.tokens), inputs, args)
        if args.only != "plain":
            row["exact"] = [measure("exact", tokens, inputs, args) for tokens in args.tokens]
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


def in_processes() -> list[dict]:
    """Return ``compare`` with a process for every measurement, since on a CPU a peak of memory never goes down."""
    rows = []
    for temperature in BIASES:
        row = {}
        for only in STEPS:
            run = [sys.executable, *sys.argv, f"--only={only}", f"--temperature={temperature}"]
            output = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
            row |= json.loads(output.splitlines()[-1])[0]
        rows.append(row)
    return rows


def main() -> None:
    """Compare and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=sorted(DTYPES), default="cpu")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256], help="plain gets the most of them that fit")
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output")
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--temperature", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        args.dtype = DTYPES[args.device][0]
        print(json.dumps(compare(args)))
        return
    rows = []
    for dtype in DTYPES[args.device]:
        args.dtype = dtype
        rows += in_processes() if args.device == "cpu" else compare(args)
    for row in rows:
        for exact in row["exact"]:
            exact["speedup"] = round(exact["tokens_per_second"] / row["plain"]["tokens_per_second"], 2)
    report = {
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

"""Measure tokens per second of heads against stock llama-cpp-python with a fixed temperature and top-p."""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

# what a user who tunes by hand would set, and what the heads' predictions are scaled to on average
STATIC = {"temp": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
TURN = 8  # tokens a sampler decodes before the next one's turn
PROMPT = "Once upon a time, in a small village by the sea, there lived an old woman who"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco bench``."""
    parser.add_argument("model", type=Path, metavar="MODEL.gguf", help="a model, or a merged file")
    parser.add_argument("--heads", type=Path, metavar="HEADS.gguf", help="heads for the model")
    parser.add_argument("-n", "--tokens", type=int, default=128, help="tokens a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, in turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="(default: half of the machine's)")
    parser.add_argument("--gpu-layers", type=int, default=0, help="layers on the GPU, -1: all (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write the figures there")


def measure(
    model: Path, heads: Path | None, tokens: int = 128, rounds: int = 7, threads: int | None = None, gpu_layers: int = 0
) -> dict:
    """Time ``tokens`` decode steps of each sampler, ``rounds`` times in this process; return a JSON-ready dict.

    Rates are tokens per second of decoding and sampling, without the prompt. The samplers take turns every few tokens,
    each in a context of its own over the same model file: the speed of a machine drifts over seconds, so that only
    neighbours can be compared. Multipliers bring the heads' mean to the fixed setting, so that nuclei are alike in
    size.
    """
    import llama_cpp
    from tqdm import tqdm

    from autodeco.base.opening import open_base
    from autodeco.llama.opening import open_llama

    context = len(PROMPT) + tokens + 8
    options = {"n_ctx": context, "n_threads": threads, "n_threads_batch": threads, "n_gpu_layers": gpu_layers}
    ours = open_llama(model, heads, **options)
    prompt = ours.tokenize(PROMPT.encode())

    def start(llm: llama_cpp.Llama, seed: int, settings: dict):
        llm.reset()
        llm.set_seed(seed)
        generator = llm.generate(prompt, **settings)
        next(generator)  # the prompt
        return generator

    generator = start(ours, 0, {})
    for _ in range(tokens):
        next(generator)
    generator.close()
    mean = ours.decoding
    scaled = {
        "temp": STATIC["temp"] / float(mean.temperature.mean()),
        "top_p": STATIC["top_p"] / float(mean.top_p.mean()),
    }
    candidates = {
        "stock_static": (open_base(model, **options), STATIC),
        "stock_defaults": (open_base(model, **options), {}),
        "autodeco": (ours, scaled),
    }
    names = list(candidates)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for seed in tqdm(range(rounds + 1), desc="bench", unit="round", disable=None):
        generators = {name: start(llm, seed, settings) for name, (llm, settings) in candidates.items()}
        seconds = dict.fromkeys(names, 0.0)
        for block in range(0, tokens, TURN):
            first = block // TURN % len(names)
            for name in names[first:] + names[:first]:
                begun = time.perf_counter()
                for _ in range(min(TURN, tokens - block)):
                    next(generators[name])
                seconds[name] += time.perf_counter() - begun
        for name, generator in generators.items():
            generator.close()
            if seed > 0:  # the first round warms up
                rates[name].append(tokens / seconds[name])
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "model": model.name,
        "settings": {
            "static": STATIC,
            "multipliers": scaled,
            "tokens": tokens,
            "rounds": rounds,
            "threads": threads,
            "gpu_layers": gpu_layers,
        },
        "tokens_per_second": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "median": {name: round(value, 2) for name, value in medians.items()},
        "ratio_over_static": round(medians["autodeco"] / medians["stock_static"], 4),
        "ratio_over_defaults": round(medians["autodeco"] / medians["stock_defaults"], 4),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, str]:
    """What figures were measured on."""
    from autodeco import native

    return {"processor": _processor(), "instructions": native.ISA, "system": platform.platform(terse=True)}


def versions() -> dict[str, str]:
    """What figures were measured with."""
    import llama_cpp

    from autodeco import __version__

    return {"autodeco": __version__, "llama-cpp-python": llama_cpp.__version__}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if (cpuinfo.exists())
        else []
    )
    return f"{names[0]} x {len(names)}" if names else platform.processor()


def run(args: argparse.Namespace) -> None:
    """Measure and print the medians and their ratio."""
    from autodeco.errors import InputError
    from autodeco.export.layout import open_layout
    from autodeco.runs.atomic import replacing
    from autodeco.settings.options import check_machine, check_whole

    check_whole("--tokens", args.tokens, 1)
    check_whole("--rounds", args.rounds, 1)
    check_machine(args.threads, args.gpu_layers)
    if args.output and (args.output.is_dir() or not args.output.parent.is_dir()):
        raise InputError(f"{args.output}: cannot be written; give a file in a folder that exists")
    if args.heads is None and open_layout(args.model).kind != "merged":
        raise InputError(f"{args.model}: has no heads; give --heads")
    result = measure(args.model, args.heads, args.tokens, args.rounds, args.threads, args.gpu_layers)
    report(result)
    if args.output:
        with replacing(args.output) as part:
            part.write_text(json.dumps(result, indent=2) + "\n")


def report(result: dict) -> None:
    """Print the figures of ``measure`` as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['model']}, tokens per second", title_justify="left")
    table.add_column("sampler")
    table.add_column("median", justify="right")
    table.add_column("range", justify="right")
    for name, values in result["tokens_per_second"].items():
        table.add_row(name.replace("_", " "), f"{result['median'][name]:.1f}", f"{min(values):.1f}-{max(values):.1f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"autodeco runs at {result['ratio_over_static']:.3f} x stock static (temp 0.8, top-p 0.95, top-k 0), "
        f"{result['ratio_over_defaults']:.3f} x stock defaults (top-k 40)"
    )

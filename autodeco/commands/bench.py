"""Measure tokens per second of heads against stock llama-cpp-python with a fixed temperature and top-p."""

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco.errors import InputError
from autodeco.settings.given import add_settings, given_settings
from autodeco.settings.machine import Machine
from autodeco.settings.options import Options, option

# what a user who tunes by hand would set, and what the heads' predictions are scaled to on average
STATIC = {"temp": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
TURN = 8  # tokens a sampler decodes before the next one's turn
PROMPT = "Once upon a time, in a small village by the sea, there lived an old woman who"


@dataclass(frozen=True)
class Files(Options):
    """The model and heads to measure, and the file for the figures."""

    model: Path = option(None, "a model, or a file that brings its heads", positional=True, metavar="MODEL.gguf")
    heads: Path | None = option(None, "heads for the model", metavar="HEADS.gguf")
    output: Path | None = option(None, "write the figures there", short="-o", metavar="FILE.json")


@dataclass(frozen=True)
class Runs(Options):
    """How much is measured."""

    tokens: int = option(128, "tokens a run", least=1, short="-n")
    rounds: int = option(7, "runs of each, in turn", least=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``autodeco bench``."""
    add_settings(parser, Files, Runs, Machine)


def measure(model: Path, heads: Path | None, runs: Runs, machine: Machine) -> dict:
    """Time ``runs.tokens`` decode steps of each sampler, ``runs.rounds`` times in this process; return a JSON-ready
    dict.

    Rates are tokens per second of decoding and sampling, without the prompt. The samplers take turns every few tokens,
    each in a context of its own over the same model file: the speed of a machine drifts over seconds, so that only
    neighbours can be compared. Multipliers bring the heads' mean to the fixed setting, so that nuclei are alike in
    size.
    """
    from autodeco.base.opening import open_base
    from autodeco.llama.opening import open_llama
    from autodeco.settings.program import bar

    tokens = runs.tokens
    options = {**machine.opening, "n_ctx": len(PROMPT) + tokens + 8}
    with_heads = open_llama(model, heads, **options)
    prompt = with_heads.tokenize(PROMPT.encode())
    scaled = _multipliers(with_heads, prompt, tokens)
    candidates = {
        "stock_static": (open_base(model, **options), STATIC),
        "stock_defaults": (open_base(model, **options), {}),
        "autodeco": (with_heads, scaled),
    }
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    with bar(runs.rounds + 1, 0, "round", "bench") as shown:
        for seed in range(runs.rounds + 1):
            seconds = _in_turn(candidates, prompt, seed, tokens)
            if seed > 0:  # the first round warms up
                for name in candidates:
                    rates[name].append(tokens / seconds[name])
            shown.update()
    return _figures(model, rates, {"static": STATIC, "multipliers": scaled, **asdict(runs), **asdict(machine)})


def _start(llm, prompt: list[int], seed: int, settings: dict):
    """Begin an answer; return the generator of its tokens after the first."""
    llm.reset()
    llm.set_seed(seed)
    generator = llm.generate(prompt, **settings)
    next(generator)  # the prompt
    return generator


def _multipliers(llm, prompt: list[int], tokens: int) -> dict[str, float]:
    """What brings the mean of the heads' predictions to the fixed setting."""
    generator = _start(llm, prompt, 0, {})
    for _ in range(tokens):
        next(generator)
    generator.close()
    mean = llm.decoding
    return {
        "temp": STATIC["temp"] / float(mean.temperature.mean()),
        "top_p": STATIC["top_p"] / float(mean.top_p.mean()),
    }


def _in_turn(candidates: dict, prompt: list[int], seed: int, tokens: int) -> dict[str, float]:
    """The seconds that each of ``candidates`` takes for ``tokens`` tokens, a few at a time."""
    names = list(candidates)
    generators = {name: _start(llm, prompt, seed, settings) for name, (llm, settings) in candidates.items()}
    seconds = dict.fromkeys(names, 0.0)
    for block in range(0, tokens, TURN):
        first = block // TURN % len(names)
        for name in names[first:] + names[:first]:
            begun = time.perf_counter()
            for _ in range(min(TURN, tokens - block)):
                next(generators[name])
            seconds[name] += time.perf_counter() - begun
    for generator in generators.values():
        generator.close()
    return seconds


def _figures(model: Path, rates: dict[str, list[float]], settings: dict) -> dict:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "model": model.name,
        "settings": settings,
        "tokens_per_second": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "median": {name: round(value, 2) for name, value in medians.items()},
        "ratio_over_static": round(medians["autodeco"] / medians["stock_static"], 4),
        "ratio_over_defaults": round(medians["autodeco"] / medians["stock_defaults"], 4),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, str]:
    """The machine that figures were measured on."""
    from autodeco import native

    return {"processor": _processor(), "instructions": native.ISA, "system": platform.platform(terse=True)}


def versions() -> dict[str, str]:
    """The versions of the programs that figures were measured with."""
    import llama_cpp

    from autodeco import __version__

    return {"autodeco": __version__, "llama-cpp-python": llama_cpp.__version__}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if "model name" in line
        ]
        if (cpuinfo.exists())
        else []
    )
    return f"{names[0]} x {len(names)}" if names else platform.processor()


def run(args: argparse.Namespace) -> None:
    """Measure and print the medians and their ratio."""
    from autodeco.export.layout import open_layout
    from autodeco.runs.atomic import replacing

    files, runs, machine = given_settings(args, Files, Runs, Machine)
    if files.output and (files.output.is_dir() or not files.output.parent.is_dir()):
        raise InputError(f"{files.output}: cannot be written; give a file in a folder that exists")
    if files.heads is None and not open_layout(files.model).brings_heads:
        raise InputError(f"{files.model}: has no heads; give --heads")
    result = measure(files.model, files.heads, runs, machine)
    report(result)
    if files.output:
        with replacing(files.output) as part:
            part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


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

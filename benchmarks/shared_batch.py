"""What answers to the same prompts cost beside the model: finding the slot that holds a prompt, and draws of one row.

    python benchmarks/shared_batch.py [-o benchmarks/results/shared_batch.json]

Each in turn with what it is compared to, in one process, without a model. Admission: 256 slots hold 16 prompts of 1,000
tokens, half of each in common, and answers; compared to a loop over the tokens of every slot. Draws: 128 answers from 8
rows of 151,936 logits with a setting a row; compared to a copy of the row for each answer. Seconds are of the process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from autodeco.batch.context import BatchContext, Slot
from autodeco.commands.bench import machine, versions
from autodeco.native import nucleus_sample
from autodeco.runs.atomic import replacing

RESULT = Path(__file__).parent / "results" / "shared_batch.json"
SLOTS, PROMPTS, TOKENS, ANSWER = 256, 16, 1000, 200
ANSWERS, ROWS, VOCAB = 128, 8, 151_936


def admissions() -> dict[str, Callable[[], int]]:
    """Both ways to find the slot that holds most of each prompt; they return the sum of what is found."""
    rng = np.random.default_rng(1)
    common = rng.integers(0, 50_000, TOKENS // 2).tolist()
    prompts = [(*common, *rng.integers(0, 50_000, TOKENS - len(common)).tolist()) for _ in range(PROMPTS)]
    context = object.__new__(BatchContext)  # without llama.cpp's part
    context._can_cut, context._window, context.slots = True, 0, [Slot(seq) for seq in range(SLOTS)]
    for slot in context.slots:
        slot.prompt = prompts[slot.seq % (PROMPTS - 1)]  # nobody holds the last one
        slot.held = [*slot.prompt, *rng.integers(0, 50_000, ANSWER).tolist()]

    def walk(slot: Slot, prompt: list[int]) -> int:
        pairs = zip(slot.held, prompt, strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(slot.held), len(prompt)))

    def before() -> int:
        return sum(max(walk(slot, list(prompt[:-1])) for slot in context.slots) for prompt in prompts)

    def now() -> int:
        return sum(context.fullest(context.slots, prompt)[1] for prompt in prompts)

    return {"before": before, "now": now}


def draws() -> dict[str, Callable[[], int]]:
    """Both ways to draw; they return the sum of the tokens."""
    rng = np.random.default_rng(2)
    logits = (3 * rng.standard_normal((ROWS, VOCAB))).astype(np.float32)
    index = np.repeat(np.arange(ROWS), ANSWERS // ROWS)
    temperature, top_p = rng.uniform(0.5, 1.2, ROWS)[index], rng.uniform(0.7, 1.0, ROWS)[index]
    u = rng.random(ANSWERS)
    return {
        "before": lambda: int(nucleus_sample(logits[index], temperature, top_p, u).sum()),
        "now": lambda: int(nucleus_sample(logits, temperature, top_p, u, index).sum()),
    }


def measure(ways: dict[str, Callable[[], int]], rounds: int, label: str) -> dict:
    """Seconds of each way in each round, in turn, and the ratio of their medians; both must find the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc=label, unit="round", disable=None):
        found = set()
        for name, way in ways.items():
            start = time.process_time()
            found.add(way())
            seconds[name].append(round(time.process_time() - start, 6))
        assert len(found) == 1, found
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {"seconds": seconds, "median": median, "ratio": round(median["before"] / median["now"], 2)}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    result = {
        "admission": measure(admissions(), args.rounds, "admission"),
        "draws": measure(draws(), args.rounds, "draws"),
        "settings": {
            "slots": SLOTS,
            "prompts": PROMPTS,
            "tokens": TOKENS,
            "answers": ANSWERS,
            "rows": ROWS,
            "vocabulary": VOCAB,
        },
        "machine": machine(),
        "versions": versions(),
    }
    print(
        json.dumps({name: {key: result[name][key] for key in ("median", "ratio")} for name in ("admission", "draws")})
    )
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()

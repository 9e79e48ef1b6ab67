"""Batched generation on SmolLM2-135M: 16 sequences in one context against one stream, in turn in one process.

    python benchmarks/batch.py

Uses the golden heads of tests/golden. The limit beside the figures is the rate at which llama.cpp reads a long prompt
in the same rounds: a batch so large that the weights cost nothing, and no draw. Also says how often an answer is the
same text when it is generated in batches of another size, with the same random numbers. With --busy it counts the
processor time of one thread, which other work on the machine disturbs little; two threads that share their cores with
other work wait for each other most of the time. Writes benchmarks/results/batch.json.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from autodeco.base.opening import default_model
from autodeco.base.tokenizer import Tokenizer
from autodeco.batch import Sampling, generate
from autodeco.commands.bench import machine, versions
from autodeco.export import cli as export_cli
from autodeco.llama.opening import open_llama
from autodeco.llama.streaming import stream
from autodeco.runs.atomic import replacing

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "batch.json"
TOPICS = ("the sea", "a garden", "two friends", "winter", "a lost letter", "the moon", "an old clock", "a long road")
SLOTS = (1, 4, 16)
READ = 448  # tokens of the prompt that is only read
SETTINGS = {"heads": Sampling(), "static": Sampling(0.8, 0.95, heads="none"), "greedy": Sampling(0.0, heads="none")}


def rates(llm, rounds: int, tokens: int, clock: Callable[[], float]) -> dict:
    """Tokens per second, by ``clock``, of one stream and of 16 sequences with each setting, prompts included: one of
    about 40 tokens for the stream, and the same one, shared, for the sequences; and of reading a prompt of 448."""
    messages = [{"role": "user", "content": f"Tell me a long story about {TOPICS[0]}."}]
    prompt = Tokenizer(llm).prompt_ids(messages)

    def one_stream(seed: int) -> float:
        llm.reset()
        start = clock()
        count = sum(1 for _ in stream(llm, prompt, tokens, seed))
        return count / (clock() - start)

    def batch(sampling: Sampling, seed: int) -> float:
        start = clock()
        answers = generate(llm, [prompt], 16, sampling, max_tokens=tokens, seed=seed, slots=16)
        return sum(len(answer.decoding) for answer in answers) / (clock() - start)

    def reading(seed: int) -> float:
        llm.reset()
        start = clock()
        llm.eval([1 + (seed + i) % 1000 for i in range(READ)])
        return READ / (clock() - start)

    found: dict[str, list[float]] = {name: [] for name in ("one_stream", *SETTINGS, "reading")}
    for seed in tqdm(range(rounds + 1), desc="rates", unit="round", disable=None):
        measured = {"one_stream": one_stream(seed), **{name: batch(s, seed) for name, s in SETTINGS.items()}}
        measured["reading"] = reading(seed)
        if seed > 0:  # the first round warms up
            for name, value in measured.items():
                found[name].append(round(value, 2))
    median = {name: round(statistics.median(values), 2) for name, values in found.items()}
    return {
        "tokens_per_second": found,
        "median": median,
        "ratio_over_one_stream": {name: round(median[name] / median["one_stream"], 3) for name in SETTINGS},
        "share_of_reading": {name: round(median[name] / median["reading"], 3) for name in SETTINGS},
    }


def same_texts(llm, tokens: int) -> dict:
    """Share of answers, of 32 with each setting, that are the same text in batches of one size and of another."""
    prompts = [[{"role": "user", "content": f"Tell me something about {topic}."}] for topic in TOPICS]
    shares = {}
    for name, sampling in SETTINGS.items():
        texts = {}
        for slots in SLOTS:
            answers = generate(llm, prompts, 4, sampling, max_tokens=tokens, slots=slots)
            texts[slots] = {(answer.prompt, answer.sample): answer.text for answer in answers}
        for a, b in itertools.combinations(SLOTS, 2):
            same = [texts[a][key] == texts[b][key] for key in texts[a]]
            shares.setdefault(name, {})[f"{a} and {b} slots"] = round(sum(same) / len(same), 3)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="one thread, by its processor time")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    args = parser.parse_args()
    threads = 1 if args.busy else args.threads
    model = default_model()
    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder) / "heads.gguf"
        export_cli.main([str(ROOT / "tests/golden/smollm2.heads.safetensors"), "--base", str(model), "-o", str(heads)])
        llm = open_llama(model, heads, n_ctx=512, n_threads=threads, n_threads_batch=threads)
        result = {
            "model": model.name,
            "settings": {"tokens": args.tokens, "rounds": args.rounds, "threads": threads},
            "clock": "processor time" if args.busy else "wall",
            **rates(llm, args.rounds, args.tokens, time.process_time if args.busy else time.perf_counter),
            "same_text_share": same_texts(llm, 24),
            "machine": machine(),
            "versions": versions(),
        }
        llm.close()
    shown = ("median", "ratio_over_one_stream", "share_of_reading", "same_text_share")
    print(json.dumps({name: result[name] for name in shown}, indent=2))
    with replacing(args.output) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
